//! Block devices, and the one wait point of a reactor thread.
//!
//! A [`BlockDevice`] is shared by all threads; a reactor opens an [`IoChannel`] on it and hands every
//! request over as an [`Io`]. Each request completes exactly once through that reactor's [`Driver`],
//! which also tells which watched file descriptors have become readable. So a reactor sleeps in one place.
//!
//! This crate knows nothing of rings, guests, pools, sockets or async runtimes.
//!
//! ```
//! use holdfast_bdev::{BlockDevice, Driver, DriverKind, Events, Io, IoStatus, Malloc, Op, Token};
//! let disk = Malloc::new(1 << 20, 512)?;
//! let mut driver = Driver::new(DriverKind::Auto)?;
//! let mut channel = disk.open_channel(&mut driver)?;
//! channel.submit(&mut driver, Io::without_buffers(Op::Flush, 0, 0, Token(7)));
//! let mut events = Events::default();
//! driver.wait(&mut events, None)?;
//! assert_eq!((events.completions[0].token, events.completions[0].status), (Token(7), IoStatus::Ok));
//! # Ok::<(), holdfast_bdev::BdevError>(())
//! ```
//!
//! Invariants: a request is in range, aligned and writable before a device acts on it ([`Info::check`]);
//! a buffer is touched only between `submit` and the completion; a file and its lock live until the last
//! request on it has come back from the kernel; no timeout turns "still running" into "done".
#![deny(unsafe_code)]
#![cfg_attr(test, allow(clippy::unwrap_used))]

mod delay;
mod device;
mod driver;
mod error;
mod error_device;
mod fault;
mod io;
mod lines;
mod malloc;
mod null;
mod nvme;
mod slab;
mod spec;
mod split;
mod transfer;
mod uring;

pub use delay::Delay;
pub use device::{BlockDevice, Info, IoChannel};
pub use driver::{Driver, DriverKind, Events, Remote, WatchId};
pub use error::BdevError;
pub use error_device::{Effect, ErrorDevice, Fault, FaultOp};
pub use io::{Completion, Io, IoStatus, Op, Token};
pub use malloc::Malloc;
pub use null::Null;
pub use nvme::Nvme;
pub use spec::{from_spec, parse_size};
pub use split::{Extent, Split};
pub use uring::{Uring, UringOptions};
