//! csi-sanity against a real `holdfast standalone`: no spec fails, and those skipped are exactly the ones listed with a reason.
//!
//! It is a program of its own, without cargo's runner, because each spec counts: passed, failed or skipped.

mod common;

use common::{Asked, Driver};
use serde_json::Value;
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use tempfile::TempDir;

/// Specs that are not to run, and why.
const LISTED: &str = include_str!("sanity/skipped.txt");

fn main() -> ExitCode {
    if let Asked::Nothing = common::asked("csi_sanity") {
        return ExitCode::SUCCESS;
    }
    let Some(program) = csi_sanity() else {
        println!("skipped: Go is missing, and csi-sanity cannot be built without it");
        common::result(0, 0, 1);
        return ExitCode::SUCCESS;
    };
    if !common::may_mount() {
        println!("skipped: mounting is not permitted here, and publishing a volume needs it");
        common::result(0, 0, 1);
        return ExitCode::SUCCESS;
    }
    if let Some(inner) = common::enter_namespace() {
        return ExitCode::from(u8::from(!inner.success()));
    }
    let complaints = run(&program);
    for complaint in &complaints {
        println!("{complaint}");
    }
    ExitCode::from(u8::from(!complaints.is_empty()))
}

/// The suite's program; `None` where it cannot be had.
fn csi_sanity() -> Option<PathBuf> {
    let program = Path::new(env!("CARGO_MANIFEST_DIR")).join("../.cache/bin/csi-sanity");
    if program.exists() {
        return Some(program);
    }
    let has_go = Command::new("go").arg("version").output().is_ok();
    assert!(
        !has_go,
        "{} is missing: run cargo xtask setup",
        program.display()
    );
    None
}

/// Runs the suite and prints how many specs ended how. Returns what is wrong.
fn run(program: &Path) -> Vec<String> {
    let dir = TempDir::new().expect("a directory for the test");
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    let mut driver = Driver::start(dir.path());
    runtime.block_on(driver.ready());
    let report = dir.path().join("report.json");
    let output = sanity_command(program, dir.path(), &driver.endpoint(), &report)
        .output()
        .expect("csi-sanity runs");
    let Ok(report) = std::fs::read(&report) else {
        common::result(0, 1, 0);
        return vec![String::from_utf8_lossy(&output.stdout).into_owned()];
    };
    let specs = specs(&report);
    let of = |state: &str| specs.iter().filter(|spec| spec.state == state).count();
    let skipped = of("skipped") + of("pending");
    let mut complaints = differences(&specs);
    let failures = specs.iter().filter(|spec| !spec.is_known_end());
    complaints
        .extend(failures.map(|spec| format!("{}: {}\n  {}", spec.state, spec.name, spec.why)));
    if !complaints.is_empty() {
        complaints.push(format!("log of the driver:\n{}", driver.log()));
    }
    let ended = driver.terminate();
    if !ended.success() {
        complaints.push(format!("the driver did not end well: {ended}"));
    }
    if of("passed") == 0 {
        complaints.push("not one spec passed".to_owned());
    }
    common::result(of("passed"), complaints.len(), skipped);
    complaints
}

fn sanity_command(program: &Path, dir: &Path, endpoint: &str, report: &Path) -> Command {
    const SIZE_BYTES: u64 = 64 << 20;
    let class = dir.join("class.yaml");
    std::fs::write(&class, "iops: \"2000\"\n").expect("the folder is writable");
    let mut command = Command::new(program);
    command
        .arg(format!("--csi.endpoint={endpoint}"))
        .arg(format!("--csi.mountdir={}", dir.join("mnt").display()))
        .arg(format!("--csi.stagingdir={}", dir.join("stage").display()))
        .arg(format!("--csi.testvolumesize={SIZE_BYTES}"))
        .arg(format!("--csi.testvolumeexpandsize={}", 2 * SIZE_BYTES))
        .arg(format!(
            "--csi.testvolumemutableparameters={}",
            class.display()
        ))
        .arg("--csi.testvolumeaccesstype=mount")
        .arg("--ginkgo.no-color")
        .arg("--ginkgo.seed=1")
        .arg(format!("--ginkgo.json-report={}", report.display()));
    command
}

/// A spec and how it ended.
struct Spec {
    name: String,
    state: String,
    why: String,
}

impl Spec {
    fn is_known_end(&self) -> bool {
        ["passed", "skipped", "pending"].contains(&self.state.as_str())
    }
}

/// Reads ginkgo's report. Set-up and clean-up are in it only where they failed.
fn specs(report: &[u8]) -> Vec<Spec> {
    let report: Value = serde_json::from_slice(report).expect("ginkgo writes JSON");
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let suites = report.as_array().expect("a list of suites");
    let all = suites
        .iter()
        .flat_map(|suite| suite["SpecReports"].as_array());
    all.flatten()
        .filter(|spec| spec["LeafNodeType"] == "It" || spec["State"] != "passed")
        .map(|spec| {
            let mut words: Vec<String> = spec["ContainerHierarchyTexts"]
                .as_array()
                .map(|texts| texts.iter().map(text).collect())
                .unwrap_or_default();
            words.push(text(&spec["LeafNodeText"]));
            Spec {
                name: words.join(" "),
                state: text(&spec["State"]),
                why: text(&spec["Failure"]["Message"]),
            }
        })
        .collect()
}

/// Where the list and what was skipped differ.
fn differences(specs: &[Spec]) -> Vec<String> {
    let listed: BTreeSet<&str> = LISTED
        .lines()
        .filter_map(|line| line.strip_prefix("  "))
        .collect();
    let skipped: BTreeSet<&str> = specs
        .iter()
        .filter(|spec| ["skipped", "pending"].contains(&spec.state.as_str()))
        .map(|spec| spec.name.as_str())
        .collect();
    let unlisted = skipped.difference(&listed);
    let stale = listed.difference(&skipped);
    unlisted
        .map(|name| format!("skipped, but not in skipped.txt: {name}"))
        .chain(stale.map(|name| format!("in skipped.txt, but not skipped: {name}")))
        .collect()
}
