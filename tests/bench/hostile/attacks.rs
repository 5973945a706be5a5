//! What a plugin that is loaded may try; its other half is `agent/sandbox/tests/hostile`.

use super::{DEADLINE_MS, PATIENT_MS};

/// One misbehavior with what must become of it.
pub(super) struct Attack {
    pub(super) behavior: &'static str,
    /// In the words of the agent, or of one of them.
    becomes: &'static [&'static str],
    /// Somebody exchanges files for links meanwhile.
    pub(super) swaps: bool,
    /// It is called as the agent does it, until it is not any more.
    pub(super) is_restrained: bool,
}

pub(super) const DEADLINE: &str = "took more than 100 ms of a processor";

impl Attack {
    pub(super) fn is_contained(&self, became: &str) -> bool {
        self.becomes.iter().any(|words| became.contains(words))
    }

    pub(super) fn is_at_start(&self) -> bool {
        self.behavior.starts_with("configure-") || self.behavior.starts_with("describe-")
    }

    pub(super) fn call_ms_max(&self) -> u64 {
        if self.becomes.contains(&DEADLINE) || self.is_restrained {
            DEADLINE_MS
        } else {
            PATIENT_MS
        }
    }
}

const fn attack(behavior: &'static str, becomes: &'static [&'static str]) -> Attack {
    Attack {
        behavior,
        becomes,
        swaps: false,
        is_restrained: false,
    }
}

pub(super) const ATTACKS: &[Attack] = &[
    // Time.
    attack("loop", &[DEADLINE]),
    attack("configure-loop", &[DEADLINE]),
    attack("describe-loop", &[DEADLINE]),
    attack("collect-loop-of-calls", &[DEADLINE]),
    attack("collect-more", &["0 count, refused: {}"]),
    // Memory and stack.
    attack("memory", &["bytes of memory, at most"]),
    attack("configure-memory", &["bytes of memory, at most"]),
    attack("describe-memory", &["bytes of memory, at most"]),
    attack("collect-memory-at-once", &["bytes of memory, at most"]),
    attack("collect-memory-to-the-brim", &["0 count, refused: {\"too_old\": 1}"]),
    attack("recursion", &["more than its stack", "trapped"]),
    attack("configure-recursion", &["more than its stack", "trapped"]),
    attack("describe-recursion", &["more than its stack", "trapped"]),
    // Traps, in every export.
    attack("panic", &["trapped"]),
    attack("configure-panic", &["trapped"]),
    attack("describe-panic", &["trapped"]),
    attack("collect-unreachable", &["trapped"]),
    attack("collect-out-of-bounds", &["trapped"]),
    attack("collect-long-panic", &["trapped"]),
    // Texts.
    attack("refuse", &["says 1024 bytes"]),
    attack("fail", &["says 16 bytes"]),
    attack("huge-label", &["said more than", "bytes of memory, at most"]),
    attack("configure-text", &["said more than", "bytes of memory, at most"]),
    attack("collect-huge-error", &["said more than", "bytes of memory, at most"]),
    attack("collect-long-error", &["says 1024 bytes"]),
    attack("describe-long-text", &["where text_bytes_max is 1024"]),
    attack("describe-huge", &["said more than", "bytes of memory, at most"]),
    // Floods of what goes out.
    attack("many-series", &["where series_max is 1000"]),
    attack("collect-many-samples", &["where samples_max is 100000"]),
    attack("collect-many-labels", &["where labels_max is 16"]),
    attack("collect-long-label", &["where label_bytes_max is 256"]),
    attack("describe-many-metrics", &["where metrics_max is 256"]),
    attack("describe-many-labels", &["where labels_max is 16"]),
    attack("describe-many-attrs", &["where labels_max is 16"]),
    // The most that one batch can make of the past, which is taken: it is less than its bound.
    attack("collect-long-history", &["99000 count, refused: {}"]),
    attack("collect-churn", &["source_series_full\": 1000"]),
    // Forged names.
    attack("describe-other-plugin", &["its settings change more"]),
    attack("describe-other-name", &["its settings change more"]),
    attack("describe-other-unit", &["its settings change more"]),
    attack("describe-other-kind", &["its settings change more"]),
    attack("describe-other-role", &["its settings change more"]),
    attack("describe-more-metrics", &["its settings change more"]),
    attack("describe-fewer-metrics", &["its settings change more"]),
    attack("collect-forged-metric", &["0 count, refused: {\"undeclared\": 1}"]),
    attack("collect-card-label", &["0 count, refused: {\"card\": 1}"]),
    attack("collect-card-number", &["0 count, refused: {\"card\": 1}"]),
    attack("collect-control-label", &["0 count, refused: {\"label\": 1}"]),
    attack("collect-not-a-number", &["0 count, refused: {\"not_finite\": 1}"]),
    attack("collect-infinity", &["0 count, refused: {\"not_finite\": 1}"]),
    attack("collect-largest-numbers", &["0 count, refused: {\"out_of_range\": 1}"]),
    attack("collect-future", &["0 count, refused: {\"too_new\": 1}"]),
    attack("collect-past", &["0 count, refused: {\"too_old\": 1}"]),
    // Floods of calls to the host.
    attack("logs", &["log lines dropped, log lines cut"]),
    attack("collect-log-flood", &["log lines dropped"]),
    attack("collect-log-huge", &["log lines cut", "said more than"]),
    attack("collect-clock-flood", &["0 count, refused: {}"]),
    attack("reads", &["asks refused"]),
    attack("collect-list-flood", &["asks refused", "host time refused"]),
    attack(
        "collect-document-flood",
        &["asks refused", "host time refused", DEADLINE],
    ),
    // State.
    attack("huge-state", &["states refused"]),
    attack("collect-state-just-too-large", &["states refused"]),
    attack("collect-state-flood", &[DEADLINE]),
    // Paths and hosts in the names of sources.
    attack("source-unknown", &[UNKNOWN]),
    attack("source-empty", &[UNKNOWN]),
    attack("source-absolute", &[UNKNOWN]),
    attack("source-parent", &[UNKNOWN]),
    attack("source-behind-name", &[UNKNOWN]),
    attack("source-nul", &[UNKNOWN]),
    attack("source-url", &[UNKNOWN]),
    attack("source-proc", &[UNKNOWN]),
    attack("source-huge", &[UNKNOWN, "said more than", "bytes of memory, at most"]),
    attack("source-wrong-kind", &["every source is of one kind only"]),
    attack("peer-huge-http", NO_PEER),
    attack("peer-huge-tcp", NO_PEER),
    attack("peer-huge-sql", NO_PEER),
    attack("peer-flood", &["more was asked than one call may"]),
    Attack {
        behavior: "steal",
        becomes: &["0 count, refused: {}"],
        swaps: true,
        is_restrained: false,
    },
    Attack {
        behavior: "loop-every-second-call",
        becomes: &[QUARANTINED],
        swaps: false,
        is_restrained: true,
    },
];

const NO_PEER: &[&str] = &[
    "no peer of that name and kind is granted",
    "said more than",
    "bytes of memory, at most",
];
pub(super) const QUARANTINED: &str = "it came into quarantine";
const UNKNOWN: &str = "no source of that name and kind is granted";
