//! OrphanExtent: a volume on a drive that no object speaks of.

use crate::{Condition, ExtentStatus, Quantity, schema};
use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// A volume found on a drive that no SplitVolume speaks of. Its space is kept until a person deletes this object: that means
/// "erase it and free the space".
#[derive(CustomResource, Debug, Clone, PartialEq, Default, Serialize, Deserialize, KubeSchema)]
#[kube(
    group = "holdfast.dev",
    version = "v1alpha1",
    kind = "OrphanExtent",
    plural = "orphanextents",
    shortname = "oe",
    category = "holdfast",
    doc = "A volume found on a drive that no SplitVolume speaks of. To delete this object means: erase it and free the space.",
    status = "OrphanExtentStatus",
    derive = "PartialEq",
    selectable = ".spec.nodeName",
    validation = Rule::new("size(self.metadata.name) <= 63 && !self.metadata.name.contains('.')")
        .message("metadata.name may have 63 characters and no dot"),
    printcolumn(name = "Node", type_ = "string", json_path = ".spec.nodeName"),
    printcolumn(name = "Pool", type_ = "string", json_path = ".spec.pool"),
    printcolumn(name = "Volume", type_ = "string", json_path = ".spec.volumeId"),
    printcolumn(name = "Size", type_ = "string", json_path = ".spec.size"),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp")
)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new("self == oldSelf").message("what was found does not change; delete the object to erase it"))]
pub struct OrphanExtentSpec {
    /// Node that found it.
    #[schemars(schema_with = "schema::node_name")]
    pub node_name: String,
    /// Name of the BlockPool it lies on.
    #[schemars(schema_with = "schema::object_name")]
    pub pool: String,
    /// Id of the volume in the table on the drive.
    #[schemars(length(min = 1, max = 253))]
    pub volume_id: String,
    /// Size on the drive.
    #[schemars(schema_with = "schema::size")]
    pub size: Quantity,
    /// Where it lies, in order.
    #[serde(default)]
    #[schemars(length(max = 1024))]
    pub extents: Vec<ExtentStatus>,
}

/// What the node agent does about it.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct OrphanExtentStatus {
    /// The generation of the spec that this status answers.
    #[serde(default)]
    pub observed_generation: i64,
    /// Quarantined, once the object is deleted and the space is given to be erased.
    #[serde(default)]
    #[schemars(schema_with = "schema::conditions")]
    pub conditions: Vec<Condition>,
}
