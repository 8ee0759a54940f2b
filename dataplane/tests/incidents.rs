//! What has happened to other back ends and has no test of its own elsewhere: messages repeated until something is used up,
//! and counts that nobody looked at. docs/bug-class.md lists all of them.
#![allow(clippy::unwrap_used)]

mod common;

use common::{Bench, pattern};
use holdfast_testkit::frontend::Guest;
use holdfast_testkit::raw::{Message, RawPeer, memfd, request};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

const DEADLINE: Duration = Duration::from_secs(10);
const ROUNDS: usize = 1_000;
const PAGE: u64 = 4096;

/// Open descriptors, mappings, and pages of memory of this process.
fn belongings() -> (usize, usize, u64) {
    let fds = std::fs::read_dir("/proc/self/fd").unwrap().count();
    let maps = std::fs::read_to_string("/proc/self/maps").unwrap();
    let memory = std::fs::read_to_string("/proc/self/statm").unwrap();
    let resident = memory.split(' ').nth(1).unwrap().parse().unwrap();
    (fds, maps.lines().count(), resident)
}

/// One of these tests at a time: they count what the whole process has.
fn lock() -> MutexGuard<'static, ()> {
    static ALONE: Mutex<()> = Mutex::new(());
    ALONE.lock().unwrap_or_else(PoisonError::into_inner)
}

fn peer(bench: &Bench) -> RawPeer {
    let mut peer = RawPeer::connect(bench.socket("disk"), DEADLINE).unwrap();
    peer.shake_hands().unwrap();
    peer
}

/// GET_INFLIGHT_FD or SET_INFLIGHT_FD for some queues of 128 descriptors.
fn inflight(code: u32, bytes: u64, queues: u16) -> Message {
    Message::new(code).words(&[bytes, 0, u64::from(queues) | 128 << 16])
}

/// Repeats something in one session, and then looks what it has left behind.
fn assert_leaves_nothing(bench: &Bench, mut once: impl FnMut(&mut RawPeer)) {
    let mut peer = peer(bench);
    // The first rounds may fill caches.
    (0..ROUNDS / 10).for_each(|_| once(&mut peer));
    let before = belongings();
    (0..ROUNDS).for_each(|_| once(&mut peer));
    let after = belongings();
    assert!(
        after.0 <= before.0 + 4,
        "descriptors: {before:?}, {after:?}"
    );
    assert!(after.1 <= before.1 + 8, "mappings: {before:?}, {after:?}");
    let grown = after.2.saturating_sub(before.2) * PAGE;
    assert!(grown <= 1 << 20, "{grown} bytes of memory");
}

/// DPDK CVE-2019-14818, CVE-2020-10726.
#[test]
fn messages_repeated_a_thousand_times_use_nothing_up() {
    let _alone = lock();
    let (bench, _) = Bench::malloc();
    assert_leaves_nothing(&bench, |peer| {
        let size = Message::new(request::SET_VRING_NUM).state(0, 1024);
        assert!(peer.ask(&size.need_reply()).unwrap().is_some());
    });
    assert_leaves_nothing(&bench, |peer| {
        let wish = inflight(request::GET_INFLIGHT_FD, 0, 4);
        assert!(peer.ask(&wish).unwrap().is_some(), "no region");
    });
    assert_leaves_nothing(&bench, |peer| {
        let mine = inflight(request::SET_INFLIGHT_FD, 1 << 20, 4);
        let mine = mine.fd(memfd(1 << 20, true).unwrap());
        assert!(peer.ask(&mine.need_reply()).unwrap().is_some());
    });
}

/// DPDK CVE-2021-3839, QEMU issue 3675: more queues than there are, and sizes that overflow when multiplied.
#[test]
fn in_flight_region_of_impossible_counts_is_refused() {
    let _alone = lock();
    let (bench, _) = Bench::malloc();
    for (file, claimed, queues) in [
        (1 << 16, 1 << 16, u16::MAX),
        (1 << 16, 1 << 16, 257),
        (1 << 16, 1 << 16, 0),
        (1 << 16, 8, 1),
        (1 << 16, 0, 1),
        (64, u64::MAX, 4),
        (64, 1 << 32, 4),
    ] {
        let mut peer = peer(&bench);
        let mine = inflight(request::SET_INFLIGHT_FD, claimed, queues);
        let mine = mine.fd(memfd(file, true).unwrap()).need_reply();
        let refused = match peer.ask(&mine) {
            Ok(Some(reply)) => reply.value() != Some(0),
            Ok(None) | Err(_) => true,
        };
        assert!(refused, "{claimed} bytes for {queues} queues in {file}");
    }
    let mut next = Guest::builder().connect(bench.socket("disk")).unwrap();
    next.queue(0).write(0, &pattern(1, 512)).unwrap();
}
