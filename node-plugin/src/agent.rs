//! The agent: makes this node match the objects that name it, and writes down what it sees.
//!
//! Four loops, one for each kind, run on the same [`queue`]: a change in the store, news from the engine or a retry that is
//! due puts an object in line; objects are worked on side by side, each by one task at a time.

mod exports;
pub(crate) mod facts;
mod finalizer;
mod news;
mod orphans;
pub(crate) mod pools;
mod queue;
mod restore;
mod sessions;
mod trouble;
mod volumes;
mod work;

use crate::drives::Drives;
use crate::error::NodeError;
use crate::metrics::Turns;
use crate::removals::Removals;
use crate::session_dir::SessionDirs;
use facts::Facts;
use holdfast_api::Time;
use holdfast_dataplane::{Engine, EngineError, ExportChange, ExportEvent};
use holdfast_store::{Object, Store};
use news::News;
use std::future::Future;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Instant;
use tokio::sync::mpsc::Receiver;
use tokio::sync::{Mutex, watch};

/// Longest path of a socket: `sockaddr_un` with its final NUL has 108 bytes.
const SOCKET_PATH_BYTES_MAX: usize = 107;
/// User and group that QEMU runs under in a virtual machine's pod.
const QEMU_USER: (u32, u32) = (107, 107);

/// Settings of an [`Agent`].
#[derive(Debug, Clone)]
pub struct AgentConfig {
    /// Name of this node; objects of other nodes are left alone.
    pub node_name: String,
    /// Where sockets live, in `v/` below it. The same after every restart.
    pub state_dir: PathBuf,
    /// Who may connect to the sockets: user and group id.
    pub socket_owner: Option<(u32, u32)>,
    /// Mode of the sockets.
    pub socket_mode: u32,
    /// Where `sys` and `dev` are found: `/`, except for a test that has a machine of its own.
    pub host_root: PathBuf,
}

impl AgentConfig {
    /// The usual settings: sockets for QEMU's user where this process may give files away, for this user otherwise.
    pub fn new(node_name: impl Into<String>, state_dir: impl Into<PathBuf>) -> AgentConfig {
        AgentConfig {
            node_name: node_name.into(),
            state_dir: state_dir.into(),
            socket_owner: rustix::process::geteuid().is_root().then_some(QEMU_USER),
            socket_mode: 0o660,
            host_root: "/".into(),
        }
    }
}

/// A volume on a drive that no SplitVolume stands for. It is kept until a person decides.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Orphan {
    /// The pool it lies in.
    pub pool: String,
    /// Its id on the drive.
    pub id: String,
    /// Its size in bytes.
    pub size_bytes: u64,
}

/// The agent of a node. Clones are handles to the same one.
#[derive(Debug, Clone)]
pub struct Agent<S> {
    shared: Arc<Shared<S>>,
}

#[derive(Debug)]
struct Shared<S> {
    store: S,
    engine: Engine,
    config: AgentConfig,
    dirs: SessionDirs,
    ready: watch::Sender<bool>,
    drives: Drives,
    removals: Removals,
    facts: Facts,
    turns: Turns,
    /// The engine used or freed space of a pool, lost its drive or has it back.
    pool_news: Arc<News>,
    /// A pool was opened, closed or lost.
    volume_news: News,
    /// A front end has come or gone.
    session_news: Arc<News>,
    /// A pool was opened, closed or lost.
    orphan_news: News,
    /// What the engine tells of exports.
    told: Mutex<Receiver<ExportEvent>>,
}

impl<S: Store> Agent<S> {
    /// An agent that does nothing before [`run`](Agent::run).
    ///
    /// # Errors
    /// [`NodeError::Config`] when the state directory is relative, or so long that no socket in it could be connected to.
    pub fn new(store: S, engine: Engine, config: AgentConfig) -> Result<Agent<S>, NodeError> {
        let dirs = SessionDirs::new(&config.state_dir, config.socket_owner);
        check_state_dir(&config, &dirs)?;
        let pool_news = Arc::<News>::default();
        let of_pools = Arc::clone(&pool_news);
        engine.on_pool_change(move |pool| of_pools.of(pool));
        let session_news = Arc::<News>::default();
        let told = listen(&engine, Arc::clone(&session_news));
        let shared = Shared {
            drives: Drives::below(&config.host_root),
            removals: Removals::below(&config.state_dir),
            facts: Facts::default(),
            turns: Turns::new(),
            store,
            engine,
            config,
            dirs,
            ready: watch::channel(false).0,
            pool_news,
            volume_news: News::default(),
            session_news,
            orphan_news: News::default(),
            told: Mutex::new(told),
        };
        Ok(Agent {
            shared: Arc::new(shared),
        })
    }

