//! Every section of the soak, a minute's worth: that it finds nothing, and that it can be run at all.
#![allow(clippy::unwrap_used)]

mod common;

use common::{assert_clean, programs, rounds};
use holdfast_soak::{blackout, drives, farewell, interleave, kills, points};

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
