//! Starts, stops and kicks in every order: one thread of the machine does I/O while another stops, starts, disables,
//! rewires and reconnects the queues under it. Whatever the order, every request is answered once.

use crate::{Outcome, Rounds};
use anyhow::{Context, ensure};
use holdfast_bdev::Malloc;
use holdfast_dataplane::{Engine, EngineConfig, ExportSpec, Source};
use holdfast_testkit::frontend::{Guest, GuestQueue};
use holdfast_testkit::workload::{Plan, Workload};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

const SIZE: u64 = 16 << 20;
const QUEUES: usize = 4;
const MIB: u64 = 1 << 20;
/// An answer that has not come by then is not coming.
const PATIENCE: Duration = Duration::from_secs(20);

/// Runs `rounds.times` interleavings; a round keeps its machine and reboots it now and then.
pub fn run(rounds: &Rounds) -> Outcome {
    rounds.run(|seed, times| {
        let dir = tempfile::tempdir()?;
        let engine = Engine::start(EngineConfig::default())?;
        engine.add_device("disk", Arc::new(Malloc::new(SIZE, 512)?))?;
        let socket = dir.path().join("v.sock");
        let source = Source::Device("disk".into());
        engine.export(&ExportSpec::new("disk", source, &socket))?;
        let mut guest = Guest::builder().queues(QUEUES).inflight().connect(socket)?;
        let plan = Plan {
            seed,
            patience: PATIENCE,
            ..Plan::default()
        };
        let mut load = Workload::new(plan, 1, 0..SIZE / 512);
        for number in 0..times {
            let random = StdRng::seed_from_u64(seed ^ (number << 32));
            interleave(&mut guest, &mut load, random)
                .with_context(|| format!("interleaving {number}"))?;
        }
        load.audit(&mut guest)?;
        ensure!(load.report().is_clean(), "{}", load.report());
        let mut outcome = Outcome {
            times,
            ..Outcome::default()
        };
        outcome.add_report(load.report());
        drop(guest);
        let left = engine.stop();
        ensure!(left.is_empty(), "exports that did not end: {left:?}");
        Ok(outcome)
    })
}

fn interleave(guest: &mut Guest, load: &mut Workload, mut random: StdRng) -> anyhow::Result<()> {
    let mut queues = guest.take_queues();
    let over = AtomicBool::new(false);
    let (controlled, worked) = std::thread::scope(|scope| {
        let kicks = StdRng::seed_from_u64(random.random());
        let worker = scope.spawn(|| work(load, &mut queues, kicks, &over));
        let controlled = control(guest, &mut random);
        over.store(true, Ordering::Release);
        (controlled, worker.join())
    });
    guest.put_queues(queues);
    controlled.context("control")?;
    let worked = worked.map_err(|_| anyhow::anyhow!("the worker ended by panic"))?;
    worked.context("load")?;
    if random.random_bool(0.05) {
        guest.reset_device()?;
        guest.start()?;
    }
    Ok(())
}

/// Requests and kicks, needed and needless, until control is over; then all answers are due.
fn work(
    load: &mut Workload,
    queues: &mut [GuestQueue],
    mut random: StdRng,
    over: &AtomicBool,
) -> anyhow::Result<()> {
    loop {
        load.fill(queues, random.random_range(1..48))?;
        if random.random_bool(0.3) {
            queues[random.random_range(0..QUEUES)].kick_now()?;
        }
        if over.load(Ordering::Acquire) {
            return Ok(load.drain(queues)?);
        }
        load.step(queues)?;
    }
}

/// A few changes in a random order; at the end every queue runs.
fn control(guest: &mut Guest, random: &mut StdRng) -> anyhow::Result<()> {
    let mut stopped = [false; QUEUES];
    for _ in 0..random.random_range(2..10) {
        let queue = random.random_range(0..QUEUES);
        match random.random_range(0..8) {
            0..=2 if stopped[queue] => {
                guest.start_queue(queue)?;
                stopped[queue] = false;
            }
            0..=2 => {
                guest.stop_queue(queue)?;
                stopped[queue] = true;
            }
            3 if !stopped[queue] => {
                guest.enable_queue(queue, false)?;
                guest.enable_queue(queue, true)?;
            }
            4 if !stopped[queue] => {
                guest.start_queue(queue)?;
            }
            5 => {
                let at = guest.add_region(MIB)?;
                guest.remove_region(at)?;
            }
            6 => {
                guest.disconnect();
                guest.reconnect()?;
                stopped = [false; QUEUES];
            }
            _ => std::thread::yield_now(),
        }
    }
    for (queue, _) in stopped.iter().enumerate().filter(|(_, stopped)| **stopped) {
        guest.start_queue(queue)?;
    }
    Ok(())
}
