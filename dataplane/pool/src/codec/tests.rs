//! Tables come back as they were written; whatever else stands in their place is refused with its reason.

use super::*;
use proptest::prelude::*;

const MIB: u64 = 1 << 20;
const DATA: u64 = 6 * MIB;
const ROOM: u64 = 2 * MIB;

fn uuid() -> Uuid {
    Uuid::from_bytes(*b"0123456789abcdef")
}

fn volume(id: &str, extents: &[(u64, u64)]) -> Volume {
    let extents: Vec<Extent> = extents
        .iter()
        .map(|(offset, length)| extent(DATA + offset * MIB, length * MIB))
        .collect();
    Volume {
        id: id.into(),
        size_bytes: extents.iter().map(|part| part.length_bytes).sum(),
        extents,
    }
}

fn waiting(released: Option<&str>, extents: &[(u64, u64)]) -> Pending {
    let shape = volume("shape", extents);
    Pending {
        released: released.map(str::to_string),
        size_bytes: shape.size_bytes,
        extents: shape.extents,
    }
}

fn sample() -> Table {
    let volumes = vec![
        volume("a", &[(0, 2), (9, 1)]),
        volume("eight-by", &[(2, 1)]),
    ];
    let pending = vec![waiting(Some("a"), &[(3, 1)]), waiting(None, &[(12, 4)])];
    Table::from_parts(DATA, DATA + 16 * MIB, volumes, pending).unwrap()
}

/// Reads what stands at the start of a region, as the journal does.
fn read(region: &[u8]) -> Result<(u64, Table), Fault> {
    let header = decode_header(region, uuid(), ROOM)?;
    let mut bytes = region.to_vec();
    bytes.resize(HEADER_BYTES + header.payload_bytes, 0);
    decode(&bytes, &header, DATA).map(|table| (header.generation, table))
}

/// The sample, changed and with a valid checksum, so that only the change can be wrong.
fn changed(at: usize, field: &[u8]) -> Result<(u64, Table), Fault> {
    let mut bytes = encode(&sample(), uuid(), 7);
    put(&mut bytes, at, field);
    let end = HEADER_BYTES + usize::try_from(u32_at(&bytes, 12)).unwrap();
    let crc = checksum(&bytes[..end.min(bytes.len())]);
    put(&mut bytes, CRC_AT, &crc.to_le_bytes());
    read(&bytes)
}

fn reason(read: Result<(u64, Table), Fault>) -> String {
    match read {
        Err(Fault::Damaged(reason)) => reason,
        other => panic!("{other:?} is not damaged"),
    }
}

#[test]
fn written_table_is_read_back() {
    let bytes = encode(&sample(), uuid(), 7);
    assert_eq!(bytes.len(), WRITE_BYTES);
    assert_eq!(read(&bytes), Ok((7, sample())));
    let empty = Table::new(DATA);
    assert_eq!(read(&encode(&empty, uuid(), 1)), Ok((1, empty)));
}

#[test]
fn every_single_bit_counts() {
    let whole = encode(&sample(), uuid(), 7);
    let end = HEADER_BYTES + usize::try_from(u32_at(&whole, 12)).unwrap();
    for bit in 0..end * 8 {
        let mut bytes = whole.clone();
        bytes[bit / 8] ^= 1 << (bit % 8);
        assert!(read(&bytes).is_err(), "bit {bit}");
    }
}

#[test]
fn bytes_after_the_last_record_say_nothing() {
    let mut bytes = encode(&sample(), uuid(), 7);
    *bytes.last_mut().unwrap() = 1;
    assert_eq!(read(&bytes), Ok((7, sample())));
}

#[test]
fn impossible_header_is_refused_with_its_reason() {
    let cases: [(usize, Vec<u8>, &str); 10] = [
        (0, b"X".to_vec(), "no table stands there"),
        (
            8,
            0_u16.to_le_bytes().to_vec(),
            "encoding 0 was never written",
        ),
        (12, u32::MAX.to_le_bytes().to_vec(), "do not fit"),
        (16, b"x".to_vec(), "another pool"),
        (32, 0_u64.to_le_bytes().to_vec(), "generation 0"),
        (32, u64::MAX.to_le_bytes().to_vec(), "impossible"),
        (40, (DATA - MIB).to_le_bytes().to_vec(), "a data area from"),
        (40, (DATA + 512).to_le_bytes().to_vec(), "a data area from"),
        (
            40,
            (DATA + 15 * MIB).to_le_bytes().to_vec(),
            "outside the data area",
        ),
        (48, 3_u32.to_le_bytes().to_vec(), "bytes follow"),
    ];
    for (at, field, expected) in cases {
        let reason = reason(changed(at, &field));
        assert!(reason.contains(expected), "byte {at}: {reason}");
    }
    assert!(reason(changed(48, &5_u32.to_le_bytes())).contains("record 4 is cut short"));
    assert!(reason(changed(48, &u32::MAX.to_le_bytes())).contains("cut short"));
}

#[test]
fn newer_encoding_is_named() {
    assert_eq!(changed(8, &2_u16.to_le_bytes()), Err(Fault::Newer(2)));
}

#[test]
fn blank_and_short_regions_are_told_apart() {
    assert_eq!(read(&[0; 4096]), Err(Fault::Blank));
    let cut = decode_header(&[0; 63], uuid(), ROOM).unwrap_err();
    assert_eq!(cut, Fault::damaged("it is cut short"));
}

