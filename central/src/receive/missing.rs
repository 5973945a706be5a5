//! The births that stored payloads wait for, by site.
//!
//! In: schemas that blocks named and nobody has described, births that came, and what the archive still waits for.
//! Out: what to ask for. It never holds more of one site than [`BIRTHS_MISSING_PER_SITE_MAX`], however much comes.

use crate::archive::BirthKey;
use std::collections::{BTreeMap, BTreeSet};
use tillwatch_feed::topic::SiteId;

/// Births of one site that payloads may wait for; a block that needs one more is refused and comes again later.
pub const BIRTHS_MISSING_PER_SITE_MAX: usize = 64;

#[derive(Debug, Default)]
pub(super) struct Missing {
    sites: BTreeMap<SiteId, BTreeSet<u64>>,
}

impl Missing {
    /// May payloads wait for this one, too?
    pub(super) fn has_room(&self, site: &SiteId, schema: u64) -> bool {
        self.sites
            .get(site)
            .is_none_or(|schemas| schemas.len() < BIRTHS_MISSING_PER_SITE_MAX || schemas.contains(&schema))
    }

    pub(super) fn add(&mut self, site: &SiteId, schema: u64) {
        self.sites.entry(site.clone()).or_default().insert(schema);
    }

    /// The birth came; true when payloads waited for it.
    pub(super) fn remove(&mut self, site: &SiteId, schema: u64) -> bool {
        let Some(schemas) = self.sites.get_mut(site) else {
            return false;
        };
        let was_there = schemas.remove(&schema);
        if schemas.is_empty() {
            self.sites.remove(site);
        }
        was_there
    }

    pub(super) fn is_empty(&self) -> bool {
        self.sites.is_empty()
    }

    pub(super) fn of(&self, site: &SiteId) -> impl Iterator<Item = u64> {
        self.sites.get(site).into_iter().flatten().copied()
    }

    pub(super) fn all(&self) -> impl Iterator<Item = BirthKey> {
        let pairs = |(site, schemas): (&SiteId, &BTreeSet<u64>)| {
            let site = site.clone();
            let each = move |schema: &u64| (site.clone(), *schema);
            schemas.iter().map(each).collect::<Vec<_>>()
        };
        self.sites.iter().flat_map(pairs)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_site_may_wait_for_so_many_births_and_no_more_until_one_comes() {
        let (site, other): (SiteId, SiteId) = ("store-1".parse().unwrap(), "store-2".parse().unwrap());
        let mut missing = Missing::default();
        (0..BIRTHS_MISSING_PER_SITE_MAX as u64).for_each(|schema| missing.add(&site, schema));
        assert!(!missing.has_room(&site, 1_000) && missing.has_room(&site, 0) && missing.has_room(&other, 1_000));
        assert!(missing.remove(&site, 0) && !missing.remove(&site, 0));
        assert!(missing.has_room(&site, 1_000));
        let held = (
            missing.of(&site).count(),
            missing.of(&other).count(),
            missing.all().count(),
        );
        let most = BIRTHS_MISSING_PER_SITE_MAX - 1;
        assert_eq!(held, (most, 0, most));
    }
}
