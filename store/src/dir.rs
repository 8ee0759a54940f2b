//! Objects as YAML manifests in a directory: `<dir>/<plural>/<name>.yaml`, the embedded default.
//!
//! Every verb reads the files it speaks of, so there is no cache that could differ from the disk. One lock orders the verbs of
//! this process, `<dir>/lock` keeps other processes out. A manifest written by hand while nothing runs is taken as it is; the
//! metadata that only a store can give is added when it is first read.

mod file;
mod manifest;

use crate::object::{self, Object};
use crate::{Announcement, Changes, Store, StoreError};
use file::Folder;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, Time};
use k8s_openapi::jiff::Timestamp;
use std::collections::HashMap;
use std::fs::File;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio::sync::watch;

/// A store in a directory. Clones share it; the directory is free for another process when the last one is dropped.
#[derive(Debug, Clone)]
pub struct DirStore {
    inner: Arc<Inner>,
}

/// A manifest that is left out of lists because it cannot be read.
#[derive(Debug)]
pub struct Damage {
    /// Its file name.
    pub file: String,
    /// Why it cannot be read.
    pub error: StoreError,
}

#[derive(Debug)]
struct Inner {
    folder: Mutex<Folder>,
    watches: HashMap<String, watch::Sender<u64>>,
    _lock: File,
}

impl DirStore {
    /// Opens the store in `dir`, making what is missing and clearing half-written files of a process that was killed.
    ///
    /// # Errors
    /// [`StoreError::InUse`] when another process has it, [`StoreError::Io`] when the directory cannot be used.
    pub fn open(dir: impl AsRef<Path>) -> Result<Self, StoreError> {
        let folder = Folder::new(dir.as_ref());
        let lock = folder.prepare(&object::plurals())?;
        let watches = object::plurals()
            .into_iter()
            .map(|plural| (plural, watch::channel(0).0))
            .collect();
        let inner = Inner {
            folder: Mutex::new(folder),
            watches,
            _lock: lock,
        };
        Ok(Self {
            inner: Arc::new(inner),
        })
    }

    /// The manifests of a kind that [`list`](Store::list) leaves out, and why.
    ///
    /// # Errors
    /// When the directory cannot be read.
    pub async fn damaged<K: Object>(&self) -> Result<Vec<Damage>, StoreError> {
        self.run(|inner| Ok(inner.read_all::<K>()?.1)).await
    }

    /// Runs a verb to its end on a thread that may block, even if the caller loses interest.
    async fn run<T: Send + 'static>(
        &self,
        verb: impl FnOnce(&Inner) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, StoreError> {
        let inner = Arc::clone(&self.inner);
        match tokio::task::spawn_blocking(move || verb(&inner)).await {
            Ok(result) => result,
            Err(ended) => match ended.try_into_panic() {
                Ok(panic) => std::panic::resume_unwind(panic),
                // The runtime is shutting down: nobody will be there to hear an answer.
                Err(_) => std::future::pending().await,
            },
        }
    }
}

impl Store for DirStore {
    async fn get<K: Object>(&self, name: &str) -> Result<Option<K>, StoreError> {
        let name = name.to_owned();
        self.run(move |inner| read(&inner.folder(), &name)).await
    }

    async fn list<K: Object>(&self) -> Result<Vec<K>, StoreError> {
        self.run(|inner| Ok(inner.read_all::<K>()?.0)).await
    }

    async fn create<K: Object>(&self, object: K) -> Result<K, StoreError> {
        self.run(move |inner| inner.create(object)).await
    }

    async fn update<K: Object>(&self, object: K) -> Result<K, StoreError> {
        self.run(move |inner| inner.update(object)).await
    }

    async fn update_status<K: Object>(&self, object: K) -> Result<K, StoreError> {
        self.run(move |inner| inner.update_status(object)).await
    }

    async fn delete<K: Object>(&self, name: &str) -> Result<bool, StoreError> {
        let name = name.to_owned();
        self.run(move |inner| inner.delete::<K>(&inner.folder(), &name))
            .await
    }

    async fn delete_unchanged<K: Object>(&self, object: &K) -> Result<bool, StoreError> {
        let object = object.clone();
        let delete = move |inner: &Inner| {
            let folder = inner.folder();
            match current(&folder, &object) {
                Ok(_) => inner.delete::<K>(&folder, object::name(&object)),
                Err(StoreError::NotFound { .. }) => Ok(false),
                Err(error) => Err(error),
            }
        };
        self.run(delete).await
    }

    fn watch<K: Object>(&self) -> Changes {
        Changes::new(self.inner.sender::<K>().subscribe())
    }

    async fn announce<K: Object>(&self, object: &K, event: Announcement) {
        event.log(&K::kind(&()), object::name(object));
    }
}

impl Inner {
    /// The folder holds no state of its own, so a panic while it was locked left nothing half done in memory.
    fn folder(&self) -> MutexGuard<'_, Folder> {
        self.folder.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn read_all<K: Object>(&self) -> Result<(Vec<K>, Vec<Damage>), StoreError> {
        let folder = self.folder();
        let (mut objects, mut damaged) = (Vec::new(), Vec::new());
        for file in folder.files(&object::plural::<K>())? {
            let name = file.strip_suffix(file::SUFFIX).unwrap_or(&file);
            match read(&folder, name) {
                Ok(object) => objects.extend(object),
                Err(error) => {
                    tracing::error!(%error, "A manifest cannot be read and is left out");
                    damaged.push(Damage { file, error });
                }
            }
        }
        Ok((objects, damaged))
    }

