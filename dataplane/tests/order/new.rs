//! New requests: none overtakes an older one of its ring that changes the same bytes.

use crate::common::{eventually, pattern};
use crate::stage::{FREE, Place, TANGLE, assert_done, assert_newest, push_through, submit};
use holdfast_bdev::{Effect, Fault, FaultOp, IoStatus};
use holdfast_testkit::frontend::{Guest, Layout, Op, Range, feature, status};

/// The other queue has been served since: so has been all that came before.
fn look_twice(guest: &mut Guest) {
    for _ in 0..2 {
        guest.queue(1).read(1 << 20, 512).unwrap();
    }
}

#[test]
fn write_that_overlaps_an_older_one_waits_and_all_behind_it() {
    let place = Place::new();
    let mut guest = place.entangled();
    look_twice(&mut guest);
    assert_eq!(place.device().kept(), FREE, "one more was not held back");
    assert_done(&mut guest, TANGLE);
}

#[test]
fn write_to_other_bytes_does_not_wait() {
    let place = Place::new();
    let mut guest = place.guest();
    place.device().keep_back(true);
    submit(&mut guest, &[(0, 1), (2, 2), (4, 3), (6, 4)]);
    eventually("all are with the device", || place.device().kept() == 4);
    push_through(&mut guest);
}

#[test]
fn discard_and_zeroes_wait_for_a_write_to_any_of_their_bytes() {
    let range = |sector| Range {
        sector,
        sectors: 1,
        flags: 0,
    };
    let last_of_two = Op::Discard(vec![range(100), range(1)]);
    for op in [last_of_two, Op::WriteZeroes(vec![range(1)])] {
        let place = Place::new();
        let mut guest = place.guest();
        place.device().keep_back(true);
        submit(&mut guest, &[(0, 1)]);
        eventually("it is with the device", || place.device().kept() == 1);
        guest.queue(0).submit(op, Layout::DIRECT).unwrap();
        look_twice(&mut guest);
        assert_eq!(guest.queue(0).complete().unwrap(), [], "not yet");
        assert!(push_through(&mut guest).iter().all(|s| *s == status::OK));
        let seen = guest.queue(0).read(0, 1024).unwrap();
        assert!(seen[..512] == pattern(1, 1024)[..512], "the first block");
        assert!(seen[512..] == [0; 512], "the write came last");
    }
}

#[test]
fn write_waits_for_a_discard_that_hangs() {
    let place = Place::new();
    let mut guest = place.guest();
    let device = place.device();
    let hang = Fault::new(Effect::Hang).on(FaultOp::Discard);
    device.base.inject(hang);
    guest.queue(0).write(0, &pattern(7, 1024)).unwrap();
    let range = Range {
        sector: 1,
        sectors: 4,
        flags: 0,
    };
    let discard = Op::Discard(vec![range]);
    guest.queue(0).submit(discard, Layout::DIRECT).unwrap();
    eventually("it hangs", || device.base.hanging() == 1);
    submit(&mut guest, &[(0, 1)]);
    look_twice(&mut guest);
    assert_eq!(guest.queue(0).complete().unwrap(), [], "not yet");
    device.base.release(IoStatus::Ok);
    guest.queue(0).drain().unwrap();
    assert_newest(&mut guest, &[(0, 1)]);
}

#[test]
fn write_that_must_be_durable_is_waited_for_until_it_is() {
    let place = Place::new();
    // Without a flush of its own, a guest's write is answered when it is durable.
    let builder = Guest::builder().queues(2).without(feature::FLUSH);
    let mut guest = builder.connect(place.bench.socket("a")).unwrap();
    let device = place.device();
    device
        .base
        .inject(Fault::new(Effect::Hang).on(FaultOp::Flush));
    submit(&mut guest, &[(0, 1), (0, 2)]);
    eventually("the first is being made durable", || {
        device.base.hanging() == 1
    });
    look_twice(&mut guest);
    let seen = guest.queue(1).read(0, 1024).unwrap();
    assert!(seen == pattern(1, 1024), "the second was not held back");
    device.base.clear();
    device.base.release(IoStatus::Ok);
    guest.queue(0).drain().unwrap();
    assert_newest(&mut guest, &[(0, 1), (0, 2)]);
}

