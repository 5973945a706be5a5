//! Which fault comes in which cycle: a pure function of seed, lane and cycle, so that any cycle of any run can come again.

use std::time::Duration;

/// A part that can be killed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Part {
    Agent,
    Broker,
    Central,
}

/// Whose link to the broker.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    Agent,
    Central,
}

/// What a link does until the pause is over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LinkFault {
    Reset,
    HalfClose,
    /// The client goes on with a connection that the broker no longer has.
    ClientHalfOpen,
    /// The broker goes on with a connection that the client no longer has.
    ServerHalfOpen,
    /// Nothing passes; TCP goes on afterwards.
    Partition,
    /// What the client says is lost, then the connection is reset.
    UpBlackhole,
    /// The same the other way round.
    DownBlackhole,
    Delay,
    Slow,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    Kill(Part),
    KillBoth(Part, Part),
    /// And perhaps a kill meanwhile.
    Link(End, LinkFault, Option<Part>),
    /// No room on the disk of the agent, or of central.
    DiskFull(End),
}

/// One cycle.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Strike {
    pub fault: Fault,
    /// Strikes what is sent first after the last fault, not what is sent in peace.
    pub is_eager: bool,
    /// From the moment when something is in flight.
    pub after: Duration,
    /// Until everything is put right again.
    pub pause: Duration,
}

const PARTS: [Part; 3] = [Part::Agent, Part::Broker, Part::Central];
const LINK_FAULTS: [LinkFault; 9] = [
    LinkFault::Reset,
    LinkFault::HalfClose,
    LinkFault::ClientHalfOpen,
    LinkFault::ServerHalfOpen,
    LinkFault::Partition,
    LinkFault::UpBlackhole,
    LinkFault::DownBlackhole,
    LinkFault::Delay,
    LinkFault::Slow,
];

/// The fault of a cycle. Without disks that may be filled a kill stands in for them.
pub fn strike(seed: u64, lane: u32, cycle: u64, has_disks: bool) -> Strike {
    let mut random =
        fastrand::Rng::with_seed(seed ^ (u64::from(lane) << 48) ^ cycle.wrapping_mul(0x9e37_79b9_7f4a_7c15));
    let is_eager = random.bool();
    let after = Duration::from_millis(random.u64(0..80));
    let pause = Duration::from_millis(random.u64(0..600));
    let mut part = || PARTS[random.usize(0..PARTS.len())];
    let (first, second) = (part(), part());
    let end = if random.bool() { End::Agent } else { End::Central };
    let link = LINK_FAULTS[random.usize(0..LINK_FAULTS.len())];
    let fault = match random.u32(0..20) {
        0..8 => Fault::Kill(first),
        8..10 if first == second => Fault::Kill(first),
        8..10 => Fault::KillBoth(first, second),
        10..16 => Fault::Link(end, link, None),
        16..19 => Fault::Link(end, link, Some(second)),
        _ if has_disks => Fault::DiskFull(end),
        _ => Fault::Kill(second),
    };
    Strike {
        fault,
        is_eager,
        after,
        pause,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_replays_any_cycle_and_every_fault_comes() {
        let of = |lane| (0..1_000).map(|cycle| strike(7, lane, cycle, true)).collect::<Vec<_>>();
        assert_eq!(of(0), of(0));
        assert_ne!(of(0), of(1));
        let faults: Vec<Fault> = of(0).iter().map(|strike| strike.fault).collect();
        for part in PARTS {
            assert!(faults.contains(&Fault::Kill(part)), "{part:?}");
        }
        for end in [End::Agent, End::Central] {
            assert!(faults.contains(&Fault::DiskFull(end)), "{end:?}");
            for link in LINK_FAULTS {
                assert!(faults.contains(&Fault::Link(end, link, None)), "{end:?} {link:?}");
            }
        }
        assert!((0..1_000).all(|cycle| !matches!(strike(7, 0, cycle, false).fault, Fault::DiskFull(_))));
    }
}
