//! An engine with one device on one socket, for tests of what a front end meets.
#![allow(dead_code, unreachable_pub, clippy::unwrap_used)]

pub mod drive;

use holdfast_bdev::{BlockDevice, DriverKind, Malloc};
use holdfast_dataplane::{Engine, EngineConfig, ExportSpec, Source};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Size of the device of a [`Bench`].
pub const SIZE: u64 = 64 << 20;

/// An engine that serves.
pub struct Bench {
    pub engine: Engine,
    pub dir: tempfile::TempDir,
}

impl Bench {
    /// Two reactors, nothing exported.
    pub fn empty() -> Bench {
        Bench::with(DriverKind::Auto)
    }

    pub fn with(driver: DriverKind) -> Bench {
        let engine = Engine::start(EngineConfig {
            cpus: allowed_cpus(),
            driver,
            ..EngineConfig::default()
        });
        Bench {
            engine: engine.unwrap(),
            dir: tempfile::tempdir().unwrap(),
        }
    }

    /// A memory device `disk` of [`SIZE`] at `disk.sock`.
    pub fn malloc() -> (Bench, Malloc) {
        let bench = Bench::empty();
        let device = Malloc::new(SIZE, 512).unwrap();
        bench.serve("disk", Arc::new(device.clone()));
        (bench, device)
    }

    pub fn serve(&self, name: &str, device: Arc<dyn BlockDevice>) -> PathBuf {
        self.engine.add_device(name, device).unwrap();
        let spec = self.spec(name);
        self.engine.export(&spec).unwrap().socket
    }

    pub fn spec(&self, name: &str) -> ExportSpec {
        ExportSpec::new(name, Source::Device(name.into()), self.socket(name))
    }

    pub fn socket(&self, name: &str) -> PathBuf {
        self.dir.path().join(format!("{name}.sock"))
    }
}

impl Drop for Bench {
    fn drop(&mut self) {
        let left = self.engine.stop();
        if !std::thread::panicking() {
            assert!(left.is_empty(), "exports that did not end: {left:?}");
        }
    }
}

pub fn allowed_cpus() -> Vec<usize> {
    let set = rustix::thread::sched_getaffinity(None).unwrap();
    (0..rustix::thread::CpuSet::MAX_CPU)
        .filter(|cpu| set.is_set(*cpu))
        .take(2)
        .collect()
}

/// Waits until something holds.
pub fn eventually(what: &str, mut holds: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(10);
    while !holds() {
        assert!(Instant::now() < deadline, "still not: {what}");
        std::thread::sleep(Duration::from_millis(2));
    }
}

pub fn pattern(seed: u8, len: usize) -> Vec<u8> {
    (0..=250)
        .cycle()
        .take(len)
        .map(|byte: u8| byte ^ seed)
        .collect()
}
