//! Storage calls that block: worker threads make them where io_uring is forbidden, a reactor where they are copies.
#![allow(unsafe_code)] // System calls on the buffers of requests.

use super::inbox::Inbox;
use crate::transfer::{BUFFERS_MAX, Call, Span, Transfer};
use crate::{BdevError, IoStatus};
use std::collections::VecDeque;
use std::os::fd::RawFd;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::{Builder, JoinHandle};

/// Storage calls of one driver at a time.
const WORKERS: usize = 4;
const _: () = assert!(WORKERS <= BUFFERS_MAX, "a worker never waits for a buffer");

#[derive(Default)]
struct Queue {
    state: Mutex<State>,
    work: Condvar,
}

#[derive(Default)]
struct State {
    closed: bool,
    transfers: VecDeque<Transfer>,
}

/// Dropping it forgets what no worker has begun, and waits for the rest: buffers are in use until then.
pub(super) struct Workers {
    queue: Arc<Queue>,
    threads: Vec<JoinHandle<()>>,
}

impl Workers {
    pub(super) fn start(inbox: &Arc<Inbox>) -> Result<Workers, BdevError> {
        let queue = Arc::new(Queue::default());
        let mut workers = Workers {
            queue,
            threads: Vec::new(),
        };
        for _ in 0..WORKERS {
            let (queue, inbox) = (Arc::clone(&workers.queue), Arc::clone(inbox));
            let thread = Builder::new().name("storage".to_owned());
            let thread = thread.spawn(move || work(&queue, &inbox));
            workers
                .threads
                .push(thread.map_err(|source| BdevError::Driver {
                    what: "starting a storage thread",
                    source,
                })?);
        }
        Ok(workers)
    }

    pub(super) fn push(&self, transfer: Transfer) {
        self.queue.lock().transfers.push_back(transfer);
        self.queue.work.notify_one();
    }
}

impl Drop for Workers {
    fn drop(&mut self) {
        let mut state = self.queue.lock();
        state.closed = true;
        state.transfers.clear();
        drop(state);
        self.queue.work.notify_all();
        for thread in self.threads.drain(..) {
            let _ = thread.join(); // A worker that panicked touches no buffer any more.
        }
    }
}

impl Queue {
    fn lock(&self) -> MutexGuard<'_, State> {
        // A queue is a queue whatever panicked elsewhere.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn next(&self) -> Option<Transfer> {
        let mut state = self.lock();
        loop {
            if state.closed {
                return None;
            }
            if let Some(transfer) = state.transfers.pop_front() {
                return Some(transfer);
            }
            state = self
                .work
                .wait(state)
                .unwrap_or_else(PoisonError::into_inner);
        }
    }
}

fn work(queue: &Queue, inbox: &Inbox) {
    while let Some(mut transfer) = queue.next() {
        let status = serve(&mut transfer);
        let token = transfer.token();
        transfer.finish();
        inbox.served(token, status);
    }
}

/// Makes all calls of a request, on the calling thread.
pub(super) fn serve(transfer: &mut Transfer) -> IoStatus {
    if !transfer.is_ready(None) {
        return IoStatus::Failed(libc::ENOBUFS);
    }
    loop {
        let (call, fd) = (transfer.call(), transfer.fd());
        let result = perform(&call, fd);
        if let Some(status) = transfer.advance(result) {
            return status;
        }
    }
}

/// As io_uring answers: what the call returned, or its negative error number.
fn perform(call: &Call, fd: RawFd) -> i32 {
    let result = match *call {
        Call::Read(ref span, at) => {
            let (iov, count) = array(span);
            // SAFETY: the array and its buffers are valid until the transfer completes.
            unsafe { libc::preadv(fd, iov, count, signed(at)) as i64 }
        }
        Call::Write(ref span, at) => {
            let (iov, count) = array(span);
            // SAFETY: as above.
            unsafe { libc::pwritev(fd, iov, count, signed(at)) as i64 }
        }
        // SAFETY: the transfer keeps the descriptor open.
        Call::Sync => i64::from(unsafe { libc::fdatasync(fd) }),
        Call::Allocate { mode, offset, len } => {
            // SAFETY: as above.
            i64::from(unsafe { libc::fallocate(fd, mode, signed(offset), signed(len)) })
        }
    };
    if result < 0 {
        let errno = std::io::Error::last_os_error().raw_os_error();
        return -errno.unwrap_or(libc::EIO);
    }
    i32::try_from(result).expect("the kernel moves less than 2 GiB per call")
}

fn array(span: &Span) -> (*const libc::iovec, i32) {
    match span {
        Span::One(iovec) => (iovec, 1),
        Span::Many(iov, count) => (*iov, i32::try_from(*count).unwrap_or(i32::MAX)),
    }
}

fn signed(bytes: u64) -> i64 {
    i64::try_from(bytes).expect("inside a device, which is smaller than 2^63 bytes")
}
