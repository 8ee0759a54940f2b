//! `kill -9` of the standalone driver at random moments of every CSI call: after the next start the same call completes, what
//! was there before is served again, and at the end nothing is left behind.

mod common;
#[path = "crash/life.rs"]
mod life;

use common::{Asked, Driver, POOL};
use life::{Life, Step};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use serde_json::Value;
use std::fs;
use std::path::Path;
use std::process::{Command, ExitCode};
use std::time::{Duration, Instant};
use tempfile::TempDir;
use tonic::transport::Channel;

const TEST: &str = "kill_at_any_moment_of_a_call_is_healed_by_its_repetition";
/// Every round kills the driver once in each step of a volume's life.
const ROUNDS: usize = 9;
/// Set it to repeat a run that failed.
const SEED: &str = "HOLDFAST_TEST_SEED";

fn main() -> ExitCode {
    if let Asked::Nothing = common::asked(TEST) {
        return ExitCode::SUCCESS;
    }
    if !common::may_mount() {
        println!("skipped: mounting is not permitted here, and publishing a volume needs it");
        common::result(0, 0, 1);
        return ExitCode::SUCCESS;
    }
    if let Some(inner) = common::enter_namespace() {
        let failed = usize::from(!inner.success());
        common::result(1 - failed, failed, 0);
        return ExitCode::from(u8::from(failed > 0));
    }
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    runtime.block_on(run());
    ExitCode::SUCCESS
}

async fn run() {
    let seed =
        std::env::var(SEED).map_or_else(|_| rand::random(), |seed| seed.parse().expect(SEED));
    println!("{TEST}: {SEED}={seed}");
    let mut random = StdRng::seed_from_u64(seed);
    let dir = TempDir::new().expect("a directory for the test");
    let mut driver = Driver::start(dir.path());
    let mut channel = driver.ready().await;

    let bystander = Life::new("bystander", dir.path());
    for step in [Step::Create, Step::Stage, Step::Publish] {
        bystander.complete(step, &channel).await;
    }
    let usual = measure(&channel, dir.path()).await;
    let mut kills = 0;
    for round in 0..ROUNDS {
        let life = Life::new(&format!("volume-{round}"), dir.path());
        for (step, took) in Step::ALL.into_iter().zip(&usual) {
            let moment = took.mul_f64(random.random_range(0.0..1.1));
            // Whether the call was answered before the kill does not matter: its repetition must be.
            let _ = tokio::time::timeout(moment, life.call(step, &channel)).await;
            driver.kill();
            kills += 1;
            driver = Driver::start(dir.path());
            channel = driver.ready().await;
            life.complete(step, &channel).await;
            bystander.check(Step::Publish, &channel).await;
        }
    }
    for step in [Step::Unpublish, Step::Unstage, Step::Delete] {
        bystander.complete(step, &channel).await;
    }
    drop(channel);
    assert!(driver.terminate().success());
    check_nothing_left(dir.path());
    println!("{TEST}: {kills} kills");
}

/// How long each step takes when nobody is killed.
async fn measure(channel: &Channel, dir: &Path) -> Vec<Duration> {
    let life = Life::new("measured", dir);
    let mut usual = Vec::new();
    for step in Step::ALL {
        let began = Instant::now();
        life.complete(step, channel).await;
        usual.push(began.elapsed());
    }
    usual
}

fn check_nothing_left(dir: &Path) {
    let state = dir.join("state");
    for empty in ["splitvolumes", "volumesessions", "v"] {
        assert_eq!(names(&state.join(empty)), [""; 0], "{empty}");
    }
    let pool = format!("{POOL}.yaml");
    assert_eq!(names(&state.join("blockpools")), [pool]);
    assert_eq!(names(&dir.join("targets")), [""; 0]);
    let mounts = fs::read_to_string("/proc/self/mountinfo").expect("the mount table");
    let ours = dir.to_str().expect("a plain path");
    assert!(!mounts.contains(ours), "{mounts}");

    let report = Command::new(env!("CARGO_BIN_EXE_holdfast"))
        .args(["pool", "inspect", "-o", "json"])
        .arg(dir.join("pool.img"))
        .output()
        .expect("holdfast runs");
    assert!(report.status.success(), "{report:?}");
    let report: Value = serde_json::from_slice(&report.stdout).expect("JSON");
    let pool = &report["pool"];
    assert_eq!(pool["volumes"], Value::Array(Vec::new()));
    assert_eq!(pool["allocatedBytes"], 0);
    let bytes = |field: &str| pool[field].as_u64().expect(field);
    assert_eq!(
        bytes("freeBytes") + bytes("erasePendingBytes"),
        bytes("capacityBytes"),
        "every byte is free or on its way"
    );
    assert_eq!(report["notes"], Value::Array(Vec::new()));
}

fn names(dir: &Path) -> Vec<String> {
    let entries = fs::read_dir(dir).unwrap_or_else(|error| panic!("{}: {error}", dir.display()));
    let name = |entry: std::io::Result<fs::DirEntry>| entry.expect("an entry").file_name();
    entries
        .map(|entry| name(entry).to_string_lossy().into_owned())
        .collect()
}
