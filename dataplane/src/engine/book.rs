//! What is open and who uses it. Plain data; the rules are in the questions it answers.

use crate::account::Account;
use crate::session::Export;
use crate::{EngineError, ExportInfo, ExportSpec, ExportStats, PoolInfo, PoolSpec, Source, Usage};
use holdfast_bdev::{BlockDevice, Split};
use holdfast_pool::Pool;
use std::collections::{HashMap, HashSet};
use std::path::PathBuf;
use std::sync::Arc;
use uuid::Uuid;

/// Everything the engine has open.
#[derive(Debug, Default)]
pub(super) struct Book {
    pub(super) stopping: bool,
    pub(super) devices: HashMap<String, Arc<dyn BlockDevice>>,
    pub(super) pools: HashMap<String, OpenPool>,
    pub(super) exports: HashMap<String, Exported>,
    /// Volumes that are being deleted: they may not be exported meanwhile.
    pub(super) leaving: HashSet<Source>,
}

/// A pool that was opened. Its drive may be lost since.
#[derive(Clone, Debug)]
pub(super) struct OpenPool {
    pub(super) spec: PoolSpec,
    /// Where the drive is, or was last; it may return elsewhere than the spec says.
    pub(super) path: PathBuf,
    pub(super) uuid: Uuid,
    pub(super) standing: Standing,
}

/// Where a pool's drive is.
#[derive(Clone, Debug)]
pub(super) enum Standing {
    /// There, and held.
    Here {
        device: Arc<dyn BlockDevice>,
        pool: Arc<Pool>,
    },
    /// Gone.
    Lost {
        /// How its space was used when it went.
        usage: Usage,
        /// Somebody asked for it, so it comes back by somebody's wish only.
        by_command: bool,
    },
}

/// A device or volume that is served.
#[derive(Clone, Debug)]
pub(super) struct Exported {
    pub(super) spec: ExportSpec,
    pub(super) export: Arc<Export>,
    pub(super) account: Arc<Account>,
    /// Size the guest sees, in bytes.
    pub(super) size_bytes: u64,
    /// For a volume whose drive is there: the device, as something that can grow.
    pub(super) split: Option<Arc<Split>>,
    /// It has been told to end.
    pub(super) ending: bool,
}

impl Book {
    pub(super) fn check_open(&self) -> Result<(), EngineError> {
        if self.stopping {
            return Err(EngineError::Stopping);
        }
        Ok(())
    }

    /// Refuses what somebody uses.
    pub(super) fn check_unused(&self, source: &Source) -> Result<(), EngineError> {
        if self.leaving.contains(source) {
            return Err(EngineError::source_busy(source, "a deletion under way"));
        }
        let user = self
            .exports
            .values()
            .find(|exported| exported.spec.source == *source);
        match user {
            Some(user) => {
                let by = format!("export {:?}", user.spec.name);
                Err(EngineError::source_busy(source, &by))
            }
            None => Ok(()),
        }
    }

    /// The exports of a pool's volumes.
    pub(super) fn exports_of<'a>(
        &'a mut self,
        pool: &'a str,
    ) -> impl Iterator<Item = &'a mut Exported> {
        self.exports.values_mut().filter(
            move |exported| matches!(&exported.spec.source, Source::Volume { pool: of, .. } if of == pool),
        )
    }

    pub(super) fn pool(&self, name: &str) -> Result<&OpenPool, EngineError> {
        self.pools
            .get(name)
            .ok_or_else(|| EngineError::not_found("pool", name))
    }
}

impl OpenPool {
    /// Device and pool, as long as the drive is there.
    pub(super) fn here(&self) -> Result<(&Arc<dyn BlockDevice>, &Arc<Pool>), EngineError> {
        match &self.standing {
            Standing::Here { device, pool } => Ok((device, pool)),
            Standing::Lost { .. } => Err(EngineError::Lost {
                name: self.spec.name.clone(),
            }),
        }
    }

    /// The drive has gone. Once somebody has asked for it, it stays away until somebody asks again.
    pub(super) fn mark_lost(&mut self, asked: bool) {
        let (usage, before) = match &self.standing {
            Standing::Here { pool, .. } => (pool.usage(), false),
            Standing::Lost { usage, by_command } => (*usage, *by_command),
        };
        self.standing = Standing::Lost {
            usage,
            by_command: asked || before,
        };
    }

    pub(super) fn info(&self) -> PoolInfo {
        PoolInfo {
            name: self.spec.name.clone(),
            uuid: self.uuid,
            identity: self.spec.identity.clone(),
            path: self.path.clone(),
            usage: match &self.standing {
                Standing::Here { pool, .. } => pool.usage(),
                Standing::Lost { usage, .. } => *usage,
            },
            lost: matches!(self.standing, Standing::Lost { .. }),
            removed: matches!(
                self.standing,
                Standing::Lost {
                    by_command: true,
                    ..
                }
            ),
        }
    }
}

impl Exported {
    pub(super) fn info(&self) -> ExportInfo {
        ExportInfo {
            name: self.spec.name.clone(),
            source: self.spec.source.clone(),
            socket: self.spec.socket.clone(),
            size_bytes: self.size_bytes,
            connected: self.export.is_connected(),
            queues: self.spec.queues,
            limits: self.spec.limits,
        }
    }

    pub(super) fn stats(&self) -> ExportStats {
        self.account.stats(self.export.is_connected())
    }
}