#[test]
fn write_waits_for_one_that_has_failed_until_the_verdict() {
    let place = Place::new();
    let mut guest = place.guest();
    let device = place.device();
    device.keep_back(true);
    submit(&mut guest, &[(0, 1)]);
    eventually("it is with the device", || device.kept() == 1);
    device.keep_back(false);
    // Where the drive is asked whether it is there.
    let hang = Fault::new(Effect::Hang).on(FaultOp::Read).within(0..4096);
    device.base.inject(hang);
    device.fail_youngest();
    eventually("the drive is asked", || device.base.hanging() == 1);
    submit(&mut guest, &[(0, 2)]);
    look_twice(&mut guest);
    assert_eq!(guest.queue(0).complete().unwrap(), [], "not yet");
    device.base.clear();
    device.base.release(IoStatus::Ok);
    let answers = guest.queue(0).drain().unwrap();
    let answers: Vec<u8> = answers.iter().map(|answer| answer.status).collect();
    assert_eq!(answers, [status::IOERR, status::OK]);
    assert_newest(&mut guest, &[(0, 2)]);
}

#[test]
fn drive_lost_in_the_middle_loses_no_order() {
    let place = Place::new();
    let mut guest = place.entangled();
    let first = place.device();
    place.pull();
    first.fail_youngest();
    place.wait_lost(true);
    first.fail_youngest();
    eventually("all wait", || place.held() == TANGLE.len() as u64);
    drop(first);
    place.put_back_contrary();
    assert_done(&mut guest, TANGLE);
}

#[test]
fn stop_waits_for_what_it_has_taken() {
    let place = Place::new();
    let mut guest = place.entangled();
    place.device().keep_back(false);
    guest.queue(1).submit(Op::Flush, Layout::DIRECT).unwrap();
    guest.stop_queue(0).unwrap();
    guest.start_queue(0).unwrap();
    assert_done(&mut guest, TANGLE);
}

#[test]
fn successor_does_what_waited_in_its_order() {
    let place = Place::new();
    let mut guest = place.entangled();
    let device = place.device();
    place.pull();
    // The oldest may come back or not: what waits for it is left to the successor together with it.
    device.fail_youngest();
    device.fail_youngest();
    drop(device);
    place.wait_lost(true);
    place.leave(&mut guest);
    place.put_back_contrary();
    guest.reconnect().unwrap();
    assert_done(&mut guest, TANGLE);
}

#[test]
fn stop_before_the_verdict_fails_one_write_and_serves_the_next() {
    let place = Place::new();
    // Without an in-flight region nothing can be left to a successor.
    let builder = Guest::builder().queues(2);
    let mut guest = builder.connect(place.bench.socket("a")).unwrap();
    let device = place.device();
    device.keep_back(true);
    submit(&mut guest, &[(0, 1), (0, 2)]);
    eventually("one is with the device", || device.kept() == 1);
    look_twice(&mut guest);
    device.keep_back(false);
    device
        .base
        .inject(Fault::new(Effect::Hang).on(FaultOp::Read));
    device.fail_youngest();
    eventually("the drive is asked and hangs", || {
        device.base.hanging() == 1
    });
    guest.stop_queue(0).unwrap();
    let answers = guest.queue(0).complete().unwrap();
    let answers: Vec<u8> = answers.iter().map(|answer| answer.status).collect();
    assert_eq!(answers, [status::IOERR, status::OK]);
    device.base.clear();
    device.base.release(IoStatus::Ok);
    drop(device);
    guest.start_queue(0).unwrap();
    assert_newest(&mut guest, &[(0, 2)]);
}
