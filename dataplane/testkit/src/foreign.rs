//! A front end that we did not write: the `virtio-driver` crate, as libblkio uses it, doing verified I/O.
//!
//! It is unlike QEMU in ways that matter: guest addresses are its own process addresses, every region comes by ADD_MEM_REG,
//! nothing is indirect, and the memory of its rings is a memory file that cannot be sealed. A back end that insists on
//! sealed memory refuses it.
#![allow(unsafe_code)] // Its submit calls take raw pointers into memory registered before.

use crate::frontend::{GuestError, feature, memory::Region, wait_fd};
use crate::workload::{Change, Intent, Model, Report};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};
use virtio_driver::{EventFd, QueueNotifier, VhostUser, VirtioBlkQueue, VirtioBlkTransport};

/// What the foreign front end does.
#[derive(Clone, Copy, Debug)]
pub struct ForeignPlan {
    /// Queues used.
    pub queues: usize,
    /// Descriptors per queue; a third of it is the depth, as each request takes three.
    pub queue_size: u16,
    /// Requests over all queues, before everything is read back.
    pub requests: u64,
    /// Seed of the requests.
    pub seed: u64,
    /// How long to wait for the next answer.
    pub patience: Duration,
}

impl Default for ForeignPlan {
    fn default() -> ForeignPlan {
        ForeignPlan {
            queues: 2,
            queue_size: 128,
            requests: 2000,
            seed: 1,
            patience: Duration::from_secs(10),
        }
    }
}

/// Longest request in sectors.
const SECTORS_MAX: u64 = 16;

/// Writes, zeroes and reads at random on `sectors` (which read as zeros now), verifies, and reads everything back.
///
/// # Errors
/// If the socket, the handshake or the driver fails, or no answer comes in time. Wrong data is in the report.
pub fn verified_io(
    path: impl AsRef<Path>,
    sectors: std::ops::Range<u64>,
    plan: ForeignPlan,
) -> Result<Report, GuestError> {
    let path = path.as_ref().to_string_lossy();
    let features = feature::VERSION_1 | feature::EVENT_IDX | feature::MQ | feature::FLUSH;
    let features = features | feature::WRITE_ZEROES;
    let transport =
        VhostUser::new(&path, features).map_err(GuestError::io("virtio-driver's handshake"))?;
    // Declared before the queues, which live in its memory, and so dropped after them.
    let mut transport: Box<VirtioBlkTransport> = Box::new(transport);
    let depth = plan.queue_size / 3;
    let slots = plan.queues as u64 * u64::from(depth);
    let buffers = Arc::new(Region::new(0, slots * SECTORS_MAX * 512, true)?);
    let info = buffers.info();
    let (addr, len) = (info.userspace_addr, info.memory_size);
    let [addr, len] = [addr, len].map(|n| usize::try_from(n).expect("it is mapped here"));
    transport
        .map_mem_region(addr, len, info.mmap_handle, 0)
        .map_err(GuestError::io("virtio-driver's ADD_MEM_REG"))?;
    let queues = VirtioBlkQueue::setup_queues(&mut *transport, plan.queues, plan.queue_size)
        .map_err(GuestError::io("virtio-driver's queue setup"))?;
    let lanes = queues.into_iter().enumerate().map(|(index, queue)| {
        let first = index * usize::from(depth);
        Lane {
            queue,
            notifier: transport.get_submission_notifier(index),
            call: transport.get_completion_fd(index),
            free: (first..first + usize::from(depth)).collect(),
            depth: usize::from(depth),
        }
    });
    let mut foreign = Foreign {
        lanes: lanes.collect(),
        buffers,
        model: Model::new(0xf0e1, sectors),
        random: StdRng::seed_from_u64(plan.seed),
        report: Report::default(),
        patience: plan.patience,
    };
    foreign.run(plan.requests)?;
    foreign.audit()?;
    Ok(foreign.report)
}

/// One queue of the foreign driver; a request's context is its buffer and what it does.
struct Lane<'a> {
    queue: VirtioBlkQueue<'a, (usize, Intent)>,
    notifier: Box<dyn QueueNotifier>,
    call: Arc<EventFd>,
    /// Buffers not in use.
    free: Vec<usize>,
    depth: usize,
}

struct Foreign<'a> {
    lanes: Vec<Lane<'a>>,
    buffers: Arc<Region>,
    model: Model,
    random: StdRng,
    report: Report,
    patience: Duration,
}

