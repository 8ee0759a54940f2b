//! Pools and volumes: what the agent does for objects, and what it must never do.
#![allow(clippy::unwrap_used)]

mod common;

use common::{MIB, Machine, NODE, POOL, POOL_BYTES, VOLUME, VOLUME_BYTES, has, ready, reason};
use holdfast_api::{
    BlockPool, SplitVolume, VolumeSession, VolumeSessionSpec, condition, conditions, quantity,
};
use holdfast_store::Store;
use std::fs;
use std::time::{Duration, Instant};

#[test]
fn missing_file_becomes_a_pool_and_the_status_tells_its_space() {
    let machine = Machine::new();
    machine.run(|node| async move {
        let pool = node.make_pool(POOL).await;
        let status = pool.status.unwrap();
        let info = node.engine.pool(POOL).unwrap();
        assert_eq!(status.pool_uuid, info.uuid.to_string());
        assert_eq!(status.identity, pool.spec.device.path);
        assert_eq!(status.capacity_bytes, info.usage.capacity_bytes);
        assert!(status.capacity_bytes > POOL_BYTES / 2);
        assert_eq!(status.free_bytes, status.capacity_bytes);
        assert_eq!(status.largest_free_extent_bytes, status.free_bytes);
        assert_eq!(status.volumes, 0);
    });
}

#[test]
fn device_with_another_pool_is_refused_as_wrong_and_left_alone() {
    let machine = Machine::with_volume();
    let (file, first) = (machine.pool_file(POOL), machine.path("first.img"));
    fs::rename(&file, &first).unwrap();
    fs::remove_file(machine.manifest("blockpools", POOL)).unwrap();
    machine.run(|node| async move {
        node.make_pool(POOL).await; // A second pool, made at the same place.
    });
    fs::rename(&first, &file).unwrap();
    let before = fs::read(&file).unwrap();
    machine.run(|node| async move {
        let refused = |pool: &BlockPool| ready(pool) == Some((false, "DeviceMismatch".into()));
        node.until_pool(POOL, refused).await;
    });
    assert!(fs::read(&file).unwrap() == before, "nothing was written");
}

#[test]
fn blank_device_is_not_formatted_when_the_status_knows_a_pool() {
    let machine = Machine::with_volume();
    let file = machine.pool_file(POOL);
    let blank = fs::File::create(&file).unwrap();
    blank.set_len(POOL_BYTES).unwrap();
    machine.run(|node| async move {
        let refused = |pool: &BlockPool| ready(pool) == Some((false, "DeviceMismatch".into()));
        node.until_pool(POOL, refused).await;
    });
    assert!(fs::read(&file).unwrap().iter().all(|byte| *byte == 0));
}

#[test]
fn lost_file_is_not_made_anew_and_the_pool_is_ready_when_it_returns() {
    let machine = Machine::with_volume();
    let (file, aside) = (machine.pool_file(POOL), machine.path("aside.img"));
    fs::rename(&file, &aside).unwrap();
    machine.run(|node| async move {
        let refused = |pool: &BlockPool| ready(pool) == Some((false, "DeviceMissing".into()));
        node.until_pool(POOL, refused).await;
        assert!(!file.exists());
        let volume = node
            .until_volume(VOLUME, |v| has(v, conditions::READY, false))
            .await;
        assert!(has(&volume, conditions::ALLOCATED, true), "{volume:#?}");
        fs::rename(&aside, &file).unwrap();
        node.until_pool(POOL, |pool| ready(pool).is_some_and(|(holds, _)| holds))
            .await;
        node.until_volume(VOLUME, |v| has(v, conditions::READY, true))
            .await;
    });
}

#[test]
fn drive_that_is_lost_while_in_use_is_told_and_the_session_stays() {
    let machine = Machine::with_volume();
    machine.run(|node| async move {
        node.stage(VOLUME).await.unwrap();
        node.engine.remove_pool_device(POOL).unwrap();
        let lost = |pool: &BlockPool| ready(pool) == Some((false, "DeviceMissing".into()));
        node.until_pool(POOL, lost).await;
        let volume = node
            .until_volume(VOLUME, |v| has(v, conditions::READY, false))
            .await;
        assert!(has(&volume, conditions::ALLOCATED, true), "{volume:#?}");
        node.stage(VOLUME).await.unwrap();
        assert!(node.engine.export_info(VOLUME).is_some());
        node.engine.add_pool_device(POOL, None).unwrap();
        node.until_pool(POOL, |pool| ready(pool).is_some_and(|(holds, _)| holds))
            .await;
        node.until_volume(VOLUME, |v| has(v, conditions::READY, true))
            .await;
    });
}

