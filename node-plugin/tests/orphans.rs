//! Volumes on a drive that no object stands for: kept, named, taken over, and erased only when a person says so.
#![allow(clippy::unwrap_used)]

mod common;

use common::{MIB, Machine, Node, POOL, VOLUME, VOLUME_BYTES, has, reason};
use holdfast_api::{
    NODE_FINALIZER, OrphanExtent, SplitVolume, conditions, orphan_name, parse_quantity, quantity,
};
use holdfast_store::Store;
use std::fs;
use std::os::unix::fs::FileExt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// A machine whose volume lost its object while nothing ran.
fn machine_with_orphan() -> Machine {
    let machine = Machine::with_volume();
    fs::remove_file(machine.manifest("splitvolumes", VOLUME)).unwrap();
    machine
}

async fn until_orphan(node: &Node) -> OrphanExtent {
    let name = orphan_name(POOL, VOLUME);
    node.until(&name, |orphan: Option<&OrphanExtent>| orphan.cloned())
        .await
}

async fn until_no_orphan(node: &Node) {
    node.until_gone::<OrphanExtent>(&orphan_name(POOL, VOLUME))
        .await;
}

fn is_on_drive(node: &Node) -> bool {
    node.engine.volume(POOL, VOLUME).unwrap().is_some()
}

#[test]
fn volume_without_an_object_is_written_down_with_its_place() {
    machine_with_orphan().run(|node| async move {
        let orphan = until_orphan(&node).await;
        let on_drive = node.engine.volume(POOL, VOLUME).unwrap().unwrap();
        assert_eq!(orphan.spec.volume_id, VOLUME);
        assert_eq!(orphan.spec.pool, POOL);
        assert_eq!(parse_quantity(&orphan.spec.size.0), Ok(VOLUME_BYTES));
        let places = orphan.spec.extents.iter().map(|extent| extent.offset_bytes);
        let drive = on_drive.extents.iter().map(|extent| extent.offset_bytes);
        assert!(places.eq(drive));
        assert_eq!(
            orphan.metadata.finalizers,
            Some(vec![NODE_FINALIZER.to_owned()])
        );
    });
}

#[test]
fn object_that_vanishes_while_the_agent_runs_leaves_an_orphan() {
    let machine = Machine::with_volume();
    let manifest = machine.manifest("splitvolumes", VOLUME);
    machine.run(|node| async move {
        node.agent.wait_ready().await;
        fs::remove_file(manifest).unwrap();
        node.make_volume("another", MIB).await; // Any change makes the agent look.
        until_orphan(&node).await;
        assert!(is_on_drive(&node));
    });
}

#[test]
fn orphan_outlives_restarts_and_is_written_once() {
    let machine = machine_with_orphan();
    for _ in 0..2 {
        machine.run(|node| async move {
            node.agent.wait_ready().await;
            until_orphan(&node).await;
            let all = node.store.list::<OrphanExtent>().await.unwrap();
            assert_eq!(all.len(), 1);
            assert!(is_on_drive(&node));
        });
    }
}

#[test]
fn deleted_orphan_is_erased_and_its_space_is_free() {
    machine_with_orphan().run(|node| async move {
        let orphan = until_orphan(&node).await;
        let before = node.engine.pool(POOL).unwrap().usage.free_bytes;
        let name = orphan.metadata.name.unwrap();
        node.store.delete::<OrphanExtent>(&name).await.unwrap();
        until_no_orphan(&node).await;
        assert!(!is_on_drive(&node));
        let is_free = |pool: &holdfast_api::BlockPool| {
            pool.status.as_ref().unwrap().free_bytes == before + VOLUME_BYTES
        };
        node.until_pool(POOL, is_free).await;
        let all = node.store.list::<OrphanExtent>().await.unwrap();
        assert_eq!(all, [], "it does not come back");
    });
}

#[test]
fn object_that_comes_back_takes_the_volume_over() {
    machine_with_orphan().run(|node| async move {
        until_orphan(&node).await;
        let place = node.engine.volume(POOL, VOLUME).unwrap();
        let volume = node.make_volume(VOLUME, VOLUME_BYTES).await;
        assert_eq!(volume.status.unwrap().size_bytes, VOLUME_BYTES);
        until_no_orphan(&node).await;
        assert_eq!(node.engine.volume(POOL, VOLUME).unwrap(), place);
    });
}

