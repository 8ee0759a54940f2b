//! A server under measurement: started on its processor, in a session of its own, and looked at through /proc.

use crate::machine::{pin_to, precede};
use anyhow::{Context, ensure};
use rustix::process::{Pid, Signal, kill_process};
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// A running server. Ended with the value.
#[derive(Debug)]
pub(crate) struct Server {
    child: Child,
    log: PathBuf,
}

/// What a process has cost so far.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Usage {
    /// Processor time of all its threads, kernel workers included.
    pub(crate) cpu: Duration,
    /// Resident memory in bytes without what it shares with its guests.
    pub(crate) private_bytes: u64,
}

const STARTS_WITHIN: Duration = Duration::from_secs(20);
const ENDS_WITHIN: Duration = Duration::from_secs(10);

impl Server {
    /// Starts `words` on processor `cpu`; it must come to listen on all `sockets`.
    ///
    /// # Errors
    /// If it cannot be started, or ends first; then with the end of what it said.
    pub(crate) fn start(
        words: &[String],
        cpu: usize,
        sockets: &[PathBuf],
    ) -> anyhow::Result<Server> {
        Server::start_on(words, &[cpu], sockets)
    }

    /// As [`start`](Self::start), on several processors.
    pub(crate) fn start_on(
        words: &[String],
        cpus: &[usize],
        sockets: &[PathBuf],
    ) -> anyhow::Result<Server> {
        let log = sockets[0].with_extension("log");
        let file = File::create(&log)?;
        let mut command = Command::new("setsid");
        command.args(words).stdin(Stdio::null());
        command.stdout(file.try_clone()?).stderr(file);
        // Affinity is inherited, so whoever starts it must be there.
        let spawned = std::thread::scope(|scope| {
            let starter = scope.spawn(|| pin_to(cpus).and_then(|()| Ok(command.spawn()?)));
            starter.join()
        });
        let spawned = spawned.map_err(|_| anyhow::anyhow!("the starter panicked"))?;
        let child = spawned.with_context(|| format!("cannot start {}", words[0]))?;
        let mut server = Server { child, log };
        let deadline = Instant::now() + STARTS_WITHIN;
        while !sockets.iter().all(|socket| socket.exists()) {
            if server.child.try_wait()?.is_some() || Instant::now() > deadline {
                anyhow::bail!("{} does not listen: {}", words[0], server.said());
            }
            std::thread::sleep(Duration::from_millis(1));
        }
        // Without the right to it, neighbours disturb more; the report says so once, for the generator itself.
        let _ = precede(&server.child.id().to_string());
        Ok(server)
    }

    /// The last line it said.
    pub(crate) fn said(&self) -> String {
        let text = fs::read_to_string(&self.log).unwrap_or_default();
        let last = text.lines().rfind(|line| !line.trim().is_empty());
        last.unwrap_or("it said nothing").to_owned()
    }

    /// What it has cost so far.
    ///
    /// # Errors
    /// If it has ended.
    pub(crate) fn usage(&self) -> anyhow::Result<Usage> {
        let proc = PathBuf::from(format!("/proc/{}", self.child.id()));
        let status = fs::read_to_string(proc.join("status"))
            .with_context(|| format!("the server ended: {}", self.said()))?;
        Ok(Usage {
            cpu: cpu_of(&proc)?,
            private_bytes: 1024 * (field(&status, "RssAnon:") + field(&status, "RssFile:")),
        })
    }

    /// Its process.
    pub(crate) fn id(&self) -> u32 {
        self.child.id()
    }

    /// Ends it; all it has said.
    ///
    /// # Errors
    /// If it does not end.
    pub(crate) fn finish(mut self) -> anyhow::Result<String> {
        self.end()?;
        Ok(fs::read_to_string(&self.log)?)
    }

    fn end(&mut self) -> anyhow::Result<()> {
        if self.child.try_wait()?.is_some() {
            return Ok(());
        }
        if let Some(pid) = i32::try_from(self.child.id()).ok().and_then(Pid::from_raw) {
            kill_process(pid, Signal::TERM)?;
        }
        let deadline = Instant::now() + ENDS_WITHIN;
        while self.child.try_wait()?.is_none() {
            ensure!(Instant::now() < deadline, "it does not end");
            std::thread::sleep(Duration::from_millis(1));
        }
        Ok(())
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if self.end().is_err() {
            let _ = self.child.kill();
            let _ = self.child.wait();
        }
    }
}

/// Processor time of a process, kernel workers included.
fn cpu_of(proc: &Path) -> anyhow::Result<Duration> {
    let mut total = Duration::ZERO;
    for task in fs::read_dir(proc.join("task"))? {
        total += cpu_of_thread(&task?.path());
    }
    Ok(total)
}

/// Processor time of a thread. Nanosecond-exact, unlike the ticks of /proc/PID/stat. Threads come and go, so one that has
/// gone counts as nothing.
pub(crate) fn cpu_of_thread(task: &Path) -> Duration {
    let text = fs::read_to_string(task.join("schedstat")).unwrap_or_default();
    let ran: Option<u64> = text.split(' ').next().and_then(|word| word.parse().ok());
    Duration::from_nanos(ran.unwrap_or(0))
}

fn field(status: &str, name: &str) -> u64 {
    let line = status.lines().find(|line| line.starts_with(name));
    let kib = line.and_then(|line| line.split_whitespace().nth(1)?.parse().ok());
    kib.unwrap_or(0)
}
