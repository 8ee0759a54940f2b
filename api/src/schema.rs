//! Pieces of the OpenAPI schema that the derives do not give: sizes, counts, names and conditions as an API server takes them.

use schemars::{Schema, SchemaGenerator, json_schema};

/// A size that a person may write: bytes, or a whole number with a suffix. Compared and grown by rules of the fields.
pub(crate) fn size(_: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "x-kubernetes-int-or-string": true,
        // Without a word, kube lets an optional one be null, which is neither a size nor absent.
        "nullable": false,
        "pattern": SIZE,
        "x-kubernetes-validations": [{
            "rule": "isQuantity(string(self)) && quantity(string(self)).isGreaterThan(quantity('0')) && quantity(string(self)).isLessThan(quantity('8Ei'))",
            "message": "must be a size below 8Ei, in bytes or with a suffix, as in 4Gi"
        }],
    })
}

/// A size as an agent reports it: `100Gi`, so that it reads well in a table.
pub(crate) fn reported_size(_: &mut SchemaGenerator) -> Schema {
    json_schema!({ "type": "string", "pattern": REPORTED_SIZE, "maxLength": 24 })
}

/// A number that is not negative. The formats of Rust's unsigned numbers are unknown to API servers.
pub(crate) fn count(_: &mut SchemaGenerator) -> Schema {
    json_schema!({ "type": "integer", "format": "int64", "minimum": 0 })
}

/// A rate, which cannot be zero: a volume that may never do anything is a mistake, not a limit.
pub(crate) fn rate(_: &mut SchemaGenerator) -> Schema {
    json_schema!({ "type": "integer", "format": "int64", "minimum": 1 })
}

/// How many queues a disk may have.
pub(crate) fn queues(_: &mut SchemaGenerator) -> Schema {
    json_schema!({ "type": "integer", "format": "int64", "minimum": 1, "maximum": 256 })
}

/// The number of an NVMe namespace.
pub(crate) fn namespace_id(_: &mut SchemaGenerator) -> Schema {
    json_schema!({ "type": "integer", "format": "int64", "minimum": 1, "maximum": 0xFFFF_FFFE_u32 })
}

/// Seconds.
pub(crate) fn seconds(_: &mut SchemaGenerator) -> Schema {
    json_schema!({ "type": "integer", "format": "int64", "minimum": 0, "maximum": u32::MAX })
}

/// A name of one of our objects, see [`check_object_name`](crate::check_object_name).
pub(crate) fn object_name(_: &mut SchemaGenerator) -> Schema {
    json_schema!({ "type": "string", "minLength": 1, "maxLength": 63, "pattern": OBJECT_NAME })
}

/// A name of a node, which may hold dots.
pub(crate) fn node_name(_: &mut SchemaGenerator) -> Schema {
    json_schema!({ "type": "string", "minLength": 1, "maxLength": 253, "pattern": NODE_NAME })
}

/// Conditions: one per type, each with the generation it answers.
pub(crate) fn conditions(_: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "type": "array",
        "maxItems": 16,
        "x-kubernetes-list-type": "map",
        "x-kubernetes-list-map-keys": ["type"],
        "items": condition(),
    })
}

fn condition() -> Schema {
    json_schema!({
        "type": "object",
        "description": "One thing that does or does not hold for the object.",
        "required": ["lastTransitionTime", "message", "reason", "status", "type"],
        "properties": {
            "type": {
                "description": "What the condition speaks of, in CamelCase.",
                "type": "string", "minLength": 1, "maxLength": 316, "pattern": "^[A-Za-z][A-Za-z0-9]*$"
            },
            "status": {
                "description": "Whether it holds.",
                "type": "string", "enum": ["True", "False", "Unknown"]
            },
            "reason": {
                "description": "Why, in one CamelCase word for programs.",
                "type": "string", "minLength": 1, "maxLength": 1024, "pattern": "^[A-Za-z][A-Za-z0-9]*$"
            },
            "message": {
                "description": "Why, in a sentence for people.",
                "type": "string", "maxLength": crate::condition::MESSAGE_CHARS_MAX
            },
            "observedGeneration": {
                "description": "The generation of the spec that the condition answers.",
                "type": "integer", "format": "int64", "minimum": 0
            },
            "lastTransitionTime": {
                "description": "When the status last changed.",
                "type": "string", "format": "date-time"
            },
        },
    })
}

const SIZE: &str = "^[0-9]{1,19}(Ki|Mi|Gi|Ti|Pi|Ei|k|M|G|T|P|E)?$";
const REPORTED_SIZE: &str = "^[0-9]{1,19}(Ki|Mi|Gi|Ti)?$";
const OBJECT_NAME: &str = "^[a-z0-9]([-a-z0-9]*[a-z0-9])?$";
const NODE_NAME: &str = "^[a-z0-9]([-.a-z0-9]*[a-z0-9])?$";
