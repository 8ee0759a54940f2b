//! The part of KubeVirt's VirtualMachineInstance that decides whether a volume can come from a socket.

use crate::volumes::VOLUMES_ANNOTATION;
use kube::api::ApiResource;
use kube::core::{GroupVersionKind, NotUsed, Object};
use serde::{Deserialize, Serialize};

/// A VirtualMachineInstance, as far as it is read. It is never written back, only patched.
pub type Machine = Object<MachineSpec, NotUsed>;

/// Where the API server keeps VirtualMachineInstances.
#[must_use]
pub fn machine_resource() -> ApiResource {
    let kind = GroupVersionKind::gvk("kubevirt.io", "v1", "VirtualMachineInstance");
    ApiResource::from_gvk_with_plural(&kind, "virtualmachineinstances")
}

/// What a machine consists of.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct MachineSpec {
    domain: Domain,
    volumes: Vec<MachineVolume>,
}

#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Domain {
    devices: Devices,
    launch_security: Option<serde_json::Value>,
}

#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(default)]
struct Devices {
    disks: Vec<Disk>,
}

/// A disk is of the kind whose field is there; of none, it is a disk.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(default)]
struct Disk {
    name: String,
    disk: Option<Target>,
    lun: Option<serde_json::Value>,
    cdrom: Option<serde_json::Value>,
    shareable: Option<bool>,
}

#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(default)]
struct Target {
    bus: String,
    readonly: bool,
}

#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct MachineVolume {
    name: String,
    persistent_volume_claim: Option<ClaimSource>,
    data_volume: Option<DataVolumeSource>,
}

#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct ClaimSource {
    claim_name: String,
    read_only: bool,
    hotpluggable: bool,
}

#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(default)]
struct DataVolumeSource {
    name: String,
    hotpluggable: bool,
}

/// A volume of a machine that is a claim.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ClaimedVolume {
    pub(crate) name: String,
    pub(crate) claim: String,
}

impl MachineSpec {
    /// The volumes that are claims. A DataVolume's claim has its name.
    pub(crate) fn claims(&self) -> impl Iterator<Item = ClaimedVolume> {
        self.volumes.iter().filter_map(|volume| {
            let claim = match (&volume.persistent_volume_claim, &volume.data_volume) {
                (Some(claim), _) => &claim.claim_name,
                (None, Some(data)) => &data.name,
                (None, None) => return None,
            };
            Some(ClaimedVolume {
                name: volume.name.clone(),
                claim: claim.clone(),
            })
        })
    }

    /// Why a volume cannot come from a socket, if so: a sentence with the remedy.
    pub(crate) fn objection(&self, volume: &str) -> Option<String> {
        if self.domain.launch_security.is_some() {
            return Some("the machine's memory is encrypted; remove launchSecurity".to_owned());
        }
        let source = self.volumes.iter().find(|found| found.name == volume);
        let claim = source.and_then(|source| source.persistent_volume_claim.as_ref());
        let data = source.and_then(|source| source.data_volume.as_ref());
        if claim.is_some_and(|claim| claim.hotpluggable) || data.is_some_and(|d| d.hotpluggable) {
            return Some("it is hotplugged; put it into the VM and start that anew".to_owned());
        }
        if claim.is_some_and(|claim| claim.read_only) {
            return Some("its claim is readOnly; remove that".to_owned());
        }
        let Some(disk) = self.disk(volume) else {
            return Some("it has no disk; add it to spec.domain.devices.disks".to_owned());
        };
        disk.objection()
    }

    fn disk(&self, volume: &str) -> Option<&Disk> {
        let disks = &self.domain.devices.disks;
        disks.iter().find(|disk| disk.name == volume)
    }
}

