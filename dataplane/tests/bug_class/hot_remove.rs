//! Rows H01 to H11: drives that go away under their guests.

use crate::common::drive::{Drive, LONG, MIB};
use crate::common::{eventually, pattern};
use crate::{all_ok, read, write};
use holdfast_bdev::{Effect, Fault, IoStatus, Uring, UringOptions};
use holdfast_dataplane::OnDeviceLoss;
use holdfast_testkit::frontend::{Guest, Layout, Op, Range, status};
use holdfast_testkit::workload::{Plan, Workload};
use std::time::{Duration, Instant};

/// How long it may take to let go of a drive that answers.
const PROMPT: Duration = Duration::from_secs(1);

/// One request of each kind that needs the drive.
fn kinds() -> [Op; 5] {
    let range = vec![Range {
        sector: 0,
        sectors: 8,
        flags: 0,
    }];
    let zeroes = Op::WriteZeroes(range.clone());
    [read(0), write(0, 1), Op::Flush, Op::Discard(range), zeroes]
}

/// L01, H01: the origin scenario's middle. The guest reboots while requests are with a drive that is going: they fail only
/// after the stop has been asked for, and the stop must not wait for a verdict that nobody can deliver to it.
#[test]
fn spdk_3416_reboot_while_requests_fail_on_a_lost_drive() {
    for lost_first in [false, true] {
        let drive = Drive::new(&format!("reboot-{lost_first}"));
        let device = drive.handle();
        let mut guest = drive.guest("a", LONG);
        device.inject(Fault::new(Effect::Hang));
        for at in 0..8 {
            guest
                .queue(0)
                .submit(write(at * 512, 1), Layout::INDIRECT)
                .unwrap();
        }
        eventually("all hang", || device.hanging() == 8);
        device.clear();
        device.inject(Fault::new(Effect::Fail(libc::ENODEV)));
        std::fs::rename(&drive.path, drive.away()).unwrap();
        if lost_first {
            guest.queue(1).submit(read(0), Layout::DIRECT).unwrap();
            drive.wait_lost(true);
        }
        std::thread::scope(|scope| {
            let stop = scope.spawn(|| {
                guest.stop_queue(0).unwrap();
                guest.start_queue(0).unwrap();
            });
            device.release(IoStatus::Failed(libc::ENODEV));
            stop.join().unwrap();
        });
        drop(device);
        drive.put_back();
        let done = guest.queue(0).drain().unwrap();
        assert!(done.len() == 8 && all_ok(&done), "{done:?}");
        assert_eq!(guest.queue(0).read(7 * 512, 512).unwrap(), pattern(1, 512));
    }
}

/// H01: with the drive gone, a running guest, a rebooted one and a new one all see their disk as it was.
#[test]
fn spdk_460_configuration_without_the_drive() {
    let drive = Drive::new("config");
    let mut guest = drive.guest("a", OnDeviceLoss::Fail);
    let before = guest.config().unwrap();
    drive.pull();
    guest.queue(0).call(read(0), Layout::DIRECT).unwrap();
    drive.wait_lost(true);
    assert_eq!(guest.config().unwrap(), before);
    guest.reset_device().unwrap();
    guest.start().unwrap();
    assert_eq!(guest.config().unwrap(), before);
    drop(guest);
    let mut cold = Guest::builder().connect(drive.bench.socket("a")).unwrap();
    assert_eq!(cold.config().unwrap(), before);
    let done = cold.queue(0).call(read(0), Layout::DIRECT).unwrap();
    assert_eq!(done.status, status::IOERR);
}

/// H02, H06: a drive with six volumes under load is let go of at once; its guests stay.
#[test]
fn spdk_3511_removal_under_six_busy_guests_is_prompt() {
    let drive = Drive::new("six");
    let names = ["a", "b", "c", "d", "e", "f"];
    let mut guests: Vec<_> = names.iter().map(|name| drive.guest(name, LONG)).collect();
    drop(drive.handle());
    for guest in &mut guests {
        for at in 0..64 {
            guest
                .queue(at as usize % 2)
                .submit(write(at * 512, 1), Layout::INDIRECT)
                .unwrap();
        }
    }
    let start = Instant::now();
    drive.engine().remove_pool_device("pool").unwrap();
    assert!(start.elapsed() < PROMPT, "took {:?}", start.elapsed());
    drop(Uring::open(&drive.path, UringOptions::default()).unwrap());
    drive.engine().add_pool_device("pool", None).unwrap();
    for queue in guests.iter_mut().flat_map(|guest| guest.queues()) {
        assert!(all_ok(&queue.drain().unwrap()));
    }
}

