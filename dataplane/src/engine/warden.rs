//! Watches over drives: examines those under suspicion, looks at all when the kernel says that a block device has gone,
//! and looks for lost ones until they are back.

use super::{Engine, Inner};
use crate::EngineError;
use crate::mailbox::Mailbox;
use crate::reactor::Notice;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::net::netlink::{KOBJECT_UEVENT, SocketAddrNetlink};
use rustix::net::{AddressFamily, RecvFlags, SocketFlags, SocketType, bind, recv, socket_with};
use std::collections::{HashMap, HashSet};
use std::os::fd::OwnedFd;
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

/// How often a missing drive is looked for where the kernel's events do not reach us, as in a network namespace.
const LOOK_AGAIN: Duration = Duration::from_millis(500);

/// The kernel's own events, not udev's.
const KERNEL_GROUP: u32 = 1;

enum Note {
    /// A request failed as requests fail on a drive that has gone.
    Suspect(String),
    /// Something is missing.
    Look,
    /// An errand is over; whether something is still missing, if that was looked for.
    Back(Errand, bool),
    Stop,
}

/// What takes as long as a drive likes. Each has a thread, for one drive must not delay the verdict on another.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Errand {
    /// Ask a pool's drive whether it is there.
    Examine(String),
    /// Take back what has returned.
    Welcome,
}

/// The engine's end of the watch.
pub(super) struct Warden {
    mailbox: Arc<Mailbox<Note>>,
}

/// The watch before it begins: it needs an engine to watch for.
pub(super) struct Watch {
    mailbox: Arc<Mailbox<Note>>,
}

impl Warden {
    pub(super) fn new() -> Result<(Warden, Watch), EngineError> {
        let mailbox = Arc::new(Mailbox::new().map_err(failed)?);
        let watch = Watch {
            mailbox: Arc::clone(&mailbox),
        };
        Ok((Warden { mailbox }, watch))
    }

    /// What rings of this pool's volumes tell of failures.
    pub(super) fn suspect(&self, pool: &str) -> Notice {
        let (mailbox, pool) = (Arc::clone(&self.mailbox), pool.to_owned());
        Notice::new(move || drop(mailbox.send(Note::Suspect(pool.clone()))))
    }

    /// Something is missing from now on.
    pub(super) fn look(&self) {
        let _ = self.mailbox.send(Note::Look); // Nobody looks any more once the engine stops.
    }

    /// The thread ends by itself. It is not waited for: it may be asking a drive that does not answer.
    pub(super) fn stop(&self) {
        let _ = self.mailbox.send(Note::Stop);
    }
}

impl Drop for Warden {
    fn drop(&mut self) {
        self.stop();
    }
}

impl Watch {
    pub(super) fn start(self, engine: &Engine) -> Result<(), EngineError> {
        let rounds = Rounds {
            mailbox: self.mailbox,
            // Weak: the watch must not keep alive what it watches for.
            engine: Arc::downgrade(&engine.inner),
            uevents: uevents(),
            out: HashMap::new(),
            look_at: None,
        };
        std::thread::Builder::new()
            .name("warden".into())
            .spawn(move || rounds.run())
            .map_err(failed)?;
        Ok(())
    }
}

/// The thread.
struct Rounds {
    mailbox: Arc<Mailbox<Note>>,
    engine: Weak<Inner>,
    uevents: Option<OwnedFd>,
    /// Errands under way, and whether there was reason to go again meanwhile.
    out: HashMap<Errand, bool>,
    /// When to look again for what is missing.
    look_at: Option<Instant>,
}

impl Rounds {
    fn run(mut self) {
        loop {
            let seen = self.wait();
            let mut errands = HashSet::new();
            for note in self.mailbox.take() {
                match note {
                    Note::Suspect(pool) => drop(errands.insert(Errand::Examine(pool))),
                    Note::Look => drop(errands.insert(Errand::Welcome)),
                    Note::Back(errand, missing) => errands.extend(self.back(errand, missing)),
                    Note::Stop => return,
                }
            }
            let Some(inner) = self.engine.upgrade() else {
                return;
            };
            let engine = Engine { inner };
            if seen.removed {
                errands.extend(engine.present().into_iter().map(Errand::Examine));
            }
            if seen.added || self.look_at.is_some_and(|moment| moment <= Instant::now()) {
                errands.insert(Errand::Welcome);
            }
            errands
                .into_iter()
                .for_each(|errand| self.send(&engine, errand));
        }
    }

