//! BlockPool: find the drive it names, open it, make sure it is the right one, and write down how its space is used.

mod status;

use super::queue::Outcome;
use super::trouble::{DEVICE_AMBIGUOUS, DEVICE_IN_USE, DEVICE_MISMATCH, DEVICE_MISSING, Trouble};
use super::work::Reconcile;
use super::{Agent, News, blocking};
use crate::drives::{DriveError, describe, identity};
use crate::error::NodeError;
use holdfast_api::{BlockPool, DeviceMatch, parse_quantity};
use holdfast_crash::crash_point;
use holdfast_dataplane::{EngineError, ErrorKind, PoolInfo, PoolSpec};
use holdfast_store::{Store, StoreError};
use std::path::{Path, PathBuf};

impl Reconcile for BlockPool {
    fn node_name(&self) -> &str {
        &self.spec.node_name
    }

    async fn reconcile<S: Store>(agent: &Agent<S>, name: &str) -> Result<Outcome, NodeError> {
        match agent.store().get::<BlockPool>(name).await? {
            Some(pool) if agent.is_ours(&pool.spec.node_name) => {
                let opened = agent.open_device(&pool, name).await;
                agent.write_pool(&pool, name, opened).await
            }
            _ => agent.close_pool(name).await,
        }
    }

    fn news<S>(agent: &Agent<S>) -> &News {
        &agent.shared.pool_news
    }
}

impl<S: Store> Agent<S> {
    /// Brings the status of a pool up to date now, not at its next turn.
    pub(crate) async fn refresh_pool(&self, name: &str) {
        loop {
            match BlockPool::reconcile(self, name).await {
                // The agent was faster. It may have looked too early.
                Err(NodeError::Store(StoreError::Conflict { .. })) => {}
                Err(error) => {
                    return tracing::warn!(pool = name, %error, "Its turn will come again");
                }
                Ok(_) => return,
            }
        }
    }

    /// Opens the device, or finds it open. The UUID in the status only ever makes this stricter: with it nothing is formatted.
    async fn open_device(&self, pool: &BlockPool, name: &str) -> Result<PoolInfo, Trouble> {
        let asked = pool_spec(pool, name)?;
        let of_name = name.to_owned();
        let expected = asked.expect_uuid;
        let info = match self.engine(move |engine| engine.pool(&of_name)).await {
            Ok(open) if open.identity != asked.identity => {
                return Err(Trouble::waiting(
                    DEVICE_MISMATCH,
                    format!(
                        "this pool is open on the drive known as {:?}, spec.device now asks for {:?}; set it back, or give the other drive a BlockPool of its own",
                        open.identity, asked.identity
                    ),
                ));
            }
            Ok(open) if open.lost => self.seek(&pool.spec.device, open).await?,
            Ok(open) => open,
            Err(_) if self.removals().contains(name) => {
                let place = describe(&pool.spec.device);
                return Err(Trouble::waiting(
                    DEVICE_MISSING,
                    describe_removal(name, &place),
                ));
            }
            Err(_) => self.open_found(pool, asked).await?,
        };
        match expected {
            Some(uuid) if uuid != info.uuid => Err(Trouble::retry(
                DEVICE_MISMATCH,
                format!(
                    "pool {} is open under this name, the status tells of {uuid}; restore the BlockPool that belongs to this device",
                    info.uuid
                ),
            )),
            _ => Ok(info),
        }
    }

    /// A lost drive may be back under another name. One that is named by a path is found again by the engine.
    async fn seek(&self, device: &DeviceMatch, open: PoolInfo) -> Result<PoolInfo, Trouble> {
        if open.removed || !device.path.is_empty() {
            return Err(Trouble::waiting(DEVICE_MISSING, describe_loss(&open)));
        }
        let path = match self.find_drive(device).await {
            Ok(path) => path,
            Err(trouble) => {
                let said = format!("{}; {}", describe_loss(&open), trouble.message);
                return Err(Trouble::look_again(DEVICE_MISSING, said));
            }
        };
        let taken = self.engine(move |engine| engine.add_pool_device(&open.name, Some(&path)));
        Ok(taken.await?)
    }

    async fn open_found(&self, pool: &BlockPool, mut spec: PoolSpec) -> Result<PoolInfo, Trouble> {
        self.refuse_twin(pool, &spec.name).await?;
        spec.path = self.find_drive(&pool.spec.device).await?;
        self.refuse_open(&spec.name, &spec.path).await?;
        let opened = self.engine(move |engine| engine.open_pool(&spec)).await?;
        crash_point!("pool.taken");
        Ok(opened)
    }

    async fn find_drive(&self, device: &DeviceMatch) -> Result<PathBuf, Trouble> {
        let (drives, device) = (self.shared.drives.clone(), device.clone());
        let found = blocking(move || drives.find(&device)).await;
        found.map_err(|error| match error {
            DriveError::Missing { .. } => Trouble::look_again(DEVICE_MISSING, error.to_string()),
            DriveError::Ambiguous { .. } => {
                Trouble::look_again(DEVICE_AMBIGUOUS, error.to_string())
            }
            DriveError::Unclear | DriveError::BadPath { .. } => Trouble::invalid(error.to_string()),
        })
    }

