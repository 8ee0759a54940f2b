//! VolumeSession: a volume exported on a node, waiting for or serving a VM.

use crate::Condition;
use kube::CustomResource;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// A volume exported on a node. Written when the volume is staged; the engine listens as long as it exists.
#[derive(CustomResource, Debug, Clone, PartialEq, Default, Serialize, Deserialize, JsonSchema)]
#[kube(
    group = "holdfast.dev",
    version = "v1alpha1",
    kind = "VolumeSession",
    plural = "volumesessions",
    shortname = "vs",
    category = "holdfast",
    status = "VolumeSessionStatus",
    derive = "PartialEq",
    selectable = ".spec.nodeName",
    printcolumn = r#"{"name":"Volume","type":"string","jsonPath":".spec.volume"}"#,
    printcolumn = r#"{"name":"Node","type":"string","jsonPath":".spec.nodeName"}"#,
    printcolumn = r#"{"name":"Exported","type":"string","jsonPath":".status.conditions[?(@.type==\"Exported\")].status"}"#,
    printcolumn = r#"{"name":"Connected","type":"string","jsonPath":".status.conditions[?(@.type==\"Connected\")].status"}"#,
    printcolumn = r#"{"name":"Age","type":"date","jsonPath":".metadata.creationTimestamp"}"#
)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct VolumeSessionSpec {
    /// Name of the SplitVolume. Immutable.
    pub volume: String,
    /// Node that exports it. Immutable.
    pub node_name: String,
    /// Staging path the caller gave.
    pub staging_path: String,
    /// The access mode it was staged with, by its CSI name.
    pub access_mode: String,
    /// The guest may not write.
    #[serde(default)]
    pub read_only: bool,
    /// Most queues a front end may use.
    #[serde(default = "default_queues")]
    pub queues: u16,
    /// Paths the socket's directory is published at.
    #[serde(default)]
    pub targets: Vec<PublishedTarget>,
}

fn default_queues() -> u16 {
    16
}

/// One publication of a session's directory.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct PublishedTarget {
    /// Where the directory is mounted.
    pub path: String,
    /// The publication asked for read-only.
    #[serde(default)]
    pub read_only: bool,
    /// The access mode it was published with, by its CSI name.
    #[serde(default)]
    pub access_mode: String,
    /// UID of the pod it is for, if the caller said.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub pod_uid: String,
}

/// What the node agent has done for the session.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct VolumeSessionStatus {
    /// The generation of the spec that this status answers.
    #[serde(default)]
    pub observed_generation: i64,
    /// The socket on the node.
    #[serde(default)]
    pub socket_path: String,
    /// Exported: the socket listens. Connected: a front end is there.
    #[serde(default)]
    pub conditions: Vec<Condition>,
}
