//! A namespace with KubeVirt's kinds, claims, machines and pods, and the loop under test.

use anyhow::{Context, bail};
use holdfast_cluster::{Plane, until};
use holdfast_kubevirt::{PublishGate, Refusal, machine_resource, run_gate};
use k8s_openapi::api::core::v1::{Event, PersistentVolume, PersistentVolumeClaim, Pod};
use kube::api::{
    Api, DeleteParams, DynamicObject, ListParams, Patch, PatchParams, PostParams, WatchEvent,
    WatchParams,
};
use kube::{Client, ResourceExt};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use tokio::task::JoinHandle;

pub(crate) const PATIENCE: Duration = Duration::from_secs(60);
/// There is no kubelet that would mind.
const NODE: &str = "node-of-gate-tests";
const ANNOTATION: &str = "holdfast.dev/volumes";

/// The loop under test; killed when dropped.
pub(crate) struct Loop(JoinHandle<()>);

impl Loop {
    pub(crate) fn start(plane: &Plane) -> Loop {
        Loop::counting(plane, Arc::default())
    }

    /// The same; counts the failures of its watch.
    pub(crate) fn counting(plane: &Plane, failures: Arc<AtomicU64>) -> Loop {
        let client = plane.client();
        Loop(tokio::spawn(async move {
            let count = |kind: &str| {
                assert_eq!(kind, "Pod");
                failures.fetch_add(1, Ordering::Relaxed);
            };
            run_gate(client, count, std::future::pending()).await;
        }))
    }

    pub(crate) async fn kill(mut self) {
        self.0.abort();
        let _ = (&mut self.0).await;
    }
}

impl Drop for Loop {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// A namespace.
pub(crate) struct Stage {
    client: Client,
    namespace: String,
}

impl Stage {
    pub(crate) async fn set(plane: &Plane, name: &str) -> anyhow::Result<Stage> {
        let client = plane.client();
        let stage = Stage {
            client,
            namespace: format!("gate-{name}"),
        };
        install_kinds(plane)?;
        holdfast_cluster::ensure_node(&stage.client, NODE).await?;
        let namespace = json!({"metadata": {"name": stage.namespace}});
        stage
            .add(
                Api::<k8s_openapi::api::core::v1::Namespace>::all(stage.client.clone()),
                namespace,
            )
            .await?;
        let accounts: Api<k8s_openapi::api::core::v1::ServiceAccount> = stage.api();
        until("the namespace has its account", PATIENCE, || async {
            let found = accounts.get_opt("default").await?;
            Ok(found.map(drop).ok_or_else(|| "not yet".to_owned()))
        })
        .await?;
        Ok(stage)
    }

    /// A claim bound to a volume of `driver` whose id is the claim's name.
    pub(crate) async fn claim(&self, name: &str, driver: &str) -> anyhow::Result<()> {
        self.claim_as(name, driver, "Filesystem").await
    }

    /// The same, with a volumeMode.
    pub(crate) async fn claim_as(
        &self,
        name: &str,
        driver: &str,
        mode: &str,
    ) -> anyhow::Result<()> {
        let volume = self.volume(name, driver, mode).await?;
        let (size, modes) = (json!({"storage": "1Gi"}), json!(["ReadWriteOnce"]));
        let claims: Api<PersistentVolumeClaim> = self.api();
        self.add(
            claims,
            json!({
                "metadata": {"name": name},
                "spec": {
                    "accessModes": modes, "storageClassName": "holdfast", "volumeName": volume,
                    "resources": {"requests": size}, "volumeMode": mode
                }
            }),
        )
        .await
    }

    /// What a provisioner does for a claim of this name; returns the volume's name.
    pub(crate) async fn volume(
        &self,
        name: &str,
        driver: &str,
        mode: &str,
    ) -> anyhow::Result<String> {
        let volume = format!("{}-{name}", self.namespace);
        let volumes: Api<PersistentVolume> = Api::all(self.client.clone());
        // With its uid, a claim that is there is bound at once.
        let claim = self.api::<PersistentVolumeClaim>().get_opt(name).await?;
        let claim = claim.and_then(|claim| claim.uid());
        let spec = json!({
            "capacity": {"storage": "20Gi"}, "accessModes": ["ReadWriteOnce"], "storageClassName": "holdfast",
            "persistentVolumeReclaimPolicy": "Retain", "volumeMode": mode,
            "csi": {"driver": driver, "volumeHandle": name},
            "claimRef": {"namespace": self.namespace, "name": name, "uid": claim}
        });
        let object = json!({"metadata": {"name": volume}, "spec": spec});
        self.add(volumes, object).await?;
        Ok(volume)
    }

