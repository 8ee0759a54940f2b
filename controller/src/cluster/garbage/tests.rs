//! Which volumes may be garbage, and how often they are looked at before they go: every doubt speaks for the volume.

use super::super::stand_in::{Cluster, failure, list};
use super::*;
use holdfast_api::{SplitVolumeSpec, Time};
use k8s_openapi::api::core::v1::{
    CSIPersistentVolumeSource, PersistentVolumeClaimSpec, PersistentVolumeSpec,
};
use k8s_openapi::jiff::SignedDuration;
use serde_json::{Value, json};

const GRACE: Duration = Duration::from_secs(600);

fn claim() -> ClaimRef {
    ClaimRef {
        namespace: "db".to_owned(),
        name: "data".to_owned(),
        persistent_volume: "pvc-1".to_owned(),
    }
}

fn volume(age_seconds: i64) -> SplitVolume {
    let spec = SplitVolumeSpec {
        claim: Some(claim()),
        ..Default::default()
    };
    let mut volume = SplitVolume::new("pvc-1", spec);
    let made = now() - SignedDuration::from_secs(age_seconds);
    volume.metadata.creation_timestamp = Some(Time(made));
    volume
}

fn now() -> Timestamp {
    Timestamp::UNIX_EPOCH + SignedDuration::from_hours(1000)
}

fn persistent_volume(name: &str, driver: &str, handle: &str) -> PersistentVolumes {
    let csi = CSIPersistentVolumeSource {
        driver: driver.to_owned(),
        volume_handle: handle.to_owned(),
        ..Default::default()
    };
    let mut seen = PersistentVolumes::default();
    let mut persistent = PersistentVolume {
        spec: Some(PersistentVolumeSpec {
            csi: Some(csi),
            ..Default::default()
        }),
        ..Default::default()
    };
    persistent.metadata.name = Some(name.to_owned());
    seen.add(persistent);
    seen
}

#[test]
fn volume_is_suspect_only_if_old_claimed_and_not_leaving() {
    let suspect = |volume: &SplitVolume| may_be_garbage(volume, now(), GRACE);
    assert!(suspect(&volume(600)));
    assert!(!suspect(&volume(599)), "young");
    assert!(!suspect(&volume(-600)), "made in the future: clocks differ");
    let mut by_hand = volume(6000);
    by_hand.spec.claim = None;
    assert!(!suspect(&by_hand), "made by a person");
    let mut leaving = volume(6000);
    leaving.metadata.deletion_timestamp = Some(Time(now()));
    assert!(!suspect(&leaving), "being deleted");
    let mut ageless = volume(6000);
    ageless.metadata.creation_timestamp = None;
    assert!(!suspect(&ageless), "of unknown age");
}

#[test]
fn persistent_volume_of_its_handle_or_name_keeps_a_volume() {
    let volume = volume(6000);
    for (name, driver, handle, keeps) in [
        ("restored", DRIVER_NAME, "pvc-1", true),
        ("pvc-1", DRIVER_NAME, "another", true),
        ("restored", "csi.example.com", "pvc-1", false),
        ("restored", DRIVER_NAME, "another", false),
    ] {
        let seen = persistent_volume(name, driver, handle);
        assert_eq!(seen.has(&volume), keeps, "{name} {driver} {handle}");
    }
}

#[test]
fn claim_keeps_a_volume_unless_it_is_bound_to_another() {
    let bound = |to: &str| PersistentVolumeClaim {
        spec: Some(PersistentVolumeClaimSpec {
            volume_name: (!to.is_empty()).then(|| to.to_owned()),
            ..Default::default()
        }),
        ..Default::default()
    };
    assert!(may_want(&bound(""), &claim()), "still pending");
    assert!(may_want(&bound("pvc-1"), &claim()));
    assert!(!may_want(&bound("pvc-2"), &claim()), "its successor");
    let mut unnamed = claim();
    unnamed.persistent_volume = String::new();
    assert!(may_want(&bound("pvc-2"), &unnamed), "nobody knows");
}

/// A cluster in which nobody wants volume `pvc-1`.
async fn with_garbage() -> Cluster {
    let cluster = Cluster::empty();
    cluster.loops.store.create(volume(0)).await.unwrap();
    cluster
}

async fn is_there(cluster: &Cluster) -> bool {
    let found = cluster.loops.store.get::<SplitVolume>("pvc-1").await;
    found.unwrap().is_some()
}

fn persistent() -> Value {
    json!({ "metadata": { "name": "pvc-1" }, "spec": {} })
}

#[tokio::test]
async fn garbage_goes_in_the_second_pass_that_finds_it() {
    let cluster = with_garbage().await;
    let mut sweeper = Sweeper::new(&cluster.loops);
    sweeper.pass().await.unwrap();
    assert!(is_there(&cluster).await, "one look is not enough");
    sweeper.pass().await.unwrap();
    assert!(!is_there(&cluster).await);
}

#[tokio::test]
async fn dry_run_deletes_nothing_however_often_it_looks() {
    let mut cluster = with_garbage().await;
    cluster.loops.config.garbage.dry_run = true;
    let mut sweeper = Sweeper::new(&cluster.loops);
    for _ in 0..4 {
        sweeper.pass().await.unwrap();
    }
    assert!(is_there(&cluster).await);
}

#[tokio::test]
async fn volume_wanted_between_two_passes_is_a_new_suspect() {
    let cluster = with_garbage().await;
    let mut sweeper = Sweeper::new(&cluster.loops);
    sweeper.pass().await.unwrap();
    cluster.answer("/persistentvolumes", 200, list(&[persistent()]));
    sweeper.pass().await.unwrap();
    cluster.answer("/persistentvolumes", 200, list(&[]));
    sweeper.pass().await.unwrap();
    assert!(is_there(&cluster).await, "it was wanted meanwhile");
    sweeper.pass().await.unwrap();
    assert!(!is_there(&cluster).await);
}

#[tokio::test]
async fn pass_that_cannot_see_everything_deletes_nothing() {
    for blind in ["/persistentvolumes", "/persistentvolumeclaims/data"] {
        let cluster = with_garbage().await;
        let mut sweeper = Sweeper::new(&cluster.loops);
        sweeper.pass().await.unwrap();
        cluster.answer(blind, 500, failure(500));
        assert!(sweeper.pass().await.is_err(), "{blind}");
        assert!(is_there(&cluster).await, "{blind}");
    }
}

#[tokio::test]
async fn volume_that_is_not_what_was_judged_stays() {
    let cluster = with_garbage().await;
    let (store, sweeper) = (&cluster.loops.store, Sweeper::new(&cluster.loops));
    let judged = store.get::<SplitVolume>("pvc-1").await.unwrap().unwrap();
    let mut written = judged.clone();
    written.metadata.labels = Some([("wanted".to_owned(), "yes".to_owned())].into());
    store.update(written).await.unwrap();
    sweeper.delete(&judged).await.unwrap();
    assert!(is_there(&cluster).await, "written since");
    store.delete::<SplitVolume>("pvc-1").await.unwrap();
    store.create(volume(0)).await.unwrap();
    sweeper.delete(&judged).await.unwrap();
    assert!(is_there(&cluster).await, "made anew");
}
