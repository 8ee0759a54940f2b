//! Pools and volumes: opening, formatting what is blank and nothing else, and the rule that a volume in use stays.

use super::book::{OpenPool, Standing};
use super::{Engine, lock};
use crate::session::Command;
use crate::{EngineError, Extent, PoolInfo, PoolSpec, Source, VolumeInfo};
use holdfast_bdev::{BlockDevice, Extent as DeviceExtent, Uring};
use holdfast_crash::crash_point;
use holdfast_pool::{FormatOptions, Pool, PoolError};
use std::sync::Arc;
use std::time::Instant;

impl Engine {
    /// Opens a pool; a blank device becomes one. The same call again finds it open.
    ///
    /// # Errors
    /// [`EngineError::AlreadyExists`] if another pool has this name; [`EngineError::Device`]; [`EngineError::Pool`] with
    /// the reason why the device is not taken: it is then unchanged.
    pub fn open_pool(&self, spec: &PoolSpec) -> Result<PoolInfo, EngineError> {
        if let Some(open) = self.find_pool(spec)? {
            return Ok(open.info());
        }
        let failed = |source| EngineError::Pool {
            name: spec.name.clone(),
            source,
        };
        let (device, fresh) = self.open_device(spec)?;
        let pool = Arc::new(open_or_format(&device, spec, fresh).map_err(failed)?);
        crash_point!("pool.opened");
        pool.expect(spec.expect_uuid, Some(&spec.identity))
            .map_err(failed)?;
        let open = OpenPool {
            spec: spec.clone(),
            path: spec.path.clone(),
            uuid: pool.uuid(),
            standing: Standing::Here {
                device,
                pool: Arc::clone(&pool),
            },
        };
        let mut book = self.book();
        book.check_open()?;
        if book.pools.contains_key(&spec.name) {
            return Err(EngineError::AlreadyExists {
                kind: "pool",
                name: spec.name.clone(),
                difference: "it was opened by somebody else a moment ago".into(),
            });
        }
        book.pools.insert(spec.name.clone(), open.clone());
        drop(book);
        self.inner.eraser.add(&spec.name, pool);
        Ok(open.info())
    }

    /// Closes a pool and lets go of its device.
    ///
    /// # Errors
    /// [`EngineError::NotFound`]; [`EngineError::Busy`] while a volume of it is exported.
    pub fn close_pool(&self, name: &str) -> Result<(), EngineError> {
        let mut book = self.book();
        let of_this =
            |source: &Source| matches!(source, Source::Volume { pool, .. } if pool == name);
        let user = book.exports.values().find(|e| of_this(&e.spec.source));
        if let Some(user) = user {
            return Err(EngineError::Busy {
                kind: "pool",
                name: name.to_owned(),
                by: format!("export {:?}", user.spec.name),
            });
        }
        if book.pools.remove(name).is_none() {
            return Err(EngineError::not_found("pool", name));
        }
        drop(book);
        self.inner.eraser.remove(name);
        Ok(())
    }

    /// One pool.
    ///
    /// # Errors
    /// [`EngineError::NotFound`].
    pub fn pool(&self, name: &str) -> Result<PoolInfo, EngineError> {
        Ok(self.open_pool_named(name)?.info())
    }

    /// All pools, by name.
    pub fn pools(&self) -> Vec<PoolInfo> {
        let open: Vec<OpenPool> = self.book().pools.values().cloned().collect();
        let mut infos: Vec<PoolInfo> = open.iter().map(OpenPool::info).collect();
        infos.sort_by(|a, b| a.name.cmp(&b.name));
        infos
    }

    /// Creates a volume that reads zeros, rounded up to 1 MiB; durable when this returns. The same call again finds it.
    ///
    /// # Errors
    /// [`EngineError::NotFound`] for the pool; [`EngineError::Pool`] with the pool's reason.
    pub fn create_volume(
        &self,
        pool: &str,
        id: &str,
        size_bytes: u64,
    ) -> Result<VolumeInfo, EngineError> {
        let made = self.with_pool(pool, |pool| pool.allocate(id, size_bytes))?;
        crash_point!("allocate.durable");
        self.inner.eraser.changed(pool);
        Ok(made.into())
    }

    /// Makes a volume at least this large, while it is in use as well: its guest is told. The same call again changes
    /// nothing.
    ///
    /// # Errors
    /// As [`Engine::create_volume`].
    pub fn grow_volume(
        &self,
        pool: &str,
        id: &str,
        size_bytes: u64,
    ) -> Result<VolumeInfo, EngineError> {
        let _one_at_a_time = lock(&self.inner.growing);
        let grown = self.with_pool(pool, |pool| pool.grow(id, size_bytes))?;
        crash_point!("grow.durable");
        let source = volume_source(pool, id);
        let mut book = self.book();
        let user = book
            .exports_of(pool)
            .find(|user| user.spec.source == source);
        if let Some(user) = user
            && user.size_bytes != grown.size_bytes
            && let Some(split) = &user.split
        {
            split
                .set_extents(extents_of(&grown.extents))
                .map_err(|source| EngineError::Device {
                    name: format!("{pool}/{id}"),
                    source,
                })?;
            user.size_bytes = grown.size_bytes;
            crash_point!("grow.extents");
            user.export.tell(Command::Resize(grown.size_bytes));
        }
        drop(book);
        self.inner.eraser.changed(pool);
        Ok(grown.into())
    }

