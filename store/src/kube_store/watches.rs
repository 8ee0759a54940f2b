//! One watch per kind, begun when somebody first asks for it, that lives through every trouble of the API server.

use crate::object::{self, Object};
use futures::{StreamExt, TryStreamExt};
use kube::core::PartialObjectMeta;
use kube::runtime::WatchStreamExt;
use kube::runtime::watcher::{self, Event};
use kube::{Api, Client};
use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;
use tokio::runtime::Handle;
use tokio::sync::watch;
use tokio::task::AbortHandle;
use tokio::time::timeout;

/// A watch that is silent for so long is begun anew, with a list. It may hang on a server that stands still; and if ever an event
/// was lost, this is when everybody looks again.
const SILENCE_MAX: Duration = Duration::from_secs(600);

/// The watches of a store.
pub(super) struct Watches {
    client: Client,
    selector: Option<String>,
    runtime: Handle,
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
            begun: Mutex::default(),
        }
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
        let (client, told) = (self.client.clone(), changes.clone());
        let task = self.runtime.spawn(async move {
            loop {
                follow::<K>(&client, &config, &told).await;
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

/// Follows the kind until it is silent for too long. The end of a list is told like a change: something may have happened while
/// nobody watched.
async fn follow<K: Object>(client: &Client, config: &watcher::Config, told: &watch::Sender<u64>) {
    let api: Api<PartialObjectMeta<K>> = Api::all(client.clone());
    let events = watcher::watcher(api, config.clone())
        .default_backoff()
        .into_stream();
    let mut events = std::pin::pin!(events);
    let kind = K::kind(&());
    let mut failing = false;
    while let Ok(Some(event)) = timeout(SILENCE_MAX, events.next()).await {
        match event {
            Ok(Event::Init | Event::InitApply(_)) => {}
            Ok(Event::InitDone | Event::Apply(_) | Event::Delete(_)) => {
                if std::mem::take(&mut failing) {
                    tracing::info!(%kind, "The watch is back");
                }
                told.send_modify(|changes| *changes = changes.wrapping_add(1));
            }
            Err(error) if failing => tracing::debug!(%kind, %error, "The watch still fails"),
            Err(error) => {
                failing = true;
                tracing::warn!(%kind, %error, "The watch fails and is tried again");
            }
        }
    }
}
