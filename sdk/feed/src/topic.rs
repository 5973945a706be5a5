//! Where messages go: `tw1/<shard>/<site>/<leaf>`.
//!
//! In: names from settings and topics from a broker. Out: checked names and topics.
//! A name that got through here can stand in a topic, a certificate's CN, a client id and a path, unescaped.

use std::fmt;
use std::str::FromStr;

/// The first level of every topic; the digit is the version of the topic tree.
pub const PREFIX: &str = "tw1";

/// Longest name of a site, shard or archive.
pub const NAME_BYTES_MAX: usize = 64;

/// The shard of an agent whose settings name none.
pub const SHARD_DEFAULT: &str = "a";

/// Why a name or a topic is none of the feed's.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TopicError {
    /// A site, shard or archive is empty, too long or has a character outside `a-z`, `0-9` and `-`.
    #[error("{what} {name:?} is not of the form [a-z0-9-]{{1,64}}")]
    Name {
        /// `site`, `shard` or `archive`.
        what: &'static str,
        /// As received, cut to 80 characters.
        name: String,
    },
    /// The topic does not start with [`PREFIX`].
    #[error("topic does not start with {PREFIX}/")]
    Prefix,
    /// The topic has another number of levels than its leaf needs.
    #[error("topic has {levels} levels")]
    Levels {
        /// How many were found.
        levels: usize,
    },
    /// The leaf is none of this version's.
    #[error("unknown topic leaf {leaf:?}")]
    Leaf {
        /// As received, cut to 80 characters.
        leaf: String,
    },
}

