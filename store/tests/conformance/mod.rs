//! What every store must do, whatever keeps its objects. A store's own test calls [`all`] with a fresh, empty store each time.

use holdfast_api::{SplitVolume, SplitVolumeSpec, SplitVolumeStatus, VolumeSession, quantity};
use holdfast_store::{Changes, Store, StoreError};
use std::time::Duration;
use tokio::time::timeout;

/// Far more than any store needs: only a change that is never told reaches it.
const DEADLINE: Duration = Duration::from_secs(30);
const FINALIZER: &str = "holdfast.dev/test";

/// Runs every case, each on an empty store. A watch may tell of one thing more than once, but must come to rest within `settle`.
pub(crate) async fn all<S: Store>(mut fresh: impl AsyncFnMut() -> S, settle: Duration) {
    created_object_is_read_back_with_metadata(fresh().await).await;
    name_in_use_is_refused(fresh().await).await;
    name_that_is_no_label_is_refused_by_every_verb(fresh().await).await;
    list_is_sorted_and_keeps_kinds_apart(fresh().await).await;
    update_leaves_the_status_and_counts_spec_changes(fresh().await).await;
    status_update_leaves_the_spec(fresh().await).await;
    stale_object_is_a_conflict(fresh().await).await;
    object_made_anew_is_a_conflict(fresh().await).await;
    only_what_was_read_is_deleted_unchanged(fresh().await).await;
    absent_object_is_not_found(fresh().await).await;
    update_without_a_change_writes_nothing(fresh().await).await;
    object_with_finalizers_goes_with_the_last_of_them(fresh().await).await;
    watch_tells_at_once_and_after_each_change_of_its_kind(fresh().await, settle).await;
    one_of_many_racing_writers_wins(fresh().await).await;
}

fn volume(name: &str) -> SplitVolume {
    let spec = SplitVolumeSpec {
        node_name: "n1".to_owned(),
        pool: "p1".to_owned(),
        size: quantity(64 << 20),
        ..Default::default()
    };
    SplitVolume::new(name, spec)
}

async fn created_object_is_read_back_with_metadata(store: impl Store) {
    let mut asked = volume("pvc-1");
    asked.status = Some(SplitVolumeStatus::default());
    let made = store.create(asked).await.unwrap();
    let meta = &made.metadata;
    assert_eq!(meta.generation, Some(1));
    assert!(meta.uid.is_some() && meta.resource_version.is_some());
    assert!(meta.creation_timestamp.is_some() && meta.deletion_timestamp.is_none());
    assert_eq!(made.status, None, "status is not the creator's to write");
    assert_eq!(store.get("pvc-1").await.unwrap(), Some(made));
}

async fn name_in_use_is_refused(store: impl Store) {
    store.create(volume("a")).await.unwrap();
    let error = store.create(volume("a")).await.unwrap_err();
    assert!(
        matches!(&error, StoreError::AlreadyExists { name, .. } if name == "a"),
        "{error}"
    );
}

async fn name_that_is_no_label_is_refused_by_every_verb(store: impl Store) {
    for name in ["", "..", "../x", "a/b", "A", "a.b", &"a".repeat(64)] {
        let refused = [
            store.create(volume(name)).await.err(),
            store.get::<SplitVolume>(name).await.err(),
            store.update(volume(name)).await.err(),
            store.update_status(volume(name)).await.err(),
            store.delete::<SplitVolume>(name).await.err(),
        ];
        for error in refused {
            assert!(
                matches!(error, Some(StoreError::InvalidName(_))),
                "{name:?}: {error:?}"
            );
        }
    }
}

async fn list_is_sorted_and_keeps_kinds_apart(store: impl Store) {
    for name in ["b", "a-b", "a", "c"] {
        store.create(volume(name)).await.unwrap();
    }
    let names: Vec<String> = store
        .list::<SplitVolume>()
        .await
        .unwrap()
        .into_iter()
        .filter_map(|volume| volume.metadata.name)
        .collect();
    assert_eq!(names, ["a", "a-b", "b", "c"]);
    assert!(store.list::<VolumeSession>().await.unwrap().is_empty());
    assert!(store.get::<VolumeSession>("a").await.unwrap().is_none());
}

async fn update_leaves_the_status_and_counts_spec_changes(store: impl Store) {
    let mut made = store.create(volume("a")).await.unwrap();
    made.status = Some(SplitVolumeStatus {
        size_bytes: 7,
        ..Default::default()
    });
    let mut read = store.update_status(made).await.unwrap();

    read.metadata.finalizers = Some(vec![FINALIZER.to_owned()]);
    read.status = None;
    let labelled = store.update(read).await.unwrap();
    assert_eq!(
        labelled.metadata.generation,
        Some(1),
        "metadata is no new intent"
    );
    assert_eq!(labelled.status.as_ref().unwrap().size_bytes, 7);

    let mut bigger = labelled;
    bigger.spec.size = quantity(128 << 20);
    let bigger = store.update(bigger).await.unwrap();
    assert_eq!(bigger.metadata.generation, Some(2));
    assert_eq!(store.get("a").await.unwrap(), Some(bigger));
}

async fn status_update_leaves_the_spec(store: impl Store) {
    let mut made = store.create(volume("a")).await.unwrap();
    made.spec.size = quantity(1 << 40);
    made.metadata.finalizers = Some(vec![FINALIZER.to_owned()]);
    made.status = Some(SplitVolumeStatus::default());
    let written = store.update_status(made).await.unwrap();
    assert_eq!(written.spec.size, quantity(64 << 20));
    assert_eq!(written.metadata.finalizers, None);
    assert_eq!(written.metadata.generation, Some(1));
    assert_eq!(written.status, Some(SplitVolumeStatus::default()));
}

