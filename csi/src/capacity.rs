//! What a CapacityRange asks for.

use holdfast_proto::csi::v1::CapacityRange;
use tonic::Status;

/// A range of sizes in bytes that was checked: `required <= limit`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SizeRange {
    /// At least this much, if it was said.
    pub required: Option<u64>,
    /// At most this much, if it was said.
    pub limit: Option<u64>,
}

impl SizeRange {
    /// Every size will do.
    pub const ANY: Self = Self {
        required: None,
        limit: None,
    };

    /// Whether a size lies in the range.
    #[must_use]
    pub fn contains(&self, bytes: u64) -> bool {
        self.required.is_none_or(|required| bytes >= required)
            && self.limit.is_none_or(|limit| bytes <= limit)
    }

    /// The size to make: what is required, else `default` or what the limit leaves of it, as a multiple of `alignment` that
    /// lies in the range.
    ///
    /// # Errors
    /// OUT_OF_RANGE when no multiple of `alignment` does.
    pub fn choose(&self, alignment: u64, default: u64) -> Result<u64, Status> {
        let aligned_up = |bytes: u64| bytes.max(1).checked_next_multiple_of(alignment);
        let size = match (self.required, self.limit) {
            (Some(required), _) => aligned_up(required),
            (None, limit) => {
                let most = limit.map_or(default, |limit| limit.min(default));
                Some(most - most % alignment)
            }
        };
        size.filter(|size| *size > 0 && i64::try_from(*size).is_ok() && self.contains(*size))
            .ok_or_else(|| {
                Status::out_of_range(format!(
                    "no size in {self} is a multiple of {alignment} bytes, which every volume is"
                ))
            })
    }
}

impl std::fmt::Display for SizeRange {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let bound = |bytes: Option<u64>| bytes.map_or("any".to_owned(), |bytes| bytes.to_string());
        write!(f, "{}..={} bytes", bound(self.required), bound(self.limit))
    }
}

/// Checks a capacity range; none at all means every size will do.
///
/// # Errors
/// INVALID_ARGUMENT when it is negative, empty, or asks for more than its own limit.
pub fn check_capacity(range: Option<&CapacityRange>) -> Result<SizeRange, Status> {
    let Some(range) = range else {
        return Ok(SizeRange::ANY);
    };
    let bytes = |bytes: i64, field: &str| {
        u64::try_from(bytes)
            .map_err(|_| Status::invalid_argument(format!("capacity_range.{field} is negative")))
    };
    let given = |bytes: u64| (bytes != 0).then_some(bytes);
    let checked = SizeRange {
        required: given(bytes(range.required_bytes, "required_bytes")?),
        limit: given(bytes(range.limit_bytes, "limit_bytes")?),
    };
    match (checked.required, checked.limit) {
        (None, None) => Err(Status::invalid_argument(
            "capacity_range is empty: give required_bytes or limit_bytes above 0, or no range",
        )),
        (Some(required), Some(limit)) if required > limit => Err(Status::invalid_argument(
            format!("capacity_range requires {required} bytes and limits them to {limit}"),
        )),
        _ => Ok(checked),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tonic::Code;

    const MIB: u64 = 1 << 20;
    const DEFAULT: u64 = 1 << 30;

    fn size(required_bytes: i64, limit_bytes: i64) -> Result<u64, Status> {
        let range = CapacityRange {
            required_bytes,
            limit_bytes,
        };
        check_capacity(Some(&range))?.choose(MIB, DEFAULT)
    }

    #[test]
    fn size_is_the_least_multiple_that_is_enough() {
        let cases = [
            ((1, 0), MIB),
            ((1 << 20, 0), MIB),
            (((1 << 20) + 1, 0), 2 * MIB),
            ((1 << 20, 1 << 20), MIB),
            ((0, 5 << 20), 5 * MIB),
            ((0, (5 << 20) + 1), 5 * MIB),
            ((0, 1 << 40), DEFAULT),
            ((1 << 60, 0), 1 << 60),
        ];
        for ((required, limit), bytes) in cases {
            assert_eq!(size(required, limit).unwrap(), bytes, "{required} {limit}");
        }
        assert_eq!(SizeRange::ANY.choose(MIB, DEFAULT).unwrap(), DEFAULT);
    }

    #[test]
    fn range_without_a_possible_size_is_out_of_range() {
        for (required, limit) in [(1, 1), (1, (1 << 20) - 1), (0, 5), (i64::MAX, 0)] {
            let status = size(required, limit).unwrap_err();
            assert_eq!(status.code(), Code::OutOfRange, "{required} {limit}");
        }
    }

    #[test]
    fn range_that_makes_no_sense_is_invalid() {
        for (required, limit) in [(0, 0), (-1, 0), (0, -1), (2, 1), (i64::MIN, i64::MAX)] {
            let status = size(required, limit).unwrap_err();
            assert_eq!(status.code(), Code::InvalidArgument, "{required} {limit}");
        }
    }
}
