//! Rows R01 to R07: a back end dies and another takes over the rings. The first engine dies by a device that freezes its
//! reactor in the middle of a request: it never touches ring, region or kick again, which is all a killed process does.

use crate::common::drive::{Drive, MIB};
use crate::common::{Bench, eventually, pattern};
use crate::{all_ok, malloc, write};
use holdfast_bdev::{
    self as bdev, BdevError, BlockDevice, Driver, Effect, ErrorDevice, Fault, FaultOp, Info, Io,
    IoChannel, IoStatus, Uring, UringOptions,
};
use holdfast_dataplane::{Engine, EngineConfig, EngineError, ExportSpec, Opener, Source};
use holdfast_testkit::frontend::{Guest, Layout, Op};
use std::os::unix::fs::FileExt;
use std::sync::{Arc, Condvar, Mutex, mpsc};

/// A device that hangs on request, and that freezes whoever submits a flush while the gate is shut.
#[derive(Clone, Debug)]
struct Freezer {
    base: ErrorDevice,
    gate: Arc<(Mutex<Gate>, Condvar)>,
}

#[derive(Debug, Default)]
struct Gate {
    shut: bool,
    frozen: bool,
}

impl Freezer {
    fn new(base: Arc<dyn BlockDevice>) -> Freezer {
        Freezer {
            base: ErrorDevice::new(base),
            gate: Arc::default(),
        }
    }

    fn shut(&self) {
        self.gate.0.lock().unwrap().shut = true;
    }

    fn has_frozen(&self) -> bool {
        self.gate.0.lock().unwrap().frozen
    }

    fn open(&self) {
        self.gate.0.lock().unwrap().shut = false;
        self.gate.1.notify_all();
    }
}

impl BlockDevice for Freezer {
    fn info(&self) -> Info {
        self.base.info()
    }
    fn open_channel(&self, driver: &mut Driver) -> Result<Box<dyn IoChannel>, BdevError> {
        let (gate, channel) = (Arc::clone(&self.gate), self.base.open_channel(driver)?);
        Ok(Box::new(FreezerChannel { gate, channel }))
    }
    fn read_at(&self, offset: u64, buf: &mut [u8]) -> Result<(), BdevError> {
        self.base.read_at(offset, buf)
    }
    fn write_at(&self, offset: u64, buf: &[u8]) -> Result<(), BdevError> {
        self.base.write_at(offset, buf)
    }
    fn write_zeroes_at(&self, offset: u64, len: u64) -> Result<(), BdevError> {
        self.base.write_zeroes_at(offset, len)
    }
    fn flush(&self) -> Result<(), BdevError> {
        self.base.flush()
    }
}

struct FreezerChannel {
    gate: Arc<(Mutex<Gate>, Condvar)>,
    channel: Box<dyn IoChannel>,
}

impl IoChannel for FreezerChannel {
    fn submit(&mut self, driver: &mut Driver, io: Io) {
        if io.op() == bdev::Op::Flush {
            let mut gate = self.gate.0.lock().unwrap();
            gate.frozen = gate.shut;
            drop(self.gate.1.wait_while(gate, |gate| gate.shut).unwrap());
        }
        self.channel.submit(driver, io);
    }
}

/// Two engines on one disk: one that will die, and its heir.
struct Heirs {
    dead: Bench,
    device: Freezer,
    heir: Bench,
}

impl Heirs {
    fn new() -> Heirs {
        let disk = malloc();
        let (dead, heir) = (Bench::empty(), Bench::empty());
        let device = Freezer::new(Arc::clone(&disk) as _);
        dead.serve("disk", Arc::new(device.clone()));
        heir.serve("disk", disk);
        Heirs { dead, device, heir }
    }

    fn guest(&self, queues: usize, queue_size: u16) -> Guest {
        let builder = Guest::builder().queues(queues).queue_size(queue_size);
        builder
            .inflight()
            .connect(self.dead.socket("disk"))
            .unwrap()
    }

    /// Submits a write that hangs; returns its head.
    fn hang(&self, guest: &mut Guest, op: Op) -> u16 {
        let before = self.device.base.hanging();
        let fault = Fault::new(Effect::Hang).on(FaultOp::Write);
        self.device.base.inject(fault.times(1));
        let ticket = guest.queue(0).submit(op, Layout::INDIRECT).unwrap();
        eventually("it hangs", || self.device.base.hanging() == before + 1);
        ticket.head()
    }

    /// The first engine dies in the middle of a flush, whose head is returned, and the guest goes to the heir.
    fn die(&self, guest: &mut Guest) -> u16 {
        self.device.shut();
        let flush = guest.queue(0).submit(Op::Flush, Layout::INDIRECT).unwrap();
        eventually("it is dead", || self.device.has_frozen());
        guest.reconnect_at(self.heir.socket("disk")).unwrap();
        flush.head()
    }
}

