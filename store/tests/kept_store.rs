//! The kept store: it serves from its copy until the store behind answers, never half, and never says that something is gone.
#![allow(clippy::unwrap_used)]

mod conformance;

use holdfast_api::{BlockPool, SplitVolume, SplitVolumeSpec, VolumeSession, quantity};
use holdfast_store::{Announcement, Changes, DirStore, KeptStore, Object, Store, StoreError};
use std::fs;
use std::path::PathBuf;
use std::time::Duration;
use tempfile::TempDir;
use tokio::sync::watch;
use tokio::time::timeout;

/// Far more than anything here needs: only what never happens reaches it.
const DEADLINE: Duration = Duration::from_secs(60);
const FINALIZER: &str = "holdfast.dev/test";

/// A directory store that can be out of reach, as an API server can.
#[derive(Clone)]
struct Remote {
    store: DirStore,
    reach: watch::Receiver<Reach>,
}

#[derive(Clone, Copy, PartialEq)]
enum Reach {
    Open,
    Refused,
    Silent,
}

impl Remote {
    async fn pass(&self) -> Result<(), StoreError> {
        let mut reach = self.reach.clone();
        let now = *reach.wait_for(|now| *now != Reach::Silent).await.unwrap();
        if now == Reach::Open {
            return Ok(());
        }
        Err(StoreError::Unavailable {
            what: "reach it".to_owned(),
            cause: "away".to_owned(),
        })
    }
}

impl Store for Remote {
    async fn get<K: Object>(&self, name: &str) -> Result<Option<K>, StoreError> {
        self.pass().await?;
        self.store.get(name).await
    }

    async fn list<K: Object>(&self) -> Result<Vec<K>, StoreError> {
        self.pass().await?;
        self.store.list().await
    }

    async fn create<K: Object>(&self, object: K) -> Result<K, StoreError> {
        self.pass().await?;
        self.store.create(object).await
    }

    async fn update<K: Object>(&self, object: K) -> Result<K, StoreError> {
        self.pass().await?;
        self.store.update(object).await
    }

    async fn update_status<K: Object>(&self, object: K) -> Result<K, StoreError> {
        self.pass().await?;
        self.store.update_status(object).await
    }

    async fn delete<K: Object>(&self, name: &str) -> Result<bool, StoreError> {
        self.pass().await?;
        self.store.delete::<K>(name).await
    }

    async fn delete_unchanged<K: Object>(&self, object: &K) -> Result<bool, StoreError> {
        self.pass().await?;
        self.store.delete_unchanged(object).await
    }

    fn watch<K: Object>(&self) -> Changes {
        self.store.watch::<K>()
    }

    async fn announce<K: Object>(&self, object: &K, event: Announcement) {
        self.store.announce(object, event).await;
    }
}

struct Node {
    dir: TempDir,
    store: DirStore,
    reach: watch::Sender<Reach>,
}

impl Node {
    fn new() -> Self {
        let dir = TempDir::new().unwrap();
        let store = DirStore::open(dir.path().join("api")).unwrap();
        Self {
            dir,
            store,
            reach: watch::channel(Reach::Open).0,
        }
    }

    fn start(&self) -> KeptStore<Remote> {
        let remote = Remote {
            store: self.store.clone(),
            reach: self.reach.subscribe(),
        };
        KeptStore::open(remote, self.dir.path().join("kept")).unwrap()
    }

    fn copy(&self) -> PathBuf {
        self.copy_of("splitvolumes")
    }

    fn copy_of(&self, plural: &str) -> PathBuf {
        self.dir.path().join(format!("kept/{plural}.yaml"))
    }

    /// A copy that holds volumes of these names and no other, and whose node has ended.
    async fn with_copy_of(names: &[&str]) -> Self {
        let node = Self::new();
        for name in names {
            node.store.create(volume(name)).await.unwrap();
        }
        let kept = node.start();
        node.until_copied("splitvolumes", |text| {
            names
                .iter()
                .all(|name| text.contains(&format!("name: {name}")))
        })
        .await;
        drop(kept);
        node
    }

