//! The vhost-user messages, one method each (names are the specification's). An error here answers NACK and ends the
//! session; trouble with one ring is that ring's alone and no error.

use super::queue::Addresses;
use super::{Session, features};
use crate::reactor::PeerEvent;
use holdfast_ring::blk::{ConfigSpace, Topology};
use holdfast_ring::{MAX_QUEUE_SIZE, MemView, RegionSpec};
use std::fs::File;
use vhost::vhost_user::message::{
    VhostTransferStateDirection, VhostTransferStatePhase, VhostUserConfigFlags, VhostUserInflight,
    VhostUserLog, VhostUserMemoryRegion, VhostUserProtocolFeatures, VhostUserShMemConfig,
    VhostUserSharedMsg, VhostUserSingleMemoryRegion, VhostUserVringAddrFlags, VhostUserVringState,
};
use vhost::vhost_user::{Error, GpuBackend, Result, VhostUserBackendReqHandlerMut};

/// Longest configuration space a front end may read.
const CONFIG_MAX: usize = 256;

impl Session {
    fn refuse<T>(&self, message: &'static str, why: &dyn std::fmt::Display) -> Result<T> {
        tracing::warn!(export = %self.backing.export, message, %why, "Refused a front end's message");
        Err(Error::InvalidParam)
    }

    /// The index of a queue that exists.
    fn queue_at(&self, message: &'static str, index: u32) -> Result<usize> {
        let at = index as usize;
        if at < self.queues.len() {
            return Ok(at);
        }
        let why = format!("queue {index} of {}", self.queues.len());
        self.refuse(message, &why)
    }

    fn event(&self, message: &'static str, file: Option<File>) -> Result<Option<PeerEvent>> {
        match file.map(PeerEvent::new).transpose() {
            Ok(event) => Ok(event),
            Err(why) => self.refuse(message, &why),
        }
    }

    /// Stops a ring before something it stands on changes; `settle` starts it again.
    fn hold(&mut self, at: usize) {
        self.queues[at].stop(&self.backing);
        self.queues[at].reconsider();
    }

    fn config_space(&self) -> [u8; ConfigSpace::LEN] {
        let topology = Topology {
            physical_block_bytes: 4096,
            optimal_io_bytes: self.backing.optimal_io_bytes,
        };
        let writeback = !self.disk.writethrough;
        ConfigSpace::bytes_with(&self.disk.limits, self.backing.queues, writeback, topology)
    }
}

impl VhostUserBackendReqHandlerMut for Session {
    fn set_owner(&mut self) -> Result<()> {
        Ok(())
    }

    fn reset_owner(&mut self) -> Result<()> {
        // Deprecated, and read as "disable all rings".
        self.stop_all();
        self.queues
            .iter_mut()
            .for_each(|queue| queue.enabled = false);
        Ok(())
    }

    fn reset_device(&mut self) -> Result<()> {
        self.reset();
        Ok(())
    }

    fn get_features(&mut self) -> Result<u64> {
        Ok(features::offered(&self.disk.limits))
    }

    fn set_features(&mut self, agreed: u64) -> Result<()> {
        let unknown = agreed & !features::offered(&self.disk.limits);
        if unknown != 0 {
            return self.refuse(
                "SET_FEATURES",
                &format!("bits {unknown:#x} were not offered"),
            );
        }
        if agreed == self.features {
            return Ok(());
        }
        for at in 0..self.queues.len() {
            self.hold(at);
        }
        self.features = agreed;
        self.disk.writethrough = !features::can_flush(agreed);
        Ok(())
    }

    fn set_mem_table(
        &mut self,
        regions: &[VhostUserMemoryRegion],
        files: Vec<File>,
        _postcopy_listening: Option<bool>,
    ) -> Result<Option<Vec<u64>>> {
        let regions = regions.iter().map(spec).zip(files).collect();
        match self.replace_memory(regions) {
            Ok(()) => Ok(None),
            Err(why) => self.refuse("SET_MEM_TABLE", &why),
        }
    }