impl Foreign<'_> {
    fn run(&mut self, requests: u64) -> Result<(), GuestError> {
        let mut left = requests;
        while left > 0 {
            for lane in 0..self.lanes.len() {
                // Bound: the lane's buffers.
                while left > 0 && !self.lanes[lane].free.is_empty() {
                    let Some(intent) = self.invent() else {
                        break;
                    };
                    self.submit(lane, intent)?;
                    left -= 1;
                }
                self.notify(lane)?;
            }
            for lane in 0..self.lanes.len() {
                self.collect(lane)?;
            }
        }
        self.drain()
    }

    fn audit(&mut self) -> Result<(), GuestError> {
        let sectors = self.model.sectors();
        for first in sectors
            .clone()
            .step_by(usize::try_from(SECTORS_MAX).expect("it is 16"))
        {
            let count = SECTORS_MAX.min(sectors.end - first);
            let intent = self.model.begin(Change::Read, first, count);
            self.submit(0, intent.expect("nothing is in flight"))?;
            self.notify(0)?;
            if self.lanes[0].free.is_empty() {
                self.drain()?;
            }
        }
        self.drain()
    }

    fn drain(&mut self) -> Result<(), GuestError> {
        for lane in 0..self.lanes.len() {
            while self.lanes[lane].free.len() < self.lanes[lane].depth {
                self.collect(lane)?;
            }
        }
        Ok(())
    }

    fn invent(&mut self) -> Option<Intent> {
        let sectors = self.model.sectors();
        let change = match self.random.random_range(0..20) {
            0 => Change::Flush,
            1 => Change::WriteZeroes,
            2..=10 => Change::Write,
            _ => Change::Read,
        };
        // Bound: 16 tries; more than that, and most sectors are busy.
        (0..16).find_map(|_| {
            let count = self.random.random_range(1..=SECTORS_MAX);
            let first = self
                .random
                .random_range(sectors.start..=sectors.end - count);
            self.model.begin(change, first, count)
        })
    }

    fn submit(&mut self, lane: usize, intent: Intent) -> Result<(), GuestError> {
        let Lane { queue, free, .. } = &mut self.lanes[lane];
        let slot = free.pop().expect("the caller saw a free buffer");
        let (offset, bytes) = (intent.first * 512, intent.count * 512);
        let len = usize::try_from(bytes).expect("a request is short");
        let context = (slot, intent);
        let submitted = match intent.change {
            Change::Flush => queue.flush(context),
            Change::WriteZeroes | Change::Discard => {
                queue.write_zeroes(offset, bytes, true, context)
            }
            Change::Write => {
                self.buffers
                    .write(slot * BUFFER, &self.model.bytes(&intent));
                let from = self.buffers.at(slot * BUFFER, len);
                // SAFETY: the buffer is in registered memory, which `self` keeps mapped, and is this request's alone until
                // its slot is free again.
                unsafe { queue.write_raw(offset, from, len, context) }
            }
            Change::Read => {
                let into = self.buffers.at(slot * BUFFER, len);
                // SAFETY: as above.
                unsafe { queue.read_raw(offset, into, len, context) }
            }
        };
        submitted.map_err(GuestError::io("virtio-driver's submit"))?;
        self.report.count(intent.change);
        Ok(())
    }

    fn notify(&mut self, lane: usize) -> Result<(), GuestError> {
        let Lane {
            queue, notifier, ..
        } = &mut self.lanes[lane];
        if queue.avail_notif_needed() {
            notifier
                .notify()
                .map_err(GuestError::io("virtio-driver's kick"))?;
        }
        Ok(())
    }

    /// Waits for an answer, if one is due, and takes all there are.
    fn collect(&mut self, lane: usize) -> Result<(), GuestError> {
        let Lane {
            queue,
            call,
            free,
            depth,
            ..
        } = &mut self.lanes[lane];
        if free.len() == *depth {
            return Ok(());
        }
        queue.set_used_notif_enabled(true);
        if !queue.completions().has_next() {
            if !wait_fd(&**call, Instant::now() + self.patience)? {
                let what = format!("answer on virtio-driver's queue {lane}");
                return Err(GuestError::Timeout {
                    what,
                    after: self.patience,
                });
            }
            call.read()
                .map_err(GuestError::io("read of virtio-driver's eventfd"))?;
        }
        queue.set_used_notif_enabled(false);
        for done in queue.completions() {
            let ((slot, intent), ok) = (done.context, done.ret == 0);
            free.push(slot);
            self.report.answered(ok);
            if ok && intent.change == Change::Read {
                let mut data = vec![0; usize::try_from(intent.count * 512).expect("short")];
                self.buffers.read(slot * BUFFER, &mut data);
                self.report.verified(intent.count);
                let findings = self.model.verify(&intent, &data);
                findings
                    .into_iter()
                    .for_each(|finding| self.report.find(finding));
            }
            self.model.end(&intent, ok);
        }
        Ok(())
    }
}

/// Bytes of a buffer: the longest request.
const BUFFER: usize = 16 * 512;
