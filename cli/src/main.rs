//! The holdfast binary: reads arguments, opens doors, nothing more.
#![forbid(unsafe_code)]
#![cfg_attr(test, allow(clippy::unwrap_used))]

mod answer;
mod args;
mod call;
mod cluster;
mod controller;
mod cpus;
mod crds;
mod csi;
mod device;
mod kubevirt_hook;
mod logging;
mod node;
mod node_process;
mod pool;
mod serve;
mod signals;
mod standalone;
mod uninstall_check;
mod webhook;

use clap::Parser;
use std::process::ExitCode;

fn main() -> ExitCode {
    match args::Cli::parse().run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("holdfast: {error:#}");
            ExitCode::FAILURE
        }
    }
}