    pub(crate) async fn create(&self, machine: &Value) -> anyhow::Result<()> {
        self.add(self.machines(), machine.clone()).await
    }

    /// The machine as it would be created.
    pub(crate) async fn try_out(&self, machine: &Value) -> anyhow::Result<DynamicObject> {
        let dry = PostParams {
            dry_run: true,
            ..PostParams::default()
        };
        let machine = serde_json::from_value(machine.clone())?;
        Ok(self.machines().create(&dry, &machine).await?)
    }

    pub(crate) fn namespace(&self) -> &str {
        &self.namespace
    }

    /// A launcher's pod on a node, owned by a machine that need not exist.
    pub(crate) async fn launcher(
        &self,
        name: &str,
        owner: Option<&str>,
        claims: &[&str],
    ) -> anyhow::Result<()> {
        self.pod(name, json!({"kubevirt.io": "virt-launcher"}), owner, claims)
            .await
    }

    pub(crate) async fn pod(
        &self,
        name: &str,
        labels: Value,
        owner: Option<&str>,
        claims: &[&str],
    ) -> anyhow::Result<()> {
        let mut pod = pod(name, labels, owner, claims);
        pod["spec"]["nodeName"] = json!(NODE);
        self.add(self.api::<Pod>(), pod).await
    }

    /// The same, kept from being scheduled.
    pub(crate) async fn unplaced_launcher(
        &self,
        name: &str,
        owner: &str,
        claims: &[&str],
    ) -> anyhow::Result<()> {
        let mut pod = pod(
            name,
            json!({"kubevirt.io": "virt-launcher"}),
            Some(owner),
            claims,
        );
        pod["spec"]["schedulerName"] = json!("nobody");
        self.add(self.api::<Pod>(), pod).await
    }

    /// What the scheduler does.
    pub(crate) async fn place(&self, name: &str) -> anyhow::Result<()> {
        let binding = json!({"apiVersion": "v1", "kind": "Binding", "metadata": {"name": name}, "target": {"kind": "Node", "name": NODE}});
        let pods: Api<Pod> = self.api();
        let _: Value = pods
            .create_subresource("binding", name, &PostParams::default(), &binding)
            .await?;
        Ok(())
    }

    pub(crate) async fn remove_pod(&self, name: &str) -> anyhow::Result<()> {
        let pods: Api<Pod> = self.api();
        pods.delete(name, &DeleteParams::default().grace_period(0))
            .await?;
        Ok(())
    }

    /// What kubelet says of a pod whose containers have all ended well. It stays, whoever wants to tidy up.
    pub(crate) async fn end_pod(&self, name: &str) -> anyhow::Result<()> {
        let pods: Api<Pod> = self.api();
        let held = Patch::Merge(json!({"metadata": {"finalizers": ["holdfast.dev/test"]}}));
        pods.patch(name, &PatchParams::default(), &held).await?;
        let ended = Patch::Merge(json!({"status": {"phase": "Succeeded"}}));
        pods.patch_status(name, &PatchParams::default(), &ended)
            .await?;
        Ok(())
    }

    /// The machine that the pod runs, once it may have the volume.
    pub(crate) async fn admit(
        &self,
        pod: &str,
        volume_id: &str,
    ) -> Result<Option<String>, Refusal> {
        let gate = PublishGate::new(self.client.clone());
        gate.admit(&self.namespace, pod, volume_id).await
    }

    /// What kubelet's retries come to.
    pub(crate) async fn until_admitted(&self, pod: &str, volume_id: &str) -> anyhow::Result<()> {
        until("the pod may have the volume", PATIENCE, || async {
            match self.admit(pod, volume_id).await {
                Err(refusal) if !refusal.may_pass() => bail!("{refusal}"),
                other => Ok(other.map(drop).map_err(|refusal| refusal.to_string())),
            }
        })
        .await
    }

    pub(crate) async fn annotation(&self, machine: &str) -> anyhow::Result<Option<String>> {
        let machine = self.machines().get(machine).await?;
        Ok(machine.annotations().get(ANNOTATION).cloned())
    }

    /// From where on writes can be listed.
    pub(crate) async fn generation_of_writes(&self, machine: &str) -> anyhow::Result<String> {
        let machine = self.machines().get(machine).await?;
        machine
            .resource_version()
            .context("the server numbers versions")
    }

