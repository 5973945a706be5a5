//! The page as HTML: the ranked incidents, one incident with its evidence, and the grid of sites.
//!
//! In: a [`View`]. Out: text in which everything from outside is escaped.
//! The browser's module only swaps these fragments and draws the charts; it renders nothing of its own.

mod html;

use std::collections::BTreeMap;
use std::fmt::Write as _;

use jiff::civil::Date;
use jiff::tz::TimeZone;
use jiff::{Timestamp, ToSpan as _};

use crate::books::{Books, Day, Line};
use crate::incident::{Alternative, Cause, Cost, Incident, PriceState, Reach, Status};
use crate::view::{SiteState, SiteView, View};
use html::{escape, grouped, money, plural};

/// Lines of the books that the page shows.
const RECORD_LINES_MAX: usize = 1_000;

/// The whole page with one incident selected: the wanted one, else the first.
pub fn page(view: &View, problems: &[String], wanted: Option<&str>) -> String {
    let detail = selected(view, wanted).map_or_else(nothing_open, |incident| detail(view, incident));
    format!(
        r#"<!doctype html>
<html lang="en" data-time-zone="{}">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>Tillwatch: what slow tills cost</title>
<link rel="icon" href="/assets/icon.svg" type="image/svg+xml">
<link rel="stylesheet" href="/assets/vendor/uplot.css">
<link rel="stylesheet" href="/assets/style.css">
<script type="module" src="/assets/app.js"></script>
</head>
<body>
<header class="bar"><img src="/assets/icon.svg" alt="" width="28" height="28"><h1>Tillwatch</h1>
<p><a href="/records">records</a></p><p class="connection" id="connection" role="status">live</p></header>
<main>
<div id="overview">{}</div>
<article id="detail" aria-live="off">{detail}</article>
</main>
</body>
</html>
"#,
        escape(view.zone.iana_name().unwrap_or("UTC")),
        overview(view, problems, wanted)
    )
}

/// What each store made on each day and what became of it; what does not balance first.
pub fn records(books: &Books) -> String {
    let mut rows = String::new();
    let balanced = books.lines.iter().filter(|line| line.figures.missing == 0);
    for line in books.open().chain(balanced).take(RECORD_LINES_MAX) {
        rows += &record_row(line);
    }
    let more = books.lines.len().saturating_sub(RECORD_LINES_MAX);
    let problems: Vec<String> = [
        (!books.contradictions.is_empty()).then(|| {
            let sites = books.contradictions.join(", ");
            format!("days and generations were counted differently: {sites}")
        }),
        (more > 0).then(|| format!("{more} lines more are at /api/v1/records")),
    ]
    .into_iter()
    .flatten()
    .collect();
    format!(
        "<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\">\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\"><title>Tillwatch: records</title>\
         <link rel=\"icon\" href=\"/assets/icon.svg\" type=\"image/svg+xml\">\
         <link rel=\"stylesheet\" href=\"/assets/style.css\"></head><body><header class=\"bar\"><h1>Tillwatch</h1>\
         <p><a href=\"/\">incidents</a></p></header><main>{}\
         <section aria-labelledby=\"records\"><h2 id=\"records\">Records: received + accounted for = produced</h2>\
         <div class=\"scroll\"><table class=\"ranked records\"><thead><tr><th scope=\"col\">Store</th>\
         <th scope=\"col\">Day (UTC)</th><th scope=\"col\" class=\"number\">Produced</th>\
         <th scope=\"col\" class=\"number\">Received</th><th scope=\"col\" class=\"number\">Accounted for as lost</th>\
         <th scope=\"col\" class=\"number\">Missing</th></tr></thead><tbody>{rows}</tbody></table></div></section>\
         </main></body></html>\n",
        list("problems", &problems),
    )
}

fn record_row(line: &Line) -> String {
    let Day {
        produced,
        received,
        accounted,
        missing,
    } = line.figures;
    let class = if missing > 0 { " class=\"open\"" } else { "" };
    let cell = |number: u64| format!("<td class=\"number\">{}</td>", grouped(number));
    let date = Date::constant(1970, 1, 1).checked_add(i64::from(line.day).days());
    format!(
        "<tr{class}><td>{}</td><td>{}</td>{}{}{}{}</tr>",
        escape(&line.site),
        date.map_or_else(|_beyond| line.day.to_string(), |date| date.to_string()),
        cell(produced),
        cell(received),
        cell(accounted),
        cell(missing),
    )
}

