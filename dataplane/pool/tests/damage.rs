//! What breaks: rotten and unreadable copies, truncated, swapped and outdated drives. One intact copy is enough and the other is
//! mended and reported; anything less is refused with its reason.

#![allow(clippy::unwrap_used)]

mod support;

use holdfast_bdev::{BlockDevice, Effect, ErrorDevice, Fault, FaultOp, Malloc};
use holdfast_pool::{FormatOptions, MIN_DEVICE_BYTES, Pool, PoolError};
use std::sync::Arc;
use support::{MIB, SIZE, blank, ends, options, pooled, refused};

const SUPERBLOCKS: [u64; 2] = [0, 5 * MIB];
const TABLES: [u64; 2] = [MIB, 3 * MIB];

fn read<const N: usize>(drive: &Malloc, at: u64) -> [u8; N] {
    let mut bytes = [0; N];
    drive.read_at(at, &mut bytes).unwrap();
    bytes
}

/// Changes a superblock copy and gives it a valid checksum.
fn reseal(drive: &Malloc, copy: usize, at: usize, field: &[u8]) {
    let mut block: [u8; 512] = read(drive, SUPERBLOCKS[copy]);
    block[at..at + field.len()].copy_from_slice(field);
    let checksum = crc32c::crc32c(&block[..504]);
    block[504..508].copy_from_slice(&checksum.to_le_bytes());
    drive.write_at(SUPERBLOCKS[copy], &block).unwrap();
}

/// A drive of another size with the same contents, as far as they go.
fn resized(drive: &Malloc, size_bytes: u64, block_size: u32) -> Arc<Malloc> {
    let other = Malloc::new(size_bytes, block_size).unwrap();
    let mut part = vec![0; 512];
    for at in (0..size_bytes.min(SIZE)).step_by(512) {
        drive.read_at(at, &mut part).unwrap();
        if part.iter().any(|byte| *byte != 0) {
            other.write_at(at, &part).unwrap();
        }
    }
    Arc::new(other)
}

#[test]
fn one_rotten_copy_is_mended_and_reported() {
    for (at, name) in [
        (SUPERBLOCKS[0], "superblock copy 0"),
        (SUPERBLOCKS[1], "superblock copy 1"),
        (TABLES[0], "table copy 0"),
        (TABLES[1], "table copy 1"),
    ] {
        let drive = pooled();
        let whole: [u8; 512] = read(&drive, at);
        let volumes = Pool::open(drive.clone()).unwrap().volumes();
        for rotten in [[0; 512], [0x5a; 512], [0xff; 512]] {
            drive.write_at(at, &rotten).unwrap();
            let notes = Pool::inspect(&*drive).unwrap().notes;
            assert!(notes[0].starts_with(name), "{notes:?}");
            let pool = Pool::open(drive.clone()).unwrap();
            assert!(pool.mended()[0].starts_with(name), "{:?}", pool.mended());
            assert_eq!(pool.volumes(), volumes);
            if name.starts_with("superblock") {
                assert_eq!(read::<512>(&drive, at), whole);
            }
            assert!(Pool::open(drive.clone()).unwrap().mended().is_empty());
        }
    }
}

#[test]
fn two_rotten_copies_are_refused() {
    for places in [SUPERBLOCKS, TABLES] {
        for rotten in [[0; 512], [0x5a; 512]] {
            let drive = pooled();
            for at in places {
                drive.write_at(at, &rotten).unwrap();
            }
            let message = refused(&drive);
            let fits = message.contains("damaged") || message.contains("does not know");
            assert!(fits, "{message}");
        }
    }
}

#[test]
fn bad_sector_costs_no_pool() {
    for (at, name) in [
        (SUPERBLOCKS[0], "superblock copy 0"),
        (SUPERBLOCKS[1], "superblock copy 1"),
        (TABLES[0], "table copy 0"),
        (TABLES[1], "table copy 1"),
    ] {
        let drive = pooled();
        let faulty = Arc::new(ErrorDevice::new(drive.clone()));
        faulty.inject(
            Fault::new(Effect::Fail(5))
                .on(FaultOp::Read)
                .within(at..at + 1),
        );
        let report = Pool::inspect(&*faulty).unwrap();
        assert!(report.notes[0].starts_with(name), "{report}");
        assert_eq!(report.pool.unwrap().volumes.len(), 2);
        // A sector that is written is given another place by the drive: opening mends.
        let pool = Pool::open(faulty.clone()).unwrap();
        assert!(pool.mended()[0].starts_with(name), "{:?}", pool.mended());
        faulty.clear();
        assert!(Pool::open(faulty).unwrap().mended().is_empty());
    }
}

#[test]
fn bad_sector_hides_no_foreign_signature() {
    let drive = pooled();
    drive.write_at(65600, b"_BHRfS_M").unwrap();
    let faulty = Arc::new(ErrorDevice::new(drive));
    faulty.inject(Fault::new(Effect::Fail(5)).on(FaultOp::Read).within(0..1));
    let message = Pool::open(faulty).unwrap_err().to_string();
    assert!(message.contains("btrfs"), "{message}");
}

