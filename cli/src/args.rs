//! The command line: one subcommand, one file.

use crate::logging::LogFormat;
use crate::{logging, serve};
use clap::{Parser, Subcommand};

/// Storage for virtual machines that holds fast while everything behind it changes.
#[derive(Debug, Parser)]
#[command(name = "holdfast", version, propagate_version = true)]
pub(crate) struct Cli {
    /// How log lines look; what is logged is chosen by the environment variable HOLDFAST_LOG.
    #[arg(long, global = true, value_enum, default_value_t)]
    log: LogFormat,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Serve one device on one socket, nothing else.
    Serve(serve::Args),
}

impl Cli {
    pub(crate) fn run(self) -> anyhow::Result<()> {
        logging::start(self.log);
        match self.command {
            Command::Serve(args) => serve::run(args),
        }
    }
}
