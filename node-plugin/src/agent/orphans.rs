//! OrphanExtent: a volume on a drive that no SplitVolume stands for. It is kept until a person decides: the object is written
//! when it is found; deleting it means "erase and free"; a SplitVolume that comes back takes the volume over as it is.

use super::queue::Outcome;
use super::trouble::Trouble;
use super::volumes::{extents_of, was_allocated, was_refused};
use super::work::Reconcile;
use super::{Agent, News, Orphan, now};
use crate::error::NodeError;
use holdfast_api::{
    NODE_FINALIZER, OrphanExtent, OrphanExtentSpec, SplitVolume, Verdict, check_object_name,
    conditions, events, orphan_name, quantity, reasons, set_condition,
};
use holdfast_crash::crash_point;
use holdfast_dataplane::VolumeInfo;
use holdfast_store::{Announcement, Store, StoreError};
use std::collections::HashSet;

impl Reconcile for OrphanExtent {
    fn node_name(&self) -> &str {
        &self.spec.node_name
    }

    async fn reconcile<S: Store>(agent: &Agent<S>, name: &str) -> Result<Outcome, NodeError> {
        let Some(orphan) = agent.store().get::<OrphanExtent>(name).await? else {
            return Ok(Outcome::Done);
        };
        if !agent.is_ours(&orphan.spec.node_name) {
            return Ok(Outcome::Done);
        }
        let (pool, id) = (orphan.spec.pool.clone(), orphan.spec.volume_id.clone());
        let is_leaving = orphan.metadata.deletion_timestamp.is_some();
        match agent.claimant(&pool, &id).await? {
            Some(volume) if is_leaving || was_allocated(&volume) => {
                return agent
                    .let_orphan_go(orphan, "a SplitVolume stands for it")
                    .await;
            }
            Some(_) => return Ok(Outcome::Waiting), // Its own turn decides whether it takes the volume over.
            None if is_leaving => return agent.erase_orphan(orphan, name).await,
            None => {}
        }
        let orphan = agent.hold(orphan).await?;
        match agent.engine(move |engine| engine.volume(&pool, &id)).await {
            Ok(None) => {
                let why = "it is not on the drive any more";
                agent.let_orphan_go(orphan, why).await
            }
            // Also while the drive is away: what was found on it may still be there.
            _ => Ok(Outcome::Waiting),
        }
    }

