//! `cargo xtask bench`: Holdfast and its peers side by side in one run, and what became of the targets.
#![forbid(unsafe_code)]
#![cfg_attr(test, allow(clippy::unwrap_used))]
#![allow(clippy::cast_precision_loss)] // Counts become figures for people.

mod bare;
mod cases;
mod ceiling;
mod chart;
mod figures;
mod machine;
mod neighbours;
mod peers;
mod profile;
mod reactors;
mod report;
mod rest;
mod rounds;
mod server;
mod stages;
mod targets;

use anyhow::{Context, ensure};
use ceiling::Ceiling;
use clap::{Parser, Subcommand};
use holdfast_testkit::load::Clock;
use holdfast_testkit::reference::{ReferenceConfig, ReferenceEngine};
use machine::Machine;
use peers::{Peer, Programs};
use report::Report;
use rounds::{Pace, Rounds, Site};
use stages::Stage;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};
use targets::Evidence;

/// Measures the data plane against its peers.
#[derive(Debug, Parser)]
struct Cli {
    /// About a minute, and no more than the targets need.
    #[arg(long)]
    quick: bool,
    /// Processors of client and server, as in 0,1; the first two of this process if not given.
    #[arg(long, value_name = "CLIENT,SERVER")]
    cpus: Option<String>,
    /// More peers: a JSON list of {"name", "medium", "command": [...]}, with {socket}, {file}, {bytes}, {cpu} in it.
    #[arg(long, value_name = "FILE")]
    peers: Option<PathBuf>,
    /// Only this medium: null, malloc, tmpfs or disk.
    #[arg(long, value_name = "MEDIUM")]
    only: Option<String>,
    /// Only peers whose names begin with one of these, and Holdfast.
    #[arg(long, value_name = "NAMES", value_delimiter = ',')]
    against: Vec<String>,
    /// How long to wait for processors that share a cache, in seconds: targets were set for such a pair.
    #[arg(long, value_name = "SECONDS", default_value_t = 20)]
    wait_near: u64,
    /// How often everything is measured.
    #[arg(long, value_name = "N")]
    rounds: Option<usize>,
    /// Where the report goes; `bench` beside this program's folder if not given. A folder on a disk, for the file on disk.
    #[arg(long, value_name = "FOLDER")]
    out: Option<PathBuf>,
    #[command(subcommand)]
    part: Option<Part>,
}

#[derive(Debug, Subcommand)]
enum Part {
    /// The reference engine as a server.
    #[command(hide = true)]
    Reference { socket: PathBuf, bdev: String },
    /// The engine on the null device, without io_uring, which callgrind waits in for ever.
    #[command(hide = true)]
    Counted {
        socket: PathBuf,
        #[arg(value_delimiter = ',')]
        cpus: Vec<usize>,
    },
    /// Only this: where the time of a request goes on every medium, by samples.
    Profile,
    /// Only this: a guest with one request at a time beside one with 128.
    Neighbours,
    /// Only this: two reactors against one.
    Reactors,
    /// What each stage of a request costs in the ring room, in time and in instructions.
    Ring {
        /// Only this one, and only its time.
        #[arg(long)]
        stage: Option<Stage>,
        /// Requests made available at a time.
        #[arg(long, default_value_t = 32, value_parser = clap::value_parser!(u16).range(1..=128))]
        batch: u16,
        /// How many in all.
        #[arg(long, default_value_t = 320_000)]
        requests: u32,
    },
}

fn main() -> anyhow::Result<()> {
    let cli = Cli::parse();
    match &cli.part {
        Some(Part::Reference { socket, bdev }) => serve_reference(socket, bdev),
        Some(Part::Ring {
            stage: Some(stage),
            batch,
            requests,
        }) => {
            println!("{:.1} ns", stages::run(*stage, *batch, *requests)?);
            Ok(())
        }
        Some(Part::Ring { stage: None, .. }) => {
            println!("{}", stages::table()?);
            Ok(())
        }
        Some(Part::Counted { socket, cpus }) => reactors::serve(socket, cpus),
        Some(Part::Profile) => prepared(&cli, |rounds, peers, _| {
            tell(&profile::profiles(rounds, peers), |found| {
                report::profile(found)
            })
        }),
        Some(Part::Neighbours) => prepared(&cli, |rounds, peers, _| {
            tell(&neighbours::neighbours(rounds, peers), |found| {
                report::neighbours(found)
            })
        }),
        Some(Part::Reactors) => prepared(&cli, |rounds, peers, _| {
            if let Some(scaling) = reactors::scaling(rounds, peers)? {
                println!("{:.2}x: {scaling}", scaling.times());
            }
            Ok(())
        }),
        None => prepared(&cli, |rounds, peers, out| {
            publish(&measure(rounds, peers)?, out)
        }),
    }
}

/// What was found, and what could not be measured, which is an error.
fn tell<T>((found, missing): &(T, Vec<String>), text: impl Fn(&T) -> String) -> anyhow::Result<()> {
    println!("{}", text(found));
    ensure!(missing.is_empty(), "not measured: {}", missing.join("; "));
    Ok(())
}