    fn set_vring_num(&mut self, index: u32, num: u32) -> Result<()> {
        let at = self.queue_at("SET_VRING_NUM", index)?;
        match u16::try_from(num) {
            Ok(size) if size.is_power_of_two() && size <= MAX_QUEUE_SIZE => {
                self.hold(at);
                self.queues[at].size = size;
                Ok(())
            }
            _ => {
                let why = format!("size {num} is no power of two up to {MAX_QUEUE_SIZE}");
                self.refuse("SET_VRING_NUM", &why)
            }
        }
    }

    fn set_vring_addr(
        &mut self,
        index: u32,
        _flags: VhostUserVringAddrFlags,
        desc: u64,
        used: u64,
        avail: u64,
        _log: u64,
    ) -> Result<()> {
        let at = self.queue_at("SET_VRING_ADDR", index)?;
        let addresses = Some(Addresses { desc, avail, used });
        if self.queues[at].addresses != addresses {
            self.hold(at);
            self.queues[at].addresses = addresses;
        }
        Ok(())
    }

    fn set_vring_base(&mut self, index: u32, base: u32) -> Result<()> {
        let at = self.queue_at("SET_VRING_BASE", index)?;
        let Ok(base) = u16::try_from(base) else {
            return self.refuse(
                "SET_VRING_BASE",
                &format!("position {base} has more than 16 bits"),
            );
        };
        self.hold(at);
        self.queues[at].base = base;
        Ok(())
    }

    fn get_vring_base(&mut self, index: u32) -> Result<VhostUserVringState> {
        let at = self.queue_at("GET_VRING_BASE", index)?;
        self.queues[at].retire(&self.backing);
        Ok(VhostUserVringState::new(index, self.queues[at].base.into()))
    }

    fn set_vring_kick(&mut self, index: u8, file: Option<File>) -> Result<()> {
        let at = self.queue_at("SET_VRING_KICK", index.into())?;
        let event = self.event("SET_VRING_KICK", file)?;
        self.queues[at].set_kick(event, &self.backing.reactors);
        Ok(())
    }

    fn set_vring_call(&mut self, index: u8, file: Option<File>) -> Result<()> {
        let at = self.queue_at("SET_VRING_CALL", index.into())?;
        let event = self.event("SET_VRING_CALL", file)?;
        self.queues[at].set_call(event, &self.backing.reactors);
        Ok(())
    }

    fn set_vring_err(&mut self, index: u8, file: Option<File>) -> Result<()> {
        let at = self.queue_at("SET_VRING_ERR", index.into())?;
        let event = self.event("SET_VRING_ERR", file)?;
        self.queues[at].set_err(event, &self.backing.reactors);
        Ok(())
    }

    fn get_protocol_features(&mut self) -> Result<VhostUserProtocolFeatures> {
        Ok(features::PROTOCOL)
    }

    fn set_protocol_features(&mut self, agreed: u64) -> Result<()> {
        let unknown = agreed & !features::PROTOCOL.bits();
        if unknown != 0 {
            let why = format!("bits {unknown:#x} were not offered");
            return self.refuse("SET_PROTOCOL_FEATURES", &why);
        }
        Ok(())
    }

    fn get_queue_num(&mut self) -> Result<u64> {
        Ok(self.backing.queues.into())
    }

    fn set_vring_enable(&mut self, index: u32, enable: bool) -> Result<()> {
        let at = self.queue_at("SET_VRING_ENABLE", index)?;
        if !enable {
            self.hold(at);
        }
        self.queues[at].enabled = enable;
        Ok(())
    }

    fn get_config(
        &mut self,
        offset: u32,
        size: u32,
        _flags: VhostUserConfigFlags,
    ) -> Result<Vec<u8>> {
        let (from, len) = (offset as usize, size as usize);
        if from.saturating_add(len) > CONFIG_MAX {
            return self.refuse(
                "GET_CONFIG",
                &format!("bytes {offset}+{size} of {CONFIG_MAX}"),
            );
        }
        self.knows_size = true;
        let mut bytes = self.config_space().to_vec();
        bytes.resize(CONFIG_MAX, 0);
        Ok(bytes[from..from + len].to_vec())
    }