/// Headline figures, what is wrong with Tillwatch itself, the ranked table and the grid of sites.
pub fn overview(view: &View, problems: &[String], wanted: Option<&str>) -> String {
    let selected = selected(view, wanted).map(|incident| incident.id.as_str());
    format!(
        "{}{}{}{}",
        headline(view),
        list("problems", problems),
        ranked(view, selected),
        grid(view)
    )
}

/// One incident: what, where, how much, why, and how it looked.
pub fn detail(view: &View, incident: &Incident) -> String {
    let mut text = format!(
        "<header class=\"incident\" data-incident=\"{}\"><p class=\"kicker\">#{} · {} · {}</p><h2>{}</h2><p class=\"price {}\">{}</p>{}</header>",
        escape(&incident.id),
        incident.rank,
        status(incident),
        escape(&when(view, incident)),
        escape(&title(&incident.cause)),
        price_class(incident),
        price_line(incident),
        price_explained(incident),
    );
    text += &chain(incident);
    if view.charts.contains_key(&incident.id) {
        text += "<section class=\"charts\" id=\"charts\" aria-label=\"Charts\"></section>";
    }
    text += &evidence(incident);
    text += &alternatives(&incident.alternatives);
    text
}

fn selected<'a>(view: &'a View, wanted: Option<&str>) -> Option<&'a Incident> {
    let wanted = wanted.and_then(|id| view.incidents.iter().find(|incident| incident.id == id));
    wanted.or_else(|| view.incidents.first())
}

fn nothing_open() -> String {
    "<p class=\"empty\">Nothing is unusual. An incident appears here with its cause and its price.</p>".to_owned()
}

fn headline(view: &View) -> String {
    let open = view
        .incidents
        .iter()
        .filter(|incident| incident.status == Status::Open)
        .count();
    let reporting = view
        .sites
        .iter()
        .filter(|site| !matches!(site.state, SiteState::Silent | SiteState::Never))
        .count();
    let anomalies: u32 = view.sites.iter().map(|site| site.anomalies).sum();
    let mut costs: BTreeMap<&str, i64> = BTreeMap::new();
    for cost in view.incidents.iter().filter_map(|incident| incident.cost.as_ref()) {
        let sum = costs.entry(&cost.currency).or_default();
        *sum = sum.saturating_add(cost.estimate_minor);
    }
    let lost = costs
        .iter()
        .map(|(currency, sum)| money(*sum, currency))
        .collect::<Vec<_>>()
        .join(" + ");
    let lost = if lost.is_empty() { "0".to_owned() } else { lost };
    let tile = |label: &str, value: &str, class: &str| {
        format!(
            "<div class=\"tile {class}\"><dt>{label}</dt><dd>{}</dd></div>",
            escape(value)
        )
    };
    format!(
        "<dl class=\"tiles\">{}{}{}{}{}</dl>",
        tile("Lost sales", &lost, if costs.is_empty() { "" } else { "hot" }),
        tile("Incidents", &open.to_string(), ""),
        tile("Reporting", &format!("{reporting} of {}", view.sites.len()), ""),
        tile("Anomalies", &anomalies.to_string(), ""),
        tile("As of", &clock(view.now_ms, &view.zone), ""),
    )
}

fn ranked(view: &View, selected: Option<&str>) -> String {
    let mut text = String::from(
        "<section aria-labelledby=\"ranked\"><h2 id=\"ranked\">Incidents by cost</h2><div class=\"scroll\"><table class=\"ranked\"><thead><tr><th scope=\"col\">Rank</th><th scope=\"col\">Likely cause</th><th scope=\"col\">Where</th><th scope=\"col\" class=\"number\">Lost sales</th><th scope=\"col\">Since</th></tr></thead><tbody>",
    );
    for incident in &view.incidents {
        text += &row(view, incident, selected == Some(incident.id.as_str()));
    }
    if view.incidents.is_empty() {
        text += "<tr><td colspan=\"5\" class=\"empty\">No incidents.</td></tr>";
    }
    text + "</tbody></table></div></section>"
}

