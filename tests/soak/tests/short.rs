//! Every section of the soak, a minute's worth: that it finds nothing, and that it can be run at all.
#![allow(clippy::unwrap_used)]

use holdfast_soak::{Outcome, Programs, Rounds};
use holdfast_soak::{blackout, drives, farewell, interleave, kills, points};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

/// Kills use the binary: a change of it alone must not be tested with yesterday's.
fn programs() -> &'static Programs {
    static BUILT: OnceLock<Programs> = OnceLock::new();
    BUILT.get_or_init(|| {
        let soak = PathBuf::from(env!("CARGO_BIN_EXE_soak"));
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
        let mut build = Command::new(env!("CARGO"));
        build
            .current_dir(root)
            .args(["build", "--quiet", "--package", "holdfast"]);
        assert!(build.status().unwrap().success(), "holdfast does not build");
        Programs::beside(soak).unwrap()
    })
}

fn rounds(section: &'static str, times: u64, per_round: u64) -> Rounds {
    Rounds {
        section,
        what: section,
        times,
        per_round,
        seed: rand::random(),
    }
}

#[track_caller]
fn assert_clean(outcome: &Outcome, times: u64) {
    assert!(
        outcome.is_clean(),
        "{}",
        holdfast_soak::table(std::slice::from_ref(outcome))
    );
    assert_eq!(outcome.times, times);
}

#[test]
fn server_killed_at_random_moments_costs_no_request() {
    let outcome = kills::run(&rounds("kills", 40, 20), programs());
    assert_clean(&outcome, 40);
    assert_eq!(outcome.recoveries.len(), 40);
    assert!(outcome.requests > 2000, "too little load to prove anything");
}

#[test]
fn server_killed_at_every_named_point_costs_no_request() {
    let outcome = points::run(1, rand::random(), None, programs());
    assert_clean(&outcome, points::POINTS.len() as u64);
    assert!(points::POINTS.len() >= 40);
}

#[test]
fn drive_removed_and_returned_costs_no_request() {
    assert_clean(&drives::run(&rounds("drives", 30, 30), programs()), 30);
}

#[test]
fn start_stop_and_kick_in_any_order_costs_no_request() {
    assert_clean(&interleave::run(&rounds("interleavings", 500, 250)), 500);
}

#[test]
fn server_and_clients_asked_to_end_at_once_are_gone_within_a_second() {
    assert_clean(&farewell::run(&rounds("farewell", 5, 5), programs()), 5);
}

#[test]
fn ten_volumes_are_served_again_after_a_kill() {
    assert_clean(&blackout::run(&rounds("blackout", 3, 3), programs()), 3);
}
