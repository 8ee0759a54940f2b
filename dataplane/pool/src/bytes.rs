//! Little-endian fields in and out of byte slices, every access checked. The formats themselves stay readable as tables.

/// Reads one field after the other; `None` as soon as the bytes run out.
pub(crate) struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    pub(crate) fn new(bytes: &'a [u8]) -> Reader<'a> {
        Reader(bytes)
    }

    pub(crate) fn take(&mut self, len: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(len)?;
        self.0 = rest;
        Some(taken)
    }

    fn array<const N: usize>(&mut self) -> Option<[u8; N]> {
        self.take(N)?.try_into().ok()
    }

    pub(crate) fn u8(&mut self) -> Option<u8> {
        self.array().map(u8::from_le_bytes)
    }

    pub(crate) fn u16(&mut self) -> Option<u16> {
        self.array().map(u16::from_le_bytes)
    }

    pub(crate) fn u32(&mut self) -> Option<u32> {
        self.array().map(u32::from_le_bytes)
    }

    pub(crate) fn u64(&mut self) -> Option<u64> {
        self.array().map(u64::from_le_bytes)
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

/// A field of `bytes`, which is long enough: for blocks of fixed size.
pub(crate) fn u16_at(bytes: &[u8], at: usize) -> u16 {
    Reader::new(bytes.get(at..).unwrap_or_default())
        .u16()
        .unwrap_or_default()
}

/// As [`u16_at`].
pub(crate) fn u32_at(bytes: &[u8], at: usize) -> u32 {
    Reader::new(bytes.get(at..).unwrap_or_default())
        .u32()
        .unwrap_or_default()
}

/// As [`u16_at`].
pub(crate) fn u64_at(bytes: &[u8], at: usize) -> u64 {
    Reader::new(bytes.get(at..).unwrap_or_default())
        .u64()
        .unwrap_or_default()
}

/// Writes a field into a block of fixed size.
pub(crate) fn put(block: &mut [u8], at: usize, field: &[u8]) {
    block[at..at + field.len()].copy_from_slice(field);
}

/// Whether every byte is zero.
pub(crate) fn all_zero(bytes: &[u8]) -> bool {
    first_non_zero(bytes).is_none()
}

/// Where the first byte that is not zero stands.
pub(crate) fn first_non_zero(bytes: &[u8]) -> Option<usize> {
    const ZEROS: [u8; 4096] = [0; 4096];
    let mut at = 0;
    for part in bytes.chunks(ZEROS.len()) {
        if part != &ZEROS[..part.len()] {
            return part
                .iter()
                .position(|byte| *byte != 0)
                .map(|inside| at + inside);
        }
        at += part.len();
    }
    None
}
