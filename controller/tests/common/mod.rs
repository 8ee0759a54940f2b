//! A controller over a real store, and a stand-in for the node agent that answers as the real one does but has no drive.
#![allow(dead_code, reason = "each test file uses a part")]

use holdfast_api::{
    BlockPool, BlockPoolSpec, BlockPoolStatus, NODE_FINALIZER, SplitVolume, SplitVolumeSpec,
    SplitVolumeStatus, Time, Verdict, VolumeSession, VolumeSessionSpec, conditions, parse_quantity,
    quantity, reasons, set_condition,
};
use holdfast_controller::{Controller, ControllerConfig};
use holdfast_proto::csi::v1::controller_server::Controller as _;
use holdfast_proto::csi::v1::volume_capability::access_mode::Mode;
use holdfast_proto::csi::v1::volume_capability::{AccessMode, AccessType, MountVolume};
use holdfast_proto::csi::v1::{
    CapacityRange, ControllerExpandVolumeRequest, CreateVolumeRequest, DeleteVolumeRequest,
    ListVolumesRequest, Volume, VolumeCapability,
};
use holdfast_store::{DirStore, Store, StoreError};
use k8s_openapi::jiff::Timestamp;
use std::collections::HashMap;
use std::path::PathBuf;
use std::time::Duration;
use tempfile::TempDir;
use tokio::task::JoinHandle;
use tonic::{Request, Status};

pub(crate) const MIB: u64 = 1 << 20;
pub(crate) const NODE: &str = "n1";

/// Patience of calls that succeed: never used up.
pub(crate) const LONG: Duration = Duration::from_secs(60);
/// Patience of calls that are meant to run out of it.
pub(crate) const SHORT: Duration = Duration::from_millis(50);

pub(crate) struct House {
    pub(crate) store: DirStore,
    pub(crate) controller: Controller<DirStore>,
    agent: Option<JoinHandle<()>>,
    dir: TempDir,
}

impl House {
    /// A controller without an agent.
    pub(crate) fn empty(wait: Duration) -> Self {
        let dir = TempDir::new().unwrap();
        let store = DirStore::open(dir.path()).unwrap();
        let controller = Controller::new(store.clone(), ControllerConfig { wait });
        Self {
            store,
            controller,
            agent: None,
            dir,
        }
    }

    /// A controller, an agent and pools of `(name, node, bytes)`.
    pub(crate) async fn with_pools(pools: &[(&str, &str, u64)]) -> Self {
        let mut house = Self::empty(LONG);
        for (name, node, bytes) in pools {
            house.add_pool(name, node, *bytes).await;
        }
        house.start_agent();
        house
    }

    /// A house with a pool, and the directory of its store.
    pub(crate) async fn in_known_dir() -> (Self, PathBuf) {
        let house = Self::with_pools(&[("p1", NODE, 64 * MIB)]).await;
        let dir = house.dir.path().to_owned();
        (house, dir)
    }

    pub(crate) async fn add_pool(&self, name: &str, node: &str, bytes: u64) {
        let pool = self.declare_pool(name, node).await;
        self.open_pool(pool, bytes).await;
    }

    /// A pool that its node has not looked at.
    pub(crate) async fn declare_pool(&self, name: &str, node: &str) -> BlockPool {
        let spec = BlockPoolSpec {
            node_name: node.to_owned(),
            ..Default::default()
        };
        self.store.create(BlockPool::new(name, spec)).await.unwrap()
    }

    pub(crate) async fn open_pool(&self, mut pool: BlockPool, bytes: u64) {
        let mut status = BlockPoolStatus {
            capacity_bytes: bytes,
            free_bytes: bytes,
            largest_free_extent_bytes: bytes,
            ..Default::default()
        };
        say(&mut status.conditions, conditions::READY, Ok(()), 1);
        pool.status = Some(status);
        self.store.update_status(pool).await.unwrap();
    }

    pub(crate) fn start_agent(&mut self) {
        self.agent = Some(tokio::spawn(run_agent(self.store.clone())));
    }

    pub(crate) async fn create(&self, request: CreateVolumeRequest) -> Result<Volume, Status> {
        let response = self.controller.create_volume(Request::new(request)).await?;
        Ok(response.into_inner().volume.unwrap())
    }

    pub(crate) async fn delete(&self, id: &str) -> Result<(), Status> {
        let volume_id = id.to_owned();
        let request = DeleteVolumeRequest {
            volume_id,
            ..Default::default()
        };
        self.controller.delete_volume(Request::new(request)).await?;
        Ok(())
    }

    pub(crate) async fn expand(&self, id: &str, bytes: u64) -> Result<u64, Status> {
        let request = ControllerExpandVolumeRequest {
            volume_id: id.to_owned(),
            capacity_range: range(bytes, 0),
            ..Default::default()
        };
        let response = self
            .controller
            .controller_expand_volume(Request::new(request))
            .await?;
        assert!(!response.get_ref().node_expansion_required);
        Ok(u64::try_from(response.get_ref().capacity_bytes).unwrap())
    }

    /// The ids on a page, and the token of the next.
    pub(crate) async fn list(
        &self,
        most: i32,
        token: &str,
    ) -> Result<(Vec<String>, String), Status> {
        let request = ListVolumesRequest {
            max_entries: most,
            starting_token: token.to_owned(),
        };
        let response = self.controller.list_volumes(Request::new(request)).await?;
        let response = response.into_inner();
        let ids = response
            .entries
            .into_iter()
            .map(|entry| entry.volume.unwrap().volume_id)
            .collect();
        Ok((ids, response.next_token))
    }

