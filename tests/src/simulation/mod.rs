//! Both delivery machines, the spool and a hostile world in one process, from one seed, with a checker of what is promised.
//!
//! In: a seed, how many faults, and a variant that breaks one rule on purpose. Out: what happened, or the first promise
//! that was broken. The machines are the product's own: `tillwatch_core::delivery`, `tillwatch_agent::spool` on a disk in
//! memory, and one `tillwatch_central::cursor` for each archive; disk, network, broker and archive's tables are simulated.
//!
//! A fault is a kill, a cut, a stall or a failed write, and it counts only when it hit a message in flight: one that was
//! sent and not yet acknowledged, or that an archive has taken and not yet written. Beside them, and counted as such:
//! restored disk images of the store and of archives, losses by quota, acknowledgements that are lost, doubled, late, of an
//! old retained copy, of a stranger, or for what was never written; refusals of the broker; messages doubled and reordered.
//!
//! What is checked, at each step or at the end of each world:
//!
//! | promise | where |
//! | --- | --- |
//! | an acknowledgement names only what its archive has written durably | `center.rs`, each acknowledgement |
//! | what the spool deletes was durable at every required archive | `site.rs`, each release |
//! | a restart finds all that is held, and nothing else | `site.rs`, each start |
//! | `through_seq` of a generation never goes back while its archive lives | `center.rs`, each acknowledgement |
//! | no record is stored twice, under one name or under two | `center.rs`, each commit |
//! | received + accounted for = settled, and the tables say the same | `center.rs`, at the end |
//! | what the store heard acknowledged by all is not sent again | `site.rs`, each message |
//! | a block goes after its birth; at most the limit is in flight; nothing goes without a connection | the same |
//! | each record is at each archive, or told as lost, and what is told as lost was lost | `world.rs`, at the end |
//! | when faults end, all of it has arrived within a bounded time | the same |
//!
//! That the checker can fail is a test, too: each variant of [`Variant`] breaks one rule, and is found.
//!
//! `TILLWATCH_FAULTS=1000000 cargo test -p tillwatch-tests simulation` runs longer, `TILLWATCH_SEED=7` one world again;
//! `cargo xtask bench delivery` does both faster.

mod center;
mod disk;
mod site;
mod world;

use anyhow::{Context, Result};
use serde::Serialize;

use world::World;

/// One rule that is broken on purpose.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Variant {
    /// The product.
    Real,
    /// Deletes what it handed to the network: the naive client.
    DeletesWhenPublished,
    /// Deletes what the broker took.
    DeletesOnPuback,
    /// Deletes what one of the required archives has.
    OneArchiveSuffices,
    /// Obeys an archive that is not in its settings.
    ObeysStrangers,
    /// Obeys an acknowledgement of what was never written.
    ObeysBeyondItsLast,
    /// Ignores what is acknowledged beyond `through_seq`.
    IgnoresRanges,
    /// Drops by quota in silence.
    TellsNoGap,
    /// Begins no new generation at a start.
    KeepsItsGeneration,
    /// The archive acknowledges before it has written.
    AcknowledgesEarly,
    /// The archive stores what it has already.
    StoresDuplicates,
    /// The archive does not heed the oldest number that is held.
    IgnoresOldestHeld,
    /// A restored archive goes on under its old start number.
    KeepsItsStart,
    /// The archive's cursors are not written with its payloads.
    ForgetsItsCursor,
}

impl Variant {
    /// All that must be found.
    pub const BROKEN: [Variant; 13] = [
        Variant::DeletesWhenPublished,
        Variant::DeletesOnPuback,
        Variant::OneArchiveSuffices,
        Variant::ObeysStrangers,
        Variant::ObeysBeyondItsLast,
        Variant::IgnoresRanges,
        Variant::TellsNoGap,
        Variant::KeepsItsGeneration,
        Variant::AcknowledgesEarly,
        Variant::StoresDuplicates,
        Variant::IgnoresOldestHeld,
        Variant::KeepsItsStart,
        Variant::ForgetsItsCursor,
    ];
}

