//! What the lines of one call come to, kept in columns by route: no name is looked up for a line.

use tillwatch_sdk::{Batch, MetricId};

use crate::line::Request;
use crate::metric;

/// The values of the label `error.class`.
const ERROR_CLASSES: [&str; 4] = ["4xx", "5xx", "timeout", "client_closed"];
/// Durations, requests without one, and the errors of each class.
const COLUMNS_PER_ROUTE: usize = 2 + ERROR_CLASSES.len();

/// The samples of one call.
#[derive(Debug)]
pub(crate) struct Tally {
    error_status_min: u16,
    /// Of each route one after the other.
    columns: Vec<Column>,
    /// The columns that hold something, in the order of their first sample.
    used: Vec<usize>,
}

#[derive(Clone, Debug, Default)]
struct Column {
    values: Vec<i64>,
    times_ms: Vec<u64>,
}

impl Tally {
    pub(crate) fn new(routes: usize, error_status_min: u16) -> Self {
        Self {
            error_status_min,
            columns: vec![Column::default(); routes.saturating_mul(COLUMNS_PER_ROUTE)],
            used: Vec::new(),
        }
    }

    pub(crate) fn push(&mut self, route: usize, request: &Request<'_>) {
        match request.latency_us {
            Some(us) => self.push_to(route, 0, us, request.time_ms),
            None => self.push_to(route, 1, 1, request.time_ms),
        }
        if let Some(class) = error_class(request, self.error_status_min) {
            self.push_to(route, class.saturating_add(2), 1, request.time_ms);
        }
    }

    fn push_to(&mut self, route: usize, kind: usize, value: i64, time_ms: u64) {
        let place = route.saturating_mul(COLUMNS_PER_ROUTE).saturating_add(kind);
        let Some(column) = self.columns.get_mut(place) else {
            return;
        };
        if column.values.is_empty() {
            self.used.push(place);
        }
        column.values.push(value);
        column.times_ms.push(time_ms);
    }

    /// Hands all columns over; the tally is empty then.
    pub(crate) fn report(&mut self, routes: &[String], batch: &mut Batch) {
        for place in self.used.drain(..) {
            let Some(column) = self.columns.get_mut(place) else {
                continue;
            };
            let Column { values, times_ms } = std::mem::take(column);
            let (route, kind) = (place / COLUMNS_PER_ROUTE, place % COLUMNS_PER_ROUTE);
            let route = routes.get(route).map(String::as_str).unwrap_or_default();
            let push = |metric: MetricId, labels: &[&str]| batch.push_integers(metric, labels, values, times_ms);
            match kind {
                0 => push(metric::HTTP_SERVER_REQUEST_DURATION, &[route]),
                1 => push(metric::HTTP_SERVER_REQUESTS, &[route]),
                kind => {
                    let class = kind.checked_sub(2).and_then(|class| ERROR_CLASSES.get(class));
                    push(metric::HTTP_SERVER_ERRORS, &[route, class.copied().unwrap_or_default()]);
                }
            }
        }
    }
}

/// The place of the class among `ERROR_CLASSES`; none for a request that went well.
fn error_class(request: &Request<'_>, error_status_min: u16) -> Option<usize> {
    match request.status {
        // nginx: the client closed the connection while its request was being worked on.
        Some(499) => Some(3),
        _ if request.is_aborted => Some(3),
        Some(504) => Some(2),
        // A browser's connection on which no request ever came is not one that timed out.
        Some(408) if !request.target.is_empty() => Some(2),
        Some(status) if status < error_status_min => None,
        Some(400..500) => Some(0),
        Some(500..600) => Some(1),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn class(status: u16, target: &str, is_aborted: bool, error_status_min: u16) -> Option<&'static str> {
        let request = Request {
            status: Some(status),
            target: target.as_bytes().into(),
            is_aborted,
            ..Request::default()
        };
        error_class(&request, error_status_min).and_then(|class| ERROR_CLASSES.get(class).copied())
    }

    #[test]
    fn errors_are_told_apart() {
        for (status, target, is_aborted, min, expected) in [
            (200, "/", false, 500, None),
            (404, "/", false, 500, None),
            (404, "/", false, 400, Some("4xx")),
            (399, "/", false, 400, None),
            (503, "/", false, 500, Some("5xx")),
            (500, "/", false, 502, None),
            (504, "/", false, 500, Some("timeout")),
            (408, "/", false, 500, Some("timeout")),
            (408, "", false, 500, None),
            (499, "/", false, 500, Some("client_closed")),
            (200, "/", true, 500, Some("client_closed")),
        ] {
            assert_eq!(class(status, target, is_aborted, min), expected, "{status} {target}");
        }
    }
}