    fn news<S>(agent: &Agent<S>) -> &News {
        &agent.shared.orphan_news
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
            let of_pool = self.orphans_of(&pool.name).await?;
            orphans.extend(of_pool.into_iter().map(|volume| Orphan {
                pool: pool.name.clone(),
                id: volume.id,
                size_bytes: volume.size_bytes,
            }));
        }
        Ok(orphans)
    }

    /// Writes an object for every orphan of a pool that has none, and returns the orphans.
    pub(super) async fn record_orphans(&self, pool: &str) -> Result<Vec<VolumeInfo>, NodeError> {
        let orphans = self.orphans_of(pool).await?;
        for volume in &orphans {
            self.record_orphan(pool, volume).await?;
        }
        Ok(orphans)
    }

    async fn record_orphan(&self, pool: &str, volume: &VolumeInfo) -> Result<(), NodeError> {
        let name = orphan_name(pool, &volume.id);
        if self.store().get::<OrphanExtent>(&name).await?.is_some() {
            return Ok(());
        }
        let spec = OrphanExtentSpec {
            node_name: self.config().node_name.clone(),
            pool: pool.to_owned(),
            volume_id: volume.id.clone(),
            size: quantity(volume.size_bytes),
            extents: extents_of(&volume.extents),
        };
        let mut orphan = OrphanExtent::new(&name, spec);
        orphan.metadata.finalizers = Some(vec![NODE_FINALIZER.to_owned()]);
        let orphan = match self.store().create(orphan).await {
            Err(StoreError::AlreadyExists { .. }) => return Ok(()),
            other => other?,
        };
        crash_point!("orphan.recorded");
        let said = format!(
            "volume {:?} lies on pool {pool:?} and no SplitVolume stands for it. It is kept: restore the SplitVolume with {} and it is taken over; delete this object and it is erased",
            volume.id, orphan.spec.size.0
        );
        let event = Announcement::warning(events::ORPHAN_DETECTED, said);
        self.store().announce(&orphan, event).await;
        Ok(())
    }

    async fn orphans_of(&self, pool: &str) -> Result<Vec<VolumeInfo>, NodeError> {
        let name = pool.to_owned();
        let on_drive = self.engine(move |engine| engine.volumes(&name)).await?;
        let objects = self.store().list::<SplitVolume>().await?;
        let known: HashSet<&str> = objects
            .iter()
            .filter(|volume| self.claims(volume, pool))
            .filter_map(|volume| volume.metadata.name.as_deref())
            .collect();
        let mut orphans = Vec::new();
        for volume in on_drive {
            // A list leaves out what cannot be read, and may be a moment old. The object itself decides.
            if !known.contains(volume.id.as_str())
                && matches!(self.claimant(pool, &volume.id).await, Ok(None))
            {
                orphans.push(volume);
            }
        }
        Ok(orphans)
    }

    /// The SplitVolume that stands for a volume of this pool, if there is one.
    async fn claimant(&self, pool: &str, id: &str) -> Result<Option<SplitVolume>, NodeError> {
        if check_object_name(id).is_err() {
            return Ok(None);
        }
        let volume = self.store().get::<SplitVolume>(id).await?;
        Ok(volume.filter(|volume| self.claims(volume, pool)))
    }

    /// One that was refused the volume does not stand for it.
    fn claims(&self, volume: &SplitVolume, pool: &str) -> bool {
        volume.spec.pool == pool && self.is_ours(&volume.spec.node_name) && !was_refused(volume)
    }

    /// A person has decided. That is first written down where the object is: what cannot be written is not done, for then it
    /// is not known either whether a SplitVolume came back meanwhile.
    async fn erase_orphan(&self, orphan: OrphanExtent, name: &str) -> Result<Outcome, NodeError> {
        let said = "the space is given up, and free once it is erased";
        let orphan = self.write_orphan(orphan, true, reasons::OK, said).await?;
        crash_point!("orphan.marked");
        let (pool, id) = (orphan.spec.pool.clone(), orphan.spec.volume_id.clone());
        if self.claimant(&pool, &id).await?.is_some() {
            return self.let_orphan_go(orphan, "a SplitVolume came back").await;
        }
        let given = self
            .engine(move |engine| engine.delete_volume(&pool, &id))
            .await;
        match given {
            Ok(_) => crash_point!("orphan.released"),
            Err(error) => return self.cannot_erase(orphan, error.into()).await,
        }
        tracing::info!(
            orphan = name,
            volume = orphan.spec.volume_id,
            "Given up to be erased"
        );
        let event = Announcement::normal(events::ERASE_STARTED, said);
        self.store().announce(&orphan, event).await;
        self.let_go(orphan).await?;
        Ok(Outcome::Done)
    }

    async fn cannot_erase(
        &self,
        orphan: OrphanExtent,
        trouble: Trouble,
    ) -> Result<Outcome, NodeError> {
        let said = trouble.message;
        self.write_orphan(orphan, false, trouble.reason, &said)
            .await?;
        Ok(trouble.outcome)
    }

    async fn write_orphan(
        &self,
        orphan: OrphanExtent,
        holds: bool,
        reason: &str,
        message: &str,
    ) -> Result<OrphanExtent, NodeError> {
        let mut wanted = orphan.clone();
        let generation = orphan.metadata.generation.unwrap_or_default();
        let status = wanted.status.get_or_insert_default();
        status.observed_generation = generation;
        let verdict = Verdict {
            kind: conditions::QUARANTINED,
            holds,
            reason,
            message,
        };
        set_condition(&mut status.conditions, verdict, generation, &now());
        match wanted == orphan {
            true => Ok(orphan),
            false => Ok(self.store().update_status(wanted).await?),
        }
    }

    /// Removes the object and nothing else.
    async fn let_orphan_go(&self, orphan: OrphanExtent, why: &str) -> Result<Outcome, NodeError> {
        let name = orphan.metadata.name.clone().unwrap_or_default();
        tracing::info!(orphan = name, why, "An OrphanExtent is no more");
        let is_leaving = orphan.metadata.deletion_timestamp.is_some();
        self.let_go(orphan).await?;
        if !is_leaving {
            self.store().delete::<OrphanExtent>(&name).await?;
        }
        Ok(Outcome::Done)
    }
}