    /// Sleeps until there is something to do.
    fn wait(&self) -> Seen {
        let mut polled = vec![PollFd::new(&**self.mailbox.bell().fd(), PollFlags::IN)];
        if let Some(uevents) = &self.uevents {
            polled.push(PollFd::new(uevents, PollFlags::IN));
        }
        let patience = self.look_at.map(|moment| {
            let left = moment.saturating_duration_since(Instant::now());
            Timespec::try_from(left).expect("it is at most LOOK_AGAIN")
        });
        // A signal is as good a reason to look as any.
        let _ = poll(&mut polled, patience.as_ref());
        self.uevents.as_ref().map(read_uevents).unwrap_or_default()
    }

    /// Starts an errand, unless it is under way: then it is done again afterwards, for it may have looked too early.
    fn send(&mut self, engine: &Engine, errand: Errand) {
        if let Some(again) = self.out.get_mut(&errand) {
            *again = true;
            return;
        }
        if errand == Errand::Welcome {
            self.look_at = None;
        }
        let (engine, mailbox, what) = (engine.clone(), Arc::clone(&self.mailbox), errand.clone());
        let sent = std::thread::Builder::new()
            .name("errand".into())
            .spawn(move || {
                let missing = match &what {
                    Errand::Examine(pool) => {
                        engine.examine(pool);
                        false
                    }
                    Errand::Welcome => engine.welcome(),
                };
                let _ = mailbox.send(Note::Back(what, missing)); // Nobody cares once the engine stops.
            });
        match sent {
            Ok(_) => drop(self.out.insert(errand, false)),
            Err(error) => tracing::error!(?errand, %error, "No thread to look after a drive"),
        }
    }

    /// An errand is over; returned if it has to be done again at once.
    fn back(&mut self, errand: Errand, missing: bool) -> Option<Errand> {
        if missing {
            self.look_at = Some(Instant::now() + LOOK_AGAIN);
        }
        let again = self.out.remove(&errand);
        (again == Some(true)).then_some(errand)
    }
}

/// What the kernel told of block devices.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Seen {
    removed: bool,
    added: bool,
}

fn uevents() -> Option<OwnedFd> {
    let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
    let family = AddressFamily::NETLINK;
    let socket = socket_with(family, SocketType::RAW, flags, Some(KOBJECT_UEVENT)).ok()?;
    bind(&socket, &SocketAddrNetlink::new(0, KERNEL_GROUP)).ok()?;
    Some(socket)
}

fn read_uevents(socket: &OwnedFd) -> Seen {
    let (mut seen, mut bytes) = (Seen::default(), [0; 8192]);
    // Bounded by what lies in the socket: it does not block.
    while let Ok((_, len)) = recv(socket, &mut bytes[..], RecvFlags::DONTWAIT) {
        let event = parse_uevent(&bytes[..len.min(8192)]);
        seen.removed |= event.removed;
        seen.added |= event.added;
    }
    seen
}

/// `action@path`, then `KEY=value` fields, each ended by a zero byte.
fn parse_uevent(bytes: &[u8]) -> Seen {
    let mut fields = bytes.split(|byte| *byte == 0);
    let action = fields.next().unwrap_or_default();
    let is_block = fields.any(|field| field == b"SUBSYSTEM=block");
    Seen {
        removed: is_block && action.starts_with(b"remove@"),
        added: is_block && (action.starts_with(b"add@") || action.starts_with(b"change@")),
    }
}

fn failed(source: std::io::Error) -> EngineError {
    EngineError::Thread {
        what: "warden",
        source,
    }
}

impl std::fmt::Debug for Warden {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Warden")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn event_of_a_block_device_is_told_from_others() {
        let gone = b"remove@/devices/x/nvme0n1\0ACTION=remove\0SUBSYSTEM=block\0DEVNAME=nvme0n1\0";
        let came = b"add@/devices/x/nvme1n1\0ACTION=add\0SUBSYSTEM=block\0";
        let other = b"remove@/devices/x/eth0\0ACTION=remove\0SUBSYSTEM=net\0";
        let seen = |removed, added| Seen { removed, added };
        assert_eq!(parse_uevent(gone), seen(true, false));
        assert_eq!(parse_uevent(came), seen(false, true));
        assert_eq!(parse_uevent(other), Seen::default());
        assert_eq!(parse_uevent(b""), Seen::default());
    }
}
