//! The HTTP API and the page, on loopback unless the operator says otherwise.
//!
//! In: the newest [`View`](crate::view::View), the [`Board`] of what central and the agents say of themselves, and the
//! books of all records. Out: JSON as `assets/openapi.json` describes it, HTML, and events.
//! It reads and never changes anything.

use std::convert::Infallible;
use std::sync::Arc;

use axum::Router;
use axum::extract::{FromRef, Path, Query, State};
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::sse::{Event, KeepAlive, Sse};
use axum::response::{Html, IntoResponse, Json, Response};
use axum::routing::get;
use serde::{Deserialize, Serialize};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_stream::wrappers::WatchStream;
use tokio_stream::{Stream, StreamExt};

use crate::books::{self, Books};
use crate::dashboard;
use crate::health::{Board, Counter};
use crate::http::Door;
use crate::impact::chart::Chart;
use crate::incident::Incident;
use crate::view::{SiteView, View, ViewReader};

/// The page may load its own files and talk to this server, and nothing else.
const CONTENT_SECURITY_POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self'; base-uri 'none'; \
     form-action 'none'; frame-ancestors 'none'";

/// When whoever found no place for a stream of events may ask again, in seconds.
const STREAM_RETRY_S: &str = "15";

/// Readers of the books at a time; the others wait.
const BOOKS_READ_MAX: usize = 2;

/// Days of them, unless the question names the first.
const BOOKS_DAYS: u32 = 7;

const DAY_MS: u64 = 24 * 60 * 60 * 1_000;

/// Everything that this server answers.
pub fn router(view: ViewReader, board: Arc<Board>, door: Arc<Door>, books: books::Reader) -> Router {
    let reading = Arc::new(Semaphore::new(BOOKS_READ_MAX));
    Router::new()
        .route("/", get(page))
        .route("/fragments/overview", get(overview))
        .route("/fragments/incidents/{id}", get(detail))
        .route("/api/v1/incidents", get(incidents))
        .route("/api/v1/incidents/{id}", get(incident))
        .route("/api/v1/sites", get(sites))
        .route("/api/v1/health", get(health))
        .route("/api/v1/records", get(records))
        .route("/records", get(records_page))
        .route("/api/v1/events", get(events))
        .route("/api/v1/openapi.json", get(openapi))
        .route("/assets/{*name}", get(asset))
        .route("/healthz", get(|| async { "ok\n" }))
        .with_state(Sources {
            view,
            board,
            door,
            books,
            reading,
        })
}

/// What the answers are made of.
#[derive(Clone)]
struct Sources {
    view: ViewReader,
    board: Arc<Board>,
    door: Arc<Door>,
    books: books::Reader,
    /// Places for reading them.
    reading: Arc<Semaphore>,
}

impl FromRef<Sources> for ViewReader {
    fn from_ref(sources: &Sources) -> Self {
        sources.view.clone()
    }
}

/// Answer of `/api/v1/incidents`.
#[derive(Serialize)]
struct Incidents<'a> {
    now_ms: u64,
    incidents: &'a [Incident],
}

/// Answer of `/api/v1/incidents/{id}`.
#[derive(Serialize)]
struct IncidentWithChart<'a> {
    now_ms: u64,
    incident: &'a Incident,
    chart: Option<&'a Chart>,
}

/// Answer of `/api/v1/sites`.
#[derive(Serialize)]
struct Sites<'a> {
    now_ms: u64,
    sites: &'a [SiteView],
}

#[derive(Deserialize)]
struct Since {
    /// Days since 1970, UTC.
    from_day: Option<u32>,
}

#[derive(Deserialize)]
struct Selection {
    incident: Option<String>,
}

async fn page(State(sources): State<Sources>, Query(selection): Query<Selection>) -> Response {
    let (view, problems) = (current(&sources.view), sources.board.health().problems);
    guarded(Html(dashboard::page(&view, &problems, selection.incident.as_deref())).into_response())
}

async fn overview(State(sources): State<Sources>, Query(selection): Query<Selection>) -> Response {
    let (view, problems) = (current(&sources.view), sources.board.health().problems);
    guarded(Html(dashboard::overview(&view, &problems, selection.incident.as_deref())).into_response())
}

async fn health(State(sources): State<Sources>) -> Response {
    let mut health = sources.board.health();
    let counter = |(name, value)| Counter {
        part: "impact",
        name,
        value,
    };
    health
        .counters
        .extend(current(&sources.view).counters.all().into_iter().map(counter));
    guarded(Json(health).into_response())
}

async fn records(State(sources): State<Sources>, Query(since): Query<Since>) -> Response {
    match sources.books(since.from_day).await {
        Ok(books) => guarded(Json(books).into_response()),
        Err(failed) => *failed,
    }
}