    pub(crate) async fn stage(&self, volume: &str) {
        let spec = VolumeSessionSpec {
            volume: volume.to_owned(),
            node_name: NODE.to_owned(),
            ..Default::default()
        };
        let session = VolumeSession::new(volume, spec);
        self.store.create(session).await.unwrap();
    }

    /// A volume that its node has not seen.
    pub(crate) async fn put_volume(&self, name: &str) {
        let spec = SplitVolumeSpec {
            node_name: NODE.to_owned(),
            pool: "p1".to_owned(),
            size: quantity(MIB),
            ..Default::default()
        };
        let mut volume = SplitVolume::new(name, spec);
        volume.metadata.finalizers = Some(vec![NODE_FINALIZER.to_owned()]);
        self.store.create(volume).await.unwrap();
    }

    pub(crate) async fn cordon(&self, pool: &str) {
        // The agent may write its status meanwhile.
        loop {
            let mut pool: BlockPool = self.store.get(pool).await.unwrap().unwrap();
            pool.spec.cordoned = true;
            match self.store.update(pool).await {
                Ok(_) => return,
                Err(StoreError::Conflict { .. }) => {}
                Err(error) => panic!("{error}"),
            }
        }
    }

    /// From now on calls wait as long as it takes.
    pub(crate) fn be_patient(&mut self) {
        self.controller = Controller::new(self.store.clone(), ControllerConfig { wait: LONG });
    }

    pub(crate) async fn stored(&self, id: &str) -> Option<SplitVolume> {
        self.store.get(id).await.unwrap()
    }
}

impl Drop for House {
    fn drop(&mut self) {
        if let Some(agent) = &self.agent {
            agent.abort();
        }
    }
}

pub(crate) fn range(required: u64, limit: u64) -> Option<CapacityRange> {
    Some(CapacityRange {
        required_bytes: i64::try_from(required).unwrap(),
        limit_bytes: i64::try_from(limit).unwrap(),
    })
}

pub(crate) fn capability(mode: Mode) -> VolumeCapability {
    VolumeCapability {
        access_mode: Some(AccessMode { mode: mode.into() }),
        access_type: Some(AccessType::Mount(MountVolume::default())),
    }
}

/// A well-formed CreateVolume call.
pub(crate) fn wish(name: &str, bytes: u64) -> CreateVolumeRequest {
    CreateVolumeRequest {
        name: name.to_owned(),
        capacity_range: range(bytes, 0),
        volume_capabilities: vec![capability(Mode::SingleNodeWriter)],
        ..Default::default()
    }
}

pub(crate) fn parameters(pairs: &[(&str, &str)]) -> HashMap<String, String> {
    pairs
        .iter()
        .map(|(key, value)| ((*key).to_owned(), (*value).to_owned()))
        .collect()
}

async fn run_agent(store: DirStore) {
    let mut changes = store.watch::<SplitVolume>();
    loop {
        changes.changed().await;
        for volume in store.list::<SplitVolume>().await.unwrap() {
            match reconcile(&store, volume).await {
                // Somebody wrote it meanwhile: that change wakes us again.
                Ok(()) | Err(StoreError::Conflict { .. } | StoreError::NotFound { .. }) => {}
                Err(error) => panic!("{error}"),
            }
        }
    }
}

async fn reconcile(store: &DirStore, mut volume: SplitVolume) -> Result<(), StoreError> {
    let mut status = volume.status.clone().unwrap_or_default();
    let has = status.size_bytes;
    if volume.metadata.deletion_timestamp.is_some() {
        take(store, &volume.spec.pool, has, 0).await;
        volume.metadata.finalizers = None;
        return store.update(volume).await.map(drop);
    }
    let generation = volume.metadata.generation.unwrap();
    if status.observed_generation == generation {
        return Ok(());
    }
    let wants = parse_quantity(&volume.spec.size.0).unwrap();
    let judged = if take(store, &volume.spec.pool, has, wants).await {
        status.size_bytes = wants;
        Ok(())
    } else {
        Err(reasons::NO_SPACE)
    };
    let kind = if has == 0 {
        conditions::ALLOCATED
    } else {
        conditions::READY
    };
    status.observed_generation = generation;
    say(&mut status.conditions, kind, judged, generation);
    volume.status = Some(SplitVolumeStatus { ..status });
    store.update_status(volume).await.map(drop)
}

/// Changes what a volume has of a pool; false if the pool has not that much.
async fn take(store: &DirStore, pool: &str, has: u64, wants: u64) -> bool {
    let mut pool: BlockPool = store.get(pool).await.unwrap().unwrap();
    let status = pool.status.as_mut().unwrap();
    // What is really free is hidden in the erase backlog of the test, where it set one.
    let free = status.free_bytes.saturating_sub(status.erase_pending_bytes);
    if free + has < wants {
        return false;
    }
    status.free_bytes = status.free_bytes + has - wants;
    status.largest_free_extent_bytes = status.free_bytes;
    store.update_status(pool).await.unwrap();
    true
}

/// Writes a condition as the agent does.
pub(crate) fn say(
    conditions: &mut Vec<holdfast_api::Condition>,
    kind: &str,
    judged: Result<(), &str>,
    generation: i64,
) {
    let verdict = Verdict {
        kind,
        holds: judged.is_ok(),
        reason: judged.err().unwrap_or(reasons::OK),
        message: "said by the test's agent",
    };
    let now = Time(Timestamp::UNIX_EPOCH);
    set_condition(conditions, verdict, generation, &now);
}
