//! What to ask for: sizes, directions and places of requests.

/// How a queue is loaded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pattern {
    /// Requests under way at any time.
    pub depth: u16,
    /// Length of a request, a multiple of 512.
    pub bytes: u32,
    /// Share of reads; the rest are writes.
    pub reads_percent: u8,
    /// One after the other instead of anywhere.
    pub sequential: bool,
    /// The part of the device, from its first byte, that is used.
    pub span_bytes: u64,
}

/// How the driver learns of answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wait {
    /// Looks at the used ring all the time and asks for no interrupts.
    Poll,
    /// Sleeps until it is interrupted.
    Interrupt,
}

/// Draws places and directions; the same sequence for every device.
#[derive(Debug)]
pub(super) struct Draw {
    pattern: Pattern,
    blocks: u64,
    next: u64,
    state: u64,
}

impl Draw {
    pub(super) fn new(pattern: Pattern, seed: u64) -> Draw {
        Draw {
            pattern,
            blocks: (pattern.span_bytes / u64::from(pattern.bytes)).max(1),
            next: 0,
            state: seed | 1,
        }
    }

    /// The sector of the next request, and whether it reads.
    #[inline]
    pub(super) fn draw(&mut self) -> (u64, bool) {
        let random = self.random();
        let block = if self.pattern.sequential {
            let block = self.next;
            self.next = if block + 1 == self.blocks {
                0
            } else {
                block + 1
            };
            block
        } else {
            // The high half of the product is evenly spread over the blocks.
            let product = u128::from(random) * u128::from(self.blocks);
            u64::try_from(product >> 64).unwrap_or(0)
        };
        let reads = (random & 0xffff) * 100 < u64::from(self.pattern.reads_percent) << 16;
        (block * u64::from(self.pattern.bytes / 512), reads)
    }

    /// xorshift64*: fast, and far better than a disk can tell.
    #[inline]
    fn random(&mut self) -> u64 {
        self.state ^= self.state >> 12;
        self.state ^= self.state << 25;
        self.state ^= self.state >> 27;
        self.state.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pattern(reads_percent: u8, sequential: bool) -> Pattern {
        Pattern {
            depth: 1,
            bytes: 4096,
            reads_percent,
            sequential,
            span_bytes: 64 * 4096,
        }
    }

    #[test]
    fn random_places_cover_the_span_evenly_and_stay_inside() {
        let mut draw = Draw::new(pattern(70, false), 42);
        let (mut hits, mut reads) = ([0u32; 64], 0u32);
        for _ in 0..64_000 {
            let (sector, read) = draw.draw();
            assert!(sector.is_multiple_of(8));
            hits[usize::try_from(sector / 8).unwrap()] += 1;
            reads += u32::from(read);
        }
        assert!(
            hits.iter().all(|hits| (800..1200).contains(hits)),
            "{hits:?}"
        );
        assert!((44_000..45_600).contains(&reads), "{reads}");
    }

    #[test]
    fn sequential_places_follow_each_other_and_begin_again() {
        let mut draw = Draw::new(pattern(100, true), 42);
        for turn in 0..130 {
            assert_eq!(draw.draw(), (turn % 64 * 8, true));
        }
        let mut writes = Draw::new(pattern(0, true), 42);
        assert!((0..1000).all(|_| !writes.draw().1));
    }
}
