//! One disk: what is kept of it, what is left out, what is refused.
//!
//! libvirt refuses most settings on a disk of this kind. Serial, write cache, sector size and discard come from the server;
//! cache, io and error policy have no meaning without QEMU's block layer. Both are left out. What would change which data the
//! guest sees, or who else may write it, is refused.

use super::error::DomainError;
use super::scan::{self, Element};
use crate::volumes::{image_path, socket_path};
use std::fmt::Write as _;

/// The server offers no more; QEMU asking for more would not start.
const QUEUES_MAX: u32 = 16;
/// Attributes of the driver that mean the same on a socket.
const DRIVER_KEPT: &[&str] = &["queue_size", "iommu", "ats", "packed", "page_per_vq"];
/// Parts that are copied as they are, in this order.
const PARTS_KEPT: &[&str] = &["target", "boot", "alias", "address"];
/// Parts that a disk on a socket cannot honour, and whose loss would matter.
const PARTS_REFUSED: &[(&str, &str)] = &[
    ("readonly", "remove readOnly from the disk"),
    ("shareable", "remove shareable from the disk"),
    ("transient", "use a volume that lasts"),
    ("encryption", "encrypt inside the guest"),
    ("auth", "use another StorageClass"),
    ("iotune", "limit the volume by its StorageClass"),
];

/// The disk's new text.
pub(super) fn on_socket(
    xml: &str,
    disk: &Element,
    volume: &str,
    cpus: u32,
) -> Result<String, DomainError> {
    check_source(disk, volume)?;
    check_kind(disk, volume)?;
    let mut out = String::from("<disk type='vhostuser' device='disk' snapshot='no'");
    if let Some(model) = disk.attribute("model") {
        attribute(&mut out, "model", word(model, volume)?);
    }
    out.push('>');
    driver(&mut out, disk, volume, cpus)?;
    let _ = write!(
        out,
        "<source type='unix' path='{}'><reconnect enabled='yes' timeout='1'/></source>",
        socket_path(volume)
    );
    for part in PARTS_KEPT.iter().filter_map(|name| disk.child(name)) {
        out.push_str(scan::text(xml, part));
    }
    out.push_str("</disk>");
    Ok(out)
}

/// A claim that KubeVirt mounted, or what is left of our own words on a later call.
fn check_source(disk: &Element, volume: &str) -> Result<(), DomainError> {
    let kind = disk.attribute("type").unwrap_or("file");
    let source = disk.child("source");
    let file = source.and_then(|source| source.attribute("file"));
    let ours = match kind {
        "vhostuser" => true,
        "file" => file == Some(&image_path(volume)),
        _ => false,
    };
    if ours {
        return Ok(());
    }
    Err(DomainError::Foreign {
        volume: volume.to_owned(),
        source_is: match file {
            Some(file) => format!("its source is the file {file}"),
            None => format!("its type is {kind}"),
        },
    })
}

fn check_kind(disk: &Element, volume: &str) -> Result<(), DomainError> {
    let refuse = |why: String, remedy| {
        Err(DomainError::Unsupported {
            volume: volume.to_owned(),
            why,
            remedy,
        })
    };
    let device = disk.attribute("device").unwrap_or("disk");
    if device != "disk" {
        return refuse(format!("it is a {device}"), "make it a disk");
    }
    let bus = disk
        .child("target")
        .and_then(|target| target.attribute("bus"));
    if bus != Some("virtio") {
        let why = format!("its bus is {}", bus.unwrap_or("not said"));
        return refuse(why, "set bus: virtio on the disk");
    }
    for (part, remedy) in PARTS_REFUSED {
        if disk.child(part).is_some() {
            return refuse(format!("it says {part}"), remedy);
        }
    }
    Ok(())
}

fn driver(out: &mut String, disk: &Element, volume: &str, cpus: u32) -> Result<(), DomainError> {
    let asked = |name| {
        disk.child("driver")
            .and_then(|driver| driver.attribute(name))
    };
    let queues = match asked("queues") {
        Some(text) => text
            .parse()
            .ok()
            .filter(|queues| *queues > 0)
            .ok_or_else(|| DomainError::Unsupported {
                volume: volume.to_owned(),
                why: format!("its queues are {text:?}"),
                remedy: "give a number above 0",
            })?,
        None => cpus,
    };
    let queues = queues.clamp(1, QUEUES_MAX).to_string();
    out.push_str("<driver");
    attribute(out, "name", "qemu");
    attribute(out, "type", "raw");
    attribute(out, "queues", &queues);
    for name in DRIVER_KEPT {
        if let Some(value) = asked(name) {
            attribute(out, name, word(value, volume)?);
        }
    }
    out.push_str("/>");
    Ok(())
}

fn attribute(out: &mut String, name: &str, value: &str) {
    let _ = write!(out, " {name}='{value}'");
}

/// Values of libvirt's own lists are words, so nothing needs escaping.
fn word<'v>(value: &'v str, volume: &str) -> Result<&'v str, DomainError> {
    if !value.is_empty()
        && value
            .bytes()
            .all(|c| c.is_ascii_alphanumeric() || c == b'-')
    {
        return Ok(value);
    }
    Err(DomainError::Unsupported {
        volume: volume.to_owned(),
        why: format!(
            "{:?} is no setting of a disk",
            value.chars().take(80).collect::<String>()
        ),
        remedy: "remove the setting",
    })
}
