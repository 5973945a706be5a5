//! Sites, regions and services as a graph of small numbers: what could cause an anomaly, and whom a cause would hit.
//!
//! In: a checked model, and the metrics that it does not place. Out: candidate causes and their dependents.
//! It never weighs a cause; that is `correlate`'s work.

use crate::incident::{Cause, Reach};
use crate::model::Model;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use tillwatch_feed::topic::SiteId;

/// Index of a site.
pub type Site = usize;
/// Index of a service: those of the model first, then [`Topology::reporting`], then metrics that the model does not place.
pub type Service = usize;

/// Most metrics, told apart by their labels, that become services of their own because the model does not place them.
pub const UNPLACED_MAX: usize = 200;
/// Most services that one service depends on, itself included; farther ones are left out.
pub const ANCESTORS_MAX: usize = 12;

/// Where a candidate cause reaches.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Extent {
    Site(Site),
    Region(usize),
    Chain,
}

/// A service that may have failed over an extent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Candidate {
    pub service: Service,
    pub extent: Extent,
}

#[derive(Debug)]
pub struct Topology {
    model: Model,
    site_index: HashMap<SiteId, Site>,
    region_sites: Vec<Vec<Site>>,
    all_sites: Vec<Site>,
    services: Vec<Node>,
    unplaced: BTreeMap<String, Service>,
    reporting: Service,
    /// Series without a service because [`UNPLACED_MAX`] was reached.
    pub unplaced_refused: u64,
}

#[derive(Debug)]
struct Node {
    id: String,
    name: String,
    scope: Reach,
    /// Itself at distance 0, then what it depends on, nearest first.
    ancestors: Vec<(Service, usize)>,
    /// Itself at distance 0, then what depends on it.
    dependents: Vec<(Service, usize)>,
}

impl Topology {
    pub fn new(model: Model) -> Topology {
        let site_index = model
            .sites
            .iter()
            .enumerate()
            .map(|(index, site)| (site.id.clone(), index))
            .collect();
        let mut region_sites = vec![Vec::new(); model.regions.len()];
        for (index, site) in model.sites.iter().enumerate() {
            region_sites[site.region].push(index);
        }
        let mut topology = Topology {
            site_index,
            region_sites,
            all_sites: (0..model.sites.len()).collect(),
            services: placed(&model),
            unplaced: BTreeMap::new(),
            reporting: model.services.len(),
            unplaced_refused: 0,
            model,
        };
        topology.reporting = topology.add("reporting".to_owned(), "Reporting to central".to_owned());
        topology
    }

    pub fn model(&self) -> &Model {
        &self.model
    }

    pub fn site(&self, id: &SiteId) -> Option<Site> {
        self.site_index.get(id).copied()
    }

    pub fn site_id(&self, site: Site) -> &SiteId {
        &self.model.sites[site].id
    }

    pub fn region_of(&self, site: Site) -> usize {
        self.model.sites[site].region
    }

    pub fn sites_len(&self) -> usize {
        self.all_sites.len()
    }

    pub fn regions_len(&self) -> usize {
        self.region_sites.len()
    }

    pub fn services_len(&self) -> usize {
        self.services.len()
    }

    /// The service that stands for a site's talking to central at all; central itself observes it.
    pub fn reporting(&self) -> Service {
        self.reporting
    }

    pub fn service_id(&self, service: Service) -> &str {
        &self.services[service].id
    }

    pub fn service_name(&self, service: Service) -> &str {
        &self.services[service].name
    }

    /// Of what there is one of it: each site, each region or the chain.
    pub fn scope(&self, service: Service) -> Reach {
        self.services[service].scope
    }

    /// The sites within an extent.
    pub fn sites(&self, extent: Extent) -> &[Site] {
        match extent {
            Extent::Site(site) => &self.all_sites[site..=site],
            Extent::Region(region) => &self.region_sites[region],
            Extent::Chain => &self.all_sites,
        }
    }

    /// Itself at distance 0, and every service that fails with it.
    pub fn dependents(&self, service: Service) -> &[(Service, usize)] {
        &self.services[service].dependents
    }

