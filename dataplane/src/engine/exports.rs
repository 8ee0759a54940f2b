//! Exports: a volume or device on a socket, used by one front end at a time.

use super::book::{Book, Exported};
use super::pools::extents_of;
use super::{Engine, PATIENCE};
use crate::account::Account;
use crate::reactor::{Disk, Message, Presence};
use crate::session::{Backing, Command, Export};
use crate::{EngineError, ExportInfo, ExportSpec, ExportStats, Limits, Source};
use holdfast_bdev::{BlockDevice, Info, Split};
use holdfast_crash::crash_point;
use holdfast_pool::Pool;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Most queues of one export: a front end names them with 8 bits.
const QUEUES_MAX: u16 = 256;
/// Most data buffers in a request: with header and status they fill the default ring of QEMU and SPDK, 128 descriptors.
const SEG_MAX: u32 = 126;
/// Longest data buffer, in bytes.
const SIZE_MAX: u32 = 1 << 20;
/// Longest discard, in sectors: 1 GiB.
const DISCARD_SECTORS_MAX: u32 = 1 << 21;
/// Most ranges in a discard, as Linux sends them.
const DISCARD_SEG_MAX: u32 = 16;
/// Longest write-zeroes, in sectors: 32 MiB, for it may have to be written out.
const WRITE_ZEROES_SECTORS_MAX: u32 = 1 << 16;

impl Engine {
    /// Serves a volume or device on a socket, which listens when this returns. The same call again finds it.
    ///
    /// # Errors
    /// [`EngineError::NotFound`] for the source; [`EngineError::Busy`] if it is exported under another name;
    /// [`EngineError::AlreadyExists`] if the name serves something else; errors of the socket.
    pub fn export(&self, spec: &ExportSpec) -> Result<ExportInfo, EngineError> {
        check(spec)?;
        let mut book = self.book();
        book.check_open()?;
        if let Some(there) = book.exports.get_mut(&spec.name) {
            check_same(there, spec)?;
            self.limit(there, spec.limits);
            return Ok(there.info());
        }
        book.check_unused(&spec.source)?;
        let source = open_source(&book, &spec.source)?;
        crash_point!("export.opened");
        let info = source.device.info();
        let herald = Arc::clone(&self.inner.herald);
        let account = Arc::new(Account::new(&spec.name, spec.queues, herald));
        account.meter().set(spec.limits);
        let backing = |hang_up| Backing {
            export: spec.name.as_str().into(),
            account: Arc::clone(&account),
            disk: disk_of(&info, spec),
            optimal_io_bytes: info.optimal_io_bytes,
            presence: Presence::Here(source.device),
            suspect: self.suspect(&spec.source),
            hang_up,
            reactors: Arc::clone(&self.inner.reactors),
            queues: spec.queues,
            folder: folder_of(&spec.socket),
        };
        let exported = Exported {
            spec: spec.clone(),
            export: Arc::new(Export::start(spec, backing)?),
            account,
            size_bytes: info.size_bytes,
            split: source.split,
            ending: false,
        };
        crash_point!("export.listening");
        let info = exported.info();
        book.exports.insert(spec.name.clone(), exported);
        Ok(info)
    }

    /// Ends an export: hangs up, waits for what is under way, removes the socket. False if there is none.
    ///
    /// # Errors
    /// [`EngineError::Draining`] if requests are still with the device after some seconds. The export goes by itself
    /// when they have ended; its name and its volume stay taken until a later call has seen that.
    pub fn unexport(&self, name: &str) -> Result<bool, EngineError> {
        self.hang_up(name);
        let Some(exported) = self.book().exports.get(name).cloned() else {
            return Ok(false);
        };
        if !exported.export.wait_ended(PATIENCE) {
            return Err(EngineError::Draining {
                name: name.to_owned(),
            });
        }
        crash_point!("unexport.ended");
        self.book().exports.remove(name);
        Ok(true)
    }

    /// One export, if it is there.
    pub fn export_info(&self, name: &str) -> Option<ExportInfo> {
        self.book().exports.get(name).map(Exported::info)
    }

    /// All exports, by name.
    pub fn exports(&self) -> Vec<ExportInfo> {
        let mut infos: Vec<ExportInfo> = self.book().exports.values().map(Exported::info).collect();
        infos.sort_by(|a, b| a.name.cmp(&b.name));
        infos
    }

    /// Changes what an export's guest may use at most, under load and at once; none is no limit.
    ///
    /// # Errors
    /// [`EngineError::NotFound`]; [`EngineError::Invalid`] for a rate or burst of 0 and for a burst without its rate.
    pub fn set_limits(&self, export: &str, limits: Option<Limits>) -> Result<(), EngineError> {
        limits.unwrap_or_default().check(export)?;
        let mut book = self.book();
        let exported = book.exports.get_mut(export);
        let exported = exported.ok_or_else(|| EngineError::not_found("export", export))?;
        self.limit(exported, limits);
        Ok(())
    }

