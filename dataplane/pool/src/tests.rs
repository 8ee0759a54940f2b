//! Holds `docs/on-disk-format.md` to the code: its numbers and its example are compared with what the code writes.

use crate::codec;
use crate::layout::{
    DATA_START, EXTENT_BYTES, MIN_DEVICE_BYTES, SUPERBLOCK_OFFSETS, TABLE_BYTES, TABLE_OFFSETS,
    TAIL_BYTES, data_end,
};
use crate::superblock::{
    IDENTITY_MAX, SUPERBLOCK_BYTES, Superblock, TABLE_BYTES_MAX, VERSION, encode_marker,
};
use crate::table::{ID_MAX, Table};
use std::fmt::Write;
use uuid::Uuid;

const DOCUMENT: &str = include_str!("../../../docs/on-disk-format.md");
const MIB: u64 = 1 << 20;

/// As `hexdump -C` prints it: repeated lines shrink to a star.
fn hexdump(bytes: &[u8], base: usize) -> String {
    let mut out = String::new();
    let (mut before, mut starred): (&[u8], bool) = (&[], false);
    for (line, chunk) in bytes.chunks(16).enumerate() {
        if chunk == before {
            if !starred {
                out.push_str("*\n");
            }
            starred = true;
            continue;
        }
        (before, starred) = (chunk, false);
        write!(out, "{:08x} ", base + line * 16).unwrap();
        for (at, byte) in chunk.iter().enumerate() {
            let gap = if at == 8 { "  " } else { " " };
            write!(out, "{gap}{byte:02x}").unwrap();
        }
        let readable = |byte: &u8| match byte {
            0x20..=0x7e => char::from(*byte),
            _ => '.',
        };
        let text: String = chunk.iter().map(readable).collect();
        writeln!(out, "  |{text}|").unwrap();
    }
    writeln!(out, "{:08x}", base + bytes.len()).unwrap();
    out
}

fn holds(expected: &str) {
    assert!(
        DOCUMENT.contains(expected),
        "docs/on-disk-format.md does not say:\n{expected}"
    );
}

/// The pool of the example: 32 MiB, one volume in two pieces, one waiting to be erased, four MiB never erased.
fn example() -> (Superblock, Table) {
    let superblock = Superblock {
        version: VERSION,
        uuid: Uuid::from_u128(0x6f1d_2c3b_4a59_4687_9788_a9ba_cbdc_edfe),
        identity: "wwn-0x5000c500a1b2c3d4".into(),
        device_bytes: 32 * MIB,
        block_size: 512,
        data_start: DATA_START,
        table_offsets: TABLE_OFFSETS,
        table_bytes: TABLE_BYTES,
    };
    let mut table = Table::new(DATA_START);
    table.extend(data_end(28 * MIB), true);
    table.allocate("pvc-a", 3 * MIB).unwrap();
    table.allocate("pvc-b", 2 * MIB).unwrap();
    table.grow("pvc-a", 4 * MIB).unwrap();
    table.release("pvc-b");
    table.extend(data_end(32 * MIB), false);
    (superblock, table)
}

#[test]
fn numbers_of_the_document_are_those_of_the_code() {
    for (name, number) in [
        ("extent unit", EXTENT_BYTES),
        ("superblock copy 0", SUPERBLOCK_OFFSETS[0]),
        ("superblock copy 1", SUPERBLOCK_OFFSETS[1]),
        ("table copy 0", TABLE_OFFSETS[0]),
        ("table copy 1", TABLE_OFFSETS[1]),
        ("table copy size", TABLE_BYTES),
        ("largest table copy size", TABLE_BYTES_MAX),
        ("data area", DATA_START),
        ("tail, at least", TAIL_BYTES),
        ("smallest device", MIN_DEVICE_BYTES),
        ("superblock size", SUPERBLOCK_BYTES as u64),
        ("table header size", codec::HEADER_BYTES as u64),
        ("longest identity", IDENTITY_MAX as u64),
        ("longest volume id", ID_MAX as u64),
    ] {
        holds(&format!("| {name} | {number} |"));
    }
}

#[test]
fn example_of_the_document_is_what_the_code_writes() {
    let (superblock, table) = example();
    let block = superblock.encode(0);
    holds(&hexdump(&block[..SUPERBLOCK_BYTES], 0));
    let bytes = codec::encode(&table, superblock.uuid, 6);
    holds(&hexdump(&bytes[..512], 1 << 20));
    holds(&hexdump(&encode_marker(true)[..SUPERBLOCK_BYTES], 0));
}