async fn records_page(State(sources): State<Sources>, Query(since): Query<Since>) -> Response {
    match sources.books(since.from_day).await {
        Ok(books) => guarded(Html(dashboard::records(&books)).into_response()),
        Err(failed) => *failed,
    }
}

impl Sources {
    /// The books of the last days, read beside everything else.
    async fn books(&self, from_day: Option<u32>) -> Result<Books, Box<Response>> {
        let today = u32::try_from(current(&self.view).now_ms / DAY_MS).unwrap_or(u32::MAX);
        let from_day = from_day.unwrap_or(today.saturating_sub(BOOKS_DAYS - 1));
        let _place = self.reading.acquire().await;
        let books = Arc::clone(&self.books);
        let read = tokio::task::spawn_blocking(move || books(from_day)).await;
        let failed = match read {
            Ok(Ok(books)) => return Ok(books),
            Ok(Err(error)) => error.to_string(),
            Err(ended) => ended.to_string(),
        };
        let answer = (StatusCode::SERVICE_UNAVAILABLE, format!("{failed}\n"));
        Err(Box::new(guarded(answer.into_response())))
    }
}

async fn detail(State(view): State<ViewReader>, Path(id): Path<String>) -> Response {
    let view = current(&view);
    match find(&view, &id) {
        Some(incident) => guarded(Html(dashboard::detail(&view, incident)).into_response()),
        None => not_found(&id),
    }
}

async fn incidents(State(view): State<ViewReader>) -> Response {
    let view = current(&view);
    guarded(
        Json(Incidents {
            now_ms: view.now_ms,
            incidents: &view.incidents,
        })
        .into_response(),
    )
}

async fn incident(State(view): State<ViewReader>, Path(id): Path<String>) -> Response {
    let view = current(&view);
    match find(&view, &id) {
        Some(incident) => {
            let answer = IncidentWithChart {
                now_ms: view.now_ms,
                incident,
                chart: view.charts.get(&incident.id).map(Arc::as_ref),
            };
            guarded(Json(answer).into_response())
        }
        None => not_found(&id),
    }
}

async fn sites(State(view): State<ViewReader>) -> Response {
    let view = current(&view);
    guarded(
        Json(Sites {
            now_ms: view.now_ms,
            sites: &view.sites,
        })
        .into_response(),
    )
}

/// One event for each new picture; its data is the event time of the picture.
async fn events(State(sources): State<Sources>) -> Response {
    let Some(place) = sources.door.stream() else {
        let later = [(header::RETRY_AFTER, STREAM_RETRY_S)];
        return guarded((StatusCode::SERVICE_UNAVAILABLE, later, "as many listen as may\n").into_response());
    };
    Sse::new(changes(sources.view, place))
        .keep_alive(KeepAlive::default())
        .into_response()
}

/// The place is held until the stream ends.
fn changes(view: ViewReader, place: OwnedSemaphorePermit) -> impl Stream<Item = Result<Event, Infallible>> {
    WatchStream::new(view).map(move |view| {
        let _held = &place;
        Ok(Event::default().event("view").data(view.now_ms.to_string()))
    })
}

async fn openapi() -> Response {
    typed("application/json", include_str!("../assets/openapi.json"))
}

async fn asset(Path(name): Path<String>) -> Response {
    match name.as_str() {
        "app.js" => typed("text/javascript", include_str!("../assets/app.js")),
        "style.css" => typed("text/css", include_str!("../assets/style.css")),
        "icon.svg" => typed("image/svg+xml", include_str!("../assets/icon.svg")),
        "vendor/uplot.js" => typed("text/javascript", include_str!("../assets/vendor/uplot.js")),
        "vendor/uplot.css" => typed("text/css", include_str!("../assets/vendor/uplot.css")),
        _ => not_found(&name),
    }
}

fn typed(kind: &'static str, text: &'static str) -> Response {
    guarded(([(header::CONTENT_TYPE, kind)], text).into_response())
}

fn current(view: &ViewReader) -> Arc<View> {
    view.borrow().clone()
}

fn find<'a>(view: &'a View, id: &str) -> Option<&'a Incident> {
    view.incidents.iter().find(|incident| incident.id == id)
}

fn not_found(what: &str) -> Response {
    let text = serde_json::json!({ "error": "not found", "what": what.chars().take(64).collect::<String>() });
    guarded((StatusCode::NOT_FOUND, Json(text)).into_response())
}

fn guarded(mut response: Response) -> Response {
    let headers = response.headers_mut();
    headers.insert(
        header::CONTENT_SECURITY_POLICY,
        HeaderValue::from_static(CONTENT_SECURITY_POLICY),
    );
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    headers.insert(header::REFERRER_POLICY, HeaderValue::from_static("no-referrer"));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-cache"));
    response
}

