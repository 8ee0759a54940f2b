//! A drive goes under load and comes back: guests wait or fail as they were told to, nobody else notices, nothing is lost.
#![allow(clippy::unwrap_used, clippy::cast_possible_truncation)]

mod common;

use common::drive::{Drive, LONG, MIB};
use common::{Bench, eventually, pattern};
use holdfast_bdev::{Effect, Fault, Uring, UringOptions};
use holdfast_dataplane::{EngineError, ErrorKind, OnDeviceLoss, PoolError, PoolSpec};
use holdfast_testkit::frontend::{Layout, Op, status};
use holdfast_testkit::workload::{Plan, Workload};
use std::path::Path;
use std::time::{Duration, Instant};

#[test]
fn drive_pulled_under_load_and_put_back_costs_no_error_and_no_write() {
    let drive = Drive::new("load");
    let mut guest = drive.guest("a", LONG);
    let mut workload = Workload::new(Plan::default(), 1, 0..8 * MIB / 512);
    for _ in 0..10 {
        workload.run(&mut guest, 200).unwrap();
        workload.fill(guest.queues(), 64).unwrap();
        drive.pull();
        workload.fill(guest.queues(), 64).unwrap();
        drive.check_bystander();
        assert_eq!(guest.config().unwrap().capacity_sectors, 8 * MIB / 512);
        drive.put_back();
        workload.drain(guest.queues()).unwrap();
        drive.wait_lost(false);
    }
    workload.run(&mut guest, 500).unwrap();
    workload.report().assert_clean();
}

#[test]
fn policy_fail_answers_with_an_error_at_once_and_recovers() {
    let drive = Drive::new("fail");
    let mut guest = drive.guest("a", OnDeviceLoss::Fail);
    guest.queue(0).write(0, &pattern(1, 512)).unwrap();
    drive.pull();
    for _ in 0..3 {
        let read = Op::Read {
            offset: 0,
            len: 512,
        };
        let done = guest.queue(0).call(read, Layout::DIRECT).unwrap();
        assert_eq!(done.status, status::IOERR);
    }
    drive.put_back();
    eventually("requests are served again", || {
        guest
            .queue(0)
            .read(0, 512)
            .is_ok_and(|seen| seen == pattern(1, 512))
    });
}

#[test]
fn held_requests_fail_after_the_deadline_and_not_before() {
    let drive = Drive::new("deadline");
    let patience = Duration::from_millis(700);
    let mut guest = drive.guest("a", OnDeviceLoss::Hold(patience));
    drive.pull();
    let start = Instant::now();
    let read = Op::Read {
        offset: 0,
        len: 512,
    };
    let done = guest.queue(0).call(read.clone(), Layout::DIRECT).unwrap();
    let waited = start.elapsed();
    assert_eq!(done.status, status::IOERR);
    assert!(waited >= patience, "failed after {waited:?}");
    assert!(
        waited < patience + Duration::from_secs(1),
        "failed only after {waited:?}"
    );
    let start = Instant::now();
    let done = guest.queue(1).call(read, Layout::DIRECT).unwrap();
    assert_eq!(done.status, status::IOERR);
    assert!(
        start.elapsed() < patience,
        "after the deadline nothing waits"
    );
    drive.put_back();
    eventually("requests are served again", || {
        guest.queue(0).write(0, &pattern(2, 512)).is_ok()
    });
}

#[test]
fn error_of_a_drive_that_is_there_is_an_error_and_no_loss() {
    let drive = Drive::new("media");
    let mut guest = drive.guest("a", LONG);
    guest.queue(0).write(0, &pattern(1, 512)).unwrap();
    let place = drive.engine().volume("pool", "a").unwrap().unwrap().extents[0].offset_bytes;
    let bad_sector = Fault::new(Effect::Fail(libc::EIO)).within(place + 4096..place + 4608);
    drive.handle().inject(bad_sector);
    let read = Op::Read {
        offset: 4096,
        len: 512,
    };
    let done = guest.queue(0).call(read, Layout::DIRECT).unwrap();
    assert_eq!(done.status, status::IOERR);
    assert_eq!(guest.queue(0).read(0, 512).unwrap(), pattern(1, 512));
    assert!(!drive.engine().pool("pool").unwrap().lost);
}

