//! `kill -9` at random moments.

use crate::lab::{Fate, Lab};
use crate::site::{Kind, inode};
use crate::{Outcome, Programs, Rounds};
use anyhow::ensure;
use rand::Rng;
use std::time::{Duration, Instant};

/// Kills a server `rounds.times` times, half of them `holdfast serve`, half `holdfast standalone`.
pub fn run(rounds: &Rounds, programs: &Programs) -> Outcome {
    rounds.run(|seed, times| {
        let kind = if seed % 2 == 0 {
            Kind::Serve
        } else {
            Kind::Standalone
        };
        let mut lab = Lab::new(kind, programs, seed)?;
        for _ in 0..times {
            live(&mut lab)?;
            lab.workload.fill(lab.guest.queues(), 128)?;
            kill(&mut lab)?;
            lab.first_answer()?;
        }
        lab.finish(times)
    })
}

/// The next server starts when the kernel has let go of the last one, or without waiting for that.
fn kill(lab: &mut Lab) -> anyhow::Result<()> {
    if lab.random.random_bool(0.5) {
        return lab.restart(None);
    }
    let socket = inode(&lab.site.socket("a"))?;
    let _killed = lab.restart_at_once()?;
    lab.wait_replaced(socket)
}

/// Some load, and now and then something else a machine does; then it is time to die.
fn live(lab: &mut Lab) -> anyhow::Result<()> {
    let until = Instant::now() + Duration::from_millis(lab.random.random_range(2..60));
    ensure!(lab.work(until)? == Fate::Lives, "the server died by itself");
    if lab.random.random_bool(0.3) {
        ensure!(lab.stir()? == Fate::Lives, "the server died by itself");
    }
    Ok(())
}
