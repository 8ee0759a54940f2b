//! A volume's life on a real device: made, found again, grown, given up, erased, its space given to another.

#![allow(clippy::unwrap_used)]

use holdfast_bdev::{BlockDevice, Malloc};
use holdfast_pool::{EXTENT_BYTES, Extent, FormatOptions, Pool, PoolError, Volume};
use std::sync::Arc;

const MIB: u64 = EXTENT_BYTES;
/// Six MiB of head, then data, and one MiB of tail.
const DATA: u64 = 6 * MIB;
const TAIL: u64 = MIB;

fn drive(data_mib: u64) -> Arc<Malloc> {
    Arc::new(Malloc::new(DATA + data_mib * MIB + TAIL, 512).unwrap())
}

fn pool_on(device: &Arc<Malloc>, zeroed: bool) -> Pool {
    let options = FormatOptions {
        identity: "test drive".into(),
        zeroed,
        force: false,
    };
    Pool::format(device.clone(), options).unwrap()
}

fn places(volume: &Volume) -> Vec<(u64, u64)> {
    let mib = |extent: &Extent| {
        (
            (extent.offset_bytes - DATA) / MIB,
            extent.length_bytes / MIB,
        )
    };
    volume.extents.iter().map(mib).collect()
}

fn erase_all(pool: &Pool) {
    while pool.erase_step(4 * MIB).unwrap().pending_bytes > 0 {}
}

#[test]
fn volume_is_found_again_after_reopen() {
    let device = drive(32);
    let made = pool_on(&device, true)
        .allocate("disk", 5 * MIB + 1)
        .unwrap();
    assert_eq!((made.size_bytes, places(&made)), (6 * MIB, vec![(0, 6)]));
    let again = Pool::open(device).unwrap();
    assert_eq!(again.volume("disk"), Some(made));
    assert_eq!(again.identity(), "test drive");
    assert!(again.mended().is_empty(), "{:?}", again.mended());
}

#[test]
fn same_allocation_twice_is_one_volume() {
    let pool = pool_on(&drive(32), true);
    let first = pool.allocate("disk", 5 * MIB).unwrap();
    assert_eq!(pool.allocate("disk", 5 * MIB - 7).unwrap(), first);
    assert_eq!(pool.usage().volumes, 1);
    let other = pool.allocate("disk", 6 * MIB).unwrap_err();
    assert!(matches!(other, PoolError::AlreadyExists { size_bytes, .. } if size_bytes == 5 * MIB));
}

#[test]
fn hole_that_fits_is_taken_before_larger_one() {
    let pool = pool_on(&drive(32), true);
    for (id, size) in [("a", 3), ("b", 1), ("c", 2), ("d", 1)] {
        pool.allocate(id, size * MIB).unwrap();
    }
    pool.release("a").unwrap();
    pool.release("c").unwrap();
    erase_all(&pool);
    assert_eq!(places(&pool.allocate("two", 2 * MIB).unwrap()), [(4, 2)]);
    assert_eq!(places(&pool.allocate("three", 3 * MIB).unwrap()), [(0, 3)]);
}

#[test]
fn volume_larger_than_any_hole_gets_few_extents() {
    let pool = pool_on(&drive(12), true);
    for (id, size) in [("a", 4), ("b", 1), ("c", 2), ("d", 1), ("e", 4)] {
        pool.allocate(id, size * MIB).unwrap();
    }
    for id in ["a", "c", "e"] {
        pool.release(id).unwrap();
    }
    erase_all(&pool);
    let big = pool.allocate("big", 6 * MIB).unwrap();
    // One hole of four is used up, and the hole of two fits the rest exactly.
    assert_eq!(places(&big), [(5, 2), (8, 4)]);
}

#[test]
fn volume_grows_in_place_when_neighbour_is_free() {
    let device = drive(32);
    let pool = pool_on(&device, true);
    pool.allocate("a", 2 * MIB).unwrap();
    assert_eq!(places(&pool.grow("a", 5 * MIB).unwrap()), [(0, 5)]);
    pool.allocate("b", MIB).unwrap();
    assert_eq!(places(&pool.grow("a", 7 * MIB).unwrap()), [(0, 5), (6, 2)]);
    assert_eq!(pool.grow("a", 7 * MIB).unwrap().extents.len(), 2);
    assert!(matches!(
        pool.grow("a", MIB),
        Err(PoolError::CannotShrink { .. })
    ));
    assert!(matches!(
        pool.grow("x", MIB),
        Err(PoolError::NotFound { .. })
    ));
    assert_eq!(Pool::open(device).unwrap().volumes(), pool.volumes());
}

