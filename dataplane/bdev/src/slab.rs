//! Storage with keys that die with their entry: a slot's generation changes whenever it is freed, so a late
//! answer for an old entry finds nothing instead of somebody else's entry.

/// Names one entry of a [`Slab`], once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Key {
    slot: u32,
    generation: u32,
}

/// Generations count in this many bits; the two bits above are free for the user of [`Key::pack`].
const GENERATION_MASK: u32 = (1 << 30) - 1;

impl Key {
    /// The key in the lower 62 bits of a word.
    pub(crate) fn pack(self) -> u64 {
        u64::from(self.generation) << 32 | u64::from(self.slot)
    }

    /// The inverse of [`Key::pack`]; the two topmost bits are ignored.
    #[allow(clippy::cast_possible_truncation)] // Takes the word apart.
    pub(crate) fn unpack(word: u64) -> Key {
        Key {
            slot: word as u32,
            generation: (word >> 32) as u32 & GENERATION_MASK,
        }
    }
}

#[derive(Debug)]
struct Entry<T> {
    generation: u32,
    value: Option<T>,
}

/// A vector with a free list and generations. Allocates only while it grows.
#[derive(Debug)]
pub(crate) struct Slab<T> {
    entries: Vec<Entry<T>>,
    free: Vec<u32>,
}

impl<T> Slab<T> {
    pub(crate) fn new() -> Slab<T> {
        Slab {
            entries: Vec::new(),
            free: Vec::new(),
        }
    }

    pub(crate) fn insert(&mut self, value: T) -> Key {
        if let Some(slot) = self.free.pop() {
            let entry = &mut self.entries[slot as usize];
            entry.value = Some(value);
            return Key {
                slot,
                generation: entry.generation,
            };
        }
        let slot = u32::try_from(self.entries.len()).expect("fewer than 2^32 requests at a time");
        self.entries.push(Entry {
            generation: 0,
            value: Some(value),
        });
        Key {
            slot,
            generation: 0,
        }
    }

    pub(crate) fn get_mut(&mut self, key: Key) -> Option<&mut T> {
        let entry = self.entries.get_mut(key.slot as usize)?;
        entry
            .value
            .as_mut()
            .filter(|_| entry.generation == key.generation)
    }

    pub(crate) fn remove(&mut self, key: Key) -> Option<T> {
        let entry = self.entries.get_mut(key.slot as usize)?;
        if entry.generation != key.generation {
            return None;
        }
        let value = entry.value.take()?;
        entry.generation = (entry.generation + 1) & GENERATION_MASK;
        self.free.push(key.slot);
        Some(value)
    }

    pub(crate) fn len(&self) -> usize {
        self.entries.len() - self.free.len()
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = (Key, &T)> {
        self.entries.iter().enumerate().filter_map(|(slot, entry)| {
            let slot = u32::try_from(slot).ok()?;
            Some((
                Key {
                    slot,
                    generation: entry.generation,
                },
                entry.value.as_ref()?,
            ))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn removed_key_finds_nothing_after_its_slot_is_reused() {
        let mut slab = Slab::new();
        let old = slab.insert("old");
        assert_eq!(slab.remove(old), Some("old"));
        let new = slab.insert("new");
        assert_eq!(old.slot, new.slot, "the slot is reused");
        assert_eq!(slab.get_mut(old), None);
        assert_eq!(slab.remove(old), None);
        assert_eq!(slab.remove(new), Some("new"));
        assert_eq!(slab.len(), 0);
    }

    #[test]
    fn packed_key_survives_the_bits_above_it() {
        let key = Key {
            slot: 0xdead_beef,
            generation: GENERATION_MASK,
        };
        assert_eq!(Key::unpack(key.pack() | 3 << 62), key);
        assert_eq!(key.pack() >> 62, 0);
    }
}
