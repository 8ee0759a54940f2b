//! The chart's Plugin as KubeVirt runs it: the Go tests of `tests/kubevirt-cel`, each counted as one of ours.
//!
//! It is a program of its own, because where Go is missing it says so and counts what it skips.
#![forbid(unsafe_code)]

use std::process::{Command, ExitCode};

const FOLDER: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../kubevirt-cel");

fn main() -> ExitCode {
    if std::env::args().any(|word| word == "--list") {
        println!("plugin_as_kubevirt_runs_it: test");
        return ExitCode::SUCCESS;
    }
    if Command::new("go").arg("version").output().is_err() {
        println!("skipped: Go is missing, and KubeVirt's libraries are written in it");
        println!("test result: ok. 0 passed; 0 failed; 1 ignored; 0 measured; 0 filtered out");
        return ExitCode::SUCCESS;
    }
    // The Plugin lies outside of the module, where Go's cache does not see that it changed.
    let output = Command::new("go")
        .args(["test", "-count=1", "-v", "./..."])
        .current_dir(FOLDER)
        .output()
        .expect("go runs");
    let said = String::from_utf8_lossy(&output.stdout);
    let count = |word: &str| said.lines().filter(|line| line.starts_with(word)).count();
    let (passed, failed) = (count("--- PASS"), count("--- FAIL"));
    let fine = output.status.success() && failed == 0 && passed > 0;
    if !fine {
        println!("{said}{}", String::from_utf8_lossy(&output.stderr));
    }
    let (word, failed) = if fine {
        ("ok", 0)
    } else {
        ("FAILED", failed.max(1))
    };
    println!(
        "test result: {word}. {passed} passed; {failed} failed; 0 ignored; 0 measured; 0 filtered out"
    );
    ExitCode::from(u8::from(!fine))
}
