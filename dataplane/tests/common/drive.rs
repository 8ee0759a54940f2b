//! A drive in a file that can be pulled and put back, with an engine that serves volumes from it.

use super::{Bench, eventually, pattern};
use holdfast_bdev::{Effect, ErrorDevice, Fault, Malloc, Uring, UringOptions};
use holdfast_dataplane::{
    Engine, EngineConfig, ExportSpec, OnDeviceLoss, Opener, PoolSpec, Source,
};
use holdfast_testkit::frontend::Guest;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::Duration;

pub const MIB: u64 = 1 << 20;
/// Longer than any test takes.
pub const LONG: OnDeviceLoss = OnDeviceLoss::Hold(Duration::from_secs(600));

/// A drive in a file. Pulled, it fails every request; put back, it is opened anew.
pub struct Drive {
    pub bench: Bench,
    pub path: PathBuf,
    /// What the engine has opened last: pulling it is a fault for all.
    opened: Arc<Mutex<Vec<ErrorDevice>>>,
}

impl Drive {
    pub fn new(name: &str) -> Drive {
        let opened = Arc::new(Mutex::new(Vec::new()));
        let list = Arc::clone(&opened);
        let opener = Opener::new(move |path| {
            let device = ErrorDevice::new(Arc::new(Uring::open(path, UringOptions::default())?));
            list.lock().unwrap().push(device.clone());
            Ok(Arc::new(device))
        });
        let engine = Engine::start(EngineConfig {
            opener,
            ..EngineConfig::default()
        })
        .unwrap();
        let bench = Bench {
            engine,
            dir: tempfile::tempdir().unwrap(),
        };
        bench.serve("bystander", Arc::new(Malloc::new(16 * MIB, 512).unwrap()));
        let path = std::env::current_exe()
            .unwrap()
            .with_file_name(format!("drive-{name}.pool"));
        let _ = std::fs::remove_file(&path);
        let drive = Drive {
            bench,
            path,
            opened,
        };
        drive.engine().open_pool(&drive.spec()).unwrap();
        drive
    }

    pub fn engine(&self) -> &Engine {
        &self.bench.engine
    }

    pub fn spec(&self) -> PoolSpec {
        self.spec_of("pool", self.path.clone())
    }

    fn spec_of(&self, pool: &str, path: PathBuf) -> PoolSpec {
        PoolSpec {
            name: pool.into(),
            path,
            create_bytes: Some(64 * MIB),
            force: false,
            expect_uuid: None,
            identity: "serial 1".into(),
        }
    }

    /// A volume of 8 MiB, exported, with its guest.
    pub fn guest(&self, id: &str, on_device_loss: OnDeviceLoss) -> Guest {
        self.serve("pool", id, 8 * MIB, on_device_loss);
        Guest::builder()
            .queues(2)
            .inflight()
            .connect(self.bench.socket(id))
            .unwrap()
    }

    /// A volume of any pool, exported.
    pub fn serve(&self, pool: &str, id: &str, size_bytes: u64, on_device_loss: OnDeviceLoss) {
        self.engine().create_volume(pool, id, size_bytes).unwrap();
        let source = Source::Volume {
            pool: pool.into(),
            id: id.into(),
        };
        let spec = ExportSpec::new(id, source, self.bench.socket(id));
        self.engine()
            .export(&ExportSpec {
                on_device_loss,
                ..spec
            })
            .unwrap();
    }

    /// Opens pool `second` on a drive of its own; returns the handle on that.
    pub fn second_pool(&self) -> ErrorDevice {
        let path = self.path.with_extension("second");
        let _ = std::fs::remove_file(&path);
        self.engine()
            .open_pool(&self.spec_of("second", path))
            .unwrap();
        self.handle()
    }

    /// Pulls the drive: from now on everything on it fails, and its path leads nowhere.
    pub fn pull(&self) {
        std::fs::rename(&self.path, self.away()).unwrap();
        let device = self.handle();
        device.inject(Fault::new(Effect::Fail(libc::ENODEV)));
    }

    /// A handle on what the engine has open. Dropped soon: it keeps the drive held.
    pub fn handle(&self) -> ErrorDevice {
        self.opened.lock().unwrap().pop().unwrap()
    }

    pub fn put_back(&self) {
        std::fs::rename(self.away(), &self.path).unwrap();
    }

    pub fn away(&self) -> PathBuf {
        self.path.with_extension("away")
    }

    pub fn wait_lost(&self, lost: bool) {
        eventually("the engine has noticed", || {
            self.engine().pool("pool").unwrap().lost == lost
        });
    }

    /// The disk on another device is served as ever.
    pub fn check_bystander(&self) {
        let mut guest = Guest::builder()
            .connect(self.bench.socket("bystander"))
            .unwrap();
        guest.queue(0).write(0, &pattern(1, 4096)).unwrap();
        assert_eq!(guest.queue(0).read(0, 4096).unwrap(), pattern(1, 4096));
    }
}

impl Drop for Drive {
    fn drop(&mut self) {
        for path in [
            &self.path,
            &self.away(),
            &self.path.with_extension("second"),
        ] {
            let _ = std::fs::remove_file(path);
        }
    }
}
