//! Descriptors of the wrong kind, too many, or none.

use super::{Attack, MIB, USER, after, before};
use crate::raw::message::{Message, request as code};
use crate::raw::{directory, eventfd, memfd, null, pipe_end};
use std::io;

pub(super) fn attacks() -> io::Result<Vec<Attack>> {
    let add = || {
        Message::new(code::ADD_MEM_REG)
            .need_reply()
            .region(0, MIB, USER, 0)
    };
    let kick = |index| Message::new(code::SET_VRING_KICK).words(&[index]);
    let mut many = Message::new(code::SET_OWNER);
    for _ in 0..64 {
        many = many.fd(eventfd(true)?);
    }
    Ok(vec![
        after("memory without a file", vec![add()]),
        after(
            "memory with two files",
            vec![add().fd(memfd(MIB, true)?).fd(memfd(MIB, true)?)],
        ),
        after("memory that is a pipe", vec![add().fd(pipe_end()?)]),
        after("memory that is a directory", vec![add().fd(directory()?)]),
        after("memory that is a device", vec![add().fd(null()?)]),
        after("memory that is an eventfd", vec![add().fd(eventfd(true)?)]),
        after("kick that is memory", vec![kick(0).fd(memfd(MIB, true)?)]),
        after("kick that is a directory", vec![kick(0).fd(directory()?)]),
        after(
            "kick that is always readable",
            vec![kick(0).fd(pipe_end()?)],
        ),
        after(
            "kick of a queue that is not there",
            vec![kick(200).fd(eventfd(true)?)],
        ),
        after("kick promised and not sent", vec![kick(0)]),
        after("kick sent and denied", vec![kick(256).fd(eventfd(true)?)]),
        after(
            "call that is a device",
            vec![Message::new(code::SET_VRING_CALL).words(&[0]).fd(null()?)],
        ),
        after(
            "back channel that is no socket",
            vec![Message::new(code::SET_BACKEND_REQ_FD).fd(eventfd(true)?)],
        ),
        before(
            "descriptors where none belong",
            vec![
                Message::new(code::GET_FEATURES)
                    .fd(eventfd(true)?)
                    .fd(eventfd(true)?),
            ],
        ),
        before("64 descriptors", vec![many]),
    ])
}
