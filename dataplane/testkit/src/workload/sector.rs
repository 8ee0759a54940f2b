//! What a written sector looks like: 32 times a 16-byte tag, each valid at its own place only.

/// Bytes in a sector.
pub const SECTOR: usize = 512;
/// Bytes in a tag.
pub const TAG: usize = 16;

/// What one tag says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tag {
    /// Whose sector it is.
    pub volume: u32,
    /// Which sector, modulo 2^32.
    pub sector: u32,
    /// Which write.
    pub sequence: u32,
}

/// What a sector read back turned out to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Seen {
    /// Nothing but zeros.
    Zeros,
    /// One whole tag, at every place.
    Whole(Tag),
    /// Valid tags, but not all alike, or mixed with zeros.
    Torn {
        /// The first tag.
        first: Option<Tag>,
        /// The first that differs.
        other: Option<Tag>,
    },
    /// A tag whose checksum does not match.
    Corrupt {
        /// Its place in the sector, in bytes.
        at: usize,
    },
}

impl Tag {
    /// Fills a sector with this tag.
    pub fn fill(self, into: &mut [u8; SECTOR]) {
        for (place, chunk) in into.as_chunks_mut::<TAG>().0.iter_mut().enumerate() {
            *chunk = self.bytes(place);
        }
    }

    fn bytes(self, place: usize) -> [u8; TAG] {
        let mut bytes = [0; TAG];
        bytes[..4].copy_from_slice(&self.volume.to_le_bytes());
        bytes[4..8].copy_from_slice(&self.sector.to_le_bytes());
        bytes[8..12].copy_from_slice(&self.sequence.to_le_bytes());
        let sum = checksum(&bytes, place);
        bytes[12..].copy_from_slice(&sum.to_le_bytes());
        bytes
    }

    /// The tag at a place of a sector: `Some(None)` for zeros, `None` if the checksum is wrong.
    fn read(bytes: &[u8; TAG], place: usize) -> Option<Option<Tag>> {
        if *bytes == [0; TAG] {
            return Some(None);
        }
        let word = |at: usize| u32::from_le_bytes(std::array::from_fn(|i| bytes[at + i]));
        let tag = Tag {
            volume: word(0),
            sector: word(4),
            sequence: word(8),
        };
        (word(12) == checksum(bytes, place)).then_some(Some(tag))
    }
}

impl Seen {
    /// Takes a sector apart.
    pub fn read(sector: &[u8; SECTOR]) -> Seen {
        let mut first = None;
        for (place, chunk) in sector.as_chunks::<TAG>().0.iter().enumerate() {
            let Some(tag) = Tag::read(chunk, place) else {
                return Seen::Corrupt { at: place * TAG };
            };
            match first {
                None => first = Some(tag),
                Some(first) if first == tag => {}
                Some(first) => return Seen::Torn { first, other: tag },
            }
        }
        match first.flatten() {
            Some(tag) => Seen::Whole(tag),
            None => Seen::Zeros,
        }
    }
}

/// Never equal for two places, so that bytes moved within a sector do not go unnoticed.
fn checksum(bytes: &[u8; TAG], place: usize) -> u32 {
    crc32c::crc32c_append(crc32c::crc32c(&bytes[..12]), &place.to_le_bytes())
}
