//! The connection of a hostile peer: a plain stream socket with a deadline.

use super::Message;
use super::message::request;
use std::io::{self, Read, Write};
use std::os::fd::{AsRawFd, RawFd};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;
use vmm_sys_util::sock_ctrl_msg::ScmSocket;

/// A connection without manners.
#[derive(Debug)]
pub struct RawPeer {
    stream: UnixStream,
}

/// A message from the back end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reply {
    /// The request it answers.
    pub request: u32,
    /// Flags; bit 2 marks a reply.
    pub flags: u32,
    /// What follows the header. Descriptors that came along have been closed.
    pub body: Vec<u8>,
}

impl Reply {
    /// The first 64 bits of the body: the value of most replies; 0 of an acknowledgement means done.
    pub fn value(&self) -> Option<u64> {
        Some(u64::from_le_bytes(*self.body.first_chunk()?))
    }
}

impl RawPeer {
    /// Connects; every later wait ends after `deadline`.
    ///
    /// # Errors
    /// If nobody listens.
    pub fn connect(path: impl AsRef<Path>, deadline: Duration) -> io::Result<RawPeer> {
        let stream = UnixStream::connect(path)?;
        stream.set_read_timeout(Some(deadline))?;
        stream.set_write_timeout(Some(deadline))?;
        Ok(RawPeer { stream })
    }

    /// Sends a message and its descriptors.
    ///
    /// # Errors
    /// `BrokenPipe` if the back end hung up, which is an honest answer to most messages from here.
    pub fn send(&mut self, message: &Message) -> io::Result<()> {
        let fds: Vec<RawFd> = message.fds.iter().map(|fd| fd.as_raw_fd()).collect();
        self.send_bytes(&message.bytes(), &fds)
    }

    /// Sends any bytes, with any descriptors on the first of them.
    ///
    /// # Errors
    /// As [`send`](Self::send).
    pub fn send_bytes(&mut self, bytes: &[u8], fds: &[RawFd]) -> io::Result<()> {
        let sent = self.stream.send_with_fds(&[bytes], fds);
        let sent = sent.map_err(|e| io::Error::from_raw_os_error(e.errno()))?;
        self.stream.write_all(&bytes[sent..])
    }

    /// Waits for a message; none if the back end hung up.
    ///
    /// # Errors
    /// `WouldBlock` at the deadline: the connection is open and silent.
    pub fn receive(&mut self) -> io::Result<Option<Reply>> {
        let mut header = [0; 12];
        if !self.fill(&mut header)? {
            return Ok(None);
        }
        let word = |at: usize| u32::from_le_bytes(std::array::from_fn(|i| header[at + i]));
        // A reply longer than a page would be a finding of its own.
        let mut body = vec![0; (word(8) as usize).min(4096)];
        if !self.fill(&mut body)? {
            return Ok(None);
        }
        Ok(Some(Reply {
            request: word(0),
            flags: word(4),
            body,
        }))
    }

    /// Sends a message and waits for what comes back.
    ///
    /// # Errors
    /// As [`send`](Self::send) and [`receive`](Self::receive).
    pub fn ask(&mut self, message: &Message) -> io::Result<Option<Reply>> {
        self.send(message)?;
        self.receive()
    }

    /// Goes through an honest handshake: owner, all features offered (without acknowledgements), all protocol features.
    ///
    /// # Errors
    /// If the back end does not answer as it should.
    pub fn shake_hands(&mut self) -> io::Result<()> {
        self.send(&Message::new(request::SET_OWNER))?;
        let features = self.value(request::GET_FEATURES)?;
        let protocol = self.value(request::GET_PROTOCOL_FEATURES)?;
        self.send(&Message::new(request::SET_PROTOCOL_FEATURES).words(&[protocol]))?;
        self.send(&Message::new(request::SET_FEATURES).words(&[features]))
    }

    /// Says no more, and waits until the back end hangs up.
    ///
    /// # Errors
    /// `WouldBlock` if it does not do so by the deadline.
    pub fn wait_hang_up(&mut self) -> io::Result<()> {
        self.stream.shutdown(std::net::Shutdown::Write)?;
        let mut nothing = [0; 256];
        // Bound: the deadline of each read, and a back end sends no more than it was asked for.
        loop {
            match self.stream.read(&mut nothing) {
                Ok(0) => return Ok(()),
                Ok(_) => {}
                Err(error) if is_gone(&error) => return Ok(()),
                // A read with a deadline is not restarted after a signal.
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
    }

    fn value(&mut self, code: u32) -> io::Result<u64> {
        let reply = self
            .ask(&Message::new(code))?
            .ok_or(io::ErrorKind::UnexpectedEof)?;
        reply
            .value()
            .ok_or_else(|| io::ErrorKind::InvalidData.into())
    }

    /// False if the back end hung up first.
    fn fill(&mut self, buf: &mut [u8]) -> io::Result<bool> {
        match self.stream.read_exact(buf) {
            Ok(()) => Ok(true),
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Ok(false),
            Err(error) if is_gone(&error) => Ok(false),
            Err(error) => Err(error),
        }
    }
}

fn is_gone(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::ConnectionReset | io::ErrorKind::BrokenPipe
    )
}
