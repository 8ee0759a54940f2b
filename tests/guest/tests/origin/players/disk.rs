//! One disk of a virtual machine: its driver, its load, and what firmware and kernel do with it at a reboot.

use holdfast_testkit::frontend::{Guest, GuestBuilder, GuestError};
use holdfast_testkit::workload::{Plan, Report, Workload};
use std::path::Path;
use std::time::{Duration, Instant};

/// What a disk is told to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Order {
    /// Have so many more requests answered.
    Work(u64),
    /// Have requests, and get no answer: they are held.
    Held,
    /// Reboot the machine, whatever is in flight.
    Reboot,
    /// The server has ended: hang up. The disk connects again by itself.
    Reconnect,
    /// Read everything back.
    Verify,
}

/// A disk under load.
pub(super) struct Disk {
    guest: Guest,
    load: Workload,
    connected: bool,
    /// Why it cannot go on.
    broken: Option<GuestError>,
}

/// Why an order was not fulfilled.
#[derive(Debug)]
pub(super) struct Failure(String);

const QUEUES: usize = 2;
const SECTORS: u64 = (8 << 20) / 512;
/// Far more than any order needs, on an emulated processor: reached only by a defect.
const PATIENCE: Duration = Duration::from_secs(100);
/// No order is looked at meanwhile.
const BREATH: Duration = Duration::from_millis(250);
/// How long nothing may be answered before requests count as held.
const SILENCE: Duration = Duration::from_secs(1);

impl Order {
    pub(super) fn parse(words: &[&str]) -> Order {
        match words {
            ["work", count] => Order::Work(count.parse().unwrap()),
            ["held"] => Order::Held,
            ["reboot"] => Order::Reboot,
            ["reconnect"] => Order::Reconnect,
            ["verify"] => Order::Verify,
            _ => panic!("no order: {words:?}"),
        }
    }
}

impl Disk {
    pub(super) fn connect(number: u32, socket: &Path, odd_layouts: bool) -> Disk {
        let builder: GuestBuilder = Guest::builder().queues(QUEUES).inflight();
        let plan = Plan {
            seed: number.into(),
            depth: 16,
            patience: BREATH,
            odd_layouts,
            ..Plan::default()
        };
        Disk {
            guest: builder.deadline(PATIENCE).connect(socket).unwrap(),
            load: Workload::new(plan, number, 0..SECTORS),
            connected: true,
            broken: None,
        }
    }

    /// Works for a moment; what goes wrong is told at the next order.
    pub(super) fn breathe(&mut self) {
        if self.broken.is_some() {
            std::thread::park_timeout(BREATH);
        } else if let Err(error) = self.connect_again().and_then(|()| self.step(QUEUES)) {
            self.broken = Some(error);
        }
    }

    /// Carries out an order. The figures of the load so far, or the first thing that is wrong.
    pub(super) fn follow(&mut self, order: Order) -> Result<String, Failure> {
        if let Some(error) = &self.broken {
            return Err(Failure(format!("{error}; {}", self.load.report())));
        }
        match order {
            Order::Reconnect => {
                self.guest.disconnect();
                self.connected = false;
            }
            Order::Work(count) => self.work(count)?,
            Order::Held => self.held()?,
            Order::Reboot => self.reboot()?,
            Order::Verify => self.verify()?,
        }
        let report = self.load.report();
        match report.is_clean() {
            true => Ok(report.to_string()),
            false => Err(Failure(report.to_string())),
        }
    }

    fn work(&mut self, count: u64) -> Result<(), Failure> {
        self.connect_again()?;
        let (until, target) = (Instant::now() + PATIENCE, self.answered() + count);
        while self.answered() < target {
            self.step(QUEUES)?;
            self.check_time(until)?;
        }
        Ok(())
    }

    fn held(&mut self) -> Result<(), Failure> {
        let until = Instant::now() + PATIENCE;
        // Requests that were with the drive when it went may still be answered.
        let (mut answered, mut since) = (self.answered(), Instant::now());
        while since.elapsed() < SILENCE {
            self.step(QUEUES)?;
            self.check_time(until)?;
            if self.answered() != answered {
                (answered, since) = (self.answered(), Instant::now());
            }
        }
        match self.load.in_flight() {
            0 => Err(Failure("nothing is held".into())),
            _ => Ok(()),
        }
    }

    /// The firmware uses one queue, the kernel all; each resets the device first, and nobody asks for old answers.
    fn reboot(&mut self) -> Result<(), Failure> {
        self.connect_again()?;
        self.reset()?;
        self.step(1)?;
        self.reset()
    }

    fn reset(&mut self) -> Result<(), Failure> {
        for queue in 0..QUEUES {
            self.guest.stop_queue(queue)?;
        }
        self.guest.reset_device()?;
        self.load.forget();
        Ok(self.guest.start()?)
    }

    fn verify(&mut self) -> Result<(), Failure> {
        self.connect_again()?;
        let until = Instant::now() + PATIENCE;
        // One breath may be too short for a busy processor: what was not read is read again.
        loop {
            while self.load.in_flight() > 0 {
                patient(self.load.step(self.guest.queues()))?;
                self.check_time(until)?;
            }
            match self.load.audit(&mut self.guest) {
                Err(GuestError::Timeout { .. } | GuestError::LostInterrupt { .. }) => {}
                ended => return Ok(ended?),
            }
        }
    }

    fn step(&mut self, queues: usize) -> Result<(), GuestError> {
        let queues = &mut self.guest.queues()[..queues];
        self.load.fill(queues, 64)?;
        patient(self.load.step(queues))
    }

    fn connect_again(&mut self) -> Result<(), GuestError> {
        if !self.connected {
            self.guest.reconnect()?;
            self.connected = true;
        }
        Ok(())
    }

    fn answered(&self) -> u64 {
        let Report {
            succeeded, failed, ..
        } = self.load.report();
        succeeded + failed
    }

    fn check_time(&self, until: Instant) -> Result<(), Failure> {
        match Instant::now() < until {
            true => Ok(()),
            false => Err(Failure(format!(
                "{} requests hang; {}",
                self.load.in_flight(),
                self.load.report()
            ))),
        }
    }
}

/// No answer yet is no failure, nor is one whose interrupt is on its way when the breath ends.
fn patient(step: Result<(), GuestError>) -> Result<(), GuestError> {
    match step {
        Err(GuestError::Timeout { .. } | GuestError::LostInterrupt { .. }) => Ok(()),
        other => other,
    }
}

impl From<GuestError> for Failure {
    fn from(error: GuestError) -> Failure {
        Failure(error.to_string())
    }
}

impl std::fmt::Display for Failure {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}