fn row(view: &View, incident: &Incident, selected: bool) -> String {
    let price = incident.cost.as_ref().map_or_else(
        || format!("<span class=\"quiet\">{}</span>", price_word(incident.price_state)),
        |cost| {
            format!(
                "<strong>{}</strong><br><span class=\"quiet\">{} to {}</span>",
                money(cost.estimate_minor, &cost.currency),
                money(cost.lower_minor, &cost.currency),
                money(cost.upper_minor, &cost.currency)
            )
        },
    );
    format!(
        "<tr class=\"{} {}\"{}><td class=\"rank\">{}</td><td><a href=\"/?incident={}\" data-select=\"{}\">{}</a><br><span class=\"quiet\">{}</span></td><td>{}<br><span class=\"quiet\">{}</span></td><td class=\"number\">{price}</td><td>{}<br><span class=\"quiet\">{}</span></td></tr>",
        price_class(incident),
        if incident.status == Status::Open {
            "open"
        } else {
            "closed"
        },
        if selected { " aria-current=\"true\"" } else { "" },
        incident.rank,
        escape(&incident.id),
        escape(&incident.id),
        escape(&what(&incident.cause)),
        escape(&incident.services.join(", ")),
        escape(&place(&incident.cause)),
        plural(incident.sites.len(), "store"),
        clock(incident.start_ms, &view.zone),
        status(incident),
    )
}

fn grid(view: &View) -> String {
    let mut regions: BTreeMap<&str, Vec<&SiteView>> = BTreeMap::new();
    for site in &view.sites {
        regions.entry(&site.region).or_default().push(site);
    }
    let mut text = String::from("<section aria-labelledby=\"grid\"><h2 id=\"grid\">Stores</h2><div class=\"grid\">");
    for (region, sites) in regions {
        text += &grid_row(region, &sites);
    }
    text += "</div><p class=\"legend\">";
    for state in [
        SiteState::Quiet,
        SiteState::Unusual,
        SiteState::Costing,
        SiteState::Silent,
    ] {
        let (class, mark, word) = state_look(state);
        push(
            &mut text,
            format_args!("<span><i class=\"site {class}\">{mark}</i> {word}</span>"),
        );
    }
    text + "</p></section>"
}

fn grid_row(region: &str, sites: &[&SiteView]) -> String {
    let mut text = format!(
        "<div class=\"region\"><h3>{} <span class=\"quiet\">{}</span></h3><ul>",
        escape(region),
        sites.len()
    );
    for site in sites {
        let (class, mark, word) = state_look(site.state);
        push(
            &mut text,
            format_args!(
                "<li class=\"site {class}\" title=\"{id}: {word}\"><span>{mark}</span><b>{id}: {word}</b></li>",
                id = escape(&site.id)
            ),
        );
    }
    text + "</ul></div>"
}

/// Class, a mark that needs no color, and a word.
fn state_look(state: SiteState) -> (&'static str, &'static str, &'static str) {
    match state {
        SiteState::Quiet => ("ok", "", "as usual"),
        SiteState::Unusual => ("unusual", "!", "unusual"),
        SiteState::Costing => ("costing", "−", "loses sales"),
        SiteState::Silent => ("silent", "?", "silent"),
        SiteState::Never => ("silent", "·", "never seen"),
    }
}

fn chain(incident: &Incident) -> String {
    let mut steps: Vec<String> = incident.services.iter().map(|service| escape(service)).collect();
    if let Some(lost) = incident.lost_transactions.filter(|_| incident.price_state.is_costed()) {
        steps.push(format!("{} fewer sales", grouped(lost.max(0).unsigned_abs())));
    }
    let steps: String = steps.iter().map(|step| format!("<li>{step}</li>")).collect();
    format!("<ol class=\"chain\" aria-label=\"From cause to sales\">{steps}</ol>")
}

fn evidence(incident: &Incident) -> String {
    let mut text = String::from("<section class=\"evidence\"><h3>Why this cause</h3>");
    text += &list("for", &incident.evidence_for);
    text += &list("against", &incident.evidence_against);
    if !incident.notes.is_empty() {
        text += "<h3>To know</h3>";
        text += &list("note", &incident.notes);
    }
    text + "</section>"
}