#[test]
fn released_space_is_not_free_before_it_is_erased() {
    let device = drive(8);
    let pool = pool_on(&device, true);
    pool.allocate("a", 8 * MIB).unwrap();
    assert!(pool.release("a").unwrap());
    assert!(!pool.release("a").unwrap());
    let full = pool.allocate("b", MIB).unwrap_err();
    assert!(full.to_string().contains("wait for the erasing"), "{full}");
    let progress = pool.erase_step(3 * MIB).unwrap();
    assert_eq!(
        (progress.erased_bytes, progress.pending_bytes),
        (3 * MIB, 5 * MIB)
    );
    // The erased part is free at once, the rest after a restart continues where it was.
    assert_eq!(places(&pool.allocate("b", 3 * MIB).unwrap()), [(0, 3)]);
    let again = Pool::open(device).unwrap();
    assert_eq!(again.usage().erase_pending_bytes, 5 * MIB);
    erase_all(&again);
    assert_eq!(again.usage().free_bytes, 5 * MIB);
}

#[test]
fn id_may_be_used_again_while_its_old_space_is_in_quarantine() {
    let device = drive(8);
    let pool = pool_on(&device, true);
    for _ in 0..3 {
        pool.allocate("same", 2 * MIB).unwrap();
        pool.release("same").unwrap();
    }
    pool.allocate("same", 2 * MIB).unwrap();
    let again = Pool::open(device).unwrap();
    assert_eq!(
        (again.usage().volumes, again.usage().erase_pending_bytes),
        (1, 6 * MIB)
    );
}

#[test]
fn new_tenant_reads_zeros_where_the_old_one_wrote() {
    let device = drive(8);
    let pool = pool_on(&device, true);
    let old = pool.allocate("old", 8 * MIB).unwrap();
    let pattern = vec![0xa5; 8 << 20];
    device
        .write_at(old.extents[0].offset_bytes, &pattern)
        .unwrap();
    pool.release("old").unwrap();
    erase_all(&pool);
    let new = pool.allocate("new", 8 * MIB).unwrap();
    assert_eq!(new.extents, old.extents);
    let mut seen = pattern;
    device
        .read_at(new.extents[0].offset_bytes, &mut seen)
        .unwrap();
    assert!(seen.iter().all(|byte| *byte == 0));
}

#[test]
fn device_of_unknown_contents_is_erased_before_use() {
    let device = drive(8);
    device.write_at(DATA + 3 * MIB, &[7; 5000]).unwrap();
    let pool = pool_on(&device, false);
    assert_eq!(
        (pool.usage().free_bytes, pool.usage().erase_pending_bytes),
        (0, 8 * MIB)
    );
    assert!(matches!(
        pool.allocate("a", MIB),
        Err(PoolError::NoSpace { .. })
    ));
    erase_all(&pool);
    pool.allocate("a", 8 * MIB).unwrap();
    let mut seen = [7; 5000];
    device.read_at(DATA + 3 * MIB, &mut seen).unwrap();
    assert_eq!(seen, [0; 5000]);
}

#[test]
fn tenants_data_is_erased_before_space_never_used() {
    let pool = pool_on(&drive(8), false);
    pool.erase_step(2 * MIB).unwrap();
    pool.allocate("a", MIB).unwrap();
    pool.release("a").unwrap();
    pool.erase_step(MIB).unwrap();
    let report = pool.pending();
    assert!(
        report.iter().all(|pending| pending.released.is_none()),
        "{report:?}"
    );
}

#[test]
fn volume_nobody_knows_is_listed_as_orphan() {
    let pool = pool_on(&drive(8), true);
    pool.allocate("known", MIB).unwrap();
    pool.allocate("lost", MIB).unwrap();
    let orphans = pool.orphans(&|id| id == "known");
    assert_eq!(
        orphans
            .iter()
            .map(|volume| volume.id.as_str())
            .collect::<Vec<_>>(),
        ["lost"]
    );
    assert_eq!(pool.volumes().len(), 2);
}

#[test]
fn wrong_drive_is_named() {
    let pool = pool_on(&drive(8), true);
    pool.expect(None, None).unwrap();
    pool.expect(Some(pool.uuid()), Some("test drive")).unwrap();
    let wrong = pool.expect(Some(uuid::Uuid::nil()), None).unwrap_err();
    assert!(
        wrong.to_string().contains(&uuid::Uuid::nil().to_string()),
        "{wrong}"
    );
    let wrong = pool.expect(None, Some("other drive")).unwrap_err();
    assert!(wrong.to_string().contains("other drive"), "{wrong}");
}

#[test]
fn impossible_sizes_and_ids_are_refused() {
    let pool = pool_on(&drive(8), true);
    assert!(matches!(
        pool.allocate("a", 0),
        Err(PoolError::InvalidSize { .. })
    ));
    for size in [1 << 60, u64::MAX, 9 * MIB] {
        assert!(
            matches!(pool.allocate("a", size), Err(PoolError::NoSpace { .. })),
            "{size}"
        );
    }
    for id in ["", "tab\t", &"x".repeat(129)] {
        assert!(
            matches!(pool.allocate(id, MIB), Err(PoolError::InvalidId { .. })),
            "{id:?}"
        );
    }
    pool.allocate(&"x".repeat(128), 1).unwrap();
    assert_eq!(pool.usage().allocated_bytes, MIB);
}
