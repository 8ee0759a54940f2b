//! Names: which are allowed, and how a CSI volume name becomes an object name.

/// Why a name cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "{name:?} cannot name an object: use 1 to 63 lower-case letters, digits and '-', beginning and ending with a letter or digit"
)]
pub struct NameError {
    /// The name given.
    pub name: String,
}

/// Refuses names that are no DNS-1123 label. Object names become file names and path parts, so this is also what keeps a
/// name from leaving its directory.
///
/// # Errors
/// When the name is no label.
pub fn check_object_name(name: &str) -> Result<(), NameError> {
    let inner = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
    let edge = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit();
    let good = (1..=63).contains(&name.len())
        && name.chars().all(inner)
        && name.starts_with(edge)
        && name.ends_with(edge);
    if good {
        Ok(())
    } else {
        Err(NameError {
            name: name.to_owned(),
        })
    }
}

/// The volume id for a CSI volume name: the name itself where it can name an object, else a hash of it.
#[must_use]
pub fn volume_id(csi_name: &str) -> String {
    if check_object_name(csi_name).is_ok() {
        csi_name.to_owned()
    } else {
        format!("v-{}", hash_hex(csi_name))
    }
}

/// A short, stable directory name for an object: 16 hex digits. Socket paths stay below 107 bytes with it.
#[must_use]
pub fn short_id(name: &str) -> String {
    hash_hex(name)[..16].to_owned()
}

/// The name of the [`OrphanExtent`](crate::OrphanExtent) for a volume found on a pool. It begins with the pool's name unless
/// that is too long.
#[must_use]
pub fn orphan_name(pool: &str, volume_id: &str) -> String {
    let id = short_id(volume_id);
    let plain = format!("{pool}-{id}");
    if check_object_name(&plain).is_ok() {
        plain
    } else {
        format!("{}-{id}", short_id(pool))
    }
}

/// 128 bits of FNV-1a in hex. Not secret and not adversarial: names come from the cluster's own controller, and a clash shows
/// as a name that is taken, never as shared data.
fn hash_hex(text: &str) -> String {
    const PRIME: u128 = 0x0000_0000_0100_0000_0000_0000_0000_013b;
    const BASIS: u128 = 0x6c62_272e_07bb_0142_62b8_2175_6295_c58d;
    let hash = text.bytes().fold(BASIS, |hash, byte| {
        (hash ^ u128::from(byte)).wrapping_mul(PRIME)
    });
    format!("{hash:032x}")
}
