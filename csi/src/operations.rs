//! One operation per volume at a time: CSI asks that a second one is answered ABORTED, and callers repeat it.

use std::collections::HashSet;
use std::future::Future;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tonic::Status;

/// The operations under way. Clones share them.
#[derive(Debug, Clone, Default)]
pub struct Operations {
    busy: Arc<Mutex<HashSet<String>>>,
}

/// The right to work on one volume; given back on drop.
#[derive(Debug)]
pub struct OperationGuard {
    id: String,
    operations: Operations,
}

impl Operations {
    /// No operation under way.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Takes the right to work on a volume.
    ///
    /// # Errors
    /// ABORTED while another operation has it.
    pub fn begin(&self, id: &str) -> Result<OperationGuard, Status> {
        if !self.busy().insert(id.to_owned()) {
            return Err(Status::aborted(format!(
                "another operation on volume {id:?} is under way; repeat the call later"
            )));
        }
        Ok(OperationGuard {
            id: id.to_owned(),
            operations: self.clone(),
        })
    }

    /// Runs `work` with the right to a volume, to its end even if the caller hangs up: tonic drops a call's future when its
    /// client times out, and half of an operation must not be left behind.
    ///
    /// # Errors
    /// ABORTED while another operation has the volume, else what `work` answers.
    pub async fn run<T: Send + 'static>(
        &self,
        id: &str,
        work: impl Future<Output = Result<T, Status>> + Send + 'static,
    ) -> Result<T, Status> {
        let guard = self.begin(id)?;
        let task = tokio::spawn(async move {
            let result = work.await;
            drop(guard);
            result
        });
        task.await.unwrap_or_else(|error| {
            tracing::error!(%error, "An operation ended by panic");
            Err(Status::internal(
                "the operation failed unexpectedly; see the log",
            ))
        })
    }

    /// The set is only inserted into and removed from, so it is whole even if a holder panicked.
    fn busy(&self) -> MutexGuard<'_, HashSet<String>> {
        self.busy.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for OperationGuard {
    fn drop(&mut self) {
        self.operations.busy().remove(&self.id);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::sync::oneshot;
    use tonic::Code;

    #[test]
    fn second_operation_on_a_volume_is_aborted_until_the_first_ends() {
        let operations = Operations::new();
        let first = operations.begin("a").unwrap();
        assert_eq!(operations.begin("a").unwrap_err().code(), Code::Aborted);
        operations.begin("b").unwrap();
        drop(first);
        operations.begin("a").unwrap();
    }

    #[tokio::test]
    async fn work_goes_on_after_its_caller_hung_up() {
        let operations = Operations::new();
        let (go, wait) = oneshot::channel::<()>();
        let (done, finished) = oneshot::channel::<()>();
        let call = tokio::spawn({
            let operations = operations.clone();
            async move {
                let work = async move {
                    wait.await.unwrap();
                    done.send(()).unwrap();
                    Ok(())
                };
                operations.run("a", work).await
            }
        });
        while operations.begin("a").is_ok() {
            tokio::task::yield_now().await;
        }
        call.abort();
        assert!(call.await.unwrap_err().is_cancelled());
        assert_eq!(operations.begin("a").unwrap_err().code(), Code::Aborted);
        go.send(()).unwrap();
        finished.await.unwrap();
    }

    #[tokio::test]
    async fn panic_in_an_operation_is_internal_and_frees_the_volume() {
        let operations = Operations::new();
        let work = async { panic!("deliberate") };
        let result: Result<(), Status> = operations.run("a", work).await;
        assert_eq!(result.unwrap_err().code(), Code::Internal);
        operations.begin("a").unwrap();
    }
}