macro_rules! name {
    ($(#[$doc:meta])* $name:ident, $what:literal) => {
        $(#[$doc])*
        #[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(String);

        impl $name {
            /// The name as it stands in a topic.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl FromStr for $name {
            type Err = TopicError;

            fn from_str(name: &str) -> Result<Self, TopicError> {
                if is_name(name) {
                    return Ok(Self(name.to_owned()));
                }
                Err(TopicError::Name { what: $what, name: name.chars().take(80).collect() })
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl AsRef<str> for $name {
            fn as_ref(&self) -> &str {
                &self.0
            }
        }
    };
}

name!(
    /// A shop, depot or edge box: topic level, certificate CN and MQTT client id.
    SiteId,
    "site"
);
name!(
    /// A routing label: the unit by which several central workers share the feed. Part of no key.
    Shard,
    "shard"
);
name!(
    /// A receiver that stores the feed and acknowledges it.
    ArchiveId,
    "archive"
);

/// The last levels of a topic: what kind of message it carries.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Leaf {
    /// Dictionaries of the site's series.
    Birth,
    /// Retained: is the agent there, and how is its spool.
    State,
    /// Blocks of summaries, and gaps.
    Sum,
    /// Findings.
    Evt,
    /// Retained: what this archive has written durably.
    Ack(ArchiveId),
    /// Commands to the agent.
    Cmd,
    /// Answers to commands.
    Rsp,
    /// Retained: settings for reconnecting.
    Cfg,
}

impl fmt::Display for Leaf {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Leaf::Birth => f.write_str("birth"),
            Leaf::State => f.write_str("state"),
            Leaf::Sum => f.write_str("sum"),
            Leaf::Evt => f.write_str("evt"),
            Leaf::Ack(archive) => write!(f, "ack/{archive}"),
            Leaf::Cmd => f.write_str("cmd"),
            Leaf::Rsp => f.write_str("rsp"),
            Leaf::Cfg => f.write_str("cfg"),
        }
    }
}

/// The topic of one leaf of one site.
pub fn topic(shard: &Shard, site: &SiteId, leaf: &Leaf) -> String {
    format!("{PREFIX}/{shard}/{site}/{leaf}")
}

/// Takes a topic apart.
///
/// # Errors
/// When it is not `tw1/<shard>/<site>/<leaf>` with names of the right form and a leaf of this version.
pub fn parse(topic: &str) -> Result<(Shard, SiteId, Leaf), TopicError> {
    let mut levels = topic.split('/');
    if levels.next() != Some(PREFIX) {
        return Err(TopicError::Prefix);
    }
    let count = topic.split('/').count();
    let (Some(shard), Some(site), Some(leaf)) = (levels.next(), levels.next(), levels.next()) else {
        return Err(TopicError::Levels { levels: count });
    };
    let leaf = parse_leaf(leaf, levels.next(), count)?;
    if levels.next().is_some() {
        return Err(TopicError::Levels { levels: count });
    }
    Ok((shard.parse()?, site.parse()?, leaf))
}

fn parse_leaf(leaf: &str, archive: Option<&str>, levels: usize) -> Result<Leaf, TopicError> {
    let found = match (leaf, archive) {
        ("ack", Some(archive)) => return archive.parse().map(Leaf::Ack),
        ("birth", None) => Leaf::Birth,
        ("state", None) => Leaf::State,
        ("sum", None) => Leaf::Sum,
        ("evt", None) => Leaf::Evt,
        ("cmd", None) => Leaf::Cmd,
        ("rsp", None) => Leaf::Rsp,
        ("cfg", None) => Leaf::Cfg,
        ("ack" | "birth" | "state" | "sum" | "evt" | "cmd" | "rsp" | "cfg", _) => {
            return Err(TopicError::Levels { levels });
        }
        _ => {
            return Err(TopicError::Leaf {
                leaf: leaf.chars().take(80).collect(),
            });
        }
    };
    Ok(found)
}

fn is_name(name: &str) -> bool {
    (1..=NAME_BYTES_MAX).contains(&name.len())
        && name
            .bytes()
            .all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-')
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names() -> (Shard, SiteId) {
        ("a".parse().unwrap(), "store-0412".parse().unwrap())
    }

    #[test]
    fn every_leaf_survives_its_topic() {
        let (shard, site) = names();
        let leaves = [
            Leaf::Birth,
            Leaf::State,
            Leaf::Sum,
            Leaf::Evt,
            Leaf::Cmd,
            Leaf::Rsp,
            Leaf::Cfg,
        ];
        let archive = Leaf::Ack("main".parse().unwrap());
        for leaf in leaves.into_iter().chain([archive]) {
            let topic = topic(&shard, &site, &leaf);
            assert_eq!(parse(&topic), Ok((shard.clone(), site.clone(), leaf)), "{topic}");
        }
    }

    #[test]
    fn a_topic_reads_as_the_format_says() {
        let (shard, site) = names();
        assert_eq!(topic(&shard, &site, &Leaf::Sum), "tw1/a/store-0412/sum");
        assert_eq!(
            topic(&shard, &site, &Leaf::Ack("main".parse().unwrap())),
            "tw1/a/store-0412/ack/main"
        );
    }

    #[test]
    fn names_with_wildcards_slashes_or_capitals_are_refused() {
        for name in ["", "Store", "a/b", "+", "#", "a b", "ä", "a\0", &"x".repeat(65)] {
            assert!(name.parse::<SiteId>().is_err(), "{name:?}");
        }
        assert!("x".repeat(64).parse::<SiteId>().is_ok());
    }

    #[test]
    fn foreign_topics_are_refused_with_their_reason() {
        let levels = |levels| Err(TopicError::Levels { levels });
        assert_eq!(parse("tw2/a/s/sum"), Err(TopicError::Prefix));
        assert_eq!(parse(""), Err(TopicError::Prefix));
        assert_eq!(parse("tw1/a/s"), levels(3));
        assert_eq!(parse("tw1/a/s/sum/x"), levels(5));
        assert_eq!(parse("tw1/a/s/ack"), levels(4));
        assert_eq!(parse("tw1/a/s/ack/main/x"), levels(6));
        assert_eq!(parse("tw1/a/s/new"), Err(TopicError::Leaf { leaf: "new".to_owned() }));
    }
}
