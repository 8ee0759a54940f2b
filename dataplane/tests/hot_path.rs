//! A hot engine allocates nothing for a request. Alone in its process: it counts for all of it.
#![allow(clippy::unwrap_used)]

mod common;

use common::{Bench, SIZE};
use holdfast_bdev::{BlockDevice, Malloc, Null, Uring};
use holdfast_testkit::frontend::Guest;
use holdfast_testkit::load::{Clock, LoadQueue, Pattern, Wait, run};
use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// Allocations of all threads but those that have said they are the test.
static ALLOCATIONS: AtomicU64 = AtomicU64::new(0);

thread_local! {
    static IS_TEST: Cell<bool> = const { Cell::new(false) };
}

/// The system's allocator, counting what the engine's threads ask for.
struct Counting;

// SAFETY: hands everything on to the system's allocator.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        if !IS_TEST.get() {
            ALLOCATIONS.fetch_add(1, Ordering::Relaxed);
        }
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

const TIME: Duration = Duration::from_millis(50);
/// Requests of a spell. A disk that others keep busy gets the time it needs for them.
const SPELL: u64 = 128;
/// Lists grow to their size in some of them; what a request allocates is seen in all.
const SPELLS: usize = 12;

fn pattern(depth: u16) -> Pattern {
    Pattern {
        depth,
        bytes: 4096,
        reads_percent: 70,
        sequential: false,
        span_bytes: SIZE,
    }
}

fn guest(socket: &Path) -> (Guest, LoadQueue) {
    let mut guest = Guest::builder().inflight().connect(socket).unwrap();
    let queue = LoadQueue::all(&mut guest, pattern(1)).unwrap().remove(0);
    (guest, queue)
}

/// What the engine allocates during a spell of requests.
fn allocations(queue: &mut LoadQueue, clock: &Clock) -> u64 {
    let before = ALLOCATIONS.load(Ordering::Relaxed);
    let mut requests = 0;
    while requests < SPELL {
        let tally = run(std::slice::from_mut(queue), clock, Duration::ZERO, TIME).unwrap();
        assert_eq!(tally.errors, 0);
        requests += tally.latency.count();
    }
    ALLOCATIONS.load(Ordering::Relaxed) - before
}

#[test]
fn requests_of_a_steady_load_allocate_nothing_in_the_engine() {
    IS_TEST.set(true);
    let bench = Bench::empty();
    let folder = tempfile::tempdir_in("/dev/shm").unwrap();
    let on_disk = Uring::create(bench.dir.path().join("file"), SIZE).unwrap();
    let in_memory = Uring::create(folder.path().join("file"), SIZE).unwrap();
    let devices: [(&str, Arc<dyn BlockDevice>); 4] = [
        ("null", Arc::new(Null::new(SIZE, 512).unwrap())),
        ("malloc", Arc::new(Malloc::new(SIZE, 512).unwrap())),
        ("memory", Arc::new(in_memory)),
        ("disk", Arc::new(on_disk)),
    ];
    let clock = Clock::new();
    for (name, device) in devices {
        let (_guest, mut queue) = guest(&bench.serve(name, device));
        for (depth, wait) in [(1, Wait::Poll), (64, Wait::Poll), (8, Wait::Interrupt)] {
            queue.set_pattern(pattern(depth), wait).unwrap();
            let mut spells = (0..SPELLS).map(|_| allocations(&mut queue, &clock));
            assert!(
                spells.any(|allocated| allocated == 0),
                "{name}, depth {depth}: requests allocate in every spell"
            );
        }
    }
}
