//! What the tests of devices share: a driver that is waited for with a deadline, buffers of any alignment, and
//! a folder on a real disk.
#![allow(dead_code)] // Every test binary uses its own part of this.

use holdfast_bdev::{
    BlockDevice, Completion, Driver, DriverKind, Events, Io, IoChannel, IoStatus, Op, Token, Uring,
    UringOptions,
};
use std::path::PathBuf;
use std::time::{Duration, Instant};
use tempfile::TempDir;

/// The variable that names the NVMe drive to test.
pub(crate) const NVME: &str = "HOLDFAST_TEST_NVME";
pub(crate) const KINDS: [DriverKind; 2] = [DriverKind::Uring, DriverKind::Threads];
/// Far longer than anything here takes; reached only by what would never end.
pub(crate) const DEADLINE: Duration = Duration::from_secs(60);

/// A folder beside the build's output: unlike /tmp it is on a disk, where O_DIRECT is real.
pub(crate) fn disk_folder() -> TempDir {
    tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap()
}

pub(crate) struct TempFile {
    pub(crate) device: Uring,
    pub(crate) path: PathBuf,
    _folder: TempDir,
}

pub(crate) fn uring_file(size_bytes: u64) -> TempFile {
    file_in(disk_folder(), size_bytes)
}

/// A file in memory, which is served in another way.
pub(crate) fn memory_file(size_bytes: u64) -> TempFile {
    file_in(tempfile::tempdir_in("/dev/shm").unwrap(), size_bytes)
}

fn file_in(folder: TempDir, size_bytes: u64) -> TempFile {
    let path = folder.path().join("disk");
    let device = Uring::create(&path, size_bytes).unwrap();
    TempFile {
        device,
        path,
        _folder: folder,
    }
}

pub(crate) fn open(path: &std::path::Path) -> Result<Uring, holdfast_bdev::BdevError> {
    Uring::open(path, UringOptions::default())
}

/// Somebody else changes the size of a file behind the device's back.
pub(crate) fn resize(path: &std::path::Path, size_bytes: u64) {
    let file = std::fs::OpenOptions::new().write(true).open(path).unwrap();
    file.set_len(size_bytes).unwrap();
}

/// A buffer that starts `skew` bytes past a multiple of 4096.
pub(crate) struct Skewed {
    bytes: Vec<u8>,
    start: usize,
    len: usize,
}

impl Skewed {
    pub(crate) fn new(len: usize, skew: usize) -> Skewed {
        let bytes = vec![0xEE; len + skew + 4096];
        let start = bytes.as_ptr().align_offset(4096) + skew;
        Skewed { bytes, start, len }
    }

    pub(crate) fn of(content: &[u8], skew: usize) -> Skewed {
        let mut buffer = Skewed::new(content.len(), skew);
        buffer.bytes_mut().copy_from_slice(content);
        buffer
    }

    pub(crate) fn bytes(&self) -> &[u8] {
        &self.bytes[self.start..][..self.len]
    }

    pub(crate) fn bytes_mut(&mut self) -> &mut [u8] {
        &mut self.bytes[self.start..][..self.len]
    }

    /// The buffer as an array of iovecs, cut at these lengths; the last takes the rest.
    pub(crate) fn iovecs(&mut self, cuts: &[usize]) -> Vec<libc::iovec> {
        let mut rest = self.bytes_mut();
        let mut iovecs = Vec::new();
        for cut in cuts {
            let (head, tail) = rest.split_at_mut((*cut).min(rest.len()));
            iovecs.push(iovec(head));
            rest = tail;
        }
        iovecs.push(iovec(rest));
        iovecs
    }
}

fn iovec(bytes: &mut [u8]) -> libc::iovec {
    libc::iovec {
        iov_base: bytes.as_mut_ptr().cast(),
        iov_len: bytes.len(),
    }
}

/// One driver, one channel, and requests that are waited for.
pub(crate) struct Bench {
    // Before the driver: a channel goes first in production, too.
    pub(crate) channel: Box<dyn IoChannel>,
    pub(crate) driver: Driver,
    events: Events,
    next: u64,
}

impl Bench {
    pub(crate) fn new(device: &dyn BlockDevice, kind: DriverKind) -> Bench {
        let mut driver = Driver::new(kind).unwrap();
        let channel = device.open_channel(&mut driver).unwrap();
        Bench {
            channel,
            driver,
            events: Events::default(),
            next: 0,
        }
    }

    pub(crate) fn token(&mut self) -> Token {
        self.next += 1;
        Token(self.next)
    }

    pub(crate) fn submit(&mut self, io: Io) {
        self.channel.submit(&mut self.driver, io);
    }

    /// Waits for completions, and takes what is there.
    pub(crate) fn take_some(&mut self) -> Vec<Completion> {
        self.driver.wait(&mut self.events, Some(DEADLINE)).unwrap();
        std::mem::take(&mut self.events.completions)
    }

    /// Waits for `count` completions, in the order they came.
    pub(crate) fn take(&mut self, count: usize) -> Vec<Completion> {
        let (deadline, mut taken) = (Instant::now() + DEADLINE, Vec::new());
        while taken.len() < count {
            let left = deadline.saturating_duration_since(Instant::now());
            assert!(
                !left.is_zero(),
                "only {} of {count} requests completed",
                taken.len()
            );
            self.driver.wait(&mut self.events, Some(left)).unwrap();
            taken.append(&mut self.events.completions);
        }
        assert_eq!(taken.len(), count, "more completions than requests");
        taken
    }

    fn run(&mut self, io: Io) -> IoStatus {
        self.submit(io);
        let done = self.take(1)[0];
        assert_eq!(done.token, io.token());
        done.status
    }

    pub(crate) fn transfer(
        &mut self,
        op: Op,
        offset: u64,
        buffer: &mut Skewed,
        cuts: &[usize],
    ) -> IoStatus {
        let iovecs = buffer.iovecs(cuts);
        let token = self.token();
        // SAFETY: buffer and array outlive `run`, which waits for the completion.
        let io = unsafe { Io::with_buffers(op, offset, &iovecs, token) };
        self.run(io)
    }

    pub(crate) fn write(&mut self, offset: u64, content: &[u8]) -> IoStatus {
        self.transfer(Op::Write, offset, &mut Skewed::of(content, 0), &[])
    }

    pub(crate) fn read(&mut self, offset: u64, len: usize) -> Vec<u8> {
        let mut buffer = Skewed::new(len, 0);
        let status = self.transfer(Op::Read, offset, &mut buffer, &[]);
        assert_eq!(status, IoStatus::Ok, "read of {offset}+{len}");
        buffer.bytes().to_vec()
    }

    /// A request without buffers.
    pub(crate) fn plain(&mut self, op: Op, offset: u64, len: u64) -> IoStatus {
        let token = self.token();
        self.run(Io::without_buffers(op, offset, len, token))
    }
}

/// Bytes that differ from sector to sector and from seed to seed.
pub(crate) fn pattern(len: usize, seed: u64) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_le_bytes()
    };
    let mut bytes: Vec<u8> = std::iter::repeat_with(&mut next)
        .take(len.div_ceil(8))
        .flatten()
        .collect();
    bytes.truncate(len);
    bytes
}