#[cfg(test)]
mod tests {
    use axum::body::{Body, to_bytes};
    use axum::http::Request;
    use serde_json::Value;
    use tillwatch_feed::message::{self, ClockReading};
    use tower::ServiceExt as _;

    use super::*;
    use crate::http::Limits;
    use crate::view::{self, examples};

    async fn answer(path: &str) -> (StatusCode, Response<Body>) {
        let (sender, reader) = view::channel();
        sender.send_replace(Arc::new(examples::one_incident()));
        let request = Request::get(path).body(Body::empty()).unwrap();
        let response = router(reader, board(), door(1), books())
            .oneshot(request)
            .await
            .unwrap();
        (response.status(), response)
    }

    fn door(streams_max: usize) -> Arc<Door> {
        let limits = Limits {
            streams_max,
            ..Limits::default()
        };
        Arc::new(Door::new(limits, Vec::new()))
    }

    #[tokio::test]
    async fn streams_of_events_are_bounded_and_one_that_ends_gives_its_place_to_the_next() {
        let (_sender, reader) = view::channel();
        let router = router(reader, board(), door(1), books());
        let listen = || {
            let request = Request::get("/api/v1/events").body(Body::empty()).unwrap();
            router.clone().oneshot(request)
        };
        let first = listen().await.unwrap();
        assert_eq!(first.status(), StatusCode::OK);
        let second = listen().await.unwrap();
        assert_eq!(second.status(), StatusCode::SERVICE_UNAVAILABLE);
        assert!(second.headers().contains_key(header::RETRY_AFTER));
        drop(first);
        assert_eq!(listen().await.unwrap().status(), StatusCode::OK);
    }

    /// One store that misses a record, asked for the days of the example.
    fn books() -> books::Reader {
        let figures = books::Day {
            produced: 9,
            received: 7,
            accounted: 1,
            missing: 1,
        };
        let site = "<store>".to_owned();
        Arc::new(move |from_day| {
            let line = books::Line {
                site: site.clone(),
                day: from_day,
                figures,
            };
            Ok(Books {
                lines: vec![line],
                contradictions: vec![site.clone()],
            })
        })
    }

    #[tokio::test]
    async fn the_books_are_shown_with_what_does_not_balance_marked() {
        let today = u32::try_from(examples::one_incident().now_ms / DAY_MS).unwrap();
        let read: Value = serde_json::from_str(&text("/api/v1/records").await).unwrap();
        assert_eq!(read["lines"][0]["day"], today - 6);
        assert_eq!(read["lines"][0]["missing"], 1);
        assert_eq!(read["contradictions"][0], "<store>");
        let read: Value = serde_json::from_str(&text("/api/v1/records?from_day=3").await).unwrap();
        assert_eq!(read["lines"][0]["day"], 3);
        let page = text("/records?from_day=3").await;
        assert!(
            page.contains("<tr class=\"open\"><td>&lt;store&gt;</td><td>1970-01-04</td>"),
            "{page}"
        );
        assert!(page.contains("counted differently"), "{page}");
    }

    /// One store, with everything that there is to say, whose name no model has.
    fn board() -> Arc<Board> {
        let board = Board::default();
        board.tell_time(1);
        board.count("receive", || vec![("messages", 3)]);
        let state = message::State {
            online: true,
            generation: 1,
            birth_number: 1,
            agent_version: "0.1.0".to_owned(),
            clock: ClockReading::default(),
            spool_records: 1,
            spool_bytes: 2,
            ..message::State::default()
        };
        board.state_came(&"new-1".parse().unwrap(), state);
        Arc::new(board)
    }

    async fn text(path: &str) -> String {
        let bytes = to_bytes(answer(path).await.1.into_body(), 1 << 20).await.unwrap();
        String::from_utf8(bytes.to_vec()).unwrap()
    }

    fn described() -> Value {
        serde_json::from_str(include_str!("../assets/openapi.json")).unwrap()
    }

    /// The page's own ways are nobody else's.
    #[test]
    fn every_way_to_the_api_is_described_with_the_refusal_of_other_hosts() {
        let source = include_str!("api.rs");
        let routes = source.lines().filter_map(|line| line.trim().strip_prefix(".route(\""));
        let routes = routes.filter_map(|route| Some(route.split_once('"')?.0));
        let ours: Vec<&str> = routes
            .filter(|route| route.starts_with("/api/") || *route == "/healthz")
            .collect();
        assert_eq!(ours.len(), described()["paths"].as_object().unwrap().len());
        for route in ours {
            let responses = &described()["paths"][route]["get"]["responses"];
            assert!(responses["421"].is_object(), "{route}");
        }
    }

