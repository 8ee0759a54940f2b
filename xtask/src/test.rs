//! `cargo xtask test`: one step after the other, each with a log of its own, and one sum at the end.

mod count;

use crate::say::Step;
use anyhow::{Context, ensure};
use count::Count;
use holdfast_guest::kit;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Command;

/// A command to run. A check without tests of its own counts as one test.
struct Check {
    name: &'static str,
    words: &'static [&'static str],
}

/// Cheap checks first: a wrong blank must not cost ten minutes.
const CHECKS: &[Check] = &[
    Check {
        name: "format",
        words: &["fmt", "--all", "--check"],
    },
    Check {
        name: "house rules",
        words: &["test", "--package", "holdfast-house"],
    },
    Check {
        name: "lints",
        words: &[
            "clippy",
            "--workspace",
            "--all-targets",
            "--",
            "-D",
            "warnings",
        ],
    },
    Check {
        name: "tests",
        words: &[
            "test",
            "--workspace",
            "--no-fail-fast",
            "--exclude",
            "holdfast-house",
            "--exclude",
            "holdfast-guest",
        ],
    },
    Check {
        name: "guests",
        words: &["test", "--package", "holdfast-guest", "--no-fail-fast"],
    },
];

/// Lines of a log that are shown when its step failed.
const TAIL_LINES: usize = 60;

/// Runs all checks, even after one failed.
pub(crate) fn run() -> anyhow::Result<()> {
    crate::setup::run()?;
    let logs = log_folder()?;
    let mut sum = Count::default();
    for (number, check) in CHECKS.iter().enumerate() {
        sum += check.run(&logs, number + 1)?;
    }
    println!("logs are in {}", logs.display());
    println!(
        "{} passed, {} failed, {} skipped",
        sum.passed, sum.failed, sum.skipped
    );
    ensure!(sum.failed == 0, "{} of the tests failed", sum.failed);
    Ok(())
}

impl Check {
    fn run(&self, logs: &Path, number: usize) -> anyhow::Result<Count> {
        let name = format!("{number} of {}, {}", CHECKS.len(), self.name);
        let step = Step::begin(name);
        let path = logs.join(format!("{number}-{}.log", self.name.replace(' ', "-")));
        let log =
            File::create(&path).with_context(|| format!("cannot write {}", path.display()))?;
        let passed = Command::new(env!("CARGO"))
            .args(self.words)
            .current_dir(kit::workspace())
            .stdout(log.try_clone()?)
            .stderr(log)
            .status()
            .context("cannot run cargo")?
            .success();
        let text = fs::read_to_string(&path)?;
        let count = honest(Count::of_cargo(&text), passed);
        if passed {
            step.done(&format!("{} passed", count.passed));
        } else {
            println!("{}", tail(&text));
            step.failed(&format!("{} failed, see {}", count.failed, path.display()));
        }
        Ok(count)
    }
}

/// A check that counts no tests is itself one; a step that failed has at least one failure.
fn honest(mut count: Count, passed: bool) -> Count {
    match passed {
        true if count.passed == 0 => count.passed = 1,
        false if count.failed == 0 => count.failed = 1,
        _ => {}
    }
    count
}

fn tail(text: &str) -> String {
    let lines: Vec<_> = text.lines().collect();
    lines[lines.len().saturating_sub(TAIL_LINES)..].join("\n")
}

/// `test-logs` beside what cargo builds.
fn log_folder() -> anyhow::Result<PathBuf> {
    let target = std::env::var_os("CARGO_TARGET_DIR")
        .map_or_else(|| kit::workspace().join("target"), PathBuf::from);
    let logs = target.join("test-logs");
    fs::create_dir_all(&logs).with_context(|| format!("cannot make {}", logs.display()))?;
    Ok(logs)
}
