//! Long-running child processes: each writes a log, can be killed, frozen and thawed, and never outlives its parent.

use anyhow::{Context, bail};
use rustix::process::{Pid, Signal, kill_process};
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{OnceLock, mpsc};
use std::thread;
use std::time::{Duration, Instant};

/// A child process. Dropped, it is killed; so it is when this process dies without a word.
#[derive(Debug)]
pub struct Daemon {
    name: String,
    child: Child,
    log: PathBuf,
}

impl Daemon {
    /// Starts the program, arguments, variables and folder of `command`. What it says is appended to `logs/NAME.log`.
    ///
    /// # Errors
    /// If it cannot be started.
    pub fn start(name: &str, command: &Command, logs: &Path) -> anyhow::Result<Daemon> {
        let log = logs.join(format!("{name}.log"));
        let output = File::options().create(true).append(true).open(&log);
        let output = output.with_context(|| format!("cannot write {}", log.display()))?;
        let mut mortal = mortal(command);
        mortal
            .stdin(Stdio::null())
            .stdout(output.try_clone()?)
            .stderr(output);
        let child = spawn(mortal).with_context(|| format!("cannot start {name}"))?;
        let name = name.to_owned();
        Ok(Daemon { name, child, log })
    }

    /// What it is called in messages; its log has the same name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Its process id.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// All that it has said.
    pub fn said(&self) -> String {
        fs::read(&self.log).map_or_else(
            |error| format!("(no log: {error})"),
            |bytes| String::from_utf8_lossy(&bytes).into_owned(),
        )
    }

    /// The last lines it has said, for error messages.
    pub fn tail(&self) -> String {
        const LINES: usize = 15;
        let said = self.said();
        let lines: Vec<_> = said.lines().collect();
        lines[lines.len().saturating_sub(LINES)..].join("\n")
    }

    /// # Errors
    /// If it has ended: its exit status and last words.
    pub fn check(&mut self) -> anyhow::Result<()> {
        match self.child.try_wait()? {
            None => Ok(()),
            Some(status) => bail!("{} has ended ({status}):\n{}", self.name, self.tail()),
        }
    }

    /// Kills it as a crash would, and waits until it is gone.
    ///
    /// # Errors
    /// If it cannot be killed.
    pub fn kill(&mut self) -> anyhow::Result<()> {
        self.child.kill()?;
        self.child.wait()?;
        Ok(())
    }

    /// Asks it to end (SIGTERM) and waits.
    ///
    /// # Errors
    /// If it has not ended within `patience`.
    pub fn end(&mut self, patience: Duration) -> anyhow::Result<ExitStatus> {
        self.signal(Signal::TERM)?;
        let deadline = Instant::now() + patience;
        loop {
            if let Some(status) = self.child.try_wait()? {
                return Ok(status);
            }
            if Instant::now() > deadline {
                bail!("{} did not end in time:\n{}", self.name, self.tail());
            }
            thread::sleep(Duration::from_millis(10));
        }
    }

    /// Stops it where it stands (SIGSTOP): connections stay open and are not answered.
    ///
    /// # Errors
    /// If it is gone.
    pub fn freeze(&self) -> anyhow::Result<()> {
        self.signal(Signal::STOP)
    }

    /// Lets it go on after [`Daemon::freeze`].
    ///
    /// # Errors
    /// If it is gone.
    pub fn thaw(&self) -> anyhow::Result<()> {
        self.signal(Signal::CONT)
    }

    fn signal(&self, signal: Signal) -> anyhow::Result<()> {
        let name = &self.name;
        kill_process(Pid::from_child(&self.child), signal)
            .with_context(|| format!("cannot send {signal:?} to {name}"))
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        // Both fail only if it is gone already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The same command, run so that the kernel kills it when its parent thread ends.
fn mortal(command: &Command) -> Command {
    let mut mortal = Command::new("setpriv");
    mortal
        .args(["--pdeathsig", "KILL", "--"])
        .arg(command.get_program())
        .args(command.get_args());
    for (key, value) in command.get_envs() {
        match value {
            Some(value) => mortal.env(key, value),
            None => mortal.env_remove(key),
        };
    }
    if let Some(folder) = command.get_current_dir() {
        mortal.current_dir(folder);
    }
    mortal
}

type Order = (Command, mpsc::Sender<std::io::Result<Child>>);

/// Starts `command` from a thread that lives as long as this process: the kernel's "parent" is a thread, and one of a
/// test or a runtime may end before.
fn spawn(command: Command) -> anyhow::Result<Child> {
    static PARENT: OnceLock<mpsc::Sender<Order>> = OnceLock::new();
    let parent = PARENT.get_or_init(|| {
        let (sender, orders) = mpsc::channel::<Order>();
        thread::spawn(move || {
            for (mut command, reply) in orders {
                // Nobody waits for the reply only if that thread has died; then the child is dropped, and lives on
                // until this process ends.
                let _ = reply.send(command.spawn());
            }
        });
        sender
    });
    let (reply, child) = mpsc::channel();
    parent.send((command, reply))?;
    Ok(child.recv()??)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frozen_daemon_is_thawed_and_ends_when_asked() {
        let logs = tempfile::tempdir().unwrap();
        let mut command = Command::new("sh");
        command
            .args(["-c", "echo $WORD; exec sleep 600"])
            .env("WORD", "hello");
        let mut daemon = Daemon::start("sleeper", &command, logs.path()).unwrap();
        daemon.freeze().unwrap();
        daemon.check().unwrap();
        daemon.thaw().unwrap();
        let status = daemon.end(Duration::from_secs(20)).unwrap();
        assert!(!status.success());
        assert!(
            daemon
                .check()
                .unwrap_err()
                .to_string()
                .contains("sleeper has ended")
        );
    }

    #[test]
    fn daemon_of_a_thread_that_ended_lives_on() {
        let logs = tempfile::tempdir().unwrap();
        let path = logs.path().to_owned();
        let start = move || {
            let mut command = Command::new("sleep");
            Daemon::start("sleeper", command.arg("600"), &path).unwrap()
        };
        let mut daemon = thread::spawn(start).join().unwrap();
        daemon.check().unwrap();
    }
}
