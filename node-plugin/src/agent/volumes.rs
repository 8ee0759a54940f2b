//! SplitVolume: space on the drive first, status second; and given up on the drive before the object may go.

mod status;

use super::queue::Outcome;
use super::trouble::{IN_USE, LOST, NOT_ADOPTED, Trouble, wanted_bytes};
use super::work::Reconcile;
use super::{Agent, News, now};
use crate::error::NodeError;
use holdfast_api::{
    BlockPool, SplitVolume, Verdict, VolumeSession, condition, conditions, events, is_true,
    set_condition,
};
use holdfast_crash::crash_point;
use holdfast_dataplane::{ErrorKind, Limits, VolumeInfo};
use holdfast_store::{Announcement, Store};
pub(super) use status::extents_of;

impl Reconcile for SplitVolume {
    fn node_name(&self) -> &str {
        &self.spec.node_name
    }

    async fn reconcile<S: Store>(agent: &Agent<S>, name: &str) -> Result<Outcome, NodeError> {
        let Some(volume) = agent.store().get::<SplitVolume>(name).await? else {
            agent.look_for_orphan(name);
            return Ok(Outcome::Done);
        };
        if !agent.is_ours(&volume.spec.node_name) {
            return Ok(Outcome::Done);
        }
        if volume.metadata.deletion_timestamp.is_some() {
            return agent.release(volume, name).await;
        }
        let volume = agent.hold(volume).await?;
        let (pool, claim) = (&volume.spec.pool, volume.spec.claim.as_ref());
        agent.facts().saw_volume(name, pool, claim);
        let mut provided = agent.provide(&volume, name).await;
        provided.limits = agent.limit(&volume, name).await;
        agent.write_volume(&volume, provided).await
    }

    fn news<S>(agent: &Agent<S>) -> &News {
        &agent.shared.volume_news
    }
}

/// What the drive has for a volume, and what is still wrong with it.
struct Provided {
    info: Option<VolumeInfo>,
    trouble: Option<Trouble>,
    /// Whether the limits hold, if it was asked for any.
    limits: Option<Result<(), Trouble>>,
}

impl<S: Store> Agent<S> {
    /// Makes the volume on the drive, or makes it larger.
    async fn provide(&self, volume: &SplitVolume, name: &str) -> Provided {
        match self.find(volume, name).await {
            Ok(Some(info)) => match check_adoption(volume, &info) {
                Ok(()) => {
                    if !was_allocated(volume) {
                        crash_point!("volume.adopted");
                    }
                    self.grow(volume, info).await
                }
                Err(trouble) => Provided::nothing(trouble),
            },
            Ok(None) => match self.allocate(volume, name).await {
                Ok(info) => Provided::all(info),
                Err(trouble) => Provided::nothing(trouble),
            },
            Err(trouble) => Provided::nothing(trouble),
        }
    }

    /// Holds the machine to the limits from now on. A session that is not exported yet begins with them.
    async fn limit(&self, volume: &SplitVolume, name: &str) -> Option<Result<(), Trouble>> {
        let observed = volume
            .status
            .as_ref()
            .map(|status| status.observed_generation);
        if observed != volume.metadata.generation {
            self.shared.session_news.of(name); // It may be about to begin with what was asked for before.
        }
        let (export, limits) = (name.to_owned(), limits_of(volume));
        let set = self.engine(move |engine| engine.set_limits(&export, limits));
        let set = match set.await {
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
            other => other.map_err(Trouble::from),
        };
        (limits.is_some() || set.is_err()).then_some(set)
    }

    /// The object vanished without being deleted. Its volume stays on the drive, and its pool has to know.
    fn look_for_orphan(&self, name: &str) {
        if let Some(volume) = self.facts().forget_volume(name) {
            self.shared.pool_news.of(&volume.pool);
        }
    }

    async fn find(&self, volume: &SplitVolume, name: &str) -> Result<Option<VolumeInfo>, Trouble> {
        let (pool, id) = (volume.spec.pool.clone(), name.to_owned());
        Ok(self.engine(move |engine| engine.volume(&pool, &id)).await?)
    }

    async fn allocate(&self, volume: &SplitVolume, name: &str) -> Result<VolumeInfo, Trouble> {
        if was_allocated(volume) {
            return Err(Trouble::retry(
                LOST,
                format!(
                    "this volume was allocated, and pool {:?} does not have it: the drive was swapped, or rolled back to an older state. No new volume is made in its place; bring the drive back, or delete this object",
                    volume.spec.pool
                ),
            ));
        }
        let size = wanted_bytes(volume)?;
        let (pool, id) = (volume.spec.pool.clone(), name.to_owned());
        crash_point!("volume.wanted");
        let info = self
            .engine(move |engine| engine.create_volume(&pool, &id, size))
            .await?;
        crash_point!("volume.allocated");
        tracing::info!(volume = name, pool = %volume.spec.pool, bytes = info.size_bytes, "Allocated");
        Ok(info)
    }

