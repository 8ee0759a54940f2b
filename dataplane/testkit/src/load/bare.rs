//! What the kernel alone takes: a thread that reads a file past the page cache with io_uring and does nothing else. One
//! read at a time is what a server that sleeps for its drive does as well, so there it is a bound; with several, how they are
//! handed over and waited for decides, and a server may do better.
#![allow(unsafe_code)] // Hands buffers to the kernel, which are kept until it has given all of them back.

use super::pattern::Draw;
use super::{Clock, Pattern, Tally};
use io_uring::{IoUring, opcode, types};
use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::time::Duration;

/// A piece of a buffer, aligned for reads past the page cache.
#[derive(Clone)]
#[repr(align(4096))]
#[allow(dead_code)] // Only the kernel writes to it.
struct Page([u8; 4096]);

/// Reads under way, each with a buffer of its own.
pub struct BareReads {
    ring: IoUring,
    file: File,
    draw: Draw,
    pattern: Pattern,
    pages: Vec<Page>,
    /// When each was asked for, in ticks; none while it is not under way.
    asked: Vec<Option<u64>>,
}

impl BareReads {
    /// Opens the file for the depth, length and span of `pattern`. Stays on the thread that made it.
    ///
    /// # Errors
    /// If the file cannot be read past the page cache, or there is no io_uring.
    pub fn open(file: &Path, pattern: Pattern) -> io::Result<BareReads> {
        let mut options = File::options();
        let file = options.read(true).custom_flags(libc::O_DIRECT).open(file)?;
        let mut builder = IoUring::builder();
        let ring = builder.setup_single_issuer().setup_defer_taskrun();
        let pages = usize::from(pattern.depth) * Self::pages_each(pattern);
        Ok(BareReads {
            ring: ring.build(u32::from(pattern.depth).next_power_of_two())?,
            file,
            draw: Draw::new(pattern, 1),
            pattern,
            pages: vec![Page([0; 4096]); pages],
            asked: vec![None; pattern.depth.into()],
        })
    }

    /// Reads for that long.
    ///
    /// # Errors
    /// If the kernel refuses to work.
    pub fn run(&mut self, clock: &Clock, time: Duration) -> io::Result<Tally> {
        let (start, mut tally) = (clock.ticks(), Tally::default());
        let end = start + clock.ticks_in(time);
        loop {
            let now = clock.ticks();
            if now >= end {
                break;
            }
            // What has come back is asked for again at once, all in one call.
            for slot in 0..self.asked.len() {
                if self.asked[slot].is_none() {
                    self.ask(slot, now);
                }
            }
            self.take(|asked, whole| tally.add(clock.ns(clock.ticks() - asked), whole))?;
        }
        tally.elapsed = Duration::from_nanos(clock.ns(clock.ticks() - start));
        self.finish()?;
        Ok(tally)
    }

    /// Takes what is still under way.
    fn finish(&mut self) -> io::Result<()> {
        while self.asked.iter().any(Option::is_some) {
            self.take(|_, _| {})?;
        }
        Ok(())
    }

    fn ask(&mut self, slot: usize, now: u64) {
        let (sector, _) = self.draw.draw();
        let page = slot * Self::pages_each(self.pattern);
        let buffer = self.pages[page..].as_mut_ptr().cast();
        let entry = opcode::Read::new(types::Fd(self.file.as_raw_fd()), buffer, self.pattern.bytes);
        let entry = entry.offset(sector * 512).build().user_data(slot as u64);
        // SAFETY: the buffer is this slot's own and is not touched before its completion has been taken; `drop` waits for it.
        let pushed = unsafe { self.ring.submission().push(&entry) };
        if pushed.is_ok() {
            self.asked[slot] = Some(now);
        }
    }

    /// Waits for answers: when each was asked for, and whether all of it was read.
    fn take(&mut self, mut each: impl FnMut(u64, bool)) -> io::Result<()> {
        self.ring.submit_and_wait(1)?;
        for answer in self.ring.completion() {
            let slot = usize::try_from(answer.user_data()).unwrap_or(usize::MAX);
            if let Some(asked) = self.asked.get_mut(slot).and_then(Option::take) {
                each(
                    asked,
                    u32::try_from(answer.result()) == Ok(self.pattern.bytes),
                );
            }
        }
        Ok(())
    }

    fn pages_each(pattern: Pattern) -> usize {
        (pattern.bytes as usize).div_ceil(size_of::<Page>())
    }
}

impl Drop for BareReads {
    fn drop(&mut self) {
        if self.finish().is_err() {
            // The kernel may still write to them.
            std::mem::forget(std::mem::take(&mut self.pages));
        }
    }
}
