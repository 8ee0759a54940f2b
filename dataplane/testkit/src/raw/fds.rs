//! Descriptors to send along: the right kind, and every wrong one.

use rustix::event::{EventfdFlags, eventfd as new_eventfd};
use rustix::fs::{MemfdFlags, SealFlags, fcntl_add_seals, ftruncate, memfd_create};
use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;

/// A memory file of `bytes`, sealed against shrinking or not.
///
/// # Errors
/// If the kernel refuses.
pub fn memfd(bytes: u64, sealed: bool) -> io::Result<OwnedFd> {
    let fd = memfd_create("hostile", MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING)?;
    ftruncate(&fd, bytes)?;
    if sealed {
        fcntl_add_seals(&fd, SealFlags::SHRINK)?;
    }
    Ok(fd)
}

/// An eventfd, blocking or not.
///
/// # Errors
/// If the kernel refuses.
pub fn eventfd(nonblocking: bool) -> io::Result<OwnedFd> {
    let mode = if nonblocking {
        EventfdFlags::NONBLOCK
    } else {
        EventfdFlags::empty()
    };
    Ok(new_eventfd(0, EventfdFlags::CLOEXEC | mode)?)
}

/// The reading end of a pipe whose other end is closed: always readable, never anything to read.
///
/// # Errors
/// If the kernel refuses.
pub fn pipe_end() -> io::Result<OwnedFd> {
    Ok(io::pipe()?.0.into())
}

/// A directory.
///
/// # Errors
/// If the kernel refuses.
pub fn directory() -> io::Result<OwnedFd> {
    Ok(File::open("/")?.into())
}

/// The null device.
///
/// # Errors
/// If the kernel refuses.
pub fn null() -> io::Result<OwnedFd> {
    Ok(File::options()
        .read(true)
        .write(true)
        .open("/dev/null")?
        .into())
}
