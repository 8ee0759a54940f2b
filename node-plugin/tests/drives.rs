//! Pools on drives that are named by identity: a made-up `/sys` and `/dev` whose drives are files.
#![allow(clippy::unwrap_used)]

mod common;

use common::{MIB, Machine, NODE, Node, POOL, POOL_BYTES, VOLUME, VOLUME_BYTES, has, ready};
use holdfast_api::{
    BlockPool, BlockPoolSpec, DeviceMatch, VolumeSession, condition, conditions, is_true, quantity,
};
use holdfast_node::DeviceService;
use holdfast_proto::holdfast::v1alpha1::devices_server::Devices;
use holdfast_proto::holdfast::v1alpha1::{DeviceState, RemoveRequest};
use holdfast_store::Store;
use holdfast_testkit::frontend::{Guest, Layout, Op};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use tonic::Request;

const SERIAL: &str = "S4EVNX0R123456";

/// A machine without drives.
fn machine() -> Machine {
    let machine = Machine::new();
    for dir in ["root/sys/block", "root/dev"] {
        fs::create_dir_all(machine.path(dir)).unwrap();
    }
    machine
}

/// Gives the machine a blank drive.
fn plug(machine: &Machine, name: &str, serial: &str) -> PathBuf {
    let file = tell(&machine.path("root"), name, serial);
    make_blank(&file);
    file
}

/// The drive is plugged in while the agent looks for it: its node is there before the kernel tells of it.
fn arrive(root: &Path, name: &str) {
    make_blank(&root.join("dev").join(name));
    tell(root, name, SERIAL);
}

fn make_blank(file: &Path) {
    let made = fs::File::create(file).unwrap();
    made.set_len(POOL_BYTES).unwrap();
}

/// The kernel tells of a drive; returns where its node belongs.
fn tell(root: &Path, name: &str, serial: &str) -> PathBuf {
    let dir = root.join("sys/block").join(name);
    fs::create_dir_all(dir.join("device")).unwrap();
    fs::write(dir.join("device/serial"), format!("{serial}   \n")).unwrap();
    fs::write(dir.join("nsid"), "1\n").unwrap();
    root.join("dev").join(name)
}

fn by_serial(name: &str) -> BlockPool {
    let device = DeviceMatch {
        serial: SERIAL.into(),
        namespace_id: Some(1),
        ..Default::default()
    };
    let spec = BlockPoolSpec {
        node_name: NODE.into(),
        device,
        ..Default::default()
    };
    BlockPool::new(name, spec)
}

async fn until_ready(node: &Node) -> BlockPool {
    let is_ready = |pool: &BlockPool| ready(pool).is_some_and(|(holds, _)| holds);
    node.until_pool(POOL, is_ready).await
}

async fn until_refused(node: &Node, name: &str, why: &str) -> BlockPool {
    let refused = |pool: &BlockPool| ready(pool) == Some((false, why.into()));
    node.until_pool(name, refused).await
}

fn message(pool: &BlockPool, kind: &str) -> String {
    let conditions = &pool.status.as_ref().unwrap().conditions;
    condition(conditions, kind).unwrap().message.clone()
}

fn holds(pool: &BlockPool, kind: &str) -> bool {
    is_true(&pool.status.as_ref().unwrap().conditions, kind)
}

#[test]
fn drive_is_found_by_its_serial_and_every_condition_holds() {
    let machine = machine();
    plug(&machine, "nvme0n1", "another");
    let drive = plug(&machine, "nvme1n1", SERIAL);
    machine.run(|node| async move {
        node.store.create(by_serial(POOL)).await.unwrap();
        let pool = until_ready(&node).await;
        let kinds = [
            conditions::DEVICE_FOUND,
            conditions::METADATA_VALID,
            conditions::HEALTHY,
        ];
        for kind in kinds {
            assert!(holds(&pool, kind), "{kind}");
        }
        assert_eq!(node.engine.pool(POOL).unwrap().path, drive);
        assert_eq!(
            pool.status.unwrap().identity,
            format!("serial:{SERIAL}/1"),
            "what it is known by, not where it is"
        );
    });
}

#[test]
fn drive_that_is_not_there_is_told_with_what_is_and_taken_when_it_comes() {
    let machine = machine();
    plug(&machine, "nvme0n1", "another");
    let root = machine.path("root");
    machine.run(|node| async move {
        node.store.create(by_serial(POOL)).await.unwrap();
        let pool = until_refused(&node, POOL, "DeviceMissing").await;
        assert!(!holds(&pool, conditions::DEVICE_FOUND));
        let said = message(&pool, conditions::DEVICE_FOUND);
        assert!(said.contains("nvme0n1 (serial another"), "{said}");
        arrive(&root, "nvme7n1");
        until_ready(&node).await;
    });
}

