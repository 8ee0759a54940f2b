//! A drive that is pulled under load and comes back, or is let go and taken back by command.

use crate::{Outcome, Programs, Rounds};
use anyhow::{Context, ensure};
use holdfast_bdev::{BlockDevice, Effect, ErrorDevice, Fault, Malloc, Uring, UringOptions};
use holdfast_dataplane::{
    Engine, EngineConfig, ExportSpec, OnDeviceLoss, Opener, PoolSpec, Source,
};
use holdfast_testkit::frontend::Guest;
use holdfast_testkit::workload::{Plan, Workload};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

const MIB: u64 = 1 << 20;
const SIZE: u64 = 8 * MIB;
const POOL: &str = "pool";
const DEADLINE: Duration = Duration::from_secs(20);
/// ENODEV, as a drive that is gone answers.
const GONE: i32 = 19;

/// Pulls and returns a drive `rounds.times` times.
pub fn run(rounds: &Rounds, programs: &Programs) -> Outcome {
    rounds.run(|seed, times| {
        let mut slot = Slot::new(programs)?;
        let mut random = StdRng::seed_from_u64(seed);
        for _ in 0..times {
            slot.cycle(&mut random)?;
        }
        slot.finish(times)
    })
}

/// An engine with a drive in a slot, a guest on a volume of it, and a bystander on another device.
struct Slot {
    engine: Engine,
    /// What the engine opened last: to fail it is to pull the drive.
    opened: Arc<Mutex<Option<ErrorDevice>>>,
    path: PathBuf,
    guest: Guest,
    load: Workload,
    bystander: Guest,
    bystander_load: Workload,
    _sockets: tempfile::TempDir,
    _disk: tempfile::TempDir,
}

impl Slot {
    fn new(programs: &Programs) -> anyhow::Result<Slot> {
        let (sockets, disk) = (tempfile::tempdir()?, programs.disk_folder()?);
        let opened = Arc::new(Mutex::new(None));
        let engine = Engine::start(EngineConfig {
            opener: opener(&opened),
            ..EngineConfig::default()
        })?;
        let path = disk.path().join("drive");
        engine.open_pool(&PoolSpec {
            name: POOL.into(),
            path: path.clone(),
            create_bytes: Some(64 * MIB),
            force: false,
            expect_uuid: None,
            identity: "serial 1".into(),
        })?;
        engine.create_volume(POOL, "a", SIZE)?;
        engine.add_device("memory", Arc::new(Malloc::new(SIZE, 512)?))?;
        let volume = Source::Volume {
            pool: POOL.into(),
            id: "a".into(),
        };
        let guest = serve(&engine, "a", volume, sockets.path())?;
        let memory = Source::Device("memory".into());
        let bystander = serve(&engine, "memory", memory, sockets.path())?;
        Ok(Slot {
            engine,
            opened,
            path,
            guest,
            load: Workload::new(Plan::default(), 1, 0..SIZE / 512),
            bystander,
            bystander_load: Workload::new(Plan::default(), 2, 0..SIZE / 512),
            _sockets: sockets,
            _disk: disk,
        })
    }

    fn cycle(&mut self, random: &mut StdRng) -> anyhow::Result<()> {
        self.load
            .run(&mut self.guest, random.random_range(1..120))?;
        self.load.fill(self.guest.queues(), 64)?;
        let by_command = random.random_bool(0.5);
        let away = self
            .path
            .with_extension(format!("away-{}", random.random_range(0..9)));
        match by_command {
            true => self.let_go(random)?,
            false => self.pull(&away)?,
        }
        self.meanwhile(random)?;
        match by_command {
            true => self.take_back(&away, random)?,
            false => std::fs::rename(&away, &self.path)?,
        }
        self.load.drain(self.guest.queues())?;
        self.wait_back()
    }

    /// From now on everything on it fails, and its path leads nowhere.
    fn pull(&self, away: &Path) -> anyhow::Result<()> {
        std::fs::rename(&self.path, away)?;
        self.device()?.inject(Fault::new(Effect::Fail(GONE)));
        Ok(())
    }

    fn let_go(&self, random: &mut StdRng) -> anyhow::Result<()> {
        drop(self.device()?);
        for _ in 0..random.random_range(1..3) {
            self.engine.remove_pool_device(POOL)?;
        }
        Ok(())
    }

    /// Under the same name, or under another one.
    fn take_back(&mut self, other: &Path, random: &mut StdRng) -> anyhow::Result<()> {
        if random.random_bool(0.5) {
            self.engine.add_pool_device(POOL, None)?;
            return Ok(());
        }
        std::fs::rename(&self.path, other)?;
        self.path = other.to_owned();
        self.engine.add_pool_device(POOL, Some(other))?;
        Ok(())
    }

    /// What happens while the drive is gone: more requests, a reboot of the machine, a stop; and the bystander lives on.
    fn meanwhile(&mut self, random: &mut StdRng) -> anyhow::Result<()> {
        self.load.fill(self.guest.queues(), 64)?;
        match random.random_range(0..4) {
            0 => {
                self.guest.disconnect();
                self.guest.reconnect()?;
            }
            1 => {
                let queue = random.random_range(0..2);
                self.guest.stop_queue(queue)?;
                self.guest.start_queue(queue)?;
            }
            _ => {}
        }
        let capacity = self.guest.config()?.capacity_sectors;
        ensure!(
            capacity == SIZE / 512,
            "a lost disk said it has {capacity} sectors"
        );
        Ok(self.bystander_load.run(&mut self.bystander, 50)?)
    }

    fn wait_back(&self) -> anyhow::Result<()> {
        let until = Instant::now() + DEADLINE;
        while self.engine.pool(POOL)?.lost {
            ensure!(
                Instant::now() < until,
                "the drive is there and the pool is lost"
            );
            std::thread::sleep(Duration::from_millis(1));
        }
        Ok(())
    }

    /// The device that the engine has open. Soon dropped: it keeps the drive held.
    fn device(&self) -> anyhow::Result<ErrorDevice> {
        let mut opened = self.opened.lock().unwrap_or_else(PoisonError::into_inner);
        opened.take().context("the engine has a drive open")
    }

    fn finish(mut self, times: u64) -> anyhow::Result<Outcome> {
        self.load.audit(&mut self.guest)?;
        self.bystander_load.audit(&mut self.bystander)?;
        let mut outcome = Outcome {
            times,
            ..Outcome::default()
        };
        for load in [&self.load, &self.bystander_load] {
            ensure!(load.report().is_clean(), "{}", load.report());
            outcome.add_report(load.report());
        }
        drop((self.guest, self.bystander));
        let left = self.engine.stop();
        ensure!(left.is_empty(), "exports that did not end: {left:?}");
        Ok(outcome)
    }
}

fn opener(opened: &Arc<Mutex<Option<ErrorDevice>>>) -> Opener {
    let opened = Arc::clone(opened);
    Opener::new(move |path| {
        let device = ErrorDevice::new(Arc::new(Uring::open(path, UringOptions::default())?));
        *opened.lock().unwrap_or_else(PoisonError::into_inner) = Some(device.clone());
        Ok(Arc::new(device) as Arc<dyn BlockDevice>)
    })
}

fn serve(engine: &Engine, name: &str, source: Source, dir: &Path) -> anyhow::Result<Guest> {
    let socket = dir.join(format!("{name}.sock"));
    engine.export(&ExportSpec {
        on_device_loss: OnDeviceLoss::Hold(10 * DEADLINE),
        ..ExportSpec::new(name, source, &socket)
    })?;
    Ok(Guest::builder().queues(2).inflight().connect(socket)?)
}
