//! The guest: memory and queues that live on, and a connection that comes and goes.

mod rewire;

use super::builder::GuestBuilder;
use super::connection::Connection;
use super::memory::{GuestMemory, Region};
use super::queue::GuestQueue;
use super::wires::Wires;
use super::{BackChannel, BlkConfig, GuestError, Protocol};
use std::fs::File;
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use vhost::vhost_user::message::{VhostUserConfigFlags, VhostUserInflight};
use vhost::vhost_user::{Frontend, VhostUserFrontend};
use vhost::{VhostBackend, VringConfigData};

/// A guest as a back end sees it.
pub struct Guest {
    settings: GuestBuilder,
    path: PathBuf,
    memory: Arc<GuestMemory>,
    wires: Vec<Arc<Wires>>,
    /// What GET_VRING_BASE said last.
    bases: Vec<Option<u16>>,
    queues: Vec<GuestQueue>,
    connection: Option<Connection>,
    features: u64,
    inflight: Option<(VhostUserInflight, File)>,
}

impl Guest {
    /// Starts with sensible defaults.
    pub fn builder() -> GuestBuilder {
        GuestBuilder::default()
    }

    pub(super) fn new(
        settings: GuestBuilder,
        path: PathBuf,
        memory: Arc<GuestMemory>,
        (wires, queues): (Vec<Arc<Wires>>, Vec<GuestQueue>),
        connection: Connection,
    ) -> Guest {
        Guest {
            features: connection.offered & settings.features,
            bases: vec![None; queues.len()],
            settings,
            path,
            memory,
            wires,
            queues,
            connection: Some(connection),
            inflight: None,
        }
    }

    /// Sends features, memory and all queues, and enables them: what QEMU does when the driver says DRIVER_OK.
    ///
    /// # Errors
    /// [`GuestError::Protocol`] for the step that was refused.
    pub fn start(&mut self) -> Result<(), GuestError> {
        self.send_features()?;
        self.send_inflight()?;
        self.send_memory()?;
        for index in 0..self.wires.len() {
            self.start_queue(index)?;
        }
        Ok(())
    }

    /// SET_FEATURES with what was negotiated.
    ///
    /// # Errors
    /// [`GuestError::Protocol`].
    pub fn send_features(&mut self) -> Result<(), GuestError> {
        let features = self.features;
        self.ask("SET_FEATURES", |f| f.set_features(features))
    }

    /// The memory regions that this connection has not seen: an ADD_MEM_REG each if negotiated, else one SET_MEM_TABLE.
    ///
    /// # Errors
    /// [`GuestError::Protocol`].
    pub fn send_memory(&mut self) -> Result<(), GuestError> {
        let regions = self.memory.regions();
        if !self.protocol().contains(Protocol::CONFIGURE_MEM_SLOTS) {
            let table: Vec<_> = regions.iter().map(|r| r.info()).collect();
            return self
                .ask("SET_MEM_TABLE", |f| f.set_mem_table(&table))
                .map(drop);
        }
        for region in &regions {
            self.send_region(region)?;
        }
        Ok(())
    }

    /// Sends one queue and enables it. The base is what GET_VRING_BASE said, or else `used.idx`, as in QEMU.
    ///
    /// # Errors
    /// [`GuestError::Protocol`].
    pub fn start_queue(&mut self, index: usize) -> Result<(), GuestError> {
        let base = self.bases[index].take();
        let base = base.unwrap_or_else(|| self.wires[index].ring.used_idx());
        self.start_queue_at(index, base)
    }

    /// Sends one queue with a base of the test's choice and enables it.
    ///
    /// # Errors
    /// [`GuestError::Protocol`].
    pub fn start_queue_at(&mut self, index: usize, base: u16) -> Result<(), GuestError> {
        let wires = Arc::clone(&self.wires[index]);
        let size = wires.ring.place().size;
        let [desc_table_addr, avail_ring_addr, used_ring_addr] = wires.ring.user_addrs();
        let addrs = VringConfigData {
            queue_max_size: size,
            queue_size: size,
            flags: 0,
            desc_table_addr,
            used_ring_addr,
            avail_ring_addr,
            log_addr: None,
        };
        self.ask("SET_VRING_ERR", |f| f.set_vring_err(index, &wires.error))?;
        self.ask("SET_VRING_NUM", |f| f.set_vring_num(index, size))?;
        self.ask("SET_VRING_BASE", |f| f.set_vring_base(index, base))?;
        self.ask("SET_VRING_ADDR", |f| f.set_vring_addr(index, &addrs))?;
        self.ask("SET_VRING_CALL", |f| f.set_vring_call(index, &wires.call))?;
        self.ask("SET_VRING_KICK", |f| f.set_vring_kick(index, &wires.kick))?;
        if self.features & super::feature::PROTOCOL_FEATURES != 0 {
            self.enable_queue(index, true)?;
        }
        Ok(())
    }

