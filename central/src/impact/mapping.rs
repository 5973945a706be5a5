//! What a series is for: sales, a service's health, or nothing that is reckoned with. Looked up once per series.

use crate::decode::SeriesInfo;
use crate::topology::{Service, Topology};
use std::collections::HashMap;
use std::sync::Arc;

/// Most series that are remembered; then all are looked up anew.
pub(super) const SERIES_REMEMBERED_MAX: usize = 500_000;

/// Which deviations are bad.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Bad {
    Up,
    Either,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Purpose {
    Transactions,
    Amount,
    /// Health of a service.
    Health {
        service: Service,
        bad: Bad,
    },
    /// Other figures about sales, and what has no room.
    None,
}

/// Remembers by the address of the shared description, which it keeps alive.
#[derive(Debug, Default)]
pub(super) struct Purposes {
    known: HashMap<usize, (Arc<SeriesInfo>, Purpose)>,
}

impl Purposes {
    pub(super) fn of(&mut self, topology: &mut Topology, series: &Arc<SeriesInfo>) -> Purpose {
        let address = Arc::as_ptr(series) as usize;
        if let Some((_, purpose)) = self.known.get(&address) {
            return *purpose;
        }
        if self.known.len() >= SERIES_REMEMBERED_MAX {
            self.known.clear();
        }
        let purpose = purpose(topology, &series.metric, &series.role, &series.labels);
        self.known.insert(address, (Arc::clone(series), purpose));
        purpose
    }
}

/// The same for a finding, which describes its series itself.
pub(super) fn purpose(topology: &mut Topology, metric: &str, role: &str, labels: &[(String, String)]) -> Purpose {
    sales_purpose(role).unwrap_or_else(|| {
        let bad = if matches!(role, "latency" | "queue") {
            Bad::Up
        } else {
            Bad::Either
        };
        topology
            .place(metric, labels)
            .map_or(Purpose::None, |service| Purpose::Health { service, bad })
    })
}

/// `None` when the role is none of sales.
pub(super) fn sales_purpose(role: &str) -> Option<Purpose> {
    match role {
        "sales.count" => Some(Purpose::Transactions),
        "sales.amount" => Some(Purpose::Amount),
        other => other.starts_with("sales.").then_some(Purpose::None),
    }
}

impl Bad {
    pub(super) fn is(self, effect: f32) -> bool {
        self == Bad::Either || effect >= 0.0
    }
}
