//! Which of the machine's block devices a BlockPool means: found by what the drive says of itself, never by the name that
//! the kernel gave it in order of discovery.

use holdfast_api::DeviceMatch;
use std::fs;
use std::path::{Path, PathBuf};

/// Most drives that a message lists.
const LISTED_MAX: usize = 8;
/// Where a drive's serial number may stand, below its directory in `/sys/block`: virtio-blk, NVMe, older SCSI.
const SERIAL_FILES: [&str; 2] = ["serial", "device/serial"];
/// Where its world-wide name may stand: NVMe, SCSI.
const WWID_FILES: [&str; 2] = ["wwid", "device/wwid"];
/// SCSI's page of the serial number: four bytes of header, then text.
const SERIAL_PAGE: &str = "device/vpd_pg80";
/// What udev puts before a world-wide name in `/dev/disk/by-id`.
const LINK_PREFIXES: [&str; 4] = ["wwn-", "nvme-", "scsi-", "dm-uuid-"];

/// The places where the kernel and udev tell of drives.
#[derive(Debug, Clone)]
pub(crate) struct Drives {
    sys: PathBuf,
    dev: PathBuf,
}

/// A whole block device, and what it is known by.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Drive {
    node: PathBuf,
    serial: String,
    wwid: String,
    namespace_id: Option<u32>,
    /// Names of its links in `/dev/disk/by-id`.
    links: Vec<String>,
}

/// Why no single drive is meant.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum DriveError {
    /// None of the three ways to name a drive, or more than one.
    #[error("spec.device must have exactly one of path, serial and wwid")]
    Unclear,
    /// The path cannot name a drive by identity.
    #[error("spec.device.path {path:?} {why}")]
    BadPath {
        /// The path given.
        path: String,
        /// The rule and the remedy.
        why: &'static str,
    },
    /// No drive says this of itself.
    #[error("no drive of this node has {wanted}; there are {seen}")]
    Missing {
        /// What was looked for.
        wanted: String,
        /// What is there instead.
        seen: String,
    },
    /// Several drives do.
    #[error(
        "several drives of this node have {wanted}: {seen}; add a namespaceId, or name one by its wwid"
    )]
    Ambiguous {
        /// What was looked for.
        wanted: String,
        /// The drives that have it.
        seen: String,
    },
}

impl Drives {
    /// Reads `/sys` and `/dev` below another root; the machine's own is `/`.
    pub(crate) fn below(root: &Path) -> Drives {
        Drives {
            sys: root.join("sys/block"),
            dev: root.join("dev"),
        }
    }

    /// Where the drive is now. A path is taken as it is: what it leads to is seen when it is opened.
    pub(crate) fn find(&self, device: &DeviceMatch) -> Result<PathBuf, DriveError> {
        let given = [&device.path, &device.serial, &device.wwid];
        if given.iter().filter(|text| !text.is_empty()).count() != 1 {
            return Err(DriveError::Unclear);
        }
        if !device.path.is_empty() {
            check_path(&device.path)?;
            return Ok(PathBuf::from(&device.path));
        }
        let drives = self.all();
        let found: Vec<&Drive> = drives.iter().filter(|drive| drive.is(device)).collect();
        match found[..] {
            [drive] => Ok(drive.node.clone()),
            [] => Err(DriveError::Missing {
                wanted: describe(device),
                seen: list(drives.iter()),
            }),
            _ => Err(DriveError::Ambiguous {
                wanted: describe(device),
                seen: list(found.into_iter()),
            }),
        }
    }

    /// The drives there are, by name. A drive that goes while it is looked at is not there.
    fn all(&self) -> Vec<Drive> {
        let links = self.links();
        let names = fs::read_dir(&self.sys).into_iter().flatten().flatten();
        let mut drives: Vec<Drive> = names
            .filter_map(|entry| self.drive(&entry.path(), &links))
            .collect();
        drives.sort_by(|a, b| a.node.cmp(&b.node));
        drives
    }

    fn drive(&self, dir: &Path, links: &[(String, PathBuf)]) -> Option<Drive> {
        // The single paths of a multipath NVMe drive are hidden behind the drive itself.
        if text(&dir.join("hidden")).is_some_and(|hidden| hidden != "0") {
            return None;
        }
        let name = dir.file_name()?.to_str()?.replace('!', "/");
        let node = self.dev.join(name);
        if !node.exists() {
            return None;
        }
        let first = |files: [&str; 2]| files.iter().find_map(|file| text(&dir.join(file)));
        let of_node = links.iter().filter(|(_, to)| *to == node);
        Some(Drive {
            serial: first(SERIAL_FILES)
                .or_else(|| page(&dir.join(SERIAL_PAGE)))
                .unwrap_or_default(),
            wwid: first(WWID_FILES).unwrap_or_default(),
            namespace_id: text(&dir.join("nsid")).and_then(|nsid| nsid.parse().ok()),
            links: of_node.map(|(link, _)| link.clone()).collect(),
            node,
        })
    }

