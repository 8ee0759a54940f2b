//! `cargo xtask soak`: builds what is to be killed, and lets `tests/soak` do the rest.

use crate::setup;
use anyhow::{Context, ensure};
use holdfast_guest::kit;
use std::path::PathBuf;
use std::process::Command;

/// Handed on as they are.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// See `cargo xtask soak -- --help`: --seed N, --cycles N, --short, --only SECTION.
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    words: Vec<String>,
}

/// Crash points are in debug builds only; how long a start takes is measured with a release build.
pub(crate) fn run(args: &Args) -> anyhow::Result<()> {
    if args.words.is_empty() {
        setup::guests()?; // What is missing is to be told now, not in half an hour.
    }
    cargo(&[
        "build",
        "--package",
        "holdfast",
        "--package",
        "holdfast-soak",
    ])?;
    let mut soak = Command::new(built("debug/soak"));
    soak.args(&args.words);
    if !args.words.iter().any(|word| word == "--short") {
        cargo(&["build", "--release", "--package", "holdfast"])?;
        soak.arg("--released").arg(built("release/holdfast"));
    }
    let ended = soak.status().context("cannot run the soak")?;
    ensure!(
        ended.success(),
        "the soak found something; its table names the replay"
    );
    if args.words.is_empty() {
        guests()?;
    }
    Ok(())
}

/// The same harm with QEMU as the front end: 100 kills under a guest's load, 20 rounds of the origin scenario.
fn guests() -> anyhow::Result<()> {
    let longer = [
        (
            "boot",
            "server_killed_under_load",
            "HOLDFAST_QEMU_KILL_ROUNDS",
        ),
        ("origin", "", "HOLDFAST_ORIGIN_ROUNDS"),
    ];
    for (test, name, rounds) in longer {
        let mut cargo = Command::new(env!("CARGO"));
        cargo.args(["test", "--package", "holdfast-guest", "--test", test, name]);
        let ended = cargo.env(rounds, "20").current_dir(kit::workspace());
        let passed = ended.status().context("cannot run cargo")?.success();
        ensure!(passed, "with {rounds}=20 the test {test} {name} failed");
    }
    Ok(())
}

fn cargo(words: &[&str]) -> anyhow::Result<()> {
    let mut cargo = Command::new(env!("CARGO"));
    let ended = cargo.args(words).current_dir(kit::workspace()).status();
    let built = ended.context("cannot run cargo")?.success();
    ensure!(built, "cargo {} failed", words.join(" "));
    Ok(())
}

fn built(name: &str) -> PathBuf {
    kit::target().join(name)
}
