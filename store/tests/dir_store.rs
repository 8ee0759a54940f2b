//! The directory store: what every store must do, and what only one made of files can get wrong.
#![allow(clippy::unwrap_used)]

mod conformance;

use holdfast_api::{BlockPool, OrphanExtent, SplitVolume, SplitVolumeSpec, quantity};
use holdfast_store::{DirStore, Store, StoreError};
use std::ffi::OsString;
use std::fs;
use std::io::{BufRead, BufReader};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use tempfile::TempDir;

const MANIFEST: &str = "\
apiVersion: holdfast.dev/v1alpha1
kind: SplitVolume
metadata:
  name: a
spec:
  nodeName: n1
  pool: p1
  size: 64Mi
";

#[tokio::test]
async fn dir_store_does_what_every_store_must() {
    let mut dirs = Vec::new();
    let fresh = async || {
        let dir = TempDir::new().unwrap();
        let store = DirStore::open(dir.path()).unwrap();
        dirs.push(dir);
        store
    };
    // A change in the directory is told before the verb returns, and once.
    conformance::all(fresh, Duration::ZERO).await;
}

struct Fixture {
    dir: TempDir,
    store: DirStore,
}

impl Fixture {
    fn new() -> Self {
        let dir = TempDir::new().unwrap();
        let store = DirStore::open(dir.path()).unwrap();
        Self { dir, store }
    }

    fn path(&self, file: &str) -> PathBuf {
        self.dir.path().join("splitvolumes").join(file)
    }

    async fn problem(&self, manifest: &str) -> String {
        fs::write(self.path("a.yaml"), manifest).unwrap();
        let error = self.store.get::<SplitVolume>("a").await.unwrap_err();
        assert!(matches!(error, StoreError::Damaged { .. }), "{error}");
        error.to_string()
    }
}

#[tokio::test]
async fn manifest_written_by_hand_is_taken_and_given_its_metadata() {
    let on = Fixture::new();
    fs::write(on.path("a.yaml"), MANIFEST).unwrap();
    let volume: SplitVolume = on.store.get("a").await.unwrap().unwrap();
    assert_eq!(volume.spec.size, quantity(64 << 20));
    assert_eq!(volume.metadata.generation, Some(1));
    let uid = volume.metadata.uid.clone();
    assert!(uid.is_some());
    let again: SplitVolume = on.store.get("a").await.unwrap().unwrap();
    assert_eq!(again.metadata.uid, uid, "the metadata is given once");
    on.store.update(volume).await.unwrap();
}

#[tokio::test]
async fn unknown_key_is_refused_by_its_path() {
    let on = Fixture::new();
    let cases = [
        (MANIFEST.replace("pool:", "pooll: x\n  pool:"), "pooll"),
        (format!("{MANIFEST}stauts: {{}}\n"), "stauts"),
        (
            MANIFEST.replace("  name: a", "  name: a\n  lables: {}"),
            "metadata.lables",
        ),
        (format!("{MANIFEST}status:\n  sizeByte: 1\n"), "sizeByte"),
    ];
    for (manifest, key) in cases {
        let problem = on.problem(&manifest).await;
        assert!(
            problem.contains(key) && problem.contains("a.yaml"),
            "{problem}"
        );
    }
}

#[tokio::test]
async fn manifest_of_another_kind_version_or_name_is_refused() {
    let on = Fixture::new();
    let cases = [
        (MANIFEST.replace("SplitVolume", "BlockPool"), "BlockPool"),
        (MANIFEST.replace("v1alpha1", "v2"), "holdfast.dev/v2"),
        (MANIFEST.replace("name: a", "name: b"), "\"b\""),
        (MANIFEST.replace("size: 64Mi", "size: []"), "size"),
        (String::new(), "empty"),
        ("\u{0}\u{0}\u{0}".to_owned(), "a.yaml"),
        ("kind: [".to_owned(), "a.yaml"),
    ];
    for (manifest, word) in cases {
        let problem = on.problem(&manifest).await;
        assert!(problem.contains(word), "{problem}");
    }
}

