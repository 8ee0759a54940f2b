//! Devices in memory are told of a read before the one in front of it is done, which is kept back for so long. Nobody sees that:
//! what came first is done first, and done whatever comes behind it.
#![allow(clippy::unwrap_used)]

mod common;

use common::{Bench, pattern};
use holdfast_bdev::Uring;
use holdfast_testkit::frontend::{Desc, Guest, Layout, Op, status};
use std::sync::Arc;
use std::time::Duration;

const DEADLINE: Duration = Duration::from_secs(20);
const LEN: u32 = 4096;
/// More than one batch.
const ROUNDS: u8 = 25;

fn read() -> Op {
    Op::Read {
        offset: 0,
        len: LEN,
    }
}

/// A device in memory and one in a file in memory.
fn on_both(case: impl Fn(&mut Guest)) {
    let (bench, _device) = Bench::malloc();
    let folder = tempfile::tempdir_in("/dev/shm").unwrap();
    let file = Uring::create(folder.path().join("disk"), 1 << 20).unwrap();
    bench.serve("file", Arc::new(file));
    for name in ["disk", "file"] {
        let builder = Guest::builder().queues(2).queue_size(256);
        let mut guest = builder.connect(bench.socket(name)).unwrap();
        guest.queue(0).write(0, &pattern(0, LEN as usize)).unwrap();
        case(&mut guest);
    }
}

#[test]
fn read_sees_what_was_written_in_front_of_it_and_nothing_behind_it() {
    on_both(|guest| {
        let queue = guest.queue(0);
        let mut reads = Vec::new();
        for seed in 1..=ROUNDS {
            // One read that is kept back until another comes, and one until a write does.
            reads.push((queue.stage(read(), Layout::DIRECT).unwrap(), seed - 1));
            reads.push((queue.stage(read(), Layout::DIRECT).unwrap(), seed - 1));
            let data = pattern(seed, LEN as usize);
            let write = Op::Write { offset: 0, data };
            queue.stage(write, Layout::DIRECT).unwrap();
        }
        queue.notify().unwrap();
        let done = queue.drain().unwrap();
        assert_eq!(done.len(), 3 * usize::from(ROUNDS));
        assert!(done.iter().all(|done| done.status == status::OK));
        for (ticket, seed) in reads {
            let read = done.iter().find(|done| done.ticket == ticket).unwrap();
            assert_eq!(read.data, pattern(seed, LEN as usize), "in front of {seed}");
        }
    });
}

#[test]
fn read_in_front_of_a_broken_chain_is_answered() {
    on_both(|guest| {
        let queue = guest.queue(0);
        let ticket = queue.stage(read(), Layout::DIRECT).unwrap();
        let broken = queue.stage(read(), Layout::DIRECT).unwrap();
        queue
            .ring()
            .set_desc(broken.head(), Desc::new(1 << 60, 512, 0));
        queue.notify().unwrap();
        queue.wait_broken(DEADLINE).unwrap();
        let done = queue.wait_for(DEADLINE).unwrap();
        assert_eq!((done.len(), done[0].ticket), (1, ticket));
        assert_eq!(done[0].data, pattern(0, LEN as usize));
    });
}
