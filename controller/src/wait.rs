//! Waiting for the node agent: by watch, never by polling, with an end that says what was last seen.

use crate::error::ControllerError;
use holdfast_api::{Condition, SplitVolume};
use holdfast_store::{Object, Store};
use std::time::Duration;
use tokio::time::{Instant, timeout_at};

/// How far a wait may go.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Patience {
    until: Instant,
    whole: Duration,
}

impl Patience {
    pub(crate) fn new(whole: Duration) -> Self {
        Self {
            until: Instant::now() + whole,
            whole,
        }
    }

    /// Looks again after every change of kind `K` until `look` has an answer; `None` when patience ends first.
    pub(crate) async fn until<S, K, T, F>(
        self,
        store: &S,
        mut look: impl FnMut() -> F,
    ) -> Result<Option<T>, ControllerError>
    where
        S: Store,
        K: Object,
        F: Future<Output = Result<Option<T>, ControllerError>>,
    {
        let mut changes = store.watch::<K>();
        while timeout_at(self.until, changes.changed()).await.is_ok() {
            if let Some(answer) = look().await? {
                return Ok(Some(answer));
            }
        }
        Ok(None)
    }

    /// Waits until `judge` has an answer for the volume.
    pub(crate) async fn volume<S: Store, T>(
        self,
        store: &S,
        name: &str,
        awaited: &'static str,
        judge: impl Fn(Option<SplitVolume>) -> Option<T>,
    ) -> Result<T, ControllerError> {
        let look = || async { Ok(judge(store.get(name).await?)) };
        if let Some(answer) = self.until::<S, SplitVolume, T, _>(store, look).await? {
            return Ok(answer);
        }
        let last: Option<SplitVolume> = store.get(name).await?;
        Err(ControllerError::Deadline {
            volume: name.to_owned(),
            awaited,
            waited: self.whole,
            last: last_seen(last.as_ref()),
        })
    }
}

fn last_seen(volume: Option<&SplitVolume>) -> String {
    let conditions = volume
        .and_then(|volume| volume.status.as_ref())
        .map_or(&[][..], |status| &status.conditions);
    if conditions.is_empty() {
        return "its node has not reported yet".to_owned();
    }
    let told: Vec<String> = conditions.iter().map(describe).collect();
    told.join(", ")
}

/// A condition in one line.
pub(crate) fn describe(condition: &Condition) -> String {
    format!(
        "{}={} ({}: {})",
        condition.type_, condition.status, condition.reason, condition.message
    )
}