    /// Gives a volume up. Its space is in quarantine when this returns, and free once erased in the background; false if
    /// there is no such volume.
    ///
    /// # Errors
    /// [`EngineError::Busy`] while it is exported; [`EngineError::NotFound`] for the pool; [`EngineError::Pool`].
    pub fn delete_volume(&self, pool: &str, id: &str) -> Result<bool, EngineError> {
        let source = volume_source(pool, id);
        let mut book = self.book();
        book.check_unused(&source)?;
        book.leaving.insert(source.clone());
        drop(book);
        let released = self.with_pool(pool, |pool| pool.release(id));
        crash_point!("release.durable");
        self.book().leaving.remove(&source);
        self.inner.eraser.changed(pool);
        released
    }

    /// One volume, if it is there.
    ///
    /// # Errors
    /// [`EngineError::NotFound`] for the pool.
    pub fn volume(&self, pool: &str, id: &str) -> Result<Option<VolumeInfo>, EngineError> {
        self.with_pool(pool, |pool| Ok(pool.volume(id).map(Into::into)))
    }

    /// All volumes of a pool, by id.
    ///
    /// # Errors
    /// [`EngineError::NotFound`] for the pool.
    pub fn volumes(&self, pool: &str) -> Result<Vec<VolumeInfo>, EngineError> {
        self.with_pool(pool, |pool| {
            Ok(pool.volumes().into_iter().map(Into::into).collect())
        })
    }

    /// Waits until everything given up has been erased; returns the bytes that have not when the time has come.
    ///
    /// # Errors
    /// [`EngineError::NotFound`] for the pool.
    pub fn wait_erased(&self, pool: &str, deadline: Instant) -> Result<u64, EngineError> {
        let open = self.open_pool_named(pool)?;
        Ok(self.inner.eraser.wait(open.here()?.1, deadline))
    }

    /// Why what was given up in this pool cannot be erased now, if it cannot. It stays out of use, and is tried again.
    pub fn erase_failure(&self, pool: &str) -> Option<String> {
        self.inner.eraser.failure(pool)
    }

    /// The device, and whether it was made just now and so reads zeros.
    fn open_device(&self, spec: &PoolSpec) -> Result<(Arc<dyn BlockDevice>, bool), EngineError> {
        let failed = |source| EngineError::Device {
            name: spec.name.clone(),
            source,
        };
        let fresh = match spec.create_bytes {
            Some(size_bytes) if spec.expect_uuid.is_none() && !spec.path.exists() => {
                drop(Uring::create(&spec.path, size_bytes).map_err(failed)?);
                true
            }
            _ => false,
        };
        let device = self.inner.opener.open(&spec.path).map_err(failed)?;
        Ok((device, fresh))
    }

    fn open_pool_named(&self, name: &str) -> Result<OpenPool, EngineError> {
        self.book().pool(name).cloned()
    }

    fn with_pool<T>(
        &self,
        name: &str,
        call: impl FnOnce(&Pool) -> Result<T, PoolError>,
    ) -> Result<T, EngineError> {
        let open = self.open_pool_named(name)?;
        call(open.here()?.1).map_err(|source| EngineError::Pool {
            name: name.to_owned(),
            source,
        })
    }

    /// The pool of this spec if it is open already; an error if the name belongs to another.
    fn find_pool(&self, spec: &PoolSpec) -> Result<Option<OpenPool>, EngineError> {
        let book = self.book();
        book.check_open()?;
        let Some(open) = book.pools.get(&spec.name) else {
            return Ok(None);
        };
        if open.spec.path != spec.path || open.spec.identity != spec.identity {
            return Err(EngineError::AlreadyExists {
                kind: "pool",
                name: spec.name.clone(),
                difference: format!("it is on {}", open.spec.path.display()),
            });
        }
        Ok(Some(open.clone()))
    }
}

pub(super) fn volume_source(pool: &str, id: &str) -> Source {
    Source::Volume {
        pool: pool.to_owned(),
        id: id.to_owned(),
    }
}

/// The pool's words for places in the device's.
pub(super) fn extents_of(extents: &[Extent]) -> Vec<DeviceExtent> {
    extents
        .iter()
        .map(|extent| DeviceExtent {
            offset_bytes: extent.offset_bytes,
            length_bytes: extent.length_bytes,
        })
        .collect()
}

/// Opens the pool there is, or makes one where nothing is. A pool that cannot be trusted is never made anew.
fn open_or_format(
    device: &Arc<dyn BlockDevice>,
    spec: &PoolSpec,
    fresh: bool,
) -> Result<Pool, PoolError> {
    let why = match Pool::open(Arc::clone(device)) {
        Ok(pool) => return Ok(pool),
        Err(why) => why,
    };
    let force = match &why {
        PoolError::NotAPool | PoolError::FormatInterrupted => false,
        PoolError::Foreign { .. } if spec.force => true,
        _ => return Err(why),
    };
    if spec.expect_uuid.is_some() {
        return Err(why);
    }
    let options = FormatOptions {
        identity: spec.identity.clone(),
        zeroed: fresh,
        force,
    };
    Pool::format(Arc::clone(device), options)
}
