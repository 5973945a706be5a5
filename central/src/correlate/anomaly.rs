//! Which service is anomalous at which site, and since when.
//!
//! In: scored intervals and findings, by event time. Out: one node per (site, service): anomalous, fine, or not reporting.
//! A finding says the same as the scored intervals that follow it, only sooner: both lead to the same node.
//! It never decides what belongs together.

use crate::topology::{Service, Site, Topology};

const MINUTE_MS: u64 = 60_000;

/// An anomaly goes on over a pause up to this.
pub const EPISODE_GAP_MS: u64 = 10 * MINUTE_MS;
/// How long after its last alarm a node still counts as anomalous: summaries of a minute arrive late.
pub const HOLD_MS: u64 = 4 * MINUTE_MS;
/// A node that was not heard of for this long is not reporting: it speaks neither for nor against a cause.
pub const STALE_MS: u64 = 10 * MINUTE_MS;
/// The share of anomalous intervals is never taken to be below this, however quiet a service has been.
pub const CHANCE_MIN: f64 = 0.03;
const CHANCE_MAX: f64 = 0.3;
/// After so many intervals old ones weigh half.
const INTERVALS_REMEMBERED: f64 = 1_000_000.0;

/// How bad an alarm is.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Alarm {
    /// In robust standard deviations, signed.
    pub effect: f32,
    pub log10_p: f32,
}

/// One service at one site.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Node {
    pub heard_ms: u64,
    /// Start and end of the last episode; both 0 when there was none.
    pub from_ms: u64,
    pub until_ms: u64,
    /// How much of the episode was anomalous.
    pub alarm_ms: u64,
    /// The smallest of the episode.
    pub log10_p: f32,
    /// The largest of the episode, signed.
    pub effect: f32,
}

/// All nodes: sites by services, both bounded by the model and `topology::UNPLACED_MAX`.
#[derive(Debug)]
pub struct Anomalies {
    nodes: Vec<Vec<Node>>,
    /// Per service: anomalous intervals and all of them.
    chances: Vec<(f64, f64)>,
    reporting: Service,
    silent_after_ms: u64,
}

impl Anomalies {
    pub fn new(topology: &Topology, silent_after_ms: u64) -> Anomalies {
        let nodes = vec![Vec::new(); topology.sites_len()];
        Anomalies {
            nodes,
            chances: Vec::new(),
            reporting: topology.reporting(),
            silent_after_ms,
        }
    }

    /// A scored interval.
    pub fn observe(&mut self, site: Site, service: Service, start_ms: u64, end_ms: u64, alarm: Option<Alarm>) {
        let chance = self.chance_mut(service);
        if chance.1 > INTERVALS_REMEMBERED {
            *chance = (chance.0 / 2.0, chance.1 / 2.0);
        }
        *chance = (chance.0 + f64::from(u8::from(alarm.is_some())), chance.1 + 1.0);
        let node = self.node_mut(site, service);
        node.heard_ms = node.heard_ms.max(end_ms);
        if let Some(alarm) = alarm {
            node.extend(start_ms, end_ms, alarm);
        }
    }

    /// A finding, in any revision and as often as it comes; it is heard of up to `end_ms`.
    pub fn find(&mut self, site: Site, service: Service, start_ms: u64, end_ms: u64, alarm: Alarm) {
        let node = self.node_mut(site, service);
        node.heard_ms = node.heard_ms.max(end_ms);
        node.extend(start_ms, end_ms, alarm);
    }

    /// Central's own observation of a site: until when it was heard of. A silent one has been so since then.
    pub fn heard(&mut self, site: Site, heard_ms: u64, now_ms: u64) {
        let silent = heard_ms + self.silent_after_ms < now_ms;
        let service = self.reporting;
        let node = self.node_mut(site, service);
        node.heard_ms = now_ms;
        if silent {
            node.extend(
                heard_ms,
                now_ms,
                Alarm {
                    effect: -10.0,
                    log10_p: -10.0,
                },
            );
        }
    }

    pub fn node(&self, site: Site, service: Service) -> &Node {
        const NEVER: Node = Node {
            heard_ms: 0,
            from_ms: 0,
            until_ms: 0,
            alarm_ms: 0,
            log10_p: 0.0,
            effect: 0.0,
        };
        self.nodes[site].get(service).unwrap_or(&NEVER)
    }

    /// Anomalous, fine, or `None` when it does not report.
    pub fn state(&self, site: Site, service: Service, now_ms: u64) -> Option<bool> {
        let node = self.node(site, service);
        (node.heard_ms != 0 && node.heard_ms + STALE_MS >= now_ms).then(|| node.is_active(now_ms))
    }

