//! A node to test on: real engine, real store, real mounts, and a process that can be killed before or after any write.
#![allow(dead_code, unused_imports, unreachable_pub)] // Every test binary uses a part of it.

mod calls;
mod cut;

pub use calls::{capability, code, staging_path};
pub use cut::{Cut, CutStore};

use holdfast_api::{BlockPool, BlockPoolSpec, DeviceMatch, SplitVolume, SplitVolumeSpec, quantity};
use holdfast_api::{condition, conditions};
use holdfast_dataplane::{Engine, EngineConfig, Opener};
use holdfast_node::{Agent, AgentConfig, NodeService, NodeServiceConfig};
use holdfast_store::{DirStore, Object, Store};
use rustix::mount::{MountPropagationFlags, mount_change};
use rustix::thread::UnshareFlags;
use std::future::Future;
use std::path::PathBuf;
use std::time::Duration;
use tempfile::TempDir;
use tokio::runtime::Builder;
use tokio::time::timeout;

pub const NODE: &str = "node-1";
pub const POOL: &str = "pool-1";
pub const VOLUME: &str = "vol-1";
pub const MIB: u64 = 1 << 20;
/// Size of the pools made here, and of volumes unless said otherwise.
pub const POOL_BYTES: u64 = 128 * MIB;
pub const VOLUME_BYTES: u64 = 16 * MIB;
/// Far longer than anything here takes; a test that needs it has failed.
const DEADLINE: Duration = Duration::from_secs(30);

/// What outlives a process: drives, manifests, sockets, mounts. Mounts are seen by the test's own thread and its children only.
pub struct Machine {
    pub dir: TempDir,
}

/// A running process: the parts that `holdfast standalone` wires together.
#[derive(Clone)]
pub struct Node {
    pub store: CutStore,
    pub engine: Engine,
    pub agent: Agent<CutStore>,
    pub service: NodeService<CutStore>,
    pub targets: PathBuf,
}

impl Machine {
    pub fn new() -> Machine {
        // Deprecated for what it does with other flags; a mount namespace concerns no memory and no descriptor.
        #[allow(deprecated)]
        rustix::thread::unshare(UnshareFlags::NEWNS).expect("run as root: mounts are made");
        let private = MountPropagationFlags::PRIVATE | MountPropagationFlags::REC;
        mount_change("/", private).unwrap();
        let dir = TempDir::with_prefix("hf").unwrap();
        std::fs::create_dir(dir.path().join("targets")).unwrap();
        Machine { dir }
    }

    /// A machine whose process has run once, to make a pool and a volume of the usual names.
    pub fn with_volume() -> Machine {
        let machine = Machine::new();
        machine.run(|node| async move {
            node.make_pool(POOL).await;
            node.make_volume(VOLUME, VOLUME_BYTES).await;
        });
        machine
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    pub fn pool_file(&self, pool: &str) -> PathBuf {
        self.path(&format!("{pool}.img"))
    }

    pub fn manifest(&self, plural: &str, name: &str) -> PathBuf {
        self.path("objects")
            .join(plural)
            .join(format!("{name}.yaml"))
    }

    /// Runs a process for as long as `body` does.
    pub fn run<F: Future<Output = ()>>(&self, body: impl FnOnce(Node) -> F) {
        self.run_cut(Cut::Never, body);
    }

    /// Runs a process that opens drives in its own way, for as long as `body` does.
    pub fn run_with<F: Future<Output = ()>>(&self, opener: Opener, body: impl FnOnce(Node) -> F) {
        self.run_process(Cut::Never, opener, body);
    }

    /// Runs a process that is killed at a certain write, or when `body` ends. Returns whether it was killed at the write.
    pub fn run_cut<F: Future<Output = ()>>(&self, cut: Cut, body: impl FnOnce(Node) -> F) -> bool {
        self.run_process(cut, Opener::default(), body)
    }

    fn run_process<F: Future<Output = ()>>(
        &self,
        cut: Cut,
        opener: Opener,
        body: impl FnOnce(Node) -> F,
    ) -> bool {
        let runtime = Builder::new_multi_thread()
            .worker_threads(2)
            .enable_all()
            .build()
            .unwrap();
        let config = EngineConfig {
            opener,
            ..EngineConfig::default()
        };
        let engine = Engine::start(config).unwrap();
        let was_cut = runtime.block_on(async {
            let store = CutStore::new(DirStore::open(self.path("objects")).unwrap(), cut);
            let mut config = AgentConfig::new(NODE, self.path("s"));
            if self.path("root").exists() {
                config.host_root = self.path("root");
            }
            let agent = Agent::new(store.clone(), engine.clone(), config).unwrap();
            let service = NodeService::new(agent.clone(), NodeServiceConfig::default()).unwrap();
            let node = Node {
                store: store.clone(),
                engine: engine.clone(),
                agent: agent.clone(),
                service,
                targets: self.path("targets"),
            };
            tokio::spawn(async move { agent.run(std::future::pending()).await });
            tokio::select! {
                () = store.was_cut() => true,
                done = timeout(DEADLINE, body(node)) => {
                    done.expect("the test body ends in time");
                    false
                }
            }
        });
        runtime.shutdown_timeout(DEADLINE);
        assert!(engine.stop().is_empty());
        was_cut
    }
}

impl Node {
    pub fn target(&self, name: &str) -> String {
        self.targets.join(name).to_str().unwrap().to_owned()
    }

