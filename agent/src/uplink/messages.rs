//! What the uplink and its owner say to each other, and what a message of the broker says.
//!
//! In: a topic and a payload. Out: what it reports, or why it is ignored, in words of our own.

use tillwatch_core::delivery::Refusal;
use tillwatch_feed::codec::{decode_ack, decode_config};
use tillwatch_feed::message::{Ack, Config};
use tillwatch_feed::topic::{Leaf, parse};

/// A payload to be sent once.
#[derive(Clone, Debug)]
pub(crate) struct Publish {
    /// Comes back in `FromUplink`.
    pub(crate) token: u64,
    pub(crate) leaf: Leaf,
    pub(crate) payload: Vec<u8>,
}

#[derive(Clone, Debug)]
pub(crate) enum ToUplink {
    Publish(Publish),
    /// The retained state is out of date; the newest one is in the watch.
    StateChanged,
}

#[derive(Clone, Debug)]
pub(crate) enum FromUplink {
    /// Acknowledgements are subscribed; they follow.
    Connected,
    Disconnected,
    /// The broker has it, which says nothing about the archive.
    Published {
        token: u64,
    },
    Refused {
        token: u64,
        refusal: Refusal,
    },
    Acked(Ack),
    Configured(Config),
    /// Messages that are not for us, not understood, or too many at once.
    Ignored {
        messages: u64,
    },
}

/// What a message says, or why it is ignored: in words of our own, as its topic and payload are not.
pub(super) fn understand(topic: &str, payload: &[u8]) -> Result<FromUplink, &'static str> {
    match parse(topic) {
        Ok((_, _, Leaf::Ack(archive))) => match decode_ack(payload) {
            Ok(ack) if ack.archive == archive => Ok(FromUplink::Acked(ack)),
            Ok(_) => Err("an acknowledgement names another archive than its topic"),
            Err(_) => Err("an acknowledgement cannot be read"),
        },
        Ok((_, _, Leaf::Cfg)) => decode_config(payload)
            .map(FromUplink::Configured)
            .map_err(|_unreadable| "settings cannot be read"),
        _ => Err("nobody asked for it"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rate::Said;

    /// A foreign program wrote to a site's topics, and its words filled the agent's log.
    #[test]
    fn what_is_ignored_is_counted_and_never_quoted() {
        for topic in ["tw1/a/s/4111111111111111", "tw1/a/s/ack/main", "tw1/a/s/cfg", ""] {
            let error = understand(topic, &[0xff; 9]).unwrap_err();
            assert!(!error.contains("4111"), "{error}");
        }
        let mut said = Said::default();
        let counts = [0, 1, 2, 60_000].map(|now_ms| said.count(now_ms));
        assert_eq!(counts, [Some(1), None, None, Some(3)]);
    }
}
