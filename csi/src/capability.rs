//! Which ways of access Holdfast serves.

use holdfast_proto::csi::v1::VolumeCapability;
use holdfast_proto::csi::v1::volume_capability::AccessType;
pub use holdfast_proto::csi::v1::volume_capability::access_mode::Mode;
use tonic::Status;

/// A way of access that was checked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Access {
    /// How many may use the volume, and whether they may write.
    pub mode: Mode,
}

impl Access {
    /// The mode's CSI name, such as `SINGLE_NODE_WRITER`.
    #[must_use]
    pub fn name(self) -> &'static str {
        self.mode.as_str_name()
    }

    /// Nobody may write.
    #[must_use]
    pub fn is_read_only(self) -> bool {
        self.mode == Mode::SingleNodeReaderOnly
    }

    /// The volume may be published at one place only.
    #[must_use]
    pub fn is_single_publisher(self) -> bool {
        matches!(
            self.mode,
            Mode::SingleNodeWriter | Mode::SingleNodeSingleWriter
        )
    }
}

/// Checks the capabilities of a controller call: at least one, and each as [`check_capability`] wants it. Returns the first.
///
/// # Errors
/// INVALID_ARGUMENT that says which is not served and what to ask for instead.
pub fn check_capabilities(capabilities: &[VolumeCapability]) -> Result<Access, Status> {
    let checked: Result<Vec<Access>, Status> = capabilities
        .iter()
        .map(|capability| check_capability(Some(capability)))
        .collect();
    let missing = || Status::invalid_argument("volume_capabilities is missing: give at least one");
    checked?.first().copied().ok_or_else(missing)
}

/// Checks one capability: access type mount, a mode of a single node. A file system type is accepted and has no effect, for the
/// guest makes its file system; mount flags and a mount group would have none and are refused.
///
/// # Errors
/// INVALID_ARGUMENT that says what is not served and what to ask for instead.
pub fn check_capability(capability: Option<&VolumeCapability>) -> Result<Access, Status> {
    let capability =
        capability.ok_or_else(|| Status::invalid_argument("volume_capability is missing"))?;
    match &capability.access_type {
        Some(AccessType::Mount(mount)) if !mount.mount_flags.is_empty() => {
            return Err(Status::invalid_argument(
                "mount flags have no effect on a socket's directory; remove mountOptions",
            ));
        }
        Some(AccessType::Mount(mount)) if !mount.volume_mount_group.is_empty() => {
            return Err(Status::invalid_argument(
                "volume_mount_group is not served; the socket's owner is set by the node plugin",
            ));
        }
        Some(AccessType::Mount(_)) => {}
        Some(AccessType::Block(_)) => {
            return Err(Status::invalid_argument(
                "access type block is not served: a vhost-user socket cannot be published as a \
                 device; use volumeMode Filesystem, the VM sees a block device all the same",
            ));
        }
        None => {
            return Err(Status::invalid_argument(
                "the access type is missing from a volume capability: set mount",
            ));
        }
    }
    let mode = capability.access_mode.as_ref().map_or(0, |mode| mode.mode);
    check_mode(mode).map(|mode| Access { mode })
}

fn check_mode(number: i32) -> Result<Mode, Status> {
    let mode = Mode::try_from(number)
        .map_err(|_| Status::invalid_argument(format!("access mode {number} is unknown")))?;
    match mode {
        Mode::SingleNodeWriter
        | Mode::SingleNodeReaderOnly
        | Mode::SingleNodeSingleWriter
        | Mode::SingleNodeMultiWriter => Ok(mode),
        Mode::Unknown => Err(Status::invalid_argument(
            "the access mode is missing from a volume capability",
        )),
        _ => Err(Status::invalid_argument(format!(
            "access mode {} is not served: a volume lives on one node; use a SINGLE_NODE mode \
             (ReadWriteOnce or ReadWriteOncePod)",
            mode.as_str_name()
        ))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use holdfast_proto::csi::v1::volume_capability::{AccessMode, BlockVolume, MountVolume};
    use tonic::Code;

    fn capability(mode: i32, access_type: AccessType) -> VolumeCapability {
        VolumeCapability {
            access_mode: Some(AccessMode { mode }),
            access_type: Some(access_type),
        }
    }

    fn mount(mode: Mode) -> VolumeCapability {
        capability(mode.into(), AccessType::Mount(MountVolume::default()))
    }

    #[test]
    fn single_node_modes_are_served() {
        let modes = [
            Mode::SingleNodeWriter,
            Mode::SingleNodeReaderOnly,
            Mode::SingleNodeSingleWriter,
            Mode::SingleNodeMultiWriter,
        ];
        for mode in modes {
            let access = check_capabilities(&[mount(mode)]).unwrap();
            assert_eq!(access.mode, mode);
        }
    }

    #[test]
    fn capability_not_served_is_refused_by_name_even_after_a_good_one() {
        let good = mount(Mode::SingleNodeWriter);
        let flags = MountVolume {
            mount_flags: vec!["ro".into()],
            ..Default::default()
        };
        let group = MountVolume {
            volume_mount_group: "7".into(),
            ..Default::default()
        };
        let no_type = VolumeCapability {
            access_type: None,
            ..good.clone()
        };
        let no_mode = VolumeCapability {
            access_mode: None,
            ..good.clone()
        };
        let cases = [
            (mount(Mode::MultiNodeReaderOnly), "MULTI_NODE_READER_ONLY"),
            (
                mount(Mode::MultiNodeSingleWriter),
                "MULTI_NODE_SINGLE_WRITER",
            ),
            (mount(Mode::MultiNodeMultiWriter), "MULTI_NODE_MULTI_WRITER"),
            (mount(Mode::Unknown), "access mode is missing"),
            (
                capability(99, AccessType::Mount(MountVolume::default())),
                "99",
            ),
            (capability(1, AccessType::Block(BlockVolume {})), "block"),
            (capability(1, AccessType::Mount(flags)), "mount flags"),
            (
                capability(1, AccessType::Mount(group)),
                "volume_mount_group",
            ),
            (no_type, "access type is missing"),
            (no_mode, "access mode is missing"),
        ];
        for (bad, word) in cases {
            let status = check_capabilities(&[good.clone(), bad]).unwrap_err();
            assert_eq!(status.code(), Code::InvalidArgument);
            assert!(status.message().contains(word), "{status}");
        }
    }

    #[test]
    fn no_capability_is_refused() {
        for status in [
            check_capabilities(&[]).unwrap_err(),
            check_capability(None).unwrap_err(),
        ] {
            assert_eq!(status.code(), Code::InvalidArgument);
        }
    }
}
