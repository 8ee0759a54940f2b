//! The property that cannot be seen from outside: every guest word is loaded once, so a guest that changes a word after
//! we have looked at it changes nothing.
#![allow(unsafe_code, clippy::unwrap_used, clippy::cast_possible_truncation)]

mod litmus;

use super::crosses;
use crate::blk::{Kind, Request};
use crate::driver::*;
use crate::word::watch;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use std::cell::RefCell;
use std::collections::HashMap;
use std::rc::Rc;

/// What a pop makes of the ring, in guest terms.
type Outcome = Result<Option<(Kind, u64, u64, Vec<(u64, u64)>, usize)>, super::QueueError>;

fn outcome(driver: &Driver, popped: Result<Option<Request>, super::QueueError>) -> Outcome {
    Ok(popped?.map(|r| {
        (
            r.kind(),
            r.offset_bytes(),
            r.data_len(),
            driver.guest_ranges(r.iov()),
            r.ranges().len(),
        )
    }))
}

/// A request of random kind and layout; a tenth of them broken somewhere.
fn random_ring(rng: &mut StdRng) -> Driver {
    let mut driver = Driver::new(16);
    let kinds = [
        TYPE_IN,
        TYPE_OUT,
        TYPE_FLUSH,
        TYPE_GET_ID,
        TYPE_DISCARD,
        TYPE_WRITE_ZEROES,
        99,
    ];
    let kind = kinds[rng.random_range(0..kinds.len())];
    let header_at = [HEADER, HEADER + 3, SEAM - 5][rng.random_range(0..3)];
    driver.header(header_at, kind, rng.random_range(0..1 << 22));
    let mut buffers = vec![(header_at, 16, 0)];
    if rng.random_bool(0.3) {
        buffers = vec![(header_at, 9, 0), (header_at + 9, 7, 0)];
    }
    let flags = if matches!(kind, TYPE_IN | TYPE_GET_ID) {
        WRITE
    } else {
        0
    };
    for i in 0..rng.random_range(0..4) {
        let at = [DATA, FAR, SEAM + 0x1000][rng.random_range(0..3)] + 1024 * i;
        driver.write(
            at,
            &range(
                rng.random_range(0..64),
                rng.random_range(0..64),
                i as u32 & 1,
            ),
        );
        buffers.push((at, [16, 20, 32, 512][rng.random_range(0..4)], flags));
    }
    buffers.push((STATUS, 1, WRITE));
    if rng.random_bool(0.1) {
        let at = rng.random_range(0..buffers.len());
        buffers[at] = (HOLE - 1, rng.random_range(0..4), rng.random_range(0..8));
    }
    if rng.random_bool(0.5) {
        // Header and table must not lie on each other: a byte that is both is rightly loaded twice.
        let tables = [TABLE, TABLE + 4, SEAM - 24];
        let table_at = tables[rng.random_range(0..if header_at < SEAM - 16 { 3 } else { 2 })];
        let last = buffers.len() - 1;
        for (i, (addr, len, flags)) in buffers.into_iter().enumerate() {
            let flags = if i < last { flags | NEXT } else { flags };
            driver.table(
                table_at + 16 * i as u64,
                &[Desc(addr, len, flags, i as u16 + 1)],
            );
        }
        driver.desc(2, Desc(table_at, 16 * (last as u32 + 1), INDIRECT, 0));
        driver.offer(2);
    } else {
        driver.chain(2, &buffers);
        driver.offer(2);
    }
    driver
}

