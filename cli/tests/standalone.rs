//! The binary as its user meets it: results, errors with codes, and input that cannot work.
#![allow(clippy::unwrap_used)]

mod common;

use common::{Driver, NODE};
use serde_json::{Value, json};
use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use tempfile::TempDir;

fn holdfast(words: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_holdfast"))
        .args(words)
        .output()
        .unwrap()
}

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

struct Running {
    dir: TempDir,
    driver: Driver,
}

impl Running {
    async fn start() -> Self {
        Self::start_prepared(|_| {}, &[]).await
    }

    async fn start_prepared(prepare: impl FnOnce(&Path), more: &[&str]) -> Self {
        let dir = TempDir::new().unwrap();
        prepare(dir.path());
        let mut driver = Driver::start_with(dir.path(), more);
        driver.ready().await;
        Self { dir, driver }
    }

    fn call(&self, words: &[&str]) -> Output {
        let endpoint = self.driver.endpoint();
        holdfast(&[&["csi", "--endpoint", &endpoint], words].concat())
    }

    /// What a call that succeeds prints.
    fn text(&self, words: &[&str]) -> String {
        let output = self.call(words);
        assert!(output.status.success(), "{words:?}: {}", said(&output));
        String::from_utf8(output.stdout).unwrap()
    }

    fn json(&self, words: &[&str]) -> Value {
        let text = self.text(&[words, &["-o", "json"]].concat());
        serde_json::from_str(&text).unwrap()
    }

    /// What a call that fails says.
    fn refusal(&self, words: &[&str]) -> String {
        let output = self.call(words);
        assert_eq!(output.status.code(), Some(1), "{words:?}");
        assert!(output.stdout.is_empty(), "{words:?}: {output:?}");
        said(&output)
    }
}

#[tokio::test]
async fn result_is_on_standard_output_in_the_form_asked_for() {
    let on = Running::start().await;
    assert_eq!(on.text(&["probe"]), "ready\n");
    assert!(on.text(&["info"]).starts_with("csi.holdfast.dev "));
    assert_eq!(on.text(&["node-info"]), format!("{NODE}\n"));
    assert!(
        on.text(&["capabilities"])
            .contains("controller\tEXPAND_VOLUME\n")
    );
    assert_eq!(on.text(&["list-volumes"]), "");

    let create = ["create-volume", "pvc-1", "--size", "64MiB", "--pool", "p1"];
    assert_eq!(on.text(&create), "pvc-1\n");
    let made = on.json(&[&create[..], &["--node", NODE]].concat());
    assert_eq!(made["volumeId"], "pvc-1");
    assert_eq!(made["capacityBytes"], 64 << 20);
    assert_eq!(
        made["accessibleTopology"],
        json!([{ "topology.holdfast.dev/node": NODE }])
    );
    assert_eq!(on.text(&["list-volumes"]), "pvc-1\t67108864\tn1\thealthy\n");
    assert_eq!(on.text(&["validate-volume", "pvc-1"]), "confirmed\n");
    assert_eq!(
        on.text(&["expand-volume", "pvc-1", "--size", "100MiB"]),
        "104857600\n"
    );
    assert_eq!(on.json(&["get-volume", "pvc-1"])["abnormal"], false);
    assert_eq!(on.text(&["delete-volume", "pvc-1"]), "");
    assert_eq!(on.text(&["delete-volume", "pvc-1"]), "");
    assert_eq!(on.json(&["list-volumes"]), json!([]));
}

