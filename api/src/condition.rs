//! Conditions as Kubernetes keeps them: one per type, the transition time moves only when the status flips.

use crate::{Condition, Time};

/// As long as Kubernetes lets a message be.
pub(crate) const MESSAGE_CHARS_MAX: usize = 32_768;

/// What to say in a condition.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Verdict<'a> {
    /// Condition type, see [`conditions`](crate::conditions).
    pub kind: &'a str,
    /// True or False.
    pub holds: bool,
    /// CamelCase reason, see [`reasons`](crate::reasons).
    pub reason: &'a str,
    /// A sentence for people.
    pub message: &'a str,
}

/// The condition of this type, if there is one.
#[must_use]
pub fn condition<'a>(conditions: &'a [Condition], kind: &str) -> Option<&'a Condition> {
    conditions.iter().find(|condition| condition.type_ == kind)
}

/// True if the condition is there and holds.
#[must_use]
pub fn is_true(conditions: &[Condition], kind: &str) -> bool {
    condition(conditions, kind).is_some_and(|condition| condition.status == "True")
}

/// Writes a condition; returns whether anything changed. `now` is recorded only when the status flips.
pub fn set_condition(
    conditions: &mut Vec<Condition>,
    verdict: Verdict<'_>,
    generation: i64,
    now: &Time,
) -> bool {
    let status = if verdict.holds { "True" } else { "False" };
    let mut fresh = Condition {
        type_: verdict.kind.to_owned(),
        status: status.to_owned(),
        reason: verdict.reason.to_owned(),
        message: verdict.message.chars().take(MESSAGE_CHARS_MAX).collect(),
        observed_generation: Some(generation),
        last_transition_time: now.clone(),
    };
    match conditions
        .iter_mut()
        .find(|condition| condition.type_ == verdict.kind)
    {
        Some(old) => {
            if old.status == fresh.status {
                fresh.last_transition_time = old.last_transition_time.clone();
            }
            let changed = *old != fresh;
            *old = fresh;
            changed
        }
        None => {
            conditions.push(fresh);
            true
        }
    }
}
