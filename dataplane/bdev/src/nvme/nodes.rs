//! The two device nodes of a namespace, found from either through sysfs.

use crate::BdevError;
use rustix::fs::{FileType, Stat, major, minor};
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

/// Where sysfs and the nodes of a namespace are.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Nodes {
    pub(super) generic: PathBuf,
    pub(super) block: PathBuf,
    /// The block device's folder in sysfs.
    pub(super) sysfs: PathBuf,
}

/// By its name only: the character device appears a moment after the block device.
pub(super) fn is_at(path: &Path) -> bool {
    Nodes::named(path).is_ok()
}

impl Nodes {
    /// By either node, or a link to one.
    pub(super) fn of(path: &Path) -> Result<Nodes, BdevError> {
        let nodes = Nodes::named(path)?;
        nodes.check_numbers()?;
        Ok(nodes)
    }

    fn named(path: &Path) -> Result<Nodes, BdevError> {
        let opened = |source: io::Error| BdevError::Open {
            path: path.to_owned(),
            source,
        };
        let stat = rustix::fs::stat(path).map_err(|errno| opened(errno.into()))?;
        let class = match FileType::from_raw_mode(stat.st_mode) {
            FileType::CharacterDevice => "char",
            FileType::BlockDevice => "block",
            _ => return Err(invalid(path, NOT_A_NAMESPACE)),
        };
        let sysfs = format!("/sys/dev/{class}/{}", number(&stat));
        let sysfs = fs::canonicalize(sysfs).map_err(opened)?;
        Nodes::in_sysfs(&sysfs).ok_or_else(|| invalid(path, NOT_A_NAMESPACE))
    }

    /// Both devices of a namespace lie side by side, under names that differ in their beginning.
    fn in_sysfs(device: &Path) -> Option<Nodes> {
        let (folder, name) = (device.parent()?, device.file_name()?.to_str()?);
        let numbers = name.strip_prefix("ng").or(name.strip_prefix("nvme"))?;
        let (generic, block) = (format!("ng{numbers}"), format!("nvme{numbers}"));
        let digits = |text: &str| !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
        let (controller, namespace) = numbers.split_once('n')?;
        (digits(controller) && digits(namespace)).then(|| Nodes {
            generic: Path::new("/dev").join(generic),
            sysfs: folder.join(&block),
            block: Path::new("/dev").join(block),
        })
    }

    /// The nodes are those that sysfs speaks of.
    fn check_numbers(&self) -> Result<(), BdevError> {
        let devices = [
            (
                &self.generic,
                self.sysfs.with_file_name(name(&self.generic)),
            ),
            (&self.block, self.sysfs.clone()),
        ];
        for (node, sysfs) in devices {
            let failed = |source| BdevError::Open {
                path: node.clone(),
                source,
            };
            let told = fs::read_to_string(sysfs.join("dev")).map_err(failed)?;
            let stat = rustix::fs::stat(node).map_err(|errno| failed(errno.into()))?;
            if told.trim() != number(&stat) {
                return Err(invalid(node, "it is another device than the kernel says"));
            }
        }
        Ok(())
    }
}

const NOT_A_NAMESPACE: &str = "it is no whole NVMe namespace; name one as in /dev/ng0n1 or \
    /dev/disk/by-id/nvme-..., or use kind uring";

fn number(stat: &Stat) -> String {
    format!("{}:{}", major(stat.st_rdev), minor(stat.st_rdev))
}

fn name(node: &Path) -> &std::ffi::OsStr {
    node.file_name().unwrap_or_default()
}

pub(super) fn invalid(path: &Path, why: &str) -> BdevError {
    BdevError::Invalid {
        what: path.display().to_string(),
        why: why.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn either_node_leads_to_both_and_a_partition_to_none() {
        let folder = Path::new("/sys/devices/pci0000:00/nvme/nvme0");
        let nodes = Nodes::in_sysfs(&folder.join("ng0n12")).unwrap();
        assert_eq!(nodes.block, Path::new("/dev/nvme0n12"));
        assert_eq!(nodes.sysfs, folder.join("nvme0n12"));
        assert_eq!(Nodes::in_sysfs(&folder.join("nvme0n12")), Some(nodes));
        for other in ["nvme0n1p1", "nvme0", "sda", "nvme0c0n1", "ngn1"] {
            assert_eq!(Nodes::in_sysfs(&folder.join(other)), None, "{other}");
        }
    }
}
