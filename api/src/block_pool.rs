//! BlockPool: a base device on a node, cut into volumes.

use crate::{Condition, Quantity, quantity, schema};
use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// A base device on one node that volumes are cut from.
#[derive(CustomResource, Debug, Clone, PartialEq, Default, Serialize, Deserialize, KubeSchema)]
#[kube(
    group = "holdfast.dev",
    version = "v1alpha1",
    kind = "BlockPool",
    plural = "blockpools",
    shortname = "bp",
    category = "holdfast",
    doc = "A base device on one node that volumes are cut from.",
    status = "BlockPoolStatus",
    derive = "PartialEq",
    selectable = ".spec.nodeName",
    validation = Rule::new("size(self.metadata.name) <= 63 && !self.metadata.name.contains('.')")
        .message("metadata.name may have 63 characters and no dot"),
    printcolumn(name = "Node", type_ = "string", json_path = ".spec.nodeName"),
    printcolumn(name = "Device", type_ = "string", json_path = ".status.identity"),
    printcolumn(name = "Capacity", type_ = "string", json_path = ".status.capacity"),
    printcolumn(name = "Free", type_ = "string", json_path = ".status.free"),
    printcolumn(name = "Largest", type_ = "string", json_path = ".status.largestFreeExtent"),
    printcolumn(name = "Volumes", type_ = "integer", json_path = ".status.volumes"),
    printcolumn(name = "Ready", type_ = "string", json_path = ".status.conditions[?(@.type==\"Ready\")].status"),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp"),
    printcolumn(name = "Erasing", type_ = "string", json_path = ".status.erasePending", priority = 1),
    printcolumn(name = "Cordoned", type_ = "boolean", json_path = ".spec.cordoned", priority = 1)
)]
#[serde(rename_all = "camelCase")]
pub struct BlockPoolSpec {
    /// Name of the node that the device is attached to. Immutable.
    #[schemars(schema_with = "schema::node_name")]
    #[x_kube(validation = Rule::new("self == oldSelf").message("nodeName is immutable: a drive that moves is a new BlockPool"))]
    pub node_name: String,
    /// Which device, by identity.
    pub device: DeviceMatch,
    /// For a pool in a file that does not exist yet: make it with this size.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::size")]
    pub size: Option<Quantity>,
    /// Take the device although it holds something that is not a pool. Its content is lost.
    #[serde(default)]
    pub force: bool,
    /// Give no new volumes. Those there are served as before.
    #[serde(default)]
    pub cordoned: bool,
}

/// How a device is recognised: by exactly one of path, serial and wwid.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    validation = Rule::new(
        "[has(self.path) && self.path != '', has(self.serial) && self.serial != '', has(self.wwid) && self.wwid != ''].filter(given, given).size() == 1"
    ).message("name the device by exactly one of path, serial and wwid"),
    validation = Rule::new("!has(self.namespaceId) || (has(self.serial) && self.serial != '')")
        .message("namespaceId goes with serial"),
)]
pub struct DeviceMatch {
    /// An absolute path that names the device by identity: a link below /dev/disk/by-id, or a regular file.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    #[schemars(length(max = 4095), regex(pattern = "^(/.*)?$"))]
    #[x_kube(validation = Rule::new("!self.matches('^/+dev/+[^/]+$') || self.matches('^/+dev/+loop')")
        .message("the kernel gives this name in order of discovery; name the drive by a link below /dev/disk/by-id, by serial or by wwid"))]
    pub path: String,
    /// The serial number of the drive.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    #[schemars(length(max = 128))]
    pub serial: String,
    /// With serial: which NVMe namespace of the drive. Left out, the drive must have exactly one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::namespace_id")]
    pub namespace_id: Option<u32>,
    /// The world-wide identifier that the kernel reports, such as `eui.0025385a91b02f3c` or `naa.5000c500a1b2c3d4`.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    #[schemars(length(max = 256))]
    pub wwid: String,
}

/// What the node agent sees of the device. Sizes are bytes here and read like `100Gi` in a manifest.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct BlockPoolStatus {
    /// The generation of the spec that this status answers.
    #[serde(default)]
    pub observed_generation: i64,
    /// UUID in the superblock: the pool is this and no other.
    #[serde(default)]
    #[schemars(length(max = 36))]
    pub pool_uuid: String,
    /// Identity of the device as recorded in the superblock.
    #[serde(default)]
    #[schemars(length(max = 4095))]
    pub identity: String,
    /// What volumes can use in all.
    #[serde(
        default,
        rename = "capacity",
        alias = "capacityBytes",
        with = "quantity::bytes"
    )]
    #[schemars(schema_with = "schema::reported_size")]
    pub capacity_bytes: u64,
    /// What belongs to volumes.
    #[serde(
        default,
        rename = "allocated",
        alias = "allocatedBytes",
        with = "quantity::bytes"
    )]
    #[schemars(schema_with = "schema::reported_size")]
    pub allocated_bytes: u64,
    /// What new volumes can have now.
    #[serde(
        default,
        rename = "free",
        alias = "freeBytes",
        with = "quantity::bytes"
    )]
    #[schemars(schema_with = "schema::reported_size")]
    pub free_bytes: u64,
    /// The largest piece of free space.
    #[serde(
        default,
        rename = "largestFreeExtent",
        alias = "largestFreeExtentBytes",
        with = "quantity::bytes"
    )]
    #[schemars(schema_with = "schema::reported_size")]
    pub largest_free_extent_bytes: u64,
    /// What belonged to deleted volumes and is still being erased.
    #[serde(
        default,
        rename = "erasePending",
        alias = "erasePendingBytes",
        with = "quantity::bytes"
    )]
    #[schemars(schema_with = "schema::reported_size")]
    pub erase_pending_bytes: u64,
    /// Number of volumes.
    #[serde(default)]
    pub volumes: i64,
    /// Ready: the device is open and its table is valid.
    #[serde(default)]
    #[schemars(schema_with = "schema::conditions")]
    pub conditions: Vec<Condition>,
}
