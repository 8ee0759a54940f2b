//! The pods that KubeVirt runs machines in.

use k8s_openapi::api::core::v1::Pod;

/// Label that KubeVirt puts on its pods.
const ROLE: &str = "kubevirt.io";

/// What a pod is to KubeVirt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Role {
    /// A machine runs in it.
    Launcher,
    /// It only carries a volume to a machine that runs already.
    Hotplug,
    /// It has nothing to do with KubeVirt, or only prepares volumes.
    Other,
}

/// What a pod is to KubeVirt.
pub(crate) fn role(pod: &Pod) -> Role {
    let labels = pod.metadata.labels.as_ref();
    match labels
        .and_then(|labels| labels.get(ROLE))
        .map(String::as_str)
    {
        Some("virt-launcher") => Role::Launcher,
        Some("hotplug-disk") => Role::Hotplug,
        _ => Role::Other,
    }
}

/// The label selector of launchers.
pub(crate) fn launchers() -> String {
    format!("{ROLE}=virt-launcher")
}

/// Name of the machine that a pod runs, by the pod's owner.
pub(crate) fn machine(pod: &Pod) -> Option<&str> {
    let owners = pod.metadata.owner_references.as_deref().unwrap_or_default();
    let owner = owners.iter().find(|owner| {
        owner.kind == "VirtualMachineInstance" && owner.api_version.starts_with("kubevirt.io/")
    })?;
    Some(&owner.name)
}

/// Whether the pod has a node, so that its claims are bound, and has not ended.
pub(crate) fn is_placed_and_alive(pod: &Pod) -> bool {
    let placed = pod
        .spec
        .as_ref()
        .is_some_and(|spec| spec.node_name.is_some());
    placed && !has_ended(pod)
}

pub(crate) fn has_ended(pod: &Pod) -> bool {
    let phase = pod
        .status
        .as_ref()
        .and_then(|status| status.phase.as_deref());
    matches!(phase, Some("Succeeded" | "Failed"))
}

/// Whether the pod mounts a claim.
pub(crate) fn mounts(pod: &Pod, claim: &str) -> bool {
    let volumes = pod.spec.as_ref().and_then(|spec| spec.volumes.as_deref());
    let sources = volumes.unwrap_or_default().iter();
    let mut claims = sources.filter_map(|volume| volume.persistent_volume_claim.as_ref());
    claims.any(|source| source.claim_name == claim)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn only_a_machine_of_kubevirt_owns_a_launcher() {
        let owned = |api: &str, kind: &str| -> Pod {
            let owner = json!({"apiVersion": api, "kind": kind, "name": "vm", "uid": "u"});
            serde_json::from_value(json!({"metadata": {"ownerReferences": [owner]}})).unwrap()
        };
        let machines = owned("kubevirt.io/v1", "VirtualMachineInstance");
        assert_eq!(machine(&machines), Some("vm"));
        for (api, kind) in [
            ("kubevirt.io/v1", "VirtualMachine"),
            ("apps/v1", "ReplicaSet"),
            ("kubevirt.io.example.com/v1", "VirtualMachineInstance"),
        ] {
            assert_eq!(machine(&owned(api, kind)), None, "{api} {kind}");
        }
        assert_eq!(machine(&Pod::default()), None);
    }
}