    fn limit(&self, exported: &mut Exported, limits: Option<Limits>) {
        if exported.spec.limits != limits {
            exported.spec.limits = limits;
            exported.account.meter().set(limits);
            self.inner.reactors.tell_all(|| Message::LimitsChanged);
        }
    }

    /// The figures of all exports, by name. Reading them disturbs no guest.
    pub fn stats(&self) -> Vec<ExportStats> {
        let mut stats: Vec<ExportStats> =
            self.book().exports.values().map(Exported::stats).collect();
        stats.sort_by(|a, b| a.export.cmp(&b.export));
        stats
    }

    /// Tells an export to end.
    pub(super) fn hang_up(&self, name: &str) {
        if let Some(exported) = self.book().exports.get_mut(name)
            && !std::mem::replace(&mut exported.ending, true)
        {
            exported.export.tell(Command::Quit);
        }
    }
}

fn folder_of(socket: &Path) -> PathBuf {
    match socket.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder.to_owned(),
        _ => PathBuf::from("."),
    }
}

fn check(spec: &ExportSpec) -> Result<(), EngineError> {
    if spec.queues == 0 || spec.queues > QUEUES_MAX {
        return Err(EngineError::Invalid {
            what: format!("{} queues for export {:?}", spec.queues, spec.name),
            why: format!("it must be 1 to {QUEUES_MAX}"),
        });
    }
    spec.limits.unwrap_or_default().check(&spec.name)
}

/// Whether an export is what is asked for, but for its limits.
fn check_same(there: &Exported, spec: &ExportSpec) -> Result<(), EngineError> {
    if there.ending {
        return Err(EngineError::Draining {
            name: spec.name.clone(),
        });
    }
    let limits = there.spec.limits;
    if there.spec
        == (ExportSpec {
            limits,
            ..spec.clone()
        })
    {
        return Ok(());
    }
    Err(EngineError::AlreadyExists {
        kind: "export",
        name: spec.name.clone(),
        difference: format!(
            "it serves {:?} on {}",
            there.spec.source,
            there.spec.socket.display()
        ),
    })
}

/// What stands behind an export.
struct Opened {
    device: Arc<dyn BlockDevice>,
    /// For a volume: the same, as the thing that can grow.
    split: Option<Arc<Split>>,
}

fn open_source(book: &Book, source: &Source) -> Result<Opened, EngineError> {
    match source {
        Source::Device(name) => match book.devices.get(name) {
            Some(device) => Ok(Opened {
                device: Arc::clone(device),
                split: None,
            }),
            None => Err(EngineError::not_found("device", name)),
        },
        Source::Volume { pool, id } => {
            let (device, opened) = book.pool(pool)?.here()?;
            let split = open_volume(device, opened, pool, id)?;
            Ok(Opened {
                device: Arc::clone(&split) as Arc<dyn BlockDevice>,
                split: Some(split),
            })
        }
    }
}

/// A volume as a device of its own.
pub(super) fn open_volume(
    device: &Arc<dyn BlockDevice>,
    opened: &Pool,
    pool: &str,
    id: &str,
) -> Result<Arc<Split>, EngineError> {
    let name = || format!("{pool}/{id}");
    let volume = opened.volume(id);
    let volume = volume.ok_or_else(|| EngineError::not_found("volume", &name()))?;
    let split = Split::new(Arc::clone(device), extents_of(&volume.extents));
    Ok(Arc::new(split.map_err(|source| EngineError::Device {
        name: name(),
        source,
    })?))
}

fn disk_of(info: &Info, spec: &ExportSpec) -> Disk {
    let mut serial = [0; 20];
    let bytes = spec.serial.as_bytes();
    let len = bytes.len().min(serial.len());
    serial[..len].copy_from_slice(&bytes[..len]);
    let read_only = spec.read_only || info.read_only;
    Disk {
        limits: holdfast_ring::blk::Limits {
            seg_max: SEG_MAX,
            size_max: SIZE_MAX,
            max_discard_sectors: DISCARD_SECTORS_MAX,
            max_discard_seg: DISCARD_SEG_MAX,
            max_write_zeroes_sectors: WRITE_ZEROES_SECTORS_MAX,
            max_write_zeroes_seg: 1,
            block_size: info.block_size,
            capacity_bytes: info.size_bytes,
            read_only,
            discard: info.discard && !read_only,
            write_zeroes: info.write_zeroes && !read_only,
            flush: info.flush,
        },
        writethrough: false,
        serial,
    }
}
