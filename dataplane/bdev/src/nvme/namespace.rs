//! Opening and asking a namespace: who it is, and what it can do.
#![allow(unsafe_code)] // ioctl(2).

use super::command::{Command, IOCTL_ADMIN, IOCTL_ID};
use super::nodes::{Nodes, invalid};
use super::request::PAGE;
use crate::{BdevError, BlockDevice, Info, Uring, UringOptions};
use rustix::fs::{Mode, OFlags};
use std::fs;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::Path;

#[derive(Debug)]
pub(crate) struct Namespace {
    /// The generic character device, which takes commands.
    pub(super) generic: OwnedFd,
    /// The block device: it has the lock, and serves what commands do not.
    pub(super) block: Uring,
    pub(super) nsid: u32,
    pub(super) limits: Limits,
}

/// What one command may ask for, in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Limits {
    /// A block is `1 << block_shift` bytes.
    pub(super) block_shift: u32,
    pub(super) transfer_bytes: u64,
    /// 0: the drive cannot write zeroes by itself.
    pub(super) zeroes_bytes: u64,
    /// 0: the drive cannot deallocate.
    pub(super) discard_bytes: u64,
    /// Zeroes may be written by deallocating.
    pub(super) deallocates_to_zeroes: bool,
    /// The drive has a cache that forgets.
    volatile_cache: bool,
}

impl Namespace {
    pub(super) fn open(path: &Path, options: UringOptions) -> Result<Namespace, BdevError> {
        let nodes = Nodes::of(path)?;
        let block = Uring::open(&nodes.block, options)?;
        let failed = |source| BdevError::Open {
            path: nodes.generic.clone(),
            source,
        };
        let flags = OFlags::RDWR | OFlags::CLOEXEC;
        let generic = rustix::fs::open(&nodes.generic, flags, Mode::empty());
        let generic = generic.map_err(|errno| failed(errno.into()))?;
        let asked = Identity::ask(&generic).map_err(failed)?;
        let beside = Identity::ask(&block.medium().fd).map_err(failed)?;
        if beside.names() != asked.names() {
            let why = "it is not the namespace of the block device beside it; it may have been replaced meanwhile, try again";
            return Err(invalid(&nodes.generic, why));
        }
        let queue = |name: &str| queue_limit(&nodes.sysfs, name);
        let limits = asked.limits(queue, block.info());
        let limits = limits.map_err(|why| invalid(&nodes.generic, &why))?;
        tracing::info!(
            generic = %nodes.generic.display(),
            block = %nodes.block.display(),
            serial = asked.serial(),
            nsid = asked.nsid,
            nguid = hex(&asked.namespace[104..120]),
            eui64 = hex(&asked.namespace[120..128]),
            ?limits,
            "Opened an NVMe namespace"
        );
        Ok(Namespace {
            generic,
            block,
            nsid: asked.nsid,
            limits,
        })
    }

    /// The facts, given those of the block device.
    pub(super) fn info(&self, block: Info) -> Info {
        Info {
            discard: !block.read_only && (block.discard || self.limits.discard_bytes > 0),
            flush: self.limits.volatile_cache,
            kind: "nvme",
            ..block
        }
    }
}

/// What a namespace and its controller say of themselves.
struct Identity {
    nsid: u32,
    controller: Vec<u8>,
    namespace: Vec<u8>,
}

impl Identity {
    fn ask(fd: &OwnedFd) -> io::Result<Identity> {
        // SAFETY: this ioctl takes no argument.
        let nsid = unsafe { libc::ioctl(fd.as_raw_fd(), IOCTL_ID) };
        let nsid = u32::try_from(nsid).map_err(|_| io::Error::last_os_error())?;
        Ok(Identity {
            nsid,
            controller: identify(fd, IDENTIFY_CONTROLLER, 0)?,
            namespace: identify(fd, IDENTIFY_NAMESPACE, nsid)?,
        })
    }

    /// What never changes: serial number, namespace, NGUID and EUI-64. All else may differ by path or moment.
    fn names(&self) -> (&[u8], u32, &[u8]) {
        (
            &self.controller[4..24],
            self.nsid,
            &self.namespace[104..128],
        )
    }