/// What happened in all worlds together.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Tally {
    pub worlds: u64,
    /// That hit a message in flight.
    pub faults: u64,
    pub kills: u64,
    pub cuts: u64,
    pub stalls: u64,
    pub failed_writes: u64,
    /// Of the store's disk.
    pub images_restored: u64,
    pub archives_restored: u64,
    pub generations: u64,
    pub produced: u64,
    /// By the spool's bounds or the broker's refusal; each is told.
    pub dropped: u64,
    /// They went with a disk that was replaced by its older image.
    pub gone_with_the_image: u64,
    /// An archive lost them with its disk after the store had deleted them, and no later message names them.
    pub unnamed_after_restore: u64,
    pub messages: u64,
    pub records_sent: u64,
    pub records_sent_again: u64,
    /// Times that an acknowledgement claimed more than was written.
    pub disputes: u64,
}

impl Tally {
    fn add(&mut self, other: &Tally) {
        let sums = [
            (&mut self.worlds, other.worlds),
            (&mut self.faults, other.faults),
            (&mut self.kills, other.kills),
            (&mut self.cuts, other.cuts),
            (&mut self.stalls, other.stalls),
            (&mut self.failed_writes, other.failed_writes),
            (&mut self.images_restored, other.images_restored),
            (&mut self.archives_restored, other.archives_restored),
            (&mut self.generations, other.generations),
            (&mut self.produced, other.produced),
            (&mut self.dropped, other.dropped),
            (&mut self.gone_with_the_image, other.gone_with_the_image),
            (&mut self.unnamed_after_restore, other.unnamed_after_restore),
            (&mut self.messages, other.messages),
            (&mut self.records_sent, other.records_sent),
            (&mut self.records_sent_again, other.records_sent_again),
            (&mut self.disputes, other.disputes),
        ];
        sums.into_iter().for_each(|(sum, more)| *sum += more);
    }
}

/// Runs the world of one seed to its end.
///
/// # Errors
/// The first promise that was broken, with the seed.
pub fn run_world(seed: u64, variant: Variant) -> Result<Tally> {
    World::new(seed, variant)
        .and_then(World::run)
        .with_context(|| format!("world of seed {seed}"))
}

/// Runs worlds from this seed on until so many faults have hit a message in flight.
///
/// # Errors
/// The first promise that was broken, with its seed.
pub fn run(first_seed: u64, faults: u64) -> Result<Tally> {
    let mut tally = Tally::default();
    let mut seed = first_seed;
    while tally.faults < faults {
        tally.add(&run_world(seed, Variant::Real)?);
        seed += 1;
    }
    Ok(tally)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Of a short run; the long one is in docs/SPECIFICATION.md.
    const FAULTS: u64 = 5_000;
    const SEEDS_TO_FIND_ONE: u64 = 200;

    fn number(name: &str) -> Option<u64> {
        std::env::var(name).ok().map(|text| text.parse().unwrap())
    }

    #[test]
    fn whatever_fails_nothing_is_lost_without_a_gap_nothing_doubled_and_all_arrives() {
        if let Some(seed) = number("TILLWATCH_SEED") {
            println!("{:?}", run_world(seed, Variant::Real).unwrap());
            return;
        }
        let faults = number("TILLWATCH_FAULTS").unwrap_or(FAULTS);
        let tally = run(1, faults).unwrap();
        println!("{tally:#?}");
        let hundredth = faults / 100;
        assert!(tally.kills.min(tally.cuts).min(tally.stalls).min(tally.failed_writes) > hundredth);
        assert!(tally.images_restored.min(tally.archives_restored) > tally.worlds);
        assert!(tally.dropped > hundredth && tally.disputes > tally.worlds);
    }

    #[test]
    fn each_broken_rule_is_found() {
        for variant in Variant::BROKEN {
            let found = (1..=SEEDS_TO_FIND_ONE).find_map(|seed| run_world(seed, variant).err());
            let found = found.unwrap_or_else(|| panic!("{variant:?} was not found"));
            println!("{variant:?}: {found:#}");
        }
    }

    #[test]
    fn a_seed_gives_the_same_world_again() {
        assert_eq!(
            run_world(3, Variant::Real).unwrap(),
            run_world(3, Variant::Real).unwrap()
        );
    }
}