    /// Serves what the store asks for until `shutdown` completes. Exports stay; whoever stops the engine ends them.
    pub async fn run(&self, shutdown: impl Future<Output = ()> + Send) {
        let work = async {
            let start = Instant::now();
            self.restore().await;
            self.facts().restored_in(start.elapsed());
            self.shared.ready.send_replace(true);
            self.work().await;
        };
        tokio::select! {
            () = shutdown => {}
            () = work => {}
            () = self.tell_of_exports() => {}
        }
    }

    /// True once every session of the store was taken up again after the start: it is exported, or its status says why not.
    #[must_use]
    pub fn ready(&self) -> bool {
        *self.shared.ready.borrow()
    }

    /// Returns when [`ready`](Agent::ready) is true.
    pub async fn wait_ready(&self) {
        let mut ready = self.shared.ready.subscribe();
        // The sender lives as long as `self`, so waiting cannot fail.
        let _ = ready.wait_for(|ready| *ready).await;
    }

    /// Where the agent's objects are kept.
    #[must_use]
    pub fn store(&self) -> &S {
        &self.shared.store
    }

    pub(crate) fn config(&self) -> &AgentConfig {
        &self.shared.config
    }

    pub(crate) fn dirs(&self) -> &SessionDirs {
        &self.shared.dirs
    }

    pub(crate) fn removals(&self) -> &Removals {
        &self.shared.removals
    }

    pub(crate) fn facts(&self) -> &Facts {
        &self.shared.facts
    }

    pub(crate) fn turns(&self) -> &Turns {
        &self.shared.turns
    }

    /// For what looks into the engine's memory only; anything else goes through [`engine`](Agent::engine).
    pub(crate) fn the_engine(&self) -> &Engine {
        &self.shared.engine
    }

    pub(crate) fn is_ours(&self, node_name: &str) -> bool {
        node_name == self.shared.config.node_name
    }

    /// Calls the engine on a thread that may block.
    pub(crate) async fn engine<T: Send + 'static>(
        &self,
        call: impl FnOnce(&Engine) -> Result<T, EngineError> + Send + 'static,
    ) -> Result<T, EngineError> {
        let engine = self.shared.engine.clone();
        blocking(move || call(&engine)).await
    }

    /// Writes a status if it differs from what is stored.
    async fn write_status<K: Object>(&self, stored: &K, wanted: K) -> Result<bool, NodeError> {
        if *stored == wanted {
            return Ok(false);
        }
        self.shared.store.update_status(wanted).await?;
        Ok(true)
    }
}

/// Has the engine tell of exports: whose session must be looked at, and what people should hear.
fn listen(engine: &Engine, news: Arc<News>) -> Receiver<ExportEvent> {
    let (line, told) = exports::line();
    engine.on_export_change(move |event| {
        if matches!(
            event.change,
            ExportChange::Connected | ExportChange::Disconnected
        ) {
            news.of(&event.export);
        }
        if line.try_send(event.clone()).is_err() {
            tracing::warn!(export = %event.export, change = ?event.change, "Not told as an event");
        }
    });
    told
}

/// Runs what may block on a thread for that, to its end.
pub(crate) async fn blocking<T: Send + 'static>(call: impl FnOnce() -> T + Send + 'static) -> T {
    match tokio::task::spawn_blocking(call).await {
        Ok(result) => result,
        Err(ended) => match ended.try_into_panic() {
            Ok(panic) => std::panic::resume_unwind(panic),
            // It never began, because the runtime is going down; so does the caller.
            Err(_) => std::future::pending().await,
        },
    }
}

fn check_state_dir(config: &AgentConfig, dirs: &SessionDirs) -> Result<(), NodeError> {
    let refuse = |why: String| NodeError::Config {
        what: format!("state directory {}", config.state_dir.display()),
        why,
    };
    if !config.state_dir.is_absolute() {
        return Err(refuse("it must be an absolute path".into()));
    }
    let len = dirs.socket("any").as_os_str().len();
    if len > SOCKET_PATH_BYTES_MAX {
        return Err(refuse(format!(
            "socket paths in it have {len} bytes, the kernel allows {SOCKET_PATH_BYTES_MAX}; choose a path shorter by {}",
            len - SOCKET_PATH_BYTES_MAX
        )));
    }
    Ok(())
}

/// Now, in the whole seconds that Kubernetes keeps.
fn now() -> Time {
    let now = k8s_openapi::jiff::Timestamp::now();
    Time(k8s_openapi::jiff::Timestamp::from_second(now.as_second()).unwrap_or(now))
}