#[test]
fn device_named_by_order_of_discovery_is_refused() {
    let machine = Machine::new();
    machine.run(|node| async move {
        for (name, path) in [
            ("nvme", "/dev/nvme0n1"),
            ("sd", "/dev/sdb"),
            ("rel", "a.img"),
        ] {
            let mut pool = node.pool_object(name);
            pool.spec.device.path = path.into();
            node.store.create(pool).await.unwrap();
            let refused = |pool: &BlockPool| ready(pool) == Some((false, "Invalid".into()));
            node.until_pool(name, refused).await;
        }
    });
}

#[test]
fn volume_is_allocated_grown_released_and_erased() {
    let machine = Machine::new();
    machine.run(|node| async move {
        node.make_pool(POOL).await;
        let volume = node.make_volume(VOLUME, VOLUME_BYTES).await;
        assert_eq!(volume.status.unwrap().size_bytes, VOLUME_BYTES);
        let pool = node
            .until_pool(POOL, |pool| pool.status.as_ref().unwrap().volumes == 1)
            .await;
        assert_eq!(pool.status.unwrap().allocated_bytes, VOLUME_BYTES);

        node.ask_for(VOLUME, 2 * VOLUME_BYTES).await;
        let grown = |v: &SplitVolume| v.status.as_ref().unwrap().size_bytes == 2 * VOLUME_BYTES;
        let volume = node.until_volume(VOLUME, grown).await;
        let on_drive = node.engine.volume(POOL, VOLUME).unwrap().unwrap();
        let extents = volume.status.unwrap().extents;
        let total: u64 = extents.iter().map(|extent| extent.length_bytes).sum();
        assert_eq!(total, on_drive.size_bytes);

        assert!(node.store.delete::<SplitVolume>(VOLUME).await.unwrap());
        node.until_gone::<SplitVolume>(VOLUME).await;
        assert_eq!(node.engine.volume(POOL, VOLUME).unwrap(), None);
        let all_free = |pool: &BlockPool| {
            let status = pool.status.as_ref().unwrap();
            status.free_bytes == status.capacity_bytes && status.volumes == 0
        };
        node.until_pool(POOL, all_free).await;
    });
}

#[test]
fn volume_without_room_is_refused_and_made_when_room_comes() {
    let machine = Machine::new();
    machine.run(|node| async move {
        let pool = node.make_pool(POOL).await;
        let free = pool.status.unwrap().free_bytes;
        node.make_volume("first", free - VOLUME_BYTES).await;
        node.store
            .create(node.volume_object(VOLUME, 2 * VOLUME_BYTES))
            .await
            .unwrap();
        let volume = node
            .until_volume(VOLUME, |v| has(v, conditions::ALLOCATED, false))
            .await;
        assert_eq!(reason(&volume, conditions::ALLOCATED), "NoSpace");
        assert_eq!(node.engine.volume(POOL, VOLUME).unwrap(), None);
        node.store.delete::<SplitVolume>("first").await.unwrap();
        node.until_volume(VOLUME, |v| has(v, conditions::READY, true))
            .await;
    });
}

#[test]
fn growth_without_room_leaves_the_volume_usable_and_says_so() {
    let machine = Machine::with_volume();
    machine.run(|node| async move {
        node.ask_for(VOLUME, POOL_BYTES).await;
        let volume = node
            .until_volume(VOLUME, |v| has(v, conditions::EXPANDED, false))
            .await;
        assert_eq!(reason(&volume, conditions::EXPANDED), "NoSpace");
        assert!(has(&volume, conditions::READY, true));
        assert!(has(&volume, conditions::ALLOCATED, true));
        node.ask_for(VOLUME, VOLUME_BYTES).await;
        node.until_volume(VOLUME, |v| has(v, conditions::EXPANDED, true))
            .await;
    });
}

#[test]
fn smaller_size_is_refused_and_the_volume_keeps_its_own() {
    let machine = Machine::with_volume();
    machine.run(|node| async move {
        node.ask_for(VOLUME, MIB).await;
        let volume = node
            .until_volume(VOLUME, |v| has(v, conditions::EXPANDED, false))
            .await;
        assert_eq!(reason(&volume, conditions::EXPANDED), "Invalid");
        assert_eq!(volume.status.unwrap().size_bytes, VOLUME_BYTES);
    });
}

