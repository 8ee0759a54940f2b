//! Arguments that several calls share, as CSI puts them.

use clap::ValueEnum;
use holdfast_proto::csi::v1::volume_capability::access_mode::Mode;
use holdfast_proto::csi::v1::volume_capability::{
    AccessMode, AccessType, BlockVolume, MountVolume,
};
use holdfast_proto::csi::v1::{CapacityRange, VolumeCapability};

/// How a volume is to be used.
#[derive(Debug, Clone, clap::Args)]
pub(super) struct Access {
    /// Who may use the volume.
    #[arg(long, value_enum, default_value_t)]
    access_mode: ModeArg,
    /// Ask for a block device where a directory is usual.
    #[arg(long)]
    block: bool,
}

/// Access modes under their CSI names.
#[derive(Debug, Clone, Copy, Default, ValueEnum)]
#[value(rename_all = "SCREAMING_SNAKE_CASE")]
enum ModeArg {
    #[default]
    SingleNodeWriter,
    SingleNodeReaderOnly,
    SingleNodeSingleWriter,
    SingleNodeMultiWriter,
    MultiNodeReaderOnly,
    MultiNodeSingleWriter,
    MultiNodeMultiWriter,
}

impl Access {
    pub(super) fn capability(&self) -> VolumeCapability {
        let mode = match self.access_mode {
            ModeArg::SingleNodeWriter => Mode::SingleNodeWriter,
            ModeArg::SingleNodeReaderOnly => Mode::SingleNodeReaderOnly,
            ModeArg::SingleNodeSingleWriter => Mode::SingleNodeSingleWriter,
            ModeArg::SingleNodeMultiWriter => Mode::SingleNodeMultiWriter,
            ModeArg::MultiNodeReaderOnly => Mode::MultiNodeReaderOnly,
            ModeArg::MultiNodeSingleWriter => Mode::MultiNodeSingleWriter,
            ModeArg::MultiNodeMultiWriter => Mode::MultiNodeMultiWriter,
        };
        VolumeCapability {
            access_mode: Some(AccessMode { mode: mode.into() }),
            access_type: Some(if self.block {
                AccessType::Block(BlockVolume {})
            } else {
                AccessType::Mount(MountVolume::default())
            }),
        }
    }
}

/// A size on the command line, such as 512MiB.
pub(super) fn size(text: &str) -> Result<i64, String> {
    let bytes = holdfast_api::parse_quantity(text).map_err(|error| error.to_string())?;
    i64::try_from(bytes).map_err(|error| error.to_string())
}

pub(super) fn at_least(bytes: i64) -> CapacityRange {
    CapacityRange {
        required_bytes: bytes,
        limit_bytes: 0,
    }
}

/// `key=value` on the command line.
pub(super) fn pair(text: &str) -> Result<(String, String), String> {
    text.split_once('=')
        .filter(|(key, _)| !key.is_empty())
        .map(|(key, value)| (key.to_owned(), value.to_owned()))
        .ok_or_else(|| format!("{text:?} is no pair; write key=value"))
}
