//! What keeps an object from being as it should: a reason for programs, a sentence for people, and when to look again.

use super::queue::Outcome;
use holdfast_api::{ALIGNMENT_BYTES, SplitVolume, parse_quantity, reasons};
use holdfast_dataplane::{EngineError, ErrorKind, PoolError};

/// The device carries another pool than the one recorded.
pub(super) const WRONG_POOL: &str = "WrongPool";
/// The device carries data of somebody else.
pub(super) const FOREIGN_DATA: &str = "ForeignData";
/// The pool's own data is damaged, or part of it is gone.
pub(super) const DAMAGED: &str = "Damaged";
/// The device cannot be opened.
pub(super) const DEVICE_MISSING: &str = "DeviceMissing";
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
            (EngineError::Device { .. }, ErrorKind::Unavailable) => {
                (DEVICE_MISSING, Outcome::Retry)
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
        PoolError::WrongPool { .. } => (WRONG_POOL, Outcome::Retry),
        PoolError::Foreign { .. } => (FOREIGN_DATA, Outcome::Retry),
        PoolError::NotAPool
        | PoolError::FormatInterrupted
        | PoolError::Damaged { .. }
        | PoolError::Truncated { .. } => (DAMAGED, Outcome::Retry),
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
