//! The driver's side of one queue: requests in, answers out, every answer checked before it is believed.

mod call;
mod wait;

pub use wait::wait_any;
pub(crate) use wait::wait_fd;
pub(super) use wait::{borrow, wait_readable};

use super::error::GuestError;
use super::feature;
use super::layout::{Buffers, Layout, Slot};
use super::memory::GuestMemory;
use super::request::{Op, status};
use super::ring::{Desc, DriverRing, crosses};
use super::wires::Wires;
use std::sync::Arc;
use std::sync::atomic::{Ordering, fence};
use std::time::Duration;

/// The name of a request on its queue; never used twice.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Ticket {
    serial: u64,
    head: u16,
}

impl Ticket {
    /// The descriptor by which the device knows the request.
    pub fn head(self) -> u16 {
        self.head
    }
}

/// One answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Done {
    /// Which request.
    pub ticket: Ticket,
    /// The status byte; [`status::UNWRITTEN`] if the device left it alone.
    pub status: u8,
    /// What the device read into the request's room; empty for a request without room.
    pub data: Vec<u8>,
    /// The length in the used element.
    pub used_len: u32,
}

/// A request the device has.
#[derive(Debug)]
struct Pending {
    ticket: Ticket,
    buffers: Buffers,
    room: u32,
    descs: Vec<u16>,
}

/// The driver's side of one queue. Memory and requests survive a lost connection.
#[derive(Debug)]
pub struct GuestQueue {
    index: usize,
    memory: Arc<GuestMemory>,
    wires: Arc<Wires>,
    slots: Vec<Slot>,
    free: Vec<u16>,
    pending: Vec<Option<Pending>>,
    /// Position of the next element of the available ring; ahead of `shown` while requests are staged.
    next_avail: u16,
    shown: u16,
    /// Position of the next element of the used ring.
    next_used: u16,
    serial: u64,
    event_idx: bool,
    indirect: bool,
    polling: bool,
    deadline: Duration,
}

impl GuestQueue {
    pub(super) fn new(
        index: usize,
        memory: Arc<GuestMemory>,
        wires: Arc<Wires>,
        slots: Vec<Slot>,
    ) -> GuestQueue {
        let size = wires.ring.place().size;
        GuestQueue {
            index,
            memory,
            wires,
            slots,
            free: (0..size).rev().collect(),
            pending: (0..size).map(|_| None).collect(),
            next_avail: 0,
            shown: 0,
            next_used: 0,
            serial: 0,
            event_idx: false,
            indirect: false,
            polling: false,
            deadline: Duration::ZERO,
        }
    }

    pub(super) fn negotiated(self, features: u64, deadline: Duration) -> GuestQueue {
        GuestQueue {
            event_idx: features & feature::EVENT_IDX != 0,
            indirect: features & feature::INDIRECT != 0,
            deadline,
            ..self
        }
    }

    /// Puts a request into the ring without showing it to the device.
    ///
    /// # Errors
    /// [`GuestError::QueueFull`], or [`GuestError::Invalid`] for data longer than [`data_max`](Self::data_max).
    pub fn stage(&mut self, op: Op, layout: Layout) -> Result<Ticket, GuestError> {
        let (header, room) = (op.header(), op.room());
        let payload = op.payload();
        let longest = payload.len().max(room as usize);
        let Some(&head) = self.free.last() else {
            return Err(self.full(1));
        };
        let slot = self.slots[usize::from(head)];
        if longest > slot.data_max(layout.shift) {
            let what = format!(
                "{longest} bytes of data do not fit, at most {}",
                self.data_max()
            );
            return Err(GuestError::Invalid { what });
        }
        let length = u32::try_from(payload.len()).expect("a slot is shorter than 4 GiB");
        let buffers = slot.lay_out(layout, length, room);
        let descs = self.link(&buffers, layout.indirect && self.indirect)?;
        self.memory.write(buffers.header, &header);
        self.memory.write(buffers.data, &payload);
        self.memory.write(buffers.status, &[status::UNWRITTEN]);
        self.serial += 1;
        let ticket = Ticket {
            serial: self.serial,
            head,
        };
        self.pending[usize::from(head)] = Some(Pending {
            ticket,
            buffers,
            room,
            descs,
        });
        self.wires.ring.set_avail(self.next_avail, head);
        self.next_avail = self.next_avail.wrapping_add(1);
        Ok(ticket)
    }

    /// Shows everything staged to the device and kicks it if it wants that; true if it was kicked.
    ///
    /// # Errors
    /// If the kick cannot be sent.
    pub fn notify(&mut self) -> Result<bool, GuestError> {
        let (old, new) = (self.shown, self.next_avail);
        if old == new {
            return Ok(false);
        }
        self.wires.ring.set_avail_idx(new);
        self.shown = new;
        // The device stores its wish, then loads avail.idx; we store avail.idx, then load its wish.
        fence(Ordering::SeqCst);
        let wanted = if self.event_idx {
            crosses(self.wires.ring.avail_event(), old, new)
        } else {
            !self.wires.ring.no_notify()
        };
        if wanted {
            self.kick_now()?;
        }
        Ok(wanted)
    }

