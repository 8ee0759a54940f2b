//! What stands on a drive, cheap to copy: pages are shared until they are written, and zeros cost nothing.

use std::collections::BTreeMap;
use std::sync::Arc;

pub(crate) const SECTOR: usize = 512;
const PAGE: usize = 4096;

#[derive(Clone, Debug, Default)]
pub(crate) struct Image {
    pages: BTreeMap<u64, Arc<[u8; PAGE]>>,
}

/// A change of contents, as it was asked for.
#[derive(Clone, Debug)]
pub(crate) enum Change {
    Write { offset: u64, bytes: Arc<[u8]> },
    Zero { offset: u64, len: u64 },
}

impl Image {
    pub(crate) fn read(&self, offset: u64, buf: &mut [u8]) {
        buf.fill(0);
        let end = offset + buf.len() as u64;
        for (at, page) in self.pages.range(page_of(offset)..end) {
            let (from, to) = (offset.max(*at), end.min(at + PAGE as u64));
            if from < to {
                buf[size(from - offset)..size(to - offset)]
                    .copy_from_slice(&page[size(from - at)..size(to - at)]);
            }
        }
    }

    pub(crate) fn apply(&mut self, change: &Change) {
        match change {
            Change::Write { offset, bytes } => self.write(*offset, bytes),
            Change::Zero { offset, len } => self.zero(*offset, *len),
        }
    }

    /// Applies one sector of a change, which knows what it wants to stand there.
    pub(crate) fn apply_sector(&mut self, change: &Change, sector: u64) {
        match change {
            Change::Write { offset, bytes } => {
                let at = size(sector - offset);
                self.write(sector, &bytes[at..at + SECTOR]);
            }
            Change::Zero { .. } => self.zero(sector, SECTOR as u64),
        }
    }

    /// The sectors of a change that would not be as they are, by byte offset.
    pub(crate) fn changed_sectors(&self, change: &Change) -> Vec<u64> {
        match change {
            Change::Write { offset, bytes } => (*offset..)
                .step_by(SECTOR)
                .zip(bytes.chunks(SECTOR))
                .filter(|(at, wanted)| self.sector(*at) != *wanted)
                .map(|(at, _)| at)
                .collect(),
            Change::Zero { offset, len } => self
                .pages
                .range(page_of(*offset)..offset + len)
                .flat_map(|(at, _)| (*at..at + PAGE as u64).step_by(SECTOR))
                .filter(|at| (*offset..offset + len).contains(at))
                .filter(|at| self.sector(*at) != [0; SECTOR])
                .collect(),
        }
    }

    /// Pages that hold something, with their offsets.
    pub(crate) fn non_zero(&self) -> impl Iterator<Item = (u64, &[u8; PAGE])> {
        self.pages
            .iter()
            .map(|(at, page)| (*at, page.as_ref()))
            .filter(|(_, page)| page.iter().any(|byte| *byte != 0))
    }

    fn sector(&self, at: u64) -> [u8; SECTOR] {
        let mut bytes = [0; SECTOR];
        self.read(at, &mut bytes);
        bytes
    }

    fn write(&mut self, offset: u64, bytes: &[u8]) {
        let mut done = 0;
        while done < bytes.len() {
            let at = offset + done as u64;
            let inside = size(at - page_of(at));
            let len = (PAGE - inside).min(bytes.len() - done);
            let page = self
                .pages
                .entry(page_of(at))
                .or_insert_with(|| Arc::new([0; PAGE]));
            Arc::make_mut(page)[inside..inside + len].copy_from_slice(&bytes[done..done + len]);
            done += len;
        }
    }

    fn zero(&mut self, offset: u64, len: u64) {
        let touched: Vec<u64> = self
            .pages
            .range(page_of(offset)..offset + len)
            .map(|(at, _)| *at)
            .collect();
        for at in touched {
            let (from, to) = (offset.max(at), (offset + len).min(at + PAGE as u64));
            if to - from == PAGE as u64 {
                self.pages.remove(&at);
            } else if from < to {
                self.write(from, &vec![0; size(to - from)]);
            }
        }
    }
}

fn page_of(offset: u64) -> u64 {
    offset / PAGE as u64 * PAGE as u64
}

fn size(bytes: u64) -> usize {
    usize::try_from(bytes).unwrap()
}