#[test]
fn object_that_comes_back_wins_over_the_wish_to_erase() {
    let machine = machine_with_orphan();
    machine.run(|node| async move {
        until_orphan(&node).await;
    });
    // Both happen while no agent runs: the order in which it sees them must not matter.
    let runtime = tokio::runtime::Runtime::new().unwrap();
    runtime.block_on(async {
        let store = holdfast_store::DirStore::open(machine.path("objects")).unwrap();
        let name = orphan_name(POOL, VOLUME);
        store.delete::<OrphanExtent>(&name).await.unwrap();
        let spec = holdfast_api::SplitVolumeSpec {
            node_name: common::NODE.into(),
            pool: POOL.into(),
            size: quantity(VOLUME_BYTES),
            ..Default::default()
        };
        let volume = SplitVolume::new(VOLUME, spec);
        store.create(volume).await.unwrap();
    });
    machine.run(|node| async move {
        node.until_volume(VOLUME, |v| has(v, conditions::READY, true))
            .await;
        until_no_orphan(&node).await;
        assert!(is_on_drive(&node));
    });
}

#[test]
fn object_that_comes_back_while_the_wish_to_erase_is_written_down_keeps_its_data() {
    const DATA: &[u8] = b"precious";
    let machine = machine_with_orphan();
    let place = Arc::new(AtomicU64::new(0));
    let told = Arc::clone(&place);
    machine.run(|node| async move {
        let extents = until_orphan(&node).await.spec.extents;
        told.store(extents[0].offset_bytes, Ordering::Relaxed);
    });
    let place = place.load(Ordering::Relaxed);
    let mut options = fs::File::options();
    let drive = options.read(true).write(true);
    let drive = drive.open(machine.pool_file(POOL)).unwrap();
    drive.write_all_at(DATA, place).unwrap();
    machine.run(|node| async move {
        let orphan = until_orphan(&node).await.metadata.name.unwrap();
        let volume = node.volume_object(VOLUME, VOLUME_BYTES);
        let store = node.store.dir().clone();
        node.store.before_status_of(&orphan, async move {
            store.create(volume).await.unwrap();
        });
        node.store.delete::<OrphanExtent>(&orphan).await.unwrap();
        until_no_orphan(&node).await;
        node.until_volume(VOLUME, |v| has(v, conditions::READY, true))
            .await;
        let deadline = Instant::now() + Duration::from_secs(20);
        assert_eq!(node.engine.wait_erased(POOL, deadline).unwrap(), 0);
    });
    let mut kept = [0; DATA.len()];
    drive.read_exact_at(&mut kept, place).unwrap();
    assert_eq!(kept, DATA);
}

#[test]
fn object_of_another_size_does_not_get_the_data() {
    machine_with_orphan().run(|node| async move {
        until_orphan(&node).await;
        let foreign = node.volume_object(VOLUME, 2 * VOLUME_BYTES);
        node.store.create(foreign).await.unwrap();
        let volume = node
            .until_volume(VOLUME, |v| has(v, conditions::ALLOCATED, false))
            .await;
        assert_eq!(reason(&volume, conditions::ALLOCATED), "NotAdopted");
        until_orphan(&node).await;
        let kept = node.engine.volume(POOL, VOLUME).unwrap().unwrap();
        assert_eq!(kept.size_bytes, VOLUME_BYTES);

        node.store.delete::<SplitVolume>(VOLUME).await.unwrap();
        node.until_gone::<SplitVolume>(VOLUME).await;
        assert!(is_on_drive(&node), "it was never that object's");
        until_orphan(&node).await;
    });
}

#[test]
fn refused_object_gets_a_fresh_volume_once_the_orphan_is_erased() {
    machine_with_orphan().run(|node| async move {
        until_orphan(&node).await;
        let wanted = node.volume_object(VOLUME, 2 * VOLUME_BYTES);
        node.store.create(wanted).await.unwrap();
        node.until_volume(VOLUME, |v| has(v, conditions::ALLOCATED, false))
            .await;
        let name = orphan_name(POOL, VOLUME);
        node.store.delete::<OrphanExtent>(&name).await.unwrap();
        node.until_volume(VOLUME, |v| has(v, conditions::READY, true))
            .await;
        until_no_orphan(&node).await;
        let fresh = node.engine.volume(POOL, VOLUME).unwrap().unwrap();
        assert_eq!(fresh.size_bytes, 2 * VOLUME_BYTES);
    });
}

#[test]
fn orphan_whose_pool_is_away_waits_with_the_reason() {
    let machine = machine_with_orphan();
    machine.run(|node| async move {
        until_orphan(&node).await;
    });
    let (file, aside) = (machine.pool_file(POOL), machine.path("aside.img"));
    fs::rename(&file, &aside).unwrap();
    machine.run(|node| async move {
        node.agent.wait_ready().await;
        let name = orphan_name(POOL, VOLUME);
        node.store.delete::<OrphanExtent>(&name).await.unwrap();
        let told = |orphan: Option<&OrphanExtent>| {
            let conditions = &orphan?.status.as_ref()?.conditions;
            let quarantined = holdfast_api::condition(conditions, conditions::QUARANTINED)?;
            (quarantined.status == "False").then_some(())
        };
        node.until(&name, told).await;
        fs::rename(&aside, &file).unwrap();
        until_no_orphan(&node).await;
        assert!(!is_on_drive(&node));
    });
}
