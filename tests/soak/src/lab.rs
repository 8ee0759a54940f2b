//! A guest under verified load in front of a server that is killed and started again behind it.

use crate::Outcome;
use crate::csi::Lives;
use crate::server::{Programs, Server};
use crate::site::{Kind, SIZE, Site, inode};
use anyhow::{Context, bail, ensure};
use holdfast_testkit::frontend::{Guest, GuestBuilder, GuestError};
use holdfast_testkit::workload::{Plan, Workload};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use rustix::process::Signal;
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

pub(crate) const QUEUES: usize = 4;
const MIB: u64 = 1 << 20;
/// How long to wait for an answer before asking whether the server is dead.
const LOOK: Duration = Duration::from_millis(20);
/// More than anything takes that ends at all.
const DEADLINE: Duration = Duration::from_secs(30);

/// Whether the server is still there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fate {
    Lives,
    Died,
}

/// The guest, its load, and the server of the moment.
pub(crate) struct Lab {
    pub(crate) site: Site,
    pub(crate) server: Server,
    pub(crate) guest: Guest,
    pub(crate) workload: Workload,
    pub(crate) random: StdRng,
    pub(crate) recoveries: Vec<Duration>,
    lives: Option<Lives>,
    answered: Instant,
}

impl Lab {
    pub(crate) fn new(kind: Kind, programs: &Programs, seed: u64) -> anyhow::Result<Lab> {
        Lab::at(Site::new(kind, programs)?, seed)
    }

    /// At a site of the caller's.
    pub(crate) fn at(site: Site, seed: u64) -> anyhow::Result<Lab> {
        let server = site.start(None)?;
        let lives = match site.kind {
            Kind::Serve => None,
            Kind::Standalone => {
                let mut caller = site.caller()?;
                site.stage(&mut caller, "a")
                    .with_context(|| site.last_words())?;
                Some(Lives::begin(caller))
            }
        };
        let guest = builder().connect(site.socket("a"))?;
        Ok(Lab {
            server,
            guest,
            workload: Workload::new(plan(seed), 1, 0..SIZE / 512),
            random: StdRng::seed_from_u64(seed),
            recoveries: Vec::new(),
            lives,
            answered: Instant::now(),
            site,
        })
    }

    /// Kills the server if it lives, and starts the next one at once. The guest keeps its rings and what is in flight.
    pub(crate) fn restart(&mut self, crash: Option<&str>) -> anyhow::Result<()> {
        self.server.kill()?;
        self.guest.disconnect();
        self.server = self.site.start(crash)?;
        Ok(())
    }

    /// As [`restart`](Self::restart), but the next server does not wait until the kernel has let go of the last one, which
    /// is handed back: it may be long until it has.
    pub(crate) fn restart_at_once(&mut self) -> anyhow::Result<Server> {
        self.server.signal(Signal::KILL)?;
        self.guest.disconnect();
        let next = self.site.start(None)?;
        Ok(std::mem::replace(&mut self.server, next))
    }

    /// Connects again as soon as somebody listens.
    pub(crate) fn reconnect(&mut self) -> anyhow::Result<Fate> {
        if self.wait_listening()? == Fate::Died {
            return Ok(Fate::Died);
        }
        self.answered = Instant::now();
        match self.guest.reconnect() {
            Ok(()) => Ok(Fate::Lives),
            Err(error) => self.blame(error),
        }
    }

    /// Waits for somebody to listen, trying every millisecond.
    pub(crate) fn wait_listening(&mut self) -> anyhow::Result<Fate> {
        let socket = self.site.socket("a");
        let until = Instant::now() + DEADLINE;
        while UnixStream::connect(&socket).is_err() {
            if self.server.has_died()? {
                return Ok(Fate::Died);
            }
            ensure!(
                Instant::now() < until,
                "nobody listens: {}",
                self.site.last_words()
            );
            std::thread::sleep(Duration::from_millis(1));
        }
        Ok(Fate::Lives)
    }

    /// Waits until the path leads to a socket other than this: a dying process holds its own a little longer.
    pub(crate) fn wait_replaced(&mut self, socket: u64) -> anyhow::Result<()> {
        let until = Instant::now() + DEADLINE;
        while inode(&self.site.socket("a"))? == socket {
            let lives = !self.server.has_died()? && Instant::now() < until;
            ensure!(lives, "no new socket: {}", self.site.last_words());
            std::thread::sleep(Duration::from_millis(1));
        }
        Ok(())
    }

    /// Load until `until`, or until the server dies.
    pub(crate) fn work(&mut self, until: Instant) -> anyhow::Result<Fate> {
        while Instant::now() < until {
            if self.step()? == Fate::Died {
                return Ok(Fate::Died);
            }
        }
        Ok(Fate::Lives)
    }

    /// Fills all queues and takes what has been answered.
    pub(crate) fn step(&mut self) -> anyhow::Result<Fate> {
        self.workload.fill(self.guest.queues(), 64)?;
        self.take()
    }

