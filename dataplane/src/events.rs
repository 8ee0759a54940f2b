//! What happens to exports, told to whoever listens. Told by a thread of its own: a listener may be slow and may call the
//! engine, and no request of a guest waits for it.

use crate::EngineError;
use std::fmt;
use std::sync::mpsc::{Sender, channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Something has happened to an export.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ExportEvent {
    /// Name of the export.
    pub export: Arc<str>,
    /// What.
    pub change: ExportChange,
}

/// What can happen to an export.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum ExportChange {
    /// A front end has come.
    Connected,
    /// It has gone. Its last requests may still be with the device.
    Disconnected,
    /// One of its queues has started with requests that a former owner took and never answered; they are done again.
    Replayed {
        /// How many.
        requests: u64,
    },
    /// The guest was given an error by its device. Told at most once a second; [`OpStats::errors`](crate::OpStats::errors)
    /// counts.
    IoError,
    /// The drive behind it is lost.
    DeviceLost,
    /// The drive behind it is back.
    DeviceReturned,
    /// Stopping a queue takes more than two seconds: requests are still with the device, and a machine may stand still.
    StopWaits,
    /// The queue that was waited for has stopped.
    StopEnded,
}

type Listener = Box<dyn Fn(&ExportEvent) + Send + Sync>;

/// Takes events from any thread and passes them on in their order. Its thread ends with it.
pub(crate) struct Herald {
    events: Sender<ExportEvent>,
    listeners: Arc<Mutex<Vec<Listener>>>,
}

impl Herald {
    pub(crate) fn start() -> Result<Herald, EngineError> {
        let (events, told) = channel();
        let listeners = Arc::<Mutex<Vec<Listener>>>::default();
        let theirs = Arc::clone(&listeners);
        std::thread::Builder::new()
            .name("herald".into())
            .spawn(move || {
                for event in told {
                    lock(&theirs).iter().for_each(|listener| listener(&event));
                }
            })
            .map_err(|source| EngineError::Thread {
                what: "herald",
                source,
            })?;
        Ok(Herald { events, listeners })
    }

    /// Listens from now on.
    pub(crate) fn add(&self, listener: Listener) {
        lock(&self.listeners).push(listener);
    }

    /// Passes an event on. Never blocks.
    pub(crate) fn tell(&self, export: &Arc<str>, change: ExportChange) {
        let export = Arc::clone(export);
        let _ = self.events.send(ExportEvent { export, change }); // Nobody listens after a listener's panic.
    }
}

/// A list of listeners is one whatever panicked.
fn lock(listeners: &Mutex<Vec<Listener>>) -> MutexGuard<'_, Vec<Listener>> {
    listeners.lock().unwrap_or_else(PoisonError::into_inner)
}

impl fmt::Debug for Herald {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Herald")
    }
}