async fn stale_object_is_a_conflict(store: impl Store) {
    let first = store.create(volume("a")).await.unwrap();
    let mut second = first.clone();
    second.spec.size = quantity(128 << 20);
    store.update(second.clone()).await.unwrap();
    for error in [
        store.update(second).await.unwrap_err(),
        store.update_status(first).await.unwrap_err(),
        store.update(volume("a")).await.unwrap_err(),
    ] {
        assert!(matches!(error, StoreError::Conflict { .. }), "{error}");
    }
}

async fn object_made_anew_is_a_conflict(store: impl Store) {
    let old = store.create(volume("a")).await.unwrap();
    store.delete::<SplitVolume>("a").await.unwrap();
    store.create(volume("a")).await.unwrap();
    let error = store.update_status(old).await.unwrap_err();
    assert!(matches!(error, StoreError::Conflict { .. }), "{error}");
}

async fn only_what_was_read_is_deleted_unchanged(store: impl Store) {
    let first = store.create(volume("a")).await.unwrap();
    let mut grown = first.clone();
    grown.spec.size = quantity(128 << 20);
    let grown = store.update(grown).await.unwrap();
    let error = store.delete_unchanged(&first).await.unwrap_err();
    assert!(matches!(error, StoreError::Conflict { .. }), "{error}");
    assert!(store.delete::<SplitVolume>("a").await.unwrap());
    let anew = store.create(volume("a")).await.unwrap();
    let error = store.delete_unchanged(&grown).await.unwrap_err();
    assert!(matches!(error, StoreError::Conflict { .. }), "{error}");
    assert!(store.delete_unchanged(&anew).await.unwrap());
    assert!(!store.delete_unchanged(&anew).await.unwrap(), "it is gone");
}

async fn absent_object_is_not_found(store: impl Store) {
    assert_eq!(store.get::<SplitVolume>("a").await.unwrap(), None);
    assert!(!store.delete::<SplitVolume>("a").await.unwrap());
    for error in [
        store.update(volume("a")).await.unwrap_err(),
        store.update_status(volume("a")).await.unwrap_err(),
    ] {
        assert!(matches!(error, StoreError::NotFound { .. }), "{error}");
    }
}

async fn update_without_a_change_writes_nothing(store: impl Store) {
    let made = store.create(volume("a")).await.unwrap();
    assert_eq!(store.update(made.clone()).await.unwrap(), made);
    assert_eq!(store.update_status(made.clone()).await.unwrap(), made);
}

async fn object_with_finalizers_goes_with_the_last_of_them(store: impl Store) {
    let mut asked = volume("a");
    asked.metadata.finalizers = Some(vec![FINALIZER.to_owned()]);
    store.create(asked).await.unwrap();
    assert!(store.delete::<SplitVolume>("a").await.unwrap());
    assert!(
        store.delete::<SplitVolume>("a").await.unwrap(),
        "still there"
    );
    let mut dying: SplitVolume = store.get("a").await.unwrap().unwrap();
    assert!(dying.metadata.deletion_timestamp.is_some());
    assert!(
        store.create(volume("a")).await.is_err(),
        "the name is taken"
    );
    dying.metadata.finalizers = None;
    store.update(dying).await.unwrap();
    assert_eq!(store.get::<SplitVolume>("a").await.unwrap(), None);
}

async fn told(changes: &mut Changes) -> bool {
    timeout(DEADLINE, changes.changed()).await.is_ok()
}

async fn quiet(changes: &mut Changes, settle: Duration) -> bool {
    timeout(settle, changes.changed()).await.is_err()
}

async fn told_and_at_rest(changes: &mut Changes, settle: Duration) -> bool {
    let told = told(changes).await;
    while !quiet(changes, settle).await {}
    told
}

async fn watch_tells_at_once_and_after_each_change_of_its_kind(
    store: impl Store,
    settle: Duration,
) {
    let mut changes = store.watch::<SplitVolume>();
    let mut others = store.watch::<VolumeSession>();
    assert!(told_and_at_rest(&mut changes, settle).await);
    assert!(told_and_at_rest(&mut others, settle).await);

    let made = store.create(volume("a")).await.unwrap();
    assert!(told_and_at_rest(&mut changes, settle).await, "create");
    store.update(made.clone()).await.unwrap();
    assert!(
        quiet(&mut changes, settle).await,
        "an update that changes nothing is none"
    );
    let mut next = made;
    next.spec.size = quantity(128 << 20);
    let mut next = store.update(next).await.unwrap();
    assert!(told_and_at_rest(&mut changes, settle).await, "update");
    next.status = Some(SplitVolumeStatus::default());
    store.update_status(next).await.unwrap();
    assert!(told_and_at_rest(&mut changes, settle).await, "status");
    store.delete::<SplitVolume>("a").await.unwrap();
    assert!(told_and_at_rest(&mut changes, settle).await, "delete");
    assert!(quiet(&mut others, settle).await);
}

async fn one_of_many_racing_writers_wins(store: impl Store) {
    const WRITERS: u64 = 16;
    let made = store.create(volume("a")).await.unwrap();
    let mut writers = tokio::task::JoinSet::new();
    for number in 1..=WRITERS {
        let (store, mut object) = (store.clone(), made.clone());
        object.spec.size = quantity((64 + number) << 20);
        writers.spawn(async move { store.update(object).await });
    }
    let results = writers.join_all().await;
    let (won, lost): (Vec<_>, Vec<_>) = results.into_iter().partition(Result::is_ok);
    assert_eq!(won.len(), 1);
    for result in lost {
        assert!(matches!(result, Err(StoreError::Conflict { .. })));
    }
}