/// Does something with everything in place: the processors, the files, the peers.
fn prepared(
    cli: &Cli,
    measure: impl FnOnce(&Rounds<'_>, &[Peer], &Path) -> anyhow::Result<()>,
) -> anyhow::Result<()> {
    let bench = std::env::current_exe()?;
    let folder = bench.parent().context("a program lies in a folder")?;
    let out = cli.out.clone().unwrap_or_else(|| folder.join("../bench"));
    std::fs::create_dir_all(&out)?;
    let programs = Programs {
        holdfast: folder.join("holdfast"),
        bench: bench.clone(),
    };
    let mut peers = peers::all(&programs, cli.peers.as_deref())?;
    peers.retain(|peer| cli.wants(peer));
    let machine = Machine::prepare(cli.processors()?)?;
    if !machine.wait_near(Duration::from_secs(cli.wait_near))? {
        eprintln!(
            "The processors are far from each other: figures of null and malloc will be low for all."
        );
    }
    let rounds = Rounds {
        machine: &machine,
        site: &Site::new(&out)?,
        clock: &Clock::new(),
        pace: cli.pace(),
    };
    measure(&rounds, &peers, &out)
}

fn measure(rounds: &Rounds<'_>, peers: &[Peer]) -> anyhow::Result<Report> {
    let (machine, start) = (rounds.machine, Instant::now());
    let noise = machine.noise(Duration::from_millis(300))?;
    let first_trip = machine.round_trip_ns()?;
    let mut ceiling = ceiling::none();
    ceilings(rounds, &mut ceiling)?;
    let mut figures = rounds.run(peers)?;
    ceilings(rounds, &mut ceiling)?;
    let (rest, at_rest) = rest::rest(rounds, peers);
    let (wakes, woken) = rest::wakes(rounds, peers);
    let (neighbours, beside) = neighbours::neighbours(rounds, peers);
    let (profiles, sampled) = profile::profiles(rounds, peers);
    let scaling = reactors::scaling(rounds, peers).unwrap_or_else(|why| {
        figures.miss(format!("two reactors: {why:#}"));
        None
    });
    let missing = [at_rest, woken, beside, sampled].into_iter().flatten();
    missing.for_each(|what| figures.miss(what));
    let targets = targets::judge(&Evidence {
        figures: &figures,
        ceiling: &ceiling,
        rest: &rest,
        wakes: &wakes,
        neighbours: &neighbours,
        scaling: scaling.as_ref(),
        profiles: &profiles,
    });
    Ok(Report {
        machine: machine.clone(),
        noise,
        round_trip_ns: [first_trip, machine.round_trip_ns()?],
        ceiling,
        figures,
        rest,
        wakes,
        neighbours,
        scaling,
        profiles,
        seconds: start.elapsed().as_secs_f64(),
        targets,
    })
}

/// At every depth, in several runs: before the rounds and after them.
fn ceilings(rounds: &Rounds<'_>, ceilings: &mut [Ceiling]) -> anyhow::Result<()> {
    for _ in 0..rounds.pace.rounds.div_ceil(2) {
        for ceiling in &mut *ceilings {
            ceiling.measure(rounds)?;
        }
    }
    Ok(())
}

fn publish(report: &Report, out: &Path) -> anyhow::Result<()> {
    std::fs::write(out.join("bench.md"), report.markdown())?;
    std::fs::write(out.join("bench.json"), serde_json::to_vec_pretty(report)?)?;
    if let Some(svg) = chart::svg(&report.figures) {
        std::fs::write(out.join("bench.svg"), svg)?;
    }
    println!("{}", report.markdown());
    println!("{}", report.verdicts());
    println!(
        "Written to {}: bench.md, bench.json, bench.svg",
        out.display()
    );
    Ok(())
}

fn serve_reference(socket: &Path, bdev: &str) -> anyhow::Result<()> {
    let device = holdfast_bdev::from_spec(bdev)?;
    let config = ReferenceConfig {
        queues: 1,
        ..ReferenceConfig::default()
    };
    let _engine = ReferenceEngine::serve(socket, device, config)?;
    loop {
        std::thread::park();
    }
}

impl Cli {
    fn wants(&self, peer: &Peer) -> bool {
        let medium = self
            .only
            .as_ref()
            .is_none_or(|only| only == peer.medium.name());
        let named = self.against.is_empty()
            || peer.is_ours()
            || self
                .against
                .iter()
                .any(|name| peer.name.starts_with(name.as_str()));
        medium && named
    }

    fn processors(&self) -> anyhow::Result<Option<(usize, usize)>> {
        let Some(text) = &self.cpus else {
            return Ok(None);
        };
        let pair = text
            .split_once(',')
            .context("--cpus takes two numbers, as in 0,1")?;
        Ok(Some((pair.0.parse()?, pair.1.parse()?)))
    }

    fn pace(&self) -> Pace {
        let (rounds, warm_up, measure, near_again) = match self.quick {
            true => (3, 30, 150, 10),
            false => (5, 60, 300, 60),
        };
        Pace {
            rounds: self.rounds.unwrap_or(rounds),
            warm_up: Duration::from_millis(warm_up),
            measure: Duration::from_millis(measure),
            near_again: Duration::from_secs(near_again),
            quick: self.quick,
        }
    }
}
