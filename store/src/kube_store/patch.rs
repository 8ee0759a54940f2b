//! What a caller changed, as a JSON merge patch (RFC 7396): fields that this version does not know are left as they are.

use crate::StoreError;
use crate::object::{self, Object};
use serde_json::{Map, Value, json};

/// The patch for labels, annotations, finalizers and spec, or `None` if nothing changed.
pub(super) fn of_spec<K: Object>(old: &K, new: &K) -> Result<Option<Value>, StoreError> {
    between(old, new, |object| {
        let open = ["labels", "annotations", "finalizers"];
        json!({ "metadata": chosen(&object["metadata"], &open), "spec": object["spec"] })
    })
}

/// The patch for the status, or `None` if nothing changed.
pub(super) fn of_status<K: Object>(old: &K, new: &K) -> Result<Option<Value>, StoreError> {
    between(old, new, |object| chosen(object, &["status"]))
}

fn between<K: Object>(
    old: &K,
    new: &K,
    part: impl Fn(&Value) -> Value,
) -> Result<Option<Value>, StoreError> {
    let value = |object: &K| {
        serde_json::to_value(object).map_err(|error| StoreError::Unreadable {
            kind: K::kind(&()).into_owned(),
            name: object::name(object).to_owned(),
            problem: error.to_string(),
        })
    };
    let patch = difference(&part(&value(old)?), &part(&value(new)?));
    Ok(patch.map(|patch| at_version(patch, old)))
}

fn chosen(object: &Value, keys: &[&str]) -> Value {
    let field = |key: &&str| Some(((*key).to_owned(), object.get(key)?.clone()));
    Value::Object(keys.iter().filter_map(field).collect())
}

/// Bound to the version that was read: the server refuses the patch if the object has another by now.
fn at_version<K: Object>(mut patch: Value, old: &K) -> Value {
    patch["metadata"]["resourceVersion"] = json!(old.meta().resource_version);
    patch
}

fn difference(old: &Value, new: &Value) -> Option<Value> {
    if old == new {
        return None;
    }
    let (Value::Object(old), Value::Object(new)) = (old, new) else {
        return Some(new.clone());
    };
    let gone = old.keys().filter(|key| !new.contains_key(*key));
    let mut patch: Map<String, Value> = gone.map(|key| (key.clone(), Value::Null)).collect();
    for (key, value) in new {
        let before = old.get(key).unwrap_or(&Value::Null);
        if let Some(change) = difference(before, value) {
            patch.insert(key.clone(), change);
        }
    }
    Some(Value::Object(patch))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn difference_names_what_changed_and_nothing_else() {
        let old = json!({ "a": 1, "b": { "c": [1, 2], "d": "x" }, "gone": { "e": 1 } });
        let new = json!({ "a": 1, "b": { "c": [2], "d": "x" }, "fresh": { "f": 1 } });
        let patch = difference(&old, &new);
        let wanted = json!({ "b": { "c": [2] }, "gone": null, "fresh": { "f": 1 } });
        assert_eq!(patch, Some(wanted));
        assert_eq!(difference(&old, &old), None);
    }
}
