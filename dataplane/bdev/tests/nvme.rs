//! An NVMe drive by its own commands. `tests/guest/tests/nvme.rs` runs these inside a guest that has such a drive, named by
//! `HOLDFAST_TEST_NVME`, and pulls, slows or kills at the same time.
#![allow(clippy::unwrap_used, clippy::cast_possible_truncation)] // Sizes here are small.

mod support;

use holdfast_bdev::{
    BlockDevice, DriverKind, Events, Io, IoStatus, Nvme, Op, Token, Uring, UringOptions,
};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use std::fs::File;
use std::path::PathBuf;
use std::time::{Duration, Instant};
use support::{Bench, DEADLINE, NVME, Skewed, pattern};

const DEPTH: usize = 16;
const BLOCK: usize = 4096;
/// Requests that are this far apart touch other blocks.
const STRIDE: u64 = 64 << 10;

fn path() -> PathBuf {
    std::env::var_os(NVME).expect("the drive's path").into()
}

fn open() -> Nvme {
    Nvme::open(path(), UringOptions::default()).unwrap()
}

/// Tells whoever started this that it has come so far.
fn tell(what: &str) {
    File::create(format!("/run/{what}")).unwrap();
}

/// Requests for reading and for writing that the block layer has served, by all paths to the drive.
fn served_by_the_block_layer() -> (u64, u64) {
    let mut served = (0, 0);
    for entry in std::fs::read_dir("/sys/block").unwrap() {
        let stat = std::fs::read_to_string(entry.unwrap().path().join("stat")).unwrap();
        let fields: Vec<u64> = stat
            .split_whitespace()
            .map(|f| f.parse().unwrap())
            .collect();
        served = (served.0 + fields[0], served.1 + fields[4]);
    }
    served
}

#[test]
#[ignore = "needs an NVMe drive; run in a guest by tests/guest/tests/nvme.rs"]
fn requests_pass_the_block_layer_by_unless_the_drive_cannot_take_them() {
    let drive = open();
    let mut bench = Bench::new(&drive, DriverKind::Uring);
    // Longer than any one command.
    let data = pattern(3 << 20, 1);
    let before = served_by_the_block_layer();
    assert_eq!(bench.write(0, &data), IoStatus::Ok);
    assert!(bench.read(0, data.len()) == data);
    assert_eq!(bench.plain(Op::Flush, 0, 0), IoStatus::Ok);
    let pages = [BLOCK; 300];
    let mut back = Skewed::new(data.len(), 0);
    assert_eq!(bench.transfer(Op::Read, 0, &mut back, &pages), IoStatus::Ok);
    assert!(back.bytes() == data);
    assert_eq!(served_by_the_block_layer(), before);
    // A list of pages cannot say this.
    let mut odd = Skewed::of(&data[..8192], 2);
    assert_eq!(
        bench.transfer(Op::Write, 4096, &mut odd, &[100]),
        IoStatus::Ok
    );
    assert_ne!(served_by_the_block_layer(), before);
    assert!(bench.read(4096, 8192) == data[..8192]);
}

#[test]
#[ignore = "needs an NVMe drive; run in a guest by tests/guest/tests/nvme.rs"]
fn discard_and_zeroes_leave_their_neighbours_alone() {
    let drive = open();
    let mut bench = Bench::new(&drive, DriverKind::Uring);
    let before = served_by_the_block_layer();
    for op in [
        Op::Discard,
        Op::WriteZeroes { may_unmap: true },
        Op::WriteZeroes { may_unmap: false },
    ] {
        let data = pattern(4 << 20, 2);
        assert_eq!(bench.write(0, &data), IoStatus::Ok);
        let (start, len) = (512 * 3, (2 << 20) + 512);
        assert_eq!(bench.plain(op, start as u64, len as u64), IoStatus::Ok);
        let back = bench.read(0, data.len());
        assert!(back[..start] == data[..start] && back[start + len..] == data[start + len..]);
        if op != Op::Discard {
            assert!(back[start..][..len].iter().all(|byte| *byte == 0), "{op:?}");
        }
    }
    assert_eq!(served_by_the_block_layer(), before);
}

#[test]
#[ignore = "needs an NVMe drive; run in a guest by tests/guest/tests/nvme.rs"]
fn read_only_drive_refuses_every_change() {
    let options = UringOptions {
        readonly: true,
        ..UringOptions::default()
    };
    let drive = Nvme::open(path(), options).unwrap();
    assert!(drive.info().read_only);
    let mut bench = Bench::new(&drive, DriverKind::Uring);
    assert_eq!(bench.write(0, &[1; 512]), IoStatus::Failed(libc::EROFS));
    assert_ne!(bench.plain(Op::Discard, 0, 512), IoStatus::Ok);
    assert_eq!(bench.read(0, 4096).len(), 4096);
    assert!(drive.write_at(0, &[1]).is_err());
}

