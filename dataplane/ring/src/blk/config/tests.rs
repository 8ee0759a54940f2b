//! The configuration space, byte by byte.

use super::{ConfigSpace, Topology};
use crate::blk::Limits;

const LIMITS: Limits = Limits {
    seg_max: 0x0102_0304,
    size_max: 0x1112_1314,
    max_discard_sectors: 0x2122_2324,
    max_discard_seg: 0x3132_3334,
    max_write_zeroes_sectors: 0x4142_4344,
    max_write_zeroes_seg: 0x5152_5354,
    block_size: 512,
    capacity_bytes: 0x0001_0203_0405_0607 * 512,
    read_only: false,
    discard: true,
    write_zeroes: true,
    flush: true,
};

#[test]
fn every_field_is_where_virtio_says() {
    let topology = Topology {
        physical_block_bytes: 4096,
        optimal_io_bytes: 1 << 20,
    };
    let space = ConfigSpace::bytes_with(&LIMITS, 0x6162, true, topology);
    #[rustfmt::skip]
    let expected = [
        7, 6, 5, 4, 3, 2, 1, 0,             // capacity in sectors
        0x14, 0x13, 0x12, 0x11,             // size_max
        0x04, 0x03, 0x02, 0x01,             // seg_max
        0, 0, 0, 0,                         // geometry
        0, 2, 0, 0,                         // blk_size: 512
        3,                                  // physical_block_exp: 8 blocks
        0,                                  // alignment_offset
        8, 0,                               // min_io_size in blocks
        0, 8, 0, 0,                         // opt_io_size in blocks: 2048
        1,                                  // writeback
        0,                                  // unused
        0x62, 0x61,                         // num_queues
        0x24, 0x23, 0x22, 0x21,             // max_discard_sectors
        0x34, 0x33, 0x32, 0x31,             // max_discard_seg
        1, 0, 0, 0,                         // discard_sector_alignment
        0x44, 0x43, 0x42, 0x41,             // max_write_zeroes_sectors
        0x54, 0x53, 0x52, 0x51,             // max_write_zeroes_seg
        1,                                  // write_zeroes_may_unmap
        0, 0, 0,                            // unused
    ];
    assert_eq!(space, expected);
}

#[test]
fn block_of_4096_bytes_changes_the_units_but_not_the_capacity() {
    let limits = Limits {
        block_size: 4096,
        ..LIMITS
    };
    let topology = Topology {
        physical_block_bytes: 4096,
        optimal_io_bytes: 1 << 20,
    };
    let space = ConfigSpace::bytes_with(&limits, 1, true, topology);
    assert_eq!(
        space[..8],
        [7, 6, 5, 4, 3, 2, 1, 0],
        "always sectors of 512 bytes"
    );
    assert_eq!(space[20..24], [0, 16, 0, 0], "blk_size");
    assert_eq!(
        (space[24], &space[26..28]),
        (0, &[1, 0][..]),
        "one block per physical block"
    );
    assert_eq!(space[28..32], [0, 1, 0, 0], "opt_io_size of 256 blocks");
    assert_eq!(
        space[44..48],
        [8, 0, 0, 0],
        "discards are aligned to blocks"
    );
}

#[test]
fn fields_of_features_that_are_not_offered_are_zero() {
    let limits = Limits {
        discard: false,
        write_zeroes: false,
        ..LIMITS
    };
    let space = ConfigSpace::bytes(&limits, 1, false);
    assert_eq!(space[36..], [0; 24]);
    let limits = Limits {
        discard: false,
        ..LIMITS
    };
    let space = ConfigSpace::bytes(&limits, 1, false);
    assert_eq!(space[56], 0, "a device that cannot discard does not unmap");
    assert_ne!(space[48..56], [0; 8]);
}

#[test]
fn write_cache_byte_follows_the_mode() {
    for (writeback, byte) in [(true, 1), (false, 0)] {
        assert_eq!(
            ConfigSpace::bytes(&LIMITS, 1, writeback)[ConfigSpace::WCE_OFFSET],
            byte
        );
    }
}

#[test]
fn unknown_topology_reads_as_physical_blocks_of_4096_bytes() {
    let space = ConfigSpace::bytes(&LIMITS, 1, true);
    assert_eq!((space[24], &space[26..32]), (3, &[8, 0, 0, 0, 0, 0][..]));
}

#[test]
fn physical_block_smaller_than_a_block_counts_as_one() {
    let topology = Topology {
        physical_block_bytes: 512,
        optimal_io_bytes: 0,
    };
    let limits = Limits {
        block_size: 4096,
        ..LIMITS
    };
    let space = ConfigSpace::bytes_with(&limits, 1, true, topology);
    assert_eq!((space[24], &space[26..28]), (0, &[1, 0][..]));
}
