//! The loop that finds a machine's volumes of ours and writes them on the machine, all in one write.
//!
//! It wakes when a launcher's pod gets its node: then all its claims are bound, and kubelet is about to publish them. What it
//! does depends on the cluster's state alone, so that it may be killed at any moment, and run twice side by side.

mod herald;

use crate::claims::{Behind, behind};
use crate::error::ClusterError;
use crate::launcher;
use crate::machine::{Machine, listed, machine_resource};
use crate::volumes::{VOLUMES_ANNOTATION, Volumes};
use futures::StreamExt;
use herald::Herald;
use k8s_openapi::api::core::v1::Pod;
use kube::api::{ListParams, Patch, PatchParams};
use kube::runtime::controller::{Action, Controller, Error};
use kube::runtime::watcher;
use kube::{Api, Client, ResourceExt};
use serde_json::json;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

/// Who wrote the annotation, in the machine's managedFields.
const FIELD_MANAGER: &str = "holdfast-controller";
/// A claim that another machine has is free some time later; nothing tells when.
const BUSY_RETRY: Duration = Duration::from_secs(5);
/// A cluster that does not answer is asked again.
const ERROR_RETRY: Duration = Duration::from_secs(1);

/// Marks machines until `shutdown` completes. `client` must be allowed to watch pods, to get claims and PersistentVolumes, and
/// to get and patch VirtualMachineInstances. `watch_failed` hears the kind of each watch that fails; it begins again by itself.
pub async fn run_gate(
    client: Client,
    watch_failed: impl Fn(&str),
    shutdown: impl Future<Output = ()> + Send + Sync + 'static,
) {
    let gate = Arc::new(Gate {
        herald: Herald::new(client.clone()),
        client: client.clone(),
    });
    let launchers = watcher::Config::default().labels(&launcher::launchers());
    let work = |pod: Arc<Pod>, gate: Arc<Gate>| async move { gate.mark(&pod).await };
    let retry = |pod: Arc<Pod>, error: &ClusterError, _: Arc<Gate>| {
        tracing::warn!(pod = pod.name_any(), %error, "Cannot mark a machine yet");
        Action::requeue(ERROR_RETRY)
    };
    Controller::new(Api::<Pod>::all(client), launchers)
        .graceful_shutdown_on(shutdown)
        .run(work, retry, gate)
        .for_each(|turn| {
            if let Err(Error::QueueError(error)) = turn {
                tracing::warn!(%error, "The watch on pods failed");
                watch_failed("Pod");
            }
            std::future::ready(())
        })
        .await;
}

struct Gate {
    client: Client,
    herald: Herald,
}

/// What a machine's volumes are.
#[derive(Default)]
struct Findings {
    ours: Vec<String>,
    /// Volumes of ours that cannot be served, their claims, and why.
    refused: Vec<(String, String, String)>,
    /// Whether one is refused only for now.
    busy: bool,
}

impl Gate {
    /// Writes a pod's volumes on its machine.
    async fn mark(&self, pod: &Pod) -> Result<Action, ClusterError> {
        let Some(name) = launcher::machine(pod).filter(|_| launcher::is_placed_and_alive(pod))
        else {
            return Ok(Action::await_change());
        };
        let namespace = pod.namespace().unwrap_or_default();
        let Some(machine) = self.machine(&namespace, name).await? else {
            return Ok(Action::await_change());
        };
        let findings = self.look(&machine, &namespace, name).await?;
        self.write(&machine, &namespace, &findings).await?;
        for (volume, claim, why) in &findings.refused {
            self.herald
                .refused(&machine, &namespace, claim, volume, why)
                .await;
        }
        if findings.busy {
            return Ok(Action::requeue(BUSY_RETRY));
        }
        Ok(Action::await_change())
    }

    async fn look(
        &self,
        machine: &Machine,
        namespace: &str,
        name: &str,
    ) -> Result<Findings, ClusterError> {
        let mut findings = Findings::default();
        let mut foreign = Vec::new();
        for volume in machine.spec.claims() {
            let refuse = match behind(&self.client, namespace, &volume.claim).await? {
                Behind::Ours { .. } => machine.spec.objection(&volume.name),
                Behind::OursAsBlock => {
                    Some("its claim has volumeMode Block; use Filesystem".to_owned())
                }
                Behind::Foreign | Behind::Unbound => {
                    foreign.push(volume.name);
                    continue;
                }
            };
            let taken = self.taken_by(namespace, &volume.claim, name).await?;
            let busy = taken.map(|other| format!("machine {other} has it; stop that first"));
            findings.busy |= busy.is_some();
            match refuse.or(busy) {
                Some(why) => findings.refused.push((volume.name, volume.claim, why)),
                None => findings.ours.push(volume.name),
            }
        }
        self.warn_of_foreign(machine, &findings, &foreign).await;
        Ok(findings)
    }