    /// GET_VRING_BASE: the back end drains and stops the queue; its answer is kept for the next start.
    ///
    /// # Errors
    /// [`GuestError::Protocol`], [`GuestError::Timeout`] if the drain takes longer than the guest's deadline.
    pub fn stop_queue(&mut self, index: usize) -> Result<u16, GuestError> {
        let base = self.ask("GET_VRING_BASE", |f| f.get_vring_base(index))?;
        let base = u16::try_from(base).map_err(|_| GuestError::Invalid {
            what: format!("GET_VRING_BASE of a split queue answered {base:#x}"),
        })?;
        self.bases[index] = Some(base);
        Ok(base)
    }

    /// SET_VRING_ENABLE.
    ///
    /// # Errors
    /// [`GuestError::Protocol`].
    pub fn enable_queue(&mut self, index: usize, enable: bool) -> Result<(), GuestError> {
        self.ask("SET_VRING_ENABLE", |f| f.set_vring_enable(index, enable))
    }

    /// RESET_DEVICE, and all queues at home start from zero, with a new in-flight region, as in QEMU. Go on with
    /// [`start`](Self::start).
    ///
    /// # Errors
    /// [`GuestError::Protocol`].
    pub fn reset_device(&mut self) -> Result<(), GuestError> {
        self.ask("RESET_DEVICE", VhostUserFrontend::reset_device)?;
        self.bases.fill(None);
        self.inflight = None;
        self.queues.iter_mut().for_each(GuestQueue::reset);
        Ok(())
    }

    /// Adds a memory region at run time and returns its guest address. Without memory slots, the whole table is sent.
    ///
    /// # Errors
    /// [`GuestError::Protocol`].
    pub fn add_region(&mut self, bytes: u64) -> Result<u64, GuestError> {
        let region = self.memory.add(bytes)?;
        self.send_memory()?;
        Ok(region.guest_addr)
    }

    /// Removes the region that begins at a guest address; its memory is unmapped here once the back end agreed.
    ///
    /// # Errors
    /// [`GuestError::Invalid`] if there is none; [`GuestError::Protocol`].
    pub fn remove_region(&mut self, guest_addr: u64) -> Result<(), GuestError> {
        let region = self
            .memory
            .remove(guest_addr)
            .ok_or_else(|| GuestError::Invalid {
                what: format!("no region begins at {guest_addr:#x}"),
            })?;
        if !self.protocol().contains(Protocol::CONFIGURE_MEM_SLOTS) {
            return self.send_memory();
        }
        let info = region.info();
        let connection = self.connection.as_mut().ok_or(GuestError::NotConnected)?;
        connection.sent.retain(|&sent| sent != guest_addr);
        connection.ask("REM_MEM_REG", |f| f.remove_mem_region(&info))
    }

    /// Reads the configuration space.
    ///
    /// # Errors
    /// [`GuestError::Protocol`].
    pub fn config(&mut self) -> Result<BlkConfig, GuestError> {
        let bytes = self.config_bytes(0, 60)?;
        let bytes = bytes.try_into().expect("the codec checked the length");
        Ok(BlkConfig::parse(&bytes))
    }

    /// Reads part of the configuration space.
    ///
    /// # Errors
    /// [`GuestError::Protocol`].
    pub fn config_bytes(&mut self, offset: u32, len: u32) -> Result<Vec<u8>, GuestError> {
        let room = vec![0; len as usize];
        let flags = VhostUserConfigFlags::WRITABLE;
        let answer = self.ask("GET_CONFIG", |f| f.get_config(offset, len, flags, &room))?;
        Ok(answer.1)
    }

    /// Writes part of the configuration space; with CONFIG_WCE, one byte at [`BlkConfig::WCE_OFFSET`].
    ///
    /// # Errors
    /// [`GuestError::Protocol`].
    pub fn set_config(&mut self, offset: u32, bytes: &[u8]) -> Result<(), GuestError> {
        let flags = VhostUserConfigFlags::WRITABLE;
        self.ask("SET_CONFIG", |f| f.set_config(offset, flags, bytes))
    }

    /// Hangs up. Memory, rings and outstanding requests stay.
    pub fn disconnect(&mut self) {
        self.connection = None;
    }

    /// Connects to the same socket again and starts all queues where they stand.
    ///
    /// Without INFLIGHT_SHMFD a back end can only go on from `used.idx`: if requests are outstanding that were answered
    /// out of order, some are served twice and others never.
    ///
    /// # Errors
    /// As [`GuestBuilder::connect`]; [`GuestError::Invalid`] if negotiated features are no longer offered.
    pub fn reconnect(&mut self) -> Result<(), GuestError> {
        self.renegotiate()?;
        self.start()
    }

