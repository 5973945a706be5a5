//! The service model: which regions, sites and services there are, and which service needs which.
//!
//! In: the text of `model.toml`. Out: a [`Model`] checked as a whole, or every fault at once with file, line, column and hint.
//! It never opens the file, and it works half-filled: regions and sites are enough to group by place.
//!
//! ```toml
//! [[region]]
//! id = "north"
//! name = "North"
//!
//! [[site]]
//! id = "store-0412"
//! region = "north"
//! time_zone = "Europe/Berlin"
//! currency = "EUR"
//!
//! [[service]]
//! id = "checkout"
//! name = "Checkout"
//! depends_on = ["loyalty"]
//! scope = "site"
//! metrics = [{ name = "http.server.request.duration", labels = { "http.route" = "/checkout" } }]
//! ```

mod reader;

use crate::document::{Document, Faults, Table, hint};
use crate::incident::Reach;
use jiff::tz::TimeZone;
use reader::Ids;
use tillwatch_feed::topic::SiteId;

/// Most sites of one model; each costs about 70 KB once it has five weeks of history.
pub const SITES_MAX: usize = 20_000;
/// Most services of one model.
pub const SERVICES_MAX: usize = 500;
/// Most regions of one model.
pub const REGIONS_MAX: usize = 1_000;

/// A checked model. Positions in these lists are the indices that the other modules use.
#[derive(Clone, Debug, Default)]
pub struct Model {
    pub regions: Vec<Region>,
    pub sites: Vec<Site>,
    pub services: Vec<Service>,
}

#[derive(Clone, Debug)]
pub struct Region {
    pub id: String,
    pub name: String,
}

#[derive(Clone, Debug)]
pub struct Site {
    pub id: SiteId,
    /// Index into [`Model::regions`].
    pub region: usize,
    /// Trading hours are local.
    pub time_zone: TimeZone,
    /// ISO 4217; what the site reports wins.
    pub currency: Option<String>,
}

#[derive(Clone, Debug)]
pub struct Service {
    pub id: String,
    pub name: String,
    /// Indices into [`Model::services`].
    pub depends_on: Vec<usize>,
    /// Of what there is one: an instance per site, per region, or one for the whole chain.
    pub scope: Reach,
    pub metrics: Vec<Selector>,
}

/// Which series belong to a service: those of this metric that carry all these labels.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Selector {
    pub metric: String,
    pub labels: Vec<(String, String)>,
}

impl Model {
    /// Reads and checks a whole model. `file` is only named in messages.
    ///
    /// # Errors
    /// All faults of the text at once: syntax, unknown keys, wrong types, duplicates, unknown regions and services, cycles.
    pub fn parse(file: &str, text: &str) -> Result<Model, Faults> {
        let document = Document::new(file, text);
        let root = document.root("the model", &["region", "site", "service"]);
        let regions = root.tables("region", REGIONS_MAX);
        let sites = root.tables("site", SITES_MAX);
        let services = root.tables("service", SERVICES_MAX);
        let mut model = Model::default();
        let region_ids = model.read_regions(&regions);
        model.read_sites(&sites, &region_ids);
        model.read_services(&services);
        let faults = document.faults();
        if faults.0.is_empty() { Ok(model) } else { Err(faults) }
    }

    pub fn service(&self, id: &str) -> Option<usize> {
        self.services.iter().position(|service| service.id == id)
    }

    pub fn region(&self, id: &str) -> Option<usize> {
        self.regions.iter().position(|region| region.id == id)
    }

