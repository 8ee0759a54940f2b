//! The process is killed before and after every single write to the store, from staging to unstaging; a new process is started and
//! the same calls are repeated. They must complete, and nothing may be left behind.
#![allow(clippy::unwrap_used)]

mod common;

use common::{Cut, MIB, Machine, Node, POOL, VOLUME, VOLUME_BYTES, has};
use holdfast_api::{SplitVolume, VolumeSession, conditions, short_id};
use holdfast_store::Store;
use std::fs;
use std::os::unix::net::UnixStream;

/// More writes than a run has; reaching it would mean that the cut never comes too late.
const WRITES_MAX: usize = 100;

fn mounts(machine: &Machine) -> usize {
    let table = fs::read_to_string("/proc/thread-self/mountinfo").unwrap();
    let below = machine.dir.path().to_str().unwrap();
    table.lines().filter(|line| line.contains(below)).count()
}

/// Kills at every write of `body` and lets `repeat` check that it completes.
fn at_every_cut(cut_at: fn(usize) -> Cut, scenario: impl Fn(Cut) -> bool) {
    for write in 0..WRITES_MAX {
        if !scenario(cut_at(write)) {
            // Unpublishing takes three writes at least, and who waits for the last may hear of it before the cut.
            assert!(
                write >= 2,
                "only {write} writes were cut; is the cut broken?"
            );
            return;
        }
    }
    panic!("the run has no end");
}

async fn publish(node: Node) {
    node.stage(VOLUME).await.unwrap();
    node.publish(VOLUME, "t").await.unwrap();
}

async fn unpublish(node: Node) {
    node.unpublish(VOLUME, "t").await.unwrap();
    node.unstage(VOLUME).await.unwrap();
}

fn publish_survives(cut: Cut) -> bool {
    let machine = Machine::with_volume();
    let was_cut = machine.run_cut(cut, publish);
    machine.run(|node| async move {
        publish(node.clone()).await;
        let target = node.targets.join("t");
        UnixStream::connect(target.join("v.sock")).unwrap();
        let session = node
            .store
            .get::<VolumeSession>(VOLUME)
            .await
            .unwrap()
            .unwrap();
        assert_eq!(session.spec.targets.len(), 1, "{cut:?}");
    });
    assert_eq!(mounts(&machine), 1, "{cut:?}");
    was_cut
}

fn unpublish_survives(cut: Cut) -> bool {
    let machine = Machine::with_volume();
    machine.run(publish);
    let was_cut = machine.run_cut(cut, unpublish);
    machine.run(|node| async move {
        unpublish(node.clone()).await;
        assert!(!node.targets.join("t").exists(), "{cut:?}");
        assert!(node.store.list::<VolumeSession>().await.unwrap().is_empty());
        assert!(node.engine.exports().is_empty());
    });
    assert_eq!(mounts(&machine), 0, "{cut:?}");
    assert!(
        !machine.path("s/v").join(short_id(VOLUME)).exists(),
        "{cut:?}"
    );
    was_cut
}

fn volume_survives(cut: Cut) -> bool {
    let machine = Machine::new();
    machine.run(|node| async move { drop(node.make_pool(POOL).await) });
    let was_cut = machine.run_cut(cut, |node| async move {
        node.make_volume(VOLUME, VOLUME_BYTES).await;
        node.ask_for(VOLUME, 2 * VOLUME_BYTES).await;
        let grown = |v: &SplitVolume| v.status.as_ref().unwrap().size_bytes > VOLUME_BYTES;
        node.until_volume(VOLUME, grown).await;
        node.store.delete::<SplitVolume>(VOLUME).await.unwrap();
        node.until_gone::<SplitVolume>(VOLUME).await;
    });
    machine.run(|node| async move {
        node.agent.wait_ready().await;
        let object = node.store.get::<SplitVolume>(VOLUME).await.unwrap();
        if object.is_some_and(|volume| volume.metadata.deletion_timestamp.is_none()) {
            let volume = node
                .until_volume(VOLUME, |v| has(v, conditions::READY, true))
                .await;
            let on_drive = node.engine.volume(POOL, VOLUME).unwrap().unwrap();
            assert_eq!(
                volume.status.unwrap().size_bytes,
                on_drive.size_bytes,
                "{cut:?}"
            );
            node.store.delete::<SplitVolume>(VOLUME).await.unwrap();
        }
        node.until_gone::<SplitVolume>(VOLUME).await;
        assert_eq!(node.engine.volumes(POOL).unwrap(), [], "{cut:?}");
        assert_eq!(node.agent.orphans().await.unwrap(), [], "{cut:?}");
        node.make_volume("next", MIB).await;
    });
    was_cut
}

#[test]
fn publish_killed_before_any_write_completes_when_repeated() {
    at_every_cut(Cut::Before, publish_survives);
}

#[test]
fn publish_killed_after_any_write_completes_when_repeated() {
    at_every_cut(Cut::After, publish_survives);
}

#[test]
fn unpublish_killed_before_any_write_completes_when_repeated() {
    at_every_cut(Cut::Before, unpublish_survives);
}

#[test]
fn unpublish_killed_after_any_write_completes_when_repeated() {
    at_every_cut(Cut::After, unpublish_survives);
}

#[test]
fn life_of_a_volume_killed_before_any_write_goes_on() {
    at_every_cut(Cut::Before, volume_survives);
}

#[test]
fn life_of_a_volume_killed_after_any_write_goes_on() {
    at_every_cut(Cut::After, volume_survives);
}
