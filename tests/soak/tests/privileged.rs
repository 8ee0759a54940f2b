//! What only root can stage. Run it with `cargo test -p holdfast-soak --test privileged -- --ignored`.
#![allow(clippy::unwrap_used)]

mod common;

use common::{assert_clean, programs, rounds};
use holdfast_soak::fence;

#[test]
#[ignore = "needs root for loop devices and a frozen file system"]
fn successor_of_a_server_with_writes_in_flight_serves_after_they_have_landed() {
    assert_clean(&fence::run(&rounds("fence", 3, 3), programs()), 3);
}
