//! SIGTERM to the server and its clients at the same moment.

use crate::lab::builder;
use crate::server::{Programs, Server};
use crate::site::{Kind, Site, listens};
use crate::{Outcome, Rounds};
use anyhow::ensure;
use holdfast_testkit::workload::{Plan, Workload};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use rustix::process::Signal;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

/// By then everybody must be gone.
const GONE: Duration = Duration::from_secs(1);
const DEADLINE: Duration = Duration::from_secs(20);
const VOLUMES: [&str; 2] = ["a", "b"];

/// Has a server and two clients under load end together, `rounds.times` times.
pub fn run(rounds: &Rounds, programs: &Programs) -> Outcome {
    let mut slowest = Duration::ZERO;
    let mut sum = rounds.run(|seed, times| {
        let site = Site::new(Kind::Standalone, programs)?;
        let mut random = StdRng::seed_from_u64(seed);
        for _ in 0..times {
            slowest = slowest.max(part(&site, programs, &mut random)?);
        }
        Ok(Outcome {
            times,
            ..Outcome::default()
        })
    });
    let all = crate::outcome::ms(slowest);
    sum.notes
        .push(format!("the slowest: all gone after {all} ms"));
    sum
}

/// How long it took until all were gone.
fn part(site: &Site, programs: &Programs, random: &mut StdRng) -> anyhow::Result<Duration> {
    let mut all = vec![site.start(None)?];
    let mut caller = site.caller()?;
    for volume in VOLUMES {
        site.stage(&mut caller, volume)?;
        let socket = site.socket(volume);
        ensure!(listens(&socket), "staged and not listening");
        let mut client = Command::new(&programs.soak);
        client.arg("client").arg(&socket);
        all.push(Server::start(&mut client, &site.log_of(volume))?);
    }
    drop(caller);
    for volume in VOLUMES {
        wait_loaded(&site.log_of(volume))?;
    }
    let first = random.random_range(0..all.len());
    all.rotate_left(first);
    let start = Instant::now();
    for process in &all {
        process.signal(Signal::TERM)?;
    }
    for process in &mut all {
        process.wait_end(start + GONE)?;
    }
    Ok(start.elapsed())
}

/// The client says so when it has answers.
fn wait_loaded(log: &Path) -> anyhow::Result<()> {
    let until = Instant::now() + DEADLINE;
    while !std::fs::read_to_string(log).is_ok_and(|said| said.contains(LOADED)) {
        ensure!(
            Instant::now() < until,
            "a client has no answers: {}",
            log.display()
        );
        std::thread::sleep(Duration::from_millis(1));
    }
    std::fs::remove_file(log)?;
    Ok(())
}

const LOADED: &str = "under load";

/// A client: verified load on a socket until it is ended. Never returns but by error.
///
/// # Errors
/// Whatever its guest meets.
pub fn client(socket: &Path) -> anyhow::Result<()> {
    let mut guest = builder().connect(socket)?;
    let sectors = guest.config()?.capacity_sectors;
    let mut load = Workload::new(Plan::default(), 1, 0..sectors);
    // What it reads is not judged: a former client wrote it.
    load.run(&mut guest, 1)?;
    eprintln!("{LOADED}");
    loop {
        load.run(&mut guest, 1000)?;
    }
}
