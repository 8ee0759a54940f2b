//! The account of an export: counters that its rings write while they serve, and what outlives its sessions. Kept by the
//! export, so that figures survive front ends that come and go and rings that move between reactors.
//!
//! A queue's counters have one writer, the reactor that serves it; a successor gets the ring after its predecessor has let
//! go. So they are added to by a load and a store, which cost what plain memory costs, and read by anybody.

use crate::clock::now_ns;
use crate::events::{ExportChange, Herald};
use crate::limits::Meter;
use crate::stats::{ExportStats, Latency, OpStats};
use holdfast_ring::blk::{Kind, Request, Status};
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::atomic::{AtomicU32, AtomicU64};

/// A guest's errors are told of, in log and events, no more often than this.
const ERROR_PAUSE_NS: u64 = 1_000_000_000;

/// The account of one export.
#[derive(Debug)]
pub(crate) struct Account {
    export: Arc<str>,
    herald: Arc<Herald>,
    tallies: Box<[Tally]>,
    meter: Meter,
    /// Front ends that have connected.
    sessions: AtomicU64,
    /// Queues whose stop takes long.
    slow_stops: AtomicU32,
    /// From when on the next error is told of.
    tell_errors_at_ns: AtomicU64,
}

/// The counters of one queue, apart from those of the next.
#[derive(Debug, Default)]
#[repr(align(128))]
pub(crate) struct Tally {
    ops: [OpTally; 4],
    rejected: AtomicU64,
    replayed: AtomicU64,
    inflight: AtomicU64,
    held: AtomicU64,
}

#[derive(Debug, Default)]
struct OpTally {
    buckets: [AtomicU64; Latency::BUCKETS],
    sum_ns: AtomicU64,
    bytes: AtomicU64,
    errors: AtomicU64,
}

impl Account {
    pub(crate) fn new(export: &str, queues: u16, herald: Arc<Herald>) -> Account {
        Account {
            export: export.into(),
            herald,
            tallies: (0..queues).map(|_| Tally::default()).collect(),
            meter: Meter::default(),
            sessions: AtomicU64::new(0),
            slow_stops: AtomicU32::new(0),
            tell_errors_at_ns: AtomicU64::new(0),
        }
    }

    /// The counters of a queue, which exists.
    #[inline]
    pub(crate) fn tally(&self, queue: u16) -> &Tally {
        &self.tallies[usize::from(queue)]
    }

    /// Holds the volume to its limits.
    #[inline]
    pub(crate) fn meter(&self) -> &Meter {
        &self.meter
    }

    pub(crate) fn tell(&self, change: ExportChange) {
        self.herald.tell(&self.export, change);
    }

    /// A front end has come.
    pub(crate) fn session_begins(&self) {
        self.sessions.fetch_add(1, Relaxed);
        self.tell(ExportChange::Connected);
    }

    /// Stopping a queue takes long; until [`Account::slow_stop_ended`].
    pub(crate) fn slow_stop(&self) {
        self.slow_stops.fetch_add(1, Relaxed);
        self.tell(ExportChange::StopWaits);
    }

    pub(crate) fn slow_stop_ended(&self) {
        self.slow_stops.fetch_sub(1, Relaxed);
        self.tell(ExportChange::StopEnded);
    }

    /// A guest was given an error by its device. Whatever the guest does then, this speaks once a second.
    #[cold]
    pub(crate) fn error(&self, queue: u16) {
        let now = now_ns();
        let due = |at| (at <= now).then_some(now.saturating_add(ERROR_PAUSE_NS));
        let told = self.tell_errors_at_ns.fetch_update(Relaxed, Relaxed, due);
        if told.is_ok() {
            tracing::warn!(export = %self.export, queue, "Requests of a guest fail; told once a second at most");
            self.tell(ExportChange::IoError);
        }
    }

    /// The figures as they are; `connected` is known to the session only.
    pub(crate) fn stats(&self, connected: bool) -> ExportStats {
        let mut stats = ExportStats {
            export: self.export.as_ref().to_owned(),
            connected,
            reconnects: self.sessions.load(Relaxed).saturating_sub(1),
            stop_waits: self.slow_stops.load(Relaxed) > 0,
            ..ExportStats::default()
        };
        self.tallies
            .iter()
            .for_each(|tally| tally.add_to(&mut stats));
        stats
    }
}

impl Tally {
    /// A request is about to be answered.
    #[inline]
    pub(crate) fn answered(&self, request: &Request, status: Status, latency_ns: u64) {
        let (at, bytes) = match request.kind() {
            Kind::In => (0, request.data_len()),
            Kind::Out => (1, request.data_len()),
            Kind::Flush => (2, 0),
            Kind::Discard | Kind::WriteZeroes { .. } => {
                let ranges = request.ranges().iter();
                (3, ranges.map(|range| range.len_bytes).sum())
            }
            Kind::GetId => return,
            Kind::Rejected(_) => return add(&self.rejected, 1),
        };
        let op = &self.ops[at];
        add(&op.buckets[Latency::bucket_of(latency_ns)], 1);
        add(&op.sum_ns, latency_ns);
        if status == Status::Ok {
            add(&op.bytes, bytes);
        } else {
            add(&op.errors, 1);
        }
    }

    /// A ring has begun with requests of a former owner.
    pub(crate) fn replayed(&self, requests: u64) {
        add(&self.replayed, requests);
    }

    /// What is under way now.
    #[inline]
    pub(crate) fn under_way(&self, inflight: u16, held: usize) {
        self.inflight.store(inflight.into(), Relaxed);
        self.held.store(held as u64, Relaxed);
    }

    fn add_to(&self, stats: &mut ExportStats) {
        stats.rejected += self.rejected.load(Relaxed);
        stats.replayed += self.replayed.load(Relaxed);
        stats.inflight += self.inflight.load(Relaxed);
        stats.held += self.held.load(Relaxed);
        let [reads, writes, flushes, discards] = &self.ops;
        reads.add_to(&mut stats.reads);
        writes.add_to(&mut stats.writes);
        flushes.add_to(&mut stats.flushes);
        discards.add_to(&mut stats.discards);
    }
}

impl OpTally {
    fn add_to(&self, stats: &mut OpStats) {
        for (sum, bucket) in stats.latency.buckets.iter_mut().zip(&self.buckets) {
            let requests = bucket.load(Relaxed);
            *sum += requests;
            stats.ops += requests;
        }
        stats.latency.sum_ns += self.sum_ns.load(Relaxed);
        stats.bytes += self.bytes.load(Relaxed);
        stats.errors += self.errors.load(Relaxed);
    }
}

/// Adds to a counter with one writer.
#[inline]
fn add(counter: &AtomicU64, more: u64) {
    counter.store(counter.load(Relaxed).wrapping_add(more), Relaxed);
}
