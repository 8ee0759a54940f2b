//! A second opinion on in-flight recovery, for split rings: what must be done again after a back end was killed. Written
//! from the vhost-user specification ("Inflight I/O tracking"), slow and plain, and sharing nothing with the code it judges.

use std::collections::{BTreeMap, BTreeSet};

/// What a successor starts with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Plan {
    /// Heads to be submitted again, oldest first.
    pub resubmit: Vec<u16>,
    /// Position of the next element to take from the available ring.
    pub last_avail: u16,
}

/// Why nothing may be concluded from a region.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Refusal {
    /// Written by a layout that is not version 1.
    Version,
    /// Written for another number of descriptors than was agreed on.
    Size,
    /// The ring has moved on by more than a whole round.
    Distance,
    /// The list of the last batch leaves the ring or comes back to itself.
    Batch,
    /// A flag that no writer stores, or for a head that the ring does not have.
    Flag,
}

/// Bytes of one queue's part: a header, then a state for each descriptor, rounded up to a cache line.
pub fn part_len(queue_size: u16) -> usize {
    let states = usize::from(queue_size) * STATE;
    (HEADER + states).div_ceil(64) * 64
}

/// What to do again for a ring of `ring_size` descriptors, from its part of the region (made for `queue_size` descriptors)
/// and from the bytes of its used ring.
///
/// # Errors
/// [`Refusal`].
///
/// # Panics
/// If a slice is too short: a mistake of the test.
pub fn plan(
    part: &[u8],
    queue_size: u16,
    ring_size: u16,
    used_ring: &[u8],
) -> Result<Plan, Refusal> {
    let used_idx = u16_at(used_ring, 2);
    let (version, desc_num) = (u16_at(part, 8), u16_at(part, 10));
    let (last_batch_head, recorded) = (u16_at(part, 12), u16_at(part, 14));
    if version == 0 {
        // Zeros are what the front end hands out: nobody has written here, so nothing was taken.
        return Ok(Plan {
            resubmit: Vec::new(),
            last_avail: used_idx,
        });
    }
    if version != 1 {
        return Err(Refusal::Version);
    }
    if desc_num != queue_size {
        return Err(Refusal::Size);
    }
    let mut states: BTreeMap<u16, State> = (0..queue_size).map(|n| (n, state(part, n))).collect();
    let known = |head: u16| head < ring_size;
    // "Subtract the value of used_idx from the idx value of used ring to get last batch size."
    let distance = (u32::from(used_idx) + 0x1_0000 - u32::from(recorded)) % 0x1_0000;
    if distance > u32::from(ring_size) {
        return Err(Refusal::Distance);
    }
    // "Set the inflight field of each entry to 0 in last batch which starts from last_batch_head."
    let batch = walk(&states, last_batch_head, distance, known)?;
    if states
        .iter()
        .any(|(head, state)| state.inflight > 1 || (state.inflight == 1 && !known(*head)))
    {
        return Err(Refusal::Flag);
    }
    states.retain(|head, state| state.inflight == 1 && !batch.contains(head));
    // "Resubmit inflight entries in order of their counter value."
    let by_age: BTreeSet<(u64, u16)> = states.iter().map(|(n, s)| (s.counter, *n)).collect();
    let resubmit: Vec<u16> = by_age.into_iter().map(|(_, head)| head).collect();
    let taken = u16::try_from(resubmit.len()).expect("at most as many as descriptors");
    Ok(Plan {
        last_avail: used_idx.wrapping_add(taken),
        resubmit,
    })
}

const HEADER: usize = 16;
const STATE: usize = 16;

struct State {
    inflight: u8,
    next: u16,
    counter: u64,
}

fn state(part: &[u8], head: u16) -> State {
    let bytes = &part[HEADER + STATE * usize::from(head)..][..STATE];
    State {
        inflight: bytes[0],
        next: u16_at(bytes, 6),
        counter: u64::from_le_bytes(bytes[8..].try_into().expect("eight bytes are left")),
    }
}

/// The heads of a batch of `len`, from its last to its first.
fn walk(
    states: &BTreeMap<u16, State>,
    from: u16,
    len: u32,
    known: impl Fn(u16) -> bool,
) -> Result<BTreeSet<u16>, Refusal> {
    let (mut seen, mut head) = (BTreeSet::new(), from);
    for _ in 0..len {
        if !known(head) || !seen.insert(head) {
            return Err(Refusal::Batch);
        }
        head = states[&head].next;
    }
    Ok(seen)
}

fn u16_at(bytes: &[u8], at: usize) -> u16 {
    u16::from_le_bytes([bytes[at], bytes[at + 1]])
}
