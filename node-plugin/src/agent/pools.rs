//! BlockPool: open the device it names, make sure it is the right one, and write down how its space is used.

use super::queue::Outcome;
use super::trouble::{DEVICE_MISSING, Trouble, WRONG_POOL};
use super::work::Reconcile;
use super::{Agent, Orphan, now};
use crate::error::NodeError;
use holdfast_api::{
    BlockPool, BlockPoolStatus, SplitVolume, Verdict, check_object_name, conditions,
    parse_quantity, reasons, set_condition,
};
use holdfast_dataplane::{EngineError, ErrorKind, PoolInfo, PoolSpec};
use holdfast_store::{Store, StoreError};
use std::collections::HashSet;
use std::path::Path;
use tokio::sync::Notify;

/// Most orphans that a condition names.
const NAMED_ORPHANS_MAX: usize = 8;

impl Reconcile for BlockPool {
    fn node_name(&self) -> &str {
        &self.spec.node_name
    }

    async fn reconcile<S: Store>(agent: &Agent<S>, name: &str) -> Result<Outcome, NodeError> {
        match agent.store().get::<BlockPool>(name).await? {
            Some(pool) if agent.is_ours(&pool.spec.node_name) => agent.open_pool(pool, name).await,
            _ => agent.close_pool(name).await,
        }
    }

    fn news<S>(agent: &Agent<S>) -> &Notify {
        &agent.shared.pool_news
    }
}

impl<S: Store> Agent<S> {
    /// Volumes on this node's open pools that no SplitVolume stands for. They are kept: what becomes of them is a person's
    /// decision.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub async fn orphans(&self) -> Result<Vec<Orphan>, NodeError> {
        let pools = self.engine(|engine| Ok(engine.pools())).await?;
        let mut orphans = Vec::new();
        for pool in pools {
            orphans.extend(self.orphans_of(&pool.name).await?);
        }
        Ok(orphans)
    }

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

    async fn open_pool(&self, pool: BlockPool, name: &str) -> Result<Outcome, NodeError> {
        let opened = self.open_device(&pool, name).await;
        let mut wanted = pool.clone();
        let status = wanted.status.get_or_insert_default();
        let generation = pool.metadata.generation.unwrap_or_default();
        status.observed_generation = generation;
        let (holds, reason, message, outcome) = match opened {
            Ok(info) => {
                mirror(status, &info);
                let orphans = self.orphans_of(name).await?;
                (true, reasons::OK, describe(&orphans), Outcome::Done)
            }
            Err(trouble) => (false, trouble.reason, trouble.message, trouble.outcome),
        };
        let verdict = Verdict {
            kind: conditions::READY,
            holds,
            reason,
            message: &message,
        };
        if set_condition(&mut status.conditions, verdict, generation, &now()) {
            log(name, holds, reason, &message);
            self.shared.volume_news.notify_one();
        }
        self.write_status(&pool, wanted).await?;
        Ok(outcome)
    }

    /// Opens the device, or finds it open. The UUID in the status only ever makes this stricter: with it nothing is formatted.
    async fn open_device(&self, pool: &BlockPool, name: &str) -> Result<PoolInfo, Trouble> {
        let spec = pool_spec(pool, name)?;
        let expected = spec.expect_uuid;
        let info = self.engine(move |engine| engine.open_pool(&spec)).await?;
        match expected {
            Some(uuid) if uuid != info.uuid => Err(Trouble::retry(
                WRONG_POOL,
                format!(
                    "pool {} is open under this name, the status tells of {uuid}; restore the BlockPool that belongs to this device",
                    info.uuid
                ),
            )),
            _ if info.lost => Err(Trouble::waiting(DEVICE_MISSING, describe_loss(&info))),
            _ => Ok(info),
        }
    }

    /// The object is gone: let go of the device. What is on it stays.
    async fn close_pool(&self, name: &str) -> Result<Outcome, NodeError> {
        let pool = name.to_owned();
        match self.engine(move |engine| engine.close_pool(&pool)).await {
            Ok(()) => {
                tracing::info!(pool = name, "Closed a pool that has no BlockPool any more");
                self.shared.volume_news.notify_one();
            }
            Err(error) if error.kind() == ErrorKind::NotFound => {}
            Err(error @ EngineError::Busy { .. }) => {
                tracing::warn!(pool = name, %error, "A BlockPool is gone and its pool in use");
                return Ok(Outcome::Waiting);
            }
            Err(error) => return Err(error.into()),
        }
        Ok(Outcome::Done)
    }

    async fn orphans_of(&self, pool: &str) -> Result<Vec<Orphan>, NodeError> {
        let name = pool.to_owned();
        let on_drive = self.engine(move |engine| engine.volumes(&name)).await?;
        let objects = self.store().list::<SplitVolume>().await?;
        let known: HashSet<&str> = objects
            .iter()
            .filter(|volume| volume.spec.pool == pool && self.is_ours(&volume.spec.node_name))
            .filter_map(|volume| volume.metadata.name.as_deref())
            .collect();
        let mut orphans = Vec::new();
        for volume in on_drive {
            if !known.contains(volume.id.as_str()) && !self.is_unreadable(&volume.id).await {
                orphans.push(Orphan {
                    pool: pool.to_owned(),
                    id: volume.id,
                    size_bytes: volume.size_bytes,
                });
            }
        }
        Ok(orphans)
    }

    /// A list leaves out what cannot be read. Such a volume has an object, so it is no orphan.
    async fn is_unreadable(&self, id: &str) -> bool {
        check_object_name(id).is_ok() && self.store().get::<SplitVolume>(id).await.is_err()
    }
}

