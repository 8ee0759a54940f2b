//! Servers at rest: what connected sessions cost when nobody asks for anything, and how long the first request after a
//! pause takes.

use crate::cases::Case;
use crate::figures::Middle;
use crate::machine::Placement;
use crate::peers::{Medium, OURS, Peer};
use crate::rounds::{Rounds, Session};
use crate::server::Server;
use anyhow::Context;
use holdfast_testkit::load::{run, wake};
use serde::Serialize;
use std::path::PathBuf;
use std::time::Duration;

/// What a server costs with this many sessions connected and idle.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Rest {
    pub(crate) peer: String,
    pub(crate) sessions: usize,
    /// Percent of a core, from one second after the last request on.
    pub(crate) cpu_percent: f64,
    /// Resident memory without the guests' own, in MiB.
    pub(crate) private_mib: f64,
}

/// The first request after a pause, in microseconds.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Wake {
    pub(crate) peer: String,
    pub(crate) p50_us: Middle,
    pub(crate) p99_us: Middle,
}

const QUIET: Duration = Duration::from_secs(1);
/// Longer than anybody spins.
const PAUSE: Duration = Duration::from_millis(5);
const MANY: usize = 100;

/// All peers on the null device with one session; those that can serve many from one process with many, too.
pub(crate) fn rest(rounds: &Rounds<'_>, peers: &[Peer]) -> (Vec<Rest>, Vec<String>) {
    let (mut found, mut missing) = (Vec::new(), Vec::new());
    for peer in peers.iter().filter(|peer| peer.medium == Medium::Null) {
        let counts: &[usize] = match peer.name.as_str() {
            OURS | "qsd" => &[1, MANY],
            _ => &[1],
        };
        for &sessions in counts {
            match rest_of(rounds, peer, sessions) {
                Ok(rest) => found.push(rest),
                Err(why) => missing.push(format!("{} at rest, {sessions}: {why:#}", peer.name)),
            }
        }
    }
    (found, missing)
}

fn rest_of(rounds: &Rounds<'_>, peer: &Peer, sessions: usize) -> anyhow::Result<Rest> {
    let sockets: Vec<PathBuf> = (0..sessions).map(|at| rounds.site.socket(at)).collect();
    let server = start(rounds, peer, &sockets)?;
    let case = Case::of(Medium::Null, true).remove(0);
    let mut connected = Vec::new();
    for socket in &sockets {
        let mut session = Session::open(socket, &case)?;
        let queues = std::slice::from_mut(&mut session.queue);
        run(
            queues,
            rounds.clock,
            Duration::ZERO,
            Duration::from_millis(2),
        )?;
        connected.push(session);
    }
    std::thread::sleep(QUIET);
    let measure = rounds.pace.measure.max(Duration::from_millis(500)) * 4;
    let before = server.usage()?;
    std::thread::sleep(measure);
    let after = server.usage()?;
    drop(connected);
    drop(server);
    sockets
        .iter()
        .for_each(|socket| _ = std::fs::remove_file(socket));
    Ok(Rest {
        peer: peer.name.clone(),
        sessions,
        cpu_percent: 100.0 * (after.cpu - before.cpu).as_secs_f64() / measure.as_secs_f64(),
        private_mib: after.private_bytes as f64 / f64::from(1 << 20),
    })
}

/// One server for all sockets: the words that name a socket are repeated, with numbers where names must differ.
fn start(rounds: &Rounds<'_>, peer: &Peer, sockets: &[PathBuf]) -> anyhow::Result<Server> {
    let cpu = rounds.machine.server;
    let file = rounds.site.file(peer.medium);
    let mut words = peer.words(&sockets[0], &file, cpu);
    for (number, socket) in sockets.iter().enumerate().skip(1) {
        let more = peer.words(socket, &file, cpu);
        let repeated = match peer.name.as_str() {
            OURS => ["--socket", "--bdev"],
            _ => ["--blockdev", "--export"],
        };
        for option in repeated {
            let at = more.iter().position(|word| word == option);
            let value = at.and_then(|at| more.get(at + 1));
            let value = value.with_context(|| format!("{} has no {option}", peer.name))?;
            let value = value.replace("node-name=disk", &format!("node-name=disk{number}"));
            words.push(option.to_owned());
            words.push(value.replace("id=export", &format!("id=export{number}")));
        }
    }
    Server::start(&words, cpu, sockets)
}

/// Wakes every server of the null device from idle, in rounds.
pub(crate) fn wakes(rounds: &Rounds<'_>, peers: &[Peer]) -> (Vec<Wake>, Vec<String>) {
    let mut missing = Vec::new();
    let peers: Vec<&Peer> = peers
        .iter()
        .filter(|peer| peer.medium == Medium::Null)
        .collect();
    let mut samples = vec![Vec::new(); peers.len()];
    for _ in 0..rounds.pace.rounds {
        for (peer, samples) in peers.iter().zip(&mut samples) {
            match wake_one(rounds, peer) {
                Ok(sample) => samples.push(sample),
                Err(why) => missing.push(format!("{} woken: {why:#}", peer.name)),
            }
        }
    }
    let all = samples.iter().flatten();
    let near = all
        .clone()
        .filter(|(placement, ..)| *placement == Placement::Near)
        .count();
    let main = match 3 * near >= all.count() {
        true => Placement::Near,
        false => Placement::Far,
    };
    let found = peers.iter().zip(&samples).filter_map(|(peer, samples)| {
        let comparable = samples.iter().filter(|(placement, ..)| *placement == main);
        Some(Wake {
            peer: peer.name.clone(),
            p50_us: Middle::of(comparable.clone().map(|sample| sample.1))?,
            p99_us: Middle::of(comparable.map(|sample| sample.2))?,
        })
    });
    (found.collect(), missing)
}

fn wake_one(rounds: &Rounds<'_>, peer: &Peer) -> anyhow::Result<(Placement, f64, f64)> {
    let socket = rounds.site.socket(0);
    let server = start(rounds, peer, std::slice::from_ref(&socket))?;
    let case = Case::of(Medium::Null, true).remove(0);
    let mut session = Session::open(&socket, &case)?;
    let placement = Placement::of(rounds.machine.round_trip_ns()?);
    let count = if rounds.pace.quick { 40 } else { 100 };
    let latency = wake(&mut session.queue, rounds.clock, count, PAUSE)?;
    drop(session);
    drop(server);
    let _ = std::fs::remove_file(&socket);
    let us = |share| latency.quantile(share) as f64 / 1e3;
    Ok((placement, us(0.5), us(0.99)))
}
