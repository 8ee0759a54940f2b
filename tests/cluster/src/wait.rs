//! Waiting for what another process does: until it is so, or a deadline.

use anyhow::bail;
use std::time::{Duration, Instant};

/// Between two looks at a thing that tells nobody when it changes.
const LOOK_AGAIN: Duration = Duration::from_millis(25);

/// Looks with `look` until it finds something, and returns that.
///
/// # Errors
/// After `patience`, with `what` and the last reason that `look` gave; or at once what `look` calls an error.
pub async fn until<T, F>(
    what: &str,
    patience: Duration,
    mut look: impl FnMut() -> F,
) -> anyhow::Result<T>
where
    F: Future<Output = anyhow::Result<Result<T, String>>>,
{
    let deadline = Instant::now() + patience;
    loop {
        let why = match look().await? {
            Ok(found) => return Ok(found),
            Err(why) => why,
        };
        if Instant::now() > deadline {
            bail!("waited {patience:?} in vain until {what}: {why}");
        }
        tokio::time::sleep(LOOK_AGAIN).await;
    }
}
