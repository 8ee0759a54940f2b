//! Superblocks come back as they were written; any change to one is refused with its reason.

use super::*;
use proptest::prelude::*;

fn sample() -> Superblock {
    Superblock {
        version: VERSION,
        uuid: Uuid::from_bytes(*b"0123456789abcdef"),
        identity: "serial 42, namespace 1".into(),
        device_bytes: 1 << 40,
        block_size: 512,
        data_start: 6 << 20,
        table_offsets: [1 << 20, 3 << 20],
        table_bytes: 2 << 20,
    }
}

/// Copy 0 of the sample, changed and sealed again, so that only the change can be wrong.
fn changed(at: usize, field: &[u8]) -> Slot {
    let mut block = sample().encode(0);
    put(&mut block, at, field);
    seal(&mut block);
    decode(&block, 0)
}

fn reason(slot: Slot) -> String {
    match slot {
        Slot::Damaged(reason) => reason,
        other => panic!("{other:?} is not damaged"),
    }
}

#[test]
fn written_superblock_is_read_back() {
    for copy in [0, 1] {
        let block = sample().encode(copy);
        assert_eq!(block.len(), WRITE_BYTES);
        assert_eq!(decode(&block, copy), Slot::Valid(Box::new(sample())));
    }
}

#[test]
fn every_single_bit_counts() {
    let whole = sample().encode(0);
    // The four bytes after the checksum stay zero and say nothing.
    for bit in 0..(CRC_AT + 4) * 8 {
        let mut block = whole.clone();
        block[bit / 8] ^= 1 << (bit % 8);
        let slot = decode(&block, 0);
        let noticed = matches!(slot, Slot::Damaged(_) | Slot::Strange);
        assert!(noticed, "bit {bit}: {slot:?}");
    }
}

#[test]
fn no_superblock_ends_like_a_boot_sector() {
    for copy in [0, 1] {
        assert_eq!(sample().encode(copy)[CRC_AT + 4..SUPERBLOCK_BYTES], [0; 4]);
    }
}

#[test]
fn impossible_field_is_refused_with_its_reason() {
    let u64_of = |number: u64| number.to_le_bytes().to_vec();
    let u32_of = |number: u32| number.to_le_bytes().to_vec();
    let cases: [(usize, Vec<u8>, &str); 17] = [
        (32, u64_of(6 << 20), "a data area from"),
        (32, u64_of(0), "a data area from"),
        (40, u64_of((6 << 20) + 4096), "overlap"),
        (40, u64_of(5 << 20), "overlap"),
        (40, u64_of(u64::MAX - 4095), "overlap"),
        (48, u64_of(0), "overlap"),
        (48, u64_of(2 << 20), "overlap"),
        (48, u64_of((1 << 20) - 512), "overlap"),
        (48, u64_of(u64::MAX), "overlap"),
        (56, u64_of(7 << 20), "overlap"),
        (64, u64_of(0), "table copies of 0 bytes"),
        (64, u64_of(4097), "table copies of 4097 bytes"),
        (64, u64_of(1 << 40), "table copies of"),
        (72, u64_of(4096), "extent alignment 4096"),
        (80, u32_of(1024), "block size 1024"),
        (84, u32_of(1), "copy 1 in the place of copy 0"),
        (88, u32_of(193), "identity of 193 bytes"),
    ];
    for (at, field, expected) in cases {
        let reason = reason(changed(at, &field));
        assert!(reason.contains(expected), "byte {at}: {reason}");
    }
}

#[test]
fn table_off_the_block_grid_is_refused() {
    let mut odd = sample();
    (odd.table_bytes, odd.table_offsets[0]) = (1 << 20, (1 << 20) + 512);
    assert!(reason(decode(&odd.encode(0), 0)).contains("4096-byte grid"));
}

#[test]
fn identity_that_is_no_text_is_refused() {
    assert!(reason(changed(IDENTITY_AT, b"\xff")).contains("not UTF-8"));
    assert!(reason(changed(IDENTITY_AT, b"\n")).contains("control characters"));
}

#[test]
fn newer_minor_version_is_read_and_newer_reader_is_asked_for() {
    let mut newer = sample();
    newer.version = (1, 7);
    assert_eq!(decode(&newer.encode(0), 0), Slot::Valid(Box::new(newer)));
    let needs = |major: u16, minor: u16| [major.to_le_bytes(), minor.to_le_bytes()].concat();
    for (major, minor) in [(1, 1), (2, 0), (u16::MAX, u16::MAX)] {
        let expected = Slot::Newer {
            version: VERSION,
            needs: (major, minor),
        };
        assert_eq!(changed(12, &needs(major, minor)), expected);
    }
}

#[test]
fn marker_is_read_back() {
    for contents_unknown in [false, true] {
        let block = encode_marker(contents_unknown);
        assert_eq!(decode(&block, 0), Slot::Marker { contents_unknown });
        let mut torn = block;
        torn[20] ^= 1;
        assert!(reason(decode(&torn, 0)).contains("checksum"));
    }
}

#[test]
fn what_is_not_ours_is_told_from_nothing() {
    assert_eq!(decode(&[0; 512], 0), Slot::Blank);
    assert_eq!(decode(&[0; 100], 0), Slot::Blank);
    assert_eq!(decode(&[], 1), Slot::Blank);
    assert_eq!(decode(&[1; 100], 0), Slot::Strange);
    assert_eq!(decode(&[1; 512], 0), Slot::Strange);
}

proptest! {
    #[test]
    fn any_superblock_is_read_back(
        uuid: [u8; 16],
        identity in "[^\\p{Cc}]{0,48}",
        extents in 1_u64..1 << 30,
        large_blocks: bool,
        copy in 0_u32..2,
    ) {
        let superblock = Superblock {
            uuid: Uuid::from_bytes(uuid),
            identity,
            device_bytes: (6 << 20) + (extents << 20),
            block_size: if large_blocks { 4096 } else { 512 },
            ..sample()
        };
        prop_assert_eq!(decode(&superblock.encode(copy), copy), Slot::Valid(Box::new(superblock)));
    }

    #[test]
    fn any_sealed_bytes_are_judged_without_panic(mut block in proptest::collection::vec(any::<u8>(), 512)) {
        put(&mut block, 0, MAGIC);
        put(&mut block, 12, &[1, 0, 0, 0]);
        seal(&mut block);
        let slot = decode(&block, 0);
        prop_assert!(matches!(slot, Slot::Damaged(_)), "{:?}", slot);
    }
}
