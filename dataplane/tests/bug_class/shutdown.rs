//! Rows L06, L14 and L15: the end, at every point of a front end's life.

use crate::common::{Bench, eventually};
use crate::{DEADLINE, late, malloc, read, stuck, write};
use holdfast_bdev::{Effect, Fault, IoStatus};
use holdfast_testkit::frontend::{Guest, Layout};
use holdfast_testkit::raw::{Message, RawPeer, request};
use std::time::{Duration, Instant};

/// How long an end may take when no device holds it up.
const PROMPT: Duration = Duration::from_secs(2);

fn stops_promptly(bench: &Bench) {
    let start = Instant::now();
    assert_eq!(bench.engine.stop(), Vec::<String>::new());
    assert!(start.elapsed() < PROMPT, "took {:?}", start.elapsed());
    assert!(!bench.socket("disk").exists());
}

/// L06: firmware has started queue 0 and no other.
#[test]
fn spdk_2228_end_with_only_queue_0_started() {
    let bench = late();
    let builder = Guest::builder().queues(4);
    let mut guest = builder.negotiate(bench.socket("disk")).unwrap();
    guest.send_features().unwrap();
    guest.send_memory().unwrap();
    guest.start_queue(0).unwrap();
    guest.queue(0).submit(read(0), Layout::INDIRECT).unwrap();
    stops_promptly(&bench);
    assert_eq!(
        guest.queue(0).complete().unwrap().len(),
        1,
        "answered first"
    );
}

/// L14: every point up to which a front end can have come.
#[test]
fn spdk_2538_end_at_every_point_of_a_session() {
    type Step = fn(&mut Guest);
    let steps: [Step; 8] = [
        |guest| guest.send_features().unwrap(),
        |guest| guest.send_memory().unwrap(),
        |guest| guest.start_queue(0).unwrap(),
        |guest| _ = guest.queue(0).submit(read(0), Layout::DIRECT).unwrap(),
        |guest| guest.enable_queue(0, false).unwrap(),
        |guest| guest.start_queue(1).unwrap(),
        |guest| _ = guest.stop_queue(1).unwrap(),
        |guest| guest.reset_device().unwrap(),
    ];
    for reached in 0..=steps.len() {
        let bench = late();
        let builder = Guest::builder().queues(2);
        let mut guest = builder.negotiate(bench.socket("disk")).unwrap();
        steps[..reached].iter().for_each(|step| step(&mut guest));
        stops_promptly(&bench);
        assert!(guest.config().is_err(), "the line is cut");
    }
}

/// L14: front ends come, work and go while everything ends.
#[test]
fn spdk_1443_end_while_front_ends_come_and_go() {
    for _ in 0..10 {
        let bench = late();
        std::thread::scope(|scope| {
            for _ in 0..2 {
                scope.spawn(|| {
                    while bench.socket("disk").exists() {
                        let builder = Guest::builder().memory(4 << 20).queue_size(16);
                        let builder = builder.deadline(Duration::from_millis(500));
                        if let Ok(mut guest) = builder.connect(bench.socket("disk")) {
                            let _ = guest.queue(0).submit(read(0), Layout::DIRECT);
                        }
                    }
                });
            }
            eventually("somebody is let in", || {
                bench.engine.export_info("disk").unwrap().connected
            });
            stops_promptly(&bench);
        });
    }
}

/// L12, L14: the device never completes. The end is bounded, says so, and comes when the request has ended.
#[test]
fn spdk_3553_end_with_a_request_that_hangs() {
    let (bench, device) = stuck();
    bench.serve("well", malloc());
    let mut guest = Guest::builder().connect(bench.socket("disk")).unwrap();
    device.inject(Fault::new(Effect::Hang));
    guest.queue(0).submit(write(0, 1), Layout::DIRECT).unwrap();
    eventually("a write hangs", || device.hanging() == 1);
    let start = Instant::now();
    assert_eq!(bench.engine.stop(), ["disk"]);
    assert!(start.elapsed() < DEADLINE);
    assert!(!bench.socket("well").exists());
    drop(guest);
    // The late answer lands in memory that only the request keeps, and finishes the end.
    device.release(IoStatus::Ok);
    assert_eq!(bench.engine.stop(), Vec::<String>::new());
}

/// L15: a front end is silent in the middle of a message.
#[test]
fn spdk_3542_end_in_the_middle_of_a_message() {
    let message = Message::new(request::SET_FEATURES).words(&[0]).bytes();
    for sent in [1, 11, 12, 13, 19] {
        let bench = late();
        let mut peer = RawPeer::connect(bench.socket("disk"), DEADLINE).unwrap();
        peer.shake_hands().unwrap();
        peer.send_bytes(&message[..sent], &[]).unwrap();
        stops_promptly(&bench);
        peer.wait_hang_up().unwrap();
    }
}
