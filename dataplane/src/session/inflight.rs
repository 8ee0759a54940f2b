//! The in-flight region of a session: made when a front end asks for one, used when it gives one. The front end keeps it
//! while we are away, and gives it to whoever listens next.

use super::{Queue, Session};
use holdfast_crash::crash_point;
use holdfast_ring::{InflightError, InflightMap};
use rustix::fs::{Mode, OFlags};
use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;
use std::sync::Arc;

impl Session {
    /// A region in a file without a name, all zeros: rings make it theirs when they start. Returns its size in bytes.
    ///
    /// Not a memfd: in the socket's folder it gets a label that a confined front end may use.
    pub(super) fn make_inflight(&self, queues: u16, queue_size: u16) -> io::Result<(File, u64)> {
        let bytes = InflightMap::bytes(queues, queue_size).map_err(io::Error::other)?;
        let flags = OFlags::TMPFILE | OFlags::RDWR | OFlags::EXCL | OFlags::CLOEXEC;
        let mode = Mode::RUSR | Mode::WUSR;
        let file = File::from(rustix::fs::open(&self.backing.folder, flags, mode)?);
        crash_point!("inflight.unsized");
        file.set_len(bytes)?;
        crash_point!("inflight.made");
        Ok((file, bytes))
    }

    /// Rings keep what is in flight there from now on. Those that run are started again on it.
    pub(super) fn use_inflight(
        &mut self,
        file: File,
        part: (u64, u64),
        queues: u16,
        queue_size: u16,
    ) -> Result<(), InflightError> {
        let map = InflightMap::map(OwnedFd::from(file), part, queues, queue_size)?;
        crash_point!("inflight.mapped");
        self.stop_all();
        self.inflight = Some(Arc::new(map));
        self.queues.iter_mut().for_each(Queue::reconsider);
        Ok(())
    }
}