#[test]
fn dead_drive_is_a_device_error() {
    let sector = |at: u64| at..at + 1;
    for bad in [
        [0..SIZE, 0..SIZE],
        SUPERBLOCKS.map(sector),
        TABLES.map(sector),
    ] {
        let faulty = Arc::new(ErrorDevice::new(pooled()));
        for range in &bad {
            let fault = Fault::new(Effect::Fail(5)).on(FaultOp::Read);
            faulty.inject(fault.within(range.clone()));
        }
        let error = Pool::open(faulty).unwrap_err();
        let is_device = matches!(error, PoolError::Device { .. });
        assert!(is_device, "{bad:?}: {error}");
    }
}

#[test]
fn copies_of_different_pools_are_refused() {
    let (drive, other) = (pooled(), pooled());
    drive
        .write_at(SUPERBLOCKS[1], &read::<512>(&other, SUPERBLOCKS[1]))
        .unwrap();
    let message = refused(&drive);
    assert!(message.contains("name different pools"), "{message}");
}

#[test]
fn table_of_another_pool_is_not_believed() {
    let (drive, other) = (pooled(), pooled());
    drive
        .write_at(TABLES[0], &read::<4096>(&other, TABLES[0]))
        .unwrap();
    let pool = Pool::open(drive.clone()).unwrap();
    assert!(
        pool.mended()[0].contains("another pool"),
        "{:?}",
        pool.mended()
    );
    for at in TABLES {
        drive.write_at(at, &read::<4096>(&other, at)).unwrap();
    }
    assert!(refused(&drive).contains("another pool"));
}

/// Two processes that wrote one pool at once, which the lock on the device forbids: neither table is the truth.
#[test]
fn different_tables_of_one_generation_are_refused() {
    let drive = pooled();
    let twin = resized(&drive, SIZE, 512);
    for (device, id) in [(&drive, "mine"), (&twin, "yours")] {
        let pool = Pool::open(device.clone()).unwrap();
        pool.allocate(id, MIB).unwrap();
    }
    let theirs: [u8; 4096] = read(&twin, TABLES[1]);
    drive.write_at(TABLES[1], &theirs).unwrap();
    let message = refused(&drive);
    assert!(message.contains("generation 4 and differ"), "{message}");
}

#[test]
fn newer_format_is_refused_and_kept() {
    for copies in [&[0][..], &[1], &[0, 1]] {
        let drive = pooled();
        for copy in copies {
            reseal(&drive, *copy, 8, &[2, 0, 3, 0, 2, 0, 1, 0]);
        }
        let message = refused(&drive);
        let expected = match copies.len() {
            2 => "format 2.3 (needs a reader of 2.1)",
            _ => "different formats",
        };
        assert!(message.contains(expected), "{message}");
    }
    let drive = pooled();
    reseal(&drive, 1, 8, &[2, 0, 3, 0, 2, 0, 1, 0]);
    drive.write_at(0, &[0; 512]).unwrap();
    assert!(refused(&drive).contains("format 2.3"));
}

#[test]
fn pool_of_a_newer_minor_version_is_opened() {
    let drive = pooled();
    for copy in [0, 1] {
        reseal(&drive, copy, 10, &[9, 0]);
    }
    let report = Pool::inspect(&*drive).unwrap();
    assert_eq!(report.pool.as_ref().unwrap().version, (1, 9));
    assert!(report.notes.is_empty(), "{report}");
    assert_eq!(Pool::open(drive.clone()).unwrap().volumes().len(), 2);
    // What the newer version keeps in reserved bytes outlives mending by us.
    for (rotten, intact) in [(0, 1), (1, 0)] {
        reseal(&drive, intact, 300, b"newer");
        drive.write_at(SUPERBLOCKS[rotten], &[0x5a; 512]).unwrap();
        Pool::open(drive.clone()).unwrap();
        assert_eq!(read(&drive, SUPERBLOCKS[rotten] + 300), *b"newer");
        assert!(Pool::open(drive.clone()).unwrap().mended().is_empty());
    }
}

#[test]
fn truncated_drive_is_refused() {
    for size_bytes in [SIZE - 512, SIZE - 12 * MIB, MIN_DEVICE_BYTES] {
        let message = refused(&resized(&pooled(), size_bytes, 512));
        assert!(message.contains("truncated"), "{message}");
        assert!(message.contains(&size_bytes.to_string()), "{message}");
    }
    // What is left of a pool that is smaller than any pool is still named.
    let stump = resized(&pooled(), 4096, 512);
    let message = Pool::open(stump).unwrap_err().to_string();
    assert!(message.contains("truncated"), "{message}");
}

#[test]
fn drive_too_small_for_a_pool_is_refused() {
    for size_bytes in [512, 4096, MIB, 6 * MIB, MIN_DEVICE_BYTES - 512] {
        let drive = Arc::new(Malloc::new(size_bytes, 512).unwrap());
        let message = refused(&drive);
        assert!(message.contains("at least 8388608"), "{message}");
    }
    let smallest = Arc::new(Malloc::new(MIN_DEVICE_BYTES, 512).unwrap());
    let pool = Pool::format(smallest, options(false)).unwrap();
    pool.allocate("all", 1).unwrap();
    assert_eq!(pool.usage().free_bytes, 0);
}

