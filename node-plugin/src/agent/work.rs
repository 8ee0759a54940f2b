//! The loop that every kind runs on: observe, take turns, sleep until something happens.

use super::Agent;
use super::news::{News, Said};
use super::queue::{Outcome, Queue};
use crate::error::NodeError;
use holdfast_api::{BlockPool, OrphanExtent, SplitVolume, VolumeSession};
use holdfast_store::{Changes, Object, Store, StoreError};
use std::collections::HashMap;
use std::future::Future;
use std::time::Duration;
use tokio::task::{Id, JoinError, JoinSet};
use tokio::time::{Instant, sleep, sleep_until};

/// Least time between two rounds of news from the engine: an eraser at work has news all the time.
const NEWS_INTERVAL: Duration = Duration::from_millis(250);
/// How long a store that cannot be listed is left alone.
const RELIST_INTERVAL: Duration = Duration::from_secs(1);

/// A kind that the agent works on.
pub(super) trait Reconcile: Object {
    /// The node that the object is for.
    fn node_name(&self) -> &str;

    /// Makes the node match the object of this name, and its status match the node. Called again it changes nothing.
    fn reconcile<S: Store>(
        agent: &Agent<S>,
        name: &str,
    ) -> impl Future<Output = Result<Outcome, NodeError>> + Send;

    /// What happened to these objects that their store does not tell.
    fn news<S>(agent: &Agent<S>) -> &News;
}

impl<S: Store> Agent<S> {
    /// Never returns.
    pub(super) async fn work(&self) {
        tokio::join!(
            self.work_on::<BlockPool>(),
            self.work_on::<SplitVolume>(),
            self.work_on::<VolumeSession>(),
            self.work_on::<OrphanExtent>(),
        );
    }

    async fn work_on<K: Reconcile>(&self) {
        let mut changes = self.store().watch::<K>();
        let mut others = Others::of(self.store());
        let mut queue = Queue::default();
        let mut turns = Turns::new();
        let mut listed = true;
        let mut news_from = Instant::now();
        loop {
            while let Some(name) = queue.start_next(now()) {
                turns.start::<K, S>(self, name);
            }
            tokio::select! {
                () = changes.changed() => listed = self.observe::<K>(&mut queue).await,
                // While the list fails, it is due anyway, and stirs as well.
                () = others.changed(), if listed => queue.stir(now()),
                () = sleep(RELIST_INTERVAL), if !listed => {
                    listed = self.observe::<K>(&mut queue).await;
                }
                said = news_after(K::news(self), news_from) => {
                    hear(&mut queue, said);
                    news_from = Instant::now() + NEWS_INTERVAL;
                }
                (name, outcome) = turns.next() => queue.finish(&name, outcome, now()),
                () = until(queue.next_due()) => {}
            }
        }
    }

    /// Tells the queue what is there; false if the store could not be read.
    async fn observe<K: Reconcile>(&self, queue: &mut Queue) -> bool {
        let objects = match self.store().list::<K>().await {
            Ok(objects) => objects,
            Err(error) => {
                tracing::warn!(kind = %K::kind(&()), %error, "Objects cannot be listed");
                return false;
            }
        };
        let seen: Vec<(String, String)> = objects
            .iter()
            .filter(|object| self.is_ours(object.node_name()))
            .map(|object| {
                let meta = object.meta();
                let version = meta.resource_version.clone().unwrap_or_default();
                (meta.name.clone().unwrap_or_default(), version)
            })
            .collect();
        queue.observe(&seen, now());
        true
    }

    /// One turn on one object. Trouble is logged here and goes no further.
    pub(super) async fn turn<K: Reconcile>(&self, name: &str) -> Outcome {
        let start = Instant::now();
        let ended = K::reconcile(self, name).await;
        let failed = matches!(&ended, Err(error) if !matches!(error, NodeError::Store(StoreError::Conflict { .. })));
        self.turns().record(&K::kind(&()), start.elapsed(), failed);
        match ended {
            Ok(outcome) => outcome,
            // Somebody wrote the object meanwhile, which is told by the watch as well.
            Err(NodeError::Store(StoreError::Conflict { .. })) => Outcome::Waiting,
            Err(error) => {
                tracing::warn!(kind = %K::kind(&()), name, %error, "Will be tried again");
                match error {
                    // A server that has just started denies everything for a moment.
                    NodeError::Store(
                        StoreError::Unavailable { .. } | StoreError::Denied { .. },
                    ) => Outcome::Unreached,
                    _ => Outcome::Retry,
                }
            }
        }
    }
}

/// Turns under way.
struct Turns {
    tasks: JoinSet<Outcome>,
    names: HashMap<Id, String>,
}

impl Turns {
    fn new() -> Turns {
        Turns {
            tasks: JoinSet::new(),
            names: HashMap::new(),
        }
    }

    fn start<K: Reconcile, S: Store>(&mut self, agent: &Agent<S>, name: String) {
        let (agent, ours) = (agent.clone(), name.clone());
        let task = async move { agent.turn::<K>(&ours).await };
        self.names.insert(self.tasks.spawn(task).id(), name);
    }

    /// The next turn that ends; never, while there is none. Cancel-safe.
    async fn next(&mut self) -> (String, Outcome) {
        let Some(ended) = self.tasks.join_next_with_id().await else {
            return std::future::pending().await;
        };
        let (id, outcome) = match ended {
            Ok((id, outcome)) => (id, outcome),
            Err(error) => (error.id(), panicked(&error)),
        };
        (self.names.remove(&id).unwrap_or_default(), outcome)
    }
}

fn panicked(error: &JoinError) -> Outcome {
    tracing::error!(%error, "A turn ended by panic; it will be tried again");
    Outcome::Retry
}

/// Changes of any kind: pools, volumes, sessions and orphans wait for each other.
struct Others {
    pools: Changes,
    volumes: Changes,
    sessions: Changes,
    orphans: Changes,
}

impl Others {
    fn of<S: Store>(store: &S) -> Others {
        Others {
            pools: store.watch::<BlockPool>(),
            volumes: store.watch::<SplitVolume>(),
            sessions: store.watch::<VolumeSession>(),
            orphans: store.watch::<OrphanExtent>(),
        }
    }

    async fn changed(&mut self) {
        tokio::select! {
            () = self.pools.changed() => {}
            () = self.volumes.changed() => {}
            () = self.sessions.changed() => {}
            () = self.orphans.changed() => {}
        }
    }
}

async fn news_after(news: &News, from: Instant) -> Said {
    sleep_until(from).await;
    news.next().await
}

fn hear(queue: &mut Queue, said: Said) {
    if said.of_all {
        return queue.wake_all(now());
    }
    for name in &said.names {
        queue.wake(name, now());
    }
}

async fn until(due: Option<std::time::Instant>) {
    match due {
        Some(due) => sleep_until(due.into()).await,
        None => std::future::pending().await,
    }
}

/// The queue keeps the time of the runtime's clock, which tests may stop.
fn now() -> std::time::Instant {
    Instant::now().into_std()
}
