//! The list of hook sidecars on a machine: what others wrote stays, ours comes behind it, once.

use json_patch::jsonptr::PointerBuf;
use json_patch::{AddOperation, Patch, PatchOperation};
use serde_json::{Map, Value, json};
use std::collections::BTreeMap;

/// KubeVirt's annotation: a JSON list of sidecars.
pub(super) const SIDECARS_ANNOTATION: &str = "hooks.kubevirt.io/hookSidecars";
/// Kubernetes' limit on all annotations of an object. A machine that we push beyond it would be refused.
const ANNOTATIONS_BYTES_MAX: usize = 256 << 10;
/// The subcommand of our image; an entry that says it is ours, whatever its image.
const SUBCOMMAND: &str = "kubevirt-hook";

/// The image that a hook sidecar runs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HookImage {
    /// As a pod names it; it must hold `/holdfast`.
    pub image: String,
    /// `Always`, `IfNotPresent` or `Never`.
    pub pull_policy: String,
}

/// Why the list cannot be added to.
#[derive(Debug, thiserror::Error)]
pub(super) enum SidecarsError {
    #[error("annotation {SIDECARS_ANNOTATION} is no JSON list of objects: {0}")]
    Malformed(#[from] serde_json::Error),
    #[error("with the hook, the annotations would have {0} bytes; Kubernetes takes 262144")]
    TooLarge(usize),
}

/// A machine's annotations, as they came.
pub(super) type Annotations = BTreeMap<String, String>;

/// The JSON patch that adds our hook; none if the machine has it already.
///
/// # Errors
/// When what is there cannot be added to.
pub(super) fn with_hook(
    annotations: Option<&Annotations>,
    hook: &HookImage,
) -> Result<Option<Patch>, SidecarsError> {
    let none = Annotations::new();
    let all = annotations.unwrap_or(&none);
    let there = all.get(SIDECARS_ANNOTATION);
    let mut sidecars = there.map_or(Ok(Vec::new()), |text| list(text))?;
    if sidecars.iter().any(is_ours) {
        return Ok(None);
    }
    sidecars.push(entry(hook));
    let text = serde_json::to_string(&sidecars)?;
    let others = all.iter().filter(|(key, _)| *key != SIDECARS_ANNOTATION);
    let others: usize = others.map(|(key, value)| key.len() + value.len()).sum();
    let bytes = others + SIDECARS_ANNOTATION.len() + text.len();
    if bytes > ANNOTATIONS_BYTES_MAX {
        return Err(SidecarsError::TooLarge(bytes));
    }
    let made = annotations
        .is_none()
        .then(|| add(&["metadata", "annotations"], json!({})));
    let path = ["metadata", "annotations", SIDECARS_ANNOTATION];
    let added = add(&path, json!(text));
    Ok(Some(Patch(made.into_iter().chain([added]).collect())))
}

fn add(path: &[&str], value: Value) -> PatchOperation {
    PatchOperation::Add(AddOperation {
        path: PointerBuf::from_tokens(path.iter().copied()),
        value,
    })
}

/// KubeVirt takes `null` for the empty list, so it is one.
fn list(text: &str) -> Result<Vec<Map<String, Value>>, serde_json::Error> {
    let read: Option<Vec<Map<String, Value>>> = serde_json::from_str(text)?;
    Ok(read.unwrap_or_default())
}

fn is_ours(sidecar: &Map<String, Value>) -> bool {
    let words = ["command", "args"].into_iter();
    let mut words = words
        .filter_map(|key| sidecar.get(key)?.as_array())
        .flatten();
    words.any(|word| word == SUBCOMMAND)
}

fn entry(hook: &HookImage) -> Map<String, Value> {
    let fields = [
        ("image", json!(hook.image)),
        ("imagePullPolicy", json!(hook.pull_policy)),
        ("command", json!(["/holdfast"])),
        ("args", json!([SUBCOMMAND])),
    ];
    fields
        .map(|(key, value)| (key.to_owned(), value))
        .into_iter()
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hook() -> HookImage {
        HookImage {
            image: "registry/holdfast:1".to_owned(),
            pull_policy: "IfNotPresent".to_owned(),
        }
    }

    fn annotated(value: &str) -> Annotations {
        let mut annotations = Annotations::new();
        annotations.insert(SIDECARS_ANNOTATION.to_owned(), value.to_owned());
        annotations.insert("other/key".to_owned(), "kept".to_owned());
        annotations
    }

    /// The object as the API server makes it of the patch.
    fn patched(annotations: Option<&Annotations>) -> Value {
        let mut machine = json!({"metadata": {"name": "vm"}});
        if let Some(annotations) = annotations {
            machine["metadata"]["annotations"] = json!(annotations);
        }
        let patch = with_hook(annotations, &hook()).unwrap().unwrap();
        json_patch::patch(&mut machine, &patch).unwrap();
        machine
    }

    fn sidecars(machine: &Value) -> Vec<Value> {
        let text = &machine["metadata"]["annotations"][SIDECARS_ANNOTATION];
        serde_json::from_str(text.as_str().unwrap()).unwrap()
    }

    #[test]
    fn machine_without_annotations_gets_one_whole_entry() {
        let entry = json!({
            "image": "registry/holdfast:1", "imagePullPolicy": "IfNotPresent",
            "command": ["/holdfast"], "args": ["kubevirt-hook"]
        });
        assert_eq!(sidecars(&patched(None)), std::slice::from_ref(&entry));
        assert_eq!(sidecars(&patched(Some(&Annotations::new()))), [entry]);
    }

    #[test]
    fn entries_and_annotations_of_others_stay_in_front() {
        let theirs = r#"[{"image": "a", "unknown": {"b": [1.5]}}, {"args": ["--x"]}]"#;
        let machine = patched(Some(&annotated(theirs)));
        let all = sidecars(&machine);
        assert_eq!(all[0], json!({"image": "a", "unknown": {"b": [1.5]}}));
        assert_eq!(all[1], json!({"args": ["--x"]}));
        assert_eq!(all.len(), 3);
        assert_eq!(machine["metadata"]["annotations"]["other/key"], "kept");
    }

    #[test]
    fn null_and_the_empty_list_are_lists() {
        for text in ["null", "[]", " [ ] "] {
            assert_eq!(sidecars(&patched(Some(&annotated(text)))).len(), 1);
        }
    }

    #[test]
    fn machine_that_has_the_hook_is_left_alone_whatever_the_image() {
        let once = patched(None);
        let written = once["metadata"]["annotations"][SIDECARS_ANNOTATION].as_str();
        for text in [
            written.unwrap(),
            r#"[{"image":"x"},{"image":"old:0","command":["/holdfast"],"args":["kubevirt-hook"]}]"#,
            r#"[{"command":["/holdfast","kubevirt-hook","--socket=/s"]}]"#,
        ] {
            assert!(
                with_hook(Some(&annotated(text)), &hook())
                    .unwrap()
                    .is_none()
            );
        }
    }

    #[test]
    fn list_that_is_none_is_an_error() {
        for text in ["", "{}", "[1]", "[null]", "[{]", "[{}] x", "\"[]\""] {
            let said = with_hook(Some(&annotated(text)), &hook());
            assert!(
                matches!(said, Err(SidecarsError::Malformed(_))),
                "{text:?} was taken"
            );
        }
    }

    #[test]
    fn annotations_grow_to_the_limit_of_kubernetes_and_not_beyond() {
        let bytes = |annotations: &Annotations| -> usize {
            annotations.iter().map(|(k, v)| k.len() + v.len()).sum()
        };
        let mut annotations = annotated("[]");
        let grown =
            serde_json::from_value(patched(Some(&annotations))["metadata"]["annotations"].take());
        let room = ANNOTATIONS_BYTES_MAX - bytes(&grown.unwrap());
        let fill = "x".repeat(room - "fill".len());
        annotations.insert("fill".to_owned(), fill.clone());
        assert!(with_hook(Some(&annotations), &hook()).is_ok());
        annotations.insert("fill".to_owned(), fill + "x");
        let said = with_hook(Some(&annotations), &hook()).unwrap_err();
        assert!(
            said.to_string().contains("would have 262145 bytes"),
            "{said}"
        );
    }
}
