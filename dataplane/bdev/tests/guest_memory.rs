//! Guest memory whose pages are exchanged while a device knows it: a balloon or virtio-mem gives them back and gets others at
//! the same address. The device must not hold on to the old ones (docs/decisions/0016).
#![allow(unsafe_code, clippy::unwrap_used)] // Maps a file as a guest's memory is.

mod support;

use holdfast_bdev::{BlockDevice, Io, IoStatus, Op, Token};
use rustix::fs::{FallocateFlags, MemfdFlags, fallocate, ftruncate, memfd_create};
use rustix::mm::{MapFlags, ProtFlags, mmap, munmap};
use support::{Bench, KINDS, memory_file, pattern, uring_file};

const BLOCK: usize = 4096;
const MEMORY: usize = 64 * BLOCK;

#[test]
fn read_into_pages_that_replaced_others_is_seen_by_the_guest() {
    for file in [uring_file(1 << 20), memory_file(1 << 20)] {
        file.device.write_at(0, &pattern(BLOCK, 1)).unwrap();
        for kind in KINDS {
            let memory = memfd_create("guest", MemfdFlags::CLOEXEC).unwrap();
            ftruncate(&memory, MEMORY as u64).unwrap();
            let (access, shared) = (ProtFlags::READ | ProtFlags::WRITE, MapFlags::SHARED);
            // SAFETY: a new mapping.
            let at = unsafe { mmap(std::ptr::null_mut(), MEMORY, access, shared, &memory, 0) };
            let at = at.unwrap();
            let array = [libc::iovec {
                iov_base: at,
                iov_len: BLOCK,
            }];
            let mut bench = Bench::new(&file.device, kind);
            for turn in 0..3 {
                // SAFETY: array and mapping outlive the driver.
                bench.submit(unsafe { Io::with_buffers(Op::Read, 0, &array, Token(turn)) });
                assert_eq!(bench.take(1)[0].status, IoStatus::Ok);
                // SAFETY: the request has ended.
                let found = unsafe { std::slice::from_raw_parts(at.cast::<u8>(), BLOCK) };
                assert_eq!(found, pattern(BLOCK, 1), "{kind:?}, turn {turn}");
                let hole = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
                fallocate(&memory, hole, 0, MEMORY as u64).unwrap();
            }
            drop(bench);
            // SAFETY: the mapping made above, which nobody uses any more.
            unsafe { munmap(at, MEMORY) }.unwrap();
        }
    }
}
