//! Drives let go of and taken back by command, under a guest at work: it waits, loses nothing and sees no error.
#![allow(clippy::unwrap_used)]

mod common;

use common::{DEADLINE, Driver};
use holdfast_testkit::frontend::{Guest, GuestError, Layout, Op, status};
use holdfast_testkit::workload::{Plan, Workload};
use serde_json::Value;
use std::fs;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};
use tempfile::TempDir;

const SIZE: u64 = 32 << 20;
/// A guest that gets no answer for this long is waiting for its drive.
const SILENCE: Duration = Duration::from_millis(500);

/// A driver with the pool `p1`.
struct Node {
    driver: Option<Driver>,
    more: Vec<String>,
    // Last: the directory goes after what is in it.
    dir: TempDir,
}

impl Node {
    async fn start() -> Node {
        Node::start_with(&[]).await
    }

    /// With more pools, by name.
    async fn start_with(pools: &[&str]) -> Node {
        let dir = TempDir::new().unwrap();
        let more = pools.iter().map(|name| {
            let path = dir.path().join(name).with_extension("img");
            format!("--pool={name}={},size=64MiB", path.display())
        });
        let mut node = Node {
            driver: None,
            more: more.collect(),
            dir,
        };
        node.start_again().await;
        node
    }

    /// Ends as `kill -9` ends it.
    fn kill(&mut self) {
        self.driver.take().unwrap().kill();
    }

    async fn start_again(&mut self) {
        let more: Vec<&str> = self.more.iter().map(String::as_str).collect();
        let mut driver = Driver::start_with(self.dir.path(), &more);
        driver.ready().await;
        self.driver = Some(driver);
    }

