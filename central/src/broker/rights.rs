//! Who may write and read which topic.
//!
//! In: an identity and a topic or filter. Out: yes or no.
//! It never grants anything for a topic that is none of the feed's.
//!
//! | identity | writes | reads |
//! |---|---|---|
//! | store S | `tw1/*/S/{birth,state,sum,evt,rsp}` | `tw1/*/S/{ack/*,cmd,cfg}` |
//! | archive A | `tw1/*/*/ack/A` | `tw1/*/*/{birth,state,sum,evt}` |
//! | central | `tw1/*/*/{ack/*,cmd,cfg}` | `tw1/*/*/{birth,state,sum,evt,rsp}` |

use std::fmt;
use tillwatch_feed::topic::{self, ArchiveId, Leaf, PREFIX, SiteId};

/// Who is on the other end of a connection, as its certificate or our own process says.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) enum Identity {
    Store(SiteId),
    Archive(ArchiveId),
    Central,
}

impl fmt::Display for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Store(site) => write!(f, "store {site}"),
            Self::Archive(archive) => write!(f, "archive {archive}"),
            Self::Central => f.write_str("central"),
        }
    }
}

impl Identity {
    pub(super) fn may_publish(&self, topic: &str) -> bool {
        let Ok((_, site, leaf)) = topic::parse(topic) else {
            return false;
        };
        match self {
            Self::Store(own) => {
                *own == site && matches!(leaf, Leaf::Birth | Leaf::State | Leaf::Sum | Leaf::Evt | Leaf::Rsp)
            }
            Self::Archive(own) => leaf == Leaf::Ack(own.clone()),
            Self::Central => matches!(leaf, Leaf::Ack(_) | Leaf::Cmd | Leaf::Cfg),
        }
    }

    /// Every topic that the filter matches must be readable; so `#` never is.
    pub(super) fn may_subscribe(&self, filter: &str) -> bool {
        let mut levels = filter.split('/');
        let (prefix, shard, site) = (levels.next(), levels.next(), levels.next());
        let leaf: Vec<_> = levels.collect();
        if prefix != Some(PREFIX) || !shard.is_some_and(is_name_or_any) || !site.is_some_and(is_name_or_any) {
            return false;
        }
        match (self, leaf.as_slice()) {
            (Self::Store(own), ["ack", archive]) => site == Some(own.as_str()) && is_name_or_any(archive),
            (Self::Store(own), ["cmd" | "cfg"]) => site == Some(own.as_str()),
            (Self::Archive(_) | Self::Central, ["birth" | "state" | "sum" | "evt"]) | (Self::Central, ["rsp"]) => true,
            _ => false,
        }
    }
}

fn is_name_or_any(level: &str) -> bool {
    level == "+" || level.parse::<SiteId>().is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn store() -> Identity {
        Identity::Store("store-1".parse().unwrap())
    }

    fn archive() -> Identity {
        Identity::Archive("main".parse().unwrap())
    }

    #[test]
    fn a_store_writes_its_own_feed_and_nothing_else() {
        for leaf in ["birth", "state", "sum", "evt", "rsp"] {
            assert!(store().may_publish(&format!("tw1/a/store-1/{leaf}")), "{leaf}");
            assert!(!store().may_publish(&format!("tw1/a/store-2/{leaf}")), "{leaf}");
        }
        for topic in [
            "tw1/a/store-1/ack/main",
            "tw1/a/store-1/cmd",
            "tw1/a/store-1/cfg",
            "other",
            "$SYS/x",
            "tw1/a/store-1/sum/x",
        ] {
            assert!(!store().may_publish(topic), "{topic}");
        }
    }

    #[test]
    fn a_store_reads_what_is_said_to_it_and_nothing_else() {
        for filter in [
            "tw1/a/store-1/ack/main",
            "tw1/a/store-1/ack/+",
            "tw1/+/store-1/cmd",
            "tw1/a/store-1/cfg",
        ] {
            assert!(store().may_subscribe(filter), "{filter}");
        }
        for filter in [
            "#",
            "+/+/+/+",
            "tw1/#",
            "tw1/a/+/cmd",
            "tw1/a/store-2/cmd",
            "tw1/a/store-1/sum",
            "tw1/a/store-1/+",
            "tw1/a/store-1/#",
            "tw1/a/store-1/ack/#",
            "$share/g/tw1/a/store-1/cmd",
            "tw1/a/+/ack/main",
            "",
        ] {
            assert!(!store().may_subscribe(filter), "{filter}");
        }
    }

    #[test]
    fn an_archive_reads_every_store_and_acknowledges_only_as_itself() {
        assert!(archive().may_publish("tw1/a/store-1/ack/main"));
        for topic in ["tw1/a/store-1/ack/other", "tw1/a/store-1/cmd", "tw1/a/store-1/sum"] {
            assert!(!archive().may_publish(topic), "{topic}");
        }
        for filter in ["tw1/+/+/birth", "tw1/a/+/sum", "tw1/+/store-1/evt", "tw1/+/+/state"] {
            assert!(archive().may_subscribe(filter), "{filter}");
        }
        for filter in ["tw1/+/+/ack/main", "tw1/+/+/rsp", "tw1/#", "#"] {
            assert!(!archive().may_subscribe(filter), "{filter}");
        }
    }

    #[test]
    fn central_commands_but_does_not_speak_for_stores() {
        assert!(Identity::Central.may_publish("tw1/a/store-1/cmd"));
        assert!(!Identity::Central.may_publish("tw1/a/store-1/sum"));
        assert!(Identity::Central.may_subscribe("tw1/+/+/rsp"));
        assert!(!Identity::Central.may_subscribe("#"));
    }
}
