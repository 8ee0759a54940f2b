//! `cargo xtask test`: one step after the other, each with a log of its own, and one sum at the end.

mod count;

use crate::say::Step;
use anyhow::{Context, ensure};
use count::Count;
use holdfast_guest::kit;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Command;

/// A cargo command to run. One without tests of its own counts as one test.
struct Check {
    name: String,
    words: Vec<&'static str>,
    /// Where it runs, below the root of the source tree.
    folder: &'static str,
}

/// Cheap ones first: a wrong blank must not cost ten minutes.
fn checks() -> Vec<Check> {
    let mut checks = vec![
        Check::new("format", &["fmt", "--all", "--check"]),
        Check::new("house rules", &["test", "--package", "holdfast-house"]),
        Check::new(
            "lints",
            &[
                "clippy",
                "--workspace",
                "--all-targets",
                "--",
                "-D",
                "warnings",
            ],
        ),
        Check::new(
            "tests",
            &[
                "test",
                "--workspace",
                "--no-fail-fast",
                "--exclude",
                "holdfast-house",
                "--exclude",
                "holdfast-guest",
                "--exclude",
                "holdfast-cluster",
                "--exclude",
                "holdfast-kubevirt-tests",
            ],
        ),
        // They need the host's loop devices and root, so a plain `cargo test` leaves them out.
        Check::new(
            "drives",
            &[
                "test",
                "--package",
                "holdfast-bdev",
                "--package",
                "holdfast-node",
                "--package",
                "holdfast-soak",
                "--test",
                "privileged",
                "--",
                "--ignored",
                "--test-threads=1",
            ],
        ),
        Check::new(
            "guests",
            &["test", "--package", "holdfast-guest", "--no-fail-fast"],
        ),
        Check::new(
            "cluster",
            &["test", "--package", "holdfast-cluster", "--no-fail-fast"],
        ),
        Check::new(
            "KubeVirt",
            &[
                "test",
                "--package",
                "holdfast-kubevirt-tests",
                "--no-fail-fast",
            ],
        ),
    ];
    checks.push(Check::fuzz("ring", &["corpus/ring", "seeds/ring"]));
    checks.push(Check::fuzz("superblock", &["corpus/superblock"]));
    checks.push(Check::fuzz("session", &["corpus/session"]));
    checks
}

/// Lines of a log that are shown when its step failed.
const TAIL_LINES: usize = 60;

/// Runs all checks, even after one failed.
pub(crate) fn run() -> anyhow::Result<()> {
    crate::setup::run()?;
    let logs = log_folder()?;
    let mut sum = Count::default();
    let checks = checks();
    for (number, check) in checks.iter().enumerate() {
        let place = format!("{} of {}", number + 1, checks.len());
        sum += check.run(&logs, &place)?;
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
    fn new(name: &str, words: &[&'static str]) -> Check {
        Check {
            name: name.to_owned(),
            words: words.to_vec(),
            folder: "",
        }
    }

    /// A minute of random bytes. What is learned goes to the first folder, and so stays on this machine.
    fn fuzz(target: &'static str, inputs: &[&'static str]) -> Check {
        let limits = ["--", "-max_total_time=60", "-len_control=0"];
        Check {
            name: format!("fuzz {target}"),
            words: [&["fuzz", "run", target], inputs, &limits].concat(),
            folder: "fuzz",
        }
    }

    fn run(&self, logs: &Path, place: &str) -> anyhow::Result<Count> {
        let step = Step::begin(format!("{place}, {}", self.name));
        let path = logs.join(format!("{}.log", self.name.replace(' ', "-")));
        let log =
            File::create(&path).with_context(|| format!("cannot write {}", path.display()))?;
        let passed = self
            .command()?
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

    fn command(&self) -> anyhow::Result<Command> {
        let folder = kit::workspace().join(self.folder);
        for learned in self.words.iter().filter(|word| word.starts_with("corpus/")) {
            fs::create_dir_all(folder.join(learned))?;
        }
        let mut command = Command::new(env!("CARGO"));
        command
            .args(&self.words)
            .current_dir(folder)
            .env("RUST_BACKTRACE", "0")
            // What is built here is built once: the state for the next build would only fill the disk.
            .env("CARGO_INCREMENTAL", "0");
        if self.folder == "fuzz" {
            // The fuzzer's flags are unstable; a stable compiler takes them all the same.
            command.env("RUSTC_BOOTSTRAP", "1");
            let tools = kit::cache().join("bin");
            let path = std::env::var_os("PATH").unwrap_or_default();
            let folders = std::iter::once(tools).chain(std::env::split_paths(&path));
            command.env("PATH", std::env::join_paths(folders)?);
        }
        Ok(command)
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
    let logs = kit::target().join("test-logs");
    fs::create_dir_all(&logs).with_context(|| format!("cannot make {}", logs.display()))?;
    Ok(logs)
}
