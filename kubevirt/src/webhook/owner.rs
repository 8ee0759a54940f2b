//! Whose a claim is, before there is a volume behind it: by the provisioner that will make the volume.
//!
//! A machine is created before its claims are bound, often before they are there. Its hook must be known by then, because
//! KubeVirt reads it once, when it makes the machine's pod.

use crate::claims::{Behind, bound_to, read};
use crate::error::ClusterError;
use holdfast_api::DRIVER_NAME;
use k8s_openapi::api::storage::v1::StorageClass;
use kube::api::{ApiResource, DynamicObject, ListParams};
use kube::core::GroupVersionKind;
use kube::{Api, Client, ResourceExt};
use std::cmp::Reverse;

/// Who serves a claim.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Owner {
    Holdfast,
    Somebody,
    /// Nobody can say yet, and why.
    Unknown(String),
}

/// Asks the cluster whose claims are.
#[derive(Clone)]
pub(super) struct Owners {
    pub(super) client: Client,
}

/// KubeVirt's own default beats the cluster's for a DataVolume.
const DEFAULT_FOR_MACHINES: &str = "storageclass.kubevirt.io/is-default-virt-class";
const DEFAULT: &str = "storageclass.kubernetes.io/is-default-class";
/// Where a DataVolume names its class, in its two forms.
const CLASS_OF_DATA_VOLUME: [&str; 2] = [
    "/spec/storage/storageClassName",
    "/spec/pvc/storageClassName",
];

impl Owners {
    /// Whose a claim is, or will be.
    ///
    /// # Errors
    /// When the cluster cannot be asked.
    pub(super) async fn of(&self, namespace: &str, claim: &str) -> Result<Owner, ClusterError> {
        let Some(spec) = read(&self.client, namespace, claim).await? else {
            return self.of_data_volume(namespace, claim).await;
        };
        match bound_to(&self.client, &spec).await? {
            Behind::Ours { .. } | Behind::OursAsBlock => Ok(Owner::Holdfast),
            Behind::Foreign => Ok(Owner::Somebody),
            Behind::Unbound => match spec.storage_class_name.as_deref() {
                Some("") => Ok(unknown(format!("claim {claim} has no class and no volume"))),
                Some(class) => self.of_class(class).await,
                None => self.of_default(&[DEFAULT]).await,
            },
        }
    }

    /// A DataVolume makes a claim of its own name.
    async fn of_data_volume(&self, namespace: &str, name: &str) -> Result<Owner, ClusterError> {
        let kind = GroupVersionKind::gvk("cdi.kubevirt.io", "v1beta1", "DataVolume");
        let kind = ApiResource::from_gvk_with_plural(&kind, "datavolumes");
        let data_volumes: Api<DynamicObject> =
            Api::namespaced_with(self.client.clone(), namespace, &kind);
        let named = format!("DataVolume {namespace}/{name}");
        // A cluster without CDI answers the same as one without this DataVolume.
        let found = data_volumes.get_opt(name).await;
        let Some(found) = found.map_err(ClusterError::on("read", named))? else {
            return Ok(unknown(format!("claim {name} does not exist yet")));
        };
        let mut named = CLASS_OF_DATA_VOLUME.iter();
        let class = named.find_map(|path| found.data.pointer(path)?.as_str());
        match class {
            Some(class) => self.of_class(class).await,
            None => self.of_default(&[DEFAULT_FOR_MACHINES, DEFAULT]).await,
        }
    }

    async fn of_class(&self, name: &str) -> Result<Owner, ClusterError> {
        let classes: Api<StorageClass> = Api::all(self.client.clone());
        let named = format!("StorageClass {name}");
        let found = classes.get_opt(name).await;
        let found = found.map_err(ClusterError::on("read", named))?;
        Ok(found.map_or_else(
            || unknown(format!("StorageClass {name} does not exist")),
            |class| by_provisioner(&class),
        ))
    }

    /// The class that one who names none gets: one that carries the first of these marks that any carries.
    async fn of_default(&self, marks: &[&str]) -> Result<Owner, ClusterError> {
        let classes: Api<StorageClass> = Api::all(self.client.clone());
        let listed = classes.list(&ListParams::default()).await;
        let listed = listed.map_err(ClusterError::on("list", "StorageClasses".to_owned()))?;
        let class = default_of(&listed.items, marks);
        let none = || unknown("there is no default StorageClass".to_owned());
        Ok(class.map_or_else(none, by_provisioner))
    }
}

/// As Kubernetes chooses: the youngest, and of those made in the same second the first by name.
fn default_of<'c>(classes: &'c [StorageClass], marks: &[&str]) -> Option<&'c StorageClass> {
    marks.iter().find_map(|mark| {
        let carries = |class: &&StorageClass| {
            class.annotations().get(*mark).map(String::as_str) == Some("true")
        };
        let marked = classes.iter().filter(carries);
        marked.max_by_key(|class| (class.creation_timestamp(), Reverse(class.name_any())))
    })
}

fn by_provisioner(class: &StorageClass) -> Owner {
    if class.provisioner == DRIVER_NAME {
        Owner::Holdfast
    } else {
        Owner::Somebody
    }
}

fn unknown(why: String) -> Owner {
    Owner::Unknown(why)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn class(name: &str, made: &str, mark: &str) -> StorageClass {
        let class = json!({
            "provisioner": DRIVER_NAME,
            "metadata": {"name": name, "creationTimestamp": made, "annotations": {mark: "true"}}
        });
        serde_json::from_value(class).unwrap()
    }

    fn chosen(classes: &[StorageClass]) -> Option<String> {
        let class = default_of(classes, &[DEFAULT_FOR_MACHINES, DEFAULT]);
        class.map(ResourceExt::name_any)
    }

    #[test]
    fn youngest_default_is_chosen_and_the_first_by_name_of_one_second() {
        let (early, late) = ("2026-01-01T00:00:00Z", "2026-01-01T00:00:01Z");
        let mut classes = vec![
            class("a", early, DEFAULT),
            class("b", late, DEFAULT),
            class("c", late, DEFAULT),
            class("d", late, "another.mark"),
        ];
        assert_eq!(chosen(&classes), Some("b".to_owned()));
        classes.reverse();
        assert_eq!(chosen(&classes), Some("b".to_owned()));
        classes.push(class("z", early, DEFAULT_FOR_MACHINES));
        assert_eq!(chosen(&classes), Some("z".to_owned()));
        assert_eq!(chosen(&classes[..1]), None);
    }
}