#[tokio::test]
async fn damaged_manifest_never_looks_absent_and_hides_no_other() {
    let on = Fixture::new();
    let spec = SplitVolumeSpec::default();
    on.store
        .create(SplitVolume::new("b", spec.clone()))
        .await
        .unwrap();
    fs::write(on.path("a.yaml"), &MANIFEST[..80]).unwrap();
    fs::write(on.path("Stray.yml"), MANIFEST).unwrap();

    let listed = on.store.list::<SplitVolume>().await.unwrap();
    assert_eq!(listed.len(), 1, "the good one is served");
    let files: Vec<String> = on
        .store
        .damaged::<SplitVolume>()
        .await
        .unwrap()
        .into_iter()
        .map(|damage| damage.file)
        .collect();
    assert_eq!(files, ["Stray.yml", "a.yaml"]);
    let refused = [
        on.store
            .create(SplitVolume::new("a", spec.clone()))
            .await
            .err(),
        on.store.update(SplitVolume::new("a", spec)).await.err(),
        on.store.delete::<SplitVolume>("a").await.err(),
    ];
    for error in refused {
        assert!(
            matches!(error, Some(StoreError::Damaged { .. })),
            "{error:?}"
        );
    }
}

/// As the first release wrote it: no folder for orphans, and plain numbers in a status.
#[tokio::test]
async fn state_of_the_first_release_is_read() {
    let dir = TempDir::new().unwrap();
    let pools = dir.path().join("blockpools");
    fs::create_dir(&pools).unwrap();
    let manifest = "{apiVersion: holdfast.dev/v1alpha1, kind: BlockPool, metadata: {name: p}, \
        spec: {nodeName: n1, device: {path: /pool.img}, force: false}, \
        status: {observedGeneration: 1, poolUuid: '', identity: '', capacityBytes: 1048576, allocatedBytes: 0, \
        freeBytes: 1048576, largestFreeExtentBytes: 1048576, erasePendingBytes: 0, volumes: 0, conditions: []}}";
    fs::write(pools.join("p.yaml"), manifest).unwrap();
    let store = DirStore::open(dir.path()).unwrap();
    let pool: BlockPool = store.get("p").await.unwrap().unwrap();
    assert_eq!(pool.status.unwrap().free_bytes, 1 << 20);
    assert!(store.list::<OrphanExtent>().await.unwrap().is_empty());
    let text = fs::read_to_string(pools.join("p.yaml")).unwrap();
    assert!(text.contains("free: 1Mi"), "{text}");
}

#[tokio::test]
async fn half_written_file_is_not_seen_and_is_cleared_at_the_next_open() {
    let on = Fixture::new();
    let half = on.path(".new-a");
    fs::write(&half, &MANIFEST[..40]).unwrap();
    assert!(on.store.list::<SplitVolume>().await.unwrap().is_empty());
    assert!(on.store.damaged::<SplitVolume>().await.unwrap().is_empty());
    drop(on.store);
    let _again = DirStore::open(on.dir.path()).unwrap();
    assert!(!half.exists());
}

#[tokio::test]
async fn object_survives_close_and_open() {
    let on = Fixture::new();
    let made = on
        .store
        .create(SplitVolume::new("a", SplitVolumeSpec::default()))
        .await
        .unwrap();
    drop(on.store);
    let again = DirStore::open(on.dir.path()).unwrap();
    assert_eq!(again.get("a").await.unwrap(), Some(made));
}

#[test]
fn directory_in_use_is_refused_until_it_is_free() {
    let dir = TempDir::new().unwrap();
    let first = DirStore::open(dir.path()).unwrap();
    let error = DirStore::open(dir.path()).unwrap_err();
    assert!(matches!(error, StoreError::InUse { .. }), "{error}");
    drop(first);
    DirStore::open(dir.path()).unwrap();
}