    fn serial(&self) -> String {
        let serial = String::from_utf8_lossy(&self.controller[4..24]);
        serial.trim().to_owned()
    }

    /// The drive's limits, within those of the kernel's queue.
    fn limits(&self, queue: impl Fn(&str) -> Option<u64>, block: Info) -> Result<Limits, String> {
        let (metadata, block_shift) = self.format();
        if metadata > 0 {
            return Err(format!(
                "its format has {metadata} bytes of metadata for each block; format it without"
            ));
        }
        let size = self.blocks().checked_shl(block_shift).unwrap_or(0);
        if size < block.size_bytes || block.block_size < 1 << block_shift {
            return Err("its block device tells another size; try again".to_owned());
        }
        let kernel_bytes = queue("max_hw_sectors_kb").map_or(TRANSFER_LEAST, |kib| kib << 10);
        // Pages of guest memory are scattered, and a transfer may begin and end inside one.
        let segments = queue("max_segments").unwrap_or(1).max(2) - 1;
        let transfer = kernel_bytes
            .min(self.transfer_max())
            .min(segments * PAGE as u64);
        // What the kernel does by itself it has checked; its figure for discards is in the drive's own blocks.
        let known = |bit: u16, name| match self.commands() & bit {
            0 => 0,
            _ => queue(name).unwrap_or(0) / BLOCK_MOST * BLOCK_MOST,
        };
        let after_deallocation = self.namespace[33];
        Ok(Limits {
            block_shift,
            transfer_bytes: (transfer / BLOCK_MOST * BLOCK_MOST).max(TRANSFER_LEAST),
            zeroes_bytes: known(WRITE_ZEROES, "write_zeroes_max_bytes"),
            discard_bytes: known(DATASET_MANAGEMENT, "discard_max_hw_bytes").min(DISCARD_MOST),
            deallocates_to_zeroes: after_deallocation & 0xf == 0b1001,
            volatile_cache: self.controller[525] & 1 != 0,
        })
    }

    /// MDTS: a power of two of pages, or no limit.
    fn transfer_max(&self) -> u64 {
        match self.controller[77] {
            0 => u64::MAX,
            power => (PAGE as u64).checked_shl(power.into()).unwrap_or(u64::MAX),
        }
    }

    /// ONCS: the optional commands it knows.
    fn commands(&self) -> u16 {
        u16::from_le_bytes([self.controller[520], self.controller[521]])
    }

    fn blocks(&self) -> u64 {
        let bytes: [u8; 8] = self.namespace[..8].try_into().expect("8 bytes");
        u64::from_le_bytes(bytes)
    }

    /// Bytes of metadata and the power of the block size, of the format in use.
    fn format(&self) -> (u16, u32) {
        let used = self.namespace[26];
        let index = usize::from(used & 0xf | used >> 1 & 0x30);
        let format = &self.namespace[128 + 4 * index..][..4];
        let metadata = u16::from_le_bytes([format[0], format[1]]);
        (metadata, format[2].into())
    }
}

const IDENTIFY_NAMESPACE: u32 = 0;
const IDENTIFY_CONTROLLER: u32 = 1;
const DATASET_MANAGEMENT: u16 = 1 << 2;
const WRITE_ZEROES: u16 = 1 << 3;
/// Every drive moves as much in one command.
const TRANSFER_LEAST: u64 = PAGE as u64;
/// A multiple of every block size.
const BLOCK_MOST: u64 = 4096;
/// The blocks of a range have 32 bits, and are of 512 bytes at least.
const DISCARD_MOST: u64 = (u32::MAX as u64 * 512) / BLOCK_MOST * BLOCK_MOST;

fn identify(fd: &OwnedFd, structure: u32, nsid: u32) -> io::Result<Vec<u8>> {
    let mut answer = vec![0; 4096];
    let mut command = Command::identify(structure, nsid, &mut answer).bytes();
    // SAFETY: the kernel reads and writes the 72 bytes of the command, and writes the answer's 4096.
    match unsafe { libc::ioctl(fd.as_raw_fd(), IOCTL_ADMIN, command.as_mut_ptr()) } {
        0 => Ok(answer),
        ..0 => Err(io::Error::last_os_error()),
        status => Err(io::Error::other(format!(
            "the drive refused to identify itself, with status {status:#x}"
        ))),
    }
}

