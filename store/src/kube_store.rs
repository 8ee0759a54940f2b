//! Objects in a Kubernetes cluster, through its API.
//!
//! Every verb asks the API server itself: what a call wrote, the next call reads, whoever makes it. A write carries only what the
//! caller changed and the version it was read at (`docs/decisions/0009-*`). Every request has a deadline, so an API server that
//! stands still holds nobody up for longer.

mod failure;
mod herald;
mod patch;
mod watches;

use crate::object::{self, Object};
use crate::{Announcement, Changes, Store, StoreError};
use failure::call;
use herald::Herald;
use holdfast_api::check_object_name;
use kube::Client;
use kube::api::{
    Api, ApiResource, DeleteParams, DynamicObject, ListParams, ObjectList, Patch, PatchParams,
    PostParams, Preconditions,
};
use kube::core::ObjectMeta;
use std::fmt;
use std::sync::Arc;
use watches::Watches;

/// How a store presents itself, and what it looks at.
#[derive(Debug, Clone)]
pub struct KubeStoreConfig {
    /// Who writes: `holdfast-controller` or `holdfast-node`. One name per actor, so that `managedFields` tell who wrote what.
    pub field_manager: &'static str,
    /// List and watch only objects of this node.
    pub node: Option<String>,
}

/// A store in a cluster. Clones share its connections and watches.
#[derive(Clone)]
pub struct KubeStore {
    inner: Arc<Inner>,
}

struct Inner {
    client: Client,
    config: KubeStoreConfig,
    watches: Watches,
    herald: Herald,
}

/// Objects that one list request brings.
const PAGE: u32 = 500;
/// A list of pages starts anew when the server forgot the version it began with. More often than this, the server is unwell.
const LIST_ATTEMPTS: u32 = 3;

impl KubeStore {
    /// A store that uses this client. Must be called on the runtime that serves the client: watches and events run there until
    /// the last clone is dropped.
    #[must_use]
    pub fn new(client: Client, config: KubeStoreConfig) -> Self {
        let watches = Watches::new(client.clone(), selector(config.node.as_deref()));
        let herald = Herald::new(client.clone(), &config);
        let inner = Inner {
            client,
            config,
            watches,
            herald,
        };
        Self {
            inner: Arc::new(inner),
        }
    }

    /// The client, for kinds that are not ours.
    #[must_use]
    pub fn client(&self) -> Client {
        self.inner.client.clone()
    }

    /// Has `tell` called with the kind whenever a watch fails, also when it fails again. Only the first such wish counts.
    pub fn on_watch_failure(&self, tell: impl Fn(&str) + Send + Sync + 'static) {
        self.inner.watches.on_failure(Box::new(tell));
    }

    fn api<K: Object>(&self) -> Api<K> {
        Api::all(self.client())
    }

    fn patch_params(&self) -> PatchParams {
        PatchParams {
            field_manager: Some(self.inner.config.field_manager.to_owned()),
            ..Default::default()
        }
    }

    /// What is stored under the name of `wanted`, if it is what `wanted` was made from.
    async fn current<K: Object>(&self, wanted: &K) -> Result<K, StoreError> {
        let name = object::name(wanted);
        let (kind, owned) = (K::kind(&()).into_owned(), name.to_owned());
        let Some(old) = self.get::<K>(name).await? else {
            return Err(StoreError::NotFound { kind, name: owned });
        };
        let same = old.meta().uid == wanted.meta().uid
            && old.meta().resource_version == wanted.meta().resource_version;
        if same {
            Ok(old)
        } else {
            Err(StoreError::Conflict { kind, name: owned })
        }
    }

    async fn page<K: Object>(
        &self,
        next: Option<String>,
    ) -> Result<ObjectList<DynamicObject>, kube::Error> {
        let api: Api<DynamicObject> = Api::all_with(self.client(), &ApiResource::erase::<K>(&()));
        let params = ListParams {
            field_selector: selector(self.inner.config.node.as_deref()),
            limit: Some(PAGE),
            continue_token: next,
            ..Default::default()
        };
        api.list(&params).await
    }

    async fn delete_by<K: Object>(
        &self,
        name: &str,
        params: &DeleteParams,
    ) -> Result<bool, StoreError> {
        check_object_name(name)?;
        let what = failure::what::<K>("delete", name);
        match call(&what, self.api::<K>().delete(name, params)).await? {
            Ok(_) => Ok(true),
            Err(error) => match failure::of_object::<K>(&what, name, error) {
                StoreError::NotFound { .. } => Ok(false),
                error => Err(error),
            },
        }
    }

    /// All pages of one list, as they come.
    async fn pages<K: Object>(&self, what: &str) -> Result<Option<Vec<DynamicObject>>, StoreError> {
        let (mut objects, mut next) = (Vec::new(), None);
        loop {
            match call(what, self.page::<K>(next.take())).await? {
                Ok(page) => {
                    objects.extend(page.items);
                    next = page.metadata.continue_.filter(|token| !token.is_empty());
                    if next.is_none() {
                        return Ok(Some(objects));
                    }
                }
                Err(error) if failure::is_expired(&error) => return Ok(None),
                Err(error) => return Err(failure::of_kind(what, error)),
            }
        }
    }
}