    /// The service whose selector has the metric and the most labels; else one made of the metric's name and labels.
    pub fn place(&mut self, metric: &str, labels: &[(String, String)]) -> Option<Service> {
        let mut best: Option<(usize, Service)> = None;
        for (index, service) in self.model.services.iter().enumerate() {
            for selector in service.metrics.iter().filter(|selector| selector.metric == metric) {
                let longer = best.is_none_or(|(labels, _)| selector.labels.len() > labels);
                if longer && selector.labels.iter().all(|label| labels.contains(label)) {
                    best = Some((selector.labels.len(), index));
                }
            }
        }
        best.map(|(_, index)| index)
            .or_else(|| self.place_unplaced(metric, labels))
    }

    fn place_unplaced(&mut self, metric: &str, labels: &[(String, String)]) -> Option<Service> {
        let values: Vec<&str> = labels.iter().map(|(_, value)| value.as_str()).collect();
        let name = if values.is_empty() {
            metric.to_owned()
        } else {
            format!("{metric} {}", values.join(" "))
        };
        self.unplaced(name)
    }

    /// The service of an id as [`Topology::service_id`] tells it; of a metric that the model does not place, made anew.
    pub fn service(&mut self, id: &str) -> Option<Service> {
        if id == self.service_id(self.reporting) {
            return Some(self.reporting);
        }
        self.model.service(id).or_else(|| self.unplaced(id.to_owned()))
    }

    fn unplaced(&mut self, name: String) -> Option<Service> {
        if let Some(&service) = self.unplaced.get(&name) {
            return Some(service);
        }
        if self.unplaced.len() >= UNPLACED_MAX {
            self.unplaced_refused += 1;
            return None;
        }
        let service = self.add(name.clone(), name.clone());
        self.unplaced.insert(name, service);
        Some(service)
    }

    fn add(&mut self, id: String, name: String) -> Service {
        let alone = vec![(self.services.len(), 0)];
        self.services.push(Node {
            id,
            name,
            scope: Reach::Site,
            ancestors: alone.clone(),
            dependents: alone,
        });
        self.services.len() - 1
    }

    /// Every cause that would explain an anomaly of `service` at `site`; of the service itself, its end at the site too.
    pub fn candidates(&self, site: Site, service: Service, into: &mut BTreeSet<Candidate>) {
        for &(ancestor, distance) in &self.services[service].ancestors {
            let scope = self.services[ancestor].scope;
            if scope == Reach::Site || distance == 0 {
                into.insert(Candidate {
                    service: ancestor,
                    extent: Extent::Site(site),
                });
            }
            if scope <= Reach::Region {
                into.insert(Candidate {
                    service: ancestor,
                    extent: Extent::Region(self.region_of(site)),
                });
            }
            into.insert(Candidate {
                service: ancestor,
                extent: Extent::Chain,
            });
        }
    }

    /// A candidate in the words of the model.
    pub fn cause(&self, service: Option<Service>, extent: Extent) -> Cause {
        let site = if let Extent::Site(site) = extent {
            Some(site)
        } else {
            None
        };
        let region = match extent {
            Extent::Site(site) => Some(self.region_of(site)),
            Extent::Region(region) => Some(region),
            Extent::Chain => None,
        };
        Cause {
            service: service.map(|service| self.service_id(service).to_owned()),
            name: service.map(|service| self.service_name(service).to_owned()),
            scope: match extent {
                Extent::Site(_) => Reach::Site,
                Extent::Region(_) => Reach::Region,
                Extent::Chain => Reach::Chain,
            },
            region: region.map(|region| self.model.regions[region].id.clone()),
            site: site.map(|site| self.site_id(site).to_string()),
        }
    }
}