#[test]
fn size_that_cannot_be_is_refused_and_nothing_is_made() {
    let machine = Machine::with_volume();
    machine.run(|node| async move {
        for (name, size) in [("zero", "0"), ("text", "much"), ("exa", "8Ei")] {
            let mut volume = node.volume_object(name, MIB);
            volume.spec.size.0 = size.into();
            node.store.create(volume).await.unwrap();
            let volume = node
                .until_volume(name, |v| has(v, conditions::ALLOCATED, false))
                .await;
            assert_eq!(reason(&volume, conditions::ALLOCATED), "Invalid", "{size}");
            assert_eq!(node.engine.volume(POOL, name).unwrap(), None);
        }
        let one_byte = node.make_volume("one", 1).await;
        assert_eq!(one_byte.status.unwrap().size_bytes, MIB, "rounded up");
    });
}

#[test]
fn volume_with_a_session_is_not_released() {
    let machine = Machine::with_volume();
    machine.run(|node| async move {
        node.stage(VOLUME).await.unwrap();
        node.store.delete::<SplitVolume>(VOLUME).await.unwrap();
        let volume = node
            .until_volume(VOLUME, |v| has(v, conditions::QUARANTINED, false))
            .await;
        assert_eq!(reason(&volume, conditions::QUARANTINED), "InUse");
        assert!(node.engine.volume(POOL, VOLUME).unwrap().is_some());
        node.unstage(VOLUME).await.unwrap();
        node.until_gone::<SplitVolume>(VOLUME).await;
        assert_eq!(node.engine.volume(POOL, VOLUME).unwrap(), None);
    });
}

#[test]
fn volume_whose_object_vanished_is_listed_as_an_orphan_and_kept() {
    let machine = Machine::with_volume();
    fs::remove_file(machine.manifest("splitvolumes", VOLUME)).unwrap();
    machine.run(|node| async move {
        node.agent.wait_ready().await;
        let orphans = node.agent.orphans().await.unwrap();
        assert_eq!(orphans.len(), 1);
        assert_eq!(
            (orphans[0].id.as_str(), orphans[0].size_bytes),
            (VOLUME, VOLUME_BYTES)
        );
        let pool = node.store.get::<BlockPool>(POOL).await.unwrap().unwrap();
        let conditions = pool.status.unwrap().conditions;
        let message = &condition(&conditions, conditions::READY).unwrap().message;
        assert!(message.contains(VOLUME), "{message}");
        assert!(node.engine.volume(POOL, VOLUME).unwrap().is_some());
    });
}

#[test]
fn volume_whose_manifest_is_damaged_is_no_orphan() {
    let machine = Machine::with_volume();
    fs::write(machine.manifest("splitvolumes", VOLUME), b"spec: [").unwrap();
    machine.run(|node| async move {
        node.agent.wait_ready().await;
        assert_eq!(node.agent.orphans().await.unwrap(), []);
        assert!(node.engine.volume(POOL, VOLUME).unwrap().is_some());
    });
}

#[test]
fn pool_in_use_stays_open_until_its_sessions_have_ended() {
    let machine = Machine::with_volume();
    machine.run(|node| async move {
        node.stage(VOLUME).await.unwrap();
        node.store.delete::<BlockPool>(POOL).await.unwrap();
        // A session made and ended after it shows that the pool's absence has been seen.
        let refused = |v: &SplitVolume| has(v, conditions::READY, false);
        assert!(node.engine.export_info(VOLUME).is_some());
        node.unstage(VOLUME).await.unwrap();
        node.until_volume(VOLUME, refused).await;
        assert!(node.engine.pool(POOL).is_err());
    });
}

#[test]
fn volume_that_the_drive_lost_is_not_replaced_by_an_empty_one() {
    let machine = Machine::with_volume();
    machine.run(|node| async move {
        node.agent.wait_ready().await;
        // Behind the agent's back, as a drive that was rolled back would.
        assert!(node.engine.delete_volume(POOL, VOLUME).unwrap());
        node.ask_for(VOLUME, 2 * VOLUME_BYTES).await;
        let volume = node
            .until_volume(VOLUME, |v| has(v, conditions::READY, false))
            .await;
        assert_eq!(reason(&volume, conditions::READY), "Lost");
        assert_eq!(node.engine.volume(POOL, VOLUME).unwrap(), None);
    });
}

#[test]
fn volume_of_a_pool_that_never_was_can_be_deleted() {
    let machine = Machine::new();
    machine.run(|node| async move {
        node.store
            .create(node.volume_object(VOLUME, MIB))
            .await
            .unwrap();
        let volume = node
            .until_volume(VOLUME, |v| has(v, conditions::ALLOCATED, false))
            .await;
        assert_eq!(reason(&volume, conditions::ALLOCATED), "NotFound");
        node.store.delete::<SplitVolume>(VOLUME).await.unwrap();
        node.until_gone::<SplitVolume>(VOLUME).await;
    });
}

