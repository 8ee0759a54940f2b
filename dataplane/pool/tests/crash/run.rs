//! A workload as it runs: every call is noted with its answer, so that the replay knows what may be found when.

use crate::drive::{Drive, Event};
use crate::image::{Change, Image};
use crate::replay::Replay;
use crate::truth::{Found, HEAD, MIB, Tenants};
use holdfast_bdev::BlockDevice;
use holdfast_pool::{FormatOptions, Pool, PoolError};
use std::sync::Arc;

pub(crate) struct Run {
    pub(crate) drive: Arc<Drive>,
    first: (Found, Image, u64),
    pool: Option<Pool>,
    tenants: Tenants,
    next_byte: u8,
}

impl Run {
    /// A drive with room for eight extents, and with these contents.
    pub(crate) fn on(contents: &[(u64, &[u8])]) -> Run {
        let size_bytes = HEAD + 8 * MIB + MIB;
        let mut image = Image::default();
        for (offset, bytes) in contents {
            image.apply(&Change::Write {
                offset: *offset,
                bytes: (*bytes).into(),
            });
        }
        let drive = Arc::new(Drive::new(size_bytes, image.clone()));
        Run {
            first: (Found::from(&Pool::open(drive.clone())), image, size_bytes),
            drive,
            pool: None,
            tenants: Tenants::new(),
            next_byte: 1,
        }
    }

    /// A pool of zeros.
    pub(crate) fn pool() -> Run {
        let mut run = Run::on(&[]);
        run.format(true, false);
        run
    }

    pub(crate) fn format(&mut self, zeroed: bool, force: bool) {
        let options = options(zeroed, force);
        self.drive.note(Event::Maybe(Found::Interrupted));
        self.pool = None;
        self.tenants.clear();
        self.pool = Some(Pool::format(self.drive.clone(), options).unwrap());
        self.answered();
    }

    /// A format that fails after so many writes and flushes.
    pub(crate) fn fail_format(&mut self, zeroed: bool, force: bool, good_for: u32) {
        self.drive.note(Event::Maybe(Found::Interrupted));
        self.drive.fail_after(good_for);
        Pool::format(self.drive.clone(), options(zeroed, force)).unwrap_err();
    }

    /// Makes a call; it may be refused.
    pub(crate) fn call<T>(
        &mut self,
        call: impl Fn(&Pool) -> Result<T, PoolError>,
    ) -> Result<T, PoolError> {
        let answer = call(self.open());
        self.answered();
        answer
    }

    /// Makes a call whose n-th write or flush fails. What it would have done may be found from now on.
    pub(crate) fn attempt<T>(
        &mut self,
        good_for: u32,
        call: impl Fn(&Pool) -> Result<T, PoolError>,
    ) -> Result<T, PoolError> {
        let twin = self.twin();
        call(&twin).unwrap_or_else(|error| panic!("{error}"));
        self.drive.note(Event::Maybe(Found::of(&twin)));
        self.drive.fail_after(good_for);
        let answer = call(self.open());
        assert!(
            self.drive.has_failed(),
            "the call made too few writes to fail"
        );
        if answer.is_ok() {
            self.answered();
        }
        answer
    }

    pub(crate) fn allocate(&mut self, id: &str, mib: u64) {
        self.call(|pool| pool.allocate(id, mib * MIB)).unwrap();
    }

    pub(crate) fn grow(&mut self, id: &str, mib: u64) {
        self.call(|pool| pool.grow(id, mib * MIB)).unwrap();
    }

    pub(crate) fn release(&mut self, id: &str) {
        self.tenants.remove(id);
        self.call(|pool| pool.release(id)).unwrap();
    }

    pub(crate) fn erase(&mut self, mib: u64) {
        self.call(|pool| pool.erase_step(mib * MIB)).unwrap();
    }

    /// The tenant writes a page into every MiB it has, and flushes.
    pub(crate) fn fill(&mut self, id: &str) {
        let pages = self.scribble(id);
        self.drive.flush().unwrap();
        self.tenants.entry(id.into()).or_default().flushed = pages;
        self.answered();
    }

    /// The tenant writes and does not flush.
    pub(crate) fn scribble(&mut self, id: &str) -> Vec<u64> {
        let tenant = self.tenants.entry(id.into()).or_default();
        if tenant.byte == 0 {
            tenant.byte = self.next_byte;
            self.next_byte += 1;
        }
        let byte = tenant.byte;
        let extents = self.open().volume(id).unwrap().extents;
        let pages: Vec<u64> = extents
            .iter()
            .flat_map(|extent| {
                let end = extent.offset_bytes + extent.length_bytes;
                (extent.offset_bytes..end).step_by(1 << 20)
            })
            .map(|start| start + start / MIB % 256 * 4096)
            .collect();
        for at in &pages {
            self.drive.write_at(*at, &[byte; 4096]).unwrap();
        }
        self.answered();
        pages
    }

    /// The process is killed and starts again.
    pub(crate) fn reopen(&mut self) -> Vec<String> {
        let pool = Pool::open(self.drive.clone()).unwrap();
        let mended = pool.mended().to_vec();
        self.pool = Some(pool);
        self.answered();
        mended
    }

    /// A sector rots while nobody looks, and the process starts again.
    pub(crate) fn rot(&mut self, offset: u64) {
        let before = self.open().volumes();
        self.drive.write_at(offset, &[0x5a; 512]).unwrap();
        self.drive.flush().unwrap();
        // From here on the drive shows what it will show when it is mended.
        let found = Found::of(&self.twin());
        let event = Event::Answered(found.clone(), self.tenants.clone());
        self.drive.note(event);
        let mended = self.reopen();
        assert_eq!(mended.len(), 1, "{mended:?}");
        assert_eq!(self.open().volumes(), before);
        assert_eq!(Found::of(self.open()), found);
    }

    pub(crate) fn grow_device(&mut self, mib: u64) {
        let size_bytes = self.drive.info().size_bytes + mib * MIB;
        self.drive.note(Event::Resize(size_bytes));
        self.answered();
    }

    pub(crate) fn has(&self, id: &str) -> bool {
        self.open().volume(id).is_some()
    }

    /// How many drives the replay made of what happened, first and second crashes.
    pub(crate) fn replay(self, name: &'static str) -> (u64, u64) {
        let (found, image, size_bytes) = self.first;
        let mut replay = Replay::new(name, size_bytes, image);
        replay.run(found, &self.drive.log());
        (replay.tried, replay.tried_again)
    }

    /// A copy of the drive, opened.
    fn twin(&self) -> Pool {
        let size_bytes = self.drive.info().size_bytes;
        Pool::open(Arc::new(Drive::new(size_bytes, self.drive.image()))).unwrap()
    }

    fn open(&self) -> &Pool {
        self.pool.as_ref().unwrap()
    }

    fn answered(&self) {
        let event = Event::Answered(Found::of(self.open()), self.tenants.clone());
        self.drive.note(event);
    }
}

fn options(zeroed: bool, force: bool) -> FormatOptions {
    FormatOptions {
        identity: "crash".into(),
        zeroed,
        force,
    }
}
