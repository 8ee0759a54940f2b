//! Real guests: QEMU boots a Debian kernel against a vhost-user socket, and a test talks to a shell inside.
//!
//! ```no_run
//! use holdfast_guest::{DiskSpec, Guest, GuestSpec};
//! # fn main() -> anyhow::Result<()> {
//! let disk = DiskSpec { socket: "/run/v.sock".into(), queues: 2 };
//! let mut guest = Guest::boot(&GuestSpec::with_disks(vec![disk]))?;
//! guest.check("mkfs.ext4 -q /dev/vda && mount /dev/vda /mnt && echo hello >/mnt/a && umount /mnt")?;
//! guest.reboot()?;
//! assert_eq!(guest.check("mount /dev/vda /mnt && cat /mnt/a")?, "hello");
//! # Ok(())
//! # }
//! ```
//!
//! Guests run under TCG, so they show behaviour, never speed. In the guest, `guest-io` writes and
//! verifies a block device (see `src/bin/guest-io.rs`). What a guest needs is installed by
//! `cargo xtask setup`; without it every test fails and says so, and none is skipped.
#![forbid(unsafe_code)]
#![cfg_attr(test, allow(clippy::unwrap_used))]

mod backend;
mod guest;
mod init;
pub mod kit;
pub mod load;
mod process;
mod qmp;
mod transcript;

pub use backend::{Backend, holdfast, target_folder};
pub use guest::{Agent, DiskSpec, DriveSpec, Guest, GuestSpec, Output};
pub use init::write as write_initramfs;
pub use kit::Kit;
pub use process::Process;
pub use qmp::Qmp;
pub use transcript::{Found, Transcript};