    /// As [`reconnect`](Self::reconnect), at another path.
    ///
    /// # Errors
    /// As [`reconnect`](Self::reconnect).
    pub fn reconnect_at(&mut self, path: impl AsRef<Path>) -> Result<(), GuestError> {
        self.path = path.as_ref().to_owned();
        self.reconnect()
    }

    /// Connects again and negotiates; sends neither memory nor queues.
    ///
    /// # Errors
    /// As [`reconnect`](Self::reconnect).
    pub fn renegotiate(&mut self) -> Result<(), GuestError> {
        self.connection = None;
        let connection = Connection::open(&self.path, &self.settings)?;
        let missing = self.features & !connection.offered;
        if missing != 0 {
            let what = format!("negotiated features {missing:#x} are no longer offered");
            return Err(GuestError::Invalid { what });
        }
        self.connection = Some(connection);
        Ok(())
    }

    /// Sends any message through the codec, under the guest's deadline.
    ///
    /// # Errors
    /// [`GuestError::NotConnected`], [`GuestError::Protocol`], [`GuestError::Timeout`].
    pub fn ask<T>(
        &mut self,
        step: &'static str,
        message: impl FnOnce(&mut Frontend) -> vhost::Result<T>,
    ) -> Result<T, GuestError> {
        self.connection
            .as_mut()
            .ok_or(GuestError::NotConnected)?
            .ask(step, message)
    }

    /// The channel on which CONFIG_CHANGE arrives; none without BACKEND_REQ or a connection.
    pub fn back_channel(&mut self) -> Option<&mut BackChannel> {
        self.connection.as_mut()?.back.as_mut()
    }

    /// One queue.
    ///
    /// # Panics
    /// If there is none of this number, or the queues have been taken.
    pub fn queue(&mut self, index: usize) -> &mut GuestQueue {
        &mut self.queues[index]
    }

    /// All queues, for a thread each.
    pub fn queues(&mut self) -> &mut [GuestQueue] {
        &mut self.queues
    }

    /// Moves the queues out, so that threads can use them while this guest stops, restarts and reconnects them.
    pub fn take_queues(&mut self) -> Vec<GuestQueue> {
        std::mem::take(&mut self.queues)
    }

    /// Puts queues taken before back, in the order they were in.
    pub fn put_queues(&mut self, queues: Vec<GuestQueue>) {
        self.queues = queues;
    }

    /// Virtio features negotiated.
    pub fn features(&self) -> u64 {
        self.features
    }

    /// Virtio features the back end offers on this connection.
    pub fn offered(&self) -> u64 {
        self.connection.as_ref().map_or(0, |c| c.offered)
    }

    /// Protocol features negotiated on this connection.
    pub fn protocol(&self) -> Protocol {
        self.connection
            .as_ref()
            .map_or(Protocol::empty(), |c| c.protocol)
    }

    /// How many queues the back end has.
    pub fn queues_offered(&self) -> u64 {
        self.connection.as_ref().map_or(0, |c| c.queues)
    }

    /// How many memory regions the back end holds; 0 without CONFIGURE_MEM_SLOTS.
    pub fn mem_slots(&self) -> u64 {
        self.connection.as_ref().map_or(0, |c| c.mem_slots)
    }

    /// The guest's memory.
    pub fn memory(&self) -> &Arc<GuestMemory> {
        &self.memory
    }

    /// The in-flight region, if negotiated and started once.
    pub fn inflight_file(&self) -> Option<&File> {
        self.inflight.as_ref().map(|(_, file)| file)
    }

    fn send_region(&mut self, region: &Region) -> Result<(), GuestError> {
        let connection = self.connection.as_mut().ok_or(GuestError::NotConnected)?;
        if connection.sent.contains(&region.guest_addr) {
            return Ok(());
        }
        let info = region.info();
        connection.ask("ADD_MEM_REG", |f| f.add_mem_region(&info))?;
        connection.sent.push(region.guest_addr);
        Ok(())
    }

    /// GET_INFLIGHT_FD on the first start only: afterwards the region is the guest's, and goes out again.
    fn send_inflight(&mut self) -> Result<(), GuestError> {
        if !self.protocol().contains(Protocol::INFLIGHT_SHMFD) {
            return Ok(());
        }
        let (region, file) = match self.inflight.take() {
            Some(known) => known,
            None => {
                let wish = VhostUserInflight {
                    num_queues: u16::try_from(self.wires.len()).expect("few queues"),
                    queue_size: self.settings.queue_size,
                    ..VhostUserInflight::default()
                };
                self.ask("GET_INFLIGHT_FD", |f| f.get_inflight_fd(&wish))?
            }
        };
        let sent = self.ask("SET_INFLIGHT_FD", |f| {
            f.set_inflight_fd(&region, file.as_raw_fd())
        });
        self.inflight = Some((region, file));
        sent
    }
}
