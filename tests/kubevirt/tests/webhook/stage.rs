//! A namespace with claims in every state, and machines that are created in it.

use crate::install::{NAME, apply, install};
use crate::replica::Replica;
use anyhow::{Context, ensure};
use holdfast_cluster::{Plane, until};
use kube::Client;
use kube::client::Body;
use serde_json::{Value, json};
use std::time::Duration;

pub(crate) const PATIENCE: Duration = Duration::from_secs(60);
const SIDECARS: &str = "hooks.kubevirt.io/hookSidecars";

pub(crate) struct Stage<'p> {
    plane: &'p Plane,
    client: Client,
    namespace: String,
}

/// A machine as the API server made it, and what it said.
pub(crate) struct Created {
    object: Value,
    pub(crate) warnings: Vec<String>,
}

impl Created {
    /// The annotation's text.
    pub(crate) fn annotation(&self) -> Option<&str> {
        self.object["metadata"]["annotations"][SIDECARS].as_str()
    }

    /// What is in it.
    pub(crate) fn sidecars(&self) -> anyhow::Result<Vec<Value>> {
        let text = self.annotation().unwrap_or("[]");
        serde_json::from_str(text).with_context(|| text.to_owned())
    }

    pub(crate) fn has_only_our_hook(&self) -> anyhow::Result<()> {
        let ours = json!({
            "image": crate::install::IMAGE, "imagePullPolicy": "IfNotPresent",
            "command": ["/holdfast"], "args": ["kubevirt-hook"]
        });
        let sidecars = self.sidecars()?;
        ensure!(sidecars == [ours], "{sidecars:?}, {:?}", self.warnings);
        ensure!(self.warnings.is_empty(), "{:?}", self.warnings);
        Ok(())
    }

    pub(crate) fn is_untouched(&self) -> anyhow::Result<()> {
        ensure!(self.annotation().is_none(), "{:?}", self.annotation());
        ensure!(self.warnings.is_empty(), "{:?}", self.warnings);
        Ok(())
    }

    pub(crate) fn is_created_with_a_warning(&self, words: &str) -> anyhow::Result<()> {
        let said = self.warnings.join("; ");
        ensure!(said.contains(words), "warnings: {said:?}");
        Ok(())
    }
}

impl<'p> Stage<'p> {
    /// A namespace of its own, on a cluster with the chart's objects.
    pub(crate) fn set(plane: &'p Plane, name: &str) -> anyhow::Result<Stage<'p>> {
        install(plane)?;
        let stage = Stage {
            plane,
            client: plane.client(),
            namespace: format!("webhook-{name}"),
        };
        stage.add(json!({
            "apiVersion": "v1", "kind": "Namespace", "metadata": {"name": stage.namespace}
        }))?;
        Ok(stage)
    }

    pub(crate) fn namespace(&self) -> &str {
        &self.namespace
    }

    /// Lets the API server ask this replica, and waits until it does.
    pub(crate) async fn point_to(&self, replica: &Replica) -> anyhow::Result<()> {
        self.point_at(replica.port())?;
        let mut machine = machine("asked", &[claim("data")]);
        machine["metadata"]["annotations"] = json!({"holdfast.dev/volumes": "data"});
        until("the API server asks the webhook", PATIENCE, || async {
            let created = self.dry_run(&machine).await?;
            let found = created.annotation().map(drop);
            Ok(found.ok_or_else(|| created.warnings.join("; ")))
        })
        .await
    }

    /// Lets the API server ask on a port where somebody may listen.
    pub(crate) fn point_at(&self, port: u16) -> anyhow::Result<()> {
        let patch = json!([{
            "op": "replace", "path": "/webhooks/0/clientConfig/service/port", "value": port
        }]);
        let patch = patch.to_string();
        let words = ["patch", "mutatingwebhookconfiguration", NAME, "--type=json"];
        self.plane
            .kubectl(&[&words[..], &["-p", &patch]].concat())
            .map(drop)
    }

    /// A class of this provisioner, marked as the cluster's default or not.
    pub(crate) fn class(&self, name: &str, provisioner: &str, default: bool) -> anyhow::Result<()> {
        let mark = "storageclass.kubernetes.io/is-default-class";
        self.marked_class(name, provisioner, json!({mark: default.to_string()}))
    }

    /// The same, marked as KubeVirt's default or not.
    pub(crate) fn class_for_machines(
        &self,
        name: &str,
        provisioner: &str,
        default: bool,
    ) -> anyhow::Result<()> {
        let mark = "storageclass.kubevirt.io/is-default-virt-class";
        self.marked_class(name, provisioner, json!({mark: default.to_string()}))
    }

    fn marked_class(&self, name: &str, provisioner: &str, marks: Value) -> anyhow::Result<()> {
        self.add(json!({
            "apiVersion": "storage.k8s.io/v1", "kind": "StorageClass", "provisioner": provisioner,
            "metadata": {"name": name, "annotations": marks},
            "volumeBindingMode": "WaitForFirstConsumer"
        }))
    }

    /// The class of a claim that names none.
    pub(crate) fn class_that_kubernetes_gives(&self) -> anyhow::Result<String> {
        let claim = json!({
            "apiVersion": "v1", "kind": "PersistentVolumeClaim",
            "metadata": {"name": "asks", "namespace": self.namespace},
            "spec": {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}}
        });
        let words = [
            "create",
            "--dry-run=server",
            "--output=jsonpath={.spec.storageClassName}",
            "--filename=-",
        ];
        self.plane.kubectl_with(&words, &claim.to_string())
    }

