//! A virtual machine as the node sees it: a front end on the published socket that verifies what it reads.

use anyhow::ensure;
use holdfast_testkit::frontend::Guest;
use holdfast_testkit::workload::{Plan, Workload};
use std::ops::Range;
use std::path::Path;
use std::time::{Duration, Instant};

const SECTOR: u64 = 512;
/// Where a mark is left.
const MARK: u64 = 4 << 20;
/// Longer than any pause that a test makes.
const PATIENCE: Duration = Duration::from_secs(60);

/// A machine with one disk.
pub struct Machine {
    guest: Guest,
    volumes: u32,
}

impl Machine {
    /// Connects to the socket and starts one queue.
    ///
    /// # Errors
    /// If nobody serves it.
    pub fn boot(socket: &Path) -> anyhow::Result<Machine> {
        let guest = Guest::builder()
            .queues(1)
            .deadline(PATIENCE)
            .connect(socket)?;
        Ok(Machine { guest, volumes: 0 })
    }

    /// The size of the disk, as the machine sees it now.
    ///
    /// # Errors
    /// If the disk does not answer.
    pub fn disk_bytes(&mut self) -> anyhow::Result<u64> {
        Ok(self.guest.config()?.capacity_sectors * SECTOR)
    }

    /// Reads, writes, flushes and discards in a range that was never used before, and verifies every byte.
    ///
    /// # Errors
    /// If a request fails, or a byte is not what was written last.
    pub fn work(&mut self, bytes: Range<u64>, requests: u64) -> anyhow::Result<()> {
        self.volumes += 1;
        let plan = Plan {
            patience: PATIENCE,
            ..Plan::default()
        };
        let sectors = bytes.start / SECTOR..bytes.end / SECTOR;
        let mut workload = Workload::new(plan, self.volumes, sectors);
        workload.run(&mut self.guest, requests)?;
        workload.audit(&mut self.guest)?;
        ensure!(workload.report().is_clean(), "{:?}", workload.report());
        Ok(())
    }

    /// How long `reads` reads take, one after the other.
    ///
    /// # Errors
    /// If one fails.
    pub fn time_reads(&mut self, reads: usize) -> anyhow::Result<Duration> {
        let since = Instant::now();
        for _ in 0..reads {
            self.guest.queue(0).read(0, 4096)?;
        }
        Ok(since.elapsed())
    }

    /// Writes a pattern that stands nowhere else, and flushes it. Returns it.
    ///
    /// # Errors
    /// If a request fails.
    pub fn leave_mark(&mut self) -> anyhow::Result<Vec<u8>> {
        let mark: Vec<u8> = (0..4096).map(|_| rand::random::<u8>()).collect();
        self.guest.queue(0).write(MARK, &mark)?;
        self.guest.queue(0).flush()?;
        Ok(mark)
    }

    /// Whether what [`Machine::leave_mark`] wrote is still there.
    ///
    /// # Errors
    /// If the read fails.
    pub fn still_has(&mut self, mark: &[u8]) -> anyhow::Result<bool> {
        let length = mark.len().try_into()?;
        Ok(self.guest.queue(0).read(MARK, length)? == mark)
    }

    /// Connects again after the server went away, as QEMU does, requests under way included.
    ///
    /// # Errors
    /// If nobody serves the socket.
    pub fn reconnect(&mut self) -> anyhow::Result<()> {
        Ok(self.guest.reconnect()?)
    }

    /// Hangs up.
    pub fn shut_down(mut self) {
        self.guest.disconnect();
    }
}
