//! Rings of impossible size or place, and steps in an order that no honest VMM takes.

use super::{Attack, MIB, USER, after};
use crate::raw::message::{Message, request as code};
use crate::raw::{eventfd, memfd};
use std::io;

pub(super) fn attacks() -> io::Result<Vec<Attack>> {
    let num = |size| Message::new(code::SET_VRING_NUM).state(0, size);
    let base = |at| Message::new(code::SET_VRING_BASE).state(0, at);
    let place = |at| Message::new(code::SET_VRING_ADDR).ring(0, at);
    let enable = |value| Message::new(code::SET_VRING_ENABLE).state(0, value);
    let kick = || {
        Ok::<_, io::Error>(
            Message::new(code::SET_VRING_KICK)
                .words(&[0])
                .fd(eventfd(true)?),
        )
    };
    let memory = || {
        let add = Message::new(code::ADD_MEM_REG).region(0, MIB, USER, 0);
        Ok::<_, io::Error>(add.fd(memfd(MIB, true)?))
    };
    let good = [USER, USER + 0x3000, USER + 0x2000];
    let start = |name, size, at, from| {
        let messages = vec![
            memory()?,
            num(size),
            base(from),
            place(at),
            kick()?,
            enable(1),
        ];
        Ok::<_, io::Error>(after(name, messages))
    };
    Ok(vec![
        start("queue of size 0", 0, good, 0)?,
        start("queue of size 3", 3, good, 0)?,
        start("queue of size 32768", 32768, good, 0)?,
        start("queue of size 4 billion", u32::MAX, good, 0)?,
        start("base beyond 16 bits", 128, good, 0x1_0001)?,
        start("rings nowhere", 128, [0x10, 0x20, 0x30], 0)?,
        start("rings at the end of memory", 128, [USER + MIB - 16; 3], 0)?,
        start("rings on top of each other", 128, [USER; 3], 0)?,
        start(
            "rings misaligned",
            128,
            [USER + 1, USER + 0x3001, USER + 0x2001],
            0,
        )?,
        start("rings at the end of user space", 128, [u64::MAX - 15; 3], 0)?,
        after(
            "queue that is not there",
            vec![Message::new(code::SET_VRING_NUM).state(u32::MAX, 128)],
        ),
        after("enable of 2", vec![enable(2)]),
        after("enable before anything else", vec![enable(1), kick()?]),
        after(
            "start without memory",
            vec![num(128), place(good), kick()?, enable(1)],
        ),
        after(
            "base of a queue never started",
            vec![Message::new(code::GET_VRING_BASE).state(0, 0)],
        ),
        after(
            "size changed while it runs",
            vec![
                memory()?,
                num(128),
                base(0),
                place(good),
                kick()?,
                enable(1),
                num(256),
            ],
        ),
        after(
            "memory removed under a running queue",
            vec![
                memory()?,
                num(128),
                base(0),
                place(good),
                kick()?,
                enable(1),
                Message::new(code::REM_MEM_REG).region(0, MIB, USER, 0),
            ],
        ),
        after(
            "reset while it runs",
            vec![
                memory()?,
                num(128),
                base(0),
                place(good),
                kick()?,
                enable(1),
                Message::new(code::RESET_DEVICE),
                Message::new(code::RESET_DEVICE),
            ],
        ),
        after(
            "in-flight region of no queues",
            vec![Message::new(code::GET_INFLIGHT_FD).words(&[0, 0, 0])],
        ),
    ])
}
