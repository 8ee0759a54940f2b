//! Fairness: what a guest with one request at a time loses while another guest of the same reactor keeps 128 under way.

use crate::cases::Case;
use crate::figures::Middle;
use crate::machine::Placement;
use crate::peers::{DEVICE_BYTES, Medium, Peer};
use crate::rounds::{Rounds, Session};
use crate::server::Server;
use anyhow::{Context, ensure};
use holdfast_testkit::load::{Wait, beside, run};
use serde::Serialize;
use std::fs::File;
use std::path::PathBuf;
use std::time::Duration;

/// A quiet guest, alone and beside a flood.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Neighbours {
    pub(crate) medium: Medium,
    pub(crate) placement: Placement,
    pub(crate) quiet_p99_us: Middle,
    pub(crate) beside_p50_us: Middle,
    pub(crate) beside_p99_us: Middle,
    /// What the flood had at the same time, in requests per second.
    pub(crate) flood: Middle,
}

#[derive(Clone, Copy, Debug)]
struct Sample {
    placement: Placement,
    quiet_p99_us: f64,
    beside_p50_us: f64,
    beside_p99_us: f64,
    flood: f64,
}

const FLOOD: u16 = 128;

impl Neighbours {
    /// Times the quiet value.
    pub(crate) fn times(&self) -> f64 {
        self.beside_p99_us.median / self.quiet_p99_us.median
    }

    /// The samples of the better placement that was met often enough to be no fluke.
    fn of(medium: Medium, samples: &[Sample]) -> Option<Neighbours> {
        let under = |placement| samples.iter().filter(move |s| s.placement == placement);
        let near = under(Placement::Near).count() >= samples.len().div_ceil(3);
        let placement = if near {
            Placement::Near
        } else {
            Placement::Far
        };
        let middle = |what: fn(&Sample) -> f64| Middle::of(under(placement).map(what));
        Some(Neighbours {
            medium,
            placement,
            quiet_p99_us: middle(|s| s.quiet_p99_us)?,
            beside_p50_us: middle(|s| s.beside_p50_us)?,
            beside_p99_us: middle(|s| s.beside_p99_us)?,
            flood: middle(|s| s.flood)?,
        })
    }
}

/// Ours on every medium that answers at once; what could not be measured is named.
pub(crate) fn neighbours(rounds: &Rounds<'_>, peers: &[Peer]) -> (Vec<Neighbours>, Vec<String>) {
    let (mut found, mut missing) = (Vec::new(), Vec::new());
    let ours = peers.iter().filter(|peer| peer.is_ours());
    for peer in ours.filter(|peer| peer.medium != Medium::Disk) {
        match visit(rounds, peer) {
            Ok(samples) => found.extend(Neighbours::of(peer.medium, &samples)),
            Err(why) => missing.push(format!("neighbours on {}: {why:#}", peer.medium)),
        }
    }
    (found, missing)
}

fn visit(rounds: &Rounds<'_>, peer: &Peer) -> anyhow::Result<Vec<Sample>> {
    let sockets: Vec<PathBuf> = (0..2).map(|at| rounds.site.socket(at)).collect();
    let server = start(rounds, peer, &sockets)?;
    let open = |socket: &PathBuf| {
        let mut session = Session::open(socket, &Case::filling())?;
        if peer.medium != Medium::Null {
            rounds.fill(&mut session)?;
        }
        anyhow::Ok(session)
    };
    let (mut quiet, mut flood) = (open(&sockets[0])?, open(&sockets[1])?);
    let pattern = |depth| Case::random_reads(depth).pattern;
    quiet.queue.set_pattern(pattern(1), Wait::Poll)?;
    flood.queue.set_pattern(pattern(FLOOD), Wait::Poll)?;
    let samples: anyhow::Result<Vec<Sample>> = (0..rounds.pace.rounds)
        .map(|_| sample(rounds, &mut quiet, &mut flood))
        .collect();
    drop((quiet, flood));
    drop(server);
    sockets
        .iter()
        .for_each(|socket| _ = std::fs::remove_file(socket));
    samples
}

/// One server for both guests, each with a device of its own.
fn start(rounds: &Rounds<'_>, peer: &Peer, sockets: &[PathBuf]) -> anyhow::Result<Server> {
    let (cpu, file) = (rounds.machine.server, rounds.site.file(peer.medium));
    let second = file.with_file_name("neighbour.img");
    if peer.medium == Medium::Tmpfs {
        File::create(&second)?.set_len(DEVICE_BYTES)?;
    }
    let mut words = peer.words(&sockets[0], &file, cpu);
    let more = peer.words(&sockets[1], &second, cpu);
    for option in ["--socket", "--bdev"] {
        let at = more.iter().position(|word| word == option);
        let value = at.and_then(|at| more.get(at + 1));
        let value = value.with_context(|| format!("{} has no {option}", peer.name))?;
        words.extend([option.to_owned(), value.clone()]);
    }
    Server::start(&words, cpu, sockets)
}

fn sample(rounds: &Rounds<'_>, quiet: &mut Session, flood: &mut Session) -> anyhow::Result<Sample> {
    let (clock, pace) = (rounds.clock, rounds.pace);
    let trip = || anyhow::Ok(Placement::of(rounds.machine.round_trip_ns()?));
    let before = trip()?;
    let alone = std::slice::from_mut(&mut quiet.queue);
    run(alone, clock, Duration::ZERO, pace.warm_up)?;
    let alone = run(alone, clock, Duration::ZERO, pace.measure)?;
    let times = (pace.warm_up, pace.measure);
    let (seen, flooded) = beside(&mut quiet.queue, &mut flood.queue, clock, times)?;
    let placement = before.max(trip()?);
    let errors = alone.errors + seen.errors + flooded.errors;
    ensure!(errors == 0, "{errors} requests failed");
    ensure!(
        seen.latency.count() > 0,
        "the neighbour got no answer at all"
    );
    let us = |ns: u64| ns as f64 / 1e3;
    Ok(Sample {
        placement,
        quiet_p99_us: us(alone.latency.quantile(0.99)),
        beside_p50_us: us(seen.latency.quantile(0.5)),
        beside_p99_us: us(seen.latency.quantile(0.99)),
        flood: flooded.per_second(),
    })
}
