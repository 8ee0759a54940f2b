//! The definitions of the kinds as an API server gets them: every field described and bounded, every rule held. The same rules are
//! tried on a real API server in `tests/cluster/tests/store.rs`.

use holdfast_api::{BlockPool, OrphanExtent, SplitVolume, VolumeSession, events};
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::CustomResourceExt;
use kube::core::cel::Validator;
use serde_json::{Value, json};
use std::collections::BTreeSet;

fn definitions() -> [CustomResourceDefinition; 4] {
    [
        BlockPool::crd(),
        SplitVolume::crd(),
        VolumeSession::crd(),
        OrphanExtent::crd(),
    ]
}

fn schema(definition: &CustomResourceDefinition) -> Value {
    let schema = definition.spec.versions[0].schema.as_ref();
    let schema = schema.and_then(|schema| schema.open_api_v3_schema.as_ref());
    serde_json::to_value(schema.expect("a schema")).expect("a schema is JSON")
}

/// Calls `look` with every field below spec and status, and its path.
fn walk(path: &str, schema: &Value, look: &mut impl FnMut(&str, &Value)) {
    let fields = schema.get("properties").and_then(Value::as_object);
    for (name, field) in fields.into_iter().flatten() {
        let path = format!("{path}.{name}");
        look(&path, field);
        walk(&path, field, look);
        if let Some(items) = field.get("items") {
            walk(&format!("{path}[]"), items, look);
        }
    }
}

fn every_field(mut look: impl FnMut(&str, &Value)) -> usize {
    let mut fields = 0;
    for definition in definitions() {
        walk(
            &definition.spec.names.kind,
            &schema(&definition),
            &mut |path, field| {
                fields += 1;
                look(path, field);
            },
        );
    }
    fields
}

#[test]
fn every_field_of_every_kind_says_what_it_is() {
    let fields = every_field(|path, field| {
        let said = field.get("description").and_then(Value::as_str);
        // The two fields that every kind has are described by the API server itself.
        let is_root = path.ends_with(".spec") || path.ends_with(".status");
        assert!(
            is_root || said.is_some_and(|said| said.len() > 5),
            "{path}: {said:?}"
        );
    });
    assert!(fields > 60, "only {fields} fields were seen");
}

#[test]
fn every_field_has_an_end() {
    every_field(|path, field| {
        let kind = field.get("type").and_then(Value::as_str);
        let has = |key: &str| field.get(key).is_some();
        let bounded = match kind {
            Some("string") => has("maxLength") || has("enum") || field["format"] == "date-time",
            Some("array") => has("maxItems"),
            Some("object" | "boolean" | "integer") => true,
            None => field["x-kubernetes-int-or-string"] == true && has("pattern"),
            Some(_) => false,
        };
        assert!(bounded, "{path} has no bound: {field}");
        let known = ["int64", "date-time"];
        let format = field.get("format").and_then(Value::as_str);
        assert!(
            format.is_none_or(|format| known.contains(&format)),
            "{path}: {format:?}"
        );
        // A status that nobody has written yet may be null.
        let may_be_null = path.ends_with(".status") && path.matches('.').count() == 1;
        assert!(
            may_be_null || field["nullable"] != true,
            "{path} may be null"
        );
        for odd in [
            "x-kubernetes-preserve-unknown-fields",
            "additionalProperties",
            "anyOf",
            "oneOf",
        ] {
            assert!(!has(odd), "{path} has {odd}");
        }
    });
}

#[test]
fn conditions_are_a_map_by_type_with_the_generation_they_answer() {
    let mut seen = 0;
    every_field(|path, field| {
        if path.ends_with(".conditions") {
            seen += 1;
            assert_eq!(field["x-kubernetes-list-type"], "map", "{path}");
            assert_eq!(
                field["x-kubernetes-list-map-keys"],
                json!(["type"]),
                "{path}"
            );
            assert!(
                field["items"]["properties"]
                    .get("observedGeneration")
                    .is_some()
            );
        }
    });
    assert_eq!(seen, 4);
}

