//! Any bytes as the head of a drive: looked at, opened, used. Nothing may panic, and what opens must be a pool that makes
//! sense and opens again.
#![no_main]

use arbitrary::Arbitrary;
use holdfast_bdev::{BlockDevice, Malloc};
use holdfast_pool::{FormatOptions, MIN_DEVICE_BYTES, Pool};
use libfuzzer_sys::fuzz_target;
use std::sync::{Arc, LazyLock};

const MIB: u64 = 1 << 20;
const DEVICE: u64 = MIN_DEVICE_BYTES + 16 * MIB;
/// Superblock, table, table, superblock.
const AREAS: [u64; 4] = [0, MIB, 3 * MIB, 5 * MIB];
/// How much of each area a sound pool of this size fills.
const AREA_BYTES: usize = 4096;
/// Where a superblock says how long a table copy is.
const TABLE_BYTES_AT: usize = 64;

#[derive(Arbitrary, Debug)]
struct Input {
    /// Start from a sound pool, or from zeros.
    sound: bool,
    /// Make the checksums right again afterwards: no fuzzer guesses them.
    seal: bool,
    patches: Vec<Patch>,
}

#[derive(Arbitrary, Debug)]
struct Patch {
    area: u8,
    offset: u16,
    bytes: Vec<u8>,
}

/// The areas of a pool with a volume, a volume of two extents, and one that waits to be erased.
static SOUND: LazyLock<[Vec<u8>; 4]> = LazyLock::new(|| {
    let device = Arc::new(Malloc::new(DEVICE, 512).expect("a small disk"));
    let options = FormatOptions {
        identity: "fuzz".into(),
        zeroed: true,
        force: false,
    };
    let pool = Pool::format(device.clone(), options).expect("a blank disk can be formatted");
    for (id, mib) in [("one", 2), ("gone", 3), ("two", 1), ("three", 4)] {
        pool.allocate(id, mib * MIB).expect("there is room");
    }
    pool.grow("two", 3 * MIB).expect("there is room");
    pool.release("gone").expect("it is there");
    let mut areas = AREAS.map(|at| {
        let mut bytes = vec![0; AREA_BYTES];
        device.read_at(at, &mut bytes).expect("inside the disk");
        bytes
    });
    // Small table copies: both are read whole each time, and megabytes of zeros teach nothing.
    for superblock in [0, 3] {
        areas[superblock][TABLE_BYTES_AT..][..8].copy_from_slice(&8192_u64.to_le_bytes());
    }
    seal(&mut areas);
    areas
});

fuzz_target!(|input: Input| {
    let mut areas = if input.sound {
        SOUND.clone()
    } else {
        AREAS.map(|_| vec![0; AREA_BYTES])
    };
    for patch in &input.patches {
        let area = &mut areas[usize::from(patch.area % 4)];
        let at = usize::from(patch.offset) % AREA_BYTES;
        let len = patch.bytes.len().min(AREA_BYTES - at);
        area[at..at + len].copy_from_slice(&patch.bytes[..len]);
    }
    if input.seal {
        seal(&mut areas);
    }
    let device = Arc::new(Malloc::new(DEVICE, 512).expect("a small disk"));
    for (at, bytes) in AREAS.into_iter().zip(&areas) {
        device.write_at(at, bytes).expect("inside the disk");
    }
    let report = Pool::inspect(&*device).expect("memory can be read");
    let _ = format!("{report} {report:?}");
    match Pool::open(device.clone()) {
        Ok(pool) => use_it(pool, device),
        Err(error) => assert!(!(input.sound && input.patches.is_empty()), "{error}"),
    }
});

/// Checksums as docs/on-disk-format.md has them.
fn seal(areas: &mut [Vec<u8>; 4]) {
    for superblock in [0, 3] {
        let sum = crc32c::crc32c(&areas[superblock][..504]);
        areas[superblock][504..508].copy_from_slice(&sum.to_le_bytes());
    }
    for table in [1, 2] {
        let area = &mut areas[table];
        let len = u32::from_le_bytes([area[12], area[13], area[14], area[15]]) as usize;
        let end = len.saturating_add(64).min(AREA_BYTES);
        let sum = crc32c::crc32c_append(crc32c::crc32c(&area[..60]), &area[64..end]);
        area[60..64].copy_from_slice(&sum.to_le_bytes());
    }
}

fn use_it(pool: Pool, device: Arc<Malloc>) {
    let mut taken = Vec::new();
    for volume in pool.volumes() {
        let sum: u64 = volume
            .extents
            .iter()
            .map(|extent| extent.length_bytes)
            .sum();
        assert_eq!(sum, volume.size_bytes);
        taken.extend(
            volume
                .extents
                .iter()
                .map(|e| (e.offset_bytes, e.length_bytes)),
        );
    }
    taken.sort_unstable();
    for pair in taken.windows(2) {
        assert!(
            pair[0].0 + pair[0].1 <= pair[1].0,
            "two volumes on one extent"
        );
    }
    assert!(
        taken.last().is_none_or(|(at, len)| at + len <= DEVICE),
        "a volume past the end"
    );
    let _ = pool.usage();
    let _ = pool.allocate("new", MIB);
    let _ = pool.erase_step(MIB);
    if let Some(volume) = pool.volumes().first() {
        let _ = pool.grow(&volume.id, volume.size_bytes + MIB);
        let _ = pool.release(&volume.id);
    }
    let before = pool.volumes();
    drop(pool);
    let again = Pool::open(device).expect("what was open opens again");
    assert_eq!(again.volumes(), before);
}
