//! Changes of a guest's memory table. What stays is kept mapped as it is; what is gone is unmapped only after the last
//! request into it has ended, because the front end frees it when it has our answer.

use super::Session;
use crate::reactor::Swap;
use holdfast_crash::crash_point;
use holdfast_ring::{MemError, MemRegion, MemView, RegionSpec};
use std::fs::File;
use std::os::fd::OwnedFd;
use std::os::unix::fs::MetadataExt;
use std::sync::Arc;

impl Session {
    /// Replaces the whole table.
    pub(super) fn replace_memory(
        &mut self,
        regions: Vec<(RegionSpec, File)>,
    ) -> Result<(), MemError> {
        let mut mapped = Vec::with_capacity(regions.len());
        for (spec, file) in regions {
            mapped.push(match self.mapped_already(&spec, &file) {
                Some(region) => region,
                None => Arc::new(MemRegion::map(spec, OwnedFd::from(file), false)?),
            });
        }
        self.change_memory(self.view.replaced_by(mapped)?);
        Ok(())
    }

    /// Adds one region.
    pub(super) fn add_memory(&mut self, spec: RegionSpec, file: File) -> Result<(), MemError> {
        let region = Arc::new(MemRegion::map(spec, OwnedFd::from(file), false)?);
        let view = self.view.with_region(region)?;
        self.change_memory(view);
        Ok(())
    }

    /// Removes one region; it is unmapped when this returns.
    pub(super) fn remove_memory(&mut self, spec: &RegionSpec) -> Result<(), MemError> {
        let view = self.view.without_region(spec)?;
        self.change_memory(view);
        Ok(())
    }

    fn change_memory(&mut self, view: MemView) {
        let view = Arc::new(view);
        let gone = self
            .view
            .regions()
            .iter()
            .any(|old| !view.regions().iter().any(|new| Arc::ptr_eq(old, new)));
        let reactors = &self.backing.reactors;
        let answers: Vec<_> = self
            .queues
            .iter()
            .filter_map(|queue| queue.swap_view(reactors, &view))
            .collect();
        crash_point!("memory.spread");
        self.view = view;
        for answer in answers {
            // The guest may use new memory as soon as we answer, so every ring must have it by then.
            let wanted = if gone { Swap::Drained } else { Swap::Done };
            while answer.recv().is_ok_and(|now| now != wanted) {}
        }
        crash_point!("memory.changed");
        self.queues.iter_mut().for_each(super::Queue::reconsider);
    }

    /// The mapping of the same part of the same file at the same addresses, if there is one.
    fn mapped_already(&self, spec: &RegionSpec, file: &File) -> Option<Arc<MemRegion>> {
        let identity = |file: &File| file.metadata().ok().map(|m| (m.dev(), m.ino()));
        let wanted = identity(file)?;
        let same = |region: &&Arc<MemRegion>| {
            region.spec() == spec && region.file().and_then(identity) == Some(wanted)
        };
        self.view.regions().iter().find(same).cloned()
    }
}
