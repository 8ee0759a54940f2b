//! What a device answers is what the guest of that request gets, and nobody else: every operation, every kind of error, in
//! every place, on devices that cannot be lost and on drives that can.
#![allow(clippy::unwrap_used, clippy::cast_possible_truncation)]

mod common;

use common::drive::{Drive, LONG};
use common::{Bench, eventually, pattern};
use holdfast_bdev::{Effect, ErrorDevice, Fault, FaultOp, IoStatus, Malloc};
use holdfast_dataplane::ExportStats;
use holdfast_testkit::frontend::{Guest, Layout, Op, Range, status};
use std::sync::Arc;

const KIB: u64 = 1024;
/// Bad sector, lost, reset, timeout, full, worn out, checksum: what drives and kernels say.
const ERRORS: [i32; 9] = [
    libc::EIO,
    libc::ENODEV,
    libc::ENXIO,
    libc::ESHUTDOWN,
    libc::ETIMEDOUT,
    libc::ENOSPC,
    libc::ENODATA,
    libc::EREMOTEIO,
    libc::EILSEQ,
];
const OPS: [FaultOp; 5] = [
    FaultOp::Read,
    FaultOp::Write,
    FaultOp::Flush,
    FaultOp::Discard,
    FaultOp::WriteZeroes,
];
/// Where the bad 4 KiB lie in the 64 KiB that are used: first, in the middle, last.
const PLACES: [u64; 3] = [0, 28 * KIB, 60 * KIB];

fn range(offset: u64) -> Range {
    Range {
        sector: offset / 512,
        sectors: 8,
        flags: 0,
    }
}

/// A request of this operation for 4 KiB.
fn op(what: FaultOp, offset: u64) -> Op {
    let len = 4 * KIB as u32;
    match what {
        FaultOp::Read | FaultOp::Any => Op::Read { offset, len },
        FaultOp::Write => Op::Write {
            offset,
            data: pattern(9, len as usize),
        },
        FaultOp::Flush => Op::Flush,
        FaultOp::Discard => Op::Discard(vec![range(offset)]),
        FaultOp::WriteZeroes => Op::WriteZeroes(vec![range(offset)]),
    }
}

/// One operation on one place fails, and everything around it does not. `base` is where the disk lies on the device.
fn one_fails_alone(guest: &mut Guest, device: &ErrorDevice, base: u64, case: (FaultOp, i32, u64)) {
    let (what, errno, place) = case;
    for at in 0..16 {
        let data = pattern(at as u8, 4 * KIB as usize);
        guest.queue(0).write(at * 4 * KIB, &data).unwrap();
    }
    let bad = base + place..base + place + 4 * KIB;
    let fault = Fault::new(Effect::Fail(errno)).on(what).within(bad);
    device.inject(fault);
    let done = guest
        .queue(0)
        .call(op(what, place), Layout::DIRECT)
        .unwrap();
    assert_eq!(done.status, status::IOERR, "{case:?}");
    // The places beside it, on both queues, with the same operation. A flush has no place.
    for beside in [place.checked_sub(4 * KIB), Some(place + 4 * KIB)] {
        let Some(beside) = beside.filter(|_| what != FaultOp::Flush) else {
            continue;
        };
        let done = guest.queue(1).call(op(what, beside), Layout::DIRECT);
        assert_eq!(done.unwrap().status, status::OK, "{case:?} at {beside}");
    }
    device.clear();
    // The request is done when the guest tries again, and what failed has changed nothing.
    let seen = guest.queue(1).read(place, 4 * KIB as u32).unwrap();
    let before = pattern((place / (4 * KIB)) as u8, 4 * KIB as usize);
    assert!(seen == before, "{case:?} has changed something");
    let done = guest
        .queue(0)
        .call(op(what, place), Layout::DIRECT)
        .unwrap();
    assert_eq!(done.status, status::OK, "{case:?} again");
}

fn all_cases() -> impl Iterator<Item = (FaultOp, i32, u64)> {
    let pairs = OPS.into_iter().flat_map(|op| ERRORS.map(|e| (op, e)));
    pairs.flat_map(|(op, errno)| PLACES.map(|place| (op, errno, place)))
}

fn errors(stats: &ExportStats) -> u64 {
    let ops = [&stats.reads, &stats.writes, &stats.flushes, &stats.discards];
    ops.iter().map(|op| op.errors).sum()
}

#[test]
fn error_of_a_device_is_that_of_its_request_alone() {
    let bench = Bench::empty();
    let device = ErrorDevice::new(Arc::new(Malloc::new(16 << 20, 512).unwrap()));
    bench.serve("disk", Arc::new(device.clone()));
    let builder = Guest::builder().queues(2);
    let mut guest = builder.connect(bench.socket("disk")).unwrap();
    all_cases().for_each(|case| one_fails_alone(&mut guest, &device, 0, case));
    let cases = all_cases().count() as u64;
    assert_eq!(
        errors(&bench.engine.stats()[0]),
        cases,
        "each fault has struck"
    );
}

#[test]
fn error_of_a_drive_that_answers_is_that_of_its_request_alone() {
    let drive = Drive::new("errors");
    let device = drive.handle();
    let mut guest = drive.guest("a", LONG);
    let base = drive.engine().volume("pool", "a").unwrap().unwrap().extents[0].offset_bytes;
    all_cases().for_each(|case| one_fails_alone(&mut guest, &device, base, case));
    assert!(!drive.engine().pool("pool").unwrap().lost);
    let stats = drive.engine().stats();
    let mine = stats.iter().find(|one| one.export == "a").unwrap();
    assert_eq!((errors(mine), mine.held), (all_cases().count() as u64, 0));
}

#[test]
fn hanging_request_of_any_kind_delays_itself_alone_and_gets_its_verdict() {
    let bench = Bench::empty();
    let device = ErrorDevice::new(Arc::new(Malloc::new(16 << 20, 512).unwrap()));
    bench.serve("disk", Arc::new(device.clone()));
    let builder = Guest::builder().queues(2);
    let mut guest = builder.connect(bench.socket("disk")).unwrap();
    for what in OPS {
        for (verdict, wanted) in [
            (IoStatus::Ok, status::OK),
            (IoStatus::Failed(libc::ETIMEDOUT), status::IOERR),
        ] {
            device.inject(Fault::new(Effect::Hang).on(what).times(1));
            let late = guest.queue(0).submit(op(what, 0), Layout::DIRECT).unwrap();
            eventually("it hangs", || device.hanging() == 1);
            for other in OPS {
                let beside = guest.queue(0).submit(op(other, 8 * KIB), Layout::DIRECT);
                let beside = beside.unwrap();
                let done = guest.queue(0).wait().unwrap();
                assert_eq!((done[0].ticket, done[0].status), (beside, status::OK));
            }
            device.release(verdict);
            let done = guest.queue(0).drain().unwrap();
            assert_eq!((done[0].ticket, done[0].status), (late, wanted), "{what:?}");
        }
    }
}