#[test]
fn guest_reboots_and_reconnects_while_its_drive_is_gone() {
    let drive = Drive::new("reboot");
    let mut guest = drive.guest("a", LONG);
    guest.queue(0).write(0, &pattern(7, 4096)).unwrap();
    guest.queue(0).submit(Op::Flush, Layout::DIRECT).unwrap();
    guest.queue(0).drain().unwrap();
    drive.pull();
    let write = Op::Write {
        offset: 0,
        data: pattern(8, 4096),
    };
    guest.queue(0).submit(write, Layout::DIRECT).unwrap();
    drive.wait_lost(true);
    // The hypervisor goes away and comes back with the region: the write is still to be done.
    guest.disconnect();
    guest.reconnect().unwrap();
    assert_eq!(guest.queue(0).complete().unwrap(), []);
    // A stop is not kept waiting by what waits for the drive.
    let start = Instant::now();
    guest.stop_queue(0).unwrap();
    assert!(
        start.elapsed() < Duration::from_secs(5),
        "the virtual machine hung"
    );
    guest.start_queue(0).unwrap();
    drive.put_back();
    assert_eq!(guest.queue(0).drain().unwrap()[0].status, status::OK);
    assert_eq!(guest.queue(1).read(0, 4096).unwrap(), pattern(8, 4096));
}

#[test]
fn drive_let_go_by_command_is_taken_back_by_command_under_any_name() {
    let drive = Drive::new("command");
    let mut guest = drive.guest("a", LONG);
    guest.queue(0).write(0, &pattern(1, 512)).unwrap();
    drop(drive.handle());
    drive.engine().remove_pool_device("pool").unwrap();
    drive.engine().remove_pool_device("pool").unwrap();
    guest
        .queue(0)
        .submit(
            Op::Read {
                offset: 0,
                len: 512,
            },
            Layout::DIRECT,
        )
        .unwrap();
    // Nobody holds it any more: another process could take it.
    eventually("let go", || {
        Uring::open(&drive.path, UringOptions::default()).is_ok()
    });
    let calls = [
        drive.engine().create_volume("pool", "b", MIB).map(drop),
        drive.engine().grow_volume("pool", "a", 16 * MIB).map(drop),
        drive.engine().delete_volume("pool", "b").map(drop),
    ];
    for error in calls.map(Result::unwrap_err) {
        assert!(matches!(error, EngineError::Lost { .. }), "{error}");
        assert_eq!(error.kind(), ErrorKind::Unavailable);
    }
    let renamed = drive.path.with_extension("renamed");
    std::fs::rename(&drive.path, &renamed).unwrap();
    assert_eq!(
        guest.queue(0).complete().unwrap(),
        [],
        "it does not come back by itself"
    );
    let info = drive
        .engine()
        .add_pool_device("pool", Some(&renamed))
        .unwrap();
    assert_eq!((info.path.as_path(), info.lost), (renamed.as_path(), false));
    assert_eq!(guest.queue(0).drain().unwrap()[0].data, pattern(1, 512));
    std::fs::remove_file(renamed).unwrap();
}

#[test]
fn other_drive_in_the_same_slot_is_refused_and_left_alone() {
    let drive = Drive::new("other");
    let mut guest = drive.guest("a", LONG);
    guest.queue(0).write(0, &pattern(1, 512)).unwrap();
    drive.pull();
    guest
        .queue(0)
        .submit(
            Op::Read {
                offset: 0,
                len: 512,
            },
            Layout::DIRECT,
        )
        .unwrap();
    drive.wait_lost(true);
    let other = drive.path.with_extension("other");
    make_other_pool(&other);
    let before = std::fs::read(&other).unwrap();
    std::fs::rename(&other, &drive.path).unwrap();
    // The engine looks at it by itself as well, and holds it meanwhile.
    eventually("it is refused for what it is", || {
        let refused = drive.engine().add_pool_device("pool", None).unwrap_err();
        let source = match refused {
            EngineError::Pool { source, .. } => source,
            EngineError::Device { .. } => return false,
            other => panic!("{other}"),
        };
        matches!(source, PoolError::WrongPool { .. })
    });
    assert!(
        std::fs::read(&drive.path).unwrap() == before,
        "a foreign drive was written to"
    );
    assert_eq!(guest.queue(0).complete().unwrap(), []);
    drive.put_back();
    assert_eq!(guest.queue(0).drain().unwrap()[0].data, pattern(1, 512));
}

fn make_other_pool(path: &Path) {
    let bench = Bench::empty();
    let spec = PoolSpec {
        name: "other".into(),
        path: path.into(),
        create_bytes: Some(64 * MIB),
        force: false,
        expect_uuid: None,
        identity: "serial 2".into(),
    };
    bench.engine.open_pool(&spec).unwrap();
}

#[test]
fn volume_deleted_while_its_drive_is_gone_goes_when_it_is_back() {
    let drive = Drive::new("delete");
    drop(drive.guest("a", LONG));
    drop(drive.handle());
    drive.engine().remove_pool_device("pool").unwrap();
    assert!(drive.engine().unexport("a").unwrap());
    assert!(drive.engine().delete_volume("pool", "a").is_err());
    drive.engine().add_pool_device("pool", None).unwrap();
    assert!(drive.engine().delete_volume("pool", "a").unwrap());
    let deadline = Instant::now() + Duration::from_secs(20);
    assert_eq!(drive.engine().wait_erased("pool", deadline).unwrap(), 0);
}
