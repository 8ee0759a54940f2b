//! The wait point: readiness, fairness between kinds of entries, and what dropping it waits for.
#![allow(clippy::unwrap_used)]

mod support;

use holdfast_bdev::{BlockDevice, Driver, Events, Io, IoStatus, Op, Token};
use rustix::event::{EventfdFlags, eventfd};
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::{Duration, Instant};
use support::{Bench, DEADLINE, KINDS, Skewed, pattern, uring_file};

fn bell() -> Arc<OwnedFd> {
    Arc::new(eventfd(0, EventfdFlags::NONBLOCK | EventfdFlags::CLOEXEC).unwrap())
}

fn ring(bell: &OwnedFd) {
    rustix::io::write(bell, &1u64.to_ne_bytes()).unwrap();
}

fn silence(bell: &OwnedFd) {
    rustix::io::read(bell, &mut [0u8; 8]).unwrap();
}

#[test]
fn readable_descriptor_is_reported_until_it_is_read() {
    for kind in KINDS {
        let mut driver = Driver::new(kind).unwrap();
        let (fd, mut events) = (bell(), Events::default());
        driver.watch(Arc::clone(&fd), 42);
        ring(&fd);
        for _ in 0..3 {
            driver.wait(&mut events, Some(DEADLINE)).unwrap();
            assert_eq!(events.ready, [42], "{kind:?}");
        }
        silence(&fd);
        // One report may have been under way when it was read.
        driver.poll(&mut events).unwrap();
        driver
            .wait(&mut events, Some(Duration::from_millis(5)))
            .unwrap();
        assert!(events.is_empty(), "{kind:?}: {events:?}");
        ring(&fd);
        driver.wait(&mut events, Some(DEADLINE)).unwrap();
        assert_eq!(events.ready, [42], "{kind:?}: polled again after silence");
    }
}

#[test]
fn ended_watch_reports_nothing_and_lets_its_descriptor_go() {
    for kind in KINDS {
        let mut driver = Driver::new(kind).unwrap();
        let (fd, mut events) = (bell(), Events::default());
        let watch = driver.watch(Arc::clone(&fd), 1);
        driver.poll(&mut events).unwrap(); // The kernel holds a poll now.
        driver.unwatch(watch);
        driver.unwatch(watch);
        ring(&fd);
        let deadline = Instant::now() + DEADLINE;
        while Arc::strong_count(&fd) > 1 {
            assert!(
                Instant::now() < deadline,
                "{kind:?}: the descriptor is still held"
            );
            driver.poll(&mut events).unwrap();
            assert!(events.is_empty(), "{kind:?}: {events:?}");
        }
    }
}

#[test]
fn more_watches_than_a_queue_holds_are_all_heard() {
    for kind in KINDS {
        let file = uring_file(1 << 20);
        let mut bench = Bench::new(&file.device, kind);
        let quiet: Vec<Arc<OwnedFd>> = (0..700).map(|_| bell()).collect();
        for (key, fd) in quiet.iter().enumerate() {
            bench.driver.watch(Arc::clone(fd), key as u64);
        }
        // All polls have to go to the kernel before it is waited for: one of them alone will complete, and
        // whichever goes last is among these.
        let mut events = Events::default();
        for key in [0, 699] {
            ring(&quiet[key]);
            bench.driver.wait(&mut events, Some(DEADLINE)).unwrap();
            assert_eq!(events.ready, [key as u64], "{kind:?}");
            silence(&quiet[key]);
            bench.driver.poll(&mut events).unwrap();
        }
        assert_eq!(bench.write(0, &[1; 512]), IoStatus::Ok, "{kind:?}");
    }
}

