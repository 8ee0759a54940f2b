//! The registry every process begins with, and what is in one.

use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::info::Info;
use prometheus_client::registry::Registry;
use std::collections::BTreeSet;

/// A registry that says which build this is: `holdfast_build_info{version="..."} 1`.
#[must_use]
pub fn new_registry(version: &'static str) -> Registry {
    let mut registry = Registry::default();
    let info = Info::new([("version", version)]);
    registry.register("holdfast_build", "The build that runs here", info);
    registry
}

/// All metrics as OpenMetrics text, as `/metrics` answers.
#[must_use]
pub fn metrics_text(registry: &Registry) -> String {
    let mut text = String::new();
    encode(&mut text, registry).expect("writing to a string does not fail");
    text
}

/// The names of everything in a registry, as they stand in a `# HELP` line: without the suffixes that samples bear. For tests
/// that compare them with a document.
#[must_use]
pub fn metric_names(registry: &Registry) -> BTreeSet<String> {
    metrics_text(registry)
        .lines()
        .filter_map(|line| line.strip_prefix("# HELP ")?.split(' ').next())
        .map(str::to_owned)
        .collect()
}