#[test]
fn two_drives_of_one_serial_are_refused_and_left_alone() {
    let machine = machine();
    let drives = ["nvme0n1", "nvme1n1"].map(|name| plug(&machine, name, SERIAL));
    machine.run(|node| async move {
        node.store.create(by_serial(POOL)).await.unwrap();
        let pool = until_refused(&node, POOL, "DeviceAmbiguous").await;
        let said = message(&pool, conditions::READY);
        assert!(
            said.contains("nvme0n1") && said.contains("nvme1n1"),
            "{said}"
        );
        assert!(!holds(&pool, conditions::DEVICE_FOUND));
    });
    for drive in drives {
        assert!(fs::read(drive).unwrap().iter().all(|byte| *byte == 0));
    }
}

#[test]
fn drive_that_was_swapped_is_a_mismatch_and_is_not_formatted() {
    let machine = machine();
    let drive = plug(&machine, "nvme0n1", SERIAL);
    machine.run(|node| async move {
        node.store.create(by_serial(POOL)).await.unwrap();
        until_ready(&node).await;
    });
    // A drive that claims the same serial, and is blank.
    fs::remove_file(&drive).unwrap();
    plug(&machine, "nvme0n1", SERIAL);
    machine.run(|node| async move {
        let pool = until_refused(&node, POOL, "DeviceMismatch").await;
        assert!(holds(&pool, conditions::DEVICE_FOUND));
        assert!(!holds(&pool, conditions::METADATA_VALID));
    });
    assert!(fs::read(drive).unwrap().iter().all(|byte| *byte == 0));
}

#[test]
fn lost_drive_is_followed_to_the_name_it_returns_under() {
    let machine = machine();
    let (root, drive) = (machine.path("root"), plug(&machine, "nvme0n1", SERIAL));
    machine.run(|node| async move {
        node.store.create(by_serial(POOL)).await.unwrap();
        until_ready(&node).await;
        node.make_volume(VOLUME, VOLUME_BYTES).await;
        node.stage(VOLUME).await.unwrap();
        let session = node.store.get::<VolumeSession>(VOLUME).await.unwrap();
        let socket = session.unwrap().status.unwrap().socket_path;
        let guest = Guest::builder().queues(1).queue_size(128);
        let mut guest = guest.connect(&socket).unwrap();
        let held = fs::File::options().write(true).open(&drive).unwrap();
        let returned = tell(&root, "nvme5n1", SERIAL);
        fs::remove_dir_all(root.join("sys/block/nvme0n1")).unwrap();
        fs::copy(&drive, root.join("away")).unwrap();
        fs::remove_file(&drive).unwrap();
        held.set_len(0).unwrap(); // From now on the drive that is open answers with errors.
        let read = Op::Read {
            offset: 0,
            len: 4096,
        };
        guest.queue(0).submit(read, Layout::DIRECT).unwrap();
        let pool = until_refused(&node, POOL, "DeviceMissing").await;
        assert!(!holds(&pool, conditions::HEALTHY));
        fs::rename(root.join("away"), &returned).unwrap();
        until_ready(&node).await;
        assert_eq!(node.engine.pool(POOL).unwrap().path, returned);
        node.until_volume(VOLUME, |v| has(v, conditions::READY, true))
            .await;
        node.make_volume("vol-2", MIB).await;
    });
}

#[test]
fn drive_let_go_of_is_not_taken_because_it_is_seen() {
    let machine = machine();
    plug(&machine, "nvme0n1", SERIAL);
    machine.run(|node| async move {
        node.store.create(by_serial(POOL)).await.unwrap();
        until_ready(&node).await;
        let service = DeviceService::new(node.agent.clone());
        let pool = POOL.to_owned();
        // The agent has had its turn when this is answered.
        let answer = service.remove(Request::new(RemoveRequest { pool })).await;
        let device = answer.unwrap().into_inner().device.unwrap();
        assert_eq!(device.state(), DeviceState::Removed);
        assert!(node.engine.pool(POOL).unwrap().removed);
        let pool = until_refused(&node, POOL, "DeviceMissing").await;
        let why = message(&pool, conditions::READY);
        assert!(why.contains("holdfast device add"), "{why}");
    });
}

#[test]
fn younger_of_two_pools_that_name_one_drive_is_refused() {
    let machine = machine();
    plug(&machine, "nvme0n1", SERIAL);
    machine.run(|node| async move {
        node.store.create(by_serial(POOL)).await.unwrap();
        until_ready(&node).await;
        node.store.create(by_serial("pool-2")).await.unwrap();
        let pool = until_refused(&node, "pool-2", "DeviceInUse").await;
        let said = message(&pool, conditions::READY);
        assert!(said.contains(POOL), "{said}");
        // Under another of its names as well.
        let mut third = by_serial("pool-3");
        let path = node.engine.pool(POOL).unwrap().path;
        third.spec.device = DeviceMatch {
            path: path.to_str().unwrap().into(),
            ..Default::default()
        };
        node.store.create(third).await.unwrap();
        let pool = until_refused(&node, "pool-3", "DeviceInUse").await;
        let said = message(&pool, conditions::READY);
        assert!(said.contains(POOL), "{said}");
    });
}

