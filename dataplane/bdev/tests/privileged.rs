//! What only root can stage: block devices, mounts, and a file system that stands still. Run them with
//! `cargo test -p holdfast-bdev --test privileged -- --ignored --test-threads=1`.
#![allow(clippy::unwrap_used)]

mod support;

use holdfast_bdev::{BdevError, BlockDevice, Driver, Events, Io, IoStatus, Op, Token, Uring};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;
use support::{Bench, DEADLINE, KINDS, Skewed, disk_folder, open, pattern};
use tempfile::TempDir;

fn run(program: &str, args: &[&str]) -> String {
    let output = Command::new(program).args(args).output().unwrap();
    let error = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "{program} {args:?}: {error}");
    String::from_utf8(output.stdout).unwrap().trim().to_owned()
}

/// A loop device over a file, gone with this value.
struct Loop {
    device: PathBuf,
    folder: TempDir,
}

impl Loop {
    fn new(size_bytes: u64, sector: &str) -> Loop {
        let folder = disk_folder();
        let file = folder.path().join("backing");
        std::fs::File::create(&file)
            .unwrap()
            .set_len(size_bytes)
            .unwrap();
        let args = [
            "--find",
            "--show",
            "--sector-size",
            sector,
            file.to_str().unwrap(),
        ];
        Loop {
            device: run("losetup", &args).into(),
            folder,
        }
    }

    fn name(&self) -> &str {
        self.device.to_str().unwrap()
    }
}

impl Drop for Loop {
    fn drop(&mut self) {
        run("losetup", &["--detach", self.name()]);
    }
}

/// A mounted ext4, unmounted with this value.
struct Mount {
    point: PathBuf,
    device: Loop,
}

impl Mount {
    fn new() -> Mount {
        let device = Loop::new(64 << 20, "512");
        let point = device.folder.path().join("mnt");
        std::fs::create_dir(&point).unwrap();
        run("mkfs.ext4", &["-q", device.name()]);
        run("mount", &[device.name(), point.to_str().unwrap()]);
        Mount { point, device }
    }
}

impl Drop for Mount {
    fn drop(&mut self) {
        let point = self.point.to_str().unwrap();
        run("umount", &[point]);
    }
}

/// A file system that lets every write wait, until this value is gone. Later values are dropped first, so a
/// failed test thaws before it waits for its requests.
struct Frozen(PathBuf);

impl Frozen {
    fn new(point: &Path) -> Frozen {
        run("fsfreeze", &["-f", point.to_str().unwrap()]);
        Frozen(point.to_owned())
    }
}

impl Drop for Frozen {
    fn drop(&mut self) {
        run("fsfreeze", &["-u", self.0.to_str().unwrap()]);
    }
}

/// Blocks until this thread of this process sleeps in the kernel.
fn wait_until_asleep(thread: i32) {
    let deadline = Instant::now() + DEADLINE;
    let stat = format!("/proc/self/task/{thread}/stat");
    loop {
        let text = std::fs::read_to_string(&stat).unwrap();
        let state = text.rsplit(") ").next().unwrap().chars().next().unwrap();
        if matches!(state, 'S' | 'D') {
            return;
        }
        assert!(
            Instant::now() < deadline,
            "the thread does not sleep: {state}"
        );
        std::thread::yield_now();
    }
}

#[test]
#[ignore = "needs root for a loop device"]
fn block_device_holds_what_was_written() {
    for (sector, block_size) in [("512", 512), ("4096", 4096)] {
        let device = Loop::new(16 << 20, sector);
        let disk = open(&device.device).unwrap();
        assert_eq!(disk.info().block_size, block_size);
        assert_eq!(disk.info().size_bytes, 16 << 20);
        for kind in KINDS {
            let mut bench = Bench::new(&disk, kind);
            let mut data = pattern(1 << 20, 1);
            for skew in [0, 5] {
                let mut buffer = Skewed::of(&data, skew);
                assert_eq!(
                    bench.transfer(Op::Write, 4096, &mut buffer, &[4096]),
                    IoStatus::Ok
                );
            }
            assert_eq!(bench.plain(Op::Flush, 0, 0), IoStatus::Ok);
            let zeros = Op::WriteZeroes { may_unmap: true };
            for (op, at) in [(zeros, 4096), (Op::WriteZeroes { may_unmap: false }, 12288)] {
                assert_eq!(bench.plain(op, at, 4096), IoStatus::Ok, "{kind:?} {op:?}");
                let at = usize::try_from(at).unwrap() - 4096;
                data[at..at + 4096].fill(0);
            }
            assert!(bench.read(4096, 1 << 20) == data, "{kind:?}");
            assert!(disk.info().discard, "a loop device can punch holes");
            assert_eq!(bench.plain(Op::Discard, 4096, 1 << 20), IoStatus::Ok);
        }
        disk.write_at(8191, &[1, 2]).unwrap();
        disk.write_zeroes_at(100, 8_000_000).unwrap();
        disk.flush().unwrap();
        let mut found = [9; 2];
        disk.read_at(8191, &mut found).unwrap();
        assert_eq!(found, [0; 2]);
    }
}