    fn create<K: Object>(&self, mut object: K) -> Result<K, StoreError> {
        let folder = self.folder();
        if read::<K>(&folder, object::name(&object))?.is_some() {
            return Err(StoreError::AlreadyExists {
                kind: K::kind(&()).into_owned(),
                name: object::name(&object).to_owned(),
            });
        }
        *object.status_mut() = None;
        birth(object.meta_mut());
        self.write(&folder, &object)?;
        Ok(object)
    }

    fn update<K: Object>(&self, wanted: K) -> Result<K, StoreError> {
        let folder = self.folder();
        let old = current(&folder, &wanted)?;
        let mut new = old.clone();
        *new.spec_mut() = wanted.spec().clone();
        take_open_metadata(new.meta_mut(), wanted.meta());
        if new == old {
            return Ok(old);
        }
        if new.spec() != old.spec() {
            let generation = &mut new.meta_mut().generation;
            *generation = Some(generation.unwrap_or(0) + 1);
        }
        advance(new.meta_mut());
        if is_released(new.meta()) {
            self.remove(&folder, &new)?;
        } else {
            self.write(&folder, &new)?;
        }
        Ok(new)
    }

    fn update_status<K: Object>(&self, mut wanted: K) -> Result<K, StoreError> {
        let folder = self.folder();
        let old = current(&folder, &wanted)?;
        let mut new = old.clone();
        *new.status_mut() = wanted.status_mut().take();
        if new == old {
            return Ok(old);
        }
        advance(new.meta_mut());
        self.write(&folder, &new)?;
        Ok(new)
    }

    fn delete<K: Object>(&self, folder: &Folder, name: &str) -> Result<bool, StoreError> {
        let Some(mut object) = read::<K>(folder, name)? else {
            return Ok(false);
        };
        if object.meta().finalizers.as_ref().is_none_or(Vec::is_empty) {
            self.remove(folder, &object)?;
        } else if object.meta().deletion_timestamp.is_none() {
            object.meta_mut().deletion_timestamp = Some(now());
            advance(object.meta_mut());
            self.write(folder, &object)?;
        }
        Ok(true)
    }

    fn write<K: Object>(&self, folder: &Folder, object: &K) -> Result<(), StoreError> {
        manifest::write(folder, object)?;
        self.tell::<K>();
        Ok(())
    }

    fn remove<K: Object>(&self, folder: &Folder, object: &K) -> Result<(), StoreError> {
        folder.remove(&object::plural::<K>(), object::name(object))?;
        self.tell::<K>();
        Ok(())
    }

    fn sender<K: Object>(&self) -> &watch::Sender<u64> {
        self.watches
            .get(&object::plural::<K>())
            .expect("every sealed kind has a watch since open")
    }

    fn tell<K: Object>(&self) {
        self.sender::<K>()
            .send_modify(|changes| *changes = changes.wrapping_add(1));
    }
}

/// Reads an object; one written by hand is given the metadata that only a store can give.
fn read<K: Object>(folder: &Folder, name: &str) -> Result<Option<K>, StoreError> {
    let Some(mut object) = manifest::read::<K>(folder, name)? else {
        return Ok(None);
    };
    let meta = object.meta_mut();
    if meta.uid.is_none() || meta.resource_version.is_none() {
        birth(meta);
        manifest::write(folder, &object)?;
    }
    Ok(Some(object))
}

/// What is stored under the name of `wanted`, if it is what `wanted` was made from.
fn current<K: Object>(folder: &Folder, wanted: &K) -> Result<K, StoreError> {
    let name = object::name(wanted);
    let (kind, name_owned) = (K::kind(&()).into_owned(), name.to_owned());
    let Some(old) = read::<K>(folder, name)? else {
        return Err(StoreError::NotFound {
            kind,
            name: name_owned,
        });
    };
    let same = old.meta().uid == wanted.meta().uid
        && old.meta().resource_version == wanted.meta().resource_version;
    if same {
        Ok(old)
    } else {
        Err(StoreError::Conflict {
            kind,
            name: name_owned,
        })
    }
}

fn birth(meta: &mut ObjectMeta) {
    meta.uid = Some(uuid::Uuid::new_v4().to_string());
    meta.resource_version = Some("1".to_owned());
    meta.generation = Some(1);
    meta.creation_timestamp = Some(now());
    meta.deletion_timestamp = None;
}

/// The metadata that an update may change; the rest is the store's.
fn take_open_metadata(meta: &mut ObjectMeta, wanted: &ObjectMeta) {
    meta.labels.clone_from(&wanted.labels);
    meta.annotations.clone_from(&wanted.annotations);
    meta.finalizers.clone_from(&wanted.finalizers);
}

fn advance(meta: &mut ObjectMeta) {
    let version = meta.resource_version.as_deref().unwrap_or_default();
    // A version edited into nonsense starts over: it only has to differ from the one before.
    let next = version.parse::<u64>().map_or(1, |number| number + 1);
    meta.resource_version = Some(next.to_string());
}

fn is_released(meta: &ObjectMeta) -> bool {
    meta.deletion_timestamp.is_some() && meta.finalizers.as_ref().is_none_or(Vec::is_empty)
}

/// Whole seconds, as Kubernetes keeps them: what is returned equals what is read back.
fn now() -> Time {
    let now = Timestamp::now();
    Time(Timestamp::from_second(now.as_second()).unwrap_or(now))
}
