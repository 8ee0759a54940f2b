//! The engine as its callers see it. The book knows what is open and who uses what; nothing slow happens while it is
//! locked, and nothing of a guest's I/O ever passes through it.

mod book;
mod eraser;
mod exports;
mod loss;
mod pools;
mod warden;

use crate::events::Herald;
use crate::reactor::{ReactorPlan, Reactors};
use crate::{EngineConfig, EngineError, ExportEvent, Opener, Processors, Source};
use book::Book;
use eraser::Eraser;
use holdfast_bdev::BlockDevice;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;
use warden::Warden;

/// How long a call waits for requests that are still with a device before it says so.
const PATIENCE: Duration = Duration::from_secs(5);

/// Pools, volumes and exports of this process. Cloning gives another handle on the same engine; all calls may block and
/// may come from any thread.
#[derive(Clone, Debug)]
pub struct Engine {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    reactors: Arc<Reactors>,
    threads: Mutex<Vec<JoinHandle<()>>>,
    book: Mutex<Book>,
    eraser: Eraser,
    warden: Warden,
    herald: Arc<Herald>,
    opener: Opener,
    /// Held while a volume grows, so that its users learn of its sizes in their order.
    growing: Mutex<()>,
}

impl Engine {
    /// Starts reactors and the eraser.
    ///
    /// # Errors
    /// [`EngineError::Thread`]; [`EngineError::Invalid`] for a CPU this process may not use;
    /// [`EngineError::Device`] if the kernel refuses the driver asked for.
    pub fn start(config: EngineConfig) -> Result<Engine, EngineError> {
        let plan = ReactorPlan {
            cpus: config.cpus,
            driver: config.driver,
            max_spin: config.max_spin,
        };
        let eraser = Eraser::start()?;
        let (warden, watch) = Warden::new()?;
        let herald = Arc::new(Herald::start()?);
        let (reactors, threads) = Reactors::start(&plan)?;
        let engine = Engine {
            inner: Arc::new(Inner {
                reactors: Arc::new(reactors),
                threads: Mutex::new(threads),
                book: Mutex::new(Book::default()),
                eraser,
                warden,
                herald,
                opener: config.opener,
                growing: Mutex::new(()),
            }),
        };
        watch.start(&engine)?;
        Ok(engine)
    }

    /// Ends all exports and waits for the reactors. Nothing new is accepted afterwards. A device that does not finish its
    /// requests is waited for only so long; its threads then go with the process. Returns the exports left like that.
    pub fn stop(&self) -> Vec<String> {
        let names: Vec<String> = {
            let mut book = self.book();
            book.stopping = true;
            book.exports.keys().cloned().collect()
        };
        names.iter().for_each(|name| self.hang_up(name));
        let left: Vec<String> = names
            .into_iter()
            .filter(|name| matches!(self.unexport(name), Err(EngineError::Draining { .. })))
            .collect();
        self.inner.reactors.quit();
        self.inner.eraser.stop();
        self.inner.warden.stop();
        let mut threads = lock(&self.inner.threads);
        if left.is_empty() {
            threads.drain(..).for_each(|thread| drop(thread.join()));
        }
        self.book().pools.clear();
        left
    }

    /// Makes a device known under a name, to be exported whole.
    ///
    /// # Errors
    /// [`EngineError::AlreadyExists`], [`EngineError::Stopping`].
    pub fn add_device(&self, name: &str, device: Arc<dyn BlockDevice>) -> Result<(), EngineError> {
        let mut book = self.book();
        book.check_open()?;
        if book.devices.contains_key(name) {
            return Err(EngineError::AlreadyExists {
                kind: "device",
                name: name.to_owned(),
                difference: "a device object is never the same as another".into(),
            });
        }
        book.devices.insert(name.to_owned(), device);
        Ok(())
    }

    /// Forgets a device that nobody uses.
    ///
    /// # Errors
    /// [`EngineError::NotFound`]; [`EngineError::Busy`] while it is exported.
    pub fn remove_device(&self, name: &str) -> Result<(), EngineError> {
        let mut book = self.book();
        book.check_unused(&Source::Device(name.to_owned()))?;
        match book.devices.remove(name) {
            Some(_) => Ok(()),
            None => Err(EngineError::not_found("device", name)),
        }
    }

    /// `notify` is called with a pool's name whenever its usage has changed, and when its drive has gone or is back. It must
    /// not block or call the engine.
    pub fn on_pool_change(&self, notify: impl Fn(&str) + Send + Sync + 'static) {
        self.inner.eraser.on_change(Box::new(notify));
    }

    /// `notify` is called whenever something has happened to an export, with one event at a time and in their order. It may
    /// be slow and may call the engine; it must not call this.
    pub fn on_export_change(&self, notify: impl Fn(&ExportEvent) + Send + Sync + 'static) {
        self.inner.herald.add(Box::new(notify));
    }

    /// The processors this engine may use, as it is now. Reads files of the kernel.
    pub fn processors(&self) -> Processors {
        self.inner.reactors.processors()
    }

    fn book(&self) -> MutexGuard<'_, Book> {
        lock(&self.inner.book)
    }
}

/// Every change of the book is complete or not begun when something can panic, so a poisoned lock says nothing.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