fn queue_limit(sysfs: &Path, name: &str) -> Option<u64> {
    let text = fs::read_to_string(sysfs.join("queue").join(name)).ok()?;
    text.trim().parse().ok()
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const INFO: Info = Info {
        block_size: 512,
        size_bytes: 1 << 20,
        optimal_io_bytes: 4096,
        read_only: false,
        discard: true,
        write_zeroes: true,
        flush: true,
        kind: "uring",
    };

    /// 1 MiB of 512-byte blocks in format 2, transfers of 2^5 pages, a cache, all commands.
    fn identity() -> Identity {
        let (mut controller, mut namespace) = (vec![0; 4096], vec![0; 4096]);
        controller[4..24].copy_from_slice(b"S3RIAL              ");
        controller[77] = 5;
        controller[520] = 0b1100;
        controller[525] = 1;
        namespace[..8].copy_from_slice(&2048u64.to_le_bytes());
        namespace[26] = 2;
        namespace[33] = 0b1001;
        namespace[128 + 8 + 2] = 9;
        Identity {
            nsid: 1,
            controller,
            namespace,
        }
    }

    fn queue(name: &str) -> Option<u64> {
        match name {
            "max_hw_sectors_kb" => Some(1024),
            "max_segments" => Some(127),
            "write_zeroes_max_bytes" => Some(131_072),
            "discard_max_hw_bytes" => Some(2_199_023_255_040),
            _ => None,
        }
    }

    #[test]
    fn limits_are_the_smallest_of_drive_and_kernel() {
        let mut identity = identity();
        let expected = Limits {
            block_shift: 9,
            transfer_bytes: 32 * 4096,
            zeroes_bytes: 131_072,
            discard_bytes: DISCARD_MOST,
            deallocates_to_zeroes: true,
            volatile_cache: true,
        };
        assert_eq!(identity.limits(queue, INFO), Ok(expected));
        assert_eq!(identity.serial(), "S3RIAL");
        identity.controller[77] = 0; // The drive sets no limit: segments do.
        let limits = identity.limits(queue, INFO).unwrap();
        assert_eq!(limits.transfer_bytes, 126 * 4096);
        let limits = identity.limits(|_| None, INFO).unwrap();
        assert_eq!((limits.transfer_bytes, limits.discard_bytes), (4096, 0));
    }

    #[test]
    fn drive_without_commands_or_cache_is_asked_for_neither() {
        let mut identity = identity();
        identity.controller[520] = 0;
        identity.controller[525] = 0;
        identity.namespace[33] = 0b0001;
        let limits = identity.limits(queue, INFO).unwrap();
        assert_eq!((limits.zeroes_bytes, limits.discard_bytes), (0, 0));
        assert!(!limits.volatile_cache && !limits.deallocates_to_zeroes);
    }

    #[test]
    fn metadata_and_another_size_are_refused() {
        let mut identity = identity();
        identity.namespace[128 + 8] = 8;
        let why = identity.limits(queue, INFO).unwrap_err();
        assert!(why.contains("8 bytes of metadata"), "{why}");
        identity.namespace[128 + 8] = 0;
        identity.namespace[..8].copy_from_slice(&2047u64.to_le_bytes());
        let why = identity.limits(queue, INFO).unwrap_err();
        assert!(why.contains("another size"), "{why}");
    }

    #[test]
    fn namespace_is_known_by_its_names_whatever_else_changes() {
        let (known, mut other) = (identity(), identity());
        other.controller[78] = 2; // another controller of the drive
        other.namespace[16] = 7; // blocks in use
        assert_eq!(known.names(), other.names());
        other.namespace[127] = 1;
        assert_ne!(known.names(), other.names(), "EUI-64");
        let mut other = identity();
        other.controller[23] = b'X';
        assert_ne!(known.names(), other.names(), "serial number");
    }

    #[test]
    fn what_is_no_namespace_is_refused_with_another_way() {
        for path in ["/dev/null", "/"] {
            let error = Namespace::open(Path::new(path), UringOptions::default()).unwrap_err();
            assert!(error.to_string().contains("use kind uring"), "{error}");
        }
    }
}
