//! What callers ask of the engine and what it tells them: plain values, no behaviour.

use crate::Limits;
use holdfast_bdev::{BdevError, BlockDevice, DriverKind, Nvme, Uring, UringOptions};
use holdfast_pool::{Extent, Usage};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use uuid::Uuid;

type Open = dyn Fn(&Path) -> Result<Arc<dyn BlockDevice>, BdevError> + Send + Sync;

/// How a pool's device is opened. By default as a file or block device of the host.
#[derive(Clone)]
pub struct Opener(Arc<Open>);

impl Opener {
    /// Opens devices in another way; for tests that need a drive to fail or vanish.
    pub fn new(
        open: impl Fn(&Path) -> Result<Arc<dyn BlockDevice>, BdevError> + Send + Sync + 'static,
    ) -> Opener {
        Opener(Arc::new(open))
    }

    /// NVMe namespaces by their own commands, past the block layer; everything else as by default.
    pub fn with_nvme_passthrough() -> Opener {
        Opener::new(|path| match Nvme::is_at(path) {
            true => Ok(Arc::new(Nvme::open(path, UringOptions::default())?)),
            false => Ok(Arc::new(Uring::open(path, UringOptions::default())?)),
        })
    }

    pub(crate) fn open(&self, path: &Path) -> Result<Arc<dyn BlockDevice>, BdevError> {
        (self.0)(path)
    }
}

impl Default for Opener {
    fn default() -> Opener {
        Opener::new(|path| Ok(Arc::new(Uring::open(path, UringOptions::default())?)))
    }
}

impl std::fmt::Debug for Opener {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Opener")
    }
}

/// How the engine uses the machine.
#[derive(Clone, Debug)]
pub struct EngineConfig {
    /// One reactor is pinned to each of these CPUs. Empty: one reactor for every two cores this process may use, no more
    /// than its CPU quota has time for and at least one, placed by the kernel.
    pub cpus: Vec<usize>,
    /// How reactors reach storage.
    pub driver: DriverKind,
    /// How long a reactor keeps looking at a ring that has run empty before it asks the guest for a kick and sleeps. It
    /// looks only at rings that have mostly filled again within that time. Zero: at none. 100 us by default.
    pub max_spin: Duration,
    /// How devices of pools are opened.
    pub opener: Opener,
}

impl Default for EngineConfig {
    fn default() -> EngineConfig {
        EngineConfig {
            cpus: Vec::new(),
            driver: DriverKind::default(),
            // About the answer of a quick drive, and a few times what it costs both sides to be woken.
            max_spin: Duration::from_micros(100),
            opener: Opener::default(),
        }
    }
}

/// The processors an engine may use, and how many it does.
#[derive(Clone, Debug, PartialEq)]
pub struct Processors {
    /// Reactors, each of which may take one for itself.
    pub reactors: usize,
    /// Those this process may run on.
    pub allowed: usize,
    /// Processor time that control groups leave this process, in processors; none without a quota.
    pub quota: Option<f64>,
    /// How long processors have stood still because a quota was used up; of its control groups, the one that was stopped
    /// most. None if the kernel does not tell.
    pub throttled: Option<Duration>,
}

/// A pool to open.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PoolSpec {
    /// Name of the pool in this engine.
    pub name: String,
    /// Regular file or block device.
    pub path: PathBuf,
    /// If the path does not exist: make a sparse file of this many bytes there.
    pub create_bytes: Option<u64>,
    /// Take the device although it holds something that is not a pool. Its content is lost.
    pub force: bool,
    /// The pool that must be on the device. With it, nothing is ever formatted.
    pub expect_uuid: Option<Uuid>,
    /// What the device is known by; recorded when the pool is made, and checked ever after.
    pub identity: String,
}

/// An open pool.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PoolInfo {
    /// Name of the pool in this engine.
    pub name: String,
    /// The pool's own name, from its superblock.
    pub uuid: Uuid,
    /// What the device was known by when the pool was made.
    pub identity: String,
    /// File or device behind it, or where it was last.
    pub path: PathBuf,
    /// How its space is used; as last seen if the drive is lost.
    pub usage: Usage,
    /// The drive is lost: volumes wait for it.
    pub lost: bool,
    /// It is lost because somebody asked for it, and returns only when somebody asks again.
    pub removed: bool,
}

/// A volume on a pool.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VolumeInfo {
    /// The id it was created under.
    pub id: String,
    /// Size in bytes, a multiple of 1 MiB.
    pub size_bytes: u64,
    /// Where it lies on the pool's device, in volume order.
    pub extents: Vec<Extent>,
}

impl From<holdfast_pool::Volume> for VolumeInfo {
    fn from(volume: holdfast_pool::Volume) -> VolumeInfo {
        VolumeInfo {
            id: volume.id,
            size_bytes: volume.size_bytes,
            extents: volume.extents,
        }
    }
}

/// What a guest sees when the drive behind its volume is lost.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OnDeviceLoss {
    /// Requests wait this long for the same drive to return, then fail.
    Hold(Duration),
    /// Requests fail at once.
    Fail,
}

impl Default for OnDeviceLoss {
    fn default() -> OnDeviceLoss {
        OnDeviceLoss::Hold(Duration::from_secs(60))
    }
}

/// What an export serves.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Source {
    /// A whole device, by the name it was added under.
    Device(String),
    /// A volume of a pool.
    Volume {
        /// Name of the pool.
        pool: String,
        /// Id of the volume.
        id: String,
    },
}

/// A volume or device to be served on a socket.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ExportSpec {
    /// Name of the export in this engine.
    pub name: String,
    /// What is served.
    pub source: Source,
    /// Where the socket appears; at most 107 bytes.
    pub socket: PathBuf,
    /// Most queues a front end may use.
    pub queues: u16,
    /// The guest may not write.
    pub read_only: bool,
    /// What the guest sees when the drive is lost. Counts for volumes; a device added by name is never lost.
    pub on_device_loss: OnDeviceLoss,
    /// What the guest may use at most. Changed live by [`Engine::set_limits`](crate::Engine::set_limits), or by the same
    /// export again with other limits.
    pub limits: Option<Limits>,
    /// What GET_ID answers; at most 20 bytes, the rest is cut.
    pub serial: String,
    /// Owner of the socket, user and group id; none leaves it to this process.
    pub owner: Option<(u32, u32)>,
    /// Mode of the socket.
    pub mode: u32,
}

impl ExportSpec {
    /// An export with the usual settings: 16 queues, writable, held for 60 seconds, its name as serial,
    /// mode 0660.
    pub fn new(name: &str, source: Source, socket: impl Into<PathBuf>) -> ExportSpec {
        ExportSpec {
            name: name.to_owned(),
            source,
            socket: socket.into(),
            queues: 16,
            read_only: false,
            on_device_loss: OnDeviceLoss::default(),
            limits: None,
            serial: name.to_owned(),
            owner: None,
            mode: 0o660,
        }
    }
}

/// An export as it is now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ExportInfo {
    /// Name of the export.
    pub name: String,
    /// What is served.
    pub source: Source,
    /// Its socket.
    pub socket: PathBuf,
    /// Size the guest sees, in bytes.
    pub size_bytes: u64,
    /// A front end is connected.
    pub connected: bool,
    /// Most queues a front end may use.
    pub queues: u16,
    /// What the guest may use at most.
    pub limits: Option<Limits>,
}
