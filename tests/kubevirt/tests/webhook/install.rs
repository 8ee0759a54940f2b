//! What the cluster has before the first test: KubeVirt's kinds, and the chart's objects for the webhook as Helm writes them.

use anyhow::{Context, ensure};
use holdfast_cluster::{Plane, kit};
use holdfast_guest::kit::workspace;
use serde::Deserialize;
use serde_json::{Value, json};
use std::process::Command;

/// Where the release lives.
pub(crate) const NAMESPACE: &str = "holdfast";
/// The chart's name for the Service, the Secret and the configuration.
pub(crate) const NAME: &str = "holdfast-kubevirt-webhook";
/// What the chart gives to machines with these values.
pub(crate) const IMAGE: &str = "registry.example/holdfast:0.1.0";

const TEMPLATES: &[&str] = &[
    "templates/rbac.yaml",
    "templates/kubevirt-rbac.yaml",
    "templates/kubevirt-webhook.yaml",
];
/// Group, version, kind and plural of what KubeVirt and CDI define.
const KINDS: &[[&str; 4]] = &[
    [
        "kubevirt.io",
        "v1",
        "VirtualMachineInstance",
        "virtualmachineinstances",
    ],
    ["cdi.kubevirt.io", "v1beta1", "DataVolume", "datavolumes"],
];

/// Makes all of it; what is there already stays.
pub(crate) fn install(plane: &Plane) -> anyhow::Result<()> {
    let crds = std::fs::read_to_string(workspace().join("charts/holdfast/files/crds.yaml"))?;
    apply(plane, &crds)?;
    for kind in KINDS {
        apply(plane, &definition(kind).to_string())?;
    }
    plane.kubectl(&["wait", "crd", "--all", "--for=condition=Established"])?;
    let space = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NAMESPACE}});
    apply(plane, &space.to_string())?;
    for object in release(plane)? {
        apply(plane, &object.to_string())?;
    }
    Ok(())
}

/// Makes an object, or what is written in it.
pub(crate) fn apply(plane: &Plane, text: &str) -> anyhow::Result<()> {
    let words = [
        "apply",
        "--server-side",
        "--force-conflicts",
        "--field-manager=tests",
        "-f",
        "-",
    ];
    plane.kubectl_with(&words, text).map(drop)
}

/// The chart's objects. There is no pod network: the Service is a name for this machine, and the port that of the webhook.
fn release(plane: &Plane) -> anyhow::Result<Vec<Value>> {
    let mut objects = rendered(plane)?;
    for object in &mut objects {
        if object["kind"] == "Service" {
            object["spec"] = json!({"type": "ExternalName", "externalName": "localhost"});
        }
    }
    ensure!(objects.len() > 10, "only {} objects", objects.len());
    Ok(objects)
}

fn rendered(plane: &Plane) -> anyhow::Result<Vec<Value>> {
    let mut helm = Command::new(kit::program("helm")?);
    for folder in ["CACHE", "CONFIG", "DATA"] {
        helm.env(format!("HELM_{folder}_HOME"), plane.folder().join("helm"));
    }
    helm.args(["template", "holdfast", "--namespace", NAMESPACE])
        .arg(workspace().join("charts/holdfast"))
        .args(["--set=kubevirt.hook.enabled=true,image.registry=registry.example"]);
    for template in TEMPLATES {
        helm.args(["--show-only", template]);
    }
    let told = helm.output().context("cannot run helm")?;
    let complaint = String::from_utf8_lossy(&told.stderr);
    ensure!(told.status.success(), "helm: {complaint}");
    let documents = serde_yaml::Deserializer::from_slice(&told.stdout);
    let read = documents.map(|document| Value::deserialize(document).context("helm prints YAML"));
    read.collect()
}

/// A kind with a schema that takes anything: what is read of it is ours to get right.
fn definition([group, version, kind, plural]: &[&str; 4]) -> Value {
    let any = json!({"type": "object", "x-kubernetes-preserve-unknown-fields": true});
    json!({
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": format!("{plural}.{group}")},
        "spec": {
            "group": group, "scope": "Namespaced", "names": {"kind": kind, "plural": plural},
            "versions": [{
                "name": version, "served": true, "storage": true,
                "schema": {"openAPIV3Schema": {"type": "object", "properties": {"spec": any, "status": any}}}
            }]
        }
    })
}