#[test]
fn younger_of_two_pools_does_not_get_the_drive_when_it_comes() {
    let machine = machine();
    let root = machine.path("root");
    machine.run(|node| async move {
        node.store.create(by_serial(POOL)).await.unwrap();
        until_refused(&node, POOL, "DeviceMissing").await;
        node.store.create(by_serial("pool-2")).await.unwrap();
        until_refused(&node, "pool-2", "DeviceInUse").await;
        arrive(&root, "nvme7n1");
        until_ready(&node).await;
        until_refused(&node, "pool-2", "DeviceInUse").await;
    });
}

#[test]
fn open_pool_that_is_pointed_at_another_drive_stays_and_says_so() {
    let machine = machine();
    plug(&machine, "nvme0n1", SERIAL);
    let other = plug(&machine, "nvme1n1", "another");
    machine.run(|node| async move {
        node.store.create(by_serial(POOL)).await.unwrap();
        until_ready(&node).await;
        node.make_volume(VOLUME, VOLUME_BYTES).await;
        loop {
            let mut pool = node.store.get::<BlockPool>(POOL).await.unwrap().unwrap();
            pool.spec.device.serial = "another".into();
            if node.store.update(pool).await.is_ok() {
                break;
            }
        }
        let pool = until_refused(&node, POOL, "DeviceMismatch").await;
        let said = message(&pool, conditions::READY);
        assert!(said.contains(SERIAL) && said.contains("another"), "{said}");
        assert!(node.engine.volume(POOL, VOLUME).unwrap().is_some());
    });
    assert!(fs::read(other).unwrap().iter().all(|byte| *byte == 0));
}

#[test]
fn drive_with_somebody_elses_data_is_refused_and_taken_by_force_only() {
    let machine = machine();
    let drive = plug(&machine, "nvme0n1", SERIAL);
    let mut content = vec![0; usize::try_from(POOL_BYTES).unwrap()];
    content[510..512].copy_from_slice(&[0x55, 0xaa]); // A partition table with one Linux partition.
    content[446 + 4] = 0x83;
    content[446 + 8..446 + 16].copy_from_slice(&[0, 8, 0, 0, 0, 8, 0, 0]);
    fs::write(&drive, &content).unwrap();
    machine.run(|node| async move {
        node.store.create(by_serial(POOL)).await.unwrap();
        let pool = until_refused(&node, POOL, "ForeignData").await;
        let said = message(&pool, conditions::READY);
        assert!(said.contains("partition table"), "{said}");
        assert!(fs::read(&drive).unwrap() == content, "nothing was written");
        loop {
            let mut pool = node.store.get::<BlockPool>(POOL).await.unwrap().unwrap();
            pool.spec.force = true;
            if node.store.update(pool).await.is_ok() {
                break;
            }
        }
        until_ready(&node).await;
    });
}

#[test]
fn drive_with_a_file_system_is_refused_and_left_alone() {
    let machine = machine();
    let drive = plug(&machine, "nvme0n1", SERIAL);
    let made = Command::new("mkfs.ext4").arg("-q").arg(&drive).status();
    assert!(made.unwrap().success());
    let content = fs::read(&drive).unwrap();
    machine.run(|node| async move {
        node.store.create(by_serial(POOL)).await.unwrap();
        let pool = until_refused(&node, POOL, "ForeignData").await;
        let said = message(&pool, conditions::READY);
        assert!(said.contains("ext"), "{said}");
    });
    assert!(fs::read(drive).unwrap() == content, "something was written");
}

#[test]
fn drive_that_somebody_holds_is_refused_even_with_force() {
    let machine = machine();
    let drive = plug(&machine, "nvme0n1", SERIAL);
    let holder = fs::File::open(&drive).unwrap();
    holder.lock().unwrap();
    machine.run(|node| async move {
        let mut pool = by_serial(POOL);
        pool.spec.force = true;
        pool.spec.size = Some(quantity(POOL_BYTES));
        node.store.create(pool).await.unwrap();
        let pool = until_refused(&node, POOL, "DeviceInUse").await;
        assert!(holds(&pool, conditions::DEVICE_FOUND));
    });
    assert!(fs::read(drive).unwrap().iter().all(|byte| *byte == 0));
    drop(holder);
}

#[test]
fn device_that_is_named_in_two_ways_is_refused() {
    let machine = machine();
    plug(&machine, "nvme0n1", SERIAL);
    machine.run(|node| async move {
        let mut pool = by_serial(POOL);
        pool.spec.device.wwid = "eui.01".into();
        node.store.create(pool).await.unwrap();
        let pool = until_refused(&node, POOL, "Invalid").await;
        let said = message(&pool, conditions::READY);
        assert!(said.contains("exactly one"), "{said}");
    });
}
