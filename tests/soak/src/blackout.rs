//! How long a guest waits when the server is killed and started again at once, with ten volumes exported.

use crate::lab;
use crate::outcome::{ms, percentile};
use crate::server::{Programs, Server};
use crate::site::{Kind, Site};
use crate::{Outcome, Rounds};
use anyhow::ensure;
use holdfast_testkit::frontend::Guest;
use holdfast_testkit::workload::{Plan, Workload};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::time::{Duration, Instant};

const VOLUMES: usize = 10;
const SECTORS: u64 = (16 << 20) / 512;
const DEADLINE: Duration = Duration::from_secs(20);

/// Kills a server with ten volumes under load `rounds.times` times, and takes the time.
pub fn run(rounds: &Rounds, programs: &Programs) -> Outcome {
    let build = programs.released.as_ref().map_or("debug", |_| "release");
    let programs = Programs {
        holdfast: programs
            .released
            .clone()
            .unwrap_or_else(|| programs.holdfast.clone()),
        ..programs.clone()
    };
    let mut seen = Vec::new();
    let mut sum = rounds.run(|seed, times| {
        let mut bench = Bench::new(&programs, seed)?;
        for _ in 0..times {
            seen.push(bench.blackout()?);
        }
        bench.finish(times)
    });
    for (what, part) in PARTS {
        let times: Vec<Duration> = seen.iter().map(part).collect();
        let (median, most) = (percentile(&times, 50), percentile(&times, 100));
        let (median, most) = (ms(median), ms(most));
        sum.notes.push(format!(
            "{what}, {build} build: median {median} ms, most {most} ms"
        ));
    }
    sum
}

/// Where the time goes.
struct Blackout {
    /// From `kill -9` until the kernel has let go of the process.
    dying: Duration,
    /// From the start of the next process until the last socket listens.
    listening: Duration,
    /// From the start of the process until the guest is connected and its rings run.
    connected: Duration,
    /// From the last answer of the old process to the first of the new one.
    gap: Duration,
}

type Part = fn(&Blackout) -> Duration;
const PARTS: [(&str, Part); 4] = [
    ("kill to the end of the process", |seen| seen.dying),
    ("process start to ten listening sockets", |seen| {
        seen.listening
    }),
    ("process start to running rings", |seen| seen.connected),
    ("largest gap seen by the front end", |seen| seen.gap),
];

struct Bench {
    site: Site,
    server: Server,
    sockets: Vec<PathBuf>,
    guest: Guest,
    load: Workload,
}

impl Bench {
    fn new(programs: &Programs, seed: u64) -> anyhow::Result<Bench> {
        let site = Site::new(Kind::Standalone, programs)?;
        let server = site.start(None)?;
        let mut caller = site.caller()?;
        let names: Vec<String> = (0..VOLUMES).map(|number| format!("v{number}")).collect();
        for name in &names {
            site.stage(&mut caller, name)?;
        }
        let sockets: Vec<PathBuf> = names.iter().map(|name| site.socket(name)).collect();
        let plan = Plan {
            seed,
            ..Plan::default()
        };
        Ok(Bench {
            guest: lab::builder().connect(&sockets[0])?,
            load: Workload::new(plan, 1, 0..SECTORS),
            site,
            server,
            sockets,
        })
    }

    fn blackout(&mut self) -> anyhow::Result<Blackout> {
        self.load.run(&mut self.guest, 2000)?;
        self.load.fill(self.guest.queues(), 128)?;
        self.load.step(self.guest.queues())?;
        let last = Instant::now();
        self.server.kill()?;
        let dying = last.elapsed();
        self.guest.disconnect();
        self.server = self.site.start(None)?;
        let since = self.server.since;
        let others = self.sockets[1..].to_vec();
        let watch = std::thread::spawn(move || all_listen(&others, since));
        self.guest.reconnect()?;
        let connected = since.elapsed();
        self.load.step(self.guest.queues())?;
        let gap = last.elapsed();
        self.load.drain(self.guest.queues())?;
        let listening = watch.join();
        Ok(Blackout {
            dying,
            listening: listening.map_err(|_| anyhow::anyhow!("the watch panicked"))??,
            connected,
            gap,
        })
    }

    fn finish(mut self, times: u64) -> anyhow::Result<Outcome> {
        self.load.audit(&mut self.guest)?;
        ensure!(self.load.report().is_clean(), "{}", self.load.report());
        let mut outcome = Outcome {
            times,
            ..Outcome::default()
        };
        outcome.add_report(self.load.report());
        Ok(outcome)
    }
}

/// Tries every millisecond, as a virtual machine does.
fn all_listen(sockets: &[PathBuf], since: Instant) -> anyhow::Result<Duration> {
    for socket in sockets {
        while UnixStream::connect(socket).is_err() {
            ensure!(since.elapsed() < DEADLINE, "{} is dead", socket.display());
            std::thread::sleep(Duration::from_millis(1));
        }
    }
    Ok(since.elapsed())
}
