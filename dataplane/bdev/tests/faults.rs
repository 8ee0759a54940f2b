//! The devices that tests are made of: they must fail, hang and wait exactly as told.
#![allow(clippy::unwrap_used)]

mod support;

use holdfast_bdev::{
    BdevError, BlockDevice, Delay, Driver, DriverKind, Effect, ErrorDevice, Events, Fault, FaultOp,
    Io, IoStatus, Malloc, Op, Split, Token,
};
use std::sync::Arc;
use std::time::{Duration, Instant};
use support::{Bench, KINDS, Skewed, pattern, uring_file};

const MIB: u64 = 1 << 20;
const EIO: IoStatus = IoStatus::Failed(libc::EIO);

fn memory() -> Arc<dyn BlockDevice> {
    Arc::new(Malloc::new(4 * MIB, 512).unwrap())
}

#[test]
fn delayed_request_completes_after_its_latency_and_with_its_data() {
    for kind in KINDS {
        let latency = Duration::from_millis(30);
        let delay = Delay::new(memory(), latency);
        let mut bench = Bench::new(&delay, kind);
        let start = Instant::now();
        assert_eq!(bench.write(0, &[5; 512]), IoStatus::Ok);
        assert!(start.elapsed() >= latency, "{:?}", start.elapsed());
        delay.set_latency(Duration::ZERO);
        let start = Instant::now();
        assert_eq!(bench.read(0, 512), [5; 512]);
        assert!(
            start.elapsed() < latency,
            "the change reaches open channels"
        );
    }
}

#[test]
fn delayed_requests_overlap() {
    let latency = Duration::from_millis(200);
    let delay = Delay::new(memory(), latency);
    let mut bench = Bench::new(&delay, DriverKind::Auto);
    let start = Instant::now();
    for id in 0..50 {
        bench.submit(Io::without_buffers(Op::Flush, 0, 0, Token(id)));
    }
    let order: Vec<u64> = bench.take(50).iter().map(|done| done.token.0).collect();
    assert_eq!(order, (0..50).collect::<Vec<_>>());
    assert!(
        start.elapsed() < 10 * latency,
        "they do not wait for each other"
    );
}

#[test]
fn endless_delay_does_not_overflow_the_clock() {
    let delay = Delay::new(memory(), Duration::MAX);
    let mut bench = Bench::new(&delay, DriverKind::Auto);
    bench.submit(Io::without_buffers(Op::Flush, 0, 0, Token(1)));
    let mut events = Events::default();
    bench.driver.poll(&mut events).unwrap();
    assert!(events.is_empty());
    assert!(bench.driver.outstanding() > 0);
}

#[test]
fn only_chosen_requests_fail() {
    let device = ErrorDevice::new(memory());
    let mut bench = Bench::new(&device, DriverKind::Auto);
    device.inject(
        Fault::new(Effect::Fail(libc::EIO))
            .on(FaultOp::Write)
            .within(4096..8192),
    );
    assert_eq!(bench.write(0, &[1; 4096]), IoStatus::Ok, "ends before");
    assert_eq!(bench.write(8192, &[1; 4096]), IoStatus::Ok, "starts behind");
    assert_eq!(bench.write(0, &[2; 4608]), EIO, "touches");
    assert_eq!(
        bench.read(0, 8192)[..4096],
        [1; 4096],
        "the failed write did nothing"
    );
    assert_eq!(bench.plain(Op::Flush, 0, 0), IoStatus::Ok);
    device.clear();
    assert_eq!(bench.write(0, &[2; 4608]), IoStatus::Ok);
}

#[test]
fn counted_fault_ends_by_itself() {
    let device = ErrorDevice::new(memory());
    let mut bench = Bench::new(&device, DriverKind::Auto);
    device.inject(
        Fault::new(Effect::Fail(libc::ENOSPC))
            .on(FaultOp::Flush)
            .times(2),
    );
    let mut flush = || bench.plain(Op::Flush, 0, 0);
    let full = IoStatus::Failed(libc::ENOSPC);
    assert_eq!([flush(), flush(), flush()], [full, full, IoStatus::Ok]);
}

#[test]
fn hanging_request_completes_with_its_data_when_released() {
    for kind in KINDS {
        let file = uring_file(MIB);
        let device = ErrorDevice::new(Arc::new(file.device.clone()));
        let mut bench = Bench::new(&device, kind);
        let data = pattern(4096, 1);
        assert_eq!(bench.write(0, &data), IoStatus::Ok);
        device.inject(Fault::new(Effect::Hang).times(1));
        let mut buffer = Skewed::new(4096, 0);
        let array = buffer.iovecs(&[]);
        // SAFETY: buffer and array outlive `take`.
        bench.submit(unsafe { Io::with_buffers(Op::Read, 0, &array, Token(100)) });
        assert_eq!(bench.plain(Op::Flush, 0, 0), IoStatus::Ok, "others pass");
        assert_eq!(device.hanging(), 1);
        assert!(bench.driver.outstanding() > 0);
        let handle = device.clone();
        let releaser = std::thread::spawn(move || handle.release(IoStatus::Ok));
        assert_eq!(bench.take(1)[0].token, Token(100));
        releaser.join().unwrap();
        assert_eq!(buffer.bytes(), data);
        assert_eq!((device.hanging(), bench.driver.outstanding()), (0, 0));
    }
}

