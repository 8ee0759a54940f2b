//! A drive that goes and comes back. Its pool stays in the book, its exports keep their sockets and their guests; only the
//! way to the drive is taken away, and given back when the same pool is there again, whatever its device is called now.

use super::book::Standing;
use super::exports::open_volume;
use super::{Engine, PATIENCE, lock};
use crate::events::ExportChange;
use crate::reactor::{Notice, Presence};
use crate::session::Command;
use crate::{EngineError, OnDeviceLoss, PoolInfo, Source};
use holdfast_bdev::BlockDevice;
use holdfast_pool::Pool;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

/// How often it is looked whether rings have let go of a drive.
const LET_GO_POLL: Duration = Duration::from_millis(2);

impl Engine {
    /// Lets go of a pool's drive, so that it can be pulled. Guests wait or fail as their exports say. Doing it twice is
    /// doing it once. The drive is taken again by [`Engine::add_pool_device`] only.
    ///
    /// # Errors
    /// [`EngineError::NotFound`]; [`EngineError::Busy`] if requests are still with the drive after some seconds. It is let
    /// go of when they have ended.
    pub fn remove_pool_device(&self, pool: &str) -> Result<(), EngineError> {
        let Some(device) = self.lose(pool, true)? else {
            return Ok(());
        };
        let deadline = Instant::now() + PATIENCE;
        while device.strong_count() > 0 {
            if Instant::now() > deadline {
                return Err(EngineError::Busy {
                    kind: "drive of pool",
                    name: pool.to_owned(),
                    by: "requests that have not ended".into(),
                });
            }
            std::thread::sleep(LET_GO_POLL);
        }
        Ok(())
    }

    /// Takes a pool's drive back, under any path; none stands for the path it had. Guests go on where they were.
    ///
    /// # Errors
    /// [`EngineError::NotFound`]; [`EngineError::Device`]; [`EngineError::Pool`] if another pool, or none, is there: it is
    /// then left alone, and the guests go on waiting.
    pub fn add_pool_device(
        &self,
        pool: &str,
        path: Option<&Path>,
    ) -> Result<PoolInfo, EngineError> {
        let known = self.book().pool(pool)?.clone();
        if matches!(known.standing, Standing::Here { .. }) {
            return Ok(known.info());
        }
        let path = path.map_or(known.path.clone(), PathBuf::from);
        let opened = self.inner.opener.open(&path);
        let device = opened.map_err(|source| EngineError::Device {
            name: pool.to_owned(),
            source,
        })?;
        let failed = |source| EngineError::Pool {
            name: pool.to_owned(),
            source,
        };
        let found = Arc::new(Pool::open(Arc::clone(&device)).map_err(failed)?);
        found
            .expect(Some(known.uuid), Some(&known.spec.identity))
            .map_err(failed)?;
        self.take_back(pool, path, device, found)
    }

    /// A pool's drive has gone. Returns what was used to reach it, if it was there.
    pub(super) fn lose(
        &self,
        pool: &str,
        by_command: bool,
    ) -> Result<Option<Weak<dyn BlockDevice>>, EngineError> {
        let mut book = self.book();
        let open = book
            .pools
            .get_mut(pool)
            .ok_or_else(|| EngineError::not_found("pool", pool))?;
        let Standing::Here { device, .. } = &open.standing else {
            open.mark_lost(by_command);
            return Ok(None);
        };
        let device = Arc::downgrade(device);
        open.mark_lost(by_command);
        tracing::warn!(pool, by_command, "The drive of a pool is gone");
        let now = Instant::now();
        for user in book.exports_of(pool) {
            user.split = None;
            let until = match user.spec.on_device_loss {
                OnDeviceLoss::Hold(patience) => now.checked_add(patience),
                OnDeviceLoss::Fail => None,
            };
            user.export
                .tell(Command::SetPresence(Presence::Lost(until)));
            user.account.tell(ExportChange::DeviceLost);
        }
        drop(book);
        self.inner.eraser.remove(pool);
        self.inner.eraser.changed(pool);
        self.inner.warden.look();
        Ok(Some(device))
    }

