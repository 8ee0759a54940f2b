//! The record of another data plane's bugs, as tests of this one: one test for each row of docs/bug-class.md that can
//! apply, named after the issue or commit. What each row was, and the rows that cannot apply, are told there.
#![allow(clippy::unwrap_used, clippy::cast_possible_truncation)]

#[path = "../common/mod.rs"]
mod common;
mod guests;
mod hot_remove;
mod memory;
mod recovery;
mod sessions;
mod shutdown;
mod table;

use common::{Bench, SIZE, pattern};
use holdfast_bdev::{Delay, ErrorDevice, Malloc};
use holdfast_testkit::frontend::{Done, Op, status};
use std::sync::Arc;
use std::time::Duration;

/// Far more than anything here takes.
const DEADLINE: Duration = Duration::from_secs(10);

fn malloc() -> Arc<Malloc> {
    Arc::new(Malloc::new(SIZE, 512).unwrap())
}

/// `disk` answers late, so that messages overtake requests.
fn late() -> Bench {
    let bench = Bench::empty();
    let device = Delay::new(malloc(), Duration::from_micros(100));
    bench.serve("disk", Arc::new(device));
    bench
}

/// `disk` hangs on request.
fn stuck() -> (Bench, ErrorDevice) {
    let bench = Bench::empty();
    let device = ErrorDevice::new(malloc());
    bench.serve("disk", Arc::new(device.clone()));
    (bench, device)
}

fn write(offset: u64, seed: u8) -> Op {
    Op::Write {
        offset,
        data: pattern(seed, 512),
    }
}

fn read(offset: u64) -> Op {
    Op::Read { offset, len: 512 }
}

fn all_ok(done: &[Done]) -> bool {
    done.iter().all(|answer| answer.status == status::OK)
}
