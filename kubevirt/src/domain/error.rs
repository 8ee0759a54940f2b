//! Why a machine's description was not rewritten. KubeVirt shows the text to the machine's owner.

/// Why a machine's description was not rewritten.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DomainError {
    /// It is longer than any machine needs.
    #[error("the domain XML has {bytes} bytes, the limit is {limit}")]
    TooLarge {
        /// Its length.
        bytes: usize,
        /// The limit.
        limit: usize,
    },
    /// It is no XML, or XML that a domain never needs.
    #[error("the domain XML cannot be used: {why}, at byte {offset}")]
    Malformed {
        /// What is wrong.
        why: String,
        /// Where.
        offset: usize,
    },
    /// A volume of the annotation has no disk.
    #[error(
        "no disk of the domain has the alias ua-{volume}; there are: {aliases}. Correct the annotation \
         holdfast.dev/volumes, or give the volume {volume} an entry in spec.domain.devices.disks"
    )]
    NoDisk {
        /// The volume.
        volume: String,
        /// What there is.
        aliases: String,
    },
    /// A volume has more than one disk.
    #[error(
        "two disks of the domain have the alias ua-{volume}; a volume takes one machine's one disk"
    )]
    TwoDisks {
        /// The volume.
        volume: String,
    },
    /// The volume is not the claim that KubeVirt mounts for it.
    #[error(
        "disk {volume} is not a claim with volumeMode Filesystem that KubeVirt mounted ({source_is}), so it has no \
         socket; take {volume} out of the annotation holdfast.dev/volumes"
    )]
    Foreign {
        /// The volume.
        volume: String,
        /// What the disk's source is.
        source_is: String,
    },
    /// The disk asks for something that a disk on a socket cannot be.
    #[error("disk {volume} cannot be served on a socket: {why}; {remedy}")]
    Unsupported {
        /// The volume.
        volume: String,
        /// What it asks for.
        why: String,
        /// What to do.
        remedy: &'static str,
    },
    /// The host may not see the guest's memory.
    #[error(
        "the domain has encrypted memory ({kind}), which a disk on a socket cannot reach; \
         remove launchSecurity or use another StorageClass"
    )]
    EncryptedMemory {
        /// As in `sev`.
        kind: String,
    },
}
