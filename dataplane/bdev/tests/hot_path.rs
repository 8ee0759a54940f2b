//! Requests in the steady state allocate nothing: counted, not believed.
#![allow(clippy::unwrap_used)]

mod support;

use holdfast_bdev::{BlockDevice, DriverKind, Events, Io, IoStatus, Malloc, Op, Split, Token};
use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::sync::Arc;
use support::{Bench, DEADLINE, Skewed, uring_file};

thread_local! {
    static ALLOCATIONS: Cell<u64> = const { Cell::new(0) };
}

/// The system's allocator, counting per thread.
struct Counting;

// SAFETY: hands everything on to the system's allocator.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ALLOCATIONS.with(|count| count.set(count.get() + 1));
        // SAFETY: the caller keeps the contract of `alloc`.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // SAFETY: the caller keeps the contract of `dealloc`.
        unsafe { System.dealloc(pointer, layout) };
    }
}

#[global_allocator]
static COUNTING: Counting = Counting;

const DEPTH: u64 = 32;

/// Allocations of this thread during `rounds` of 32 requests each, of one and of three buffers.
fn allocations(bench: &mut Bench, skew: usize, rounds: u64) -> u64 {
    let mut buffers: Vec<Skewed> = (0..DEPTH).map(|_| Skewed::new(12288, skew)).collect();
    let arrays: Vec<_> = buffers
        .iter_mut()
        .zip([&[][..], &[4096, 4096]].into_iter().cycle())
        .map(|(buffer, cuts)| buffer.iovecs(cuts))
        .collect();
    let mut events = Events::default();
    events.completions.reserve(1024);
    let before = ALLOCATIONS.with(Cell::get);
    for round in 0..rounds {
        let op = if round % 2 == 0 { Op::Write } else { Op::Read };
        for (index, array) in (0..).zip(&arrays) {
            // SAFETY: buffers and arrays outlive the loop below, which waits for all.
            let io = unsafe { Io::with_buffers(op, index * 12288, array, Token(index)) };
            bench.submit(io);
        }
        let mut left = DEPTH;
        while left > 0 {
            bench.driver.wait(&mut events, Some(DEADLINE)).unwrap();
            assert!(!events.is_empty(), "{left} requests do not complete");
            for done in &events.completions {
                assert_eq!(done.status, IoStatus::Ok);
                left -= 1;
            }
        }
    }
    ALLOCATIONS.with(Cell::get) - before
}

#[test]
fn steady_state_allocates_nothing() {
    let file = uring_file(1 << 20);
    let extents = vec![(512 << 10, 512 << 10).into(), (0, 512 << 10).into()];
    let devices: [Arc<dyn BlockDevice>; 3] = [
        Arc::new(Malloc::new(1 << 20, 512).unwrap()),
        Arc::new(file.device.clone()),
        Arc::new(Split::new(Arc::new(file.device.clone()), extents).unwrap()),
    ];
    for device in devices {
        for skew in [0, 8] {
            let mut bench = Bench::new(&*device, DriverKind::Uring);
            // Lists and pools grow to their size.
            allocations(&mut bench, skew, 4);
            assert_eq!(
                allocations(&mut bench, skew, 100),
                0,
                "{device:?} skew {skew}"
            );
        }
    }
}