    async fn until_copied(&self, plural: &str, holds: impl Fn(&str) -> bool) {
        let path = self.copy_of(plural);
        let copied = async {
            while !fs::read_to_string(&path).is_ok_and(|text| holds(&text)) {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        timeout(DEADLINE, copied)
            .await
            .expect("the change is never copied");
    }

    fn set(&self, reach: Reach) {
        self.reach.send_replace(reach);
    }
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

fn names(volumes: &[SplitVolume]) -> Vec<&str> {
    volumes
        .iter()
        .filter_map(|volume| volume.metadata.name.as_deref())
        .collect()
}

fn is_unavailable<T>(answer: &Result<T, StoreError>) -> bool {
    matches!(answer, Err(StoreError::Unavailable { .. }))
}

#[tokio::test]
async fn kept_store_does_what_every_store_must() {
    let mut nodes = Vec::new();
    let fresh = async || {
        let node = Node::new();
        let kept = node.start();
        nodes.push(node);
        kept
    };
    conformance::all(fresh, Duration::from_millis(500)).await;
}

#[tokio::test]
async fn node_without_its_api_server_is_served_from_the_copy() {
    let node = Node::with_copy_of(&["a", "b"]).await;
    for reach in [Reach::Refused, Reach::Silent] {
        node.set(reach);
        let kept = node.start();
        let listed = kept.list::<SplitVolume>().await.unwrap();
        assert_eq!(names(&listed), ["a", "b"]);
        let stored = node.store.get("a").await.unwrap();
        assert_eq!(kept.get::<SplitVolume>("a").await.unwrap(), stored);
    }
}

#[tokio::test]
async fn copy_never_says_that_an_object_is_gone() {
    let node = Node::with_copy_of(&["a"]).await;
    node.set(Reach::Refused);
    let kept = node.start();
    assert!(is_unavailable(&kept.get::<SplitVolume>("made-later").await));
}

#[tokio::test]
async fn writes_are_never_kept_back() {
    let node = Node::with_copy_of(&["a"]).await;
    node.set(Reach::Refused);
    let kept = node.start();
    let found = kept.get::<SplitVolume>("a").await.unwrap().unwrap();
    assert!(is_unavailable(&kept.create(volume("b")).await));
    assert!(is_unavailable(&kept.update(found.clone()).await));
    assert!(is_unavailable(&kept.update_status(found).await));
    assert!(is_unavailable(&kept.delete::<SplitVolume>("a").await));
}

#[tokio::test]
async fn node_that_was_never_served_does_not_begin_with_nothing() {
    let node = Node::new();
    node.set(Reach::Refused);
    let kept = node.start();
    assert!(is_unavailable(&kept.list::<VolumeSession>().await));
}

#[tokio::test]
async fn node_that_had_none_of_a_kind_knows_so() {
    let node = Node::with_copy_of(&["a"]).await;
    let kept = node.start();
    node.until_copied("blockpools", |_| true).await;
    drop(kept);
    node.set(Reach::Refused);
    assert!(node.start().list::<BlockPool>().await.unwrap().is_empty());
}

#[tokio::test]
async fn change_is_in_the_copy_and_a_deleted_object_is_not() {
    let node = Node::with_copy_of(&["a", "b"]).await;
    let kept = node.start();
    let mut grown = kept.get::<SplitVolume>("a").await.unwrap().unwrap();
    grown.spec.size = quantity(128 << 20);
    grown.metadata.finalizers = Some(vec![FINALIZER.to_owned()]);
    kept.update(grown).await.unwrap();
    kept.delete::<SplitVolume>("b").await.unwrap();
    node.until_copied("splitvolumes", |text| {
        text.contains("128Mi") && text.contains(FINALIZER) && !text.contains("name: b")
    })
    .await;
}

#[tokio::test]
async fn server_that_returns_is_told_and_serves_from_then_on() {
    let node = Node::with_copy_of(&["a"]).await;
    node.store.create(volume("made-meanwhile")).await.unwrap();
    node.set(Reach::Refused);
    let kept = node.start();
    let mut changes = kept.watch::<SplitVolume>();
    changes.changed().await;
    assert_eq!(names(&kept.list::<SplitVolume>().await.unwrap()), ["a"]);

    node.set(Reach::Open);
    timeout(DEADLINE, changes.changed())
        .await
        .expect("nobody says that the server is back");
    let listed = kept.list::<SplitVolume>().await.unwrap();
    assert_eq!(names(&listed), ["a", "made-meanwhile"]);

    // Once it has answered, its absence is an error: the copy is for the start only.
    node.set(Reach::Refused);
    assert!(is_unavailable(&kept.list::<SplitVolume>().await));
}

#[tokio::test]
async fn server_that_takes_a_moment_to_answer_is_waited_for() {
    let node = Node::with_copy_of(&["a"]).await;
    node.store.create(volume("made-meanwhile")).await.unwrap();
    node.set(Reach::Silent);
    let kept = node.start();
    let mut list = std::pin::pin!(kept.list::<SplitVolume>());
    let early = timeout(Duration::from_millis(200), &mut list).await;
    assert!(early.is_err(), "the copy is not used yet: {early:?}");
    node.set(Reach::Open);
    assert_eq!(names(&list.await.unwrap()), ["a", "made-meanwhile"]);
}

#[tokio::test]
async fn copy_that_is_damaged_cut_short_or_newer_counts_as_absent() {
    let node = Node::with_copy_of(&["a", "b"]).await;
    let good = fs::read_to_string(node.copy()).unwrap();
    node.set(Reach::Refused);
    let without_last_line = &good[..good.trim_end().rfind('\n').unwrap() + 1];
    let damaged = [
        ("a bit has flipped", good.replace("64Mi", "65Mi")),
        ("cut in the middle", good[..good.len() / 2].to_owned()),
        ("cut between lines", without_last_line.to_owned()),
        ("empty", String::new()),
        ("no first line", good.split_once('\n').unwrap().1.to_owned()),
        ("newer", good.replacen("format 1", "format 2", 1)),
        ("another checksum", good.replacen("crc32c ", "crc32c -", 1)),
        ("not text", "\u{0}".repeat(100)),
    ];
    for (what, text) in damaged {
        fs::write(node.copy(), text).unwrap();
        let kept = node.start();
        assert!(is_unavailable(&kept.list::<SplitVolume>().await), "{what}");
        assert!(
            is_unavailable(&kept.get::<SplitVolume>("a").await),
            "{what}"
        );
    }
    fs::write(node.copy(), &good).unwrap();
    let listed = node.start().list::<SplitVolume>().await.unwrap();
    assert_eq!(names(&listed), ["a", "b"], "the good one is used");
}
