//! Makes of a log every drive that a loss of power could leave behind, and judges each.
//!
//! A drive may keep or lose any write that was not followed by a flush, and may stop in any sector of the last one.

use crate::drive::{Drive, Event};
use crate::image::{Change, Image};
use crate::truth::{Found, Tenants, examine};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use std::sync::Arc;

/// Up to this many unflushed writes, all subsets are tried; of more, this many.
const ALL_SUBSETS: usize = 4;
const SAMPLES: u32 = 64;

/// What may be found, from one answer to the next.
struct Window {
    allowed: Vec<Found>,
    tenants: Tenants,
}

pub(crate) struct Replay {
    name: &'static str,
    size_bytes: u64,
    durable: Image,
    live: Image,
    unflushed: Vec<Change>,
    random: StdRng,
    /// Images tried, and the number of those that crashed again while they were mended.
    pub(crate) tried: u64,
    pub(crate) tried_again: u64,
}

impl Replay {
    pub(crate) fn new(name: &'static str, size_bytes: u64, start: Image) -> Replay {
        Replay {
            name,
            size_bytes,
            durable: start.clone(),
            live: start,
            unflushed: Vec::new(),
            random: StdRng::seed_from_u64(7),
            tried: 0,
            tried_again: 0,
        }
    }

    /// Goes through the log; `first` is what the drive showed before.
    pub(crate) fn run(&mut self, first: Found, log: &[Event]) {
        let mut windows = windows(first, log).into_iter();
        let mut window = windows.next().unwrap();
        for (number, event) in log.iter().enumerate() {
            match event {
                Event::Change(change) => self.change(number, change, &window),
                Event::Flush => {
                    self.durable = self.live.clone();
                    self.unflushed.clear();
                }
                Event::Resize(size_bytes) => self.size_bytes = *size_bytes,
                Event::Maybe(_) => {}
                Event::Answered(found, tenants) => {
                    // Now only the answer counts, whatever of the unflushed writes is lost.
                    let answered = Window {
                        allowed: vec![found.clone()],
                        tenants: tenants.clone(),
                    };
                    self.subsets(number, &answered);
                    window = windows.next().unwrap();
                }
            }
        }
    }

    /// Tears the change in every sector, then loses some of what is unflushed.
    fn change(&mut self, number: usize, change: &Change, window: &Window) {
        let sectors = self.live.changed_sectors(change);
        let mut torn = self.live.clone();
        for sector in &sectors {
            torn.apply_sector(change, *sector);
            self.judge(number, &torn, window);
        }
        for _ in 0..8 {
            let mut scattered = self.live.clone();
            for sector in sectors.iter().filter(|_| self.random.random()) {
                scattered.apply_sector(change, *sector);
            }
            self.judge(number, &scattered, window);
        }
        self.live.apply(change);
        self.unflushed.push(change.clone());
        self.subsets(number, window);
    }

    fn subsets(&mut self, number: usize, window: &Window) {
        let count = self.unflushed.len();
        let kept: Vec<u64> = if count <= ALL_SUBSETS {
            (0..1 << count).collect()
        } else {
            (0..SAMPLES).map(|_| self.random.random()).collect()
        };
        for kept in kept {
            let mut image = self.durable.clone();
            for (_, change) in (0..64)
                .zip(&self.unflushed)
                .filter(|(bit, _)| kept >> bit & 1 == 1)
            {
                image.apply(change);
            }
            self.judge(number, &image, window);
        }
    }

    fn judge(&mut self, number: usize, image: &Image, window: &Window) {
        self.tried += 1;
        let drive = Arc::new(Drive::new(self.size_bytes, image.clone()));
        self.check(number, &drive, window);
        let mending = drive.log();
        self.crash_while_mending(number, image, &mending, window);
    }

    /// The drive crashes once more, in each sector that is written while it is mended.
    fn crash_while_mending(
        &mut self,
        number: usize,
        image: &Image,
        mending: &[Event],
        window: &Window,
    ) {
        let mut live = image.clone();
        for event in mending {
            let Event::Change(change) = event else {
                continue;
            };
            for sector in live.changed_sectors(change) {
                live.apply_sector(change, sector);
                self.tried_again += 1;
                let drive = Arc::new(Drive::new(self.size_bytes, live.clone()));
                self.check(number, &drive, window);
            }
        }
    }

    fn check(&self, number: usize, drive: &Arc<Drive>, window: &Window) {
        let found = examine(drive, &window.tenants);
        assert!(
            window.allowed.contains(&found),
            "{}, event {number}: found {found:#?}, not one of {:#?}",
            self.name,
            window.allowed
        );
    }
}

fn windows(first: Found, log: &[Event]) -> Vec<Window> {
    let mut windows = vec![Window {
        allowed: vec![first],
        tenants: Tenants::new(),
    }];
    for event in log {
        let last = windows.last_mut().unwrap();
        match event {
            Event::Maybe(found) => last.allowed.push(found.clone()),
            Event::Answered(found, tenants) => {
                last.allowed.push(found.clone());
                // Who writes in this window may already be seen; what was flushed before it must still be.
                for (id, tenant) in tenants {
                    let seen = last.tenants.entry(id.clone()).or_default();
                    seen.byte = tenant.byte;
                }
                windows.push(Window {
                    allowed: vec![found.clone()],
                    tenants: tenants.clone(),
                });
            }
            _ => {}
        }
    }
    windows
}