#[test]
fn hanging_request_can_be_released_with_an_error() {
    let device = ErrorDevice::new(memory());
    let mut bench = Bench::new(&device, DriverKind::Auto);
    device.inject(Fault::new(Effect::Hang));
    bench.submit(Io::without_buffers(Op::Flush, 0, 0, Token(1)));
    device.release(IoStatus::Failed(libc::ENODEV));
    assert_eq!(bench.take(1)[0].status, IoStatus::Failed(libc::ENODEV));
}

#[test]
fn release_after_the_driver_is_gone_is_harmless() {
    let device = ErrorDevice::new(memory());
    let mut bench = Bench::new(&device, DriverKind::Auto);
    device.inject(Fault::new(Effect::Hang));
    bench.submit(Io::without_buffers(Op::Flush, 0, 0, Token(1)));
    drop(bench);
    device.release(IoStatus::Ok);
}

#[test]
fn error_of_one_part_fails_the_whole_request() {
    for kind in KINDS {
        let device = ErrorDevice::new(memory());
        let extents = [(0, MIB), (2 * MIB, MIB), (MIB, MIB)]
            .map(Into::into)
            .to_vec();
        let split = Split::new(Arc::new(device.clone()), extents).unwrap();
        let mut bench = Bench::new(&split, kind);
        // The middle one of three parts.
        device.inject(Fault::new(Effect::Fail(libc::EIO)).within(2 * MIB..2 * MIB + 512));
        let mut whole = Skewed::new(3 << 20, 0);
        assert_eq!(bench.transfer(Op::Write, 0, &mut whole, &[700]), EIO);
        assert_eq!(bench.transfer(Op::Read, 0, &mut whole, &[700]), EIO);
        assert_eq!(bench.plain(Op::Discard, 0, 3 * MIB), EIO);
        device.clear();
        assert_eq!(
            bench.transfer(Op::Read, 0, &mut whole, &[700]),
            IoStatus::Ok
        );
        assert_eq!((bench.driver.outstanding(), bench.driver.stale()), (0, 0));
    }
}

#[test]
fn joined_request_waits_for_the_part_that_hangs() {
    let device = ErrorDevice::new(memory());
    let extents = [(2 * MIB, MIB), (0, MIB)].map(Into::into).to_vec();
    let split = Split::new(Arc::new(device.clone()), extents).unwrap();
    let mut bench = Bench::new(&split, DriverKind::Auto);
    device.inject(Fault::new(Effect::Hang).on(FaultOp::Discard).within(0..512));
    bench.submit(Io::without_buffers(Op::Discard, 0, 2 * MIB, Token(1)));
    assert_eq!(bench.plain(Op::Flush, 0, 0), IoStatus::Ok);
    assert_eq!(device.hanging(), 1);
    device.release(EIO);
    assert_eq!(bench.take(1)[0].status, EIO);
}

#[test]
fn blocking_access_fails_and_hangs_like_requests() {
    let device = ErrorDevice::new(memory());
    device.inject(Fault::new(Effect::Fail(libc::EIO)).times(4));
    for result in [
        device.read_at(0, &mut [0]),
        device.write_at(0, &[0]),
        device.write_zeroes_at(0, 1),
        device.flush(),
    ] {
        assert!(matches!(result, Err(BdevError::Io { .. })), "{result:?}");
    }
    device.inject(Fault::new(Effect::Hang).on(FaultOp::Write));
    let writer = std::thread::spawn({
        let device = device.clone();
        move || device.write_at(0, &[9])
    });
    let deadline = Instant::now() + support::DEADLINE;
    while device.hanging() == 0 {
        assert!(Instant::now() < deadline, "the write did not come");
        std::thread::yield_now();
    }
    device.release(IoStatus::Ok);
    writer.join().unwrap().unwrap();
    let mut byte = [0];
    device.read_at(0, &mut byte).unwrap();
    assert_eq!(byte, [9]);
}

#[test]
fn completion_from_another_thread_wakes_a_driver_that_sleeps() {
    for kind in KINDS {
        let mut driver = Driver::new(kind).unwrap();
        let remote = driver.remote();
        let thread = std::thread::spawn(move || remote.complete(Token(3), IoStatus::Ok));
        let mut events = Events::default();
        driver.wait(&mut events, Some(support::DEADLINE)).unwrap();
        assert_eq!(events.completions[0].token, Token(3));
        thread.join().unwrap();
    }
}
