//! The catalogue: what a hostile or broken VMM may send. After each entry the back end must live, serve others, and hold
//! no descriptor or byte more than before; whether it answers, refuses or hangs up is its choice.

use super::message::{Message, request as code};
use super::{directory, eventfd, memfd, null, pipe_end};
use std::io;

/// One attack: messages sent one after the other, until the back end hangs up.
#[derive(Debug)]
pub struct Attack {
    /// What is wrong with it.
    pub name: &'static str,
    /// Whether an honest handshake comes first.
    pub after_handshake: bool,
    /// What is sent.
    pub messages: Vec<Message>,
    /// Bytes sent after the messages, as they are.
    pub tail: Vec<u8>,
}

const MIB: u64 = 1 << 20;
/// A user address far from everything.
const USER: u64 = 0x7f00_0000_0000;

/// All attacks. Each call makes fresh descriptors.
///
/// # Errors
/// If the kernel gives no descriptors.
pub fn catalogue() -> io::Result<Vec<Attack>> {
    let mut all = framing();
    all.extend(memory()?);
    all.extend(descriptors()?);
    all.extend(rings()?);
    Ok(all)
}

fn before(name: &'static str, messages: Vec<Message>) -> Attack {
    Attack {
        name,
        after_handshake: false,
        messages,
        tail: Vec::new(),
    }
}

fn after(name: &'static str, messages: Vec<Message>) -> Attack {
    Attack {
        name,
        after_handshake: true,
        messages,
        tail: Vec::new(),
    }
}

fn tail(name: &'static str, tail: Vec<u8>) -> Attack {
    Attack {
        name,
        after_handshake: false,
        messages: Vec::new(),
        tail,
    }
}

fn framing() -> Vec<Attack> {
    let features = Message::new(code::SET_FEATURES).words(&[1 << 32]);
    vec![
        tail("silence", vec![]),
        tail("one byte", vec![1]),
        tail(
            "header without its last byte",
            features.bytes()[..11].to_vec(),
        ),
        tail(
            "body without its last byte",
            features.bytes()[..19].to_vec(),
        ),
        tail("zeros", vec![0; 4096]),
        tail("ones", vec![0xff; 4096]),
        before("version 0", vec![Message::new(code::GET_FEATURES).flags(0)]),
        before("version 3", vec![Message::new(code::GET_FEATURES).flags(3)]),
        before(
            "request that is a reply",
            vec![Message::new(code::GET_FEATURES).flags(5)],
        ),
        before(
            "every flag",
            vec![Message::new(code::GET_FEATURES).flags(u32::MAX)],
        ),
        before("request 0", vec![Message::new(0)]),
        before("unknown request", vec![Message::new(99)]),
        before("largest request", vec![Message::new(u32::MAX)]),
        before(
            "size of 4 GiB",
            vec![Message::new(code::SET_FEATURES).claiming(u32::MAX)],
        ),
        before(
            "size above the limit",
            vec![Message::new(code::SET_FEATURES).body(&[0; 8192])],
        ),
        before(
            "body where none belongs",
            vec![Message::new(code::GET_FEATURES).words(&[1])],
        ),
        before(
            "no body where one belongs",
            vec![Message::new(code::SET_FEATURES)],
        ),
        before(
            "body of half a word",
            vec![Message::new(code::SET_FEATURES).body(&[1; 4])],
        ),
        before(
            "features never offered",
            vec![Message::new(code::SET_FEATURES).words(&[u64::MAX])],
        ),
        before(
            "protocol features never offered",
            vec![Message::new(code::SET_PROTOCOL_FEATURES).words(&[u64::MAX])],
        ),
        after(
            "unknown request that wants an answer",
            vec![Message::new(99).need_reply()],
        ),
        after(
            "owner twice",
            vec![Message::new(code::SET_OWNER), Message::new(code::SET_OWNER)],
        ),
        after(
            "configuration past its end",
            vec![Message::new(code::GET_CONFIG).body(&[250, 0, 0, 0, 16, 0, 0, 0, 0, 0, 0, 0])],
        ),
        after(
            "configuration of no bytes",
            vec![Message::new(code::GET_CONFIG).body(&[0; 12])],
        ),
        after(
            "configuration written where it is read-only",
            vec![Message::new(code::SET_CONFIG).body(&[0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0xff])],
        ),
        after(
            "status not negotiated",
            vec![Message::new(code::SET_STATUS).words(&[15])],
        ),
        after(
            "log not negotiated",
            vec![Message::new(code::SET_LOG_BASE).words(&[4096, 0])],
        ),
    ]
}

