//! The status of a BlockPool, and the events that go with its turns.

use crate::agent::queue::Outcome;
use crate::agent::trouble::{
    DEVICE_AMBIGUOUS, DEVICE_IN_USE, DEVICE_MISMATCH, DEVICE_MISSING, FOREIGN_DATA,
    METADATA_CORRUPT, Trouble,
};
use crate::agent::{Agent, now};
use crate::error::NodeError;
use holdfast_api::{
    BlockPool, BlockPoolStatus, Condition, Verdict, condition, conditions, events, is_true,
    reasons, set_condition,
};
use holdfast_dataplane::{PoolInfo, VolumeInfo};
use holdfast_store::{Announcement, Store};

/// Most orphans that a condition names.
const NAMED_ORPHANS_MAX: usize = 8;
/// A pool with less than one part in this many free is nearly full.
const NEARLY_FULL: u64 = 10;

impl<S: Store> Agent<S> {
    pub(super) async fn write_pool(
        &self,
        pool: &BlockPool,
        name: &str,
        opened: Result<PoolInfo, Trouble>,
    ) -> Result<Outcome, NodeError> {
        let mut wanted = pool.clone();
        let status = wanted.status.get_or_insert_default();
        let generation = pool.metadata.generation.unwrap_or_default();
        status.observed_generation = generation;
        let (trouble, message) = match opened {
            Ok(info) => {
                mirror(status, &info);
                let orphans = self.record_orphans(name).await?;
                self.facts().saw_pool(name, true, orphans.len());
                (None, describe(&orphans))
            }
            Err(trouble) => {
                self.facts().pool_is_away(name);
                let message = trouble.message.clone();
                (Some(trouble), message)
            }
        };
        let reason = trouble
            .as_ref()
            .map_or(reasons::OK, |trouble| trouble.reason);
        let mut changed = false;
        for (kind, holds) in verdicts(trouble.as_ref()) {
            let (reason, message) = match holds {
                true if *kind != conditions::READY => (reasons::OK, good(kind)),
                _ => (reason, message.as_str()),
            };
            let verdict = Verdict {
                kind,
                holds: *holds,
                reason,
                message,
            };
            changed |= set_condition(&mut status.conditions, verdict, generation, &now());
        }
        let failure = self.the_engine().erase_failure(name);
        say_of_erasing(status, failure.as_deref());
        if changed {
            self.shared.volume_news.of_all();
            self.shared.orphan_news.of_all();
        }
        let told = announcements(pool.status.as_ref(), status);
        self.write_status(pool, wanted).await?;
        for announcement in told {
            self.store().announce(pool, announcement).await;
        }
        Ok(trouble.map_or(Outcome::Done, |trouble| trouble.outcome))
    }
}

/// What a turn says about the pool; the conditions it says nothing about stay as they are.
fn verdicts(trouble: Option<&Trouble>) -> &'static [(&'static str, bool)] {
    use conditions::{DEVICE_FOUND, HEALTHY, METADATA_VALID, READY};
    let Some(trouble) = trouble else {
        return &[
            (DEVICE_FOUND, true),
            (METADATA_VALID, true),
            (HEALTHY, true),
            (READY, true),
        ];
    };
    match trouble.reason {
        DEVICE_MISSING => &[(DEVICE_FOUND, false), (HEALTHY, false), (READY, false)],
        DEVICE_AMBIGUOUS => &[(DEVICE_FOUND, false), (READY, false)],
        DEVICE_IN_USE => &[(DEVICE_FOUND, true), (READY, false)],
        DEVICE_MISMATCH | FOREIGN_DATA => &[
            (DEVICE_FOUND, true),
            (METADATA_VALID, false),
            (READY, false),
        ],
        METADATA_CORRUPT => &[
            (DEVICE_FOUND, true),
            (METADATA_VALID, false),
            (HEALTHY, false),
            (READY, false),
        ],
        _ => &[(READY, false)],
    }
}

fn good(kind: &str) -> &'static str {
    match kind {
        conditions::DEVICE_FOUND => "exactly one drive is known by this identity",
        conditions::METADATA_VALID => {
            "the pool on the drive is the one recorded, and its table is valid"
        }
        _ => "the drive answers",
    }
}

/// The condition is there only while something is wrong: volumes are given up all the time.
fn say_of_erasing(status: &mut BlockPoolStatus, failure: Option<&str>) {
    let Some(failure) = failure else {
        status
            .conditions
            .retain(|known| known.type_ != conditions::ERASED);
        return;
    };
    let verdict = Verdict {
        kind: conditions::ERASED,
        holds: false,
        reason: events::ERASE_FAILED,
        message: &format!(
            "what deleted volumes left cannot be erased, stays out of use, and is tried again: {failure}"
        ),
    };
    let generation = status.observed_generation;
    set_condition(&mut status.conditions, verdict, generation, &now());
}

