//! The kinds as an operator meets them: names, sizes, conditions, manifests, schemas.

use holdfast_api::{
    Time, Verdict, check_object_name, condition, is_true, orphan_name, parse_quantity, quantity,
    set_condition, short_id, volume_id,
};
use serde_json::json;

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
fn orphan_is_named_for_its_pool_while_that_is_short_enough() {
    assert_eq!(orphan_name("p1", "a"), format!("p1-{}", short_id("a")));
    let long = "p".repeat(63);
    let name = orphan_name(&long, "a");
    check_object_name(&name).expect("an orphan's name is a name");
    assert_ne!(name, orphan_name(&long, "b"));
    assert_ne!(name, orphan_name(&"q".repeat(63), "a"));
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
