//! Two reactors against one, on one volume with four queues. With four processors both are measured. With fewer a request
//! is counted instead: if it takes as many instructions when another reactor works on the same volume, then neither waits
//! for the other, and two reactors do twice as much. A cache line that both write would not show in that.

use crate::cases::Case;
use crate::machine::pin;
use crate::peers::{DEVICE_BYTES, Medium, OURS, Peer};
use crate::rounds::{Rounds, queues};
use crate::server::Server;
use anyhow::{Context, ensure};
use holdfast_bdev::Null;
use holdfast_dataplane::{DriverKind, Engine, EngineConfig, ExportSpec, Source};
use holdfast_testkit::load::{LoadQueue, run};
use serde::Serialize;
use std::fmt;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

/// What one and two reactors reach.
#[derive(Clone, Copy, Debug, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Scaling {
    /// Requests per second, with a processor for each reactor and each client.
    Measured { one: f64, two: f64 },
    /// Instructions of the server for each request.
    Counted { one: f64, two: f64 },
}

const CALLGRIND: [&str; 3] = [
    "valgrind",
    "--tool=callgrind",
    "--callgrind-out-file=/dev/null",
];
const QUEUES: usize = 4;
const DEPTH: u16 = 32;
/// Long enough, slowed down as it is, for some hundred thousand requests.
const SHORT: Duration = Duration::from_millis(500);
const LONG: Duration = Duration::from_millis(2500);

impl Scaling {
    /// Times the speed of one.
    pub(crate) fn times(&self) -> f64 {
        match self {
            Scaling::Measured { one, two } => two / one,
            Scaling::Counted { one, two } => 2.0 * one / two,
        }
    }
}

impl fmt::Display for Scaling {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Scaling::Measured { one, two } => {
                write!(f, "{:.2} M/s, one {:.2} M/s", two / 1e6, one / 1e6)
            }
            Scaling::Counted { one, two } => {
                write!(
                    f,
                    "{two:.0} instructions for each request, with one {one:.0}"
                )
            }
        }
    }
}

/// One and two reactors under the null device.
///
/// # Errors
/// If there are too few processors and no callgrind either.
pub(crate) fn scaling(rounds: &Rounds<'_>, peers: &[Peer]) -> anyhow::Result<Option<Scaling>> {
    let mut ours = peers.iter().filter(|peer| peer.name == OURS);
    let Some(peer) = ours.find(|peer| peer.medium == Medium::Null) else {
        return Ok(None);
    };
    let scaling = match rounds.machine.others[..] {
        [client, server, ..] => Scaling::Measured {
            one: measured(rounds, peer, (client, server), 1)?,
            two: measured(rounds, peer, (client, server), 2)?,
        },
        _ => Scaling::Counted {
            one: counted(rounds, 1)?,
            two: counted(rounds, 2)?,
        },
    };
    Ok(Some(scaling))
}

/// The command line with a list of processors for its reactors.
fn words(rounds: &Rounds<'_>, peer: &Peer, socket: &Path, cpus: &str) -> Vec<String> {
    let file = rounds.site.file(peer.medium);
    let mut words = peer.words(socket, &file, rounds.machine.server);
    let list = words.iter().position(|word| word == "--cpus");
    if let Some(value) = list.and_then(|at| words.get_mut(at + 1)) {
        cpus.clone_into(value);
    }
    words
}

/// Two clients, each on a processor of its own with every other queue.
fn measured(
    rounds: &Rounds<'_>,
    peer: &Peer,
    (client, server): (usize, usize),
    reactors: usize,
) -> anyhow::Result<f64> {
    let machine = rounds.machine;
    let cpus = match reactors {
        1 => machine.server.to_string(),
        _ => format!("{},{server}", machine.server),
    };
    let socket = rounds.site.socket(0);
    let server = Server::start_on(
        &words(rounds, peer, &socket, &cpus),
        &[machine.server, server],
        std::slice::from_ref(&socket),
    )?;
    let (guest, mut all) = queues(&socket, &Case::random_reads(DEPTH), QUEUES)?;
    let mut odd = all.split_off(QUEUES / 2);
    // Queues go to reactors in turn, so that each client has one reactor.
    std::mem::swap(&mut all[1], &mut odd[0]);
    let load = |cpu: usize, mut mine: Vec<LoadQueue>| {
        pin(cpu)?;
        let pace = rounds.pace;
        let tally = run(&mut mine, rounds.clock, pace.warm_up, pace.measure)?;
        ensure!(tally.errors == 0, "{} requests failed", tally.errors);
        Ok(tally.per_second())
    };
    let speed = std::thread::scope(|scope| {
        let other = scope.spawn(|| load(client, odd));
        let mine = load(machine.client, all)?;
        let joined = other.join();
        anyhow::Ok(mine + joined.map_err(|_| anyhow::anyhow!("a client panicked"))??)
    });
    drop((guest, server));
    let _ = std::fs::remove_file(&socket);
    speed
}

/// What a longer run takes more than a shorter one, for each request that was answered more.
fn counted(rounds: &Rounds<'_>, reactors: usize) -> anyhow::Result<f64> {
    let (few, short) = count(rounds, reactors, SHORT)?;
    let (many, long) = count(rounds, reactors, LONG)?;
    ensure!(
        many > 2 * few,
        "{many} requests are not enough beside {few}"
    );
    Ok((long - short) as f64 / (many - few) as f64)
}

/// Requests answered in about `time`, and all instructions of a server that answered them and ended.
fn count(rounds: &Rounds<'_>, reactors: usize, time: Duration) -> anyhow::Result<(u64, u64)> {
    // The second shares the client's, which does not matter: it is not timed.
    let cpus = [rounds.machine.server, rounds.machine.client];
    let list = cpus[..reactors].iter().map(usize::to_string);
    let list = list.collect::<Vec<_>>().join(",");
    let socket = rounds.site.socket(0);
    let program = std::env::current_exe()?.display().to_string();
    let mut line = CALLGRIND.map(str::to_owned).to_vec();
    line.extend([
        program,
        "counted".to_owned(),
        socket.display().to_string(),
        list,
    ]);
    let server = Server::start_on(&line, &cpus, std::slice::from_ref(&socket))?;
    let (guest, mut all) = queues(&socket, &Case::random_reads(DEPTH), QUEUES)?;
    let tally = run(&mut all, rounds.clock, Duration::ZERO, time)?;
    ensure!(tally.errors == 0, "{} requests failed", tally.errors);
    drop((all, guest));
    let said = server.finish()?;
    let _ = std::fs::remove_file(&socket);
    let line = said
        .lines()
        .find_map(|line| line.split_once("Collected : "));
    let (_, number) = line.with_context(|| format!("callgrind counted nothing: {said}"))?;
    Ok((tally.latency.count(), number.trim().parse()?))
}

/// The engine as callgrind can follow it, until asked to end.
///
/// # Errors
/// If it cannot be started.
pub(crate) fn serve(socket: &Path, cpus: &[usize]) -> anyhow::Result<()> {
    let engine = Engine::start(EngineConfig {
        cpus: cpus.to_vec(),
        driver: DriverKind::Threads,
        // Looking at empty rings is no part of a request.
        max_spin: Duration::ZERO,
        ..EngineConfig::default()
    })?;
    engine.add_device("device", Arc::new(Null::new(DEVICE_BYTES, 512)?))?;
    engine.export(&ExportSpec {
        queues: u16::try_from(QUEUES)?,
        ..ExportSpec::new("device", Source::Device("device".to_owned()), socket)
    })?;
    loop {
        std::thread::park();
    }
}
