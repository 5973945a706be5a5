//! How quick the services of a store are, and what a simple detector says of it.
//!
//! In: how much slower a service is than usual. Out: a minute's summary with its score.
//! The detector adds up deviations (CUSUM): a large fault is seen in the first minute, a slow leak after some, and
//! now and then chance alone is an alarm. It is not the agent's own, so that the two cannot share a mistake.

use super::as_u64;
use super::random::Random;
use tillwatch_feed::score::{Score, ScoreState};
use tillwatch_feed::summary::Summary;

/// Spread of the logarithm of a minute's mean.
const SIGMA: f64 = 0.2;
/// Deviations up to this many spreads are usual. Source: Page, "Continuous inspection schemes", 1954.
const SLACK: f64 = 0.5;
/// An alarm; with the slack above once in about 300,000 minutes by chance.
const ALARM: f64 = 11.0;
/// The sum grows no further, so that it comes down soon.
const SUM_MAX: f64 = 14.0;
/// One minute says no more than this.
const STEP_MAX: f64 = 12.0;
const USUAL_MS: f64 = 400.0;

pub(super) struct Service {
    pub(super) id: &'static str,
    pub(super) metric: &'static str,
    pub(super) role: &'static str,
    pub(super) labels: &'static [(&'static str, &'static str)],
}

pub(super) const SERVICES: [Service; 5] = [
    Service {
        id: "checkout",
        metric: "http.server.request.duration",
        role: "latency",
        labels: &[("http.route", "/checkout")],
    },
    Service {
        id: "loyalty",
        metric: "http.server.request.duration",
        role: "latency",
        labels: &[("http.route", "/loyalty")],
    },
    Service {
        id: "mainframe-link",
        metric: "queue.depth",
        role: "queue",
        labels: &[("messaging.destination.name", "mainframe")],
    },
    Service {
        id: "payment",
        metric: "http.server.request.duration",
        role: "latency",
        labels: &[("http.route", "/pay")],
    },
    Service {
        id: "printer",
        metric: "printer.job.duration",
        role: "latency",
        labels: &[],
    },
];

/// The services as a part of `model.toml`.
pub(super) const MODEL: &str = r#"
[[service]]
id = "checkout"
depends_on = ["loyalty", "payment"]
metrics = [{ name = "http.server.request.duration", labels = { "http.route" = "/checkout" } }]
[[service]]
id = "loyalty"
depends_on = ["mainframe-link"]
metrics = [{ name = "http.server.request.duration", labels = { "http.route" = "/loyalty" } }]
[[service]]
id = "mainframe-link"
scope = "region"
depends_on = ["mainframe"]
metrics = [{ name = "queue.depth", labels = { "messaging.destination.name" = "mainframe" } }]
[[service]]
id = "mainframe"
scope = "chain"
[[service]]
id = "payment"
scope = "chain"
metrics = [{ name = "http.server.request.duration", labels = { "http.route" = "/pay" } }]
[[service]]
id = "printer"
metrics = [{ name = "printer.job.duration" }]
"#;

/// The services of one store.
#[derive(Debug)]
pub(super) struct Signals {
    random: Random,
    sums: [f64; SERVICES.len()],
}

impl Signals {
    pub(super) fn new(seed: u64, store: usize) -> Signals {
        Signals {
            random: Random::new(seed, 50_000 + as_u64(store)),
            sums: [0.0; SERVICES.len()],
        }
    }

    /// The next minute of a service that is so many times slower than usual.
    #[expect(clippy::cast_possible_truncation, reason = "small numbers of a simulation")]
    pub(super) fn minute(&mut self, service: usize, factor: f64) -> (Summary, Score) {
        let deviation = self.random.normal() + factor.ln() / SIGMA;
        let sum = &mut self.sums[service];
        *sum = (*sum + deviation.min(STEP_MAX) - SLACK).clamp(0.0, SUM_MAX);
        let value = (USUAL_MS * (SIGMA * deviation).exp()).round() as i64;
        let alarm = *sum >= ALARM;
        let summary = Summary {
            count: 1,
            sum: value,
            min: value,
            max: value,
            histogram: None,
        };
        let score = Score {
            state: ScoreState::Ok,
            alarm,
            log10_p: if alarm {
                -7.0
            } else {
                -(deviation.max(0.0).powi(2) / 4.6).min(5.0) as f32
            },
            effect: deviation as f32,
            missing: 0,
        };
        (summary, score)
    }
}

/// Place of a service in [`SERVICES`].
pub(super) fn service(id: &str) -> Option<usize> {
    SERVICES.iter().position(|service| service.id == id)
}

/// What is usual, in the metric's whole numbers.
pub(super) const USUAL: i64 = 400;