/// Reliability target G2: in each schedule the guest overwrites a word the moment it has been read; the request must be
/// what it was without that.
#[test]
fn word_changed_after_its_fetch_changes_nothing() {
    let mut rng = StdRng::seed_from_u64(2);
    let mut schedules = 0;
    let mut accepted = 0;
    while schedules < 20_000 {
        let driver = random_ring(&mut rng);
        let loads = Rc::new(RefCell::new(Vec::new()));
        let seen = Rc::clone(&loads);
        let mut queue = driver.queue_from_zero();
        let popped = watch::during(
            move |at, len| seen.borrow_mut().push((at.addr(), len)),
            || pop(&mut queue),
        );
        let calm = outcome(&driver, popped);
        accepted += usize::from(
            matches!(&calm, Ok(Some((kind, ..))) if !matches!(kind, Kind::Rejected(_))),
        );
        let count = loads.borrow().len();
        assert_loaded_once(&loads.borrow());
        // The loads differ in number; every one of them gets its schedule, then all of them at once.
        for target in (0..count).map(Some).chain([None]) {
            let noise: u64 = rng.random();
            let mut index = 0;
            let saved = RefCell::new(Vec::new());
            let saved = Rc::new(saved);
            let save = Rc::clone(&saved);
            let mut queue = driver.queue_from_zero();
            let popped = watch::during(
                move |at, len| {
                    if target.is_none_or(|t| t == index) {
                        save.borrow_mut().push(scramble(at, len, noise));
                    }
                    index += 1;
                },
                || pop(&mut queue),
            );
            assert_eq!(outcome(&driver, popped), calm, "load {target:?} of {count}");
            restore(&saved.borrow());
            schedules += 1;
        }
    }
    assert!(
        accepted > 100,
        "the schedules must not all end in an error: {accepted}"
    );
}

fn assert_loaded_once(loads: &[(usize, usize)]) {
    let mut bytes = HashMap::new();
    for (at, len) in loads {
        for byte in *at..at + len {
            let times = bytes.entry(byte).or_insert(0);
            *times += 1;
            assert_eq!(*times, 1, "a guest byte was loaded twice");
        }
    }
}

/// Overwrites guest memory as a guest on another processor would; returns what was there.
fn scramble(at: *mut u8, len: usize, noise: u64) -> (*mut u8, Vec<u8>) {
    let mut before = vec![0; len];
    // SAFETY: the loader was given this range, so it is mapped; the test is the only one at work.
    unsafe {
        at.copy_to_nonoverlapping(before.as_mut_ptr(), len);
        at.copy_from_nonoverlapping(noise.to_le_bytes().as_ptr(), len);
    }
    (at, before)
}

fn restore(saved: &[(*mut u8, Vec<u8>)]) {
    for (at, before) in saved.iter().rev() {
        // SAFETY: as in `scramble`.
        unsafe { at.copy_from_nonoverlapping(before.as_ptr(), before.len()) };
    }
}

impl Driver {
    fn queue_from_zero(&self) -> super::SplitQueue {
        super::SplitQueue::new(self.view.clone(), self.layout(), self.features, 0).unwrap()
    }
}

/// Batches load `avail.idx` once, whatever their size; a used index is never read back after the start.
#[test]
fn batch_loads_the_available_index_once() {
    let mut driver = Driver::new(16);
    let mut queue = driver.queue();
    for i in 0..5 {
        driver.request(3 * i, TYPE_IN, 0, &[(DATA, 512)]);
    }
    let index_at = driver.view.regions()[0].host_addr().addr() + AVAIL as usize + 2;
    let loads = Rc::new(RefCell::new(0));
    let count = Rc::clone(&loads);
    watch::during(
        move |at, _| *count.borrow_mut() += usize::from(at.addr() == index_at),
        || {
            for _ in 0..5 {
                assert!(pop(&mut queue).unwrap().is_some());
            }
        },
    );
    assert_eq!(*loads.borrow(), 1);
}

/// The rule of virtio 1.x 2.7.7.2 against its meaning: was `event` among the positions passed?
#[test]
fn crossing_is_passing_the_event_position() {
    for old in [0u16, 1, 7, 0x7fff, 0x8000, 0xfff0, 0xffff] {
        for moved in 1..=40u16 {
            let new = old.wrapping_add(moved);
            for offset in 0..=50u16 {
                let event = old.wrapping_sub(5).wrapping_add(offset);
                let passed = (0..moved).any(|i| old.wrapping_add(i) == event);
                assert_eq!(crosses(event, old, new), passed, "{event} {old} {new}");
            }
        }
    }
}
