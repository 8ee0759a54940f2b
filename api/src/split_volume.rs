//! SplitVolume: a volume cut from a pool.

use crate::{Condition, Quantity};
use kube::CustomResource;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// A volume cut from a BlockPool. Its name is the CSI volume id.
#[derive(CustomResource, Debug, Clone, PartialEq, Default, Serialize, Deserialize, JsonSchema)]
#[kube(
    group = "holdfast.dev",
    version = "v1alpha1",
    kind = "SplitVolume",
    plural = "splitvolumes",
    shortname = "sv",
    category = "holdfast",
    status = "SplitVolumeStatus",
    derive = "PartialEq",
    selectable = ".spec.nodeName",
    printcolumn = r#"{"name":"Pool","type":"string","jsonPath":".spec.pool"}"#,
    printcolumn = r#"{"name":"Node","type":"string","jsonPath":".spec.nodeName"}"#,
    printcolumn = r#"{"name":"Size","type":"string","jsonPath":".spec.size"}"#,
    printcolumn = r#"{"name":"Ready","type":"string","jsonPath":".status.conditions[?(@.type==\"Ready\")].status"}"#,
    printcolumn = r#"{"name":"Age","type":"date","jsonPath":".metadata.creationTimestamp"}"#
)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct SplitVolumeSpec {
    /// Node that holds the pool. Immutable.
    pub node_name: String,
    /// Name of the BlockPool. Immutable.
    pub pool: String,
    /// Size; may grow, never shrink. A multiple of 1Mi.
    pub size: Quantity,
    /// The CSI name the volume was asked for under, where it differs from the object's name.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub requested_name: String,
    /// What a VM sees when the drive is lost.
    #[serde(default)]
    pub on_device_loss: OnDeviceLoss,
    /// With `hold`: how long requests wait for the drive to return, in seconds, before they fail.
    #[serde(default = "default_hold_seconds")]
    pub hold_seconds: u32,
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

/// What the node agent has done for the volume.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct SplitVolumeStatus {
    /// The generation of the spec that this status answers.
    #[serde(default)]
    pub observed_generation: i64,
    /// Size on the drive in bytes.
    #[serde(default)]
    pub size_bytes: u64,
    /// Where the volume lies, in order.
    #[serde(default)]
    pub extents: Vec<ExtentStatus>,
    /// Allocated, Ready, and Quarantined while it is deleted.
    #[serde(default)]
    pub conditions: Vec<Condition>,
}

/// One piece of a volume on its pool's device.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ExtentStatus {
    /// First byte on the device.
    pub offset_bytes: u64,
    /// Bytes.
    pub length_bytes: u64,
}
