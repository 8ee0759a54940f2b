//! A random workload that knows at any time what each sector may hold, and says so when it holds something else.
//!
//! Every 16 bytes of every sector name their volume, their sector, the write they belong to and their place, under a
//! checksum (see [`sector`]). So a sector read back tells not only that it is wrong but how: flipped, torn, misplaced,
//! lost, reverted. Requests in flight never overlap, as a file system's do not; hence each sector has exactly one right
//! answer, but for sectors whose last change failed or was a discard.
//!
//! The workload owns no connection: queues may be stopped, and the back end may be killed and come back, between any two
//! calls of [`Workload::step`]; what was in flight then is still expected afterwards.

mod model;
mod report;
pub mod sector;

pub use model::{Change, Intent, Model};
pub use report::{Finding, Flaw, Report};

use crate::frontend::{
    Done, Guest, GuestError, GuestQueue, Layout, Op, Range, Ticket, status, wait_any,
};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use std::collections::HashMap;
use std::time::Duration;

/// What a workload does.
#[derive(Clone, Copy, Debug)]
pub struct Plan {
    /// Same seed, same requests, as long as answers come in the same order.
    pub seed: u64,
    /// Requests in flight per queue; the queue must have room.
    pub depth: usize,
    /// Longest request in sectors.
    pub sectors_max: u64,
    /// Of 100 requests, how many read.
    pub reads: u32,
    /// How many flush, discard, and write zeroes; the rest writes.
    pub flushes: u32,
    /// See `flushes`.
    pub discards: u32,
    /// See `flushes`.
    pub write_zeroes: u32,
    /// Whether requests are laid out in odd ways (buffers of odd length and alignment); else as Linux does.
    pub odd_layouts: bool,
    /// How long to wait for the next answer.
    pub patience: Duration,
}

impl Default for Plan {
    fn default() -> Plan {
        Plan {
            seed: 1,
            depth: 32,
            sectors_max: 64,
            reads: 45,
            flushes: 2,
            discards: 2,
            write_zeroes: 3,
            odd_layouts: true,
            patience: Duration::from_secs(10),
        }
    }
}

/// A workload under way.
#[derive(Debug)]
pub struct Workload {
    plan: Plan,
    random: StdRng,
    model: Model,
    inflight: HashMap<(usize, Ticket), Intent>,
    report: Report,
}

impl Workload {
    /// A workload on the given sectors of a volume, which read as zeros now. Two workloads on one device need different
    /// volume numbers or different sectors.
    pub fn new(plan: Plan, volume: u32, sectors: std::ops::Range<u64>) -> Workload {
        Workload {
            plan,
            random: StdRng::seed_from_u64(plan.seed),
            model: Model::new(volume, sectors),
            inflight: HashMap::new(),
            report: Report::default(),
        }
    }

    /// Makes `requests` requests, waits for all answers and verifies what was read.
    ///
    /// # Errors
    /// [`GuestError`] if the driver cannot go on; wrong data is not an error but in the [`report`](Self::report).
    pub fn run(&mut self, guest: &mut Guest, requests: u64) -> Result<(), GuestError> {
        let until = self.report.submitted() + requests;
        while self.report.submitted() < until {
            self.fill(guest.queues(), until - self.report.submitted())?;
            self.step(guest.queues())?;
        }
        self.drain(guest.queues())
    }

    /// Fills every queue up to the plan's depth, with at most `limit` new requests, and kicks.
    ///
    /// # Errors
    /// As [`run`](Self::run).
    pub fn fill(&mut self, queues: &mut [GuestQueue], limit: u64) -> Result<(), GuestError> {
        let mut left = limit;
        for queue in queues {
            // Bound: the plan's depth; a request that meets only busy sectors is put off.
            while left > 0 && queue.outstanding() < self.plan.depth {
                let Some(intent) = self.invent(queue) else {
                    break;
                };
                self.submit(queue, intent)?;
                left -= 1;
            }
            queue.notify()?;
        }
        Ok(())
    }

    /// Waits for at least one answer on any queue, and takes and verifies all there are.
    ///
    /// # Errors
    /// As [`run`](Self::run); [`GuestError::Timeout`] if none comes within the plan's patience.
    pub fn step(&mut self, queues: &mut [GuestQueue]) -> Result<(), GuestError> {
        if self.inflight.is_empty() {
            return Ok(());
        }
        wait_any(queues, self.plan.patience)?;
        for queue in queues {
            self.collect(queue)?;
        }
        Ok(())
    }

    /// Waits until nothing is in flight.
    ///
    /// # Errors
    /// As [`step`](Self::step).
    pub fn drain(&mut self, queues: &mut [GuestQueue]) -> Result<(), GuestError> {
        while !self.inflight.is_empty() {
            self.step(queues)?;
        }
        Ok(())
    }

    /// Reads everything back and verifies it. Nothing may be in flight.
    ///
    /// # Errors
    /// As [`run`](Self::run).
    pub fn audit(&mut self, guest: &mut Guest) -> Result<(), GuestError> {
        self.drain(guest.queues())?;
        let sectors = self.model.sectors();
        let step = self.plan.sectors_max;
        for first in sectors.clone().step_by(usize::try_from(step).unwrap_or(1)) {
            let queues = guest.queues();
            let index = usize::try_from(first / step).unwrap_or(0) % queues.len();
            if queues[index].outstanding() >= self.plan.depth {
                self.step(queues)?;
                self.drain(queues)?;
            }
            let count = step.min(sectors.end - first);
            if let Some(intent) = self.model.begin(Change::Read, first, count) {
                self.submit(&mut queues[index], intent)?;
                queues[index].notify()?;
            }
        }
        self.drain(guest.queues())
    }