    /// Stages one request and shows it.
    ///
    /// # Errors
    /// As [`stage`](Self::stage) and [`notify`](Self::notify).
    pub fn submit(&mut self, op: Op, layout: Layout) -> Result<Ticket, GuestError> {
        let ticket = self.stage(op, layout)?;
        self.notify()?;
        Ok(ticket)
    }

    /// Kicks whether the device wants it or not.
    ///
    /// # Errors
    /// If the eventfd refuses.
    pub fn kick_now(&self) -> Result<(), GuestError> {
        self.wires.kick.write(1).map_err(GuestError::io("kick"))
    }

    /// Takes all answers there are, in the order of the used ring; does not wait.
    ///
    /// # Errors
    /// [`GuestError::NotOutstanding`] and [`GuestError::UsedIndexJumped`]: the device broke the ring. The bad element is
    /// skipped, so the call may be repeated.
    pub fn complete(&mut self) -> Result<Vec<Done>, GuestError> {
        let used_idx = self.wires.ring.used_idx();
        let waiting = used_idx.wrapping_sub(self.next_used);
        if waiting > self.shown.wrapping_sub(self.next_used) {
            let (queue, avail_idx) = (self.index, self.shown);
            self.next_used = used_idx;
            return Err(GuestError::UsedIndexJumped {
                queue,
                used_idx,
                avail_idx,
            });
        }
        let mut done = Vec::with_capacity(usize::from(waiting));
        // Bound: at most as many as the queue ever made available.
        while self.next_used != used_idx {
            let (head, used_len) = self.wires.ring.used(self.next_used);
            match self.finish(head, used_len) {
                Some(answer) => done.push(answer),
                // What was taken before the bad element comes out first.
                None if !done.is_empty() => break,
                None => {
                    self.next_used = self.next_used.wrapping_add(1);
                    return Err(GuestError::NotOutstanding {
                        queue: self.index,
                        head,
                    });
                }
            }
            self.next_used = self.next_used.wrapping_add(1);
        }
        Ok(done)
    }

    /// The ring itself, for tests that misbehave. What is written there by hand, this queue knows nothing of.
    pub fn ring(&self) -> &DriverRing {
        &self.wires.ring
    }

    pub(crate) fn wires(&self) -> Arc<Wires> {
        Arc::clone(&self.wires)
    }

    /// The guest's memory.
    pub fn memory(&self) -> &GuestMemory {
        &self.memory
    }

    /// Its number.
    pub fn index(&self) -> usize {
        self.index
    }

    /// Longest data of one request in bytes.
    pub fn data_max(&self) -> usize {
        self.slots
            .iter()
            .map(|slot| slot.data_max(0))
            .min()
            .unwrap_or(0)
    }

    /// Requests staged or with the device, and not answered.
    pub fn outstanding(&self) -> usize {
        self.pending.iter().flatten().count()
    }

    /// Descriptors left.
    pub fn free(&self) -> usize {
        self.free.len()
    }

    /// Position after the last answer taken: what QEMU sends as base when the old back end did not say.
    pub fn used_position(&self) -> u16 {
        self.next_used
    }

    /// Forgets all requests and starts from zero, as a driver does after a device reset.
    pub fn reset(&mut self) {
        self.wires.ring.clear();
        self.free = (0..self.wires.ring.place().size).rev().collect();
        self.pending.fill_with(|| None);
        (self.next_avail, self.shown, self.next_used) = (0, 0, 0);
    }

    /// Takes descriptors from the free list and writes them, linked; the first is the head.
    fn link(&mut self, buffers: &Buffers, indirect: bool) -> Result<Vec<u16>, GuestError> {
        let table;
        let descs: &[Desc] = if indirect {
            let bytes = buffers.table_bytes();
            self.memory.write(buffers.table, &bytes);
            let len = u32::try_from(bytes.len()).expect("a table is shorter than a page");
            table = [Desc::new(buffers.table, len, Desc::INDIRECT)];
            &table
        } else {
            &buffers.descs
        };
        if descs.len() > self.free.len() {
            return Err(self.full(descs.len()));
        }
        let taken: Vec<u16> = self
            .free
            .drain(self.free.len() - descs.len()..)
            .rev()
            .collect();
        for (i, (&index, desc)) in taken.iter().zip(descs).enumerate() {
            let linked = match taken.get(i + 1) {
                Some(&next) => Desc {
                    flags: desc.flags | Desc::NEXT,
                    next,
                    ..*desc
                },
                None => *desc,
            };
            self.wires.ring.set_desc(index, linked);
        }
        Ok(taken)
    }

    /// Takes the answer of one head; none if it is not outstanding.
    fn finish(&mut self, head: u32, used_len: u32) -> Option<Done> {
        let index = usize::try_from(head).ok()?;
        let pending = self.pending.get_mut(index)?.take()?;
        let mut data = vec![0; pending.room as usize];
        self.memory.read(pending.buffers.data, &mut data);
        let mut byte = [0];
        self.memory.read(pending.buffers.status, &mut byte);
        // To the far end of the free list: the longer a slot rests, the likelier a late write to it is noticed.
        self.free.splice(0..0, pending.descs.into_iter().rev());
        Some(Done {
            ticket: pending.ticket,
            status: byte[0],
            data,
            used_len,
        })
    }

    fn full(&self, needed: usize) -> GuestError {
        GuestError::QueueFull {
            queue: self.index,
            free: self.free.len(),
            needed,
        }
    }
}