#[test]
#[ignore = "needs root for a loop device"]
fn block_device_is_refused_while_somebody_holds_it() {
    let device = Loop::new(16 << 20, "512");
    let disk = open(&device.device).unwrap();
    let error = open(&device.device).unwrap_err();
    assert!(matches!(error, BdevError::InUse { .. }), "{error}");
    assert!(
        error
            .to_string()
            .contains(&format!("by process {}", std::process::id())),
        "{error}"
    );
    drop(disk);
    open(&device.device).unwrap();
}

#[test]
#[ignore = "needs root for a loop device"]
fn short_look_of_udev_at_a_block_device_is_waited_for() {
    let device = Loop::new(16 << 20, "512");
    let looking = std::fs::File::open(&device.device).unwrap();
    rustix::fs::flock(&looking, rustix::fs::FlockOperation::LockShared).unwrap();
    let thread = rustix::thread::gettid().as_raw_nonzero().get();
    let udev = std::thread::spawn(move || {
        wait_until_asleep(thread);
        drop(looking);
    });
    open(&device.device).unwrap();
    udev.join().unwrap();
}

#[test]
#[ignore = "needs root to mount"]
fn mounted_block_device_is_refused_with_its_mount_point() {
    let mount = Mount::new();
    match open(&mount.device.device) {
        Err(BdevError::Mounted { mount_point, .. }) => {
            assert_eq!(Path::new(&mount_point), mount.point);
        }
        other => panic!("{other:?}"),
    }
}

#[test]
#[ignore = "needs root to freeze a file system"]
fn file_stays_locked_and_driver_stays_until_the_kernel_is_done() {
    for kind in KINDS {
        let mount = Mount::new();
        let path = mount.point.join("disk");
        let device = Uring::create(&path, 1 << 20).unwrap();
        let mut buffer = Skewed::of(&pattern(4096, 1), 0);
        let array = buffer.iovecs(&[]);
        let mut driver = Driver::new(kind).unwrap();
        let mut channel = device.open_channel(&mut driver).unwrap();
        let frozen = Frozen::new(&mount.point);
        // SAFETY: buffer and array outlive the driver, even if an assertion fails.
        let io = unsafe { Io::with_buffers(Op::Write, 0, &array, Token(1)) };
        channel.submit(&mut driver, io);
        let mut events = Events::default();
        driver.poll(&mut events).unwrap();
        assert!(events.is_empty(), "a frozen file system takes no write");
        drop(device);
        drop(channel);
        assert!(
            matches!(open(&path), Err(BdevError::InUse { .. })),
            "{kind:?}"
        );

        let thawed = Arc::new(AtomicBool::new(false));
        let thread = rustix::thread::gettid().as_raw_nonzero().get();
        let thaw = std::thread::spawn({
            let thawed = Arc::clone(&thawed);
            move || {
                wait_until_asleep(thread);
                thawed.store(true, Ordering::Release);
                drop(frozen);
            }
        });
        drop(driver);
        assert!(
            thawed.load(Ordering::Acquire),
            "{kind:?}: left before the kernel was done"
        );
        thaw.join().unwrap();
        let disk = open(&path).unwrap();
        let mut found = vec![0; 4096];
        disk.read_at(0, &mut found).unwrap();
        assert_eq!(found, pattern(4096, 1));
    }
}

/// A tmpfs of this size, unmounted with this value.
struct Memory(TempDir);

impl Memory {
    fn new(size_bytes: u64) -> Memory {
        let folder = disk_folder();
        let options = format!("size={size_bytes}");
        let point = folder.path().to_str().unwrap();
        run("mount", &["-t", "tmpfs", "-o", &options, "tmpfs", point]);
        Memory(folder)
    }
}

impl Drop for Memory {
    fn drop(&mut self) {
        run("umount", &[self.0.path().to_str().unwrap()]);
    }
}

#[test]
#[ignore = "needs root to mount a tmpfs"]
fn full_file_system_in_memory_refuses_a_write_and_serves_the_rest() {
    let memory = Memory::new(1 << 20);
    let path = memory.0.path().join("disk");
    let device = Uring::create(&path, 4 << 20).unwrap();
    for kind in KINDS {
        let mut bench = Bench::new(&device, kind);
        let data = pattern(256 << 10, 1);
        assert_eq!(bench.write(0, &data), IoStatus::Ok);
        // A hole made behind the device's back, where it expects data; and no room any more.
        let file = std::fs::OpenOptions::new().write(true).open(&path).unwrap();
        let hole = rustix::fs::FallocateFlags::PUNCH_HOLE | rustix::fs::FallocateFlags::KEEP_SIZE;
        rustix::fs::fallocate(&file, hole, 0, 4096).unwrap();
        let rest = memory.0.path().join("rest");
        let error = std::fs::write(&rest, vec![1; 1 << 20]).unwrap_err();
        assert_eq!(error.raw_os_error(), Some(libc::ENOSPC));
        let full = IoStatus::Failed(libc::ENOSPC);
        assert_eq!(bench.write(0, &data[..4096]), full, "{kind:?}");
        assert_eq!(bench.write(2 << 20, &data[..4096]), full, "{kind:?}");
        assert_eq!(bench.read(0, 4096), [0; 4096]);
        assert_eq!(bench.read(4096, data.len() - 4096), data[4096..]);
        std::fs::remove_file(&rest).unwrap();
        assert_eq!(bench.write(0, &data), IoStatus::Ok);
        assert_eq!(bench.read(0, data.len()), data);
    }
}