    /// Looks after every change of a kind until `look` is satisfied.
    pub async fn until<K: Object, T>(
        &self,
        name: &str,
        look: impl Fn(Option<&K>) -> Option<T>,
    ) -> T {
        let mut changes = self.store.watch::<K>();
        let mut last = None;
        let waiting = async {
            loop {
                changes.changed().await;
                last = self.store.get::<K>(name).await.unwrap();
                if let Some(found) = look(last.as_ref()) {
                    return found;
                }
            }
        };
        match timeout(DEADLINE / 2, waiting).await {
            Ok(found) => found,
            Err(_) => panic!("{name} stays at {last:#?}"),
        }
    }

    pub async fn until_gone<K: Object>(&self, name: &str) {
        self.until::<K, ()>(name, |object| object.is_none().then_some(()))
            .await;
    }

    pub async fn until_pool(&self, name: &str, holds: impl Fn(&BlockPool) -> bool) -> BlockPool {
        let look = |pool: Option<&BlockPool>| pool.filter(|pool| holds(pool)).cloned();
        self.until(name, look).await
    }

    pub async fn until_volume(
        &self,
        name: &str,
        holds: impl Fn(&SplitVolume) -> bool,
    ) -> SplitVolume {
        let look = |volume: Option<&SplitVolume>| volume.filter(|volume| holds(volume)).cloned();
        self.until(name, look).await
    }

    pub fn pool_object(&self, name: &str) -> BlockPool {
        let path = self.targets.with_file_name(format!("{name}.img"));
        let spec = BlockPoolSpec {
            node_name: NODE.into(),
            device: DeviceMatch {
                path: path.to_str().unwrap().into(),
                ..Default::default()
            },
            size: Some(quantity(POOL_BYTES)),
            ..Default::default()
        };
        BlockPool::new(name, spec)
    }

    pub async fn make_pool(&self, name: &str) -> BlockPool {
        self.store.create(self.pool_object(name)).await.unwrap();
        self.until_pool(name, |pool| ready(pool).is_some_and(|(holds, _)| holds))
            .await
    }

    pub fn volume_object(&self, name: &str, bytes: u64) -> SplitVolume {
        let spec = SplitVolumeSpec {
            node_name: NODE.into(),
            pool: POOL.into(),
            size: quantity(bytes),
            ..Default::default()
        };
        SplitVolume::new(name, spec)
    }

    pub async fn make_volume(&self, name: &str, bytes: u64) -> SplitVolume {
        self.store
            .create(self.volume_object(name, bytes))
            .await
            .unwrap();
        self.until_volume(name, |volume| has(volume, conditions::READY, true))
            .await
    }

    /// Changes the size that is asked for.
    pub async fn ask_for(&self, name: &str, bytes: u64) {
        loop {
            let mut volume = self.store.get::<SplitVolume>(name).await.unwrap().unwrap();
            volume.spec.size = quantity(bytes);
            // The agent may write its status in between; then the change is made again, as any client does.
            if self.store.update(volume).await.is_ok() {
                return;
            }
        }
    }
}

/// Whether the pool is ready, and the reason; none before the agent has looked at the spec as it is now.
pub fn ready(pool: &BlockPool) -> Option<(bool, String)> {
    let status = pool.status.as_ref()?;
    let ready = condition(&status.conditions, conditions::READY)?;
    let is_current = ready.observed_generation == pool.metadata.generation;
    is_current.then(|| (ready.status == "True", ready.reason.clone()))
}

/// Whether a condition of the volume is this, for the spec as it is now.
pub fn has(volume: &SplitVolume, kind: &str, holds: bool) -> bool {
    let conditions = volume.status.as_ref().map(|status| &status.conditions);
    conditions
        .and_then(|conditions| condition(conditions, kind))
        .is_some_and(|condition| {
            (condition.status == "True") == holds
                && condition.observed_generation == volume.metadata.generation
        })
}

/// The reason of a volume's condition.
pub fn reason(volume: &SplitVolume, kind: &str) -> String {
    let conditions = &volume.status.as_ref().unwrap().conditions;
    condition(conditions, kind).unwrap().reason.clone()
}
