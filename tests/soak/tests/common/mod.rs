//! What every test of the soak needs: the programs, rounds, and a verdict.
#![allow(dead_code, unreachable_pub, clippy::unwrap_used)]

use holdfast_soak::{Outcome, Programs, Rounds};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

/// Kills use the binary: a change of it alone must not be tested with yesterday's.
pub fn programs() -> &'static Programs {
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

pub fn rounds(section: &'static str, times: u64, per_round: u64) -> Rounds {
    Rounds {
        section,
        what: section,
        times,
        per_round,
        seed: rand::random(),
    }
}

#[track_caller]
pub fn assert_clean(outcome: &Outcome, times: u64) {
    assert!(
        outcome.is_clean(),
        "{}",
        holdfast_soak::table(std::slice::from_ref(outcome))
    );
    assert_eq!(outcome.times, times);
}