    /// Faults of `value` against `schema`, by the few words of JSON Schema that the description uses.
    fn faults(value: &Value, schema: &Value, all: &Value, path: &str) -> Vec<String> {
        if let Some(reference) = schema["$ref"].as_str() {
            let name = reference.rsplit('/').next().unwrap();
            return faults(value, &all["components"]["schemas"][name], all, path);
        }
        if let Some(choices) = schema["anyOf"].as_array() {
            let best = choices
                .iter()
                .map(|choice| faults(value, choice, all, path))
                .min_by_key(Vec::len);
            return best.unwrap_or_default();
        }
        let types: Vec<&str> = match &schema["type"] {
            Value::String(one) => vec![one],
            many => many
                .as_array()
                .unwrap()
                .iter()
                .map(|one| one.as_str().unwrap())
                .collect(),
        };
        let is = match value {
            Value::Null => "null",
            Value::Bool(_) => "boolean",
            Value::Number(number) if number.is_f64() => "number",
            Value::Number(_) => "integer",
            Value::String(_) => "string",
            Value::Array(_) => "array",
            Value::Object(_) => "object",
        };
        let fits = types.contains(&is) || (is == "integer" && types.contains(&"number"));
        if !fits {
            return vec![format!("{path} is {is} and not {types:?}")];
        }
        let allowed = schema["enum"].as_array();
        let mut found = Vec::new();
        if allowed.is_some_and(|allowed| !allowed.contains(value)) {
            found.push(format!("{path} is {value}"));
        }
        for (index, item) in value.as_array().into_iter().flatten().enumerate() {
            found.extend(faults(item, &schema["items"], all, &format!("{path}[{index}]")));
        }
        if let Some(object) = value.as_object() {
            let properties = schema["properties"].as_object().unwrap();
            found.extend(
                properties
                    .keys()
                    .filter(|key| !object.contains_key(*key))
                    .map(|key| format!("{path}.{key} is missing")),
            );
            for (key, item) in object {
                match properties.get(key) {
                    Some(property) => found.extend(faults(item, property, all, &format!("{path}.{key}"))),
                    None => found.push(format!("{path}.{key} is not described")),
                }
            }
        }
        found
    }

    #[tokio::test]
    async fn every_json_answer_is_as_described() {
        let all = described();
        for (path, item) in all["paths"].as_object().unwrap() {
            let schema = &item["get"]["responses"]["200"]["content"]["application/json"]["schema"];
            if schema["$ref"].is_null() {
                continue;
            }
            let value: Value = serde_json::from_str(&text(&path.replace("{id}", "i1")).await).unwrap();
            assert_eq!(faults(&value, schema, &all, path), Vec::<String>::new());
        }
    }

    #[tokio::test]
    async fn every_described_path_answers() {
        for path in described()["paths"].as_object().unwrap().keys() {
            assert_eq!(answer(&path.replace("{id}", "i1")).await.0, StatusCode::OK, "{path}");
        }
    }

    #[tokio::test]
    async fn health_has_the_counters_of_all_parts() {
        let health: Value = serde_json::from_str(&text("/api/v1/health").await).unwrap();
        let parts: Vec<_> = health["counters"]
            .as_array()
            .unwrap()
            .iter()
            .map(|c| &c["part"])
            .collect();
        for part in ["receive", "impact", "health"] {
            assert!(parts.iter().any(|found| *found == part), "{part} is not in {parts:?}");
        }
    }

    #[tokio::test]
    async fn the_page_says_what_is_wrong_with_central_and_the_agents() {
        let wanted = "1 store not in the model, so without a price: new-1";
        assert!(text("/").await.contains(wanted));
        assert!(text("/fragments/overview").await.contains(wanted));
        let calm = dashboard::overview(&examples::one_incident(), &[], None);
        assert!(!calm.contains("problems"), "nothing is said when nothing is wrong");
    }

    #[tokio::test]
    async fn an_unknown_incident_is_not_found() {
        assert_eq!(answer("/api/v1/incidents/none").await.0, StatusCode::NOT_FOUND);
        assert_eq!(answer("/fragments/incidents/none").await.0, StatusCode::NOT_FOUND);
    }

    #[tokio::test]
    async fn a_page_may_run_no_script_but_its_own() {
        let (_, response) = answer("/").await;
        let policy = response.headers()[header::CONTENT_SECURITY_POLICY].to_str().unwrap();
        assert!(
            policy.contains("script-src 'self'") && !policy.contains("unsafe"),
            "{policy}"
        );
    }

    #[tokio::test]
    async fn the_page_shows_cause_price_and_interval_and_escapes_names() {
        let page = text("/").await;
        for wanted in [
            "Queue to the mainframe",
            "north",
            "24\u{202f}310",
            "18\u{202f}000",
            "&lt;b&gt;evil",
        ] {
            assert!(page.contains(wanted), "{wanted} is not on the page");
        }
        assert!(!page.contains("<b>evil"));
    }
}
