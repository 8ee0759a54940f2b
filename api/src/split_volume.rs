//! SplitVolume: a volume cut from a pool.

use crate::{Condition, Quantity, quantity, schema};
use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// A volume cut from a BlockPool. Its name is the CSI volume id.
#[derive(CustomResource, Debug, Clone, PartialEq, Default, Serialize, Deserialize, KubeSchema)]
#[kube(
    group = "holdfast.dev",
    version = "v1alpha1",
    kind = "SplitVolume",
    plural = "splitvolumes",
    shortname = "sv",
    category = "holdfast",
    doc = "A volume cut from a BlockPool. Its name is the CSI volume id.",
    status = "SplitVolumeStatus",
    derive = "PartialEq",
    selectable = ".spec.nodeName",
    validation = Rule::new("size(self.metadata.name) <= 63 && !self.metadata.name.contains('.')")
        .message("metadata.name may have 63 characters and no dot"),
    // A size that was asked for in vain is taken back: that shrinks a wish, not a volume.
    validation = Rule::new("quantity(string(self.spec.size)).compareTo(quantity(string(oldSelf.spec.size))) >= 0 || (has(self.status) && has(self.status.size) && quantity(string(self.spec.size)).compareTo(quantity(self.status.size)) >= 0)")
        .message("size may grow, never shrink below what is on the drive"),
    printcolumn(name = "Pool", type_ = "string", json_path = ".spec.pool"),
    printcolumn(name = "Node", type_ = "string", json_path = ".spec.nodeName"),
    printcolumn(name = "Size", type_ = "string", json_path = ".spec.size"),
    printcolumn(name = "Ready", type_ = "string", json_path = ".status.conditions[?(@.type==\"Ready\")].status"),
    printcolumn(name = "Claim", type_ = "string", json_path = ".spec.claim.name"),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp"),
    printcolumn(name = "Namespace", type_ = "string", json_path = ".spec.claim.namespace", priority = 1),
    printcolumn(name = "IOPS", type_ = "integer", json_path = ".spec.qos.iops", priority = 1),
    printcolumn(name = "BPS", type_ = "integer", json_path = ".spec.qos.bps", priority = 1),
    printcolumn(name = "Reason", type_ = "string", json_path = ".status.conditions[?(@.type==\"Ready\")].reason", priority = 1)
)]
#[serde(rename_all = "camelCase")]
pub struct SplitVolumeSpec {
    /// Node that holds the pool. Immutable.
    #[schemars(schema_with = "schema::node_name")]
    #[x_kube(validation = Rule::new("self == oldSelf").message("nodeName is immutable: a volume lives on the drive it was cut from"))]
    pub node_name: String,
    /// Name of the BlockPool. Immutable.
    #[schemars(schema_with = "schema::object_name")]
    #[x_kube(validation = Rule::new("self == oldSelf").message("pool is immutable: a volume lives on the drive it was cut from"))]
    pub pool: String,
    /// Size; may grow, never shrink. A multiple of 1Mi.
    #[schemars(schema_with = "schema::size")]
    pub size: Quantity,
    /// The CSI name the volume was asked for under, where it differs from the object's name.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    #[schemars(length(max = 512))]
    pub requested_name: String,
    /// What a VM sees when the drive is lost.
    #[serde(default)]
    pub on_device_loss: OnDeviceLoss,
    /// With `hold`: how long requests wait for the drive to return, in seconds, before they fail.
    #[serde(default = "default_hold_seconds")]
    #[schemars(schema_with = "schema::seconds")]
    pub hold_seconds: u32,
    /// How much the VM may do per second. Left out: as much as the drive gives. May change at any time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Qos")]
    pub qos: Option<Qos>,
    /// The claim that the volume was made for, where one is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "ClaimRef")]
    pub claim: Option<ClaimRef>,
}

fn default_hold_seconds() -> u32 {
    60
}

/// What a VM sees when the drive behind its disk is lost.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub enum OnDeviceLoss {
    /// Requests wait up to holdSeconds for the same drive to return, then fail.
    #[default]
    Hold,
    /// Requests fail at once.
    Fail,
}

/// Limits of a volume. A burst is what may be done at once after a pause.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    validation = Rule::new("!has(self.iopsBurst) || has(self.iops)").message("iopsBurst needs iops"),
    validation = Rule::new("!has(self.bpsBurst) || has(self.bps)").message("bpsBurst needs bps"),
)]
pub struct Qos {
    /// Requests per second.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::rate")]
    pub iops: Option<u64>,
    /// Requests at once after a pause. Needs iops.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::rate")]
    pub iops_burst: Option<u64>,
    /// Bytes per second.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::rate")]
    pub bps: Option<u64>,
    /// Bytes at once after a pause. Needs bps.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::rate")]
    pub bps_burst: Option<u64>,
}

/// The claim and the persistent volume that a volume was made for.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ClaimRef {
    /// Namespace of the PersistentVolumeClaim.
    #[schemars(length(max = 63))]
    pub namespace: String,
    /// Name of the PersistentVolumeClaim.
    #[schemars(length(max = 253))]
    pub name: String,
    /// Name of the PersistentVolume.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    #[schemars(length(max = 253))]
    pub persistent_volume: String,
}

/// What the node agent has done for the volume.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct SplitVolumeStatus {
    /// The generation of the spec that this status answers.
    #[serde(default)]
    pub observed_generation: i64,
    /// Size on the drive: bytes here, `4Gi` in a manifest.
    #[serde(
        default,
        rename = "size",
        alias = "sizeBytes",
        with = "quantity::bytes"
    )]
    #[schemars(schema_with = "schema::reported_size")]
    pub size_bytes: u64,
    /// Where the volume lies, in order.
    #[serde(default)]
    #[schemars(length(max = 1024))]
    pub extents: Vec<ExtentStatus>,
    /// Allocated, Ready, and Quarantined while it is deleted.
    #[serde(default)]
    #[schemars(schema_with = "schema::conditions")]
    pub conditions: Vec<Condition>,
}

/// One piece of a volume on its pool's device.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ExtentStatus {
    /// First byte on the device.
    #[schemars(schema_with = "schema::count")]
    pub offset_bytes: u64,
    /// Bytes.
    #[schemars(schema_with = "schema::count")]
    pub length_bytes: u64,
}
