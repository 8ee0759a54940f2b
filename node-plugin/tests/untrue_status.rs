//! What somebody else wrote into a status, or into a spec that no API server checked, is not believed: the drive is asked.
#![allow(clippy::unwrap_used)]

mod common;

use common::{MIB, Machine, NODE, POOL, VOLUME, VOLUME_BYTES, has, ready, reason};
use holdfast_api::{
    BlockPool, BlockPoolStatus, ExtentStatus, SplitVolume, VolumeSession, condition, conditions,
};
use holdfast_store::{Object, Store};
use std::fs;

/// Writes into an object's status, again if the agent was faster.
async fn write_status<K: Object>(node: &common::Node, name: &str, change: impl Fn(&mut K)) {
    loop {
        let mut object = node.store.get::<K>(name).await.unwrap().unwrap();
        change(&mut object);
        if node.store.update_status(object).await.is_ok() {
            return;
        }
    }
}

#[test]
fn pool_whose_status_tells_of_no_pool_there_can_be_is_refused_and_nothing_is_formatted() {
    let machine = Machine::new();
    let file = machine.pool_file(POOL);
    let blank = fs::File::create(&file).unwrap();
    blank.set_len(common::POOL_BYTES).unwrap();
    machine.run(|node| async move {
        let mut pool = node.pool_object(POOL);
        pool.spec.node_name = "another".into(); // Nobody touches it before its status is there.
        node.store.create(pool).await.unwrap();
        write_status::<BlockPool>(&node, POOL, |pool| {
            pool.status = Some(BlockPoolStatus {
                pool_uuid: "banana".into(),
                ..Default::default()
            });
        })
        .await;
        let mut pool = node.store.get::<BlockPool>(POOL).await.unwrap().unwrap();
        pool.spec.node_name = NODE.into();
        node.store.update(pool).await.unwrap();
        let refused = |pool: &BlockPool| ready(pool) == Some((false, "Invalid".into()));
        let pool = node.until_pool(POOL, refused).await;
        let told = pool.status.unwrap().conditions;
        let said = &condition(&told, conditions::READY).unwrap().message;
        assert!(said.contains("banana"), "{said}");
    });
    assert!(fs::read(file).unwrap().iter().all(|byte| *byte == 0));
}

#[test]
fn size_and_place_in_a_status_are_put_right_from_the_drive() {
    Machine::with_volume().run(|node| async move {
        node.agent.wait_ready().await;
        let place = node.engine.volume(POOL, VOLUME).unwrap().unwrap();
        write_status::<SplitVolume>(&node, VOLUME, |volume| {
            let status = volume.status.as_mut().unwrap();
            status.size_bytes = 1 << 40;
            status.extents = vec![ExtentStatus {
                offset_bytes: 0,
                length_bytes: 1 << 40,
            }];
        })
        .await;
        let right = |volume: &SplitVolume| {
            let status = volume.status.as_ref().unwrap();
            status.size_bytes == VOLUME_BYTES
                && status.extents[0].offset_bytes == place.extents[0].offset_bytes
        };
        node.until_volume(VOLUME, right).await;
        let after = node.engine.volume(POOL, VOLUME).unwrap();
        assert_eq!(after.as_ref(), Some(&place));
    });
}

#[test]
fn socket_in_a_status_is_put_right_and_never_followed() {
    let machine = Machine::with_volume();
    let trap = machine.path("trap");
    fs::write(&trap, "untouched").unwrap();
    let theirs = trap.to_str().unwrap().to_owned();
    machine.run(|node| async move {
        node.stage(VOLUME).await.unwrap();
        write_status::<VolumeSession>(&node, VOLUME, |session| {
            session.status.as_mut().unwrap().socket_path = theirs.clone();
        })
        .await;
        let right = |session: Option<&VolumeSession>| {
            let socket = &session?.status.as_ref()?.socket_path;
            socket.ends_with("v.sock").then_some(())
        };
        node.until(VOLUME, right).await;
        node.unstage(VOLUME).await.unwrap();
    });
    assert_eq!(fs::read_to_string(trap).unwrap(), "untouched");
}

#[test]
fn names_of_three_hundred_characters_are_refused_and_disturb_nobody() {
    Machine::with_volume().run(|node| async move {
        let long = "x".repeat(300);
        let named = node.volume_object(&long, MIB);
        assert!(node.store.create(named).await.is_err());
        let mut of_long_pool = node.volume_object("lost", MIB);
        of_long_pool.spec.pool = long;
        node.store.create(of_long_pool).await.unwrap();
        let refused = |volume: &SplitVolume| has(volume, conditions::ALLOCATED, false);
        let volume = node.until_volume("lost", refused).await;
        assert_eq!(reason(&volume, conditions::ALLOCATED), "NotFound");
        node.make_volume("next", MIB).await;
        node.store.delete::<SplitVolume>("lost").await.unwrap();
        node.until_gone::<SplitVolume>("lost").await;
    });
}