    /// What udev calls drives, and where each name leads.
    fn links(&self) -> Vec<(String, PathBuf)> {
        let folder = self.dev.join("disk/by-id");
        let entries = fs::read_dir(&folder).into_iter().flatten().flatten();
        entries
            .filter_map(|entry| {
                let name = entry.file_name().into_string().ok()?;
                let leads_to = fs::read_link(entry.path()).ok()?;
                Some((name, self.dev.join(leads_to.file_name()?)))
            })
            .collect()
    }
}

impl Drive {
    fn is(&self, wanted: &DeviceMatch) -> bool {
        if !wanted.wwid.is_empty() {
            let is_link = |link: &String| {
                let names = LINK_PREFIXES.iter();
                names
                    .filter_map(|prefix| link.strip_prefix(prefix))
                    .any(|name| name == wanted.wwid)
            };
            return self.wwid == wanted.wwid || self.links.iter().any(is_link);
        }
        let of_namespace =
            wanted.namespace_id.is_none() || wanted.namespace_id == self.namespace_id;
        self.serial == wanted.serial && of_namespace
    }
}

/// What a drive is known by, as one line: recorded in the pool, and checked ever after.
pub(crate) fn identity(device: &DeviceMatch) -> String {
    if !device.path.is_empty() {
        return device.path.clone();
    }
    if !device.wwid.is_empty() {
        return format!("wwid:{}", device.wwid);
    }
    match device.namespace_id {
        Some(namespace) => format!("serial:{}/{namespace}", device.serial),
        None => format!("serial:{}", device.serial),
    }
}

/// What a pool's device is called in messages.
pub(crate) fn describe(device: &DeviceMatch) -> String {
    if !device.path.is_empty() {
        return device.path.clone();
    }
    if !device.wwid.is_empty() {
        return format!("wwid {}", device.wwid);
    }
    match device.namespace_id {
        Some(namespace) => format!("serial {} and namespace {namespace}", device.serial),
        None => format!("serial {}", device.serial),
    }
}

/// The names that the kernel gives in order of discovery move to another drive after a reboot. Loop devices have no other.
fn check_path(path: &str) -> Result<(), DriveError> {
    let refuse = |why| {
        Err(DriveError::BadPath {
            path: path.to_owned(),
            why,
        })
    };
    if !Path::new(path).is_absolute() {
        return refuse("must be an absolute path");
    }
    let of_kernel = Path::new(path).strip_prefix("/dev").is_ok_and(|rest| {
        rest.components().count() == 1 && !rest.to_string_lossy().starts_with("loop")
    });
    if of_kernel {
        return refuse(
            "is a name that the kernel gives in order of discovery; name the drive by identity: its serial, its wwid, or a link below /dev/disk/by-id",
        );
    }
    Ok(())
}

fn list<'a>(drives: impl Iterator<Item = &'a Drive>) -> String {
    let or_none = |text: &str| match text {
        "" => "none".to_owned(),
        text => text.to_owned(),
    };
    let mut lines: Vec<String> = drives
        .map(|drive| {
            let namespace = drive.namespace_id;
            let namespace = namespace.map(|id| format!(", namespace {id}"));
            format!(
                "{} (serial {}{}, wwid {})",
                drive.node.display(),
                or_none(&drive.serial),
                namespace.unwrap_or_default(),
                or_none(&drive.wwid),
            )
        })
        .collect();
    if lines.is_empty() {
        return "no drives".to_owned();
    }
    let more = lines.len().saturating_sub(LISTED_MAX);
    lines.truncate(LISTED_MAX);
    if more > 0 {
        lines.push(format!("{more} more"));
    }
    lines.join(", ")
}

/// The content of a small file of the kernel, without the padding that drives like; none if there is nothing.
fn text(file: &Path) -> Option<String> {
    let content = fs::read(file).ok()?;
    let content = String::from_utf8_lossy(&content);
    let trimmed = content.trim_matches(|c: char| c.is_whitespace() || c == '\0');
    (!trimmed.is_empty()).then(|| trimmed.to_owned())
}

fn page(file: &Path) -> Option<String> {
    let content = fs::read(file).ok()?;
    let serial = String::from_utf8_lossy(content.get(4..)?).trim().to_owned();
    (!serial.is_empty()).then_some(serial)
}

#[cfg(test)]
mod tests;
