//! A manifest as text: strict where a person may have written it, because a misspelt key that is ignored is a wish unheard.

use super::file::Folder;
use crate::StoreError;
use crate::object::{self, Object};
use kube::core::TypeMeta;

/// Reads an object, or `None` if there is no file.
pub(super) fn read<K: Object>(folder: &Folder, name: &str) -> Result<Option<K>, StoreError> {
    let plural = object::plural::<K>();
    let Some(text) = folder.read(&plural, name)? else {
        return Ok(None);
    };
    parse(&text, name)
        .map(Some)
        .map_err(|problem| StoreError::Damaged {
            path: folder.path(&plural, name),
            problem,
        })
}

/// Writes an object durably.
pub(super) fn write<K: Object>(folder: &Folder, object: &K) -> Result<(), StoreError> {
    let (plural, name) = (object::plural::<K>(), object::name(object));
    let text = serde_yaml::to_string(object).map_err(|error| StoreError::Damaged {
        path: folder.path(&plural, name),
        problem: error.to_string(),
    })?;
    folder.write(&plural, name, text.as_bytes())
}

fn parse<K: Object>(text: &str, name: &str) -> Result<K, String> {
    if text.trim().is_empty() {
        return Err("the manifest is empty".to_owned());
    }
    let types: TypeMeta = serde_yaml::from_str(text).map_err(|error| error.to_string())?;
    let wanted = TypeMeta::resource::<K>();
    if types != wanted {
        return Err(format!(
            "it holds a {} of {}, not a {} of {}",
            types.kind, types.api_version, wanted.kind, wanted.api_version
        ));
    }
    let mut unknown = Vec::new();
    let reader = serde_yaml::Deserializer::from_str(text);
    let object: K = serde_ignored::deserialize(reader, |path| unknown.push(path.to_string()))
        .map_err(|error| error.to_string())?;
    // The derived reader does not know the two keys that were checked above.
    unknown.retain(|key| key != "apiVersion" && key != "kind");
    if !unknown.is_empty() {
        return Err(format!("unknown key {}", unknown.join(", ")));
    }
    if object::name(&object) != name {
        return Err(format!(
            "it names {:?} but its file is named for {name:?}",
            object::name(&object)
        ));
    }
    Ok(object)
}