#[test]
fn impossible_record_is_refused_with_its_reason() {
    // The first record: head at 64, id "a" padded to 8 bytes at 88, extents from 96 on.
    let cases: [(usize, Vec<u8>, &str); 14] = [
        (64, vec![0], "record 0"),
        (64, vec![4], "record 0"),
        (64, vec![3], "record 0"),
        (65, vec![0], "malformed"),
        (66, vec![1], "record 0"),
        (68, u32::MAX.to_le_bytes().to_vec(), "cut short"),
        (72, MIB.to_le_bytes().to_vec(), "does not match its extents"),
        (80, vec![1], "record 0"),
        (88, b"\xff".to_vec(), "record 0"),
        (88, b"\n".to_vec(), "control characters"),
        (89, vec![1], "record 0"),
        (96, (DATA + 512).to_le_bytes().to_vec(), "grid"),
        (
            96,
            (DATA + 2 * MIB).to_le_bytes().to_vec(),
            "two records claim",
        ),
        (104, u64::MAX.to_le_bytes().to_vec(), "does not match"),
    ];
    for (at, field, expected) in cases {
        let reason = reason(changed(at, &field));
        assert!(reason.contains(expected), "byte {at}: {reason}");
    }
}

/// A table of these records, as [`Table::from_parts`] judges it.
fn refused(volumes: Vec<Volume>, pending: Vec<Pending>) -> String {
    Table::from_parts(DATA, DATA + 16 * MIB, volumes, pending).unwrap_err()
}

#[test]
fn records_that_contradict_each_other_are_refused() {
    let twice = refused(vec![volume("a", &[(0, 1)]), volume("a", &[(1, 1)])], vec![]);
    assert!(twice.contains("there twice"), "{twice}");
    let shared = refused(vec![volume("a", &[(0, 2)])], vec![waiting(None, &[(1, 1)])]);
    assert!(shared.contains("two records claim"), "{shared}");
    let own = refused(vec![volume("a", &[(0, 2), (1, 1)])], vec![]);
    assert!(own.contains("two records claim"), "{own}");
    let empty = refused(vec![volume("a", &[])], vec![]);
    assert!(empty.contains("does not match"), "{empty}");
    let done = refused(vec![], vec![waiting(None, &[])]);
    assert!(done.contains("does not match"), "{done}");
    let mut more = waiting(Some("a"), &[(0, 2)]);
    more.size_bytes = MIB;
    assert!(refused(vec![], vec![more]).contains("does not match"));
    let long = refused(vec![volume(&"x".repeat(129), &[(0, 1)])], vec![]);
    assert!(long.contains("1 to 128 bytes"), "{long}");
}

/// Space that is doubted again may be more than the record that takes it ever had left; it must stay readable.
#[test]
fn doubted_table_is_read_back() {
    let mut table = Table::new(DATA);
    table.extend(DATA + 8 * MIB, false);
    let front = table.next_to_erase(6 * MIB);
    table.mark_erased(&front);
    table.allocate("a", MIB).unwrap();
    table.doubt_free();
    assert_eq!(table.pending_bytes(), 7 * MIB);
    assert_eq!(read(&encode(&table, uuid(), 9)), Ok((9, table)));
}

/// Any table that calls can lead to.
fn tables() -> impl Strategy<Value = Table> {
    let call = (0_u8..5, "[a-zé.-]{1,40}", 1_u64..9);
    let calls = proptest::collection::vec(call, 0..40);
    (calls, any::<bool>()).prop_map(|(calls, zeroed)| {
        let mut table = Table::new(DATA);
        table.extend(DATA + 64 * MIB, zeroed);
        for (kind, id, size) in calls {
            let some = table.volumes().next().map(|volume| volume.id.clone());
            match (kind, some) {
                (0 | 1, _) | (_, None) => drop(table.allocate(&id, size * MIB)),
                (2, Some(there)) => drop(table.grow(&there, 9 * size * MIB)),
                (3, Some(there)) => drop(table.release(&there)),
                _ => {
                    let next = table.next_to_erase(size * MIB);
                    table.mark_erased(&next);
                }
            }
        }
        table
    })
}

proptest! {
    #[test]
    fn any_table_is_read_back(table in tables(), generation in 1..u64::MAX / 2) {
        let bytes = encode(&table, uuid(), generation);
        prop_assert_eq!(bytes.len() as u64, encoded_bytes(&table));
        prop_assert_eq!(read(&bytes), Ok((generation, table)));
    }

    #[test]
    fn any_sealed_bytes_are_judged_without_panic(
        table in tables(),
        at in HEADER_BYTES..400,
        garbage in proptest::collection::vec(any::<u8>(), 1..40),
        records: u16,
    ) {
        let mut bytes = encode(&table, uuid(), 1);
        put(&mut bytes, at, &garbage);
        put(&mut bytes, 48, &u32::from(records).to_le_bytes());
        let end = HEADER_BYTES + usize::try_from(u32_at(&bytes, 12)).unwrap();
        let crc = checksum(&bytes[..end]);
        put(&mut bytes, CRC_AT, &crc.to_le_bytes());
        // What is accepted is a table: written again, it reads the same.
        if let Ok((_, table)) = read(&bytes) {
            prop_assert_eq!(read(&encode(&table, uuid(), 2)), Ok((2, table)));
        }
    }
}
