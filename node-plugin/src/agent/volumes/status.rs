//! The status of a SplitVolume, and the events that go with its turns.

use super::{Provided, was_allocated};
use crate::agent::queue::Outcome;
use crate::agent::trouble::Trouble;
use crate::agent::{Agent, now};
use crate::error::NodeError;
use holdfast_api::{
    ExtentStatus, SplitVolume, SplitVolumeStatus, Verdict, condition, conditions, events, reasons,
    set_condition,
};
use holdfast_dataplane::{Extent, VolumeInfo};
use holdfast_store::{Announcement, Store};

impl<S: Store> Agent<S> {
    pub(super) async fn write_volume(
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
        match provided.limited() {
            Some(limited) => drop(set_condition(
                &mut status.conditions,
                limited,
                generation,
                &now(),
            )),
            None => status
                .conditions
                .retain(|known| known.type_ != conditions::LIMITED),
        }
        let outcome = provided.outcome();
        let told = announcements(volume, status);
        if self.write_status(volume, wanted).await?
            && let Some(trouble) = &provided.trouble
        {
            let name = volume.metadata.name.as_deref().unwrap_or_default();
            let Trouble {
                reason, message, ..
            } = trouble;
            tracing::warn!(volume = name, reason, message, "Volume is not as asked for");
        }
        for announcement in told {
            self.store().announce(volume, announcement).await;
        }
        Ok(outcome)
    }
}

impl Provided {
    pub(super) fn all(info: VolumeInfo) -> Provided {
        Provided {
            info: Some(info),
            trouble: None,
            limits: None,
        }
    }

    pub(super) fn nothing(trouble: Trouble) -> Provided {
        Provided {
            info: None,
            trouble: Some(trouble),
            limits: None,
        }
    }

    fn limited(&self) -> Option<Verdict<'_>> {
        let (holds, reason, message) = match self.limits.as_ref()? {
            Ok(()) => (true, reasons::OK, "the limits hold"),
            Err(trouble) => (false, trouble.reason, trouble.message.as_str()),
        };
        Some(Verdict {
            kind: conditions::LIMITED,
            holds,
            reason,
            message,
        })
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

/// What people should hear of the step from one status to the next.
fn announcements(stored: &SplitVolume, after: &SplitVolumeStatus) -> Vec<Announcement> {
    let before = stored.status.clone().unwrap_or_default();
    let flipped = |kind| {
        let now = condition(&after.conditions, kind)?;
        let known = condition(&before.conditions, kind);
        let is_news =
            known.is_none_or(|known| known.status != now.status || known.reason != now.reason);
        is_news.then_some(now)
    };
    let mut told = Vec::new();
    if let Some(allocated) = flipped(conditions::ALLOCATED) {
        told.extend(
            match (allocated.status.as_str(), allocated.reason.as_str()) {
                ("True", _) => Some(Announcement::normal(events::ALLOCATED, &allocated.message)),
                (_, reasons::NO_SPACE) => {
                    Some(Announcement::warning(events::NO_SPACE, &allocated.message))
                }
                _ => None,
            },
        );
    }
    if before.size_bytes > 0 && after.size_bytes > before.size_bytes {
        let size = holdfast_api::quantity(after.size_bytes).0;
        told.push(Announcement::normal(
            events::EXPANDED,
            format!("it has {size} now"),
        ));
    }
    let refused = flipped(conditions::EXPANDED).filter(|expanded| expanded.status != "True");
    if let Some(refused) = refused {
        told.push(Announcement::warning(
            events::EXPAND_FAILED,
            &refused.message,
        ));
    }
    told
}

fn mirror(status: &mut SplitVolumeStatus, info: &VolumeInfo) {
    status.size_bytes = info.size_bytes;
    status.extents = extents_of(&info.extents);
}

pub(in crate::agent) fn extents_of(extents: &[Extent]) -> Vec<ExtentStatus> {
    let status = |extent: &Extent| ExtentStatus {
        offset_bytes: extent.offset_bytes,
        length_bytes: extent.length_bytes,
    };
    extents.iter().map(status).collect()
}
