//! Requests that are done again after a crash or a drive's return.

use crate::common::eventually;
use crate::stage::{Place, TANGLE, assert_done, assert_newest, submit};
use holdfast_bdev::{Effect, Fault, FaultOp};
use holdfast_testkit::frontend::{Layout, Op, status};

#[test]
fn writes_of_a_dead_owner_that_overlap_end_with_the_newest() {
    let place = Place::new();
    let mut guest = place.entangled_again();
    assert_done(&mut guest, TANGLE);
}

#[test]
fn writes_that_waited_for_their_drive_end_with_the_newest() {
    let place = Place::new();
    let mut guest = place.guest();
    place.pull();
    submit(&mut guest, TANGLE);
    place.wait_lost(true);
    eventually("all wait", || place.held() == TANGLE.len() as u64);
    place.put_back_contrary();
    assert_done(&mut guest, TANGLE);
}

#[test]
fn new_write_waits_until_the_old_ones_are_through() {
    let place = Place::new();
    let mut guest = place.die_with(&[(0, 1), (5, 2)]);
    place.device().keep_back(true);
    // The guest goes on writing while nobody is there.
    submit(&mut guest, &[(0, 3), (5, 4), (30, 5)]);
    guest.reconnect().unwrap();
    eventually("the old ones are with the device", || {
        place.device().kept() >= 2
    });
    guest.queue(1).read(0, 512).unwrap();
    assert_eq!(place.device().kept(), 2, "a new one as well");
    assert_done(&mut guest, &[(0, 3), (5, 4), (30, 5)]);
}

#[test]
fn drive_lost_again_in_the_middle_loses_no_order() {
    let place = Place::new();
    let mut guest = place.entangled_again();
    let first = place.device();
    submit(&mut guest, &[(2, 10)]);
    place.pull();
    // The second of them comes back first, and everything behind it waits with it. The first comes back last.
    first.fail_youngest();
    place.wait_lost(true);
    eventually("all but one wait, and the new one with them", || {
        place.held() == TANGLE.len() as u64
    });
    first.fail_youngest();
    eventually("all wait", || place.held() == TANGLE.len() as u64 + 1);
    drop(first);
    place.put_back_contrary();
    let mut all = TANGLE.to_vec();
    all.push((2, 10));
    assert_done(&mut guest, &all);
}

#[test]
fn old_write_that_fails_for_good_fails_alone() {
    let place = Place::new();
    let mut guest = place.die_with(&[(0, 1), (1, 2), (0, 3)]);
    let bad = Fault::new(Effect::Fail(libc::EIO)).on(FaultOp::Write);
    place.device().base.inject(bad.times(1));
    guest.reconnect().unwrap();
    let answers = guest.queue(0).drain().unwrap();
    let errors = answers.iter().filter(|a| a.status == status::IOERR);
    assert_eq!((errors.count(), answers.len()), (1, 3));
    assert_newest(&mut guest, &[(1, 2), (0, 3)]);
}

#[test]
fn stop_in_the_middle_ends_with_the_newest() {
    let place = Place::new();
    let mut guest = place.entangled_again();
    let device = place.device();
    device.keep_back(false);
    guest.queue(1).submit(Op::Flush, Layout::DIRECT).unwrap();
    guest.stop_queue(0).unwrap();
    guest.start_queue(0).unwrap();
    assert_done(&mut guest, TANGLE);
}

#[test]
fn stop_that_meets_a_lost_drive_leaves_all_of_it_in_order() {
    let place = Place::new();
    let mut guest = place.entangled_again();
    let device = place.device();
    let mut queues = guest.take_queues();
    std::thread::scope(|scope| {
        let stop = scope.spawn(|| guest.stop_queue(0));
        eventually("the stop waits", || {
            place.bench.engine.stats()[0].stop_waits
        });
        place.pull();
        queues[1].submit(Op::Flush, Layout::DIRECT).unwrap();
        stop.join().unwrap().unwrap();
    });
    drop(device);
    // What is given to the drive that is gone would stay with it: it answers nothing any more.
    place.wait_lost(true);
    guest.put_queues(queues);
    guest.start_queue(0).unwrap();
    place.put_back_contrary();
    assert_done(&mut guest, TANGLE);
}

#[test]
fn memory_that_changes_in_the_middle_is_let_go_of() {
    let place = Place::new();
    let mut guest = place.entangled_again();
    let device = place.device();
    device.keep_back(false);
    // The session waits until nothing uses the old view, and that is up to the device alone.
    guest.queue(1).submit(Op::Flush, Layout::DIRECT).unwrap();
    let region = guest.add_region(1 << 20).unwrap();
    guest.remove_region(region).unwrap();
    assert_done(&mut guest, TANGLE);
}
