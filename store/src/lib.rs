//! Where intent and observation are kept: one trait, so that controller and node agent need not know whether a cluster is there.
//!
//! [`Store`] has the few verbs of the Kubernetes API that Holdfast uses, with the same meaning: optimistic concurrency by
//! `resourceVersion`, `generation` that counts changes of the spec, a status that only its own verb writes, finalizers, and a
//! level-triggered watch. [`DirStore`] keeps the kinds as YAML manifests in a directory: the embedded default. [`KubeStore`] keeps
//! them in a cluster; on a node, [`KeptStore`] puts a copy beside it, so that guests do not wait for an API server that is away.
//!
//! ```
//! use holdfast_api::{SplitVolume, SplitVolumeSpec};
//! use holdfast_store::{DirStore, Store};
//! # let dir = tempfile::tempdir()?;
//! # let state_dir = dir.path();
//! # tokio::runtime::Builder::new_current_thread().build()?.block_on(async {
//! let store = DirStore::open(state_dir)?;
//! let volume = store.create(SplitVolume::new("pvc-1", SplitVolumeSpec::default())).await?;
//! assert_eq!(store.get::<SplitVolume>("pvc-1").await?, Some(volume));
//! # Ok::<(), holdfast_store::StoreError>(())
//! # })?;
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! Invariants: what a call returned is durable; after a kill every object is the old or the new one; an object that cannot be
//! read is an error of its own and never looks absent.
#![forbid(unsafe_code)]
#![cfg_attr(test, allow(clippy::unwrap_used))]

mod announcement;
mod changes;
mod dir;
mod error;
mod kept;
mod kube_store;
mod object;

pub use announcement::{Announcement, EventKind};
pub use changes::Changes;
pub use dir::{Damage, DirStore};
pub use error::StoreError;
pub use kept::KeptStore;
pub use kube_store::{KubeStore, KubeStoreConfig};
pub use object::Object;

use std::future::Future;

/// A place that keeps objects. Clones share it.
pub trait Store: Clone + Send + Sync + 'static {
    /// The object of this name, or `None`.
    ///
    /// # Errors
    /// When the name is none, or the object is there and cannot be read.
    fn get<K: Object>(
        &self,
        name: &str,
    ) -> impl Future<Output = Result<Option<K>, StoreError>> + Send;

    /// All readable objects of a kind, sorted by name. An object that cannot be read is left out, so absence here is no proof:
    /// before undoing something because its object is gone, ask [`get`](Store::get).
    ///
    /// # Errors
    /// When the place itself cannot be read.
    fn list<K: Object>(&self) -> impl Future<Output = Result<Vec<K>, StoreError>> + Send;

    /// Adds an object and returns it with the metadata the store gives: uid, resourceVersion, generation 1, creationTimestamp.
    /// Its status is not kept.
    ///
    /// # Errors
    /// [`StoreError::AlreadyExists`], also while an older object of that name is being deleted.
    fn create<K: Object>(&self, object: K) -> impl Future<Output = Result<K, StoreError>> + Send;

    /// Writes labels, annotations, finalizers and spec; status is untouched. A changed spec raises the generation. Removing the
    /// last finalizer of an object being deleted removes the object.
    ///
    /// # Errors
    /// [`StoreError::NotFound`]; [`StoreError::Conflict`] when the object changed since `object` was read.
    fn update<K: Object>(&self, object: K) -> impl Future<Output = Result<K, StoreError>> + Send;

    /// Writes the status and nothing else.
    ///
    /// # Errors
    /// As for [`update`](Store::update).
    fn update_status<K: Object>(
        &self,
        object: K,
    ) -> impl Future<Output = Result<K, StoreError>> + Send;

    /// Removes an object, or marks it as being deleted while it has finalizers. False if it was not there.
    ///
    /// # Errors
    /// When the object is there and cannot be read or removed.
    fn delete<K: Object>(
        &self,
        name: &str,
    ) -> impl Future<Output = Result<bool, StoreError>> + Send;

    /// [`delete`](Store::delete), but only of what was read: for whoever judged the object and not only its name.
    ///
    /// # Errors
    /// [`StoreError::Conflict`] when the object changed since `object` was read, or was made anew.
    fn delete_unchanged<K: Object>(
        &self,
        object: &K,
    ) -> impl Future<Output = Result<bool, StoreError>> + Send;

    /// Tells of changes of a kind. Level-triggered: many changes may be told as one, and the first is told at once.
    fn watch<K: Object>(&self) -> Changes;

    /// Tells people what happened to an object. Never fails and never holds up the caller's work: an event that cannot be kept
    /// is logged instead.
    fn announce<K: Object>(
        &self,
        object: &K,
        event: Announcement,
    ) -> impl Future<Output = ()> + Send;
}
