//! The number of a dictionary: a hash over everything that a block needs to be read.
//!
//! Readers compare it and never compute it, so that later versions may hash more.

use crate::message::{Birth, Kind, Metric, Plugin, Series};

impl Birth {
    /// The hash of a dictionary: FNV-1a with 64 bits over the fields as FORMAT.md lists them.
    pub fn schema_hash(window_ms: u32, plugins: &[Plugin], metrics: &[Metric], series: &[Series]) -> u64 {
        let mut hash = Hash::new();
        hash.number(u64::from(window_ms));
        hash.length(plugins.len());
        for plugin in plugins {
            hash.text(&plugin.name);
            hash.text(&plugin.version);
        }
        hash.length(metrics.len());
        for metric in metrics {
            hash.metric(metric);
        }
        hash.length(series.len());
        for series in series {
            hash.number(u64::from(series.id));
            hash.number(u64::from(series.metric));
            hash.texts(&series.label_values);
        }
        hash.0
    }
}

/// Source: Fowler, Noll, Vo; draft-eastlake-fnv, 64-bit FNV-1a.
struct Hash(u64);

impl Hash {
    fn new() -> Hash {
        Hash(0xcbf2_9ce4_8422_2325)
    }

    fn bytes(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.0 = (self.0 ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3);
        }
    }

    fn number(&mut self, number: u64) {
        self.bytes(&number.to_le_bytes());
    }

    fn length(&mut self, length: usize) {
        self.number(u64::try_from(length).unwrap_or(u64::MAX));
    }

    fn text(&mut self, text: &str) {
        self.length(text.len());
        self.bytes(text.as_bytes());
    }

    fn texts(&mut self, texts: &[String]) {
        self.length(texts.len());
        for text in texts {
            self.text(text);
        }
    }

    fn metric(&mut self, metric: &Metric) {
        self.text(&metric.name);
        self.text(&metric.unit);
        self.number(match metric.kind {
            Kind::Gauge => 1,
            Kind::Counter => 2,
            Kind::Sum => 3,
            Kind::Distribution => 4,
        });
        self.text(&metric.role);
        self.number(u64::from(metric.decimals));
        self.text(metric.currency.as_deref().unwrap_or(""));
        self.number(u64::from(metric.plugin));
        self.texts(&metric.label_keys);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn metric(name: &str) -> Metric {
        Metric {
            name: name.to_owned(),
            unit: "s".to_owned(),
            kind: Kind::Distribution,
            role: "latency".to_owned(),
            decimals: 6,
            currency: None,
            plugin: 0,
            label_keys: vec!["http.route".to_owned()],
        }
    }

    fn series(id: u32, label: &str) -> Series {
        Series {
            id,
            metric: 0,
            label_values: vec![label.to_owned()],
        }
    }

    #[test]
    fn fnv_agrees_with_its_published_vectors() {
        let hash = |text: &str| {
            let mut hash = Hash::new();
            hash.bytes(text.as_bytes());
            hash.0
        };
        assert_eq!((hash(""), hash("a")), (0xcbf2_9ce4_8422_2325, 0xaf63_dc4c_8601_ec8c));
        assert_eq!(hash("foobar"), 0x8594_4171_f739_67e8);
    }

    #[test]
    fn any_change_of_the_dictionary_changes_its_number() {
        let plugins = |version: &str| {
            vec![Plugin {
                name: "pos".to_owned(),
                version: version.to_owned(),
            }]
        };
        let numbers = [
            Birth::schema_hash(10_000, &plugins("1"), &[metric("a")], &[series(1, "/")]),
            Birth::schema_hash(20_000, &plugins("1"), &[metric("a")], &[series(1, "/")]),
            Birth::schema_hash(10_000, &plugins("2"), &[metric("a")], &[series(1, "/")]),
            Birth::schema_hash(10_000, &plugins("1"), &[metric("b")], &[series(1, "/")]),
            Birth::schema_hash(10_000, &plugins("1"), &[metric("a")], &[series(2, "/")]),
            Birth::schema_hash(10_000, &plugins("1"), &[metric("a")], &[series(1, "/x")]),
            Birth::schema_hash(10_000, &plugins("1"), &[metric("a")], &[]),
        ];
        for (at, number) in numbers.iter().enumerate() {
            assert!(!numbers[..at].contains(number), "{at}");
        }
    }
}