    /// Waits no longer for what is in flight: the guest was reset, and nobody will hear the answers. What was to be changed
    /// may be old or new.
    pub fn forget(&mut self) {
        for intent in std::mem::take(&mut self.inflight).into_values() {
            self.model.end(&intent, false);
        }
    }

    /// Changes how long to wait for the next answer.
    pub fn set_patience(&mut self, patience: Duration) {
        self.plan.patience = patience;
    }

    /// What has been done and found so far.
    pub fn report(&self) -> &Report {
        &self.report
    }

    /// What the sectors may hold.
    pub fn model(&self) -> &Model {
        &self.model
    }

    /// Requests submitted and not answered.
    pub fn in_flight(&self) -> usize {
        self.inflight.len()
    }

    /// Invents a request on sectors that no request in flight touches; none if a few tries met only busy ones.
    fn invent(&mut self, queue: &GuestQueue) -> Option<Intent> {
        let plan = self.plan;
        let roll = self.random.random_range(0..100);
        let bounds = [plan.reads, plan.flushes, plan.discards, plan.write_zeroes];
        let mut sum = 0;
        let kind = bounds.iter().position(|share| {
            sum += share;
            roll < sum
        });
        let change = match kind {
            Some(0) => Change::Read,
            Some(1) => Change::Flush,
            Some(2) => Change::Discard,
            Some(3) => Change::WriteZeroes,
            _ => Change::Write,
        };
        let sectors = self.model.sectors();
        let room = queue.data_max() as u64 / 512 - 1;
        let longest = plan.sectors_max.min(room).min(sectors.end - sectors.start);
        // Bound: 16 tries.
        (0..16).find_map(|_| {
            let count = self.random.random_range(1..=longest);
            let first = self
                .random
                .random_range(sectors.start..=sectors.end - count);
            self.model.begin(change, first, count)
        })
    }

    fn submit(&mut self, queue: &mut GuestQueue, intent: Intent) -> Result<(), GuestError> {
        let Intent { first, count, .. } = intent;
        let sectors = u32::try_from(count).expect("a request is shorter than 2^32 sectors");
        let range = |flags| {
            vec![Range {
                sector: first,
                sectors,
                flags,
            }]
        };
        let op = match intent.change {
            Change::Read => Op::Read {
                offset: first * 512,
                len: sectors * 512,
            },
            Change::Write => Op::Write {
                offset: first * 512,
                data: self.model.bytes(&intent),
            },
            Change::Flush => Op::Flush,
            Change::Discard => Op::Discard(range(0)),
            Change::WriteZeroes => Op::WriteZeroes(range(self.random.random_range(0..2))),
        };
        let layout = self.layout();
        match queue.stage(op, layout) {
            Ok(ticket) => {
                self.report.count(intent.change);
                self.inflight.insert((queue.index(), ticket), intent);
                Ok(())
            }
            Err(error) => {
                self.model.abandon(&intent);
                Err(error)
            }
        }
    }

    fn layout(&mut self) -> Layout {
        if !self.plan.odd_layouts {
            return Layout::INDIRECT;
        }
        Layout {
            indirect: self.random.random_bool(0.8),
            pieces: self.random.random_range(1..=4),
            odd: self.random.random_bool(0.3),
            split_header: self.random.random_bool(0.2),
            joined: self.random.random_bool(0.2),
            shift: if self.random.random_bool(0.2) {
                self.random.random_range(0..512)
            } else {
                0
            },
        }
    }

    fn collect(&mut self, queue: &mut GuestQueue) -> Result<(), GuestError> {
        // Bound: each turn takes an element or skips one, and the ring holds no more than were made available.
        loop {
            match queue.complete() {
                Ok(done) if done.is_empty() => return Ok(()),
                Ok(done) => {
                    done.into_iter()
                        .for_each(|answer| self.judge(queue.index(), answer));
                }
                Err(GuestError::NotOutstanding { queue, head }) => {
                    self.report.find(Finding::repeated(queue, head));
                }
                Err(error) => return Err(error),
            }
        }
    }

    fn judge(&mut self, queue: usize, answer: Done) {
        let Some(intent) = self.inflight.remove(&(queue, answer.ticket)) else {
            self.report
                .find(Finding::repeated(queue, u32::from(answer.ticket.head())));
            return;
        };
        let ok = answer.status == status::OK;
        self.report.answered(ok);
        if ok && answer.used_len != intent.used_len() {
            self.report.find(Finding {
                flaw: Flaw::WrongLength,
                sector: intent.first,
                detail: format!(
                    "{:?} of {} sectors: used length {}, expected {}",
                    intent.change,
                    intent.count,
                    answer.used_len,
                    intent.used_len()
                ),
            });
        }
        if ok && intent.change == Change::Read {
            self.report.verified(intent.count);
            for finding in self.model.verify(&intent, &answer.data) {
                self.report.find(finding);
            }
        }
        self.model.end(&intent, ok);
    }
}