fn memory() -> io::Result<Vec<Attack>> {
    let add = || Message::new(code::ADD_MEM_REG).need_reply();
    let table = || Message::new(code::SET_MEM_TABLE).need_reply();
    let good = || memfd(MIB, true);
    Ok(vec![
        after(
            "region of no bytes",
            vec![add().region(0, 0, USER, 0).fd(good()?)],
        ),
        after(
            "region longer than its file",
            vec![add().region(0, 2 * MIB, USER, 0).fd(good()?)],
        ),
        after(
            "region past its file",
            vec![add().region(0, MIB, USER, MIB).fd(good()?)],
        ),
        after(
            "region at a wrapping offset",
            vec![add().region(0, MIB, USER, u64::MAX - 4095).fd(good()?)],
        ),
        after(
            "region of 16 EiB",
            vec![add().region(0, u64::MAX, USER, 0).fd(good()?)],
        ),
        after(
            "region at the end of guest space",
            vec![add().region(u64::MAX - 4095, MIB, USER, 0).fd(good()?)],
        ),
        after(
            "region at the end of user space",
            vec![add().region(0, MIB, u64::MAX - 4095, 0).fd(good()?)],
        ),
        after(
            "regions that overlap for the guest",
            vec![
                add().region(0, MIB, USER, 0).fd(good()?),
                add().region(4096, MIB, USER + 8 * MIB, 0).fd(good()?),
            ],
        ),
        after(
            "regions that overlap for the user",
            vec![
                add().region(0, MIB, USER, 0).fd(good()?),
                add().region(8 * MIB, MIB, USER + 4096, 0).fd(good()?),
            ],
        ),
        after(
            "region that can shrink",
            vec![add().region(0, MIB, USER, 0).fd(memfd(MIB, false)?)],
        ),
        after(
            "region removed that never was",
            vec![
                Message::new(code::REM_MEM_REG)
                    .need_reply()
                    .region(0, MIB, USER, 0),
            ],
        ),
        after("empty table", vec![table().table(&[])]),
        after(
            "table that counts more than it holds",
            vec![table().body(&[8, 0, 0, 0, 0, 0, 0, 0]).fd(good()?)],
        ),
        after(
            "table of 4 billion regions",
            vec![
                table()
                    .words(&[u64::from(u32::MAX), 0, MIB, USER, 0])
                    .fd(good()?),
            ],
        ),
        after(
            "table with an overlap",
            vec![
                table()
                    .table(&[[0, MIB, USER, 0], [4096, MIB, USER + 8 * MIB, 0]])
                    .fd(good()?)
                    .fd(good()?),
            ],
        ),
        after(
            "table with a file too few",
            vec![
                table()
                    .table(&[[0, MIB, USER, 0], [8 * MIB, MIB, USER + 8 * MIB, 0]])
                    .fd(good()?),
            ],
        ),
    ])
}

fn descriptors() -> io::Result<Vec<Attack>> {
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

fn rings() -> io::Result<Vec<Attack>> {
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

impl Attack {
    /// Carries the attack out and waits until the back end has let go of the connection.
    ///
    /// # Errors
    /// If nobody listens, the honest handshake fails, or the back end does not hang up after we did.
    pub fn carry_out(&self, mut peer: super::RawPeer) -> io::Result<()> {
        if self.after_handshake {
            peer.shake_hands()?;
        }
        for message in &self.messages {
            if peer.send(message).is_err() {
                break;
            }
        }
        // The back end may be gone by now.
        let _ = peer.send_bytes(&self.tail, &[]);
        match peer.wait_hang_up() {
            Err(error) if error.kind() == io::ErrorKind::NotConnected => Ok(()),
            other => other,
        }
    }
}
