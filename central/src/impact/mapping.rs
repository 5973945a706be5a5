//! What a series is for: sales, a service's health, or nothing that is reckoned with. Looked up once per series.

use crate::currency;
use crate::decode::SeriesInfo;
use crate::topology::{Service, Topology};
use std::collections::HashMap;
use std::sync::Arc;

/// Most series that are remembered; then all are looked up anew.
pub(super) const SERIES_REMEMBERED_MAX: usize = 500_000;

/// Roles of sales start with this.
const SALES: &str = "sales.";

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
    /// Sales in other units than they are reckoned in.
    Misfit,
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
        let purpose =
            sales_purpose(series).unwrap_or_else(|| purpose(topology, &series.metric, &series.role, &series.labels));
        self.known.insert(address, (Arc::clone(series), purpose));
        purpose
    }
}

/// The same for a finding, which describes its series itself; one of sales says nothing of health.
pub(super) fn purpose(topology: &mut Topology, metric: &str, role: &str, labels: &[(String, String)]) -> Purpose {
    if role.starts_with(SALES) {
        return Purpose::None;
    }
    let bad = if matches!(role, "latency" | "queue" | "silence") {
        Bad::Up
    } else {
        Bad::Either
    };
    topology
        .place(metric, labels)
        .map_or(Purpose::None, |service| Purpose::Health { service, bad })
}

/// `None` when the role is none of sales.
pub(super) fn sales_purpose(series: &SeriesInfo) -> Option<Purpose> {
    let fits = |decimals: u8, purpose| {
        if series.decimals == decimals {
            purpose
        } else {
            Purpose::Misfit
        }
    };
    match series.role.as_str() {
        "sales.count" => Some(fits(0, Purpose::Transactions)),
        "sales.amount" => {
            let decimals = series.currency.as_deref().map_or(series.decimals, currency::decimals);
            Some(fits(decimals, Purpose::Amount))
        }
        other => other.starts_with(SALES).then_some(Purpose::None),
    }
}

impl Bad {
    pub(super) fn is(self, effect: f32) -> bool {
        self == Bad::Either || effect >= 0.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Model;

    /// A till that is asked often has a young last request, which is no fault of anybody.
    #[test]
    fn silence_is_bad_when_it_grows_and_good_when_it_shrinks() {
        let mut topology = Topology::new(Model::parse("model.toml", "").unwrap());
        let route = [("http.route".to_owned(), "/pay".to_owned())];
        let mut bad = |role| match purpose(&mut topology, "http.server.last_request.age", role, &route) {
            Purpose::Health { bad, .. } => bad,
            other => panic!("{other:?}"),
        };
        for role in ["silence", "latency", "queue"] {
            assert!(bad(role).is(2.0) && !bad(role).is(-2.0), "{role}");
        }
        assert!(bad("requests").is(2.0) && bad("requests").is(-2.0));
    }
}