impl Disk {
    fn objection(&self) -> Option<String> {
        let kind = if self.lun.is_some() { "lun" } else { "cdrom" };
        if self.lun.is_some() || self.cdrom.is_some() {
            return Some(format!("it is a {kind}; make it a disk"));
        }
        if self.shareable == Some(true) {
            return Some("it is shareable; remove that".to_owned());
        }
        let target = self.disk.clone().unwrap_or_default();
        if target.bus != "virtio" {
            let bus = if target.bus.is_empty() {
                "not said"
            } else {
                &target.bus
            };
            return Some(format!("its bus is {bus}; set bus: virtio"));
        }
        let read_only = "it is readonly; remove that";
        target.readonly.then(|| read_only.to_owned())
    }
}

/// The annotation's value; empty if it is not there.
pub(crate) fn listed(machine: &Machine) -> &str {
    let annotations = machine.metadata.annotations.as_ref();
    annotations
        .and_then(|all| all.get(VOLUMES_ANNOTATION))
        .map_or("", String::as_str)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn spec(disk: serde_json::Value, volume: serde_json::Value) -> MachineSpec {
        let spec = json!({
            "domain": {"devices": {"disks": [disk]}, "memory": {"guest": "1Gi"}},
            "volumes": [volume, {"name": "cloudinit", "cloudInitNoCloud": {}}]
        });
        serde_json::from_value(spec).unwrap()
    }

    fn plain_volume() -> serde_json::Value {
        json!({"name": "data", "persistentVolumeClaim": {"claimName": "claim"}})
    }

    #[test]
    fn claims_are_found_behind_both_kinds_of_volume() {
        let data = json!({"name": "root", "dataVolume": {"name": "image"}});
        for (volume, name, claim) in [(plain_volume(), "data", "claim"), (data, "root", "image")] {
            let found: Vec<_> = spec(json!({}), volume).claims().collect();
            let (name, claim) = (name.to_owned(), claim.to_owned());
            assert_eq!(found, [ClaimedVolume { name, claim }]);
        }
    }

    #[test]
    fn only_a_writable_virtio_disk_comes_from_a_socket() {
        let fine = json!({"name": "data", "disk": {"bus": "virtio"}});
        assert_eq!(spec(fine, plain_volume()).objection("data"), None);
        let cases = [
            (
                json!({"name": "data", "disk": {"bus": "sata"}}),
                "bus is sata",
            ),
            (json!({"name": "data"}), "bus is not said"),
            (json!({"name": "data", "lun": {"bus": "scsi"}}), "is a lun"),
            (
                json!({"name": "data", "cdrom": {"bus": "sata"}}),
                "is a cdrom",
            ),
            (
                json!({"name": "data", "disk": {"bus": "virtio", "readonly": true}}),
                "is readonly",
            ),
            (
                json!({"name": "data", "disk": {"bus": "virtio"}, "shareable": true}),
                "is shareable",
            ),
            (
                json!({"name": "other", "disk": {"bus": "virtio"}}),
                "has no disk",
            ),
        ];
        for (disk, words) in cases {
            let said = spec(disk, plain_volume()).objection("data").unwrap();
            assert!(said.contains(words), "{said}");
        }
    }

    #[test]
    fn volume_that_is_hotplugged_or_only_read_is_an_objection() {
        let fine = json!({"name": "data", "disk": {"bus": "virtio"}});
        for (source, words) in [
            (
                json!({"dataVolume": {"name": "image", "hotpluggable": true}}),
                "hotplugged",
            ),
            (
                json!({"persistentVolumeClaim": {"claimName": "claim", "hotpluggable": true}}),
                "hotplugged",
            ),
            (
                json!({"persistentVolumeClaim": {"claimName": "claim", "readOnly": true}}),
                "readOnly",
            ),
        ] {
            let mut volume = source;
            volume["name"] = json!("data");
            let said = spec(fine.clone(), volume).objection("data").unwrap();
            assert!(said.contains(words), "{said}");
        }
    }

    #[test]
    fn encrypted_memory_is_an_objection() {
        let spec = json!({"domain": {"launchSecurity": {"sev": {}}}, "volumes": [plain_volume()]});
        let spec: MachineSpec = serde_json::from_value(spec).unwrap();
        assert!(spec.objection("data").unwrap().contains("encrypted"));
    }
}