impl Store for KubeStore {
    async fn get<K: Object>(&self, name: &str) -> Result<Option<K>, StoreError> {
        check_object_name(name)?;
        let what = failure::what::<K>("read", name);
        match call(&what, self.api::<K>().get(name)).await? {
            Ok(object) => Ok(Some(tidied(object))),
            Err(error) => match failure::of_object::<K>(&what, name, error) {
                StoreError::NotFound { .. } => Ok(None),
                error => Err(error),
            },
        }
    }

    async fn list<K: Object>(&self) -> Result<Vec<K>, StoreError> {
        let what = format!("list {}", K::plural(&()));
        for _ in 0..LIST_ATTEMPTS {
            if let Some(objects) = self.pages::<K>(&what).await? {
                return Ok(readable(objects));
            }
        }
        Err(StoreError::Unavailable {
            what,
            cause: "the list expired again and again while it was read".to_owned(),
        })
    }

    async fn create<K: Object>(&self, mut object: K) -> Result<K, StoreError> {
        check_object_name(object::name(&object))?;
        let what = failure::what::<K>("create", object::name(&object));
        let name = object::name(&object).to_owned();
        *object.status_mut() = None;
        *object.meta_mut() = newborn(object.meta());
        let params = PostParams {
            field_manager: Some(self.inner.config.field_manager.to_owned()),
            ..Default::default()
        };
        let created = call(&what, self.api::<K>().create(&params, &object)).await?;
        created
            .map(tidied)
            .map_err(|error| failure::of_object::<K>(&what, &name, error))
    }

    async fn update<K: Object>(&self, wanted: K) -> Result<K, StoreError> {
        check_object_name(object::name(&wanted))?;
        let old = self.current(&wanted).await?;
        let name = object::name(&old).to_owned();
        let what = failure::what::<K>("update", &name);
        let Some(patch) = patch::of_spec(&old, &wanted)? else {
            return Ok(old);
        };
        let (api, params, patch) = (self.api::<K>(), self.patch_params(), Patch::Merge(patch));
        let written = call(&what, api.patch(&name, &params, &patch)).await?;
        written
            .map(tidied)
            .map_err(|error| failure::of_object::<K>(&what, &name, error))
    }

    async fn update_status<K: Object>(&self, wanted: K) -> Result<K, StoreError> {
        check_object_name(object::name(&wanted))?;
        let old = self.current(&wanted).await?;
        let name = object::name(&old).to_owned();
        let what = failure::what::<K>("write the status of", &name);
        let Some(patch) = patch::of_status(&old, &wanted)? else {
            return Ok(old);
        };
        let (api, params, patch) = (self.api::<K>(), self.patch_params(), Patch::Merge(patch));
        let written = call(&what, api.patch_status(&name, &params, &patch)).await?;
        written
            .map(tidied)
            .map_err(|error| failure::of_object::<K>(&what, &name, error))
    }

    async fn delete<K: Object>(&self, name: &str) -> Result<bool, StoreError> {
        self.delete_by::<K>(name, &DeleteParams::default()).await
    }

    async fn delete_unchanged<K: Object>(&self, object: &K) -> Result<bool, StoreError> {
        let as_read = Preconditions {
            uid: object.meta().uid.clone(),
            resource_version: object.meta().resource_version.clone(),
        };
        let params = DeleteParams {
            preconditions: Some(as_read),
            ..Default::default()
        };
        self.delete_by::<K>(object::name(object), &params).await
    }

    fn watch<K: Object>(&self) -> Changes {
        Changes::new(self.inner.watches.of::<K>())
    }

    async fn announce<K: Object>(&self, object: &K, event: Announcement) {
        self.inner.herald.tell(object, event);
    }
}

impl fmt::Debug for KubeStore {
    fn fmt(&self, to: &mut fmt::Formatter<'_>) -> fmt::Result {
        let config = &self.inner.config;
        to.debug_struct("KubeStore")
            .field("config", config)
            .finish_non_exhaustive()
    }
}

fn selector(node: Option<&str>) -> Option<String> {
    node.map(|node| format!("spec.nodeName={node}"))
}

/// The metadata that a creator may give.
fn newborn(meta: &ObjectMeta) -> ObjectMeta {
    ObjectMeta {
        name: meta.name.clone(),
        labels: meta.labels.clone(),
        annotations: meta.annotations.clone(),
        finalizers: meta.finalizers.clone(),
        ..Default::default()
    }
}

/// Nobody here reads who wrote which field, and it is half of an object's size.
fn tidied<K: Object>(mut object: K) -> K {
    object.meta_mut().managed_fields = None;
    object
}

fn readable<K: Object>(objects: Vec<DynamicObject>) -> Vec<K> {
    let mut readable: Vec<K> = objects
        .into_iter()
        .filter_map(|object| {
            let name = object.metadata.name.clone().unwrap_or_default();
            match object.try_parse::<K>() {
                Ok(object) => Some(tidied(object)),
                Err(error) => {
                    let kind = K::kind(&());
                    tracing::error!(%kind, name, %error, "An object cannot be understood and is left out");
                    None
                }
            }
        })
        .collect();
    readable.sort_unstable_by(|a, b| object::name(a).cmp(object::name(b)));
    readable
}

#[cfg(test)]
mod tests;
