//! A real `holdfast standalone` in a directory of its own.
#![allow(dead_code, reason = "each test file uses a part")]

use holdfast_proto::csi::v1::ProbeRequest;
use holdfast_proto::csi::v1::identity_client::IdentityClient;
use std::fs::{self, OpenOptions};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};
use tonic::transport::Channel;

/// Far more than any step needs: reached only by a defect.
pub(crate) const DEADLINE: Duration = Duration::from_secs(60);
pub(crate) const NODE: &str = "n1";
pub(crate) const POOL: &str = "p1";

/// The driver's process. Killed with the value.
pub(crate) struct Driver {
    child: Child,
    dir: PathBuf,
}

impl Driver {
    /// Starts it with one file pool. Its log is `<dir>/log`, appended to by every start.
    pub(crate) fn start(dir: &Path) -> Self {
        Self::start_with(dir, &[])
    }

    /// As [`start`](Driver::start), with more arguments.
    pub(crate) fn start_with(dir: &Path, more: &[&str]) -> Self {
        let log = dir.join("log");
        let log = OpenOptions::new().create(true).append(true).open(log);
        let pool = format!("{POOL}={},size=8GiB", dir.join("pool.img").display());
        let child = Command::new(env!("CARGO_BIN_EXE_holdfast"))
            .arg("standalone")
            .arg("--dir")
            .arg(dir.join("state"))
            .args(["--pool", &pool, "--node-name", NODE])
            .args(["--csi-endpoint", &endpoint(dir)])
            .args(more)
            .stdout(Stdio::null())
            .stderr(log.expect("the log can be written"))
            .spawn()
            .expect("holdfast starts");
        let dir = dir.to_owned();
        Self { child, dir }
    }

    pub(crate) fn endpoint(&self) -> String {
        endpoint(&self.dir)
    }

    /// Asks until the driver says that it is ready.
    pub(crate) async fn ready(&mut self) -> Channel {
        let until = Instant::now() + DEADLINE;
        loop {
            if let Ok(channel) = holdfast_csi::connect(&self.endpoint()).await {
                let probe = IdentityClient::new(channel.clone())
                    .probe(ProbeRequest {})
                    .await;
                if probe.is_ok_and(|answer| answer.get_ref().ready == Some(true)) {
                    return channel;
                }
            }
            let ended = self.child.try_wait().expect("the child can be asked");
            assert!(
                ended.is_none() && Instant::now() < until,
                "the driver is not ready:\n{}",
                self.log()
            );
            tokio::task::yield_now().await;
        }
    }

    pub(crate) fn kill(mut self) {
        self.child.kill().expect("the child can be killed");
        self.child.wait().expect("the child ends");
    }

    /// Asks it to end, as an init system does.
    pub(crate) fn terminate(mut self) -> ExitStatus {
        let asked = Command::new("kill")
            .arg(self.child.id().to_string())
            .status();
        assert!(asked.expect("kill runs").success());
        self.child.wait().expect("the child ends")
    }

    pub(crate) fn log(&self) -> String {
        fs::read_to_string(self.dir.join("log")).unwrap_or_default()
    }
}

impl Drop for Driver {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn endpoint(dir: &Path) -> String {
    format!("unix://{}", dir.join("csi.sock").display())
}

/// Whether this process may mount, in a namespace of its own: what publishing a volume needs.
pub(crate) fn may_mount() -> bool {
    let tried = Command::new("unshare").args(["--mount", "true"]).output();
    tried.is_ok_and(|output| output.status.success())
}

/// Set in the process that runs in a mount namespace of its own.
const INSIDE: &str = "HOLDFAST_TEST_NAMESPACE";

/// Runs this test program again in a mount namespace of its own, so that no mount outlives it; `None` in that inner run.
pub(crate) fn enter_namespace() -> Option<ExitStatus> {
    if std::env::var_os(INSIDE).is_some() {
        return None;
    }
    let this = std::env::current_exe().expect("a test knows its program");
    let inner = Command::new("unshare")
        .arg("--mount")
        .arg(this)
        .args(std::env::args_os().skip(1))
        .env(INSIDE, "1")
        .status();
    Some(inner.expect("unshare runs"))
}

/// What a test program without the usual runner is asked to do, in the usual words.
pub(crate) enum Asked {
    Run,
    /// A filter that matches nothing here, or a list.
    Nothing,
}

/// Reads the arguments of cargo's test runner: `--list`, filters with and without `--exact`, `--ignored`.
pub(crate) fn asked(test: &str) -> Asked {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let flag = |name: &str| words.iter().any(|word| word == name);
    if flag("--list") {
        println!("{test}: test");
        return Asked::Nothing;
    }
    let mut filters = words
        .iter()
        .filter(|word| !word.starts_with('-'))
        .peekable();
    let matches = filters.peek().is_none() || filters.any(|filter| test.contains(filter.as_str()));
    if !matches || flag("--ignored") {
        println!("test result: ok. 0 passed; 0 failed; 0 ignored; 0 measured; 1 filtered out");
        return Asked::Nothing;
    }
    Asked::Run
}

/// The one line that tells cargo's readers how it ended.
pub(crate) fn result(passed: usize, failed: usize, skipped: usize) {
    let word = if failed == 0 { "ok" } else { "FAILED" };
    println!(
        "test result: {word}. {passed} passed; {failed} failed; {skipped} ignored; 0 measured; 0 filtered out"
    );
}
