//! The `blkio` crate, libblkio in Rust, as a front end: another project's idea of how to talk to our socket.
#![allow(unsafe_code, clippy::unwrap_used, clippy::cast_possible_truncation)]

mod common;

use blkio::{Blkio, Blkioq, Completion, ReqFlags};
use common::{Bench, SIZE};
use std::mem::MaybeUninit;
use std::time::Duration;

const CHUNK: usize = 64 << 10;

/// What a chunk holds that was written in a round.
fn chunk(round: usize, offset: u64) -> Vec<u8> {
    let words = (0..CHUNK as u64 / 8).map(|word| (offset + word * 8) ^ (round as u64) << 56);
    words.flat_map(u64::to_le_bytes).collect()
}

/// Waits for one request and demands that it went well.
fn finish(queue: &mut Blkioq) {
    let mut done = [MaybeUninit::<Completion>::uninit()];
    let mut patience = Duration::from_secs(10);
    let count = queue
        .do_io(&mut done, 1, Some(&mut patience), None)
        .unwrap();
    assert_eq!(count, 1);
    // SAFETY: `do_io` says that it has filled the first one.
    let done = unsafe { done[0].assume_init_ref() };
    assert_eq!((done.ret, done.user_data), (0, 7));
}

#[test]
fn libblkio_reads_what_it_wrote_through_every_queue() {
    let (bench, _device) = Bench::malloc();
    let mut blkio = Blkio::new("virtio-blk-vhost-user").unwrap();
    blkio
        .set_str("path", bench.socket("disk").to_str().unwrap())
        .unwrap();
    blkio.connect().unwrap();
    assert_eq!(blkio.get_u64("capacity").unwrap(), SIZE);
    blkio.set_i32("num-queues", 2).unwrap();
    let region = blkio.alloc_mem_region(CHUNK).unwrap();
    let mut started = blkio.start().unwrap();
    blkio.map_mem_region(&region).unwrap();
    let buffer = region.addr as *mut u8;
    for round in 0..20 {
        let offset = (round * 7 * CHUNK) as u64 % SIZE;
        let expected = chunk(round, offset);
        // SAFETY: the region is CHUNK bytes long and no request is under way.
        unsafe { std::ptr::copy_nonoverlapping(expected.as_ptr(), buffer, CHUNK) };
        let writer = &mut started.queues[round % 2];
        writer.write(offset, buffer, CHUNK, 7, ReqFlags::empty());
        finish(writer);
        writer.flush(7, ReqFlags::empty());
        finish(writer);
        // SAFETY: as above.
        unsafe { std::ptr::write_bytes(buffer, 0, CHUNK) };
        let reader = &mut started.queues[(round + 1) % 2];
        reader.read(offset, buffer, CHUNK, 7, ReqFlags::empty());
        finish(reader);
        // SAFETY: the read is done, and nobody else has the region.
        let seen = unsafe { std::slice::from_raw_parts(buffer, CHUNK) };
        assert!(seen == expected, "round {round}");
    }
}
