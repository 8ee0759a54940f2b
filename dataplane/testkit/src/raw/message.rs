//! One vhost-user message as bytes: header of request, flags and size, body, descriptors. Nothing is checked.

use std::os::fd::OwnedFd;

/// Request codes of the front end.
pub mod request {
    #![allow(missing_docs)] // Their names are their documentation.
    pub const GET_FEATURES: u32 = 1;
    pub const SET_FEATURES: u32 = 2;
    pub const SET_OWNER: u32 = 3;
    pub const RESET_OWNER: u32 = 4;
    pub const SET_MEM_TABLE: u32 = 5;
    pub const SET_LOG_BASE: u32 = 6;
    pub const SET_LOG_FD: u32 = 7;
    pub const SET_VRING_NUM: u32 = 8;
    pub const SET_VRING_ADDR: u32 = 9;
    pub const SET_VRING_BASE: u32 = 10;
    pub const GET_VRING_BASE: u32 = 11;
    pub const SET_VRING_KICK: u32 = 12;
    pub const SET_VRING_CALL: u32 = 13;
    pub const SET_VRING_ERR: u32 = 14;
    pub const GET_PROTOCOL_FEATURES: u32 = 15;
    pub const SET_PROTOCOL_FEATURES: u32 = 16;
    pub const GET_QUEUE_NUM: u32 = 17;
    pub const SET_VRING_ENABLE: u32 = 18;
    pub const SET_BACKEND_REQ_FD: u32 = 21;
    pub const GET_CONFIG: u32 = 24;
    pub const SET_CONFIG: u32 = 25;
    pub const GET_INFLIGHT_FD: u32 = 31;
    pub const SET_INFLIGHT_FD: u32 = 32;
    pub const RESET_DEVICE: u32 = 34;
    pub const GET_MAX_MEM_SLOTS: u32 = 36;
    pub const ADD_MEM_REG: u32 = 37;
    pub const REM_MEM_REG: u32 = 38;
    pub const SET_STATUS: u32 = 39;
    pub const GET_STATUS: u32 = 40;
}

/// A message, honest or not.
#[derive(Debug)]
pub struct Message {
    /// Request code.
    pub request: u32,
    /// Version (1), reply (4), need-reply (8).
    pub flags: u32,
    /// The size the header claims; the body's length if none.
    pub size: Option<u32>,
    /// What follows the header.
    pub body: Vec<u8>,
    /// Descriptors that go along; closed here once sent.
    pub fds: Vec<OwnedFd>,
}

impl Message {
    /// A message of version 1 without body.
    pub fn new(request: u32) -> Message {
        Message {
            request,
            flags: 1,
            size: None,
            body: Vec::new(),
            fds: Vec::new(),
        }
    }

    /// With a body.
    #[must_use]
    pub fn body(self, body: &[u8]) -> Message {
        Message {
            body: body.to_vec(),
            ..self
        }
    }

    /// With 64-bit words as body.
    #[must_use]
    pub fn words(self, words: &[u64]) -> Message {
        Message {
            body: words.iter().flat_map(|word| word.to_le_bytes()).collect(),
            ..self
        }
    }

    /// With a queue and a number, as SET_VRING_NUM, BASE and ENABLE have it.
    #[must_use]
    pub fn state(self, queue: u32, value: u32) -> Message {
        self.words(&[u64::from(queue) | u64::from(value) << 32])
    }

    /// With the place of a ring: user addresses of descriptor table, used ring, available ring.
    #[must_use]
    pub fn ring(self, queue: u32, [desc, used, avail]: [u64; 3]) -> Message {
        self.words(&[u64::from(queue), desc, used, avail, 0])
    }

    /// With one memory region, as ADD_MEM_REG and REM_MEM_REG have it.
    #[must_use]
    pub fn region(self, guest: u64, size: u64, user: u64, offset: u64) -> Message {
        self.words(&[0, guest, size, user, offset])
    }

    /// With a memory table: guest address, size, user address, file offset each.
    #[must_use]
    pub fn table(self, regions: &[[u64; 4]]) -> Message {
        let mut words = vec![regions.len() as u64];
        words.extend(regions.iter().flatten());
        self.words(&words)
    }

    /// With other flags.
    #[must_use]
    pub fn flags(self, flags: u32) -> Message {
        Message { flags, ..self }
    }

    /// Asks for an acknowledgement.
    #[must_use]
    pub fn need_reply(self) -> Message {
        let flags = self.flags | 8;
        self.flags(flags)
    }

    /// With a size in the header that is not the body's.
    #[must_use]
    pub fn claiming(self, size: u32) -> Message {
        Message {
            size: Some(size),
            ..self
        }
    }

    /// With a descriptor more.
    #[must_use]
    pub fn fd(mut self, fd: OwnedFd) -> Message {
        self.fds.push(fd);
        self
    }

    /// Header and body.
    pub fn bytes(&self) -> Vec<u8> {
        let len = u32::try_from(self.body.len()).unwrap_or(u32::MAX);
        let size = self.size.unwrap_or(len);
        let mut bytes = Vec::with_capacity(12 + self.body.len());
        for word in [self.request, self.flags, size] {
            bytes.extend_from_slice(&word.to_le_bytes());
        }
        bytes.extend_from_slice(&self.body);
        bytes
    }
}
