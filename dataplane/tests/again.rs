//! Requests that are done again after a crash or a drive's return keep their order, whatever the device makes of it: the
//! newest write is what a guest reads afterwards.
#![allow(clippy::unwrap_used, clippy::cast_possible_truncation)]

mod common;

use common::{Bench, eventually, pattern};
use holdfast_bdev::{
    self as bdev, BdevError, BlockDevice, Driver, Effect, ErrorDevice, Fault, FaultOp, Info, Io,
    IoChannel, IoStatus, Malloc, Remote,
};
use holdfast_dataplane::{
    Engine, EngineConfig, ExportSpec, OnDeviceLoss, Opener, PoolSpec, Source,
};
use holdfast_testkit::frontend::{Guest, Layout, Op, status};
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

/// A device that keeps writes back while it is told to. A flush, on whatever queue, gives those it has to the device
/// below, the youngest first: of writes that are with it together, the oldest wins.
#[derive(Clone, Debug)]
struct Contrary {
    base: ErrorDevice,
    kept: Arc<Mutex<Kept>>,
}

#[derive(Debug, Default)]
struct Kept {
    /// Further writes are kept back.
    on: bool,
    writes: Vec<(Remote, Io)>,
}

impl Contrary {
    fn keep_back(&self, yes: bool) {
        self.kept.lock().unwrap().on = yes;
    }

    /// The youngest write it has comes back as from a drive that has gone.
    fn fail_youngest(&self) {
        let (remote, io) = self.kept.lock().unwrap().writes.pop().unwrap();
        remote.complete(io.token(), IoStatus::Failed(libc::ENODEV));
    }

    fn kept(&self) -> usize {
        self.kept.lock().unwrap().writes.len()
    }
}