/// Why a pool's drive is away, and what brings it back.
pub(crate) fn describe_loss(info: &PoolInfo) -> String {
    let (name, path) = (&info.name, info.path.display());
    if info.removed {
        return format!(
            "the drive at {path} was let go of by command; its volumes wait as their onDeviceLoss says. Put it back and run `holdfast device add {name}`"
        );
    }
    format!(
        "the drive at {path} is lost; its volumes wait as their onDeviceLoss says. Put the same drive back"
    )
}

fn pool_spec(pool: &BlockPool, name: &str) -> Result<PoolSpec, Trouble> {
    let path = Path::new(&pool.spec.device.path);
    check_device_path(path).map_err(Trouble::invalid)?;
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
        path: path.to_owned(),
        create_bytes,
        force: pool.spec.force,
        expect_uuid,
        identity: pool.spec.device.path.clone(),
    })
}

/// Drives are named by identity. The names that the kernel gives in order of discovery move to another drive after a reboot.
/// Loop devices have no other name.
fn check_device_path(path: &Path) -> Result<(), String> {
    if !path.is_absolute() {
        return Err(format!(
            "spec.device.path {:?} must be an absolute path",
            path.display()
        ));
    }
    let of_kernel = path.strip_prefix("/dev").is_ok_and(|rest| {
        rest.components().count() == 1 && !rest.to_string_lossy().starts_with("loop")
    });
    if of_kernel {
        return Err(format!(
            "spec.device.path {} is a name that the kernel gives in order of discovery; name the drive by identity, with a link below /dev/disk/by-id",
            path.display()
        ));
    }
    Ok(())
}

fn mirror(status: &mut BlockPoolStatus, info: &PoolInfo) {
    status.pool_uuid = info.uuid.to_string();
    status.identity.clone_from(&info.identity);
    status.capacity_bytes = info.usage.capacity_bytes;
    status.allocated_bytes = info.usage.allocated_bytes;
    status.free_bytes = info.usage.free_bytes;
    status.largest_free_extent_bytes = info.usage.largest_free_extent_bytes;
    status.erase_pending_bytes = info.usage.erase_pending_bytes;
    status.volumes = i64::try_from(info.usage.volumes).unwrap_or(i64::MAX);
}

fn describe(orphans: &[Orphan]) -> String {
    if orphans.is_empty() {
        return "the device is open and its table is valid".to_owned();
    }
    let names: Vec<&str> = orphans
        .iter()
        .take(NAMED_ORPHANS_MAX)
        .map(|orphan| orphan.id.as_str())
        .collect();
    let more = orphans.len().saturating_sub(NAMED_ORPHANS_MAX);
    let rest = match more {
        0 => String::new(),
        more => format!(" and {more} more"),
    };
    format!(
        "the device is open; volumes without a SplitVolume are kept on it: {}{rest}",
        names.join(", ")
    )
}

fn log(pool: &str, holds: bool, reason: &str, message: &str) {
    if holds {
        tracing::info!(pool, message, "Pool is ready");
    } else {
        tracing::warn!(pool, reason, message, "Pool is not ready");
    }
}