    pub fn active(&self, now_ms: u64) -> impl Iterator<Item = (Site, Service)> + '_ {
        self.nodes.iter().enumerate().flat_map(move |(site, services)| {
            let active = move |(service, node): (Service, &Node)| node.is_active(now_ms).then_some((site, service));
            services.iter().enumerate().filter_map(active)
        })
    }

    /// How often the service is anomalous without a common cause.
    pub fn chance(&self, service: Service) -> f64 {
        let (alarms, all) = self.chances.get(service).copied().unwrap_or_default();
        (alarms / all.max(1.0)).clamp(CHANCE_MIN, CHANCE_MAX)
    }

    fn node_mut(&mut self, site: Site, service: Service) -> &mut Node {
        let services = &mut self.nodes[site];
        if services.len() <= service {
            services.resize(service + 1, Node::default());
        }
        &mut services[service]
    }

    fn chance_mut(&mut self, service: Service) -> &mut (f64, f64) {
        if self.chances.len() <= service {
            self.chances.resize(service + 1, (0.0, 0.0));
        }
        &mut self.chances[service]
    }
}

impl Node {
    pub fn is_active(&self, now_ms: u64) -> bool {
        self.until_ms != 0 && self.until_ms + HOLD_MS >= now_ms
    }

    /// Adds an alarm; what is counted already is not counted again.
    fn extend(&mut self, start_ms: u64, end_ms: u64, alarm: Alarm) {
        let before_episode = end_ms + EPISODE_GAP_MS < self.from_ms;
        if before_episode {
            return;
        }
        if self.until_ms == 0 || start_ms > self.until_ms + EPISODE_GAP_MS {
            *self = Node {
                heard_ms: self.heard_ms,
                from_ms: start_ms,
                until_ms: start_ms,
                ..Node::default()
            };
        }
        let before_ms = self.from_ms.saturating_sub(start_ms);
        let after_ms = end_ms.saturating_sub(self.until_ms.max(start_ms));
        self.alarm_ms += before_ms + after_ms;
        self.from_ms = self.from_ms.min(start_ms);
        self.until_ms = self.until_ms.max(end_ms);
        self.log10_p = self.log10_p.min(alarm.log10_p);
        if alarm.effect.abs() > self.effect.abs() {
            self.effect = alarm.effect;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Model;

    const ALARM: Alarm = Alarm {
        effect: 5.0,
        log10_p: -6.0,
    };

    fn anomalies() -> Anomalies {
        let model = Model::parse(
            "m",
            "region = [{ id = \"n\" }]\nsite = [{ id = \"s\", region = \"n\" }]",
        )
        .unwrap();
        Anomalies::new(&Topology::new(model), 10 * MINUTE_MS)
    }

    #[test]
    fn a_pause_keeps_the_episode_and_a_long_one_starts_another() {
        let mut anomalies = anomalies();
        let t = 1_000 * MINUTE_MS;
        anomalies.observe(0, 1, t, t + MINUTE_MS, Some(ALARM));
        anomalies.observe(0, 1, t + 5 * MINUTE_MS, t + 6 * MINUTE_MS, Some(ALARM));
        assert_eq!(
            (anomalies.node(0, 1).from_ms, anomalies.node(0, 1).alarm_ms),
            (t, 2 * MINUTE_MS)
        );
        let later = t + 30 * MINUTE_MS;
        anomalies.observe(0, 1, later, later + MINUTE_MS, Some(ALARM));
        assert_eq!(
            (anomalies.node(0, 1).from_ms, anomalies.node(0, 1).alarm_ms),
            (later, MINUTE_MS)
        );
    }

    #[test]
    fn a_finding_and_its_intervals_make_the_same_node() {
        let t = 1_000 * MINUTE_MS;
        let (mut with, mut without) = (anomalies(), anomalies());
        with.find(0, 1, t, t + 3 * MINUTE_MS, ALARM);
        with.find(0, 1, t, t + 5 * MINUTE_MS, ALARM);
        for minute in 0..5 {
            let start = t + minute * MINUTE_MS;
            with.observe(0, 1, start, start + MINUTE_MS, Some(ALARM));
            without.observe(0, 1, start, start + MINUTE_MS, Some(ALARM));
        }
        assert_eq!(with.node(0, 1), without.node(0, 1));
    }

    #[test]
    fn a_node_is_anomalous_then_fine_then_not_reporting() {
        let mut anomalies = anomalies();
        let t = 1_000 * MINUTE_MS;
        assert_eq!(anomalies.state(0, 1, t), None);
        anomalies.observe(0, 1, t, t + MINUTE_MS, Some(ALARM));
        assert_eq!(anomalies.state(0, 1, t + HOLD_MS), Some(true));
        assert_eq!(anomalies.state(0, 1, t + MINUTE_MS + HOLD_MS + 1), Some(false));
        assert_eq!(anomalies.state(0, 1, t + MINUTE_MS + STALE_MS + 1), None);
    }

    #[test]
    fn a_silent_site_is_an_anomaly_of_reporting() {
        let mut anomalies = anomalies();
        let t = 1_000 * MINUTE_MS;
        anomalies.heard(0, t, t + 5 * MINUTE_MS);
        assert_eq!(anomalies.active(t + 5 * MINUTE_MS).count(), 0);
        anomalies.heard(0, t, t + 11 * MINUTE_MS);
        assert_eq!(anomalies.node(0, anomalies.reporting).from_ms, t);
        assert_eq!(anomalies.active(t + 11 * MINUTE_MS).count(), 1);
    }
}
