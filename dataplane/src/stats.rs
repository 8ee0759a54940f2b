//! How an export has fared, in numbers: what [`Engine::stats`](crate::Engine::stats) tells.

/// The figures of one export since it was made; they outlive its front ends. Counters only grow.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ExportStats {
    /// Name of the export.
    pub export: String,
    /// A front end is connected.
    pub connected: bool,
    /// How often a front end has connected after the first time.
    pub reconnects: u64,
    /// Requests taken and not answered, now; those held included.
    pub inflight: u64,
    /// Requests that wait for a lost drive or for the verdict on one, now.
    pub held: u64,
    /// Requests that were taken by a former owner of their ring, a dead process mostly, and were done again.
    pub replayed: u64,
    /// Requests refused without asking the device: against a limit, unknown, or not offered.
    pub rejected: u64,
    /// Stopping a queue has taken more than two seconds and is not over: requests are still with the device.
    pub stop_waits: bool,
    /// Reads.
    pub reads: OpStats,
    /// Writes.
    pub writes: OpStats,
    /// Flushes.
    pub flushes: OpStats,
    /// Discards and write-zeroes.
    pub discards: OpStats,
}

/// The figures of one kind of request.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct OpStats {
    /// Requests answered, with errors or without.
    pub ops: u64,
    /// Bytes of those that succeeded.
    pub bytes: u64,
    /// Those answered with an error.
    pub errors: u64,
    /// How long they took, from the moment the reactor looked at the ring and found them to the moment it took the
    /// device's answer. Waiting for a lost drive counts; waiting for a limit does not, for that is done in the ring.
    pub latency: Latency,
}

/// A histogram with fixed buckets, each twice as wide as the one before: from 1.024 us to 17.2 s, and one for the rest.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Latency {
    /// Requests per bucket.
    pub buckets: [u64; Latency::BUCKETS],
    /// All latencies together, in nanoseconds.
    pub sum_ns: u64,
}

impl Latency {
    /// How many buckets there are.
    pub const BUCKETS: usize = 26;
    /// The first bucket ends at two to the power of this.
    const FIRST_BITS: u32 = 10;

    /// The longest latency that belongs into a bucket, in nanoseconds; none for the last, which has no end.
    pub fn bound_ns(bucket: usize) -> Option<u64> {
        let bits = u32::try_from(bucket).ok()?.checked_add(Self::FIRST_BITS)?;
        (bucket + 1 < Self::BUCKETS).then(|| 1 << bits)
    }

    /// The bucket of a latency.
    #[inline]
    pub(crate) fn bucket_of(latency_ns: u64) -> usize {
        let bits = u64::BITS - latency_ns.saturating_sub(1).leading_zeros();
        (bits.saturating_sub(Self::FIRST_BITS) as usize).min(Self::BUCKETS - 1)
    }

    /// How many latencies it holds.
    pub fn count(&self) -> u64 {
        self.buckets.iter().sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn latency_at_a_bound_is_in_the_bucket_that_ends_there() {
        for bucket in 0..Latency::BUCKETS - 1 {
            let bound = Latency::bound_ns(bucket).unwrap();
            assert_eq!(Latency::bucket_of(bound), bucket);
            assert_eq!(Latency::bucket_of(bound + 1), bucket + 1);
        }
        assert_eq!(Latency::bucket_of(0), 0);
        assert_eq!(Latency::bucket_of(u64::MAX), Latency::BUCKETS - 1);
        assert_eq!(Latency::bound_ns(Latency::BUCKETS - 1), None);
        assert_eq!(Latency::bound_ns(usize::MAX), None);
    }
}