    /// A claim that waits for its first consumer.
    pub(crate) fn unbound_claim(&self, name: &str, class: Option<&str>) -> anyhow::Result<()> {
        self.claim_with(name, json!({"storageClassName": class}))
    }

    /// A claim bound to a volume of a driver.
    pub(crate) fn bound_claim(&self, name: &str, driver: &str) -> anyhow::Result<()> {
        let volume = format!("{}-{name}", self.namespace);
        self.add(json!({
            "apiVersion": "v1", "kind": "PersistentVolume", "metadata": {"name": volume},
            "spec": {
                "capacity": {"storage": "1Gi"}, "accessModes": ["ReadWriteOnce"],
                "persistentVolumeReclaimPolicy": "Retain", "storageClassName": "gone",
                "csi": {"driver": driver, "volumeHandle": volume},
                "claimRef": {"namespace": self.namespace, "name": name}
            }
        }))?;
        self.claim_with(
            name,
            json!({"storageClassName": "gone", "volumeName": volume}),
        )
    }

    fn claim_with(&self, name: &str, more: Value) -> anyhow::Result<()> {
        let mut spec = more;
        spec["accessModes"] = json!(["ReadWriteOnce"]);
        spec["resources"] = json!({"requests": {"storage": "1Gi"}});
        self.add(json!({
            "apiVersion": "v1", "kind": "PersistentVolumeClaim",
            "metadata": {"name": name, "namespace": self.namespace}, "spec": spec
        }))
    }

    pub(crate) fn data_volume(&self, name: &str, spec: Value) -> anyhow::Result<()> {
        self.add(json!({
            "apiVersion": "cdi.kubevirt.io/v1beta1", "kind": "DataVolume",
            "metadata": {"name": name, "namespace": self.namespace}, "spec": spec
        }))
    }

    fn add(&self, object: Value) -> anyhow::Result<()> {
        apply(self.plane, &object.to_string())
    }

    pub(crate) async fn create(&self, machine: &Value) -> anyhow::Result<Created> {
        self.post(machine, "").await
    }

    /// Everything but the writing.
    pub(crate) async fn dry_run(&self, machine: &Value) -> anyhow::Result<Created> {
        self.post(machine, "?dryRun=All").await
    }

    async fn post(&self, machine: &Value, query: &str) -> anyhow::Result<Created> {
        let space = &self.namespace;
        let path =
            format!("/apis/kubevirt.io/v1/namespaces/{space}/virtualmachineinstances{query}");
        let request = http::Request::post(path)
            .header("content-type", "application/json")
            .body(Body::from(serde_json::to_vec(machine)?))?;
        let answer = self.client.send(request).await?;
        let warnings = answer.headers().get_all("warning").iter();
        let warnings = warnings.map(|text| String::from_utf8_lossy(text.as_bytes()).into_owned());
        let (status, warnings) = (answer.status(), warnings.collect());
        let body = answer.into_body().collect_bytes().await?;
        let said = String::from_utf8_lossy(&body);
        ensure!(status == 201, "not created, {status}: {said}");
        let object = serde_json::from_slice(&body)?;
        Ok(Created { object, warnings })
    }
}

/// A volume that is a claim of the same name.
pub(crate) fn claim(name: &str) -> Value {
    json!({"name": name, "persistentVolumeClaim": {"claimName": name}})
}

/// A volume that is a DataVolume of the same name.
pub(crate) fn data_volume(name: &str) -> Value {
    json!({"name": name, "dataVolume": {"name": name}})
}

/// A machine with these volumes.
pub(crate) fn machine(name: &str, volumes: &[Value]) -> Value {
    let disk = |volume: &Value| json!({"name": volume["name"], "disk": {"bus": "virtio"}});
    let disks: Vec<Value> = volumes.iter().map(disk).collect();
    json!({
        "apiVersion": "kubevirt.io/v1", "kind": "VirtualMachineInstance", "metadata": {"name": name},
        "spec": {"domain": {"memory": {"guest": "1Gi"}, "devices": {"disks": disks}}, "volumes": volumes}
    })
}
