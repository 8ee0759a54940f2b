//! The machine a figure belongs to, and its two traps: virtual processors that the host moves apart and together again,
//! and autogroups, which let a busy neighbour take half of a spinning thread's time whatever its nice value says.

use anyhow::{Context, ensure};
use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};
use serde::Serialize;
use std::fs;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// The two processors of a run, and what the report says of the machine.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Machine {
    /// Where the load generator runs.
    pub(crate) client: usize,
    /// Where every server runs, with all its threads.
    pub(crate) server: usize,
    /// Those that are left.
    pub(crate) others: Vec<usize>,
    pub(crate) processors: usize,
    pub(crate) model: String,
    pub(crate) kernel: String,
    /// Load average when the run began.
    pub(crate) load: String,
    /// What could not be arranged.
    pub(crate) notes: Vec<String>,
}

/// How far two processors are from each other at a moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Placement {
    /// They share a cache.
    Near,
    /// They do not.
    Far,
}

/// A cache line goes there and back in less than this between processors that share a cache, and in more between others.
const NEAR_NS: f64 = 160.0;

/// What a thread that only looks at the clock loses to others.
#[derive(Clone, Copy, Debug, Serialize)]
pub(crate) struct Noise {
    pub(crate) cpu: usize,
    /// Time lost in gaps of more than 5 us, in percent.
    pub(crate) lost_percent: f64,
    /// Longest gap in microseconds.
    pub(crate) longest_us: f64,
}

impl Machine {
    /// Chooses two processors, unless told which, goes to the first, and makes neighbours give way.
    pub(crate) fn prepare(wish: Option<(usize, usize)>) -> anyhow::Result<Machine> {
        let allowed = sched_getaffinity(None)?;
        let all = (0..CpuSet::MAX_CPU).filter(|cpu| allowed.is_set(*cpu));
        let mut cpus = all.clone();
        let chosen = wish.or_else(|| Some((cpus.next()?, cpus.next()?)));
        let (client, server) = chosen.context("a measurement needs two processors")?;
        ensure!(client != server, "client and server need a processor each");
        pin(client)?;
        let text = |path| {
            fs::read_to_string(path)
                .unwrap_or_default()
                .trim()
                .to_owned()
        };
        let mut machine = Machine {
            client,
            server,
            processors: all.clone().count(),
            others: all.filter(|cpu| ![client, server].contains(cpu)).collect(),
            model: model(),
            kernel: text("/proc/sys/kernel/osrelease"),
            load: text("/proc/loadavg"),
            notes: Vec::new(),
        };
        if rustix::process::setsid().is_err() {
            machine.note("the generator is not in a session of its own");
        }
        if let Err(why) = precede("self") {
            machine.note(&format!("neighbours do not give way: {why}"));
        }
        Ok(machine)
    }

    fn note(&mut self, note: &str) {
        if !self.notes.iter().any(|known| known == note) {
            self.notes.push(note.to_owned());
        }
    }

    /// How long a cache line takes from one processor to the other and back, in nanoseconds.
    pub(crate) fn round_trip_ns(&self) -> anyhow::Result<f64> {
        const TRIPS: u64 = 200;
        const BATCHES: usize = 12;
        let (ball, server) = (AtomicU64::new(0), self.server);
        let mut best = f64::MAX;
        std::thread::scope(|scope| {
            let partner = scope.spawn(|| {
                pin(server)?;
                let mut odd = 1;
                while odd < 2 * TRIPS * BATCHES as u64 {
                    if ball.load(Ordering::Acquire) == odd {
                        ball.store(odd + 1, Ordering::Release);
                        odd += 2;
                    }
                }
                anyhow::Ok(())
            });
            for batch in 0..BATCHES as u64 {
                let start = Instant::now();
                for trip in 0..TRIPS {
                    let even = 2 * (batch * TRIPS + trip);
                    ball.store(even + 1, Ordering::Release);
                    while ball.load(Ordering::Acquire) != even + 2 {
                        if partner.is_finished() && ball.load(Ordering::Acquire) != even + 2 {
                            return partner.join().unwrap_or(Ok(()));
                        }
                    }
                }
                best = best.min(start.elapsed().as_secs_f64() * 1e9 / TRIPS as f64);
            }
            Ok(())
        })?;
        Ok(best)
    }

    /// Waits for the host to put the processors together; false if it has not by then.
    pub(crate) fn wait_near(&self, patience: Duration) -> anyhow::Result<bool> {
        let deadline = Instant::now() + patience;
        while Placement::of(self.round_trip_ns()?) == Placement::Far {
            if Instant::now() >= deadline {
                return Ok(false);
            }
            std::thread::sleep(Duration::from_secs(1));
        }
        Ok(true)
    }

    /// What both processors lose to others while nothing of ours runs.
    pub(crate) fn noise(&self, time: Duration) -> anyhow::Result<Vec<Noise>> {
        let cpus = [self.client, self.server];
        std::thread::scope(|scope| {
            let threads = cpus.map(|cpu| scope.spawn(move || noise_of(cpu, time)));
            let noises = threads.into_iter().map(|thread| {
                let joined = thread.join();
                joined.map_err(|_| anyhow::anyhow!("the noise meter panicked"))?
            });
            noises.collect()
        })
    }
}

impl Placement {
    pub(crate) fn of(round_trip_ns: f64) -> Placement {
        match round_trip_ns < NEAR_NS {
            true => Placement::Near,
            false => Placement::Far,
        }
    }
}

/// The calling thread, and what it starts, runs there and nowhere else.
pub(crate) fn pin(cpu: usize) -> anyhow::Result<()> {
    pin_to(&[cpu])
}

/// As [`pin`], to any of several.
pub(crate) fn pin_to(cpus: &[usize]) -> anyhow::Result<()> {
    let mut set = CpuSet::new();
    cpus.iter().for_each(|cpu| set.set(*cpu));
    sched_setaffinity(None, &set).with_context(|| format!("cannot run on processors {cpus:?}"))
}

/// Gives a process's session precedence over all others. A nice value alone counts within its session only.
pub(crate) fn precede(process: &str) -> anyhow::Result<()> {
    let path = format!("/proc/{process}/autogroup");
    match fs::write(&path, "-20") {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(()),
        other => other.with_context(|| format!("cannot write {path}; run as root")),
    }
}

fn noise_of(cpu: usize, time: Duration) -> anyhow::Result<Noise> {
    pin(cpu)?;
    let (start, mut last) = (Instant::now(), Instant::now());
    let (mut lost, mut longest) = (Duration::ZERO, Duration::ZERO);
    while start.elapsed() < time {
        let now = Instant::now();
        let gap = now - last;
        if gap > Duration::from_micros(5) {
            lost += gap;
            longest = longest.max(gap);
        }
        last = now;
    }
    Ok(Noise {
        cpu,
        lost_percent: 100.0 * lost.as_secs_f64() / time.as_secs_f64(),
        longest_us: longest.as_secs_f64() * 1e6,
    })
}

fn model() -> String {
    let text = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let line = text.lines().find(|line| line.starts_with("model name"));
    let name = line
        .and_then(|line| line.split_once(": "))
        .map(|(_, name)| name);
    name.unwrap_or(std::env::consts::ARCH).to_owned()
}