#[test]
#[ignore = "needs an NVMe drive; run in a guest by tests/guest/tests/nvme.rs"]
fn drive_is_free_as_soon_as_its_last_channel_is_gone() {
    for _ in 0..3 {
        let drive = open();
        assert!(
            Uring::open(
                path().to_string_lossy().replace("ng", "nvme"),
                UringOptions::default()
            )
            .is_err()
        );
        let mut bench = Bench::new(&drive, DriverKind::Uring);
        assert_eq!(bench.write(0, &[7; 512]), IoStatus::Ok);
        drop(drive);
        let Bench {
            channel,
            mut driver,
            ..
        } = bench;
        drop(channel);
        // The driver lives on, and so would its hold on the drive if it forgot to let go.
        driver.poll(&mut Events::default()).unwrap();
        drop(open());
    }
}

#[test]
#[ignore = "needs an NVMe drive that is pulled meanwhile; run in a guest by tests/guest/tests/nvme.rs"]
fn pulled_drive_fails_every_request_as_lost() {
    let drive = open();
    let mut bench = Bench::new(&drive, DriverKind::Uring);
    let mut buffers: Vec<Skewed> = (0..DEPTH).map(|_| Skewed::new(BLOCK, 0)).collect();
    let arrays: Vec<_> = buffers
        .iter_mut()
        .map(|buffer| buffer.iovecs(&[]))
        .collect();
    let submit = |bench: &mut Bench, slot: usize| {
        let op = if slot.is_multiple_of(2) {
            Op::Read
        } else {
            Op::Write
        };
        // SAFETY: the buffers outlive the driver's last completion, which this test waits for.
        let io = unsafe {
            Io::with_buffers(op, slot as u64 * STRIDE, &arrays[slot], Token(slot as u64))
        };
        bench.submit(io);
    };
    let (start, mut done, mut failed) = (Instant::now(), 0, Vec::new());
    (0..DEPTH).for_each(|slot| submit(&mut bench, slot));
    while failed.len() < DEPTH {
        assert!(
            start.elapsed() < 2 * DEADLINE,
            "{failed:?} and {:?}",
            bench.driver
        );
        for completion in bench.take_some() {
            match completion.status {
                IoStatus::Ok => submit(&mut bench, completion.token.0 as usize),
                IoStatus::Failed(errno) => failed.push(errno),
                other => panic!("{other:?}"),
            }
            done += 1;
            if done == 100 {
                tell("under-load");
            }
        }
    }
    let lost = [libc::EIO, libc::ENODEV, libc::ENXIO, libc::ENOSPC];
    assert!(
        failed.iter().all(|errno| lost.contains(errno)),
        "{failed:?}"
    );
    assert_eq!((bench.driver.outstanding(), bench.driver.stale()), (0, 0));
    println!("{done} requests, the last {DEPTH} failed with {failed:?}");
}

#[test]
#[ignore = "needs an NVMe drive; run in a guest by tests/guest/tests/nvme.rs"]
fn controller_reset_under_load_fails_no_request() {
    const RESETS: usize = 5;
    let drive = open();
    let mut bench = Bench::new(&drive, DriverKind::Uring);
    let mut buffers: Vec<Skewed> = (0..DEPTH)
        .map(|slot| Skewed::of(&pattern(BLOCK, slot as u64), 0))
        .collect();
    let arrays: Vec<_> = buffers
        .iter_mut()
        .map(|buffer| buffer.iovecs(&[]))
        .collect();
    let submit = |bench: &mut Bench, slot: usize| {
        // SAFETY: the buffers outlive the driver's last completion, which is waited for below.
        let io = unsafe {
            Io::with_buffers(
                Op::Write,
                slot as u64 * STRIDE,
                &arrays[slot],
                Token(slot as u64),
            )
        };
        bench.submit(io);
    };
    let before = served_by_the_block_layer();
    let resets = std::thread::spawn(|| {
        for _ in 0..RESETS {
            // Returns when the controller is back.
            std::fs::write("/sys/class/nvme/nvme0/reset_controller", "1").unwrap();
        }
    });
    (0..DEPTH).for_each(|slot| submit(&mut bench, slot));
    let mut done = 0;
    while !resets.is_finished() {
        for completion in bench.take_some() {
            assert_eq!(completion.status, IoStatus::Ok, "after {done} requests");
            submit(&mut bench, completion.token.0 as usize);
            done += 1;
        }
    }
    resets.join().unwrap();
    assert!(
        bench
            .take(DEPTH)
            .iter()
            .all(|completion| completion.status == IoStatus::Ok)
    );
    for slot in 0..DEPTH {
        assert!(bench.read(slot as u64 * STRIDE, BLOCK) == pattern(BLOCK, slot as u64));
    }
    let after = served_by_the_block_layer();
    println!(
        "{done} requests, {} of them by the block path",
        after.1 - before.1
    );
    assert_ne!(after, before, "no reset met a command");
}

/// Bytes that the killed process, or its successor, writes to a block.
fn content(of: &str, slot: u64) -> Vec<u8> {
    pattern(BLOCK, slot * 2 + u64::from(of == "successor"))
}

/// Blocks that both write.
const CONTESTED: u64 = 8;

