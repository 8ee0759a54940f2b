//! VolumeSession: a volume exported on a node, waiting for or serving a VM.

use crate::{Condition, schema};
use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// A volume exported on a node. Written when the volume is staged; the engine listens as long as it exists.
#[derive(CustomResource, Debug, Clone, PartialEq, Default, Serialize, Deserialize, KubeSchema)]
#[kube(
    group = "holdfast.dev",
    version = "v1alpha1",
    kind = "VolumeSession",
    plural = "volumesessions",
    shortname = "vs",
    category = "holdfast",
    doc = "A volume exported on a node. Written when the volume is staged; the engine listens as long as it exists.",
    status = "VolumeSessionStatus",
    derive = "PartialEq",
    selectable = ".spec.nodeName",
    validation = Rule::new("size(self.metadata.name) <= 63 && !self.metadata.name.contains('.')")
        .message("metadata.name may have 63 characters and no dot"),
    printcolumn(name = "Volume", type_ = "string", json_path = ".spec.volume"),
    printcolumn(name = "Node", type_ = "string", json_path = ".spec.nodeName"),
    printcolumn(name = "Exported", type_ = "string", json_path = ".status.conditions[?(@.type==\"Exported\")].status"),
    printcolumn(name = "Connected", type_ = "string", json_path = ".status.conditions[?(@.type==\"Connected\")].status"),
    printcolumn(name = "Pod", type_ = "string", json_path = ".spec.targets[0].podName"),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp"),
    printcolumn(name = "Namespace", type_ = "string", json_path = ".spec.targets[0].podNamespace", priority = 1),
    printcolumn(name = "Socket", type_ = "string", json_path = ".status.socketPath", priority = 1)
)]
#[serde(rename_all = "camelCase")]
pub struct VolumeSessionSpec {
    /// Name of the SplitVolume. Immutable.
    #[schemars(schema_with = "schema::object_name")]
    #[x_kube(validation = Rule::new("self == oldSelf").message("volume is immutable: stage the other volume"))]
    pub volume: String,
    /// Node that exports it. Immutable.
    #[schemars(schema_with = "schema::node_name")]
    #[x_kube(validation = Rule::new("self == oldSelf").message("nodeName is immutable: stage the volume on the other node"))]
    pub node_name: String,
    /// Staging path the caller gave.
    #[schemars(length(max = 4095))]
    pub staging_path: String,
    /// The access mode it was staged with, by its CSI name.
    #[schemars(length(max = 64), regex(pattern = "^[A-Z_]*$"))]
    pub access_mode: String,
    /// The guest may not write.
    #[serde(default)]
    pub read_only: bool,
    /// Most queues a front end may use.
    #[serde(default = "default_queues")]
    #[schemars(schema_with = "schema::queues")]
    pub queues: u16,
    /// Paths the socket's directory is published at.
    #[serde(default)]
    #[schemars(length(max = 256))]
    pub targets: Vec<PublishedTarget>,
}

fn default_queues() -> u16 {
    16
}

/// One publication of a session's directory.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct PublishedTarget {
    /// Where the directory is mounted.
    #[schemars(length(max = 4095))]
    pub path: String,
    /// The publication asked for read-only.
    #[serde(default)]
    pub read_only: bool,
    /// The access mode it was published with, by its CSI name.
    #[serde(default)]
    #[schemars(length(max = 64), regex(pattern = "^[A-Z_]*$"))]
    pub access_mode: String,
    /// UID of the pod it is for, if the caller said.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    #[schemars(length(max = 128))]
    pub pod_uid: String,
    /// Name of the pod it is for, if the caller said.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    #[schemars(length(max = 253))]
    pub pod_name: String,
    /// Namespace of the pod it is for, if the caller said.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    #[schemars(length(max = 63))]
    pub pod_namespace: String,
    /// Name of the VirtualMachineInstance that the pod runs, in the pod's namespace; empty if it runs none.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    #[schemars(length(max = 253))]
    pub machine: String,
}

/// What the node agent has done for the session.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct VolumeSessionStatus {
    /// The generation of the spec that this status answers.
    #[serde(default)]
    pub observed_generation: i64,
    /// The socket on the node.
    #[serde(default)]
    #[schemars(length(max = 107))]
    pub socket_path: String,
    /// Exported: the socket listens. Connected: a front end is there.
    #[serde(default)]
    #[schemars(schema_with = "schema::conditions")]
    pub conditions: Vec<Condition>,
}
