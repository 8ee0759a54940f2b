//! Where there is KubeVirt, the controller marks machines. The mark is all that its token can change.

use crate::helm::{NAMESPACE, objects};
use crate::rights::denied;
use anyhow::ensure;
use holdfast_cluster::{Plane, until};
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::api::{
    Api, ApiResource, DynamicObject, GroupVersionKind, Patch, PatchParams, PostParams,
};
use serde_json::{Value, json};
use std::time::Duration;

const PATIENCE: Duration = Duration::from_secs(60);
const MACHINE: &str = "vm";
const MARK: &str = "holdfast.dev/volumes";

/// Changes that are not the controller's to make, each hidden behind one that is.
fn forbidden() -> Vec<Value> {
    let marked_and = |mut change: Value| {
        change["metadata"]["annotations"][MARK] = json!("data");
        change
    };
    let owner = json!({ "apiVersion": "v1", "kind": "Pod", "name": "p", "uid": "u" });
    [
        json!({ "spec": { "domain": { "cpu": { "cores": 2 } } } }),
        json!({ "spec": null }),
        json!({ "status": { "phase": "Failed" } }),
        json!({ "metadata": { "labels": { "app": "other" } } }),
        json!({ "metadata": { "labels": null } }),
        json!({ "metadata": { "finalizers": ["example.com/held"] } }),
        json!({ "metadata": { "ownerReferences": [owner] } }),
        json!({ "metadata": { "annotations": { "theirs": "changed" } } }),
        json!({ "metadata": { "annotations": { "theirs": null } } }),
        json!({ "metadata": { "annotations": { "hooks.kubevirt.io/hookSidecars": "[]" } } }),
    ]
    .map(marked_and)
    .into()
}

pub(crate) async fn controller_marks_machines_and_changes_nothing_else_of_them(
    plane: &mut Plane,
) -> anyhow::Result<()> {
    let ours = install(plane).await?;
    let machine = json!({
        "metadata": { "name": MACHINE, "labels": { "app": "vm" }, "annotations": { "theirs": "kept" } },
        "spec": { "domain": { "cpu": { "cores": 1 } } }, "status": { "phase": "Running" },
    });
    let machine: DynamicObject = serde_json::from_value(with_kind(machine))?;
    let people = machines(plane.client());
    people.create(&PostParams::default(), &machine).await?;
    let kubeconfig = plane
        .kubeconfig_of("holdfast-controller", NAMESPACE, None)
        .await?;
    let controller = machines(Plane::client_of(&kubeconfig).await?);

    let mut tries = 0;
    until("the policy holds", PATIENCE, || {
        tries += 1; // What was let through before would change nothing the second time.
        let probe = json!({ "metadata": { "labels": { "probe": tries.to_string() } } });
        let controller = controller.clone();
        async move {
            let said = change(&controller, &probe).await;
            Ok(said.err().map(drop).ok_or_else(|| "let through".to_owned()))
        }
    })
    .await?;
    for forbidden in forbidden() {
        denied(
            change(&controller, &forbidden).await,
            "the controller may change",
        )?;
    }
    for mark in [json!("data"), json!("data,more"), json!(null)] {
        let marked = json!({ "metadata": { "annotations": { MARK: mark } } });
        change(&controller, &marked).await?;
    }
    let found = people.get(MACHINE).await?;
    ensure!(found.metadata.annotations.unwrap_or_default().len() == 1);
    change(&people, &forbidden()[0]).await?; // People are held to nothing.
    plane.kubectl(&["delete", "vmi", MACHINE])?;
    plane.kubectl_with(&["delete", "-f", "-"], &ours)?;
    Ok(())
}

async fn change(machines: &Api<DynamicObject>, change: &Value) -> kube::Result<()> {
    let (how, change) = (PatchParams::default(), Patch::Merge(change));
    machines.patch(MACHINE, &how, &change).await.map(drop)
}

fn resource() -> ApiResource {
    ApiResource::from_gvk(&GroupVersionKind::gvk(
        "kubevirt.io",
        "v1",
        "VirtualMachineInstance",
    ))
}

fn machines(client: kube::Client) -> Api<DynamicObject> {
    Api::default_namespaced_with(client, &resource())
}

fn with_kind(mut object: Value) -> Value {
    object["apiVersion"] = json!("kubevirt.io/v1");
    object["kind"] = json!("VirtualMachineInstance");
    object
}

/// KubeVirt's kind with a schema that takes anything, and what the chart adds where there is KubeVirt. Returns the latter.
async fn install(plane: &Plane) -> anyhow::Result<String> {
    let any = json!({ "type": "object", "x-kubernetes-preserve-unknown-fields": true });
    let kind: CustomResourceDefinition = serde_json::from_value(json!({
        "metadata": { "name": "virtualmachineinstances.kubevirt.io" },
        "spec": {
            "group": "kubevirt.io",
            "scope": "Namespaced",
            "names": {
                "kind": "VirtualMachineInstance", "plural": "virtualmachineinstances", "shortNames": ["vmi"],
            },
            "versions": [{
                "name": "v1", "served": true, "storage": true,
                "schema": { "openAPIV3Schema": { "type": "object", "properties": { "spec": any, "status": any } } },
            }],
        },
    }))?;
    let kinds: Api<CustomResourceDefinition> = Api::all(plane.client());
    kinds.create(&PostParams::default(), &kind).await?;
    let served = machines(plane.client());
    until("machines are served", PATIENCE, || async {
        let listed = served.list(&Default::default()).await;
        Ok(listed.map(drop).map_err(|error| error.to_string()))
    })
    .await?;
    let words = [
        "--set=kubevirt.hook.enabled=true",
        "--show-only=templates/kubevirt-rbac.yaml",
        "--show-only=templates/kubevirt-admission.yaml",
    ];
    let items = objects(plane, &words)?;
    let ours = json!({ "apiVersion": "v1", "kind": "List", "items": items }).to_string();
    plane.kubectl_with(&["apply", "-f", "-"], &ours)?;
    Ok(ours)
}
