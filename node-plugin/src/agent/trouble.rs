//! What keeps an object from being as it should: a reason for programs, a sentence for people, and when to look again.

use super::queue::Outcome;
use holdfast_api::{ALIGNMENT_BYTES, SplitVolume, events, parse_quantity, reasons};
use holdfast_dataplane::{BdevError, EngineError, ErrorKind, PoolError};

/// The device carries another pool than the one recorded, or none.
pub(super) const DEVICE_MISMATCH: &str = events::DEVICE_MISMATCH;
/// The device carries data of somebody else.
pub(super) const FOREIGN_DATA: &str = "ForeignData";
/// The pool's own data is damaged, or part of it is gone.
pub(super) const METADATA_CORRUPT: &str = events::METADATA_CORRUPT;
/// The device is not there, or cannot be opened.
pub(super) const DEVICE_MISSING: &str = events::DEVICE_MISSING;
/// Several devices are known by this identity.
pub(super) const DEVICE_AMBIGUOUS: &str = "DeviceAmbiguous";
/// The device is mounted, held by somebody, or the drive of another BlockPool.
pub(super) const DEVICE_IN_USE: &str = events::DEVICE_IN_USE;
/// The drive has a volume of this id that no object stood for, and its size is another.
pub(super) const NOT_ADOPTED: &str = "NotAdopted";
/// Room will be there once deleted volumes are erased.
pub(super) const ERASING: &str = "Erasing";
/// The status tells of a volume that the drive does not have.
pub(super) const LOST: &str = "Lost";
/// Somebody still uses the object.
pub(super) const IN_USE: &str = "InUse";

/// Why an object is not as it should be.
#[derive(Debug)]
pub(super) struct Trouble {
    pub(super) reason: &'static str,
    pub(super) message: String,
    pub(super) outcome: Outcome,
}

impl Trouble {
    /// Goes away when another object changes.
    pub(super) fn waiting(reason: &'static str, message: impl Into<String>) -> Trouble {
        Trouble {
            reason,
            message: message.into(),
            outcome: Outcome::Waiting,
        }
    }

    /// Goes away when something comes that tells nobody.
    pub(super) fn look_again(reason: &'static str, message: impl Into<String>) -> Trouble {
        Trouble {
            reason,
            message: message.into(),
            outcome: Outcome::LookAgain,
        }
    }

    /// May go away by itself.
    pub(super) fn retry(reason: &'static str, message: impl Into<String>) -> Trouble {
        Trouble {
            reason,
            message: message.into(),
            outcome: Outcome::Retry,
        }
    }

    /// Stays until the object's own spec changes.
    pub(super) fn invalid(message: impl Into<String>) -> Trouble {
        Trouble {
            reason: reasons::INVALID,
            message: message.into(),
            outcome: Outcome::Done,
        }
    }
}

impl From<EngineError> for Trouble {
    fn from(error: EngineError) -> Trouble {
        let (reason, outcome) = match (&error, error.kind()) {
            (EngineError::Pool { source, .. }, _) => of_pool(source),
            (
                EngineError::Device {
                    source: BdevError::Mounted { .. } | BdevError::InUse { .. },
                    ..
                },
                _,
            ) => (DEVICE_IN_USE, Outcome::Retry),
            (EngineError::Device { .. }, ErrorKind::Unavailable) => {
                (DEVICE_MISSING, Outcome::LookAgain)
            }
            // Told by the engine when it is back.
            (EngineError::Lost { .. }, _) => (DEVICE_MISSING, Outcome::Waiting),
            (EngineError::Busy { .. }, _) => (IN_USE, Outcome::Retry),
            (_, ErrorKind::NotFound) => (reasons::NOT_FOUND, Outcome::Waiting),
            (_, ErrorKind::InvalidArgument) => (reasons::INVALID, Outcome::Done),
            _ => (reasons::FAILED, Outcome::Retry),
        };
        Trouble {
            reason,
            message: error.to_string(),
            outcome,
        }
    }
}

fn of_pool(error: &PoolError) -> (&'static str, Outcome) {
    match error {
        // Blank counts as wrong here: it is refused only where the status tells of a pool.
        PoolError::WrongPool { .. } | PoolError::NotAPool => (DEVICE_MISMATCH, Outcome::Retry),
        PoolError::Foreign { .. } => (FOREIGN_DATA, Outcome::Retry),
        PoolError::FormatInterrupted | PoolError::Damaged { .. } | PoolError::Truncated { .. } => {
            (METADATA_CORRUPT, Outcome::Retry)
        }
        PoolError::NoSpace {
            asked_bytes,
            free_bytes,
            erase_pending_bytes,
            ..
        } if free_bytes.saturating_add(*erase_pending_bytes) >= *asked_bytes
            && *erase_pending_bytes > 0 =>
        {
            (ERASING, Outcome::Waiting)
        }
        // Changes when another volume goes, and that is told by the pool's status.
        PoolError::NoSpace { .. } | PoolError::TableFull { .. } => {
            (reasons::NO_SPACE, Outcome::Waiting)
        }
        PoolError::InvalidSize { .. }
        | PoolError::InvalidId { .. }
        | PoolError::CannotShrink { .. } => (reasons::INVALID, Outcome::Done),
        _ => (reasons::FAILED, Outcome::Retry),
    }
}

/// The size a volume shall have in bytes, rounded up as the pool does.
pub(super) fn wanted_bytes(volume: &SplitVolume) -> Result<u64, Trouble> {
    let size = parse_quantity(&volume.spec.size.0)
        .map_err(|error| Trouble::invalid(format!("spec.size: {error}")))?;
    match size.checked_next_multiple_of(ALIGNMENT_BYTES) {
        Some(bytes) if bytes > 0 => Ok(bytes),
        _ => Err(Trouble::invalid(
            "spec.size: a volume needs at least 1 byte; write a size such as 4Gi",
        )),
    }
}
