//! Any messages, in any order, with any descriptors, to a real session of a real engine. It must hang up when we do, at the
//! latest, and serve its neighbour and the next front end as if nothing had been.
#![no_main]

use arbitrary::Arbitrary;
use holdfast_bdev::Malloc;
use holdfast_dataplane::{Engine, EngineConfig, ExportSpec, Source};
use holdfast_testkit::frontend::Guest;
use holdfast_testkit::raw::{self, Message, RawPeer, request};
use libfuzzer_sys::fuzz_target;
use std::os::fd::OwnedFd;
use std::sync::{Arc, LazyLock, Mutex};
use std::time::Duration;

const DEADLINE: Duration = Duration::from_secs(5);
const MIB: u64 = 1 << 20;
const USER: u64 = 0x7f00_0000_0000;

#[derive(Arbitrary, Debug)]
struct Input {
    steps: Vec<Step>,
}

#[derive(Arbitrary, Debug)]
enum Step {
    /// Bytes as they are.
    Bytes(Vec<u8>),
    /// A message of any kind.
    Message {
        code: u8,
        flags: u8,
        size: Option<u16>,
        body: Vec<u8>,
        fds: Vec<Fd>,
    },
    /// Owner, features, protocol features, as they should be.
    Handshake,
    /// One MiB of memory at one of four places.
    AddMemory {
        slot: u8,
        fd: Fd,
    },
    RemoveMemory {
        slot: u8,
    },
    /// A queue's number, base, addresses, kick and call; each slightly wrong now and then.
    Queue {
        index: u8,
        size: u16,
        base: u16,
        at: [u16; 3],
        kick: Fd,
        call: Fd,
    },
    Enable {
        index: u8,
        on: bool,
    },
    StopQueue {
        index: u8,
    },
    Config {
        offset: u8,
        size: u8,
        write: Option<u8>,
    },
    Reset,
}

#[derive(Arbitrary, Clone, Copy, Debug)]
enum Fd {
    Sealed,
    Unsealed,
    Short,
    Event,
    Pipe,
    Null,
    Directory,
}

/// The engine, and the folder of its sockets. Lives as long as the process.
struct World {
    _engine: Engine,
    neighbour: Mutex<Guest>,
    dir: tempfile::TempDir,
}

static WORLD: LazyLock<World> = LazyLock::new(|| {
    let dir = tempfile::tempdir().expect("a folder");
    let engine = Engine::start(EngineConfig::default()).expect("an engine");
    for name in ["target", "neighbour"] {
        let device = Malloc::new(16 * MIB, 512).expect("a small disk");
        engine
            .add_device(name, Arc::new(device))
            .expect("a new name");
        let socket = dir.path().join(name);
        let spec = ExportSpec::new(name, Source::Device(name.into()), socket);
        engine.export(&spec).expect("a free socket");
    }
    let guest = Guest::builder()
        .memory(4 * MIB)
        .connect(dir.path().join("neighbour"));
    World {
        _engine: engine,
        neighbour: Mutex::new(guest.expect("an engine that serves")),
        dir,
    }
});

fuzz_target!(|input: Input| {
    let path = WORLD.dir.path().join("target");
    let mut peer = RawPeer::connect(&path, DEADLINE).expect("the socket stays");
    for step in input.steps.iter().take(64) {
        // The session may have hung up, as it should.
        if step.take(&mut peer).is_err() {
            break;
        }
    }
    if let Err(error) = peer.wait_hang_up() {
        assert_eq!(
            error.kind(),
            std::io::ErrorKind::NotConnected,
            "a session that stays: {error}"
        );
    }
    let mut neighbour = WORLD.neighbour.lock().expect("nobody panicked");
    neighbour
        .queue(0)
        .read(0, 512)
        .expect("the neighbour is served");
});

impl Step {
    fn take(&self, peer: &mut RawPeer) -> std::io::Result<()> {
        match self {
            Step::Bytes(bytes) => peer.send_bytes(bytes, &[]),
            Step::Message {
                code,
                flags,
                size,
                body,
                fds,
            } => {
                let mut message = Message::new(u32::from(*code) % 48).body(body);
                message.flags = 1 ^ u32::from(*flags);
                message.size = size.map(u32::from);
                message.fds = fds.iter().take(40).map(|fd| fd.open()).collect();
                peer.send(&message)
            }
            Step::Handshake => peer.shake_hands(),
            Step::AddMemory { slot, fd } => {
                let at = u64::from(slot % 4) * MIB;
                let add = Message::new(request::ADD_MEM_REG).region(at, MIB, USER + at, 0);
                peer.send(&add.fd(fd.open()))
            }
            Step::RemoveMemory { slot } => {
                let at = u64::from(slot % 4) * MIB;
                peer.send(&Message::new(request::REM_MEM_REG).region(at, MIB, USER + at, 0))
            }
            Step::Queue {
                index,
                size,
                base,
                at,
                kick,
                call,
            } => {
                let queue = u32::from(index % 5);
                let rings = at.map(|at| USER + u64::from(at) * 64);
                let number = u64::from(queue);
                peer.send(&Message::new(request::SET_VRING_NUM).state(queue, u32::from(*size)))?;
                peer.send(&Message::new(request::SET_VRING_BASE).state(queue, u32::from(*base)))?;
                peer.send(&Message::new(request::SET_VRING_ADDR).ring(queue, rings))?;
                let call = Message::new(request::SET_VRING_CALL)
                    .words(&[number])
                    .fd(call.open());
                peer.send(&call)?;
                peer.send(
                    &Message::new(request::SET_VRING_KICK)
                        .words(&[number])
                        .fd(kick.open()),
                )
            }
            Step::Enable { index, on } => {
                let message = Message::new(request::SET_VRING_ENABLE);
                peer.send(&message.state(u32::from(index % 5), u32::from(*on)))
            }
            Step::StopQueue { index } => {
                peer.send(&Message::new(request::GET_VRING_BASE).state(u32::from(index % 5), 0))
            }
            Step::Config {
                offset,
                size,
                write,
            } => {
                let code = if write.is_some() {
                    request::SET_CONFIG
                } else {
                    request::GET_CONFIG
                };
                let mut body = vec![*offset, 0, 0, 0, *size, 0, 0, 0, 0, 0, 0, 0];
                body.resize(12 + usize::from(*size), write.unwrap_or(0));
                peer.send(&Message::new(code).body(&body))
            }
            Step::Reset => peer.send(&Message::new(request::RESET_DEVICE)),
        }
    }
}

impl Fd {
    fn open(self) -> OwnedFd {
        let fd = match self {
            Fd::Sealed => raw::memfd(MIB, true),
            Fd::Unsealed => raw::memfd(MIB, false),
            Fd::Short => raw::memfd(4096, true),
            Fd::Event => raw::eventfd(true),
            Fd::Pipe => raw::pipe_end(),
            Fd::Null => raw::null(),
            Fd::Directory => raw::directory(),
        };
        fd.expect("a descriptor")
    }
}