    fn at(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn command(&self, words: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_holdfast"));
        command.args(words);
        command.env("CSI_ENDPOINT", self.driver.as_ref().unwrap().endpoint());
        command
    }

    fn text(&self, words: &[&str]) -> String {
        let output = self.command(words).output().unwrap();
        assert!(output.status.success(), "{words:?}: {output:?}");
        String::from_utf8(output.stdout).unwrap()
    }

    fn refusal(&self, words: &[&str]) -> String {
        let output = self.command(words).output().unwrap();
        assert_eq!(output.status.code(), Some(1), "{words:?}: {output:?}");
        String::from_utf8(output.stderr).unwrap()
    }

    /// The drive of a pool, as the list has it.
    fn drive(&self, pool: &str) -> Value {
        let listed = self.text(&["device", "list", "-o", "json"]);
        let mut listed: Vec<Value> = serde_json::from_str(&listed).unwrap();
        listed.retain(|drive| drive["pool"] == pool);
        assert_eq!(listed.len(), 1, "{listed:?}");
        listed.remove(0)
    }

    fn manifest(&self, kind: &str, name: &str) -> Value {
        let path = self.at("state").join(kind).join(format!("{name}.yaml"));
        serde_yaml::from_str(&fs::read_to_string(path).unwrap()).unwrap()
    }

    /// Makes a volume and exports it; returns its socket.
    fn volume(&self, id: &str, pool: &str, more: &[&str]) -> PathBuf {
        let create = [
            "csi",
            "create-volume",
            id,
            "--size",
            "32MiB",
            "--pool",
            pool,
        ];
        self.text(&[&create[..], more].concat());
        let staging = self.at("staging").join(id).display().to_string();
        self.text(&["csi", "node-stage", id, "--staging-path", &staging]);
        let session = self.manifest("volumesessions", id);
        PathBuf::from(session["status"]["socketPath"].as_str().unwrap())
    }

    /// What a pool's Ready condition says: whether it holds, and why.
    fn ready(&self, pool: &str) -> (bool, String) {
        let manifest = self.manifest("blockpools", pool);
        let conditions = manifest["status"]["conditions"].as_array().unwrap();
        let ready = conditions.iter().find(|found| found["type"] == "Ready");
        let ready = ready.unwrap();
        let message = ready["message"].as_str().unwrap().to_owned();
        (ready["status"] == "True", message)
    }
}

fn guest(socket: &Path) -> Guest {
    let builder = Guest::builder().queues(2).queue_size(128).inflight();
    builder.deadline(DEADLINE).connect(socket).unwrap()
}

fn workload() -> Workload {
    let plan = Plan {
        patience: SILENCE,
        ..Plan::default()
    };
    Workload::new(plan, 1, 0..SIZE / 512)
}

/// Works until a command has ended.
fn work_during(command: &mut Child, workload: &mut Workload, guest: &mut Guest) {
    let until = Instant::now() + DEADLINE;
    while command.try_wait().unwrap().is_none() {
        assert!(Instant::now() < until, "the command does not end");
        match work(workload, guest) {
            Ok(()) | Err(GuestError::Timeout { .. }) => {}
            Err(error) => panic!("{error}"),
        }
    }
}

fn work(workload: &mut Workload, guest: &mut Guest) -> Result<(), GuestError> {
    workload.fill(guest.queues(), 64)?;
    workload.step(guest.queues())
}

/// Works until no answer comes any more.
fn work_until_silent(workload: &mut Workload, guest: &mut Guest) {
    let until = Instant::now() + DEADLINE;
    while Instant::now() < until {
        match work(workload, guest) {
            Ok(()) => {}
            Err(GuestError::Timeout { .. }) => return,
            Err(error) => panic!("{error}"),
        }
    }
    panic!("requests are answered without a drive");
}

fn succeeded(command: Child) -> Output {
    let output = command.wait_with_output().unwrap();
    assert!(output.status.success(), "{output:?}");
    output
}

#[tokio::test]
async fn drive_removed_under_load_and_added_under_another_name_costs_no_error_and_no_write() {
    let node = Node::start().await;
    let mut guest = guest(&node.volume("a", "p1", &[]));
    let mut workload = workload();
    workload.run(&mut guest, 1000).unwrap();

    let mut remove = node.command(&["device", "remove", "p1"]);
    let mut remove = remove.stdout(Stdio::piped()).spawn().unwrap();
    work_during(&mut remove, &mut workload, &mut guest);
    let removed = String::from_utf8(succeeded(remove).stdout).unwrap();
    assert!(removed.contains("p1\tremoved\t"), "{removed}");
    assert!(removed.contains("holdfast device add p1"), "{removed}");
    work_until_silent(&mut workload, &mut guest);
    assert!(workload.in_flight() > 0, "requests wait");

    // Others are answered meanwhile, with the reason.
    let create = [
        "csi",
        "create-volume",
        "b",
        "--size",
        "1MiB",
        "--pool",
        "p1",
    ];
    let refusal = node.refusal(&create);
    assert!(refusal.contains("UNAVAILABLE"), "{refusal}");
    assert!(refusal.contains("holdfast device add p1"), "{refusal}");
    assert!(!node.ready("p1").0);
    assert_eq!(node.text(&["csi", "probe"]), "ready\n");

    let moved = node.at("moved.img");
    fs::rename(node.at("pool.img"), &moved).unwrap();
    let moved = moved.to_str().unwrap();
    let added = node.text(&["device", "add", "p1", "--path", moved]);
    let expected = format!("p1\tpresent\t{moved}\t");
    assert!(added.starts_with(&expected), "{added}");
    assert!(added.contains("pool.img"), "where a restart looks: {added}");
    workload.drain(guest.queues()).unwrap();
    workload.run(&mut guest, 2000).unwrap();
    workload.audit(&mut guest).unwrap();
    workload.report().assert_clean();
    assert_eq!(
        node.ready("p1").1,
        "the device is open and its table is valid"
    );
    node.text(&create);
}

#[tokio::test]
async fn policy_fail_reaches_the_guest_and_ends_with_the_return() {
    let node = Node::start().await;
    let fail = node.volume("a", "p1", &["--param", "onDeviceLoss=fail"]);
    let short = node.volume("b", "p1", &["--param", "holdSeconds=1"]);
    let (mut fail, mut short) = (guest(&fail), guest(&short));
    node.text(&["device", "remove", "p1"]);
    let read = || Op::Read {
        offset: 0,
        len: 512,
    };
    let start = Instant::now();
    short.queue(0).submit(read(), Layout::DIRECT).unwrap();
    fail.queue(0).submit(read(), Layout::DIRECT).unwrap();
    assert_eq!(fail.queue(0).drain().unwrap()[0].status, status::IOERR);
    assert_eq!(short.queue(0).complete().unwrap(), [], "held");
    assert_eq!(short.queue(0).drain().unwrap()[0].status, status::IOERR);
    assert!(
        start.elapsed() < Duration::from_secs(30),
        "60 is the default"
    );
    node.text(&["device", "add", "p1"]);
    for guest in [&mut fail, &mut short] {
        guest.queue(0).write(0, &[7; 512]).unwrap();
        assert_eq!(guest.queue(0).read(0, 512).unwrap(), [7; 512]);
    }
}

#[tokio::test]
async fn call_repeated_is_a_call_made_once() {
    let node = Node::start().await;
    let path = node.at("pool.img");
    let path = path.to_str().unwrap();
    for words in [&["add", "p1"][..], &["add", "p1", "--path", path]] {
        let added = node.text(&[&["device"], words].concat());
        assert_eq!(added, format!("p1\tpresent\t{path}\tthe drive is there\n"));
    }
    let removed = node.text(&["device", "remove", "p1"]);
    assert_eq!(node.text(&["device", "remove", "p1"]), removed);
    let drive = node.drive("p1");
    assert_eq!(drive["state"], "removed");
    assert!(drive["capacityBytes"].as_u64().unwrap() > 0);
    // It does not come back by itself, although it is there.
    node.text(&["device", "add", "p1"]);
    assert_eq!(node.drive("p1")["state"], "present");
}

#[tokio::test]
async fn call_that_cannot_be_is_refused_with_the_remedy() {
    let node = Node::start_with(&["other"]).await;
    let other = node.at("other.img");
    let other = other.to_str().unwrap();
    let nowhere = node.at("nowhere.img");
    let nowhere = nowhere.to_str().unwrap();
    let check = |cases: &[(&[&str], &str, &str)]| {
        for (words, code, text) in cases {
            let refusal = node.refusal(&[&["device"], *words].concat());
            assert!(refusal.contains(code), "{words:?}: {refusal}");
            assert!(refusal.contains(text), "{words:?}: {refusal}");
        }
    };
    check(&[
        (&["remove", "none"], "NOT_FOUND", "list what is there"),
        (&["add", "none"], "NOT_FOUND", "list what is there"),
        (&["remove", "No/Name"], "NOT_FOUND", "No/Name"),
        (&["remove", ""], "INVALID_ARGUMENT", "pool is missing"),
        (
            &["add", "p1", "--path", other],
            "FAILED_PRECONDITION",
            "leave the path out",
        ),
        (
            &["add", "p1", "--path", "pool.img"],
            "INVALID_ARGUMENT",
            "must be absolute",
        ),
    ]);
    node.text(&["device", "remove", "p1"]);
    node.text(&["device", "remove", "other"]);
    let before = fs::read(other).unwrap();
    check(&[
        (
            &["add", "p1", "--path", nowhere],
            "UNAVAILABLE",
            "nowhere.img",
        ),
        (
            &["add", "p1", "--path", other],
            "FAILED_PRECONDITION",
            "Nothing was changed",
        ),
        (
            &["add", "p1", "--path", "/dev/null"],
            "FAILED_PRECONDITION",
            "block device",
        ),
    ]);
    assert!(
        fs::read(other).unwrap() == before,
        "another drive was written to"
    );
    assert_eq!(node.drive("p1")["state"], "removed");
    for pool in ["p1", "other"] {
        node.text(&["device", "add", pool]);
        assert_eq!(node.drive(pool)["state"], "present");
    }
}

#[tokio::test]
async fn killed_while_a_drive_is_away_the_others_serve_and_it_comes_back_by_itself() {
    let mut node = Node::start_with(&["other"]).await;
    let mut kept = guest(&node.volume("b", "other", &[]));
    let mut away = guest(&node.volume("a", "p1", &[]));
    kept.queue(0).write(0, &[2; 4096]).unwrap();
    let mut workload = workload();
    workload.run(&mut away, 500).unwrap();
    let (here, elsewhere) = (node.at("pool.img"), node.at("away.img"));
    fs::rename(&here, &elsewhere).unwrap();
    node.kill();
    kept.disconnect();
    away.disconnect();
    node.start_again().await;

    kept.reconnect().unwrap();
    assert_eq!(kept.queue(0).read(0, 4096).unwrap(), [2; 4096]);
    let (ready, why) = node.ready("p1");
    assert!(!ready && why.contains("pool.img"), "{why}");
    assert!(!here.exists(), "nothing is made in its place");
    assert_eq!(node.drive("p1")["state"], "not-opened");
    for call in ["remove", "add"] {
        let refusal = node.refusal(&["device", call, "p1"]);
        assert!(refusal.contains("FAILED_PRECONDITION"), "{refusal}");
        assert!(refusal.contains("once its drive is at"), "{refusal}");
    }

    fs::rename(&elsewhere, &here).unwrap();
    go_on(&mut workload, &mut away);
    assert_eq!(node.drive("p1")["state"], "present");
    assert!(node.ready("p1").0);
}

#[tokio::test]
async fn drive_let_go_of_stays_so_over_a_kill_until_it_is_added() {
    let mut node = Node::start_with(&["other"]).await;
    let mut kept = guest(&node.volume("b", "other", &[]));
    let socket = node.volume("a", "p1", &[]);
    let mut away = guest(&socket);
    let mut workload = workload();
    workload.run(&mut away, 500).unwrap();
    let removed = node.text(&["device", "remove", "p1"]);
    work_until_silent(&mut workload, &mut away);
    let held = workload.in_flight();
    assert!(held > 0, "requests wait");

    for _ in 0..2 {
        node.kill();
        kept.disconnect();
        away.disconnect();
        node.start_again().await;
        // Ready: it was decided which drives to open, and the file is there to be opened.
        let drive = node.drive("p1");
        assert_eq!(drive["state"], "removed");
        assert!(drive["capacityBytes"].as_u64().unwrap() > 0);
        let (ready, why) = node.ready("p1");
        assert!(!ready && why.contains("holdfast device add p1"), "{why}");
        kept.reconnect().unwrap();
        kept.queue(0).write(0, &[2; 4096]).unwrap();
        assert!(UnixStream::connect(&socket).is_err(), "no drive, no disk");
        assert_eq!(node.text(&["device", "remove", "p1"]), removed);
    }
    assert_eq!(workload.in_flight(), held, "no answer, so no error");

    let added = node.text(&["device", "add", "p1"]);
    assert!(added.starts_with("p1\tpresent\t"), "{added}");
    go_on(&mut workload, &mut away);
    node.kill();
    away.disconnect();
    node.start_again().await;
    assert_eq!(node.drive("p1")["state"], "present", "the add is kept, too");
    go_on(&mut workload, &mut away);
}

/// The disk is back: all that waited is done, more is, and nothing is wrong.
fn go_on(workload: &mut Workload, guest: &mut Guest) {
    let until = Instant::now() + DEADLINE;
    while let Err(error) = guest.reconnect() {
        assert!(Instant::now() < until, "it did not come back: {error}");
    }
    workload.drain(guest.queues()).unwrap();
    workload.run(guest, 500).unwrap();
    workload.audit(guest).unwrap();
    workload.report().assert_clean();
}