/// The model's services with their ancestors and dependents; the model has no cycles.
fn placed(model: &Model) -> Vec<Node> {
    let mut nodes: Vec<Node> = model
        .services
        .iter()
        .enumerate()
        .map(|(index, service)| Node {
            id: service.id.clone(),
            name: service.name.clone(),
            scope: service.scope,
            ancestors: ancestors(model, index),
            dependents: Vec::new(),
        })
        .collect();
    for index in 0..nodes.len() {
        for (ancestor, distance) in nodes[index].ancestors.clone() {
            nodes[ancestor].dependents.push((index, distance));
        }
    }
    for node in &mut nodes {
        node.dependents.sort_by_key(|&(service, distance)| (distance, service));
    }
    nodes
}

/// Breadth first, so that each service gets its shortest distance.
fn ancestors(model: &Model, start: Service) -> Vec<(Service, usize)> {
    let mut found = vec![(start, 0)];
    let mut next = 0;
    while let Some(&(service, distance)) = found.get(next) {
        for &needed in &model.services[service].depends_on {
            if found.len() < ANCESTORS_MAX && found.iter().all(|&(known, _)| known != needed) {
                found.push((needed, distance + 1));
            }
        }
        next += 1;
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    fn topology() -> Topology {
        let text = r#"
region = [{ id = "north" }, { id = "south" }]
site = [{ id = "n1", region = "north" }, { id = "n2", region = "north" }, { id = "s1", region = "south" }]
[[service]]
id = "checkout"
depends_on = ["loyalty"]
metrics = [{ name = "latency" }, { name = "latency", labels = { route = "/pay" } }]
[[service]]
id = "loyalty"
depends_on = ["link"]
metrics = [{ name = "latency", labels = { route = "/loyalty" } }]
[[service]]
id = "link"
scope = "region"
depends_on = ["mainframe"]
[[service]]
id = "mainframe"
scope = "chain"
"#;
        Topology::new(Model::parse("model.toml", text).unwrap())
    }

    #[test]
    fn dependents_are_found_through_several_services() {
        let topology = topology();
        assert_eq!(topology.dependents(3), [(3, 0), (2, 1), (1, 2), (0, 3)]);
        assert_eq!(topology.sites(Extent::Region(0)), [0, 1]);
        assert_eq!(topology.sites(Extent::Site(2)), [2]);
    }

    #[test]
    fn a_cause_that_is_not_seen_itself_reaches_at_least_as_far_as_there_is_one_of_it() {
        let topology = topology();
        let mut found = BTreeSet::new();
        topology.candidates(2, 1, &mut found);
        let of = |service| {
            found
                .iter()
                .filter(|c| c.service == service)
                .map(|c| c.extent)
                .collect::<Vec<_>>()
        };
        assert_eq!(of(1), [Extent::Site(2), Extent::Region(1), Extent::Chain]);
        assert_eq!(of(2), [Extent::Region(1), Extent::Chain]);
        assert_eq!(of(3), [Extent::Chain]);
        assert_eq!(of(0), []);
    }

    #[test]
    fn a_link_of_a_region_may_fail_at_one_site_only() {
        let topology = topology();
        let mut found = BTreeSet::new();
        topology.candidates(2, 2, &mut found);
        assert!(found.contains(&Candidate {
            service: 2,
            extent: Extent::Site(2)
        }));
    }

    #[test]
    fn the_selector_with_the_most_labels_wins() {
        let mut topology = topology();
        let label = |value: &str| vec![("route".to_owned(), value.to_owned())];
        assert_eq!(topology.place("latency", &label("/loyalty")), Some(1));
        assert_eq!(topology.place("latency", &label("/other")), Some(0));
    }

    #[test]
    fn what_the_model_does_not_place_is_a_service_of_its_own_up_to_a_bound() {
        let mut topology = topology();
        let disk = topology.place("disk.usage", &[]).unwrap();
        assert_eq!(topology.place("disk.usage", &[]), Some(disk));
        assert_eq!(topology.service_id(disk), "disk.usage");
        for number in 0..UNPLACED_MAX {
            topology.place("odd", &[("n".to_owned(), number.to_string())]);
        }
        assert_eq!((topology.place("new", &[]), topology.unplaced_refused), (None, 2));
    }
}
