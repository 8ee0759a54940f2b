//! The catalogue: what a hostile or broken VMM may send. After each entry the back end must live, serve others, and hold
//! no descriptor or byte more than before; whether it answers, refuses or hangs up is its choice.

mod descriptors;
mod memory;
mod rings;

use super::message::{Message, request as code};
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
    all.extend(memory::attacks()?);
    all.extend(descriptors::attacks()?);
    all.extend(rings::attacks()?);
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
