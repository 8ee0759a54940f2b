//! Latencies counted in buckets of equal relative width: small enough to stay in the first-level cache while it fills.

/// Each power of two is cut into this many buckets: a value is known to within 3 %.
const PARTS: u64 = 32;
const PARTS_BITS: u32 = PARTS.trailing_zeros();
const BUCKETS: usize = (64 - PARTS_BITS as usize) << PARTS_BITS;

/// Counts of latencies in nanoseconds.
#[derive(Clone, Debug)]
pub struct Histogram {
    buckets: Box<[u64; BUCKETS]>,
    count: u64,
}

impl Histogram {
    /// Nothing counted.
    pub fn new() -> Histogram {
        Histogram {
            buckets: Box::new([0; BUCKETS]),
            count: 0,
        }
    }

    /// Counts one latency.
    #[inline]
    pub fn add(&mut self, ns: u64) {
        self.buckets[bucket(ns)] += 1;
        self.count += 1;
    }

    /// How many were counted.
    pub fn count(&self) -> u64 {
        self.count
    }

    /// Forgets everything.
    pub fn clear(&mut self) {
        self.buckets.fill(0);
        self.count = 0;
    }

    /// Adds what another has counted.
    pub fn merge(&mut self, other: &Histogram) {
        for (mine, theirs) in self.buckets.iter_mut().zip(other.buckets.iter()) {
            *mine += theirs;
        }
        self.count += other.count;
    }

    /// The latency in nanoseconds that this share of all, from 0 to 1, does not exceed; 0 if nothing was counted.
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)] // A share of a count.
    #[allow(clippy::cast_precision_loss)]
    pub fn quantile(&self, share: f64) -> u64 {
        let wanted = (self.count as f64 * share).ceil() as u64;
        let mut seen = 0;
        for (index, count) in self.buckets.iter().enumerate() {
            seen += count;
            if seen >= wanted.max(1) {
                return highest(index as u64);
            }
        }
        0
    }
}

impl Default for Histogram {
    fn default() -> Histogram {
        Histogram::new()
    }
}

/// Values below `PARTS` have a bucket each; above, the highest `PARTS_BITS` bits behind the first choose.
#[inline]
#[allow(clippy::cast_possible_truncation)] // At most BUCKETS.
fn bucket(ns: u64) -> usize {
    if ns < PARTS {
        return ns as usize;
    }
    let shift = ns.ilog2() - PARTS_BITS;
    ((u64::from(shift) + 1) * PARTS + ((ns >> shift) - PARTS)) as usize
}

/// The highest value of a bucket.
fn highest(index: u64) -> u64 {
    let Some(shift) = (index / PARTS).checked_sub(1) else {
        return index;
    };
    let first = (PARTS + index % PARTS) << shift;
    first + ((1 << shift) - 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bucket_holds_its_values_and_no_others() {
        for ns in (0..10_000).chain([1 << 20, (1 << 33) + 12_345, u64::MAX]) {
            let index = bucket(ns);
            let high = highest(index as u64);
            assert!(ns <= high && high - ns <= ns / PARTS, "{ns} in {high}");
            assert!(index == 0 || highest(index as u64 - 1) < ns, "{ns}");
        }
    }

    #[test]
    fn quantile_of_a_thousand_latencies_is_found() {
        let mut histogram = Histogram::new();
        (1..=1000).for_each(|ns| histogram.add(ns));
        let mut other = Histogram::new();
        other.add(1_000_000);
        histogram.merge(&other);
        let near = |share: f64, ns: u64| {
            let found = histogram.quantile(share);
            assert!(found >= ns && found <= ns + ns / PARTS, "{share}: {found}");
        };
        near(0.5, 501);
        near(0.99, 991);
        near(1.0, 1_000_000);
        assert_eq!(Histogram::new().quantile(0.5), 0);
    }
}
