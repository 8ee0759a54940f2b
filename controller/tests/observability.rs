//! docs/observability.md lists every event reason: what is not listed there cannot be relied on.

const DOCUMENT: &str = include_str!("../../docs/observability.md");

#[test]
fn every_event_reason_is_documented() {
    for reason in holdfast_api::events::ALL {
        let row = format!("| `{reason}`");
        assert!(
            DOCUMENT.contains(&row),
            "docs/observability.md has no row for {reason}"
        );
    }
}
