//! What is open and who uses it. Plain data; the rules are in the questions it answers.

use crate::session::Export;
use crate::{EngineError, ExportInfo, ExportSpec, PoolInfo, PoolSpec, Source};
use holdfast_bdev::{BlockDevice, Split};
use holdfast_pool::Pool;
use std::collections::{HashMap, HashSet};
use std::sync::Arc;

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

/// An open pool.
#[derive(Clone, Debug)]
pub(super) struct OpenPool {
    pub(super) spec: PoolSpec,
    pub(super) device: Arc<dyn BlockDevice>,
    pub(super) pool: Arc<Pool>,
}

/// A device or volume that is served.
#[derive(Clone, Debug)]
pub(super) struct Exported {
    pub(super) spec: ExportSpec,
    pub(super) export: Arc<Export>,
    pub(super) device: Arc<dyn BlockDevice>,
    /// For a volume: the same device, as something that can grow.
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

    pub(super) fn pool(&self, name: &str) -> Result<&OpenPool, EngineError> {
        self.pools
            .get(name)
            .ok_or_else(|| EngineError::not_found("pool", name))
    }
}

impl OpenPool {
    pub(super) fn info(&self) -> PoolInfo {
        PoolInfo {
            name: self.spec.name.clone(),
            uuid: self.pool.uuid(),
            identity: self.pool.identity().to_owned(),
            path: self.spec.path.clone(),
            usage: self.pool.usage(),
        }
    }
}

impl Exported {
    pub(super) fn info(&self) -> ExportInfo {
        ExportInfo {
            name: self.spec.name.clone(),
            source: self.spec.source.clone(),
            socket: self.spec.socket.clone(),
            size_bytes: self.device.info().size_bytes,
            connected: self.export.is_connected(),
            queues: self.spec.queues,
        }
    }
}
