//! How much better one cause explains what is anomalous and what is fine than chance does.
//!
//! In: a candidate and the nodes of its dependents. Out: a log-likelihood ratio with the counts behind it.
//! Dependents that report and are fine speak against a cause; those that do not report say nothing.
//! A fault hits a part of the sites, and at such a site all dependents: each site is a mixture of hit and spared, so
//! that unrelated anomalies at different sites do not add up to a common cause.

use super::anomaly::Anomalies;
use crate::incident::Reach;
use crate::topology::{Candidate, Extent, Service, Site, Topology};
use std::collections::BTreeSet;

/// How surely a fault shows in a service so many steps away.
const SHOWS: [f64; 5] = [0.95, 0.85, 0.7, 0.55, 0.4];
/// The part of the sites that a fault hits is looked for from here to 1.
const FRACTION_MIN: f64 = 0.3;
const FRACTION_STEP: f64 = 0.05;
/// The service itself is anomalous, not only what depends on it.
const OWN_ANOMALY: f64 = 2.0;
/// The service itself cannot be seen.
const UNSEEN: f64 = -1.0;
/// Detectors of single sites cry for nothing now and then.
const SITE_DOUBT: f64 = 1.0;
/// Anomalies that last count more: per minute, and at most.
const LASTING_PER_MINUTE: f64 = 0.25;
const LASTING_MAX: f64 = 4.0;
/// Anomalies far beyond the usual count more: per power of ten below 10^-4, and at most.
const STRONG_PER_POWER: f64 = 0.5;
const STRONG_MAX: f64 = 3.0;
/// Clocks of sites differ by up to this.
const CLOCK_QUALITY_MS: u64 = 120_000;
const LAG_BONUS: f64 = 0.5;
const LAG_MAX: f64 = 2.0;

/// What a candidate is judged by.
pub struct Context<'a> {
    pub topology: &'a Topology,
    pub anomalies: &'a Anomalies,
    pub now_ms: u64,
    /// Nodes that better causes have explained; they count neither way.
    pub explained: &'a BTreeSet<(Site, Service)>,
    pub sales_term: &'a dyn Fn(Extent) -> f64,
}

/// How a dependent service stands over the extent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Count {
    pub service: Service,
    pub distance: usize,
    pub reporting: u32,
    pub anomalous: u32,
}

#[derive(Clone, Debug, PartialEq)]
pub struct Scored {
    pub log_likelihood: f64,
    /// What the counts alone say, less the prior: comparable between a whole and its parts.
    pub by_counts: f64,
    /// The part of the sites that the fault seems to hit.
    pub fraction: f64,
    pub counts: Vec<Count>,
    /// By how much the cause's own anomalies began before (positive) or after those of its dependents.
    pub lead_ms: Option<i64>,
    /// What sales add to the likelihood.
    pub sales_term: f64,
}

/// `None` when no anomaly would be explained.
pub fn score(context: &Context<'_>, candidate: Candidate) -> Option<Scored> {
    let mut tally = Tally::of(context, candidate);
    if tally.anomalous == 0 {
        return None;
    }
    let (fraction, fit) = best_fraction(&tally.site_terms);
    let lead_ms = tally.lead_ms();
    let sales_term = (context.sales_term)(candidate.extent);
    let extras = own_term(&tally.counts) + tally.lasting_term() + tally.strong_term() + lead_term(lead_ms) + sales_term;
    let by_counts = fit - prior(context.topology, candidate);
    let log_likelihood = by_counts + extras;
    Some(Scored {
        log_likelihood,
        by_counts,
        fraction,
        counts: tally.counts,
        lead_ms,
        sales_term,
    })
}