#[tokio::test]
async fn refusal_is_on_standard_error_with_its_code_and_remedy() {
    let on = Running::start().await;
    on.text(&["create-volume", "a", "--size", "64MiB"]);
    let create = |more: &[&'static str]| [&["create-volume", "b"], more].concat();
    let cases = [
        (
            create(&["--size", "0"]),
            "INVALID_ARGUMENT: capacity_range is empty",
        ),
        (create(&["--size", "1", "--limit", "1"]), "OUT_OF_RANGE"),
        (
            create(&["--size", "1EiB"]),
            "RESOURCE_EXHAUSTED: no pool has room",
        ),
        (create(&["--size", "1Mi", "--pool", "none"]), "pools are p1"),
        (
            create(&["--size", "1Mi", "--param", "speed=11"]),
            "known are pool",
        ),
        (
            create(&["--size", "1Mi", "--block"]),
            "use volumeMode Filesystem",
        ),
        (
            create(&["--size", "1Mi", "--node", "n9"]),
            "RESOURCE_EXHAUSTED",
        ),
        (
            vec!["create-volume", "a", "--size", "65MiB"],
            "ALREADY_EXISTS: volume \"a\"",
        ),
        (
            vec!["expand-volume", "b", "--size", "1Mi"],
            "NOT_FOUND: volume \"b\"",
        ),
        (
            vec!["expand-volume", "a", "--size", "1TiB"],
            "OUT_OF_RANGE: volume \"a\"",
        ),
        (vec!["get-volume", "b"], "NOT_FOUND"),
        (vec!["node-stage", "b", "--staging-path", "/x"], "NOT_FOUND"),
        (vec!["node-stats", "a", "--volume-path", "/x"], "NOT_FOUND"),
    ];
    for (words, text) in cases {
        let refusal = on.refusal(&words);
        assert!(refusal.contains(text), "{words:?}: {refusal}");
    }
    let output = on.call(&["validate-volume", "a", "--block"]);
    assert_eq!(output.status.code(), Some(1));
    assert_eq!(output.stdout, b"not confirmed\n");
    assert_eq!(
        on.json(&["list-volumes"]).as_array().unwrap().len(),
        1,
        "nothing half done"
    );
}

#[tokio::test]
async fn directory_and_socket_in_use_are_refused_and_go_on_serving() {
    let on = Running::start().await;
    let state = on.dir.path().join("state");
    let other = on.dir.path().join("other");
    let free = format!("unix://{}", on.dir.path().join("free.sock").display());
    let cases = [
        (
            &state,
            free.as_str(),
            "another holdfast process uses this directory",
        ),
        (
            &other,
            &on.driver.endpoint(),
            "is served by another process",
        ),
    ];
    for (dir, endpoint, text) in cases {
        let dir = dir.to_str().unwrap();
        let output = holdfast(&["standalone", "--dir", dir, "--csi-endpoint", endpoint]);
        assert_eq!(output.status.code(), Some(1));
        assert!(said(&output).contains(text), "{}", said(&output));
    }
    assert_eq!(on.text(&["probe"]), "ready\n");
}

/// On threads of its own, so that the client's side of a connection ends while the test waits for the driver.
#[tokio::test(flavor = "multi_thread")]
async fn asked_to_end_it_ends_well_and_takes_its_socket_away() {
    let on = Running::start().await;
    on.text(&["create-volume", "a", "--size", "64MiB"]);
    let socket = on.dir.path().join("csi.sock");
    assert!(socket.exists());
    assert!(on.driver.terminate().success());
    assert!(!socket.exists());

    let mut again = Driver::start(on.dir.path());
    again.ready().await;
    let endpoint = again.endpoint();
    let listed = holdfast(&["csi", "--endpoint", &endpoint, "list-volumes"]);
    assert_eq!(listed.stdout, b"a\t67108864\tn1\thealthy\n");
}

/// Files that can be no pool, each with a word of what is said about it.
fn write_bad_pools(dir: &Path) {
    fs::write(dir.join("small.img"), vec![0; 4096]).unwrap();
    fs::write(dir.join("foreign.img"), vec![0x55; 64 << 20]).unwrap();
    let cut = dir.join("cut.img");
    format_pool(dir, &cut);
    File::options()
        .write(true)
        .open(&cut)
        .unwrap()
        .set_len(32 << 20)
        .unwrap();
    fs::create_dir(dir.join("folder.img")).unwrap();
}

/// Lets a driver make a pool and end.
fn format_pool(dir: &Path, path: &Path) {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .unwrap();
    let (dir, path) = (dir.join("maker"), path.to_owned());
    let make = async move {
        fs::create_dir(&dir).unwrap();
        let pool = format!("cut={},size=64MiB", path.display());
        let mut driver = Driver::start_with(&dir, &["--pool", &pool]);
        driver.ready().await;
        let endpoint = driver.endpoint();
        let words = [
            "csi",
            "--endpoint",
            &endpoint,
            "create-volume",
            "a",
            "--size",
            "1Mi",
        ];
        let made = holdfast(&[&words[..], &["--pool", "cut"]].concat());
        assert!(made.status.success(), "{}", said(&made));
        assert!(driver.terminate().success());
    };
    std::thread::spawn(move || runtime.block_on(make))
        .join()
        .unwrap();
}

#[tokio::test]
async fn pool_that_cannot_be_used_says_why_and_its_neighbour_serves() {
    let dir = TempDir::new().unwrap();
    write_bad_pools(dir.path());
    let held = dir.path().join("held.img");
    File::create(&held).unwrap().set_len(64 << 20).unwrap();
    let lock = File::open(&held).unwrap();
    lock.lock().unwrap();
    let names = ["small", "foreign", "cut", "folder", "held", "none"];
    let pools: Vec<String> = names
        .iter()
        .map(|name| {
            format!(
                "--pool={name}={}",
                dir.path().join(name).with_extension("img").display()
            )
        })
        .collect();
    let more: Vec<&str> = pools.iter().map(String::as_str).collect();
    let on = Running::start_prepared(|_| {}, &more).await;
    for name in names {
        let refusal = on.refusal(&["create-volume", "a", "--size", "1Mi", "--pool", name]);
        assert!(refusal.contains("UNAVAILABLE"), "{name}: {refusal}");
        assert!(refusal.contains(name), "{name}: {refusal}");
        let manifest = on.dir.path().join(format!("state/blockpools/{name}.yaml"));
        let manifest = fs::read_to_string(manifest).unwrap();
        assert!(manifest.contains("status: 'False'"), "{name}: {manifest}");
    }
    let untouched = fs::read(dir.path().join("foreign.img")).unwrap();
    assert!(
        untouched.iter().all(|byte| *byte == 0x55),
        "nothing was formatted"
    );
    on.text(&["create-volume", "a", "--size", "1Mi", "--pool", "p1"]);
}

#[tokio::test]
async fn manifest_with_an_unknown_key_is_named_and_the_others_serve() {
    let bad = |dir: &Path| {
        let kind = dir.join("state/splitvolumes");
        fs::create_dir_all(&kind).unwrap();
        let mut file = File::create(kind.join("bad.yaml")).unwrap();
        let text = "apiVersion: holdfast.dev/v1alpha1\nkind: SplitVolume\nmetadata:\n  name: bad\nspec:\n  nodeName: n1\n  pool: p1\n  size: 1Mi\n  sise: 1Mi\n";
        file.write_all(text.as_bytes()).unwrap();
    };
    let on = Running::start_prepared(bad, &[]).await;
    let refusal = on.refusal(&["create-volume", "bad", "--size", "1Mi"]);
    assert!(refusal.contains("UNAVAILABLE"), "{refusal}");
    assert!(
        refusal.contains("sise") && refusal.contains("bad.yaml"),
        "{refusal}"
    );
    on.text(&["create-volume", "good", "--size", "1Mi"]);
    assert!(on.driver.log().contains("bad.yaml"));
}

#[test]
fn start_that_cannot_work_ends_at_once_with_the_remedy() {
    let dir = TempDir::new().unwrap();
    let at = |name: &str| dir.path().join(name).display().to_string();
    fs::write(at("file"), "").unwrap();
    let good = format!("unix://{}", at("csi.sock"));
    let long_socket = format!("unix:///{}.sock", "x".repeat(110));
    let long_dir = at(&"x".repeat(100));
    let cases = [
        (
            at("state"),
            "tcp://1.2.3.4:5",
            "unix:///absolute/path.sock",
            vec![],
        ),
        (at("state"), &long_socket, "the limit is 107", vec![]),
        (at("file"), &good, "file", vec![]),
        (long_dir, &good, "107", vec![]),
        (at("state"), &good, "write NAME=PATH", vec!["--pool", "p1"]),
        (
            at("state"),
            &good,
            "is not a size",
            vec!["--pool", "p1=/x,size=big"],
        ),
        (
            at("state"),
            &good,
            "holds nothing",
            vec!["--pool", "p1=/x,size=0"],
        ),
        (at("state"), &good, "no list of CPUs", vec!["--cpus", "x"]),
    ];
    for (state, endpoint, text, more) in cases {
        let words = ["standalone", "--dir", &state, "--csi-endpoint", endpoint];
        let output = holdfast(&[&words[..], &more].concat());
        assert!(!output.status.success(), "{words:?}");
        assert!(said(&output).contains(text), "{words:?}: {}", said(&output));
    }
}

#[test]
fn client_without_a_server_says_whom_it_asked() {
    let cases = [
        (&["csi", "probe"][..], "CSI_ENDPOINT"),
        (
            &["csi", "--endpoint", "unix:///nowhere/csi.sock", "probe"],
            "/nowhere/csi.sock",
        ),
        (
            &["csi", "--endpoint", "nowhere", "probe"],
            "unix:///absolute/path.sock",
        ),
    ];
    for (words, text) in cases {
        let output = holdfast(words);
        assert_eq!(output.status.code(), Some(1));
        assert!(said(&output).contains(text), "{}", said(&output));
    }
}

#[test]
fn definitions_are_printed_for_all_kinds() {
    let output = holdfast(&["crds"]);
    let text = String::from_utf8(output.stdout).unwrap();
    for kind in ["BlockPool", "SplitVolume", "VolumeSession", "OrphanExtent"] {
        assert!(text.contains(&format!("kind: {kind}\n")), "{kind}");
    }
    assert_eq!(
        text.matches("---\napiVersion: apiextensions.k8s.io/v1\n")
            .count(),
        4
    );
}

#[test]
fn what_is_no_pool_is_inspected_or_refused_by_name() {
    let dir = TempDir::new().unwrap();
    let blank: PathBuf = dir.path().join("blank.img");
    File::create(&blank).unwrap().set_len(64 << 20).unwrap();
    let blank = blank.to_str().unwrap();
    let output = holdfast(&["pool", "inspect", blank, "-o", "json"]);
    let report: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(report["pool"], Value::Null);
    assert_eq!(report["device"]["sizeBytes"], 64 << 20);
    assert!(!report["notes"].as_array().unwrap().is_empty());
    let missing = holdfast(&["pool", "inspect", "/nowhere/pool.img"]);
    assert_eq!(missing.status.code(), Some(1));
    assert!(said(&missing).contains("/nowhere/pool.img"));
}