    /// Takes what has been answered.
    fn take(&mut self) -> anyhow::Result<Fate> {
        match self.workload.step(self.guest.queues()) {
            Ok(()) => {
                self.answered = Instant::now();
                Ok(Fate::Lives)
            }
            Err(_) if self.server.has_died()? => Ok(Fate::Died),
            Err(GuestError::Timeout { .. }) if self.answered.elapsed() < DEADLINE => {
                Ok(Fate::Lives)
            }
            Err(GuestError::LostInterrupt { queue, .. }) => self.await_interrupt(queue),
            Err(error) => Err(self.report(error.into())),
        }
    }

    /// An answer is there and its interrupt is not: on a busy machine it may still come, but come it must.
    fn await_interrupt(&mut self, queue: usize) -> anyhow::Result<Fate> {
        let until = Instant::now() + DEADLINE;
        while !self.guest.queue(queue).take_interrupt() {
            if self.server.has_died()? {
                return Ok(Fate::Died);
            }
            if Instant::now() > until {
                bail!("queue {queue} has answers and was never interrupted");
            }
            std::thread::sleep(Duration::from_millis(1));
        }
        Ok(Fate::Lives)
    }

    /// One of the things that virtual machines do besides I/O.
    pub(crate) fn stir(&mut self) -> anyhow::Result<Fate> {
        let queue = self.random.random_range(0..QUEUES);
        let guest = &mut self.guest;
        let done = match self.random.random_range(0..4) {
            0 => guest
                .stop_queue(queue)
                .and_then(|_| guest.start_queue(queue)),
            1 => guest
                .enable_queue(queue, false)
                .and_then(|()| guest.enable_queue(queue, true)),
            2 => guest.add_region(MIB).and_then(|at| guest.remove_region(at)),
            _ => {
                guest.disconnect();
                guest.reconnect()
            }
        };
        match done {
            Ok(()) => Ok(Fate::Lives),
            Err(error) => self.blame(error),
        }
    }

    /// A message that failed is the server's death, or a defect.
    pub(crate) fn blame(&mut self, error: GuestError) -> anyhow::Result<Fate> {
        match self
            .server
            .wait_end(Instant::now() + Duration::from_secs(2))
        {
            Ok(_) => Ok(Fate::Died),
            Err(_) => Err(self.report(error.into())),
        }
    }

    /// Starts a server that stays, waits for the first answer from it, and works on for a moment.
    pub(crate) fn recover(&mut self) -> anyhow::Result<()> {
        self.restart(None)?;
        self.first_answer()?;
        let until = Instant::now() + Duration::from_millis(self.random.random_range(2..20));
        self.expect_life(Lab::work, until)
    }

    /// From the start of the process to the first answer.
    pub(crate) fn first_answer(&mut self) -> anyhow::Result<()> {
        if self.reconnect()? == Fate::Died {
            bail!(
                "the server died when nobody killed it: {}",
                self.site.last_words()
            );
        }
        let before = self.workload.report().succeeded;
        while self.workload.report().succeeded == before {
            self.expect_life(|lab, ()| lab.step(), ())?;
        }
        self.recoveries.push(self.server.since.elapsed());
        Ok(())
    }

    fn expect_life<T>(
        &mut self,
        act: impl FnOnce(&mut Lab, T) -> anyhow::Result<Fate>,
        with: T,
    ) -> anyhow::Result<()> {
        match act(self, with)? {
            Fate::Lives => Ok(()),
            Fate::Died => Err(self.report(anyhow::anyhow!("the server died by itself"))),
        }
    }

    /// Waits for everything in flight, without new requests.
    pub(crate) fn drain(&mut self) -> anyhow::Result<()> {
        while self.workload.in_flight() > 0 {
            self.expect_life(|lab, ()| lab.take(), ())?;
        }
        Ok(())
    }

    /// Drains, reads the whole disk back, and sums up. The server must live.
    pub(crate) fn finish(mut self, times: u64) -> anyhow::Result<Outcome> {
        self.drain()?;
        self.workload.set_patience(DEADLINE);
        self.workload.audit(&mut self.guest)?;
        if let Some(lives) = self.lives.take() {
            lives.end().with_context(|| self.site.last_words())?;
        }
        let mut outcome = Outcome {
            times,
            recoveries: std::mem::take(&mut self.recoveries),
            ..Outcome::default()
        };
        outcome.add_report(self.workload.report());
        let report = self.workload.report();
        ensure!(
            report.is_clean(),
            "{report}\n    {}",
            self.site.last_words()
        );
        Ok(outcome)
    }

    fn report(&self, error: anyhow::Error) -> anyhow::Error {
        error.context(format!(
            "the servers said last:\n    {}\n",
            self.site.last_words()
        ))
    }
}

/// A guest with an in-flight region.
pub(crate) fn builder() -> GuestBuilder {
    let guest = Guest::builder().queues(QUEUES).queue_size(128).inflight();
    guest.deadline(DEADLINE)
}

fn plan(seed: u64) -> Plan {
    Plan {
        seed,
        depth: 32,
        patience: LOOK,
        ..Plan::default()
    }
}