    fn read_regions(&mut self, entries: &[Table<'_>]) -> Ids {
        let mut ids = Ids::new();
        for entry in entries {
            entry.only(&["id", "name"]);
            let Some(id) = reader::id(entry, "region", &mut ids) else {
                continue;
            };
            let name = entry.text("name").unwrap_or_else(|| id.clone());
            self.regions.push(Region { id, name });
        }
        ids
    }

    fn read_sites(&mut self, entries: &[Table<'_>], regions: &Ids) {
        let mut ids = Ids::new();
        for entry in entries {
            entry.only(&["id", "region", "time_zone", "currency"]);
            let Some(id) = reader::id(entry, "site", &mut ids) else {
                continue;
            };
            let id = match id.parse::<SiteId>() {
                Ok(site) => site,
                Err(error) => {
                    entry.fault("id", error.to_string(), None);
                    continue;
                }
            };
            let region = reader::reference(entry, "region", regions);
            let time_zone = reader::time_zone(entry);
            let currency = reader::currency(entry);
            // A fault was noted when the region is unknown; the index is then never used.
            self.sites.push(Site {
                id,
                region: region.unwrap_or(0),
                time_zone,
                currency,
            });
        }
    }

    fn read_services(&mut self, entries: &[Table<'_>]) {
        let mut ids = Ids::new();
        let mut kept = Vec::new();
        for entry in entries {
            entry.only(&["id", "name", "depends_on", "scope", "metrics"]);
            let Some(id) = reader::id(entry, "service", &mut ids) else {
                continue;
            };
            let name = entry.text("name").unwrap_or_else(|| id.clone());
            let scope = reader::scope(entry);
            let metrics = reader::selectors(entry);
            self.services.push(Service {
                id,
                name,
                depends_on: Vec::new(),
                scope,
                metrics,
            });
            kept.push(entry);
        }
        for (index, entry) in kept.iter().enumerate() {
            self.services[index].depends_on = reader::references(entry, "depends_on", &ids);
        }
        for (index, entry) in kept.iter().enumerate() {
            self.check_cycle(entry, index);
        }
    }

    /// Reports a cycle once: at its member that comes first in the file.
    fn check_cycle(&self, entry: &Table<'_>, index: usize) {
        let Some(path) = self.path_back(index) else { return };
        if path.iter().any(|&member| member < index) {
            return;
        }
        let names: Vec<&str> = path
            .iter()
            .chain([&index])
            .map(|&at| self.services[at].id.as_str())
            .collect();
        let message = format!("services depend on each other in a circle: {}", names.join(" -> "));
        let hint = hint("a service may only depend on what works without it; remove one of these dependencies");
        entry.fault("depends_on", message, hint);
    }

    /// The services on a way from `start` over what it depends on back to itself.
    fn path_back(&self, start: usize) -> Option<Vec<usize>> {
        let mut seen = vec![false; self.services.len()];
        let mut path = vec![start];
        self.walk_back(start, start, &mut seen, &mut path).then_some(path)
    }

    fn walk_back(&self, at: usize, start: usize, seen: &mut [bool], path: &mut Vec<usize>) -> bool {
        for &next in &self.services[at].depends_on {
            if next == start {
                return true;
            }
            if std::mem::replace(&mut seen[next], true) {
                continue;
            }
            path.push(next);
            if self.walk_back(next, start, seen, path) {
                return true;
            }
            path.pop();
        }
        false
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = r#"
[[region]]
id = "north"
name = "North"

[[site]]
id = "store-1"
region = "north"
time_zone = "CET-1CEST,M3.5.0,M10.5.0/3"
currency = "EUR"

[[service]]
id = "checkout"
depends_on = ["loyalty"]
metrics = [{ name = "http.server.request.duration", labels = { "http.route" = "/checkout" } }]

[[service]]
id = "loyalty"
name = "Loyalty"
scope = "chain"
"#;

    fn faults(text: &str) -> Vec<String> {
        match Model::parse("model.toml", text) {
            Ok(model) => panic!("no fault found in {model:?}"),
            Err(errors) => errors.0.iter().map(ToString::to_string).collect(),
        }
    }

    #[test]
    fn a_good_model_is_read() {
        let model = Model::parse("model.toml", GOOD).unwrap();
        assert_eq!(model.regions[0].name, "North");
        assert_eq!(
            (model.sites[0].region, model.sites[0].currency.as_deref()),
            (0, Some("EUR"))
        );
        let checkout = &model.services[0];
        assert_eq!(
            (checkout.name.as_str(), checkout.scope, &checkout.depends_on),
            ("checkout", Reach::Site, &vec![1])
        );
        assert_eq!(
            checkout.metrics[0].labels,
            [("http.route".to_owned(), "/checkout".to_owned())]
        );
        assert_eq!(model.services[1].scope, Reach::Chain);
    }

    #[test]
    fn regions_and_sites_are_enough() {
        let model = Model::parse(
            "m",
            "region = [{ id = \"n\" }]\nsite = [{ id = \"s\", region = \"n\" }]",
        )
        .unwrap();
        assert_eq!(
            (model.regions.len(), model.sites.len(), model.services.len()),
            (1, 1, 0)
        );
    }

    #[test]
    fn all_faults_are_told_at_once_with_their_place() {
        let text = "[[region]]\nid = \"north\"\nnmae = \"North\"\n[[region]]\nid = \"north\"\n[[site]]\nid = \"Store 1\"\nregion = \"nroth\"\n[[site]]\nid = \"s2\"\nregion = \"nroth\"\ntime_zone = \"Mars/Base\"\ncurrency = \"euro\"\n";
        let found = faults(text);
        assert_eq!(found.len(), 6, "{found:#?}");
        assert_eq!(
            found[0],
            "model.toml:3:1: unknown key \"nmae\" in [[region]]\n  hint: did you mean \"name\"?"
        );
        assert_eq!(
            found[1],
            "model.toml:5:6: region \"north\" is there twice\n  hint: the first one is in line 2"
        );
        assert!(
            found[2].starts_with("model.toml:7:6: site \"Store 1\" is not of the form"),
            "{}",
            found[2]
        );
        assert_eq!(
            found[3],
            "model.toml:11:10: unknown region \"nroth\"\n  hint: did you mean \"north\"?"
        );
        assert!(
            found[4].starts_with("model.toml:12:13: unknown time zone \"Mars/Base\"\n  hint: "),
            "{}",
            found[4]
        );
        assert!(
            found[5].starts_with("model.toml:13:12: currency \"euro\""),
            "{}",
            found[5]
        );
    }

    #[test]
    fn a_circle_of_services_is_told_once() {
        let text = "[[service]]\nid = \"a\"\ndepends_on = [\"b\"]\n[[service]]\nid = \"b\"\ndepends_on = [\"c\"]\n[[service]]\nid = \"c\"\ndepends_on = [\"a\"]\n";
        let found = faults(text);
        assert_eq!(found.len(), 1, "{found:#?}");
        assert!(
            found[0].starts_with("model.toml:3:14: services depend on each other in a circle: a -> b -> c -> a"),
            "{}",
            found[0]
        );
    }

    #[test]
    fn wrong_types_and_broken_toml_have_a_place_too() {
        let found = faults(
            "[[service]]\nid = 5\n[[service]]\nid = \"a\"\nscope = \"sites\"\ndepends_on = [\"a\", 3]\nmetrics = [{ labels = { a = 1 } }]\n[[sevice]]\n",
        );
        assert_eq!(found.len(), 7, "{found:#?}");
        assert!(found[1].starts_with("model.toml:5:9: scope \"sites\""), "{}", found[1]);
        let broken = faults("[[region]]\nid = \"a\nname = 3\n");
        assert!(broken[0].starts_with("model.toml:2:"), "{broken:#?}");
    }

    #[test]
    fn a_service_may_not_depend_on_itself() {
        let found = faults("[[service]]\nid = \"a\"\ndepends_on = [\"a\"]\n");
        assert!(found[0].contains("a -> a"), "{found:#?}");
    }
}