    fn set_config(
        &mut self,
        offset: u32,
        bytes: &[u8],
        _flags: VhostUserConfigFlags,
    ) -> Result<()> {
        let may = features::lets_choose_cache(self.features);
        match *bytes {
            [mode @ (0 | 1)] if may && offset as usize == ConfigSpace::WCE_OFFSET => {
                self.disk.writethrough = mode == 0;
                self.spread_disk();
                Ok(())
            }
            _ => {
                let why = format!("byte {offset}+{} cannot be written", bytes.len());
                self.refuse("SET_CONFIG", &why)
            }
        }
    }

    fn get_max_mem_slots(&mut self) -> Result<u64> {
        Ok(MemView::MAX_REGIONS as u64)
    }

    fn add_mem_region(
        &mut self,
        region: &VhostUserSingleMemoryRegion,
        file: File,
        _postcopy_listening: Option<bool>,
    ) -> Result<Option<u64>> {
        match self.add_memory(spec(region), file) {
            Ok(()) => Ok(None),
            Err(why) => self.refuse("ADD_MEM_REG", &why),
        }
    }

    fn remove_mem_region(&mut self, region: &VhostUserSingleMemoryRegion) -> Result<()> {
        match self.remove_memory(&spec(region)) {
            Ok(()) => Ok(()),
            Err(why) => self.refuse("REM_MEM_REG", &why),
        }
    }

    fn get_inflight_fd(&mut self, wanted: &VhostUserInflight) -> Result<(VhostUserInflight, File)> {
        let (queues, queue_size) = (wanted.num_queues, wanted.queue_size);
        match self.make_inflight(queues, queue_size) {
            Ok((file, bytes)) => {
                let made = VhostUserInflight::new(bytes, 0, queues, queue_size);
                Ok((made, file))
            }
            Err(why) => self.refuse("GET_INFLIGHT_FD", &why),
        }
    }

    fn set_inflight_fd(&mut self, region: &VhostUserInflight, file: File) -> Result<()> {
        let part = (region.mmap_offset, region.mmap_size);
        match self.use_inflight(file, part, region.num_queues, region.queue_size) {
            Ok(()) => Ok(()),
            Err(why) => self.refuse("SET_INFLIGHT_FD", &why),
        }
    }

    // What follows is not offered, so a front end that asks for it breaks the protocol.

    fn set_gpu_socket(&mut self, _gpu: GpuBackend) -> Result<()> {
        self.refuse("GPU_SET_SOCKET", &"this is a disk")
    }

    fn get_shared_object(&mut self, _uuid: VhostUserSharedMsg) -> Result<File> {
        self.refuse("GET_SHARED_OBJECT", &"not offered")
    }

    fn set_device_state_fd(
        &mut self,
        _: VhostTransferStateDirection,
        _: VhostTransferStatePhase,
        _: File,
    ) -> Result<Option<File>> {
        self.refuse("SET_DEVICE_STATE_FD", &"not offered")
    }

    fn check_device_state(&mut self) -> Result<()> {
        self.refuse("CHECK_DEVICE_STATE", &"not offered")
    }

    fn get_shmem_config(&mut self) -> Result<VhostUserShMemConfig> {
        self.refuse("GET_SHMEM_CONFIG", &"not offered")
    }

    fn set_log_base(&mut self, _: &VhostUserLog, _: File) -> Result<()> {
        self.refuse("SET_LOG_BASE", &"not offered")
    }
}

fn spec(region: &VhostUserMemoryRegion) -> RegionSpec {
    RegionSpec {
        guest_addr: region.guest_phys_addr,
        user_addr: region.user_addr,
        size: region.memory_size,
        fd_offset: region.mmap_offset,
    }
}