#[test]
fn volume_waits_for_its_pool_to_be_made() {
    let machine = Machine::new();
    machine.run(|node| async move {
        node.store
            .create(node.volume_object(VOLUME, MIB))
            .await
            .unwrap();
        node.until_volume(VOLUME, |v| has(v, conditions::READY, false))
            .await;
        node.make_pool(POOL).await;
        node.until_volume(VOLUME, |v| has(v, conditions::READY, true))
            .await;
    });
}

#[test]
fn pool_without_an_object_is_closed_and_its_content_stays() {
    let machine = Machine::with_volume();
    machine.run(|node| async move {
        node.agent.wait_ready().await;
        let object = node.store.get::<BlockPool>(POOL).await.unwrap().unwrap();
        node.store.delete::<BlockPool>(POOL).await.unwrap();
        node.until_volume(VOLUME, |v| has(v, conditions::READY, false))
            .await;
        assert!(node.engine.pool(POOL).is_err());
        let again = BlockPool::new(POOL, object.spec);
        node.store.create(again).await.unwrap();
        let volume = node
            .until_volume(VOLUME, |v| has(v, conditions::READY, true))
            .await;
        assert_eq!(volume.status.unwrap().size_bytes, VOLUME_BYTES);
    });
}

#[test]
fn objects_of_another_node_are_left_alone() {
    let machine = Machine::new();
    machine.run(|node| async move {
        let mut theirs = node.pool_object("theirs");
        theirs.spec.node_name = "node-2".into();
        node.store.create(theirs).await.unwrap();
        let mut volume = node.volume_object("theirs", MIB);
        volume.spec.node_name = "node-2".into();
        node.store.create(volume).await.unwrap();
        let session = VolumeSessionSpec {
            volume: "theirs".into(),
            node_name: "node-2".into(),
            ..Default::default()
        };
        node.store
            .create(VolumeSession::new("theirs", session))
            .await
            .unwrap();
        // Ours, made afterwards and served, shows that theirs have been seen and passed over.
        node.make_pool(POOL).await;
        node.make_volume(VOLUME, MIB).await;
        node.stage(VOLUME).await.unwrap();
        let pool = node
            .store
            .get::<BlockPool>("theirs")
            .await
            .unwrap()
            .unwrap();
        let volume = node
            .store
            .get::<SplitVolume>("theirs")
            .await
            .unwrap()
            .unwrap();
        let session = node
            .store
            .get::<VolumeSession>("theirs")
            .await
            .unwrap()
            .unwrap();
        assert_eq!(
            (pool.status, volume.status, session.status),
            (None, None, None)
        );
        assert_eq!(volume.metadata.finalizers, None);
        assert_eq!(NODE, "node-1");
    });
}

#[test]
fn provisioning_takes_less_than_a_second() {
    let machine = Machine::new();
    machine.run(|node| async move {
        node.make_pool(POOL).await;
        let start = Instant::now();
        node.make_volume(VOLUME, VOLUME_BYTES).await;
        node.stage(VOLUME).await.unwrap();
        node.publish(VOLUME, "t").await.unwrap();
        assert!(
            start.elapsed() < Duration::from_secs(1),
            "{:?}",
            start.elapsed()
        );
        node.unpublish(VOLUME, "t").await.unwrap();
    });
}

#[test]
fn store_stays_quiet_when_nothing_is_to_do() {
    let machine = Machine::with_volume();
    machine.run(|node| async move {
        node.stage(VOLUME).await.unwrap();
        let versions = || async {
            let pool = node.store.get::<BlockPool>(POOL).await.unwrap().unwrap();
            let volume = node
                .store
                .get::<SplitVolume>(VOLUME)
                .await
                .unwrap()
                .unwrap();
            let session = node
                .store
                .get::<VolumeSession>(VOLUME)
                .await
                .unwrap()
                .unwrap();
            [pool.metadata, volume.metadata, session.metadata].map(|meta| meta.resource_version)
        };
        let before = versions().await;
        let mut second = node.volume_object("second", MIB);
        second.spec.size = quantity(MIB);
        node.store.create(second).await.unwrap();
        node.until_volume("second", |v| has(v, conditions::READY, true))
            .await;
        node.until_pool(POOL, |pool| pool.status.as_ref().unwrap().volumes == 2)
            .await;
        let after = versions().await;
        assert_ne!(before[0], after[0], "the pool has a volume more");
        assert_eq!(before[1..], after[1..], "others are not written again");
    });
}
