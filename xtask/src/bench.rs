//! `cargo xtask bench`: builds what is measured and what measures it, as they are shipped, and runs the measurement.

use crate::setup;
use anyhow::{Context, ensure};
use holdfast_guest::kit;
use std::process::Command;

/// Handed on as they are.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// See `cargo xtask bench -- --help`: --quick, --rounds N, --cpus CLIENT,SERVER, --peers FILE, --only MEDIUM; or only
    /// one part: profile, neighbours, reactors.
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    words: Vec<String>,
}

/// Measures Holdfast and its peers side by side.
pub(crate) fn run(args: &Args) -> anyhow::Result<()> {
    if let Err(why) = setup::tools() {
        println!("  .. peers may be missing: {why:#}");
    }
    if let Err(why) = setup::valgrind().and_then(|()| setup::perf()) {
        println!("  .. without instruction counts or a profile: {why:#}");
    }
    bench(&args.words)
}

/// Measures what each stage of a request costs, in time and in instructions.
pub(crate) fn ring(args: &Args) -> anyhow::Result<()> {
    let mut words = vec!["ring".to_owned()];
    words.extend(args.words.iter().cloned());
    if let Err(why) = setup::valgrind() {
        println!("  .. without instruction counts: {why:#}");
    }
    bench(&words)
}

fn bench(words: &[String]) -> anyhow::Result<()> {
    let mut cargo = Command::new(env!("CARGO"));
    cargo.args([
        "build",
        "--release",
        "--package",
        "holdfast",
        "--package",
        "holdfast-bench",
    ]);
    let built = cargo.current_dir(kit::workspace()).status();
    let built = built.context("cannot run cargo")?.success();
    ensure!(built, "the release build failed");
    let ended = Command::new(kit::target().join("release/bench"))
        .args(words)
        .status();
    let ended = ended.context("cannot run the benchmark")?;
    ensure!(ended.success(), "the benchmark did not run to its end");
    Ok(())
}
