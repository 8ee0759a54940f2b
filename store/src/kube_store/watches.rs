//! One watch per kind, begun when somebody first asks for it, that lives through every trouble of the API server.

use super::failure::is_expired;
use crate::object::{self, Object};
use futures::{StreamExt, TryStreamExt};
use kube::core::PartialObjectMeta;
use kube::runtime::WatchStreamExt;
use kube::runtime::utils::Backoff;
use kube::runtime::watcher::{self, DefaultBackoff, Event};
use kube::{Api, Client};
use std::collections::HashMap;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Duration;
use tokio::runtime::Handle;
use tokio::sync::watch;
use tokio::task::AbortHandle;
use tokio::time::{sleep, timeout};

/// A watch that is silent for so long is begun anew, with a list. It may hang on a server that stands still; and if ever an event
/// was lost, this is when everybody looks again.
const SILENCE_MAX: Duration = Duration::from_secs(600);

/// Longest pause before a watch that fails is tried again. Kube's own limit of 30 s is kinder to a server that comes back, and too
/// long for a machine that waits for its disk.
const PAUSE_MAX: Duration = Duration::from_secs(5);

/// Between a watch that was refused because its version is forgotten and the list that finds another.
const PAUSE_FORGOTTEN: Duration = Duration::from_secs(1);

/// Hears the kind of each watch that fails.
type OnFailure = Box<dyn Fn(&str) + Send + Sync>;

/// The watches of a store.
pub(super) struct Watches {
    client: Client,
    selector: Option<String>,
    runtime: Handle,
    on_failure: Arc<OnceLock<OnFailure>>,
    begun: Mutex<HashMap<String, Begun>>,
}

struct Begun {
    changes: watch::Sender<u64>,
    task: AbortHandle,
}

impl Watches {
    pub(super) fn new(client: Client, selector: Option<String>) -> Self {
        Self {
            client,
            selector,
            runtime: Handle::current(),
            on_failure: Arc::default(),
            begun: Mutex::default(),
        }
    }

    /// Has `tell` hear of every failure from now on. Only the first such wish counts.
    pub(super) fn on_failure(&self, tell: OnFailure) {
        drop(self.on_failure.set(tell));
    }

    /// The changes of a kind, watched from now on.
    pub(super) fn of<K: Object>(&self) -> watch::Receiver<u64> {
        let mut begun = self.begun.lock().unwrap_or_else(PoisonError::into_inner);
        let watch = begun
            .entry(object::plural::<K>())
            .or_insert_with(|| self.begin::<K>());
        watch.changes.subscribe()
    }

    fn begin<K: Object>(&self) -> Begun {
        let changes = watch::channel(0).0;
        let config = watcher::Config {
            field_selector: self.selector.clone(),
            ..Default::default()
        };
        let follower = Follower {
            client: self.client.clone(),
            config,
            changes: changes.clone(),
            on_failure: Arc::clone(&self.on_failure),
            silence_max: SILENCE_MAX,
        };
        let task = self.runtime.spawn(async move {
            loop {
                follower.follow::<K>().await;
            }
        });
        Begun {
            changes,
            task: task.abort_handle(),
        }
    }
}

impl Drop for Watches {
    fn drop(&mut self) {
        let begun = self.begun.get_mut().unwrap_or_else(PoisonError::into_inner);
        begun.values().for_each(|watch| watch.task.abort());
    }
}

/// Kube's backoff with a shorter longest pause.
struct Pauses(DefaultBackoff);

impl Iterator for Pauses {
    type Item = Duration;

    fn next(&mut self) -> Option<Duration> {
        self.0.next().map(|pause| pause.min(PAUSE_MAX))
    }
}

impl Backoff for Pauses {
    fn reset(&mut self) {
        self.0.reset();
    }
}

/// What the watch of one kind needs.
struct Follower {
    client: Client,
    config: watcher::Config,
    changes: watch::Sender<u64>,
    on_failure: Arc<OnceLock<OnFailure>>,
    silence_max: Duration,
}

impl Follower {
    /// Follows the kind until it has to be listed anew: it is silent for too long, or the server has forgotten the version. The
    /// end of a list is told like a change: something may have happened while nobody watched.
    async fn follow<K: Object>(&self) {
        let api: Api<PartialObjectMeta<K>> = Api::all(self.client.clone());
        let events = watcher::watcher(api, self.config.clone())
            .backoff(Pauses(DefaultBackoff::default()))
            .into_stream();
        let mut events = std::pin::pin!(events);
        let kind = K::kind(&());
        let mut failing = false;
        while let Ok(Some(event)) = timeout(self.silence_max, events.next()).await {
            match event {
                Ok(Event::Init | Event::InitApply(_)) => {}
                Ok(Event::InitDone | Event::Apply(_) | Event::Delete(_)) => {
                    if std::mem::take(&mut failing) {
                        tracing::info!(%kind, "The watch is back");
                    }
                    let next = |changes: &mut u64| *changes = changes.wrapping_add(1);
                    self.changes.send_modify(next);
                }
                Err(error) => {
                    self.failed(&kind, &error, failing);
                    failing = true;
                    if is_forgotten(&error) {
                        return sleep(PAUSE_FORGOTTEN).await;
                    }
                }
            }
        }
    }

    /// Many failures in a row are one line for people, and each is counted.
    fn failed(&self, kind: &str, error: &watcher::Error, again: bool) {
        if again {
            tracing::debug!(kind, %error, "The watch still fails");
        } else {
            tracing::warn!(kind, %error, "The watch fails and is tried again");
        }
        if let Some(tell) = self.on_failure.get() {
            tell(kind);
        }
    }
}

/// The request for a watch was refused because its version is forgotten. Kube would ask for the same version for ever: it lists anew
/// only where an event of the watch says so.
fn is_forgotten(error: &watcher::Error) -> bool {
    matches!(error, watcher::Error::WatchStartFailed(error) if is_expired(error))
}

#[cfg(test)]
mod tests;
