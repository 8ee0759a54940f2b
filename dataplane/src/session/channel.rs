//! The back channel: how the front end learns of a new size. The codec crate keeps its end of it to itself and cannot send
//! this message, so the descriptor is looked at while it still lies in the socket.

use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendFlags, recv, recvmsg, send,
};
use std::io::{self, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{BorrowedFd, OwnedFd};

/// Length of a vhost-user message header: request, flags, size of the payload.
const HEADER_LEN: usize = 12;
const SET_BACKEND_REQ_FD: u32 = 21;
const BACKEND_CONFIG_CHANGE_MSG: u32 = 2;
/// Version 1 of the protocol, no answer wanted.
const FLAGS: u32 = 1;

/// Our end of the back channel.
pub(super) struct BackendChannel(OwnedFd);

impl BackendChannel {
    /// If the next message on `connection` brings a back channel: a copy of its descriptor. The message stays where it
    /// is, for the codec to check and answer.
    pub(super) fn coming_in(connection: BorrowedFd<'_>) -> Option<BackendChannel> {
        let mut header = [0; HEADER_LEN];
        let look = RecvFlags::PEEK | RecvFlags::DONTWAIT;
        let (_, len) = recv(connection, &mut header[..], look).ok()?;
        let [a, b, c, d, ..] = header;
        if len < HEADER_LEN || u32::from_le_bytes([a, b, c, d]) != SET_BACKEND_REQ_FD {
            return None;
        }
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut control = RecvAncillaryBuffer::new(&mut space);
        let mut parts = [IoSliceMut::new(&mut header)];
        let flags = look | RecvFlags::CMSG_CLOEXEC;
        recvmsg(connection, &mut parts, &mut control, flags).ok()?;
        control.drain().find_map(|message| match message {
            RecvAncillaryMessage::ScmRights(mut fds) => fds.next().map(BackendChannel),
            _ => None,
        })
    }

    /// Tells the front end to read the configuration again. Never blocks: a peer that does not read is not waited for.
    pub(super) fn announce_config_change(&self) -> io::Result<()> {
        let mut message = [0; HEADER_LEN];
        message[..4].copy_from_slice(&BACKEND_CONFIG_CHANGE_MSG.to_le_bytes());
        message[4..8].copy_from_slice(&FLAGS.to_le_bytes());
        send(&self.0, &message, SendFlags::DONTWAIT | SendFlags::NOSIGNAL)?;
        Ok(())
    }
}
