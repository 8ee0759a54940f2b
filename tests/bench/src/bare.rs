//! What the kernel alone takes for a read of the file on disk: one at a time, the bound of every server that
//! sleeps for the drive in io_uring; in the same run.

use crate::cases::Case;
use crate::figures::{Figures, Sample};
use crate::machine::pin;
use crate::peers::{BARE, Medium};
use crate::rounds::Rounds;
use crate::server::cpu_of_thread;
use anyhow::{Context, ensure};
use holdfast_testkit::load::{BareReads, Clock, Pattern, Tally};
use std::path::Path;
use std::time::Duration;

impl Rounds<'_> {
    /// Reads the file, which has been filled, at every depth; on the server's processor, while the client's looks for
    /// answers as it does for servers.
    pub(crate) fn bare(&self, figures: &mut Figures) -> anyhow::Result<()> {
        let cases = Case::of(Medium::Disk, self.pace.quick).into_iter();
        for case in cases.filter(Case::is_random_reads) {
            let file = self.site.file(Medium::Disk);
            let before = self.machine.round_trip_ns()?;
            let (tally, cpu) = std::thread::scope(|scope| {
                let reader = scope.spawn(|| {
                    pin(self.machine.server)?;
                    let times = (self.pace.warm_up, self.pace.measure);
                    read(&file, case.pattern, self.clock, times)
                });
                while !reader.is_finished() {
                    std::hint::spin_loop();
                }
                let joined = reader.join();
                joined.map_err(|_| anyhow::anyhow!("the reader panicked"))?
            })?;
            ensure!(tally.errors == 0, "{} bare reads failed", tally.errors);
            let trip_ns = before.max(self.machine.round_trip_ns()?);
            let sample = Sample::of(&tally, cpu, trip_ns);
            figures.add(Medium::Disk, &case.name, BARE, sample);
        }
        Ok(())
    }
}

/// The reads, and the processor time they took.
fn read(
    file: &Path,
    pattern: Pattern,
    clock: &Clock,
    (warm_up, measure): (Duration, Duration),
) -> anyhow::Result<(Tally, Duration)> {
    let cpu = || cpu_of_thread(Path::new("/proc/thread-self"));
    let mut reads = BareReads::open(file, pattern).context("cannot read the file on disk")?;
    reads.run(clock, warm_up)?;
    let before = cpu();
    let tally = reads.run(clock, measure)?;
    Ok((tally, cpu().saturating_sub(before)))
}
