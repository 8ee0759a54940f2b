//! Developer commands behind the Makefile: `cargo xtask setup | test | soak | demo | bench | bench-ring | deploy | image`.
#![forbid(unsafe_code)]
#![cfg_attr(test, allow(clippy::unwrap_used))]

mod bench;
mod demo;
mod deploy;
mod image;
mod say;
mod setup;
mod soak;
mod test;

use clap::{Parser, Subcommand};
use std::process::ExitCode;

/// Developer commands of Holdfast.
#[derive(Debug, Parser)]
#[command(name = "cargo xtask")]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Install what the guest tests and the demo need: QEMU, a guest kernel, small tools.
    Setup,
    /// Run every check there is: rules, format, lints, tests, guests, CSI conformance.
    Test,
    /// Kill, pull, stop and start again and again under verified load; hours unless told to be short.
    Soak(soak::Args),
    /// Play a virtual machine's life on two volumes, from CreateVolume to erased space.
    Demo,
    /// Measure the data plane against its peers.
    Bench(bench::Args),
    /// Measure what each stage of a request costs.
    BenchRing(bench::Args),
    /// Write the manifests in deploy/ anew, from the Helm chart and the kinds.
    Deploy,
    /// Build the container image.
    Image(image::Args),
}

fn main() -> ExitCode {
    let done = match Cli::parse().command {
        Command::Setup => setup::run(),
        Command::Test => test::run(),
        Command::Soak(args) => soak::run(&args),
        Command::Demo => demo::run(),
        Command::Bench(args) => bench::run(&args),
        Command::BenchRing(args) => bench::ring(&args),
        Command::Deploy => deploy::run(),
        Command::Image(args) => image::run(&args),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("xtask: {error:#}");
            ExitCode::FAILURE
        }
    }
}
