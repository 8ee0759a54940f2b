//! The named places at which the product can be killed, each again and again.

mod list;

pub use list::{POINTS, Point, Way};

use crate::lab::{self, Fate, Lab};
use crate::site::Kind;
use crate::{Outcome, Programs, Rounds};
use anyhow::ensure;
use rand::Rng;
use std::time::{Duration, Instant};

/// How long a server may take to come by its place. One that does not is killed, and does not count.
const PATIENCE: Duration = Duration::from_secs(4);
/// A place is met for the 2^n-th time at most.
const LATEST: u32 = 6;
/// In so many attempts for each death, a place must be met.
const ATTEMPTS: u64 = 6;

/// Kills servers at every place of [`POINTS`] `times` times, or at the one named.
pub fn run(times: u64, seed: u64, only: Option<&str>, programs: &Programs) -> Outcome {
    let chosen = POINTS
        .iter()
        .filter(|point| only.is_none_or(|name| name == point.name));
    let start = Instant::now();
    let mut sum = Outcome::default();
    for (number, point) in chosen.enumerate() {
        let rounds = Rounds {
            section: point.name,
            what: point.name,
            times,
            per_round: times,
            seed,
        };
        sum.absorb(rounds.run(|seed, times| round(point, times, seed, programs)));
        if number % 10 == 9 {
            let (done, failures) = (number + 1, sum.failures.len());
            println!("  .. crash points: {done} done, {failures} failures");
        }
    }
    sum.what = format!("kill at {} named points", only.map_or(POINTS.len(), |_| 1));
    sum.took = start.elapsed();
    sum
}

fn round(point: &Point, times: u64, seed: u64, programs: &Programs) -> anyhow::Result<Outcome> {
    let mut lab = Lab::new(Kind::Standalone, programs, seed)?;
    let mut deaths = 0;
    // Places that are passed often are met at any time; one that is not met so late is passed less often. So the fourth
    // attempt for a single death asks for the first time a place is met, which every start has.
    let mut latest = LATEST;
    for _ in 0..times * ATTEMPTS {
        let most = 1 << lab.random.random_range(0..=latest);
        let count = lab.random.random_range(1..=most);
        match die_at(&mut lab, point, count)? {
            Fate::Died => deaths += 1,
            Fate::Lives => latest /= 2,
        }
        lab.recover()?;
        if deaths == times {
            break;
        }
    }
    ensure!(
        deaths == times,
        "{} was met in {deaths} of {times} tries",
        point.name
    );
    lab.finish(times)
}

/// Starts a server that dies at a place, and does everything there is until it does.
fn die_at(lab: &mut Lab, point: &Point, count: u32) -> anyhow::Result<Fate> {
    match point.way {
        Way::Load => {}
        Way::After(before) => {
            lab.restart(Some(before))?;
            press(lab)?;
        }
        Way::NewGuest => lab.drain()?,
    }
    let armed = format!("{}:{count}", point.name);
    lab.restart(Some(&armed))?;
    if point.way == Way::NewGuest {
        return replace_guest(lab);
    }
    press(lab)
}

/// Load and stirring until the server dies or the patience ends.
fn press(lab: &mut Lab) -> anyhow::Result<Fate> {
    let until = Instant::now() + PATIENCE;
    if lab.reconnect()? == Fate::Died {
        return Ok(Fate::Died);
    }
    while Instant::now() < until {
        for _ in 0..8 {
            if lab.step()? == Fate::Died {
                return Ok(Fate::Died);
            }
        }
        if lab.stir()? == Fate::Died {
            return Ok(Fate::Died);
        }
    }
    Ok(Fate::Lives)
}

/// A machine that connects for the first time, with nothing in flight.
fn replace_guest(lab: &mut Lab) -> anyhow::Result<Fate> {
    if lab.wait_listening()? == Fate::Died {
        return Ok(Fate::Died);
    }
    lab.guest = match lab::builder().negotiate(lab.site.socket("a")) {
        Ok(guest) => guest,
        Err(error) => return lab.blame(error),
    };
    match lab.guest.start() {
        Ok(()) => press(lab),
        Err(error) => lab.blame(error),
    }
}