#[test]
#[ignore = "needs a slow NVMe drive; run in a guest and killed by tests/guest/tests/nvme.rs"]
fn process_with_writes_under_way_waits_to_be_killed() {
    let drive = open();
    let mut bench = Bench::new(&drive, DriverKind::Uring);
    let mut buffers: Vec<_> = (0..CONTESTED)
        .map(|slot| Skewed::of(&content("victim", slot), 0))
        .collect();
    let arrays: Vec<_> = buffers
        .iter_mut()
        .map(|buffer| buffer.iovecs(&[]))
        .collect();
    for (slot, array) in (0..).zip(&arrays) {
        // SAFETY: the buffers live until this process is killed.
        bench.submit(unsafe { Io::with_buffers(Op::Write, slot * STRIDE, array, Token(slot)) });
    }
    bench.driver.poll(&mut Events::default()).unwrap();
    tell("writing");
    bench.take(CONTESTED as usize);
    panic!("the drive is too quick for this test");
}

/// Both kinds wait for the same lock.
fn check_that_successor_waits(open: impl Fn() -> Box<dyn BlockDevice>) {
    let start = Instant::now();
    let drive = open();
    let waited = start.elapsed();
    for slot in 0..CONTESTED {
        let mut found = vec![0; BLOCK];
        drive.read_at(slot * STRIDE, &mut found).unwrap();
        assert!(
            found == content("victim", slot),
            "write {slot} was still under way after {waited:?}"
        );
    }
    println!("waited {waited:?}");
}

#[test]
#[ignore = "needs a slow NVMe drive; run in a guest by tests/guest/tests/nvme.rs"]
fn successor_waits_for_commands_of_a_killed_process() {
    check_that_successor_waits(|| Box::new(open()));
}

#[test]
#[ignore = "needs a slow NVMe drive; run in a guest by tests/guest/tests/nvme.rs"]
fn successor_on_the_block_path_waits_for_commands_of_a_killed_process() {
    let block = path().to_string_lossy().replace("ng", "nvme");
    check_that_successor_waits(|| Box::new(Uring::open(&block, UringOptions::default()).unwrap()));
}

#[test]
#[ignore = "needs an NVMe drive; run in a guest by tests/guest/tests/nvme.rs"]
fn random_reads_cost_this_much_by_either_path() {
    const ROUNDS: usize = 5;
    let block = path().to_string_lossy().replace("ng", "nvme");
    let mut rates = [Vec::new(), Vec::new()];
    for _ in 0..ROUNDS {
        rates[0].push(measure(&open()));
        rates[1].push(measure(
            &Uring::open(&block, UringOptions::default()).unwrap(),
        ));
    }
    for (name, rates) in ["nvme ", "uring"].iter().zip(&mut rates) {
        rates.sort_by(|a, b| a.0.total_cmp(&b.0));
        let (rate, cost) = rates[ROUNDS / 2];
        println!(
            "MEASURED {name}: {rate:.0} requests/s, {cost:.1} us of processor time each (median of {ROUNDS})"
        );
    }
}

/// Random reads of 4 KiB, many at a time, for a second: requests per second, and processor time of each in microseconds.
fn measure(drive: &dyn BlockDevice) -> (f64, f64) {
    let mut bench = Bench::new(drive, DriverKind::Uring);
    let mut buffers: Vec<Skewed> = (0..DEPTH).map(|_| Skewed::new(BLOCK, 0)).collect();
    let arrays: Vec<_> = buffers
        .iter_mut()
        .map(|buffer| buffer.iovecs(&[]))
        .collect();
    let blocks = drive.info().size_bytes / BLOCK as u64;
    let mut random = StdRng::seed_from_u64(1);
    let mut submit = |bench: &mut Bench, slot: usize| {
        let offset = random.random_range(0..blocks) * BLOCK as u64;
        // SAFETY: the buffers outlive the driver's last completion, which is waited for below.
        bench.submit(unsafe {
            Io::with_buffers(Op::Read, offset, &arrays[slot], Token(slot as u64))
        });
    };
    let (start, before, mut done) = (Instant::now(), processor_time(), 0);
    (0..DEPTH).for_each(|slot| submit(&mut bench, slot));
    while start.elapsed() < Duration::from_secs(1) {
        for completion in bench.take_some() {
            assert_eq!(completion.status, IoStatus::Ok);
            done += 1;
            submit(&mut bench, completion.token.0 as usize);
        }
    }
    let (took, spent) = (start.elapsed(), processor_time() - before);
    bench.take(DEPTH);
    (
        f64::from(done) / took.as_secs_f64(),
        spent.as_secs_f64() * 1e6 / f64::from(done),
    )
}

/// Of this process, in the kernel and outside.
fn processor_time() -> Duration {
    let mut now = libc::timespec {
        tv_sec: 0,
        tv_nsec: 0,
    };
    // SAFETY: the kernel fills the timespec.
    unsafe { libc::clock_gettime(libc::CLOCK_PROCESS_CPUTIME_ID, &mut now) };
    Duration::from_secs(now.tv_sec.unsigned_abs())
        + Duration::from_nanos(now.tv_nsec.unsigned_abs())
}
