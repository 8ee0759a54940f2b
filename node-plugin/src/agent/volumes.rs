//! SplitVolume: space on the drive first, status second; and given up on the drive before the object may go.

use super::queue::Outcome;
use super::trouble::{IN_USE, LOST, Trouble, wanted_bytes};
use super::work::Reconcile;
use super::{Agent, now};
use crate::error::NodeError;
use holdfast_api::{
    BlockPool, ExtentStatus, SplitVolume, SplitVolumeStatus, Verdict, VolumeSession, condition,
    conditions, is_true, reasons, set_condition,
};
use holdfast_dataplane::{ErrorKind, VolumeInfo};
use holdfast_store::Store;
use tokio::sync::Notify;

impl Reconcile for SplitVolume {
    fn node_name(&self) -> &str {
        &self.spec.node_name
    }

    async fn reconcile<S: Store>(agent: &Agent<S>, name: &str) -> Result<Outcome, NodeError> {
        // A volume whose object vanished stays on the drive; the pool's status names it.
        let Some(volume) = agent.store().get::<SplitVolume>(name).await? else {
            return Ok(Outcome::Done);
        };
        if !agent.is_ours(&volume.spec.node_name) {
            return Ok(Outcome::Done);
        }
        if volume.metadata.deletion_timestamp.is_some() {
            return agent.release(volume, name).await;
        }
        let volume = agent.hold(volume).await?;
        let provided = agent.provide(&volume, name).await;
        agent.write_volume(&volume, provided).await
    }

    fn news<S>(agent: &Agent<S>) -> &Notify {
        &agent.shared.volume_news
    }
}

/// What the drive has for a volume, and what is still wrong with it.
struct Provided {
    info: Option<VolumeInfo>,
    trouble: Option<Trouble>,
}

impl<S: Store> Agent<S> {
    /// Makes the volume on the drive, or makes it larger.
    async fn provide(&self, volume: &SplitVolume, name: &str) -> Provided {
        match self.find(volume, name).await {
            Ok(Some(info)) => self.grow(volume, info).await,
            Ok(None) => match self.allocate(volume, name).await {
                Ok(info) => Provided {
                    info: Some(info),
                    trouble: None,
                },
                Err(trouble) => Provided::nothing(trouble),
            },
            Err(trouble) => Provided::nothing(trouble),
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
        let info = self
            .engine(move |engine| engine.create_volume(&pool, &id, size))
            .await?;
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
                        tracing::info!(volume = %grown.id, bytes = grown.size_bytes, "Expanded");
                        return Provided {
                            info: Some(grown),
                            trouble: None,
                        };
                    }
                    Err(error) => Some(error.into()),
                }
            }
            Err(trouble) => Some(trouble),
        };
        Provided {
            info: Some(info),
            trouble,
        }
    }

    async fn write_volume(
        &self,
        volume: &SplitVolume,
        provided: Provided,
    ) -> Result<Outcome, NodeError> {
        let mut wanted = volume.clone();
        let generation = volume.metadata.generation.unwrap_or_default();
        let status = wanted.status.get_or_insert_default();
        status.observed_generation = generation;
        if let Some(info) = &provided.info {
            mirror(status, info);
        }
        for verdict in provided.verdicts(volume) {
            set_condition(&mut status.conditions, verdict, generation, &now());
        }
        let outcome = provided.outcome();
        if self.write_status(volume, wanted).await?
            && let Some(trouble) = &provided.trouble
        {
            let name = volume.metadata.name.as_deref().unwrap_or_default();
            let Trouble {
                reason, message, ..
            } = trouble;
            tracing::warn!(volume = name, reason, message, "Volume is not as asked for");
        }
        Ok(outcome)
    }

    /// Gives the space up on the drive, then lets the object go.
    async fn release(&self, volume: SplitVolume, name: &str) -> Result<Outcome, NodeError> {
        if self.store().get::<VolumeSession>(name).await?.is_some() {
            let message = "the volume has a VolumeSession; unpublish and unstage it first";
            let trouble = Trouble::waiting(IN_USE, message);
            return self.refuse_release(&volume, trouble).await;
        }
        let (pool, id) = (volume.spec.pool.clone(), name.to_owned());
        let released = self.engine(move |engine| engine.delete_volume(&pool, &id));
        match released.await {
            Ok(was_there) => tracing::info!(volume = name, was_there, "Released"),
            Err(error) if error.kind() == ErrorKind::NotFound => {
                if was_allocated(&volume) || self.pool_exists(&volume).await? {
                    return self.refuse_release(&volume, error.into()).await;
                }
                tracing::info!(volume = name, "Let go of a volume that no pool ever had");
            }
            Err(error) => return self.refuse_release(&volume, error.into()).await,
        }
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

impl Provided {
    fn nothing(trouble: Trouble) -> Provided {
        Provided {
            info: None,
            trouble: Some(trouble),
        }
    }

    /// What to say. `Allocated` once true stays as it is while the drive is away: the controller takes its False for "nothing
    /// was made". A volume that could not grow is usable all the same, so that has a condition of its own.
    fn verdicts(&self, stored: &SplitVolume) -> Vec<Verdict<'_>> {
        let (reason, message) = match &self.trouble {
            Some(trouble) => (trouble.reason, trouble.message.as_str()),
            None => (reasons::OK, "the volume has the size asked for"),
        };
        let verdict = |kind, holds, reason, message| Verdict {
            kind,
            holds,
            reason,
            message,
        };
        if self.info.is_none() {
            let mut verdicts = vec![verdict(conditions::READY, false, reason, message)];
            if !was_allocated(stored) {
                verdicts.push(verdict(conditions::ALLOCATED, false, reason, message));
            }
            return verdicts;
        }
        let on_drive = "the extents are on the drive";
        let mut verdicts = vec![
            verdict(conditions::ALLOCATED, true, reasons::OK, on_drive),
            verdict(conditions::READY, true, reasons::OK, on_drive),
        ];
        let known = stored.status.as_ref().map(|status| &status.conditions);
        let refused_before =
            known.is_some_and(|known| condition(known, conditions::EXPANDED).is_some());
        if self.trouble.is_some() || refused_before {
            let holds = self.trouble.is_none();
            verdicts.push(verdict(conditions::EXPANDED, holds, reason, message));
        }
        verdicts
    }

    fn outcome(&self) -> Outcome {
        self.trouble
            .as_ref()
            .map_or(Outcome::Done, |trouble| trouble.outcome)
    }
}

fn was_allocated(volume: &SplitVolume) -> bool {
    let status = volume.status.as_ref();
    status.is_some_and(|status| is_true(&status.conditions, conditions::ALLOCATED))
}

fn mirror(status: &mut SplitVolumeStatus, info: &VolumeInfo) {
    status.size_bytes = info.size_bytes;
    status.extents = info
        .extents
        .iter()
        .map(|extent| ExtentStatus {
            offset_bytes: extent.offset_bytes,
            length_bytes: extent.length_bytes,
        })
        .collect();
}