#[test]
fn polling_alone_gets_every_completion() {
    for kind in KINDS {
        let file = uring_file(1 << 20);
        let mut bench = Bench::new(&file.device, kind);
        let mut buffer = Skewed::of(&pattern(4096, 1), 0);
        let array = buffer.iovecs(&[]);
        let ops = [Op::Write, Op::Flush, Op::Read, Op::Discard];
        for (id, op) in (0u64..).zip(ops) {
            let io = match op {
                // SAFETY: buffer and array outlive the loop below, which waits for all.
                Op::Read | Op::Write => unsafe { Io::with_buffers(op, 0, &array, Token(id)) },
                op => Io::without_buffers(op, 8192, 4096, Token(id)),
            };
            bench.submit(io);
        }
        let (mut events, mut seen) = (Events::default(), 0);
        let deadline = Instant::now() + DEADLINE;
        while seen < ops.len() {
            assert!(
                Instant::now() < deadline,
                "{kind:?}: {seen} of {}",
                ops.len()
            );
            bench.driver.poll(&mut events).unwrap();
            seen += events.completions.len();
        }
    }
}

#[test]
fn four_requests_are_with_the_drive_before_the_turn_is_over() {
    let file = uring_file(1 << 20);
    file.device.write_at(0, &[0; 4 * 4096]).unwrap();
    let mut buffers: Vec<Skewed> = (0..4)
        .map(|id| Skewed::of(&pattern(4096, id + 1), 0))
        .collect();
    let arrays: Vec<_> = buffers.iter_mut().map(|b| b.iovecs(&[])).collect();
    // Behind them, so that it is dropped first whatever happens, and waits.
    let mut bench = Bench::new(&file.device, KINDS[0]);
    for (id, array) in (0u64..).zip(&arrays) {
        // SAFETY: buffers and arrays outlive the driver.
        bench.submit(unsafe { Io::with_buffers(Op::Write, id * 4096, array, Token(id)) });
    }
    // Nobody asks the driver for anything meanwhile.
    let (mut found, deadline) = (vec![0; 4096], Instant::now() + DEADLINE);
    while found != pattern(4096, 1) {
        assert!(Instant::now() < deadline, "they wait for the next poll");
        std::thread::yield_now();
        file.device.read_at(0, &mut found).unwrap();
    }
    bench.take(4);
}

#[test]
fn timeout_without_events_comes_back_empty() {
    for kind in KINDS {
        let mut driver = Driver::new(kind).unwrap();
        let (mut events, start) = (Events::default(), Instant::now());
        driver
            .wait(&mut events, Some(Duration::from_millis(20)))
            .unwrap();
        assert!(events.is_empty());
        assert!(start.elapsed() >= Duration::from_millis(20), "{kind:?}");
    }
}

#[test]
fn dropped_driver_is_done_with_all_buffers() {
    for kind in KINDS {
        let file = uring_file(32 << 20);
        for round in 0..20 {
            file.device.write_at(0, &pattern(32 << 20, round)).unwrap();
            let mut bench = Bench::new(&file.device, kind);
            // Direct and bounced, more than there are workers and bounce buffers.
            let mut buffers: Vec<Skewed> = (0..32)
                .map(|index| Skewed::new(1 << 20, index % 2))
                .collect();
            let arrays: Vec<_> = buffers.iter_mut().map(|b| b.iovecs(&[])).collect();
            for (index, array) in (0u64..).zip(&arrays) {
                // SAFETY: buffers and arrays outlive the driver, which is dropped below.
                let io = unsafe { Io::with_buffers(Op::Read, index << 20, array, Token(index)) };
                bench.submit(io);
            }
            let mut events = Events::default();
            bench.driver.poll(&mut events).unwrap();
            drop(bench);
            for buffer in &mut buffers {
                buffer.bytes_mut().fill(0x55);
            }
            // What still wrote into a buffer would leave a trace, here or in the next round.
            file.device.read_at(0, &mut vec![0; 1 << 20]).unwrap();
            for buffer in &buffers {
                assert!(
                    buffer.bytes().iter().all(|byte| *byte == 0x55),
                    "{kind:?} {round}"
                );
            }
        }
    }
}
