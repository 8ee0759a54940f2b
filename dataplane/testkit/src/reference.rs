//! The reference engine: any block device on a vhost-user socket, by vhost-user-backend and virtio-queue and one request
//! at a time. Slow, simple, and without a line in common with Holdfast's ring and session, so that the two can be compared.

mod backend;
mod blk;

use backend::Backend;
use holdfast_bdev::BlockDevice;
use rustix::net::{Shutdown, shutdown};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};
use std::{fs, io};
use vhost::vhost_user::Listener;
use vhost_user_backend::{ShutdownHandle, VhostUserDaemon};
use vm_memory::{GuestMemoryAtomic, GuestMemoryMmap};

/// A running reference engine; dropping it hangs up, stops the thread and removes the socket.
#[derive(Debug)]
pub struct ReferenceEngine {
    path: PathBuf,
    /// The socket itself: its folder may be gone before the engine is, and the path would wake nobody.
    listener: UnixListener,
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

/// What a reference engine serves.
#[derive(Clone, Debug)]
pub struct ReferenceConfig {
    /// Queues offered.
    pub queues: usize,
    /// Largest queue.
    pub queue_size: u16,
    /// Serial number, at most 20 bytes.
    pub serial: String,
}

impl Default for ReferenceConfig {
    fn default() -> ReferenceConfig {
        ReferenceConfig {
            queues: 4,
            queue_size: 1024,
            serial: "reference".to_owned(),
        }
    }
}

struct Shared {
    stop: AtomicBool,
    current: Mutex<Option<ShutdownHandle>>,
}

impl std::fmt::Debug for Shared {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Shared {{ stop: {:?} }}", self.stop)
    }
}

impl ReferenceEngine {
    /// Serves `device` at `path` until dropped: one front end after the other.
    ///
    /// # Errors
    /// If the socket cannot be bound.
    pub fn serve(
        path: impl AsRef<Path>,
        device: Arc<dyn BlockDevice>,
        config: ReferenceConfig,
    ) -> io::Result<ReferenceEngine> {
        let path = path.as_ref().to_owned();
        drop(fs::remove_file(&path)); // Of an engine that was here before.
        let listener = UnixListener::bind(&path)?;
        let accepting = Listener::from(listener.try_clone()?);
        let shared = Arc::new(Shared {
            stop: AtomicBool::new(false),
            current: Mutex::new(None),
        });
        let theirs = Arc::clone(&shared);
        let thread = thread::Builder::new()
            .name("reference-engine".to_owned())
            .spawn(move || serve(accepting, &device, &config, &theirs))?;
        Ok(ReferenceEngine {
            path,
            listener,
            shared,
            thread: Some(thread),
        })
    }

    /// Hangs up on the front end, as a crash would; the next one is served.
    pub fn hang_up(&self) {
        let current = self
            .shared
            .current
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        if let Some(handle) = &*current {
            handle.shutdown();
        }
    }
}

impl Drop for ReferenceEngine {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::SeqCst);
        self.hang_up();
        // Wakes a thread that waits for the next front end.
        let _ = shutdown(&self.listener, Shutdown::Both);
        if let Some(thread) = self.thread.take() {
            // A panic of the engine has failed the test already.
            let _ = thread.join();
        }
        drop(fs::remove_file(&self.path));
    }
}

fn serve(
    mut listener: Listener,
    device: &Arc<dyn BlockDevice>,
    config: &ReferenceConfig,
    shared: &Shared,
) {
    // Bound: ends when the engine is dropped. A daemon serves one connection; the next needs a new one.
    while !shared.stop.load(Ordering::SeqCst) {
        let backend = Arc::new(Mutex::new(Backend::new(Arc::clone(device), config.clone())));
        let memory = GuestMemoryAtomic::new(GuestMemoryMmap::new());
        let mut daemon = VhostUserDaemon::new("reference".to_owned(), backend, memory)
            .expect("threads and epoll descriptors are available to a test");
        if let Err(error) = daemon.start(&mut listener) {
            if !shared.stop.load(Ordering::SeqCst) {
                tracing::warn!(%error, "Reference engine could not accept");
            }
            return;
        }
        *shared
            .current
            .lock()
            .unwrap_or_else(PoisonError::into_inner) = daemon.shutdown_handle();
        if shared.stop.load(Ordering::SeqCst) {
            daemon.request_shutdown();
        }
        if let Err(error) = daemon.wait() {
            tracing::debug!(%error, "Front end left");
        }
        *shared
            .current
            .lock()
            .unwrap_or_else(PoisonError::into_inner) = None;
    }
}