#[test]
fn kinds_can_be_named_selected_and_read_in_a_table() {
    for definition in definitions() {
        let names = &definition.spec.names;
        let version = &definition.spec.versions[0];
        let selectable = version
            .selectable_fields
            .as_ref()
            .expect("selectable fields");
        assert!(
            selectable
                .iter()
                .any(|field| field.json_path == ".spec.nodeName"),
            "{names:?}"
        );
        assert!(
            version
                .subresources
                .as_ref()
                .is_some_and(|sub| sub.status.is_some())
        );
        assert_eq!(definition.spec.scope, "Cluster");
        assert!(
            names.short_names.is_some() && names.categories.is_some(),
            "{names:?}"
        );
        let columns = version
            .additional_printer_columns
            .as_ref()
            .expect("columns");
        let name: Vec<&str> = columns.iter().map(|column| column.name.as_str()).collect();
        assert!(name.contains(&"Node") && name.contains(&"Age"), "{name:?}");
        let described = schema(&definition).get("description").cloned();
        let described = described.as_ref().and_then(Value::as_str);
        assert!(
            described.is_some_and(|said| !said.contains("Auto-generated")),
            "{described:?}"
        );
    }
}

#[test]
fn reasons_of_events_are_words_of_their_own() {
    let distinct: BTreeSet<&str> = events::ALL.iter().copied().collect();
    assert_eq!(distinct.len(), events::ALL.len());
    for reason in events::ALL {
        let is_camel =
            reason.starts_with(char::is_uppercase) && reason.chars().all(char::is_alphanumeric);
        assert!(is_camel && reason.len() <= 128, "{reason}");
    }
}

/// What breaks, in the words of the rules; empty if all is well.
fn problems(definition: &CustomResourceDefinition, new: &Value, old: Option<&Value>) -> String {
    match Validator::new().validate(&schema(definition), new, old) {
        Ok(()) => String::new(),
        Err(problems) => problems.to_string(),
    }
}

fn volume(spec: Value) -> Value {
    let mut object = json!({ "metadata": { "name": "a" }, "spec": { "nodeName": "n1", "pool": "p", "size": "1Gi" } });
    for (key, value) in spec.as_object().expect("fields of a spec") {
        object["spec"][key] = value.clone();
    }
    object
}

fn pool(device: Value) -> Value {
    json!({ "metadata": { "name": "a" }, "spec": { "nodeName": "n1", "device": device } })
}

#[test]
fn volume_keeps_its_place_and_never_shrinks() {
    let (kind, old) = (SplitVolume::crd(), volume(json!({})));
    let cases = [
        (json!({}), ""),
        (json!({ "size": "2Gi" }), ""),
        (json!({ "size": "1025Mi" }), ""),
        (json!({ "size": "1023Mi" }), "never shrink"),
        (json!({ "nodeName": "n2" }), "nodeName is immutable"),
        (json!({ "pool": "q" }), "pool is immutable"),
        (json!({ "qos": { "iops": 1 } }), ""),
    ];
    for (change, word) in cases {
        let said = problems(&kind, &volume(change.clone()), Some(&old));
        assert!(
            said.contains(word) && said.is_empty() == word.is_empty(),
            "{change}: {said:?}"
        );
    }
}

#[test]
fn burst_without_its_rate_is_refused() {
    let kind = SplitVolume::crd();
    let cases = [
        (json!({ "iops": 1, "iopsBurst": 2 }), ""),
        (json!({ "bps": 1, "bpsBurst": 2 }), ""),
        (json!({ "iopsBurst": 2 }), "iopsBurst needs iops"),
        (json!({ "iops": 1, "bpsBurst": 2 }), "bpsBurst needs bps"),
    ];
    for (qos, word) in cases {
        let said = problems(&kind, &volume(json!({ "qos": qos })), None);
        assert!(
            said.contains(word) && said.is_empty() == word.is_empty(),
            "{qos}: {said:?}"
        );
    }
}

#[test]
fn device_is_named_once_and_by_identity() {
    let kind = BlockPool::crd();
    let cases = [
        (json!({ "path": "/dev/disk/by-id/nvme-x" }), ""),
        (json!({ "path": "/var/lib/pool.img" }), ""),
        (json!({ "path": "/dev/loop3" }), ""),
        (json!({ "serial": "S", "namespaceId": 1 }), ""),
        (json!({ "wwid": "eui.1" }), ""),
        (json!({}), "exactly one"),
        (json!({ "serial": "" }), "exactly one"),
        (json!({ "serial": "S", "wwid": "eui.1" }), "exactly one"),
        (
            json!({ "wwid": "eui.1", "namespaceId": 1 }),
            "goes with serial",
        ),
        (json!({ "path": "/dev/nvme0n1" }), "order of discovery"),
        (json!({ "path": "/dev/sda" }), "order of discovery"),
        (json!({ "path": "/dev/vdb1" }), "order of discovery"),
    ];
    for (device, word) in cases {
        let said = problems(&kind, &pool(device.clone()), None);
        assert!(
            said.contains(word) && said.is_empty() == word.is_empty(),
            "{device}: {said:?}"
        );
    }
}