#[test]
fn path_that_is_no_directory_is_an_error_that_names_it() {
    let dir = TempDir::new().unwrap();
    let file = dir.path().join("plain");
    fs::write(&file, "").unwrap();
    let error = DirStore::open(&file).unwrap_err().to_string();
    assert!(error.contains("plain"), "{error}");
}

/// What a kill would leave is what another reader of the file sees at that moment.
#[tokio::test]
async fn file_is_whole_at_every_moment_of_a_write() {
    const WRITES: u64 = 300;
    let on = Fixture::new();
    let spec = SplitVolumeSpec::default();
    let mut volume = on.store.create(SplitVolume::new("a", spec)).await.unwrap();
    let (path, done) = (on.path("a.yaml"), Arc::new(AtomicBool::new(false)));
    let watcher = std::thread::spawn({
        let done = Arc::clone(&done);
        move || {
            let mut torn = 0_u64;
            while !done.load(Ordering::Relaxed) {
                let text = fs::read_to_string(&path).unwrap();
                torn += u64::from(serde_yaml::from_str::<SplitVolume>(&text).is_err());
            }
            torn
        }
    });
    for round in 1..=WRITES {
        volume.spec.size = quantity(round << 20);
        volume = on.store.update(volume).await.unwrap();
    }
    done.store(true, Ordering::Relaxed);
    assert_eq!(watcher.join().unwrap(), 0, "torn files seen");
}

/// Set in the child process, which writes until it is killed.
const VICTIM_DIR: &str = "HOLDFAST_STORE_VICTIM";

async fn write_until_killed(dir: OsString) {
    let store = DirStore::open(dir).unwrap();
    for round in 1_u64.. {
        let mut volume: SplitVolume = store.get("a").await.unwrap().unwrap();
        volume.spec.size = quantity(round << 20);
        volume.spec.requested_name = "x".repeat(usize::try_from(round % 5000).unwrap());
        store.update(volume).await.unwrap();
        println!("{round}");
    }
}

fn start_victim(dir: &TempDir) -> Child {
    let this_test = "kill_while_writing_leaves_old_or_new_and_frees_the_lock";
    Command::new(std::env::current_exe().unwrap())
        .args([this_test, "--exact", "--nocapture"])
        .env(VICTIM_DIR, dir.path())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap()
}

#[tokio::test]
async fn kill_while_writing_leaves_old_or_new_and_frees_the_lock() {
    const KILLS: usize = 20;
    if let Some(dir) = std::env::var_os(VICTIM_DIR) {
        return write_until_killed(dir).await;
    }
    let dir = TempDir::new().unwrap();
    {
        let store = DirStore::open(dir.path()).unwrap();
        let volume = SplitVolume::new("a", SplitVolumeSpec::default());
        store.create(volume).await.unwrap();
    }
    for kill in 0..KILLS {
        let mut victim = start_victim(&dir);
        let mut lines = BufReader::new(victim.stdout.take().unwrap()).lines();
        // One line more each time: the kill falls on another moment of the loop, and after at least one write.
        let acknowledged: Vec<u64> = lines
            .by_ref()
            .map_while(Result::ok)
            .filter_map(|line| line.parse().ok())
            .take(kill + 1)
            .collect();
        if kill == 0 {
            assert!(matches!(
                DirStore::open(dir.path()),
                Err(StoreError::InUse { .. })
            ));
        }
        victim.kill().unwrap();
        victim.wait().unwrap();

        let store = DirStore::open(dir.path()).unwrap();
        let volume: SplitVolume = store.get("a").await.unwrap().unwrap();
        let stored = holdfast_api::parse_quantity(&volume.spec.size.0).unwrap() >> 20;
        let last = *acknowledged.last().unwrap();
        assert!(stored >= last, "acknowledged {last}, found {stored}");
        assert_eq!(
            volume.spec.requested_name.len() as u64,
            stored % 5000,
            "not torn"
        );
        assert!(store.damaged::<SplitVolume>().await.unwrap().is_empty());
    }
}