impl Drop for Heirs {
    fn drop(&mut self) {
        // Everything has been judged; the first engine may end.
        self.device.base.clear();
        self.device.base.release(IoStatus::Ok);
        self.device.open();
    }
}

/// R01: a region that was never used meets a ring that was, and head 0 is taken when the back end dies.
#[test]
fn spdk_3766_new_region_on_a_used_ring_keeps_head_0() {
    let heirs = Heirs::new();
    let mut guest = heirs.guest(1, 8);
    // Once around, so that head 0 is next.
    for _ in 0..8 {
        guest.queue(0).flush().unwrap();
    }
    // As QEMU does on a guest's reset: the region is new, the ring is not.
    guest.stop_queue(0).unwrap();
    let region = guest.inflight_file().unwrap();
    let len = region.metadata().unwrap().len() as usize;
    region.write_all_at(&vec![0; len], 0).unwrap();
    guest.start_queue(0).unwrap();
    assert_eq!(heirs.hang(&mut guest, write(0, 7)), 0);
    heirs.die(&mut guest);
    assert!(all_ok(&guest.queue(0).drain().unwrap()), "head 0 was lost");
    assert_eq!(guest.queue(0).read(0, 512).unwrap(), pattern(7, 512));
    assert_ne!(guest.queue(0).used_position(), 0);
}

/// R04: several in flight, with answered ones between them, on both sides of an index that wraps over the ring.
#[test]
fn spdk_919e45a9bd_heads_that_are_not_neighbours_come_back() {
    let heirs = Heirs::new();
    let mut guest = heirs.guest(1, 16);
    let mut left = Vec::new();
    for at in 0..12u64 {
        if at % 3 == 0 {
            left.push(heirs.hang(&mut guest, write(at * 512, at as u8)));
        } else {
            guest
                .queue(0)
                .submit(write(at * 512, at as u8), Layout::INDIRECT)
                .unwrap();
            assert!(all_ok(&guest.queue(0).wait().unwrap()));
        }
    }
    assert!(
        left.windows(2).all(|pair| pair[0].abs_diff(pair[1]) > 1),
        "{left:?}"
    );
    left.push(heirs.die(&mut guest));
    let done = guest.queue(0).drain().unwrap();
    let mut again: Vec<u16> = done.iter().map(|answer| answer.ticket.head()).collect();
    again.sort_unstable();
    left.sort_unstable();
    assert_eq!(again, left);
    assert!(all_ok(&done));
    for at in 0..12u64 {
        assert_eq!(
            guest.queue(0).read(at * 512, 512).unwrap(),
            pattern(at as u8, 512)
        );
    }
}

/// R05: the interrupt that a dead back end owed is sent by its successor, on every queue.
#[test]
fn spdk_3150_every_queue_is_interrupted_after_a_restart() {
    let heirs = Heirs::new();
    let mut guest = heirs.guest(4, 64);
    for queue in guest.queues() {
        queue.flush().unwrap();
        queue.take_interrupt();
    }
    // An end in good order: its rings are back, and nobody else takes kicks.
    guest.disconnect();
    assert!(heirs.dead.engine.unexport("disk").unwrap());
    guest.reconnect_at(heirs.heir.socket("disk")).unwrap();
    for queue in guest.queues() {
        assert!(queue.take_interrupt(), "queue {}", queue.index());
        queue.flush().unwrap();
    }
}

/// R07: as long as the drive cannot be opened there is no socket to connect to.
#[test]
fn spdk_dc93bd859b_no_socket_before_the_drive() {
    let (open, wait) = mpsc::channel::<()>();
    let wait = Mutex::new(wait);
    let opener = Opener::new(move |path| {
        let _ = wait.lock().unwrap().recv();
        Ok(Arc::new(Uring::open(path, UringOptions::default())?))
    });
    let prepared = Drive::new("early");
    drop(prepared.handle());
    prepared.engine().create_volume("pool", "a", MIB).unwrap();
    prepared.engine().close_pool("pool").unwrap();
    let config = EngineConfig {
        opener,
        ..EngineConfig::default()
    };
    let bench = Bench {
        engine: Engine::start(config).unwrap(),
        dir: tempfile::tempdir().unwrap(),
    };
    let source = Source::Volume {
        pool: "pool".into(),
        id: "a".into(),
    };
    let spec = ExportSpec::new("a", source, bench.socket("a"));
    std::thread::scope(|scope| {
        let opening = scope.spawn(|| bench.engine.open_pool(&prepared.spec()));
        let error = bench.engine.export(&spec).unwrap_err();
        assert!(matches!(error, EngineError::NotFound { .. }), "{error}");
        assert!(!spec.socket.exists());
        drop(open);
        opening.join().unwrap().unwrap();
    });
    bench.engine.export(&spec).unwrap();
    let mut guest = Guest::builder().connect(&spec.socket).unwrap();
    guest.queue(0).flush().unwrap();
}
