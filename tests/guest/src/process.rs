//! Child processes that never outlive the test that started them.

use anyhow::{Context, bail};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, PidfdFlags, pidfd_open};
use std::os::fd::OwnedFd;
use std::os::unix::net::{UnixListener, UnixStream};
use std::process::{Child, ChildStdout, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use crate::Transcript;

/// A child process: killed when dropped. What it says on standard error is kept.
#[derive(Debug)]
pub struct Process {
    name: String,
    child: Child,
    exit: OwnedFd,
    log: Transcript,
}

impl Process {
    /// Starts `command`; `name` stands in error messages.
    ///
    /// # Errors
    /// If it cannot be started.
    pub fn start(name: &str, command: &mut Command) -> anyhow::Result<Process> {
        let mut child = command
            .stdin(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .with_context(|| format!("cannot start {name}: {:?}", command.get_program()))?;
        let stderr = child.stderr.take().context("standard error is a pipe")?;
        let pid = Pid::from_child(&child);
        Ok(Process {
            name: name.to_owned(),
            log: Transcript::of(name, stderr),
            exit: pidfd_open(pid, PidfdFlags::empty())?,
            child,
        })
    }

    /// What it has said on standard error.
    pub fn log(&self) -> &Transcript {
        &self.log
    }

    /// Its standard output, once, if that was asked to be a pipe.
    ///
    /// # Errors
    /// If it is no pipe, or was taken before.
    pub fn stdout(&mut self) -> anyhow::Result<ChildStdout> {
        let stdout = self.child.stdout.take();
        stdout.with_context(|| format!("standard output of {} is not ours", self.name))
    }

    /// Kills it as a crash would: no chance to say goodbye.
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
    /// If it has not ended by `deadline`.
    pub fn end(&mut self, deadline: Instant) -> anyhow::Result<ExitStatus> {
        rustix::process::pidfd_send_signal(&self.exit, rustix::process::Signal::TERM)?;
        let mut fds = [PollFd::new(&self.exit, PollFlags::IN)];
        if poll(&mut fds, Some(&left_until(deadline)?))? == 0 {
            bail!("{} did not end in time:\n{}", self.name, self.log.tail());
        }
        Ok(self.child.wait()?)
    }

    /// Waits until it connects to `listener`.
    ///
    /// # Errors
    /// If it ends first, or at the deadline.
    pub fn accept(&mut self, listener: &UnixListener, by: Instant) -> anyhow::Result<UnixStream> {
        let mut fds = [
            PollFd::new(listener, PollFlags::IN),
            PollFd::new(&self.exit, PollFlags::IN),
        ];
        poll(&mut fds, Some(&left_until(by)?))?;
        if !fds[0].revents().is_empty() {
            return Ok(listener.accept()?.0);
        }
        if !fds[1].revents().is_empty() {
            let status = self.child.wait()?;
            bail!(
                "{} ended at once ({status}):\n{}",
                self.name,
                self.log.tail()
            );
        }
        bail!(
            "{} did not connect in time:\n{}",
            self.name,
            self.log.tail()
        )
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // Both fail only if it is gone already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn left_until(deadline: Instant) -> anyhow::Result<Timespec> {
    let left: Duration = deadline.saturating_duration_since(Instant::now());
    Ok(Timespec::try_from(left)?)
}
