//! Rewrites libvirt's description of a machine: disks by alias, and the memory that they need.
//!
//! The text is walked once, edits are collected as ranges of it, and everything between them is copied. KubeVirt calls two or
//! three times for a start and hands our own words back with the socket stripped, so both parts are built anew on each call.

mod disk;
mod error;
mod memory;
mod scan;

pub use error::DomainError;

use crate::volumes::{Volumes, alias};
use scan::{Element, Scan};
use std::ops::Range;

/// A machine with thousands of devices stays far below; what is longer is no description of a machine.
const XML_BYTES_MAX: usize = 16 << 20;

/// A piece of the text, and what stands there afterwards.
struct Edit {
    at: Range<usize>,
    text: String,
}

/// Puts every one of `volumes` on its socket. Without volumes, the text comes back as it was.
///
/// # Errors
/// When the text is not the description of a machine, a volume has no disk in it or more than one, or a disk asks for
/// something that a socket cannot give.
pub fn rewrite(xml: &str, volumes: &Volumes) -> Result<String, DomainError> {
    if volumes.is_empty() {
        return Ok(xml.to_owned());
    }
    if xml.len() > XML_BYTES_MAX {
        return Err(DomainError::TooLarge {
            bytes: xml.len(),
            limit: XML_BYTES_MAX,
        });
    }
    let scan = scan::scan(xml)?;
    if let Some(kind) = scan.launch_security() {
        return Err(DomainError::EncryptedMemory { kind });
    }
    let cpus = scan.cpus(xml);
    let mut edits = vec![memory::edit(xml, &scan)?];
    for volume in volumes.iter() {
        let disk = find(&scan, volume)?;
        let text = disk::on_socket(xml, disk, volume, cpus)?;
        let at = disk.whole.clone();
        edits.push(Edit { at, text });
    }
    Ok(splice(xml, edits))
}

/// The one disk of a volume.
fn find<'s>(scan: &'s Scan, volume: &str) -> Result<&'s Element, DomainError> {
    let wanted = alias(volume);
    let mut matching = scan.disks().filter(|disk| disk.alias() == Some(&wanted));
    let volume = || volume.to_owned();
    let disk = matching.next().ok_or_else(|| DomainError::NoDisk {
        volume: volume(),
        aliases: scan
            .disks()
            .filter_map(Element::alias)
            .take(32)
            .collect::<Vec<_>>()
            .join(", "),
    })?;
    match matching.next() {
        Some(_) => Err(DomainError::TwoDisks { volume: volume() }),
        None => Ok(disk),
    }
}

/// Applies edits that do not overlap.
fn splice(xml: &str, mut edits: Vec<Edit>) -> String {
    edits.sort_by_key(|edit| edit.at.start);
    let mut out = String::with_capacity(xml.len() + 1024);
    let mut done = 0;
    for edit in edits {
        out.push_str(&xml[done..edit.at.start]);
        out.push_str(&edit.text);
        done = edit.at.end;
    }
    out.push_str(&xml[done..]);
    out
}