fn alternatives(alternatives: &[Alternative]) -> String {
    if alternatives.is_empty() {
        return String::new();
    }
    let mut text = String::from("<section class=\"evidence\"><h3>Why not something else</h3>");
    for alternative in alternatives {
        push(
            &mut text,
            format_args!(
                "<details><summary>{} <span class=\"quiet\">log-likelihood {:.1}</span></summary>{}{}</details>",
                escape(&title(&alternative.cause)),
                alternative.log_likelihood,
                list("for", &alternative.evidence_for),
                list("against", &alternative.evidence_against)
            ),
        );
    }
    text + "</section>"
}

fn list(class: &str, lines: &[String]) -> String {
    if lines.is_empty() {
        return String::new();
    }
    let items: String = lines.iter().map(|line| format!("<li>{}</li>", escape(line))).collect();
    format!("<ul class=\"{class}\">{items}</ul>")
}

fn title(cause: &Cause) -> String {
    format!("{} in {}", what(cause), place(cause))
}

fn what(cause: &Cause) -> String {
    let named = cause.name.as_ref().or(cause.service.as_ref());
    named
        .cloned()
        .unwrap_or_else(|| "Sales without a technical cause".to_owned())
}

fn place(cause: &Cause) -> String {
    match cause.scope {
        Reach::Chain => "all regions".to_owned(),
        Reach::Region => cause.region.clone().unwrap_or_default(),
        Reach::Site => cause.site.clone().unwrap_or_default(),
    }
}

fn price_line(incident: &Incident) -> String {
    incident
        .cost
        .as_ref()
        .map_or_else(|| price_word(incident.price_state).to_owned(), interval)
}

fn interval(cost: &Cost) -> String {
    format!(
        "{} <span class=\"interval\">{} to {}</span>",
        money(cost.estimate_minor, &cost.currency),
        money(cost.lower_minor, &cost.currency),
        money(cost.upper_minor, &cost.currency)
    )
}

fn price_explained(incident: &Incident) -> String {
    let mut parts = Vec::new();
    if let Some(cost) = &incident.cost {
        parts.push(format!("lost sales with a {:.0} % interval", cost.confidence * 100.0));
    }
    parts.push(plural(incident.sites.len(), "store"));
    if incident.price_state.is_costed() {
        parts.push(format!(
            "set against {}",
            plural(incident.unaffected_sites_used as usize, "unaffected store")
        ));
    }
    if incident.dark_sites > 0 {
        parts.push(format!(
            "{} silent: exposure unknown",
            plural(incident.dark_sites as usize, "store")
        ));
    }
    format!("<p class=\"quiet\">{}</p>", parts.join(" · "))
}

fn price_word(state: PriceState) -> &'static str {
    match state {
        PriceState::Learning => "learning: no price yet",
        PriceState::Dark => "silent: sales unknown",
        PriceState::NoSales => "no sales here",
        PriceState::NotDistinguishable => "not distinguishable",
        PriceState::Costed => "costed",
        PriceState::CostedWithoutUnaffectedSites => "costed, no unaffected stores",
        PriceState::BusinessOnly => "business only",
    }
}

fn price_class(incident: &Incident) -> &'static str {
    if incident.price_state.is_costed() {
        "costed"
    } else {
        "technical"
    }
}

fn status(incident: &Incident) -> &'static str {
    match incident.status {
        Status::Open => "open",
        Status::Closed => "over",
    }
}

fn when(view: &View, incident: &Incident) -> String {
    let end_ms = incident.end_ms.unwrap_or(incident.updated_ms);
    let minutes = end_ms.saturating_sub(incident.start_ms) / 60_000;
    format!("since {}, {minutes} min", clock(incident.start_ms, &view.zone))
}

fn clock(ms: u64, zone: &TimeZone) -> String {
    let timestamp = i64::try_from(ms)
        .ok()
        .filter(|ms| *ms > 0)
        .and_then(|ms| Timestamp::from_millisecond(ms).ok());
    timestamp.map_or_else(
        || "–".to_owned(),
        |time| time.to_zoned(zone.clone()).strftime("%a %H:%M").to_string(),
    )
}

fn push(text: &mut String, arguments: std::fmt::Arguments<'_>) {
    text.write_fmt(arguments).expect("a String takes everything");
}
