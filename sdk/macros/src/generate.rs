//! Rust text from a checked manifest.

use std::fmt::Write;

use crate::manifest::{Manifest, Metric};

/// A compile error with this message.
pub(crate) fn compile_error(message: &str) -> String {
    format!("::core::compile_error!({message:?});")
}

/// The constants and the descriptor. Naming the file lets cargo build again when it changes.
pub(crate) fn code(manifest: &Manifest, path: &str) -> String {
    let mut constants = String::new();
    let mut metrics = String::new();
    for (index, metric) in manifest.metrics.iter().enumerate() {
        write_constant(&mut constants, index, metric);
        write_metric(&mut metrics, metric);
    }
    let plugin = &manifest.plugin;
    format!(
        "/// The metrics of `plugin.toml`.
        pub mod metric {{ {constants} }}

        /// What `plugin.toml` declares.
        pub fn descriptor() -> ::tillwatch_sdk::Descriptor {{
            const _: &[u8] = ::core::include_bytes!({path:?});
            ::tillwatch_sdk::Descriptor {{
                name: {name:?}.into(),
                version: {version:?}.into(),
                metrics: ::std::vec![{metrics}],
                min_interval_ms: {min_interval_ms},
                attrs: ::std::vec::Vec::new(),
            }}
        }}",
        name = plugin.name.get_ref(),
        version = plugin.version.get_ref(),
        min_interval_ms = plugin.min_interval_ms,
    )
}

fn write_constant(out: &mut String, index: usize, metric: &Metric) {
    let (help, name) = (&metric.help, metric.constant());
    writeln!(
        out,
        "#[doc = {help:?}] pub const {name}: ::tillwatch_sdk::MetricId = ::tillwatch_sdk::MetricId::new({index});"
    )
    .expect("writing to a string cannot fail");
}

fn write_metric(out: &mut String, metric: &Metric) {
    let labels: Vec<String> = metric
        .labels
        .iter()
        .map(|label| format!("{:?}.into()", label.get_ref()))
        .collect();
    let currency = match &metric.currency {
        Some(currency) => format!("::core::option::Option::Some({:?}.into())", currency.get_ref()),
        None => "::core::option::Option::None".to_owned(),
    };
    writeln!(
        out,
        "::tillwatch_sdk::Metric {{
            name: {name:?}.into(),
            unit: {unit:?}.into(),
            kind: ::tillwatch_sdk::Kind::{kind},
            help: {help:?}.into(),
            label_keys: ::std::vec![{labels}],
            role: {role:?}.into(),
            decimals: {decimals},
            currency: {currency},
        }},",
        name = metric.name.get_ref(),
        unit = metric.unit,
        kind = variant(metric.kind.get_ref()),
        help = metric.help,
        labels = labels.join(", "),
        role = metric.role,
        decimals = metric.decimals.as_ref().map_or(0, |decimals| *decimals.get_ref()),
    )
    .expect("writing to a string cannot fail");
}

/// The enum's variant of a checked kind.
fn variant(kind: &str) -> &'static str {
    match kind {
        "gauge" => "Gauge",
        "counter" => "Counter",
        "sum" => "Sum",
        _ => "Distribution",
    }
}