/// H03: 512 requests on sixteen volumes of one drive when it goes.
#[test]
fn spdk_998_removal_with_512_requests_on_16_volumes() {
    let drive = Drive::new("deep");
    let names: Vec<String> = (0..16).map(|number| format!("v{number}")).collect();
    let mut guests: Vec<Guest> = names
        .iter()
        .map(|name| {
            drive.serve("pool", name, MIB, LONG);
            let builder = Guest::builder().memory(4 << 20).queue_size(64);
            builder.connect(drive.bench.socket(name)).unwrap()
        })
        .collect();
    for guest in &mut guests {
        for at in 0..32 {
            guest
                .queue(0)
                .stage(write(at * 512, 9), Layout::INDIRECT)
                .unwrap();
        }
    }
    drive.pull();
    guests
        .iter_mut()
        .for_each(|guest| _ = guest.queue(0).notify().unwrap());
    drive.wait_lost(true);
    drive.check_bystander();
    drive.put_back();
    for guest in &mut guests {
        let done = guest.queue(0).drain().unwrap();
        assert!(done.len() == 32 && all_ok(&done));
    }
}

/// H04, H09, H10: after the loss every kind of request gets a status of its own, and the guest's retries reach nobody.
#[test]
fn spdk_1162_retries_on_a_lost_drive_reach_nobody() {
    let drive = Drive::new("retries");
    let device = drive.handle();
    let mut guest = drive.guest("a", OnDeviceLoss::Fail);
    std::fs::rename(&drive.path, drive.away()).unwrap();
    device.inject(Fault::new(Effect::Fail(libc::ENODEV)));
    guest.queue(0).call(read(0), Layout::DIRECT).unwrap();
    drive.wait_lost(true);
    device.clear();
    // Whatever still went to the drive would never come back.
    device.inject(Fault::new(Effect::Hang));
    for round in 0..200 {
        for op in kinds() {
            let done = guest
                .queue(round % 2)
                .call(op.clone(), Layout::INDIRECT)
                .unwrap();
            assert_eq!(done.status, status::IOERR, "{op}");
        }
    }
    assert_eq!(device.hanging(), 0);
}

/// H10: held, every kind waits and is done on return.
#[test]
fn spdk_h10_every_kind_of_request_waits_and_is_done() {
    let drive = Drive::new("kinds");
    let mut guest = drive.guest("a", LONG);
    drive.pull();
    for op in kinds() {
        guest.queue(0).submit(op, Layout::INDIRECT).unwrap();
    }
    drive.wait_lost(true);
    assert_eq!(guest.queue(0).complete().unwrap(), []);
    drive.put_back();
    let done = guest.queue(0).drain().unwrap();
    assert!(done.len() == 5 && all_ok(&done), "{done:?}");
}

/// H05: the volume is unexported and deleted in the same breath as its drive goes and comes.
#[test]
fn spdk_843_delete_right_after_removal() {
    let drive = Drive::new("breath");
    drop(drive.handle());
    for _ in 0..10 {
        drop(drive.guest("a", LONG));
        std::thread::scope(|scope| {
            scope.spawn(|| drive.engine().remove_pool_device("pool").unwrap());
            scope.spawn(|| drive.engine().unexport("a").unwrap());
        });
        drive.engine().add_pool_device("pool", None).unwrap();
        drop(drive.handle());
        assert!(drive.engine().delete_volume("pool", "a").unwrap());
    }
}

/// H07: the drive goes by itself and by two commands at once, and is added by two at once.
#[test]
fn spdk_567_removed_and_added_from_all_sides() {
    let drive = Drive::new("sides");
    let mut guest = drive.guest("a", LONG);
    for _ in 0..4 {
        guest.queue(0).submit(write(0, 3), Layout::DIRECT).unwrap();
        drive.pull();
        std::thread::scope(|scope| {
            for _ in 0..2 {
                scope.spawn(|| drive.engine().remove_pool_device("pool").unwrap());
            }
        });
        drive.put_back();
        std::thread::scope(|scope| {
            for _ in 0..2 {
                // The second may meet a drive that the first has just opened; that it is there is what counts.
                scope.spawn(|| drop(drive.engine().add_pool_device("pool", None)));
            }
        });
        drive.wait_lost(false);
        assert!(all_ok(&guest.queue(0).drain().unwrap()));
    }
}

/// H08: the drive goes and comes by command in a loop, under verified load.
#[test]
fn spdk_1587_drive_in_and_out_under_load() {
    let drive = Drive::new("loop");
    drop(drive.handle());
    let mut guest = drive.guest("a", LONG);
    std::thread::scope(|scope| {
        let load = scope.spawn(|| {
            let mut workload = Workload::new(Plan::default(), 1, 0..8 * MIB / 512);
            workload.run(&mut guest, 3000).unwrap();
            workload.report().assert_clean();
        });
        while !load.is_finished() {
            drive.engine().remove_pool_device("pool").unwrap();
            drive.engine().add_pool_device("pool", None).unwrap();
            drop(drive.handle());
        }
    });
}
