//! Volumes cut from a device: what extents are refused, and growth while requests run.
#![allow(clippy::unwrap_used)]

mod support;

use holdfast_bdev::{BdevError, BlockDevice, Extent, Io, IoStatus, Malloc, Op, Split, Token};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use support::{Bench, KINDS, pattern, resize, uring_file};

const MIB: u64 = 1 << 20;

fn memory() -> Arc<dyn BlockDevice> {
    Arc::new(Malloc::new(8 * MIB, 512).unwrap())
}

fn extents(pairs: &[(u64, u64)]) -> Vec<Extent> {
    pairs.iter().copied().map(Extent::from).collect()
}

#[test]
fn impossible_extents_are_refused_with_the_reason() {
    let cases: [(&[(u64, u64)], &str); 7] = [
        (&[], "at least one"),
        (&[(0, 0)], "whole blocks"),
        (&[(1, 512)], "whole blocks"),
        (&[(0, 513)], "whole blocks"),
        (&[(8 * MIB - 512, 1024)], "ends at byte 8388608"),
        (&[(u64::MAX - 511, 512)], "ends at byte"),
        (&[(4096, 4096), (0, 4608)], "overlap"),
    ];
    for (pairs, expected) in cases {
        let error = Split::new(memory(), extents(pairs)).unwrap_err();
        assert!(matches!(error, BdevError::Invalid { .. }));
        assert!(error.to_string().contains(expected), "{pairs:?}: {error}");
    }
}

#[test]
fn volume_reaches_nothing_of_its_neighbours() {
    let base = memory();
    base.write_at(0, &pattern(8 << 20, 1)).unwrap();
    let split = Split::new(
        Arc::clone(&base),
        extents(&[(2 * MIB, MIB), (5 * MIB, MIB)]),
    )
    .unwrap();
    for kind in KINDS {
        let mut bench = Bench::new(&split, kind);
        assert_eq!(bench.write(0, &vec![0xAA; 2 << 20]), IoStatus::Ok);
        assert_eq!(bench.write(2 * MIB, &[0xAA; 512]), IoStatus::OutOfRange);
        assert_eq!(
            bench.write(2 * MIB - 512, &[0xAA; 1024]),
            IoStatus::OutOfRange
        );
        assert_eq!(
            bench.plain(Op::Discard, 0, 2 * MIB + 512),
            IoStatus::OutOfRange
        );
    }
    let (mut found, mut expected) = (vec![0; 8 << 20], pattern(8 << 20, 1));
    base.read_at(0, &mut found).unwrap();
    for first in [2 << 20, 5 << 20] {
        expected[first..first + (1 << 20)].fill(0xAA);
    }
    assert!(found == expected);
}

#[test]
fn neighbouring_extents_are_one() {
    let split = Split::new(memory(), extents(&[(MIB, MIB), (2 * MIB, MIB), (0, MIB)])).unwrap();
    assert_eq!(split.extents(), extents(&[(MIB, 2 * MIB), (0, MIB)]));
    assert_eq!(split.info().size_bytes, 3 * MIB);
}

#[test]
fn growth_that_moves_or_drops_a_byte_is_refused() {
    let split = Split::new(memory(), extents(&[(MIB, MIB), (4 * MIB, MIB)])).unwrap();
    let cases: [&[(u64, u64)]; 6] = [
        &[(MIB, MIB)],
        &[(MIB, MIB), (4 * MIB, MIB - 512)],
        &[(MIB, 2 * MIB), (4 * MIB, MIB)],
        &[(4 * MIB, MIB), (MIB, MIB)],
        &[(0, MIB), (4 * MIB, MIB)],
        &[(0, 512), (MIB, MIB), (4 * MIB, MIB)],
    ];
    for pairs in cases {
        let error = split.set_extents(extents(pairs)).unwrap_err();
        assert!(matches!(error, BdevError::Invalid { .. }), "{pairs:?}");
        assert_eq!(split.info().size_bytes, 2 * MIB, "nothing has changed");
    }
    split
        .set_extents(extents(&[(MIB, MIB), (4 * MIB, 2 * MIB)]))
        .unwrap();
    split
        .set_extents(extents(&[(MIB, MIB), (4 * MIB, 2 * MIB), (7 * MIB, 512)]))
        .unwrap();
    assert_eq!(split.info().size_bytes, 3 * MIB + 512);
}

#[test]
fn grown_volume_is_served_by_a_channel_that_was_open_before() {
    let split = Split::new(memory(), extents(&[(MIB, MIB)])).unwrap();
    for kind in KINDS {
        let mut bench = Bench::new(&split, kind);
        let end = split.info().size_bytes;
        assert_eq!(bench.write(end, &[7; 512]), IoStatus::OutOfRange);
        let mut longer = split.extents();
        longer[0].length_bytes += MIB;
        split.set_extents(longer).unwrap();
        assert_eq!(bench.write(end - 512, &[7; 1024]), IoStatus::Ok);
        let mut found = [0; 1024];
        split.read_at(end - 512, &mut found).unwrap();
        assert_eq!(found, [7; 1024]);
    }
}

#[test]
fn volume_grows_with_a_file_that_grew() {
    let file = uring_file(MIB);
    let split = Split::new(Arc::new(file.device.clone()), extents(&[(0, MIB)])).unwrap();
    assert!(split.set_extents(extents(&[(0, 2 * MIB)])).is_err());
    resize(&file.path, 2 * MIB);
    split.set_extents(extents(&[(0, 2 * MIB)])).unwrap();
    let mut bench = Bench::new(&split, KINDS[0]);
    assert_eq!(bench.write(2 * MIB - 512, &[1; 512]), IoStatus::Ok);
}

#[test]
fn growth_under_load_fails_and_misplaces_nothing() {
    for kind in KINDS {
        let file = uring_file(64 * MIB);
        let base: Arc<dyn BlockDevice> = Arc::new(file.device.clone());
        // Extents of 64 KiB, one in two, from the end of the base to its start.
        let run = |index: u64| (64 * MIB - (2 * index + 1) * 65536, 65536);
        let layout = |count: u64| extents(&(0..count).map(run).collect::<Vec<_>>());
        let split = Split::new(base, layout(1)).unwrap();
        let stop = Arc::new(AtomicBool::new(false));
        let load = std::thread::spawn({
            let (split, stop) = (split.clone(), Arc::clone(&stop));
            move || {
                let mut bench = Bench::new(&split, kind);
                let mut round = 0;
                while !stop.load(Ordering::Acquire) || round < 3 {
                    write_and_read_all(&split, &mut bench, round);
                    round += 1;
                }
            }
        });
        for count in 2..=200 {
            split.set_extents(layout(count)).unwrap();
        }
        stop.store(true, Ordering::Release);
        load.join().unwrap();
        assert_eq!(split.info().size_bytes, 200 * 65536);
    }
}

/// Requests that cross extents, over as much of the volume as there is now.
fn write_and_read_all(split: &Split, bench: &mut Bench, round: u64) {
    let size = split.info().size_bytes;
    let (mut at, step) = (0, 96 << 10);
    while at < size {
        let len = usize::try_from(step.min(size - at)).unwrap();
        let data = pattern(len, round * 1000 + at);
        assert_eq!(bench.write(at, &data), IoStatus::Ok, "{at}+{len} of {size}");
        assert!(bench.read(at, len) == data, "{at}+{len} of {size}");
        at += step;
    }
    bench.submit(Io::without_buffers(Op::Discard, 0, size, Token(1 << 40)));
    assert_eq!(bench.take(1)[0].status, IoStatus::Ok);
}
