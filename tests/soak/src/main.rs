//! `cargo xtask soak`: all sections, one after the other, and the table of what they did.
#![forbid(unsafe_code)]

use clap::{Parser, Subcommand, ValueEnum};
use holdfast_soak::{Outcome, Programs, Rounds};
use holdfast_soak::{blackout, drives, farewell, fence, interleave, kills, points, table};
use std::path::PathBuf;
use std::process::ExitCode;

/// Kills, pulls, stops and starts a real Holdfast under verified load.
#[derive(Debug, Parser)]
struct Cli {
    /// Seed of everything random.
    #[arg(long)]
    seed: Option<u64>,
    /// How often each section does its harm, instead of its usual number.
    #[arg(long)]
    cycles: Option<u64>,
    /// A minute's worth.
    #[arg(long)]
    short: bool,
    /// One section, or one crash point by its name.
    #[arg(long, value_name = "SECTION")]
    only: Option<String>,
    /// A release build of holdfast, for the section `blackout`.
    #[arg(long, value_name = "PATH")]
    released: Option<PathBuf>,
    #[command(subcommand)]
    part: Option<Part>,
}

#[derive(Debug, Subcommand)]
enum Part {
    /// A client under verified load, for the section `farewell`.
    #[command(hide = true)]
    Client {
        /// Where it connects.
        socket: PathBuf,
    },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Section {
    Kills,
    Points,
    Drives,
    Interleavings,
    Farewell,
    Fence,
    Blackout,
}

fn main() -> ExitCode {
    match run(&Cli::parse()) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("soak: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// Whether all went well.
fn run(cli: &Cli) -> anyhow::Result<bool> {
    if let Some(Part::Client { socket }) = &cli.part {
        return farewell::client(socket).map(|()| true);
    }
    let mut programs = Programs::beside(std::env::current_exe()?)?;
    programs.released.clone_from(&cli.released);
    let seed = cli.seed.unwrap_or_else(rand::random);
    println!("soak: --seed {seed}");
    let mut outcomes = Vec::new();
    for section in Section::value_variants() {
        if let Some(outcome) = cli.perform(*section, seed, &programs)? {
            println!(
                "  {} {}",
                if outcome.is_clean() { "ok" } else { "FAILED" },
                outcome.what
            );
            outcomes.push(outcome);
        }
    }
    println!("{}", table(&outcomes));
    Ok(outcomes.iter().all(Outcome::is_clean))
}

impl Cli {
    /// Runs a section, if it is wanted.
    fn perform(
        &self,
        section: Section,
        seed: u64,
        programs: &Programs,
    ) -> anyhow::Result<Option<Outcome>> {
        let mut point = None;
        if let Some(only) = &self.only {
            point = points::POINTS.iter().find(|point| point.name == only);
            let wanted = match Section::from_str(only, true) {
                Ok(wanted) => wanted,
                Err(_) if point.is_some() => Section::Points,
                Err(_) => anyhow::bail!("{only:?} is no section and no crash point"),
            };
            if wanted != section {
                return Ok(None);
            }
        }
        Ok(Some(match section {
            Section::Points => {
                let times = self.times(25, 1);
                points::run(times, seed, point.map(|point| point.name), programs)
            }
            _ => self.rounds(section, seed, programs),
        }))
    }

    fn rounds(&self, section: Section, seed: u64, programs: &Programs) -> Outcome {
        let rounds = |section, what, (usual, short), per_round| Rounds {
            section,
            what,
            times: self.times(usual, short),
            per_round,
            seed,
        };
        match section {
            Section::Kills => {
                let rounds = rounds("kills", "kill -9 at a random moment", (1000, 40), 25);
                kills::run(&rounds, programs)
            }
            Section::Drives => {
                let rounds = rounds("drives", "drive removed and returned", (500, 30), 50);
                drives::run(&rounds, programs)
            }
            Section::Interleavings => {
                let what = "start, stop and kick interleaved";
                interleave::run(&rounds("interleavings", what, (10_000, 500), 250))
            }
            Section::Farewell => {
                let what = "SIGTERM to server and clients at once";
                farewell::run(&rounds("farewell", what, (100, 5), 20), programs)
            }
            Section::Fence => {
                let what = "kill -9 with writes that stay in flight";
                fence::run(&rounds("fence", what, (20, 2), 10), programs)
            }
            Section::Blackout | Section::Points => {
                let what = "blackout with ten volumes";
                blackout::run(&rounds("blackout", what, (20, 3), 20), programs)
            }
        }
    }

    fn times(&self, usual: u64, short: u64) -> u64 {
        self.cycles
            .unwrap_or(if self.short { short } else { usual })
    }
}