#[test]
fn blocks_that_became_larger_are_refused() {
    let message = refused(&resized(&pooled(), SIZE, 4096));
    assert!(message.contains("blocks of 4096 bytes"), "{message}");
    let drive = Arc::new(Malloc::new(SIZE, 4096).unwrap());
    Pool::format(drive.clone(), options(false)).unwrap();
    Pool::open(resized(&drive, SIZE, 512)).unwrap();
}

#[test]
fn larger_drive_gains_space_that_is_erased_first() {
    let drive = resized(&pooled(), SIZE + 4 * MIB, 512);
    // In what was the tail and in the new space may stand anything.
    for at in [SIZE - MIB, SIZE, SIZE + 3 * MIB - 4096] {
        drive.write_at(at, &[7; 4096]).unwrap();
    }
    let report = Pool::inspect(&*drive).unwrap();
    assert!(report.notes[0].contains("grew by 4 MiB"), "{report}");
    let pool = Pool::open(drive.clone()).unwrap();
    assert_eq!(pool.usage().capacity_bytes, 20 * MIB);
    assert_eq!(pool.usage().erase_pending_bytes, 4 * MIB);
    while pool.erase_step(MIB).unwrap().pending_bytes > 0 {}
    for at in [SIZE - MIB, SIZE, SIZE + 3 * MIB - 4096] {
        assert_eq!(read::<4096>(&drive, at), [0; 4096]);
    }
    assert_eq!(Pool::open(drive).unwrap().usage(), pool.usage());
}

#[test]
fn interrupted_format_is_told_and_ended_without_force() {
    let drive = blank();
    let faulty = Arc::new(ErrorDevice::new(drive.clone()));
    faulty.inject(
        Fault::new(Effect::Fail(5))
            .on(FaultOp::Write)
            .within(TABLES[0]..TABLES[1]),
    );
    let error = Pool::format(faulty, options(false)).unwrap_err();
    assert!(matches!(error, PoolError::TableWrite { .. }), "{error}");
    let error = Pool::open(drive.clone()).unwrap_err();
    assert!(matches!(error, PoolError::FormatInterrupted), "{error}");
    let pool = Pool::format(drive, options(false)).unwrap();
    assert_eq!(pool.usage().free_bytes, 16 * MIB);
}

#[test]
fn identity_that_cannot_be_kept_is_refused_before_anything_is_written() {
    let drive = blank();
    for identity in ["x".repeat(193), "line\nbreak".into()] {
        let options = FormatOptions {
            identity,
            ..options(false)
        };
        let error = Pool::format(drive.clone(), options).unwrap_err();
        assert!(
            matches!(error, PoolError::InvalidIdentity { .. }),
            "{error}"
        );
    }
    assert!(ends(&*drive).iter().all(|byte| *byte == 0));
}

/// A drive that claims to zero and does not is noticed, and overwritten; one that does not even write stays in quarantine.
#[test]
fn zeros_are_read_back_before_space_is_free() {
    let drive = pooled();
    let pool = Pool::open(drive.clone()).unwrap();
    let first = pool.volume("first").unwrap().extents[0];
    drive
        .write_at(first.offset_bytes, &vec![1; 2 << 20])
        .unwrap();
    pool.release("first").unwrap();
    drop(pool);
    let liar = Arc::new(support::Liar::new(drive.clone()));
    let pool = Pool::open(liar.clone()).unwrap();
    liar.lie_about_writes(true);
    let error = pool.erase_step(2 * MIB).unwrap_err();
    assert!(matches!(error, PoolError::NotErased { .. }), "{error}");
    assert_eq!(pool.usage().erase_pending_bytes, 2 * MIB);
    liar.lie_about_writes(false);
    assert_eq!(pool.erase_step(2 * MIB).unwrap().erased_bytes, 2 * MIB);
    assert_eq!(read::<4096>(&drive, first.offset_bytes + 4096), [0; 4096]);
}

#[test]
fn report_shows_everything_a_person_needs() {
    let drive = pooled();
    let pool = Pool::open(drive.clone()).unwrap();
    pool.release("second").unwrap();
    let expected = format!(
        "\
device       malloc, 23 MiB, blocks of 512
superblock 0 at      0 B  valid
superblock 1 at    5 MiB  valid
table 0      at    1 MiB  valid, generation 4  (current)
table 1      at    3 MiB  valid, generation 4
pool         {}, format 1.0
made on      drive
space        16 MiB in all: 2 MiB in 1 volume, 13 MiB free (largest piece 13 MiB), 1 MiB to erase
VOLUME                                   STATE                SIZE  extents (offset+length in MiB)
first                                    allocated           2 MiB  6+2
second                                   to erase            1 MiB  8+1
state        healthy
",
        pool.uuid()
    );
    assert_eq!(Pool::inspect(&*drive).unwrap().to_string(), expected);
}