/// Rare: one site out of all, one region out of all, or the one chain. A single short alarm of one site is no incident.
/// What each site or region has of its own seldom fails everywhere at once.
fn prior(topology: &Topology, candidate: Candidate) -> f64 {
    let (reach, doubt) = match candidate.extent {
        Extent::Site(_) => (Reach::Site, SITE_DOUBT),
        Extent::Region(_) => (Reach::Region, 0.0),
        Extent::Chain => (Reach::Chain, 0.0),
    };
    let places = |reach| match reach {
        Reach::Site => topology.sites_len(),
        Reach::Region => topology.regions_len(),
        Reach::Chain => 1,
    };
    let rare = |reach| f64::from(u32::try_from(1 + places(reach)).unwrap_or(u32::MAX)).ln();
    let scope = topology.scope(candidate.service);
    let at_once = if scope < reach { rare(scope) } else { 0.0 };
    rare(reach) + at_once + doubt
}

/// The part of the sites that the fault most likely hits, and how much better than chance that explains them.
fn best_fraction(site_terms: &[f64]) -> (f64, f64) {
    let steps = (0..)
        .map(|step| FRACTION_MIN + FRACTION_STEP * f64::from(step))
        .take_while(|f| *f < 1.0 + 1e-9)
        .map(|fraction| fraction.min(1.0));
    let mixed = |fraction: f64| -> f64 {
        site_terms
            .iter()
            .map(|term| (fraction * term.exp() + 1.0 - fraction).ln())
            .sum()
    };
    steps
        .map(|fraction| (fraction, mixed(fraction)))
        .max_by(|a, b| a.1.total_cmp(&b.1))
        .unwrap_or((1.0, f64::NEG_INFINITY))
}

/// How much likelier a node's state is at a site that is hit than by chance.
fn term(chance: f64, distance: usize, is_anomalous: bool) -> f64 {
    let shows = SHOWS[distance.min(SHOWS.len() - 1)];
    if is_anomalous {
        (shows / chance).ln()
    } else {
        ((1.0 - shows) / (1.0 - chance)).ln()
    }
}

fn own_term(counts: &[Count]) -> f64 {
    match counts.iter().find(|count| count.distance == 0) {
        Some(own) if own.reporting == 0 => UNSEEN,
        Some(own) if 2 * own.anomalous >= own.reporting => OWN_ANOMALY,
        _ => 0.0,
    }
}

#[expect(clippy::cast_precision_loss, reason = "minutes")]
fn lead_term(lead_ms: Option<i64>) -> f64 {
    let Some(lead_ms) = lead_ms else { return 0.0 };
    let late_ms = lead_ms.saturating_add_unsigned(CLOCK_QUALITY_MS);
    if late_ms >= 0 {
        LAG_BONUS
    } else {
        (late_ms as f64 / 300_000.0).max(-LAG_MAX)
    }
}

/// What is summed while counting.
#[derive(Default)]
struct Tally {
    counts: Vec<Count>,
    /// For each site that reports: how much likelier it looks as it does when hit than by chance.
    site_terms: Vec<f64>,
    anomalous: u32,
    own_starts: Vec<u64>,
    other_starts: Vec<u64>,
    lasting_ms: Vec<u64>,
    log10_ps: Vec<f32>,
}

impl Tally {
    fn of(context: &Context<'_>, candidate: Candidate) -> Tally {
        let dependents = context.topology.dependents(candidate.service);
        let counts = dependents.iter().map(|&(service, distance)| Count {
            service,
            distance,
            reporting: 0,
            anomalous: 0,
        });
        let mut tally = Tally {
            counts: counts.collect(),
            ..Tally::default()
        };
        for &site in context.topology.sites(candidate.extent) {
            tally.count(context, site);
        }
        tally
    }

    fn count(&mut self, context: &Context<'_>, site: Site) {
        let anomalies = context.anomalies;
        let mut site_term = None;
        for index in 0..self.counts.len() {
            let Count { service, distance, .. } = self.counts[index];
            if context.explained.contains(&(site, service)) {
                continue;
            }
            let Some(is_anomalous) = anomalies.state(site, service, context.now_ms) else {
                continue;
            };
            *site_term.get_or_insert(0.0) += term(anomalies.chance(service), distance, is_anomalous);
            self.counts[index].reporting += 1;
            if is_anomalous {
                self.counts[index].anomalous += 1;
                self.add(anomalies, site, service, distance);
            }
        }
        self.site_terms.extend(site_term);
    }

