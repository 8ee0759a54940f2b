//! docs/observability.md lists every metric and every event reason: what is not listed there cannot be relied on.
#![allow(clippy::unwrap_used)]

use holdfast_controller::ControllerMetrics;
use holdfast_observe::{CallMetrics, metric_names, new_registry};

const DOCUMENT: &str = include_str!("../../docs/observability.md");

fn is_listed(name: &str) -> bool {
    DOCUMENT.contains(&format!("| `{name}`"))
}

#[test]
fn every_metric_of_the_controller_is_documented() {
    let mut registry = new_registry("1");
    CallMetrics::register(&mut registry, "csi.test");
    ControllerMetrics::register(&mut registry);
    let names = metric_names(&registry);
    assert!(names.len() > 8, "{names:?}");
    for name in names {
        assert!(
            is_listed(&name),
            "docs/observability.md has no row for {name}"
        );
    }
}

#[test]
fn every_event_reason_is_documented() {
    for reason in holdfast_api::events::ALL {
        assert!(
            is_listed(reason),
            "docs/observability.md has no row for {reason}"
        );
    }
}
