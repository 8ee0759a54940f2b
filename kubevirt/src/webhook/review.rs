//! One review: a machine that is about to be created gets our hook if it has a volume of ours. It is never refused.

use super::owner::{Owner, Owners};
use super::sidecars::{HookImage, with_hook};
use crate::machine::{ClaimedVolume, MachineSpec};
use crate::volumes::{VOLUMES_ANNOTATION, Volumes};
use futures::{StreamExt, stream};
use json_patch::Patch;
use kube::core::DynamicObject;
use kube::core::admission::{AdmissionRequest, AdmissionResponse, Operation};
use std::sync::Arc;
use std::time::Duration;

/// For all questions to the cluster together. The API server waits 2 s for us, and the machine's owner for both.
const DEADLINE: Duration = Duration::from_millis(700);
/// Claims of one machine that are asked for at once.
const PARALLEL: usize = 8;
/// Kubernetes may cut a longer warning.
const WARNING_CHARS_MAX: usize = 250;

/// Hears what became of each request: `added`, `left`, `warned`, or `refused` where it was no review.
pub(super) type Heard = Arc<dyn Fn(&'static str) + Send + Sync>;

/// Answers reviews.
pub(super) struct Reviewer {
    pub(super) owners: Owners,
    pub(super) hook: HookImage,
    pub(super) heard: Heard,
}

/// What becomes of a machine.
#[derive(Debug)]
enum Verdict {
    Add(Patch),
    Leave,
    /// It may need the hook and does not get it.
    Warn(String),
}

impl Reviewer {
    /// Allows, always; with the hook, as it is, or as it is with a warning.
    pub(super) async fn answer(
        &self,
        request: &AdmissionRequest<DynamicObject>,
    ) -> AdmissionResponse {
        let answer = AdmissionResponse::from(request);
        let namespace = request.namespace.as_deref().unwrap_or_default();
        match self.judge(request, namespace).await {
            Verdict::Leave => {
                (self.heard)("left");
                answer
            }
            Verdict::Add(patch) => {
                (self.heard)("added");
                tracing::info!(namespace, machine = request.name, "Added the hook");
                let patched = answer.with_patch(patch);
                patched.expect("a patch can be written as JSON")
            }
            Verdict::Warn(why) => {
                (self.heard)("warned");
                tracing::warn!(namespace, machine = request.name, why, "Added no hook");
                warned(answer, &why)
            }
        }
    }

    async fn judge(&self, request: &AdmissionRequest<DynamicObject>, namespace: &str) -> Verdict {
        let Some(machine) = &request.object else {
            return Verdict::Leave;
        };
        // KubeVirt reads the list when it makes the pod; a later change would be without effect.
        if request.operation != Operation::Create {
            return Verdict::Leave;
        }
        let spec = machine.data.get("spec").cloned().unwrap_or_default();
        let spec: MachineSpec = match serde_json::from_value(spec) {
            Ok(spec) => spec,
            Err(error) => return Verdict::Warn(format!("the machine's spec: {error}")),
        };
        let annotations = machine.metadata.annotations.as_ref();
        let change = with_hook(annotations, &self.hook);
        if let Ok(None) = change {
            return Verdict::Leave;
        }
        let named = annotations.and_then(|all| all.get(VOLUMES_ANNOTATION));
        let owner = if named.is_some_and(|names| names_a_volume(names, &spec)) {
            Owner::Holdfast
        } else {
            self.owner(namespace, spec.claims().collect()).await
        };
        match (owner, change) {
            (Owner::Somebody, _) | (_, Ok(None)) => Verdict::Leave,
            (Owner::Unknown(why), _) => Verdict::Warn(why),
            (Owner::Holdfast, Ok(Some(patch))) => Verdict::Add(patch),
            (Owner::Holdfast, Err(error)) => Verdict::Warn(error.to_string()),
        }
    }

    /// Whether any of the claims is ours. One that is decides, whatever is unknown of the others.
    async fn owner(&self, namespace: &str, claims: Vec<ClaimedVolume>) -> Owner {
        let late = || Owner::Unknown("the API server did not answer in time".to_owned());
        let asked = tokio::time::timeout(DEADLINE, self.first_of_ours(namespace, claims)).await;
        asked.unwrap_or_else(|_| late())
    }

    async fn first_of_ours(&self, namespace: &str, claims: Vec<ClaimedVolume>) -> Owner {
        let ask = |volume: ClaimedVolume| async move {
            let asked = self.owners.of(namespace, &volume.claim).await;
            asked.unwrap_or_else(|error| Owner::Unknown(error.to_string()))
        };
        let mut answers = stream::iter(claims).map(ask).buffer_unordered(PARALLEL);
        let mut sum = Owner::Somebody;
        while let Some(owner) = answers.next().await {
            match owner {
                Owner::Holdfast => return owner,
                Owner::Somebody => {}
                Owner::Unknown(_) => sum = owner,
            }
        }
        sum
    }
}

/// A person's word: it needs no look at the cluster.
fn names_a_volume(names: &str, spec: &MachineSpec) -> bool {
    let named = Volumes::parse(names).unwrap_or_default();
    spec.claims().any(|volume| named.contains(&volume.name))
}

fn warned(mut answer: AdmissionResponse, why: &str) -> AdmissionResponse {
    let text = format!("Holdfast added no hook to the machine: {why}");
    answer.warnings = Some(vec![text.chars().take(WARNING_CHARS_MAX).collect()]);
    answer
}