    /// Another machine that runs on a claim: two would write over each other.
    async fn taken_by(
        &self,
        namespace: &str,
        claim: &str,
        name: &str,
    ) -> Result<Option<String>, ClusterError> {
        let pods: Api<Pod> = Api::namespaced(self.client.clone(), namespace);
        let launchers = ListParams::default().labels(&launcher::launchers());
        let object = format!("pods of {namespace}");
        let pods = pods
            .list(&launchers)
            .await
            .map_err(ClusterError::on("list", object))?;
        let holds = |pod: &&Pod| !launcher::has_ended(pod) && launcher::mounts(pod, claim);
        for pod in pods.items.iter().filter(holds) {
            let Some(other) = launcher::machine(pod).filter(|other| *other != name) else {
                continue;
            };
            if self.carries(namespace, other, claim).await? {
                return Ok(Some(other.to_owned()));
            }
        }
        Ok(None)
    }

    /// Whether a machine was given the volume of a claim already.
    async fn carries(
        &self,
        namespace: &str,
        name: &str,
        claim: &str,
    ) -> Result<bool, ClusterError> {
        let Some(machine) = self.machine(namespace, name).await? else {
            return Ok(false);
        };
        let carried = Volumes::parse(listed(&machine)).unwrap_or_default();
        let mut of_claim = machine.spec.claims().filter(|volume| volume.claim == claim);
        Ok(of_claim.any(|volume| carried.contains(&volume.name)))
    }

    /// What a person wrote stays, also where it is wrong: the machine then does not start, and its events say why.
    async fn warn_of_foreign(&self, machine: &Machine, findings: &Findings, foreign: &[String]) {
        let listed = match Volumes::parse(listed(machine)) {
            Ok(volumes) => volumes,
            Err(error) => {
                return self
                    .herald
                    .bad_annotation(machine, &error.to_string())
                    .await;
            }
        };
        let refused = |name: &str| findings.refused.iter().any(|(volume, ..)| volume == name);
        for name in listed.iter() {
            if findings.ours.iter().any(|ours| ours == name) || refused(name) {
                continue;
            }
            let why = if foreign.iter().any(|volume| volume == name) {
                "its claim is not bound to a volume of Holdfast"
            } else {
                "no volume of the machine with that name is a claim"
            };
            let text = format!("annotation {VOLUMES_ANNOTATION} names {name}, but {why}");
            self.herald.bad_annotation(machine, &text).await;
        }
    }

    /// Adds the volumes that the annotation does not have yet, all at once.
    async fn write(
        &self,
        machine: &Machine,
        namespace: &str,
        findings: &Findings,
    ) -> Result<(), ClusterError> {
        let Ok(there) = Volumes::parse(listed(machine)) else {
            return Ok(());
        };
        let all = there
            .iter()
            .map(str::to_owned)
            .chain(findings.ours.iter().cloned());
        let wanted: Volumes = all.collect();
        if wanted == there {
            return Ok(());
        }
        let name = machine.name_any();
        let patch = json!({"metadata": {
            "annotations": {VOLUMES_ANNOTATION: wanted.to_string()},
            // Two writers would lose each other's names otherwise.
            "resourceVersion": machine.metadata.resource_version,
        }});
        let params = PatchParams {
            field_manager: Some(FIELD_MANAGER.to_owned()),
            ..PatchParams::default()
        };
        let object = format!("VirtualMachineInstance {namespace}/{name}");
        let patched = self
            .machines(namespace)
            .patch(&name, &params, &Patch::Merge(patch))
            .await;
        patched.map_err(ClusterError::on("mark", object))?;
        tracing::info!(namespace, machine = name, volumes = %wanted, "Marked the machine");
        Ok(())
    }

    async fn machine(&self, namespace: &str, name: &str) -> Result<Option<Machine>, ClusterError> {
        let object = format!("VirtualMachineInstance {namespace}/{name}");
        let found = self.machines(namespace).get_opt(name).await;
        found.map_err(ClusterError::on("read", object))
    }

    fn machines(&self, namespace: &str) -> Api<Machine> {
        Api::namespaced_with(self.client.clone(), namespace, &machine_resource())
    }
}