impl BlockDevice for Contrary {
    fn info(&self) -> Info {
        self.base.info()
    }
    fn open_channel(&self, driver: &mut Driver) -> Result<Box<dyn IoChannel>, BdevError> {
        let (device, base) = (self.clone(), self.base.open_channel(driver)?);
        Ok(Box::new(ContraryChannel { device, base }))
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

struct ContraryChannel {
    device: Contrary,
    base: Box<dyn IoChannel>,
}

impl IoChannel for ContraryChannel {
    fn submit(&mut self, driver: &mut Driver, io: Io) {
        let mut kept = self.device.kept.lock().unwrap();
        if kept.on && io.op() == bdev::Op::Write {
            return kept.writes.push((driver.remote(), io));
        }
        if io.op() == bdev::Op::Flush {
            for (_, io) in kept.writes.drain(..).rev() {
                self.base.submit(driver, io);
            }
        }
        drop(kept);
        self.base.submit(driver, io);
    }
}

/// One reactor, and a volume on a contrary drive that can be pulled.
struct Place {
    bench: Bench,
    path: PathBuf,
    opened: Arc<Mutex<Option<Contrary>>>,
    /// Whether a device keeps writes back from its opening on.
    contrary: Arc<AtomicBool>,
}

impl Place {
    fn new() -> Place {
        let drive = Arc::new(Malloc::new(64 << 20, 512).unwrap());
        let opened = Arc::<Mutex<Option<Contrary>>>::default();
        let contrary = Arc::<AtomicBool>::default();
        let (list, from_the_start) = (Arc::clone(&opened), Arc::clone(&contrary));
        let opener = Opener::new(move |_| {
            let device = Contrary {
                base: ErrorDevice::new(Arc::clone(&drive) as _),
                kept: Arc::default(),
            };
            device.keep_back(from_the_start.load(Ordering::Relaxed));
            *list.lock().unwrap() = Some(device.clone());
            Ok(Arc::new(device))
        });
        let engine = Engine::start(EngineConfig {
            cpus: common::allowed_cpus()[..1].to_vec(),
            opener,
            ..EngineConfig::default()
        });
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("drive");
        std::fs::write(&path, "").unwrap();
        let bench = Bench {
            engine: engine.unwrap(),
            dir,
        };
        let place = Place {
            bench,
            path,
            opened,
            contrary,
        };
        place.serve();
        place
    }

    fn serve(&self) {
        let pool = PoolSpec {
            name: "pool".into(),
            path: self.path.clone(),
            create_bytes: None,
            force: false,
            expect_uuid: None,
            identity: "serial 1".into(),
        };
        let engine = &self.bench.engine;
        engine.open_pool(&pool).unwrap();
        let deadline = Instant::now() + Duration::from_secs(20);
        assert_eq!(engine.wait_erased("pool", deadline).unwrap(), 0);
        engine.create_volume("pool", "a", 8 << 20).unwrap();
        let source = Source::Volume {
            pool: "pool".into(),
            id: "a".into(),
        };
        let spec = ExportSpec::new("a", source, self.bench.socket("a"));
        let on_device_loss = OnDeviceLoss::Hold(Duration::from_secs(600));
        let spec = ExportSpec {
            on_device_loss,
            ..spec
        };
        engine.export(&spec).unwrap();
    }

    fn guest(&self) -> Guest {
        let builder = Guest::builder().queues(2).inflight();
        builder.connect(self.bench.socket("a")).unwrap()
    }

    /// The drive as it was opened last.
    fn device(&self) -> Contrary {
        self.opened.lock().unwrap().clone().unwrap()
    }

    fn pull(&self) {
        let away = self.path.with_extension("away");
        std::fs::rename(&self.path, away).unwrap();
        let gone = Fault::new(Effect::Fail(libc::ENODEV));
        self.device().base.inject(gone);
        let taken = self.opened.lock().unwrap().take();
        drop(taken);
    }

    fn put_back(&self) {
        let away = self.path.with_extension("away");
        std::fs::rename(away, &self.path).unwrap();
    }

    fn wait_lost(&self, lost: bool) {
        eventually("the engine has noticed", || {
            self.bench.engine.pool("pool").unwrap().lost == lost
        });
    }

    fn held(&self) -> u64 {
        self.bench.engine.stats()[0].held
    }

    /// The front end has died with these writes taken, in this order, and none of them done.
    fn die_with(&self, writes: &[(u64, u8)]) -> Guest {
        let mut guest = self.guest();
        self.pull();
        submit(&mut guest, writes);
        self.wait_lost(true);
        eventually("all wait", || self.held() == writes.len() as u64);
        guest.disconnect();
        self.put_back();
        self.wait_lost(false);
        guest
    }
}

/// A write of a pattern to a block of 512 bytes and the one after it, so that neighbours overlap.
fn submit(guest: &mut Guest, writes: &[(u64, u8)]) {
    for (block, seed) in writes {
        let op = Op::Write {
            offset: block * 512,
            data: pattern(*seed, 1024),
        };
        guest.queue(0).submit(op, Layout::DIRECT).unwrap();
    }
}

/// Lets the device do what it has, again and again, until queue 0 has all its answers; returns their statuses.
fn push_through(guest: &mut Guest) -> Vec<u8> {
    let mut answers = Vec::new();
    eventually("all are answered", || {
        guest.queue(1).submit(Op::Flush, Layout::DIRECT).unwrap();
        guest.queue(1).drain().unwrap();
        answers.extend(guest.queue(0).complete().unwrap());
        guest.queue(0).outstanding() == 0
    });
    answers.iter().map(|answer| answer.status).collect()
}

/// What the blocks hold after these writes, one after the other.
#[track_caller]
fn assert_newest(guest: &mut Guest, writes: &[(u64, u8)]) {
    let mut wanted = vec![0; 64 * 512];
    for (block, seed) in writes {
        let at = *block as usize * 512;
        wanted[at..at + 1024].copy_from_slice(&pattern(*seed, 1024));
    }
    let seen = guest.queue(0).read(0, wanted.len() as u32).unwrap();
    for (block, _) in writes {
        let at = *block as usize * 512;
        assert!(
            seen[at..at + 1024] == wanted[at..at + 1024],
            "block {block} is not what was written last"
        );
    }
}

/// Blocks 0 to 3 in chains of overlaps, and others in between that overlap nothing.
const TANGLE: &[(u64, u8)] = &[
    (0, 1),
    (10, 2),
    (1, 3),
    (0, 4),
    (20, 5),
    (2, 6),
    (1, 7),
    (10, 8),
    (0, 9),
];

#[test]
fn writes_of_a_dead_owner_that_overlap_end_with_the_newest() {
    let place = Place::new();
    let mut guest = place.die_with(TANGLE);
    place.device().keep_back(true);
    guest.reconnect().unwrap();
    eventually("the first ones are with the device", || {
        place.device().kept() >= 2
    });
    assert!(push_through(&mut guest).iter().all(|s| *s == status::OK));
    place.device().keep_back(false);
    assert_newest(&mut guest, TANGLE);
}

#[test]
fn writes_that_waited_for_their_drive_end_with_the_newest() {
    let place = Place::new();
    let mut guest = place.guest();
    place.pull();
    submit(&mut guest, TANGLE);
    place.wait_lost(true);
    eventually("all wait", || place.held() == TANGLE.len() as u64);
    place.contrary.store(true, Ordering::Relaxed);
    place.put_back();
    place.wait_lost(false);
    assert!(push_through(&mut guest).iter().all(|s| *s == status::OK));
    assert_newest(&mut guest, TANGLE);
}

#[test]
fn new_write_waits_until_the_old_ones_are_through() {
    let place = Place::new();
    let mut guest = place.die_with(&[(0, 1), (5, 2)]);
    place.device().keep_back(true);
    // The guest goes on writing while nobody is there.
    submit(&mut guest, &[(0, 3), (5, 4), (30, 5)]);
    guest.reconnect().unwrap();
    eventually("the old ones are with the device", || {
        place.device().kept() >= 2
    });
    guest.queue(1).read(0, 512).unwrap();
    assert_eq!(place.device().kept(), 2, "a new one as well");
    assert!(push_through(&mut guest).iter().all(|s| *s == status::OK));
    place.device().keep_back(false);
    assert_newest(&mut guest, &[(0, 3), (5, 4), (30, 5)]);
}

#[test]
fn drive_lost_again_in_the_middle_loses_no_order() {
    let place = Place::new();
    let mut guest = place.die_with(TANGLE);
    let first = place.device();
    first.keep_back(true);
    guest.reconnect().unwrap();
    eventually("the first ones are with the device", || first.kept() >= 2);
    submit(&mut guest, &[(2, 10)]);
    place.pull();
    // The second of them comes back first, and everything behind it waits with it. The first comes back last.
    first.fail_youngest();
    place.wait_lost(true);
    eventually("all but one wait", || {
        place.held() == TANGLE.len() as u64 - 1
    });
    first.fail_youngest();
    eventually("all wait", || place.held() == TANGLE.len() as u64 + 1);
    drop(first);
    place.contrary.store(true, Ordering::Relaxed);
    place.put_back();
    place.wait_lost(false);
    assert!(push_through(&mut guest).iter().all(|s| *s == status::OK));
    let mut all = TANGLE.to_vec();
    all.push((2, 10));
    assert_newest(&mut guest, &all);
}

#[test]
fn old_write_that_fails_for_good_fails_alone() {
    let place = Place::new();
    let mut guest = place.die_with(&[(0, 1), (1, 2), (0, 3)]);
    let bad = Fault::new(Effect::Fail(libc::EIO)).on(FaultOp::Write);
    place.device().base.inject(bad.times(1));
    guest.reconnect().unwrap();
    let answers = guest.queue(0).drain().unwrap();
    let errors = answers.iter().filter(|a| a.status == status::IOERR);
    assert_eq!((errors.count(), answers.len()), (1, 3));
    assert_newest(&mut guest, &[(1, 2), (0, 3)]);
}

#[test]
fn stop_in_the_middle_ends_with_the_newest() {
    let place = Place::new();
    let mut guest = place.die_with(TANGLE);
    let device = place.device();
    device.keep_back(true);
    guest.reconnect().unwrap();
    eventually("the first ones are with the device", || device.kept() >= 2);
    device.keep_back(false);
    guest.queue(1).submit(Op::Flush, Layout::DIRECT).unwrap();
    guest.stop_queue(0).unwrap();
    guest.start_queue(0).unwrap();
    assert!(push_through(&mut guest).iter().all(|s| *s == status::OK));
    assert_newest(&mut guest, TANGLE);
}

#[test]
fn stop_that_meets_a_lost_drive_leaves_all_of_it_in_order() {
    let place = Place::new();
    let mut guest = place.die_with(TANGLE);
    let device = place.device();
    device.keep_back(true);
    guest.reconnect().unwrap();
    eventually("the first ones are with the device", || device.kept() >= 2);
    let mut queues = guest.take_queues();
    std::thread::scope(|scope| {
        let stop = scope.spawn(|| guest.stop_queue(0));
        eventually("the stop waits", || {
            place.bench.engine.stats()[0].stop_waits
        });
        place.pull();
        queues[1].submit(Op::Flush, Layout::DIRECT).unwrap();
        stop.join().unwrap().unwrap();
    });
    drop(device);
    guest.put_queues(queues);
    guest.start_queue(0).unwrap();
    place.contrary.store(true, Ordering::Relaxed);
    place.put_back();
    place.wait_lost(false);
    assert!(push_through(&mut guest).iter().all(|s| *s == status::OK));
    assert_newest(&mut guest, TANGLE);
}

#[test]
fn memory_that_changes_in_the_middle_is_let_go_of() {
    let place = Place::new();
    let mut guest = place.die_with(TANGLE);
    let device = place.device();
    device.keep_back(true);
    guest.reconnect().unwrap();
    eventually("the first ones are with the device", || device.kept() >= 2);
    device.keep_back(false);
    // The session waits until nothing uses the old view, and that is up to the device alone.
    guest.queue(1).submit(Op::Flush, Layout::DIRECT).unwrap();
    let region = guest.add_region(1 << 20).unwrap();
    guest.remove_region(region).unwrap();
    assert!(push_through(&mut guest).iter().all(|s| *s == status::OK));
    assert_newest(&mut guest, TANGLE);
}