    /// Of two BlockPools that name one drive, the elder has it. The younger waits, whether the drive is there or not.
    async fn refuse_twin(&self, pool: &BlockPool, name: &str) -> Result<(), Trouble> {
        let pools = self.store().list::<BlockPool>().await;
        let pools = pools.map_err(|error| Trouble::retry(DEVICE_MISSING, error.to_string()))?;
        let age = |pool: &BlockPool| {
            let meta = &pool.metadata;
            (meta.creation_timestamp.clone(), meta.name.clone())
        };
        let ours = identity(&pool.spec.device);
        let elder = pools.iter().find(|other| {
            self.is_ours(&other.spec.node_name)
                && other.metadata.name.as_deref() != Some(name)
                && identity(&other.spec.device) == ours
                && age(other) < age(pool)
        });
        match elder.and_then(|elder| elder.metadata.name.as_deref()) {
            Some(elder) => Err(Trouble::waiting(
                DEVICE_IN_USE,
                format!(
                    "BlockPool {elder:?} names {} as well and is older; delete this one, or name another drive",
                    describe(&pool.spec.device)
                ),
            )),
            None => Ok(()),
        }
    }

    /// The same drive under another of its names.
    async fn refuse_open(&self, name: &str, path: &Path) -> Result<(), Trouble> {
        let wanted = path.to_owned();
        let other = self.engine(move |engine| {
            let Ok(wanted) = wanted.canonicalize() else {
                return Ok(None); // It is not there, which opening it tells.
            };
            let is_it = |open: &PoolInfo| {
                !open.lost && open.path.canonicalize().is_ok_and(|path| path == wanted)
            };
            Ok(engine.pools().into_iter().find(is_it))
        });
        match other.await? {
            Some(open) if open.name != name => Err(Trouble::waiting(
                DEVICE_IN_USE,
                format!(
                    "the drive at {} is BlockPool {:?} already, under the name {}; delete this BlockPool, or name another drive",
                    path.display(),
                    open.name,
                    open.identity
                ),
            )),
            _ => Ok(()),
        }
    }

    /// The object is gone: let go of the device. What is on it stays.
    async fn close_pool(&self, name: &str) -> Result<Outcome, NodeError> {
        let pool = name.to_owned();
        match self.engine(move |engine| engine.close_pool(&pool)).await {
            Ok(()) => {
                tracing::info!(pool = name, "Closed a pool that has no BlockPool any more");
                self.shared.volume_news.of_all();
                self.shared.orphan_news.of_all();
            }
            Err(error) if error.kind() == ErrorKind::NotFound => {}
            Err(error @ EngineError::Busy { .. }) => {
                tracing::warn!(pool = name, %error, "A BlockPool is gone and its pool in use");
                return Ok(Outcome::Waiting);
            }
            Err(error) => return Err(error.into()),
        }
        if let Err(error) = self.removals().forget(name) {
            tracing::warn!(pool = name, %error, "A pool of this name that comes later is not opened before `holdfast device add`");
        }
        self.facts().forget_pool(name);
        Ok(Outcome::Done)
    }
}

/// Why a pool's drive is away, and what brings it back.
pub(crate) fn describe_loss(info: &PoolInfo) -> String {
    let path = info.path.display();
    if info.removed {
        return describe_removal(&info.name, &path.to_string());
    }
    format!(
        "the drive at {path} is lost; its volumes wait as their onDeviceLoss says. Put the same drive back"
    )
}

/// A drive stays away because somebody has asked for it, in this process or before it was started.
pub(crate) fn describe_removal(name: &str, place: &str) -> String {
    format!(
        "the drive at {place} was let go of by command; its volumes wait as their onDeviceLoss says. Put it back and run `holdfast device add {name}`"
    )
}

/// What the object asks for; where the drive is has yet to be found.
fn pool_spec(pool: &BlockPool, name: &str) -> Result<PoolSpec, Trouble> {
    let size = pool.spec.size.as_ref().map(|size| parse_quantity(&size.0));
    let create_bytes = size
        .transpose()
        .map_err(|error| Trouble::invalid(format!("spec.size: {error}")))?;
    let uuid = pool.status.as_ref().map(|status| status.pool_uuid.as_str());
    let expect_uuid = match uuid {
        None | Some("") => None,
        Some(text) => Some(text.parse().map_err(|_| {
            Trouble::invalid(format!(
                "status.poolUuid {text:?} is no UUID; restore it from `holdfast pool inspect`"
            ))
        })?),
    };
    Ok(PoolSpec {
        name: name.to_owned(),
        path: PathBuf::new(),
        create_bytes,
        force: pool.spec.force,
        expect_uuid,
        identity: identity(&pool.spec.device),
    })
}