    /// The annotation after each write since then.
    pub(crate) async fn writes_since(
        &self,
        machine: &str,
        version: &str,
    ) -> anyhow::Result<Vec<String>> {
        use futures::{StreamExt, TryStreamExt};
        let only = WatchParams::default()
            .fields(&format!("metadata.name={machine}"))
            .timeout(2);
        let machines = self.machines();
        let events = machines.watch(&only, version).await?.boxed();
        let events: Vec<WatchEvent<DynamicObject>> = events.try_collect().await?;
        let written = |event: WatchEvent<DynamicObject>| match event {
            WatchEvent::Modified(object) => object.annotations().get(ANNOTATION).cloned(),
            _ => None,
        };
        Ok(events.into_iter().filter_map(written).collect())
    }

    pub(crate) async fn until_event(
        &self,
        kind: &str,
        name: &str,
        reason: &str,
        words: &str,
    ) -> anyhow::Result<()> {
        let events: Api<Event> = self.api();
        let what = format!("{kind} {name} has an event {reason} with {words:?}");
        until(&what, PATIENCE, || async {
            let all = events.list(&ListParams::default()).await?.items;
            let found = all.iter().any(|event| {
                let about = &event.involved_object;
                about.kind.as_deref() == Some(kind)
                    && about.name.as_deref() == Some(name)
                    && event.reason.as_deref() == Some(reason)
                    && event
                        .message
                        .as_deref()
                        .is_some_and(|text| text.contains(words))
            });
            let texts = || {
                all.iter()
                    .filter_map(|e| e.message.clone())
                    .collect::<Vec<_>>()
                    .join("; ")
            };
            Ok(if found { Ok(()) } else { Err(texts()) })
        })
        .await
    }

    async fn add<K>(&self, api: Api<K>, object: Value) -> anyhow::Result<()>
    where
        K: Clone + std::fmt::Debug + DeserializeOwned + serde::Serialize,
    {
        let object: K = serde_json::from_value(object)?;
        api.create(&PostParams::default(), &object).await?;
        Ok(())
    }

    fn api<K>(&self) -> Api<K>
    where
        K: kube::Resource<DynamicType = (), Scope = k8s_openapi::NamespaceResourceScope>,
    {
        Api::namespaced(self.client.clone(), &self.namespace)
    }

    fn machines(&self) -> Api<DynamicObject> {
        Api::namespaced_with(self.client.clone(), &self.namespace, &machine_resource())
    }
}

/// KubeVirt's kinds; what is there stays.
fn install_kinds(plane: &Plane) -> anyhow::Result<()> {
    let apply = ["apply", "--server-side", "-f", "-"];
    plane.kubectl_with(&apply, include_str!("kinds.yaml"))?;
    let kinds = ["crd", "--all", "--for=condition=Established"];
    plane.kubectl(&[&["wait", "--timeout=60s"], &kinds[..]].concat())?;
    Ok(())
}

/// A disk on a bus.
pub(crate) fn disk(bus: &str) -> Value {
    json!({"disk": {"bus": bus}})
}

/// A machine whose volumes have the names of their claims.
pub(crate) fn machine(name: &str, volumes: &[(&str, Value)]) -> Value {
    let named = |(name, disk): &(&str, Value)| {
        let mut disk = disk.clone();
        disk["name"] = json!(name);
        disk
    };
    let disks: Vec<Value> = volumes.iter().map(named).collect();
    let claimed = |(name, _): &(&str, Value)| json!({"name": name, "persistentVolumeClaim": {"claimName": name}});
    let volumes: Vec<Value> = volumes.iter().map(claimed).collect();
    json!({
        "apiVersion": "kubevirt.io/v1",
        "kind": "VirtualMachineInstance",
        "metadata": {"name": name},
        "spec": {"domain": {"memory": {"guest": "1Gi"}, "devices": {"disks": disks}}, "volumes": volumes}
    })
}

fn pod(name: &str, labels: Value, owner: Option<&str>, claims: &[&str]) -> Value {
    let owners: Vec<Value> = owner
        .iter()
        .map(|owner| json!({"apiVersion": "kubevirt.io/v1", "kind": "VirtualMachineInstance", "name": owner, "uid": format!("uid-of-{owner}"), "controller": true}))
        .collect();
    let volumes: Vec<Value> = claims
        .iter()
        .map(|claim| json!({"name": claim, "persistentVolumeClaim": {"claimName": claim}}))
        .collect();
    json!({
        "metadata": {"name": name, "labels": labels, "ownerReferences": owners},
        "spec": {"containers": [{"name": "compute", "image": "none"}], "volumes": volumes}
    })
}
