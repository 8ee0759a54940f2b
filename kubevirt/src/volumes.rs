//! The contract with all parts that touch a virtual machine: which of its volumes are served by a socket.

use std::collections::BTreeSet;
use std::fmt;

/// Annotation on a VirtualMachineInstance: names of its volumes that Holdfast serves, separated by commas.
pub const VOLUMES_ANNOTATION: &str = "holdfast.dev/volumes";

/// Where KubeVirt mounts claims with a file system in the machine's pod.
const MOUNTS: &str = "/var/run/kubevirt-private/vmi-disks";
/// Kubernetes' limit on a volume's name. With it a socket's path has at most 106 bytes; the kernel takes 107.
const NAME_BYTES_MAX: usize = 63;

/// Why a text is no list of volumes.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "annotation {VOLUMES_ANNOTATION} names {name:?}, which cannot be a volume; \
     write the names as in spec.volumes, separated by commas, without spaces"
)]
pub struct VolumesError {
    /// The part of the list that is no name, cut to 80 characters.
    pub name: String,
}

/// Names of a machine's volumes, sorted.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Volumes(BTreeSet<String>);

impl Volumes {
    /// Reads the annotation's value; the empty text is the empty list.
    ///
    /// # Errors
    /// When a part is not a name that Kubernetes would take for a volume.
    pub fn parse(text: &str) -> Result<Volumes, VolumesError> {
        if text.is_empty() {
            return Ok(Volumes::default());
        }
        text.split(',').map(checked).collect()
    }

    /// The names.
    pub fn iter(&self) -> impl Iterator<Item = &str> {
        self.0.iter().map(String::as_str)
    }

    /// Whether a volume is in the list.
    #[must_use]
    pub fn contains(&self, name: &str) -> bool {
        self.0.contains(name)
    }

    /// Whether it names none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl fmt::Display for Volumes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (number, name) in self.iter().enumerate() {
            let comma = if number == 0 { "" } else { "," };
            write!(f, "{comma}{name}")?;
        }
        Ok(())
    }
}

impl FromIterator<String> for Volumes {
    fn from_iter<I: IntoIterator<Item = String>>(names: I) -> Volumes {
        Volumes(names.into_iter().collect())
    }
}

/// The alias that KubeVirt gives the disk of a volume.
pub(crate) fn alias(volume: &str) -> String {
    format!("ua-{volume}")
}

/// The disk image that KubeVirt believes a volume is.
pub(crate) fn image_path(volume: &str) -> String {
    format!("{MOUNTS}/{volume}/disk.img")
}

/// The socket of a volume, as the machine's pod sees it.
pub(crate) fn socket_path(volume: &str) -> String {
    format!("{MOUNTS}/{volume}/v.sock")
}

fn checked(name: &str) -> Result<String, VolumesError> {
    let inner = |c: u8| c.is_ascii_lowercase() || c.is_ascii_digit() || c == b'-';
    let is_name = (1..=NAME_BYTES_MAX).contains(&name.len())
        && name.bytes().all(inner)
        && !name.starts_with('-')
        && !name.ends_with('-');
    if is_name {
        return Ok(name.to_owned());
    }
    let name = name.chars().take(80).collect();
    Err(VolumesError { name })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn list_is_read_sorted_and_written_back() {
        let volumes = Volumes::parse("root,data-1,root").unwrap();
        assert_eq!(volumes.to_string(), "data-1,root");
        assert!(volumes.contains("root") && !volumes.contains("data"));
        assert!(Volumes::parse("").unwrap().is_empty());
    }

    #[test]
    fn part_that_is_no_name_is_refused() {
        let long = "a".repeat(64);
        for text in [
            ",", "a,", " a", "a b", "../a", "A", "-a", "a-", "a/b", &long,
        ] {
            assert!(Volumes::parse(text).is_err(), "{text:?} was taken");
        }
    }

    #[test]
    fn socket_of_the_longest_name_fits_the_kernel() {
        let volumes = Volumes::parse(&"a".repeat(63)).unwrap();
        let longest = volumes.iter().next().map(socket_path).unwrap();
        assert_eq!(longest.len(), 106);
    }
}