    fn add(&mut self, anomalies: &Anomalies, site: Site, service: Service, distance: usize) {
        let node = anomalies.node(site, service);
        self.anomalous += 1;
        self.lasting_ms.push(node.alarm_ms);
        self.log10_ps.push(node.log10_p);
        let starts = if distance == 0 {
            &mut self.own_starts
        } else {
            &mut self.other_starts
        };
        starts.push(node.from_ms);
    }

    fn lead_ms(&mut self) -> Option<i64> {
        let own = median(&mut self.own_starts)?;
        let others = median(&mut self.other_starts)?;
        Some(others.cast_signed() - own.cast_signed())
    }

    #[expect(clippy::cast_precision_loss, reason = "minutes")]
    fn lasting_term(&mut self) -> f64 {
        let minutes = median(&mut self.lasting_ms).unwrap_or(0) as f64 / 60_000.0;
        (minutes * LASTING_PER_MINUTE).min(LASTING_MAX)
    }

    fn strong_term(&mut self) -> f64 {
        self.log10_ps.sort_by(f32::total_cmp);
        let middle = self.log10_ps.get(self.log10_ps.len() / 2).copied().unwrap_or(0.0);
        ((-f64::from(middle) - 4.0) * STRONG_PER_POWER).clamp(0.0, STRONG_MAX)
    }
}