    async fn grow(&self, volume: &SplitVolume, info: VolumeInfo) -> Provided {
        let trouble = match wanted_bytes(volume) {
            Ok(size) if size == info.size_bytes => None,
            Ok(size) if size < info.size_bytes => Some(Trouble::invalid(format!(
                "spec.size is smaller than the {} bytes the volume has; a volume never shrinks, set it back",
                info.size_bytes
            ))),
            Ok(size) => {
                let (pool, id) = (volume.spec.pool.clone(), info.id.clone());
                let grown = self.engine(move |engine| engine.grow_volume(&pool, &id, size));
                match grown.await {
                    Ok(grown) => {
                        crash_point!("volume.grown");
                        tracing::info!(volume = %grown.id, bytes = grown.size_bytes, "Expanded");
                        return Provided::all(grown);
                    }
                    Err(error) => Some(error.into()),
                }
            }
            Err(trouble) => Some(trouble),
        };
        Provided {
            trouble,
            ..Provided::all(info)
        }
    }

    /// Gives the space up on the drive, then lets the object go.
    async fn release(&self, volume: SplitVolume, name: &str) -> Result<Outcome, NodeError> {
        if self.store().get::<VolumeSession>(name).await?.is_some() {
            let message = "the volume has a VolumeSession; unpublish and unstage it first";
            let trouble = Trouble::waiting(IN_USE, message);
            return self.refuse_release(&volume, trouble).await;
        }
        let on_drive = self.find(&volume, name).await.ok().flatten();
        if was_refused(&volume)
            || on_drive.is_some_and(|info| check_adoption(&volume, &info).is_err())
        {
            tracing::info!(
                volume = name,
                "Let go of an object that never had its volume"
            );
            self.let_go(volume).await?;
            return Ok(Outcome::Done);
        }
        let (pool, id) = (volume.spec.pool.clone(), name.to_owned());
        let released = self.engine(move |engine| engine.delete_volume(&pool, &id));
        match released.await {
            Ok(false) => {}
            Ok(true) => {
                crash_point!("volume.released");
                let said = "the space is given up, and free once it is erased";
                let event = Announcement::normal(events::ERASE_STARTED, said);
                self.store().announce(&volume, event).await;
            }
            Err(error) if error.kind() == ErrorKind::NotFound => {
                if was_allocated(&volume) || self.pool_exists(&volume).await? {
                    return self.refuse_release(&volume, error.into()).await;
                }
                tracing::info!(volume = name, "Let go of a volume that no pool ever had");
            }
            Err(error) => return self.refuse_release(&volume, error.into()).await,
        }
        self.facts().forget_volume(name);
        self.let_go(volume).await?;
        Ok(Outcome::Done)
    }

    async fn pool_exists(&self, volume: &SplitVolume) -> Result<bool, NodeError> {
        let name = &volume.spec.pool;
        if holdfast_api::check_object_name(name).is_err() {
            return Ok(false);
        }
        Ok(self.store().get::<BlockPool>(name).await?.is_some())
    }

    async fn refuse_release(
        &self,
        volume: &SplitVolume,
        trouble: Trouble,
    ) -> Result<Outcome, NodeError> {
        let mut wanted = volume.clone();
        let generation = volume.metadata.generation.unwrap_or_default();
        let verdict = Verdict {
            kind: conditions::QUARANTINED,
            holds: false,
            reason: trouble.reason,
            message: &trouble.message,
        };
        let status = wanted.status.get_or_insert_default();
        set_condition(&mut status.conditions, verdict, generation, &now());
        self.write_status(volume, wanted).await?;
        Ok(trouble.outcome)
    }
}

/// The limits as the engine has them.
pub(super) fn limits_of(volume: &SplitVolume) -> Option<Limits> {
    volume.spec.qos.map(|qos| Limits {
        iops: qos.iops,
        iops_burst: qos.iops_burst,
        bps: qos.bps,
        bps_burst: qos.bps_burst,
    })
}

pub(super) fn was_allocated(volume: &SplitVolume) -> bool {
    let status = volume.status.as_ref();
    status.is_some_and(|status| is_true(&status.conditions, conditions::ALLOCATED))
}

/// Whether the drive has a volume of this id that the object was not given.
pub(super) fn was_refused(volume: &SplitVolume) -> bool {
    let status = volume.status.as_ref();
    let allocated = status.and_then(|status| condition(&status.conditions, conditions::ALLOCATED));
    allocated.is_some_and(|allocated| allocated.reason == NOT_ADOPTED)
}

/// An object that never had a volume, and a volume of its id on the drive: either the process was killed between drive and
/// status, or the object was lost and made again. Both times the sizes agree. Where they do not, somebody else's data may
/// lie there, so a person decides.
fn check_adoption(volume: &SplitVolume, info: &VolumeInfo) -> Result<(), Trouble> {
    // A spec that was changed since it was made may ask for more than was made for it.
    let was_changed = volume.metadata.generation.unwrap_or_default() > 1 && !was_refused(volume);
    if was_allocated(volume) || was_changed || wanted_bytes(volume)? == info.size_bytes {
        return Ok(());
    }
    Err(Trouble::waiting(
        NOT_ADOPTED,
        format!(
            "the drive has a volume of this id with {}, and no object stood for it: to take it over, make this object with that size; to give it up, delete its OrphanExtent",
            holdfast_api::quantity(info.size_bytes).0
        ),
    ))
}
