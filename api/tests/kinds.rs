//! The kinds as an operator meets them: names, sizes, conditions, manifests, schemas.

use holdfast_api::{
    BlockPool, SplitVolume, Time, Verdict, VolumeSession, check_object_name, condition, is_true,
    parse_quantity, quantity, set_condition, short_id, volume_id,
};
use kube::CustomResourceExt;
use serde_json::{Value, json};

#[test]
fn size_is_read_as_written() {
    let cases = [
        ("0", 0),
        ("1", 1),
        ("4Gi", 4 << 30),
        ("4GiB", 4 << 30),
        ("64MiB", 64 << 20),
        ("10G", 10_000_000_000),
        ("1EiB", 1 << 60),
        (" 5Ki ", 5 << 10),
    ];
    for (text, bytes) in cases {
        assert_eq!(parse_quantity(text), Ok(bytes), "{text}");
    }
}

#[test]
fn size_that_is_none_is_refused_with_its_text() {
    for text in [
        "",
        "Gi",
        "-1",
        "1.5Gi",
        "1 Gi",
        "4gb",
        "0x10",
        "99999999999999999999",
        "8Ei",
        "16Ei",
    ] {
        let error = parse_quantity(text).expect_err(text).to_string();
        assert!(error.contains(&format!("{text:?}")), "{error}");
    }
}

#[test]
fn size_survives_a_round_trip() {
    for bytes in [
        0,
        1,
        1 << 20,
        (1 << 20) + 1,
        3 << 30,
        5 << 40,
        1_000_000_007,
    ] {
        assert_eq!(parse_quantity(&quantity(bytes).0), Ok(bytes));
    }
}

#[test]
fn csi_name_becomes_an_object_name() {
    assert_eq!(volume_id("pvc-1b2c"), "pvc-1b2c");
    for odd in [
        "UPPER",
        "a/../../b",
        &"x".repeat(128),
        "",
        "name with spaces",
        "-a",
        "a-",
    ] {
        let id = volume_id(odd);
        check_object_name(&id).expect("an id is always a valid name");
        assert_eq!(id, volume_id(odd), "an id is stable");
    }
    assert_ne!(volume_id("A"), volume_id("B"));
    assert_eq!(short_id("pvc-1b2c").len(), 16);
}

#[test]
fn condition_keeps_its_time_until_it_flips() {
    let (first, second) = (time("2026-01-01T00:00:00Z"), time("2026-01-02T00:00:00Z"));
    let verdict = |holds, message| Verdict {
        kind: "Ready",
        holds,
        reason: "Ok",
        message,
    };
    let mut conditions = Vec::new();
    assert!(set_condition(
        &mut conditions,
        verdict(true, "a"),
        1,
        &first
    ));
    assert!(!set_condition(
        &mut conditions,
        verdict(true, "a"),
        1,
        &second
    ));
    assert!(set_condition(
        &mut conditions,
        verdict(true, "b"),
        1,
        &second
    ));
    assert_eq!(
        condition(&conditions, "Ready").map(|c| &c.last_transition_time),
        Some(&first)
    );
    assert!(set_condition(
        &mut conditions,
        verdict(false, "b"),
        2,
        &second
    ));
    assert_eq!(
        condition(&conditions, "Ready").map(|c| &c.last_transition_time),
        Some(&second)
    );
    assert!(!is_true(&conditions, "Ready"));
}

fn time(text: &str) -> Time {
    serde_json::from_value(json!(text)).expect("a time")
}

#[test]
fn every_field_of_every_kind_says_what_it_is() {
    for crd in [BlockPool::crd(), SplitVolume::crd(), VolumeSession::crd()] {
        let name = crd.spec.names.kind.clone();
        let schema = serde_json::to_value(&crd.spec.versions[0].schema).expect("a schema");
        for part in ["spec", "status"] {
            let path = format!("/openAPIV3Schema/properties/{part}");
            check_described(
                &format!("{name}.{part}"),
                schema.pointer(&path).expect("spec and status"),
            );
        }
    }
}

fn check_described(path: &str, schema: &Value) {
    for (name, field) in schema
        .pointer("/properties")
        .and_then(Value::as_object)
        .into_iter()
        .flatten()
    {
        let path = format!("{path}.{name}");
        assert!(
            field.get("description").is_some(),
            "{path} has no description"
        );
        check_described(&path, field);
        if let Some(items) = field.get("items") {
            check_described(&path, items);
        }
    }
}
