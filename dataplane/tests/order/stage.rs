//! A drive that turns the order of writes around, a volume on it, and writes that overlap.

use crate::common::{Bench, allowed_cpus, eventually, pattern};
use holdfast_bdev::{
    self as bdev, BdevError, BlockDevice, Driver, Effect, ErrorDevice, Fault, Info, Io, IoChannel,
    IoStatus, Malloc, Remote,
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
pub(crate) struct Contrary {
    pub(crate) base: ErrorDevice,
    kept: Arc<Mutex<Kept>>,
}

#[derive(Debug, Default)]
struct Kept {
    /// Further writes are kept back.
    on: bool,
    writes: Vec<(Remote, Io)>,
}

impl Contrary {
    pub(crate) fn keep_back(&self, yes: bool) {
        self.kept.lock().unwrap().on = yes;
    }

    /// The youngest write it has comes back as from a drive that has gone.
    pub(crate) fn fail_youngest(&self) {
        let (remote, io) = self.kept.lock().unwrap().writes.pop().unwrap();
        remote.complete(io.token(), IoStatus::Failed(libc::ENODEV));
    }

    pub(crate) fn kept(&self) -> usize {
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
pub(crate) struct Place {
    pub(crate) bench: Bench,
    path: PathBuf,
    opened: Arc<Mutex<Option<Contrary>>>,
    /// Whether a device keeps writes back from its opening on.
    contrary: Arc<AtomicBool>,
}

impl Place {
    pub(crate) fn new() -> Place {
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
            cpus: allowed_cpus()[..1].to_vec(),
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

    pub(crate) fn guest(&self) -> Guest {
        let builder = Guest::builder().queues(2).inflight();
        builder.connect(self.bench.socket("a")).unwrap()
    }

    /// The drive as it was opened last.
    pub(crate) fn device(&self) -> Contrary {
        self.opened.lock().unwrap().clone().unwrap()
    }

    pub(crate) fn pull(&self) {
        let away = self.path.with_extension("away");
        std::fs::rename(&self.path, away).unwrap();
        let gone = Fault::new(Effect::Fail(libc::ENODEV));
        self.device().base.inject(gone);
        let taken = self.opened.lock().unwrap().take();
        drop(taken);
    }

    pub(crate) fn put_back(&self) {
        let away = self.path.with_extension("away");
        std::fs::rename(away, &self.path).unwrap();
    }

    /// Back, and from now on its device keeps writes back and turns them around.
    pub(crate) fn put_back_contrary(&self) {
        self.contrary.store(true, Ordering::Relaxed);
        self.put_back();
        self.wait_lost(false);
    }

    /// The device has all writes of the [`TANGLE`] that it may have, and has done none.
    fn wait_entangled(&self) {
        eventually("the first ones are with the device", || {
            self.device().kept() >= FREE
        });
    }

    /// A guest whose [`TANGLE`] is done again by a device that keeps writes back.
    pub(crate) fn entangled_again(&self) -> Guest {
        let mut guest = self.die_with(TANGLE);
        self.device().keep_back(true);
        guest.reconnect().unwrap();
        self.wait_entangled();
        guest
    }

    /// A guest whose [`TANGLE`] is new to a device that keeps writes back.
    pub(crate) fn entangled(&self) -> Guest {
        let mut guest = self.guest();
        self.device().keep_back(true);
        submit(&mut guest, TANGLE);
        self.wait_entangled();
        guest
    }

    pub(crate) fn wait_lost(&self, lost: bool) {
        eventually("the engine has noticed", || {
            self.bench.engine.pool("pool").unwrap().lost == lost
        });
    }

    pub(crate) fn held(&self) -> u64 {
        self.bench.engine.stats()[0].held
    }

    /// The front end has died with these writes taken, in this order, and none of them done.
    pub(crate) fn die_with(&self, writes: &[(u64, u8)]) -> Guest {
        let mut guest = self.guest();
        self.pull();
        submit(&mut guest, writes);
        self.wait_lost(true);
        eventually("all wait", || self.held() == writes.len() as u64);
        self.leave(&mut guest);
        self.put_back();
        self.wait_lost(false);
        guest
    }

    /// The front end goes while the drive is away, and its ring with it: else that might still serve when the drive is back.
    pub(crate) fn leave(&self, guest: &mut Guest) {
        guest.disconnect();
        eventually("its ring holds nothing any more", || self.held() == 0);
    }
}

/// A write of a pattern to a block of 512 bytes and the one after it, so that neighbours overlap.
pub(crate) fn submit(guest: &mut Guest, writes: &[(u64, u8)]) {
    for (block, seed) in writes {
        let op = Op::Write {
            offset: block * 512,
            data: pattern(*seed, 1024),
        };
        guest.queue(0).submit(op, Layout::DIRECT).unwrap();
    }
}

/// Lets the device do what it has, again and again, until queue 0 has all its answers; returns their statuses.
pub(crate) fn push_through(guest: &mut Guest) -> Vec<u8> {
    let mut answers = Vec::new();
    eventually("all are answered", || {
        guest.queue(1).submit(Op::Flush, Layout::DIRECT).unwrap();
        guest.queue(1).drain().unwrap();
        answers.extend(guest.queue(0).complete().unwrap());
        guest.queue(0).outstanding() == 0
    });
    answers.iter().map(|answer| answer.status).collect()
}

/// Lets all be done, without an error, and looks whether the blocks hold what was written last.
#[track_caller]
pub(crate) fn assert_done(guest: &mut Guest, writes: &[(u64, u8)]) {
    let answers = push_through(guest);
    assert!(answers.iter().all(|s| *s == status::OK), "{answers:?}");
    assert_newest(guest, writes);
}

/// What the blocks hold after these writes, one after the other.
#[track_caller]
pub(crate) fn assert_newest(guest: &mut Guest, writes: &[(u64, u8)]) {
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
pub(crate) const TANGLE: &[(u64, u8)] = &[
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

/// How many of them overlap none before them.
pub(crate) const FREE: usize = 2;
