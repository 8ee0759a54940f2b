//! A device that keeps requests: only its own session waits, nobody else notices, and nothing is forgotten.
#![allow(clippy::unwrap_used, clippy::cast_possible_truncation)]

mod common;

use common::{Bench, SIZE, eventually, pattern};
use holdfast_bdev::{Effect, ErrorDevice, Fault, FaultOp, IoStatus, Malloc};
use holdfast_dataplane::EngineError;
use holdfast_testkit::frontend::{Guest, Layout, Op, status};
use std::sync::Arc;
use std::time::Duration;

/// `stuck` hangs on request, `well` does not.
fn bench() -> (Bench, ErrorDevice) {
    let bench = Bench::empty();
    let stuck = ErrorDevice::new(Arc::new(Malloc::new(SIZE, 512).unwrap()));
    bench.serve("stuck", Arc::new(stuck.clone()));
    bench.serve("well", Arc::new(Malloc::new(SIZE, 512).unwrap()));
    (bench, stuck)
}

fn write(offset: u64, seed: u8) -> Op {
    Op::Write {
        offset,
        data: pattern(seed, 512),
    }
}

#[test]
fn stop_of_a_queue_answers_when_its_last_request_has_ended() {
    let (bench, stuck) = bench();
    let mut guest = Guest::builder()
        .queues(2)
        .connect(bench.socket("stuck"))
        .unwrap();
    stuck.inject(Fault::new(Effect::Hang).on(FaultOp::Write));
    guest.queue(0).submit(write(0, 1), Layout::DIRECT).unwrap();
    eventually("a write hangs", || stuck.hanging() == 1);
    let (answer, answered) = std::sync::mpsc::channel();
    let stopper = std::thread::spawn(move || {
        answer.send(guest.stop_queue(0).unwrap()).unwrap();
        guest
    });
    let early = answered.recv_timeout(Duration::from_millis(200));
    assert!(
        early.is_err(),
        "answered {early:?} while a request was under way"
    );
    stuck.clear();
    stuck.release(IoStatus::Ok);
    assert_eq!(answered.recv_timeout(Duration::from_secs(10)).unwrap(), 1);
    let mut guest = stopper.join().unwrap();
    assert_eq!(guest.queue(0).complete().unwrap()[0].status, status::OK);
}

#[test]
fn neighbour_of_a_stuck_device_is_served_as_ever() {
    let (bench, stuck) = bench();
    let mut victim = Guest::builder()
        .queues(4)
        .connect(bench.socket("stuck"))
        .unwrap();
    let mut neighbour = Guest::builder()
        .queues(4)
        .connect(bench.socket("well"))
        .unwrap();
    stuck.inject(Fault::new(Effect::Hang));
    for at in 0..4 {
        victim
            .queue(at)
            .submit(write(at as u64 * 512, 1), Layout::DIRECT)
            .unwrap();
    }
    eventually("all hang", || stuck.hanging() == 4);
    victim.disconnect();
    for round in 0..200u64 {
        let queue = neighbour.queue(round as usize % 4);
        queue
            .write(round * 512, &pattern(round as u8, 512))
            .unwrap();
    }
    neighbour.disconnect();
    neighbour.reconnect().unwrap();
    // Calls of the control plane about others answer too.
    bench
        .engine
        .add_device("third", Arc::new(Malloc::new(SIZE, 512).unwrap()))
        .unwrap();
    bench.engine.export(&bench.spec("third")).unwrap();
    bench.engine.unexport("third").unwrap();
    stuck.clear();
    stuck.release(IoStatus::Ok);
    victim.reconnect().unwrap();
    for queue in victim.queues() {
        assert_eq!(
            queue.drain().unwrap().len(),
            1,
            "answered while it was away"
        );
        queue.flush().unwrap();
    }
}

#[test]
fn end_of_an_export_that_still_drains_is_reported_and_comes_later() {
    let (bench, stuck) = bench();
    let mut guest = Guest::builder().connect(bench.socket("stuck")).unwrap();
    stuck.inject(Fault::new(Effect::Hang));
    guest.queue(0).submit(write(0, 1), Layout::DIRECT).unwrap();
    eventually("a write hangs", || stuck.hanging() == 1);
    let error = bench.engine.unexport("stuck").unwrap_err();
    assert!(matches!(error, EngineError::Draining { .. }), "{error}");
    let error = bench.engine.export(&bench.spec("stuck")).unwrap_err();
    assert!(matches!(error, EngineError::Draining { .. }), "{error}");
    let error = bench.engine.remove_device("stuck").unwrap_err();
    assert!(matches!(error, EngineError::Busy { .. }), "{error}");
    stuck.clear();
    stuck.release(IoStatus::Ok);
    assert!(bench.engine.unexport("stuck").unwrap());
    bench.engine.remove_device("stuck").unwrap();
}

#[test]
fn memory_of_a_hanging_request_stays_until_it_has_ended() {
    let (bench, stuck) = bench();
    let mut guest = Guest::builder().connect(bench.socket("stuck")).unwrap();
    stuck.inject(Fault::new(Effect::Hang).on(FaultOp::Read));
    guest
        .queue(0)
        .submit(
            Op::Read {
                offset: 0,
                len: 4096,
            },
            Layout::DIRECT,
        )
        .unwrap();
    eventually("a read hangs", || stuck.hanging() == 1);
    guest.disconnect();
    drop(guest);
    // The read now lands in memory that only the request keeps mapped: a crash here is the origin bug.
    stuck.clear();
    stuck.release(IoStatus::Ok);
    eventually("drained", || {
        !bench.engine.export_info("stuck").unwrap().connected
    });
    Guest::builder()
        .connect(bench.socket("stuck"))
        .unwrap()
        .queue(0)
        .flush()
        .unwrap();
}

#[test]
fn failed_request_is_an_error_to_the_guest_and_nothing_else() {
    let (bench, stuck) = bench();
    let mut guest = Guest::builder().connect(bench.socket("stuck")).unwrap();
    let fail = Fault::new(Effect::Fail(5)).on(FaultOp::Write).times(1);
    stuck.inject(fail);
    let done = guest.queue(0).call(write(0, 1), Layout::DIRECT).unwrap();
    assert_eq!(done.status, status::IOERR);
    guest.queue(0).write(0, &pattern(2, 512)).unwrap();
}
