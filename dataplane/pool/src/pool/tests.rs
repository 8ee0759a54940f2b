//! A table with no room left: a clear refusal, and nothing that would make room is refused.

use super::*;
use crate::layout::{DATA_START, EXTENT_BYTES, MIN_DEVICE_BYTES};
use crate::space::extent;
use holdfast_bdev::Malloc;
use std::time::Instant;

/// A pool of so many volumes with the longest ids, made in one go: 168 bytes each.
fn crowded(volumes: u64, spare_mib: u64) -> Arc<Malloc> {
    let size_bytes = MIN_DEVICE_BYTES + (volumes + spare_mib) * EXTENT_BYTES;
    let device = Arc::new(Malloc::new(size_bytes, 512).unwrap());
    let options = FormatOptions {
        identity: "crowd".into(),
        zeroed: true,
        force: false,
    };
    let pool = Pool::format(device.clone(), options).unwrap();
    let records = (0..volumes).map(|number| Volume {
        id: format!("{number:0>128}"),
        size_bytes: EXTENT_BYTES,
        extents: vec![extent(DATA_START + number * EXTENT_BYTES, EXTENT_BYTES)],
    });
    let end = pool.lock().table.managed_end();
    let table = Table::from_parts(DATA_START, end, records.collect(), vec![]).unwrap();
    let mut state = pool.lock();
    state.journal.commit(&*device, &table).unwrap();
    device
}

#[test]
fn full_table_is_refused_and_nothing_is_lost() {
    let device = crowded(12_480, 16);
    let pool = Pool::open(device.clone()).unwrap();
    let mut made = 0;
    let error = loop {
        match pool.allocate(&format!("{made:x>128}"), 1) {
            Ok(_) => made += 1,
            Err(error) => break error,
        }
    };
    assert!(matches!(error, PoolError::TableFull { .. }), "{error}");
    assert!(error.to_string().contains("delete volumes"), "{error}");
    assert!(made > 0 && pool.usage().free_bytes > 0, "{made} made");
    let volumes = pool.volumes();
    let again = Pool::open(device).unwrap();
    assert_eq!(again.volumes(), volumes);
    assert!(again.mended().is_empty());
    // What makes room works: giving up, erasing, and then another volume.
    assert!(again.release(&volumes[7].id).unwrap());
    assert_eq!(again.erase_step(EXTENT_BYTES).unwrap().pending_bytes, 0);
    again.allocate(&"y".repeat(128), 1).unwrap();
}

#[test]
fn full_table_on_grown_device_still_gives_volumes_up() {
    let device = crowded(12_482, 1);
    let pool = Pool::open(device.clone()).unwrap();
    pool.allocate(&"x".repeat(48), 1).unwrap();
    let capacity = pool.usage().capacity_bytes;
    let mut head = vec![0; usize::try_from(DATA_START).unwrap()];
    device.read_at(0, &mut head).unwrap();
    let longer = device.info().size_bytes + 8 * EXTENT_BYTES;
    let longer = Arc::new(Malloc::new(longer, 512).unwrap());
    longer.write_at(0, &head).unwrap();
    let pool = Pool::open(longer).unwrap();
    // The record of the new space does not fit, so the space has to wait.
    assert_eq!(pool.usage().capacity_bytes, capacity);
    let (first, second) = (&pool.volumes()[0].id, &pool.volumes()[1].id);
    assert!(pool.release(first).unwrap() && pool.release(second).unwrap());
    while pool.erase_step(64 * EXTENT_BYTES).unwrap().pending_bytes > 0 {}
    let grown = capacity + 8 * EXTENT_BYTES;
    assert_eq!(pool.usage().capacity_bytes, grown);
}

#[test]
fn allocation_on_a_crowded_pool_is_measured() {
    let device = crowded(10_000, 64);
    let pool = Pool::open(device).unwrap();
    let start = Instant::now();
    for number in 0..32 {
        pool.allocate(&format!("new-{number}"), 1 << 20).unwrap();
    }
    let each = start.elapsed() / 32;
    println!("one allocation among 10,000 volumes: {each:?}");
    assert_eq!(pool.usage().volumes, 10_032);
}