    fn take_back(
        &self,
        name: &str,
        path: PathBuf,
        device: Arc<dyn BlockDevice>,
        pool: Arc<Pool>,
    ) -> Result<PoolInfo, EngineError> {
        // A volume that grows meanwhile is seen by the one or by the other.
        let _no_growth = lock(&self.inner.growing);
        let mut book = self.book();
        book.check_open()?;
        let open = book
            .pools
            .get_mut(name)
            .ok_or_else(|| EngineError::not_found("pool", name))?;
        open.path = path;
        open.standing = Standing::Here {
            device: Arc::clone(&device),
            pool: Arc::clone(&pool),
        };
        let info = open.info();
        for user in book.exports_of(name) {
            let Source::Volume { id, .. } = &user.spec.source else {
                continue;
            };
            match open_volume(&device, &pool, name, id) {
                Ok(split) => {
                    let size_bytes = split.info().size_bytes;
                    user.split = Some(Arc::clone(&split));
                    user.export
                        .tell(Command::SetPresence(Presence::Here(split)));
                    user.account.tell(ExportChange::DeviceReturned);
                    if user.size_bytes != size_bytes {
                        user.size_bytes = size_bytes;
                        user.export.tell(Command::Resize(size_bytes));
                    }
                }
                Err(error) => {
                    tracing::error!(export = user.spec.name, %error, "A volume is not on its returned drive");
                }
            }
        }
        drop(book);
        tracing::info!(pool = name, device = %info.path.display(), "The drive of a pool is back");
        self.inner.eraser.add(name, pool);
        Ok(info)
    }

    /// Whom an export's rings tell of failures that may be a loss.
    pub(super) fn suspect(&self, source: &Source) -> Option<Notice> {
        let Source::Volume { pool, .. } = source else {
            return None;
        };
        Some(self.inner.warden.suspect(pool))
    }

    /// Finds out whether a pool's drive still answers. What failed on a drive that does has failed for good.
    pub(super) fn examine(&self, pool: &str) {
        let device = self.book().pools.get(pool).and_then(|open| {
            let (device, _) = open.here().ok()?;
            Some(Arc::clone(device))
        });
        let Some(device) = device else { return };
        let answer = device.read_at(0, &mut [0; 4096]);
        drop(device);
        match answer {
            Ok(()) => {
                for user in self.book().exports_of(pool) {
                    user.export.tell(Command::Acquit);
                }
            }
            Err(error) => {
                tracing::warn!(pool, %error, "A drive does not answer");
                // It was in the book a moment ago; if it is not any more, nobody waits for it.
                let _ = self.lose(pool, false);
            }
        }
    }

    /// Takes back what has returned by itself; true if something is still missing.
    pub(super) fn welcome(&self) -> bool {
        let mut missing = false;
        for (name, path) in self.missing() {
            if !path.exists() {
                missing = true;
            } else if let Err(error) = self.add_pool_device(&name, None) {
                tracing::debug!(pool = name, %error, "What is there is not the drive that is missing");
                missing = true;
            }
        }
        missing
    }

    /// Pools whose drives went by themselves, and where they were.
    fn missing(&self) -> Vec<(String, PathBuf)> {
        let book = self.book();
        let gone = book.pools.iter().filter(|(_, open)| {
            matches!(
                open.standing,
                Standing::Lost {
                    by_command: false,
                    ..
                }
            )
        });
        gone.map(|(name, open)| (name.clone(), open.path.clone()))
            .collect()
    }

    /// Pools whose drives are there.
    pub(super) fn present(&self) -> Vec<String> {
        let book = self.book();
        let here = book
            .pools
            .iter()
            .filter(|(_, open)| matches!(open.standing, Standing::Here { .. }));
        here.map(|(name, _)| name.clone()).collect()
    }
}