/// What people should hear of the step from one status to the next.
fn announcements(before: Option<&BlockPoolStatus>, after: &BlockPoolStatus) -> Vec<Announcement> {
    let none = Vec::new();
    let known = before.map_or(&none, |status| &status.conditions);
    let mut told = Vec::new();
    let ready = condition(&after.conditions, conditions::READY);
    if let Some(ready) = ready.filter(|ready| is_news(known, ready)) {
        told.extend(of_readiness(condition(known, conditions::READY), ready));
    }
    let Some(before) = before else { return told };
    if is_nearly_full(after) && !is_nearly_full(before) {
        let free = holdfast_api::quantity(after.free_bytes).0;
        let said = format!("{free} are free; add a pool, or delete volumes that nobody needs");
        told.push(Announcement::warning(events::POOL_NEARLY_FULL, said));
    }
    let stuck = condition(&after.conditions, conditions::ERASED);
    if let Some(stuck) = stuck.filter(|stuck| is_news(known, stuck)) {
        told.push(Announcement::warning(events::ERASE_FAILED, &stuck.message));
    }
    if before.erase_pending_bytes > 0 && after.erase_pending_bytes == 0 {
        let said = "everything that was given up is erased and free";
        told.push(Announcement::normal(events::ERASE_COMPLETED, said));
    }
    told
}

fn is_news(known: &[Condition], now: &Condition) -> bool {
    condition(known, &now.type_)
        .is_none_or(|before| (&before.status, &before.reason) != (&now.status, &now.reason))
}

fn of_readiness(before: Option<&Condition>, now: &Condition) -> Option<Announcement> {
    let was_missing = before.is_some_and(|before| before.reason == DEVICE_MISSING);
    let was_ready = before.is_some_and(|before| before.status == "True");
    if now.status == "True" {
        let reason = match was_missing {
            true => events::DEVICE_RETURNED,
            false => events::POOL_READY,
        };
        return Some(Announcement::normal(reason, &now.message));
    }
    let reason = match now.reason.as_str() {
        DEVICE_MISSING if was_ready => events::DEVICE_LOST,
        DEVICE_MISSING | DEVICE_AMBIGUOUS => events::DEVICE_MISSING,
        DEVICE_MISMATCH | FOREIGN_DATA => events::DEVICE_MISMATCH,
        METADATA_CORRUPT => events::METADATA_CORRUPT,
        DEVICE_IN_USE => events::DEVICE_IN_USE,
        _ => return None,
    };
    Some(Announcement::warning(reason, &now.message))
}

fn is_nearly_full(status: &BlockPoolStatus) -> bool {
    is_true(&status.conditions, conditions::READY)
        && status.free_bytes < status.capacity_bytes / NEARLY_FULL
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

fn describe(orphans: &[VolumeInfo]) -> String {
    if orphans.is_empty() {
        return "the device is open and its table is valid".to_owned();
    }
    let names: Vec<&str> = orphans
        .iter()
        .take(NAMED_ORPHANS_MAX)
        .map(|orphan| orphan.id.as_str())
        .collect();
    let rest = match orphans.len().saturating_sub(NAMED_ORPHANS_MAX) {
        0 => String::new(),
        more => format!(" and {more} more"),
    };
    format!(
        "the device is open; volumes without a SplitVolume are kept on it, each with an OrphanExtent: {}{rest}",
        names.join(", ")
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn status(holds: bool, reason: &str, free_bytes: u64) -> BlockPoolStatus {
        let verdict = Verdict {
            kind: conditions::READY,
            holds,
            reason,
            message: "said",
        };
        let mut status = BlockPoolStatus {
            capacity_bytes: 100,
            free_bytes,
            ..Default::default()
        };
        set_condition(&mut status.conditions, verdict, 1, &now());
        status
    }

    fn told(before: Option<&BlockPoolStatus>, after: &BlockPoolStatus) -> Vec<&'static str> {
        announcements(before, after)
            .iter()
            .map(|said| said.reason)
            .collect()
    }

    #[test]
    fn step_is_told_once_by_what_it_was() {
        let ready = status(true, reasons::OK, 50);
        let missing = status(false, DEVICE_MISSING, 50);
        let wrong = status(false, DEVICE_MISMATCH, 50);
        let corrupt = status(false, METADATA_CORRUPT, 50);
        let mut erasing = ready.clone();
        erasing.erase_pending_bytes = 10;
        let mut stuck = ready.clone();
        say_of_erasing(&mut stuck, Some("the drive answers EIO"));
        let cases = [
            (None, &ready, events::POOL_READY),
            (None, &missing, events::DEVICE_MISSING),
            (Some(&ready), &missing, events::DEVICE_LOST),
            (Some(&missing), &ready, events::DEVICE_RETURNED),
            (Some(&missing), &wrong, events::DEVICE_MISMATCH),
            (Some(&wrong), &ready, events::POOL_READY),
            (Some(&ready), &corrupt, events::METADATA_CORRUPT),
            (Some(&ready), &stuck, events::ERASE_FAILED),
            (Some(&erasing), &ready, events::ERASE_COMPLETED),
            (
                Some(&ready),
                &status(true, reasons::OK, 9),
                events::POOL_NEARLY_FULL,
            ),
        ];
        for (before, after, reason) in cases {
            assert_eq!(told(before, after), [reason]);
            assert_eq!(told(Some(after), after), [""; 0], "{reason} again");
        }
    }
}