fn median(values: &mut [u64]) -> Option<u64> {
    values.sort_unstable();
    values.get(values.len() / 2).copied()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::correlate::anomaly::Alarm;
    use crate::correlate::group;
    use crate::model::Model;

    const NOW: u64 = 100_000 * 60_000;
    const LATENCY: Service = 0;
    const LINK: Service = 1;

    /// Ten sites in each of two regions; the web needs a link that there is one of per region.
    fn topology() -> Topology {
        let mut text = "region = [{ id = \"north\" }, { id = \"south\" }]\n".to_owned();
        for number in 0..20 {
            let region = if number < 10 { "north" } else { "south" };
            text += &format!("[[site]]\nid = \"s{number}\"\nregion = \"{region}\"\n");
        }
        text += "[[service]]\nid = \"web\"\ndepends_on = [\"link\"]\n[[service]]\nid = \"link\"\nscope = \"region\"\n";
        Topology::new(Model::parse("model.toml", &text).unwrap())
    }

    /// All sites report the web; `slow` ones are slow for five minutes, and `links` have a bad link;
    /// without any, nobody reports it.
    fn anomalies(topology: &Topology, slow: std::ops::Range<Site>, links: std::ops::Range<Site>) -> Anomalies {
        let mut anomalies = Anomalies::new(topology, 600_000);
        let alarm = Alarm {
            effect: 8.0,
            log10_p: -6.0,
        };
        for site in 0..20 {
            for minute in (1..=5).rev() {
                let start_ms = NOW - minute * 60_000;
                anomalies.observe(
                    site,
                    LATENCY,
                    start_ms,
                    start_ms + 60_000,
                    slow.contains(&site).then_some(alarm),
                );
                if !links.is_empty() {
                    let link = links.contains(&site).then_some(alarm);
                    anomalies.observe(site, LINK, start_ms, start_ms + 60_000, link);
                }
            }
        }
        anomalies
    }

    fn causes(slow: std::ops::Range<Site>, links: std::ops::Range<Site>) -> Vec<Candidate> {
        let topology = topology();
        let anomalies = anomalies(&topology, slow, links);
        group(&topology, &anomalies, NOW, |_| 0.0)
            .into_iter()
            .map(|group| group.cause)
            .collect()
    }

    #[test]
    fn a_bad_link_explains_the_slow_web_of_its_region() {
        assert_eq!(
            causes(0..10, 0..10),
            [Candidate {
                service: LINK,
                extent: Extent::Region(0)
            }]
        );
    }

    /// Two of three regions had a fault of their own; the mainframe behind both links, which nobody sees, was blamed.
    #[test]
    fn faults_of_two_regions_are_not_one_of_the_whole_chain() {
        let mut text = String::new();
        for (region, sites) in [("a", 12), ("b", 12), ("c", 15)] {
            text += &format!("[[region]]\nid = \"{region}\"\n");
            (0..sites).for_each(|n| text += &format!("[[site]]\nid = \"{region}{n}\"\nregion = \"{region}\"\n"));
        }
        text += "[[service]]\nid = \"web\"\ndepends_on = [\"link\"]\n";
        text += "[[service]]\nid = \"link\"\nscope = \"region\"\ndepends_on = [\"mainframe\"]\n";
        text += "[[service]]\nid = \"mainframe\"\nscope = \"chain\"\n";
        let topology = Topology::new(Model::parse("model.toml", &text).unwrap());
        let causes = |hit: usize| -> Vec<(Service, Extent)> {
            let mut anomalies = Anomalies::new(&topology, 600_000);
            let alarm = Alarm {
                effect: 8.0,
                log10_p: -6.0,
            };
            for (site, service) in (0..39).flat_map(|site| [(site, LATENCY), (site, LINK)]) {
                anomalies.observe(site, service, NOW - 60_000, NOW, (site < hit).then_some(alarm));
            }
            let groups = group(&topology, &anomalies, NOW, |_| 0.0);
            let causes = groups.iter().map(|group| (group.cause.service, group.cause.extent));
            let mut causes: Vec<_> = causes.collect();
            causes.sort_unstable();
            causes
        };
        assert_eq!(causes(24), [(LINK, Extent::Region(0)), (LINK, Extent::Region(1))]);
        let all: Vec<Extent> = causes(39).into_iter().map(|(_, extent)| extent).collect();
        assert_eq!(all, [Extent::Chain]);
    }

    #[test]
    fn dependents_that_are_fine_speak_against_a_wider_cause() {
        let topology = topology();
        let anomalies = anomalies(&topology, 0..10, 0..0);
        let explained = BTreeSet::new();
        let context = Context {
            topology: &topology,
            anomalies: &anomalies,
            now_ms: NOW,
            explained: &explained,
            sales_term: &|_| 0.0,
        };
        let of = |extent| {
            score(
                &context,
                Candidate {
                    service: LATENCY,
                    extent,
                },
            )
            .map(|scored| scored.log_likelihood)
        };
        assert!(of(Extent::Region(0)) > of(Extent::Chain));
        assert_eq!(of(Extent::Region(1)), None);
    }

    #[test]
    fn anomalies_at_different_sites_speak_less_for_a_common_cause_than_at_the_same_sites() {
        let topology = topology();
        let link_of_north = |slow| {
            let anomalies = anomalies(&topology, slow, 5..10);
            let context = Context {
                topology: &topology,
                anomalies: &anomalies,
                now_ms: NOW,
                explained: &BTreeSet::new(),
                sales_term: &|_| 0.0,
            };
            let candidate = Candidate {
                service: LINK,
                extent: Extent::Region(0),
            };
            score(&context, candidate).unwrap().by_counts
        };
        let (together, apart) = (link_of_north(5..10), link_of_north(0..5));
        assert!(together > 2.0 * apart.max(1.0), "{together} {apart}");
    }

    #[test]
    fn a_cause_that_cannot_be_seen_is_second_to_one_that_can() {
        assert_eq!(
            causes(0..10, 0..0),
            [Candidate {
                service: LATENCY,
                extent: Extent::Region(0)
            }]
        );
    }

    #[test]
    fn all_regions_together_are_one_cause_of_the_chain() {
        assert_eq!(
            causes(0..20, 0..20),
            [Candidate {
                service: LINK,
                extent: Extent::Chain
            }]
        );
    }

    #[test]
    fn one_short_alarm_of_one_site_is_no_group() {
        let topology = topology();
        let mut anomalies = anomalies(&topology, 0..0, 0..0);
        anomalies.observe(
            4,
            LATENCY,
            NOW - 60_000,
            NOW,
            Some(Alarm {
                effect: 8.0,
                log10_p: -6.0,
            }),
        );
        assert_eq!(group(&topology, &anomalies, NOW, |_| 0.0), []);
    }
}
