//! What vhost-user-backend asks of a device.

use super::ReferenceConfig;
use super::blk::{self, Blk};
use crate::frontend::feature;
use holdfast_bdev::BlockDevice;
use std::io;
use std::sync::Arc;
use vhost::vhost_user::VhostUserProtocolFeatures;
use vhost_user_backend::{VhostUserBackendMut, VringRwLock, VringT};
use virtio_queue::QueueT;
use vm_memory::{GuestAddressSpace, GuestMemoryAtomic, GuestMemoryMmap};
use vmm_sys_util::epoll::EventSet;
use vmm_sys_util::event::{
    EventConsumer, EventFlag, EventNotifier, new_event_consumer_and_notifier,
};

type Memory = GuestMemoryAtomic<GuestMemoryMmap>;

pub(super) struct Backend {
    blk: Blk,
    config: ReferenceConfig,
    memory: Option<Memory>,
    writeback: bool,
}

impl Backend {
    pub(super) fn new(device: Arc<dyn BlockDevice>, config: ReferenceConfig) -> Backend {
        let blk = Blk {
            device,
            serial: config.serial.clone(),
        };
        Backend {
            blk,
            config,
            memory: None,
            writeback: true,
        }
    }

    /// Serves all that is available; true if the guest may want an interrupt.
    fn serve(&self, vring: &VringRwLock<Memory>) -> io::Result<bool> {
        let Some(memory) = &self.memory else {
            return Ok(false);
        };
        let mut served = false;
        // Bound: the queue holds at most its size of chains; more only as the guest adds them.
        loop {
            let chain = vring
                .get_mut()
                .get_queue_mut()
                .pop_descriptor_chain(memory.memory());
            let Some(chain) = chain else {
                return Ok(served);
            };
            let head = chain.head_index();
            let used_len = self
                .blk
                .serve(&memory.memory(), chain)
                .map_err(io::Error::other)?;
            vring.add_used(head, used_len).map_err(io::Error::other)?;
            served = true;
        }
    }

    fn announce(vring: &VringRwLock<Memory>) -> io::Result<()> {
        if vring.needs_notification().map_err(io::Error::other)? {
            vring.signal_used_queue()?;
        }
        Ok(())
    }
}

impl VhostUserBackendMut for Backend {
    type Bitmap = ();
    type Vring = VringRwLock<Memory>;

    fn num_queues(&self) -> usize {
        self.config.queues
    }

    fn max_queue_size(&self) -> usize {
        usize::from(self.config.queue_size)
    }

    fn features(&self) -> u64 {
        let info = self.blk.device.info();
        let optional = [
            (feature::RO, info.read_only),
            (feature::DISCARD, info.discard && !info.read_only),
            (feature::WRITE_ZEROES, info.write_zeroes && !info.read_only),
            (feature::MQ, self.config.queues > 1),
        ];
        let left_out = optional.iter().filter(|(_, on)| !on).map(|(bit, _)| bit);
        feature::ALL & !left_out.fold(0, |all, bit| all | bit)
    }

    fn protocol_features(&self) -> VhostUserProtocolFeatures {
        VhostUserProtocolFeatures::MQ
            | VhostUserProtocolFeatures::CONFIG
            | VhostUserProtocolFeatures::REPLY_ACK
            | VhostUserProtocolFeatures::CONFIGURE_MEM_SLOTS
            | VhostUserProtocolFeatures::RESET_DEVICE
    }

    /// The vrings know; nothing here depends on it.
    fn set_event_idx(&mut self, _enabled: bool) {}

    fn get_config(&self, offset: u32, size: u32) -> Vec<u8> {
        let space = blk::config_space(&self.blk.device.info(), self.config.queues, self.writeback);
        let range = (offset as usize)..(offset as usize).saturating_add(size as usize);
        let byte = |at| space.get(at).copied().unwrap_or(0);
        range.map(byte).collect()
    }

    fn set_config(&mut self, offset: u32, bytes: &[u8]) -> io::Result<()> {
        match (offset, bytes) {
            (crate::frontend::BlkConfig::WCE_OFFSET, &[byte @ (0 | 1)]) => {
                self.writeback = byte == 1;
                Ok(())
            }
            _ => Err(io::ErrorKind::InvalidInput.into()),
        }
    }

    fn update_memory(&mut self, memory: Memory) -> io::Result<()> {
        self.memory = Some(memory);
        Ok(())
    }

    fn exit_event(&self, _thread_index: usize) -> Option<(EventConsumer, EventNotifier)> {
        new_event_consumer_and_notifier(EventFlag::NONBLOCK).ok()
    }

    fn handle_event(
        &mut self,
        index: u16,
        _events: EventSet,
        vrings: &[VringRwLock<Memory>],
        _thread: usize,
    ) -> io::Result<()> {
        let Some(vring) = vrings.get(usize::from(index)) else {
            return Ok(());
        };
        let mut idle = false;
        // Bound: as in `serve`. A ring that has something new and yields nothing twice is broken, and left alone.
        loop {
            vring.disable_notification().map_err(io::Error::other)?;
            let served = self.serve(vring)?;
            if served {
                Self::announce(vring)?;
            }
            let more = vring.enable_notification().map_err(io::Error::other)?;
            if !more || (idle && !served) {
                return Ok(());
            }
            idle = !served;
        }
    }
}
