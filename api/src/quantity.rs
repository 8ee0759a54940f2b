//! Sizes as people write them: `4Gi`, `4GiB`, `10G`, `1048576`.

use crate::Quantity;

/// Why a size could not be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum QuantityError {
    /// Not a number with a known suffix.
    #[error(
        "{text:?} is not a size; write bytes or a number with Ki, Mi, Gi, Ti, Pi (1024) or k, M, G, T, P (1000), as in 4Gi"
    )]
    Malformed {
        /// What was written.
        text: String,
    },
    /// More bytes than 64 bits hold.
    #[error("{text:?} is more than any device holds; the largest size is 8Ei")]
    TooLarge {
        /// What was written.
        text: String,
    },
}

/// A size in bytes as a Kubernetes quantity, in the largest unit that keeps it whole.
#[must_use]
pub fn quantity(bytes: u64) -> Quantity {
    let units = [(40, "Ti"), (30, "Gi"), (20, "Mi"), (10, "Ki")];
    let fits = units
        .iter()
        .find(|(shift, _)| bytes != 0 && bytes.trailing_zeros() >= *shift);
    Quantity(match fits {
        Some((shift, suffix)) => format!("{}{suffix}", bytes >> shift),
        None => bytes.to_string(),
    })
}

/// Reads a size in bytes. Kubernetes suffixes, each optionally followed by `B`. Whole numbers only.
///
/// # Errors
/// When the text is no size, or one that does not fit 63 bits.
pub fn parse_quantity(text: &str) -> Result<u64, QuantityError> {
    let malformed = || QuantityError::Malformed {
        text: text.to_owned(),
    };
    let too_large = || QuantityError::TooLarge {
        text: text.to_owned(),
    };
    let trimmed = text.trim();
    let digits = trimmed
        .find(|c: char| !c.is_ascii_digit())
        .unwrap_or(trimmed.len());
    let (number, suffix) = trimmed.split_at(digits);
    if number.is_empty() {
        return Err(malformed());
    }
    let factor = factor(suffix).ok_or_else(malformed)?;
    let number: u64 = number.parse().map_err(|_| too_large())?;
    number
        .checked_mul(factor)
        .filter(|bytes| i64::try_from(*bytes).is_ok())
        .ok_or_else(too_large)
}

fn factor(suffix: &str) -> Option<u64> {
    let unit = suffix.strip_suffix('B').unwrap_or(suffix);
    Some(match unit {
        "" => 1,
        "Ki" => 1 << 10,
        "Mi" => 1 << 20,
        "Gi" => 1 << 30,
        "Ti" => 1 << 40,
        "Pi" => 1 << 50,
        "Ei" => 1 << 60,
        "k" | "K" => 1_000,
        "M" => 1_000_000,
        "G" => 1_000_000_000,
        "T" => 1_000_000_000_000,
        "P" => 1_000_000_000_000_000,
        "E" => 1_000_000_000_000_000_000,
        _ => return None,
    })
}

/// A number of bytes that reads like `100Gi` in a manifest. Plain numbers are read too: earlier manifests have them.
pub(crate) mod bytes {
    use super::{Quantity, parse_quantity, quantity};
    use serde::{Deserialize, Deserializer, Serialize, Serializer};

    pub(crate) fn serialize<S: Serializer>(bytes: &u64, to: S) -> Result<S::Ok, S::Error> {
        quantity(*bytes).serialize(to)
    }

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<u64, D::Error> {
        let text = Quantity::deserialize(from)?.0;
        parse_quantity(&text).map_err(serde::de::Error::custom)
    }
}
