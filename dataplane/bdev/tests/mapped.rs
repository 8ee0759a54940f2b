//! Files in memory are mapped: what that must not change, and that it is done at all.
#![allow(clippy::unwrap_used)]

mod support;

use holdfast_bdev::{BlockDevice, IoStatus, Op};
use std::sync::atomic::{AtomicBool, Ordering};
use support::{Bench, KINDS, Skewed, TempFile, memory_file, open, pattern, resize};

const MIB: u64 = 1 << 20;

/// Bytes this thread has had moved by system calls so far, but for those of looking.
fn moved_by_calls() -> u64 {
    let text = std::fs::read_to_string("/proc/thread-self/io").unwrap();
    let field = |name: &str| {
        let line = text.lines().find_map(|line| line.strip_prefix(name));
        line.unwrap().trim().parse::<u64>().unwrap()
    };
    field("rchar:") + field("wchar:")
}

fn allocated(file: &TempFile) -> i64 {
    rustix::fs::stat(&file.path).unwrap().st_blocks
}

/// Does something that moves so many bytes, and almost none of that by calls.
fn assert_without_calls(bytes: u64, work: impl FnOnce()) {
    let before = moved_by_calls();
    work();
    let moved = moved_by_calls() - before;
    assert!(
        moved < bytes / 8,
        "{moved} of {bytes} bytes went through calls"
    );
}

#[test]
fn pages_with_data_are_copied_without_a_system_call() {
    let file = memory_file(4 * MIB);
    for (seed, kind) in (0..).zip(KINDS) {
        let mut bench = Bench::new(&file.device, kind);
        let data = pattern(64 << 10, seed);
        assert_eq!(bench.write(0, &data), IoStatus::Ok);
        assert_without_calls(8 * MIB, || {
            for _ in 0..64 {
                assert_eq!(bench.read(0, data.len()), data);
                assert_eq!(bench.write(0, &data), IoStatus::Ok);
            }
        });
    }
}

#[test]
fn data_of_a_former_owner_is_copied_without_a_system_call() {
    let file = memory_file(4 * MIB);
    let data = pattern(64 << 10, 1);
    file.device.write_at(0, &data).unwrap();
    drop(file.device);
    let device = open(&file.path).unwrap();
    let mut bench = Bench::new(&device, KINDS[0]);
    assert_without_calls(64 << 10, || {
        assert_eq!(bench.read(0, data.len()), data);
    });
}

#[test]
fn grown_part_is_copied_without_a_system_call() {
    let file = memory_file(MIB);
    let mut bench = Bench::new(&file.device, KINDS[0]);
    resize(&file.path, 2 * MIB);
    file.device.refresh().unwrap();
    let data = pattern(64 << 10, 1);
    assert_eq!(bench.write(MIB, &data), IoStatus::Ok);
    assert_without_calls(4 * MIB, || {
        for _ in 0..64 {
            assert_eq!(bench.write(MIB, &data), IoStatus::Ok);
        }
    });
}

#[test]
fn reading_what_was_never_written_allocates_nothing() {
    let file = memory_file(4 * MIB);
    for kind in KINDS {
        let mut bench = Bench::new(&file.device, kind);
        assert_eq!(bench.write(MIB, &[1; 4096]), IoStatus::Ok);
        let before = allocated(&file);
        for at in (0..4 * MIB).step_by(16 << 10) {
            let _ = bench.read(at, 16 << 10);
        }
        assert_eq!(allocated(&file), before, "{kind:?}");
        assert_eq!(bench.plain(Op::Discard, MIB, 4096), IoStatus::Ok);
        assert_eq!(bench.read(MIB, 4096), [0; 4096]);
        file.device.write_at(2 * MIB, &[1; 4096]).unwrap();
        file.device.write_zeroes_at(2 * MIB, 4096).unwrap();
        assert_eq!(bench.read(2 * MIB, 4096), [0; 4096]);
        assert_eq!(allocated(&file), 0, "{kind:?}");
    }
}

#[test]
fn file_cut_short_under_load_fails_requests_past_its_end_and_nothing_else() {
    let file = memory_file(MIB);
    let over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !over.load(Ordering::Relaxed) {
                resize(&file.path, MIB / 2);
                resize(&file.path, MIB);
            }
        });
        let mut failed = 0;
        let mut bench = Bench::new(&file.device, KINDS[0]);
        let data = pattern(8192, 1);
        assert_eq!(bench.write(0, &data), IoStatus::Ok);
        // Long enough for each to meet the other, and not forever if they never do.
        for round in 0..200_000u64 {
            let at = MIB / 2 + round % 64 * 8192;
            let write = bench.write(at, &data);
            let read = bench.transfer(Op::Read, at, &mut Skewed::new(8192, 0), &[]);
            for status in [write, read] {
                assert!(
                    [IoStatus::Ok, IoStatus::Failed(libc::EIO)].contains(&status),
                    "{status:?}"
                );
                failed += u32::from(status != IoStatus::Ok);
            }
            assert_eq!(bench.read(0, 8192), data, "what is left of the file");
            if failed >= 20 {
                break;
            }
        }
        over.store(true, Ordering::Relaxed);
        assert!(failed > 0, "no request met the short file");
        drop(bench);
    });
    let mut bench = Bench::new(&file.device, KINDS[1]);
    let data = pattern(MIB.try_into().unwrap(), 2);
    assert_eq!(bench.write(0, &data), IoStatus::Ok);
    assert_eq!(bench.read(0, data.len()), data);
    drop(bench);
    drop(file.device);
    assert!(open(&file.path).is_ok());
}
