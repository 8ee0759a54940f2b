//! Our queue against virtio-queue's, on the same random ring images: same chains, same used ring, same notifications.
//!
//! Ours refuses more. The ways are exactly those that [`refused_rightly`] names: wherever ours refuses, virtio-queue either
//! refuses too, cuts the chain short without a word, or hands out what a driver must not send. Everything else is equal.
#![allow(clippy::unwrap_used, clippy::cast_possible_truncation)]

mod driver;
mod image;

use driver::{Desc, INDIRECT, NEXT, SEAM, USER_BASE, WRITE};
use holdfast_ring::{Chain, QueueError, SplitQueue};
use image::{Image, Memory};
use rand::Rng;
use rand::seq::SliceRandom;
use std::collections::BTreeMap;
use std::sync::Arc;
use virtio_queue::{Queue, QueueOwnedT, QueueT};
use vm_memory::{Bytes, GuestAddress};

/// How many images are tried.
const IMAGES: u64 = 120_000;
/// Names one image to try instead, to replay a failure.
const SEED: &str = "HOLDFAST_RING_SEED";

/// How often what happened.
type Tally = BTreeMap<&'static str, u64>;

#[test]
fn random_rings_look_alike_to_both_queues() {
    if let Ok(seed) = std::env::var(SEED) {
        let seed = seed.parse().expect("a seed is a number");
        println!("{:?}", try_images(seed..seed + 1));
        return;
    }
    let half = IMAGES / 2;
    let (first, second) = std::thread::scope(|scope| {
        let first = scope.spawn(|| try_images(0..half));
        let second = scope.spawn(|| try_images(half..IMAGES));
        (first.join().unwrap(), second.join().unwrap())
    });
    let mut tally = first;
    for (what, count) in second {
        *tally.entry(what).or_default() += count;
    }
    println!("{tally:#?}");
    // A test that never meets a kind of ring says nothing about it.
    assert!(tally["chains"] > 4 * IMAGES, "{tally:?}");
    assert!(tally["sound images"] > IMAGES / 2, "{tally:?}");
    for way in WAYS {
        assert!(
            tally.get(way).is_some_and(|&count| count > 50),
            "{way}: {tally:?}"
        );
    }
}

/// Every way in which ours is stricter, or as strict.
const WAYS: [&str; 13] = [
    "avail.idx beyond the ring",
    "avail.idx beyond the room left",
    "head out of range",
    "head repeated",
    "empty descriptor",
    "readable after writable",
    "buffer outside memory",
    "chain of 4 GiB",
    "next out of range",
    "loop",
    "indirect not negotiated",
    "indirect nested or with next",
    "indirect length",
];

fn try_images(seeds: std::ops::Range<u64>) -> Tally {
    let (mut memory, mut tally) = (Memory::new(), Tally::new());
    for seed in seeds {
        let replay = Replay(seed);
        try_image(seed, &mut memory, &mut tally);
        std::mem::forget(replay);
        memory.clear();
    }
    tally
}

/// Says how to try a seed again if the trial panics.
struct Replay(u64);

impl Drop for Replay {
    fn drop(&mut self) {
        let Replay(seed) = self;
        eprintln!("replay: {SEED}={seed} cargo test -p holdfast-ring --test differential");
    }
}

/// One queue, seen twice.
struct Pair {
    image: Image,
    ours: SplitQueue,
    theirs: Queue,
    /// Heads both have popped and not answered.
    outstanding: Vec<u16>,
    /// Whether ours has published before; its first batch is always announced, as its former owner may not have.
    published: bool,
}

fn try_image(seed: u64, memory: &mut Memory, tally: &mut Tally) {
    let mut pair = Pair::new(seed, memory);
    let (spoiled, odd) = (pair.image.random.random_bool(0.35), !seed.is_multiple_of(2));
    // Bound: 4 rounds.
    for round in 0..pair.image.random.random_range(1..=4) {
        pair.image.advance(memory, !spoiled || round == 0 && odd);
        if !pair.pop_all(memory, tally) {
            pair.answer(memory, usize::MAX);
            return;
        }
        let some = pair.image.random.random_range(0..=pair.outstanding.len());
        pair.answer(memory, some);
        pair.compare_arming(memory);
    }
    *tally.entry("sound images").or_default() += 1;
}

impl Pair {
    fn new(seed: u64, memory: &mut Memory) -> Pair {
        let image = Image::new(seed, memory);
        let (layout, start) = (image.layout, image.start);
        let ours =
            SplitQueue::new(Arc::clone(&memory.ours), layout, image.features, start).unwrap();
        let mut theirs = Queue::new(1024).unwrap();
        theirs.set_size(layout.size);
        let low = |addr: u64| Some((addr - USER_BASE) as u32);
        theirs.set_desc_table_address(low(layout.desc), Some(0));
        theirs.set_avail_ring_address(low(layout.avail), Some(0));
        theirs.set_used_ring_address(low(layout.used), Some(0));
        theirs.set_event_idx(image.features.event_idx);
        theirs.set_next_avail(start);
        theirs.set_next_used(start);
        theirs.set_ready(true);
        assert!(theirs.is_valid(&memory.theirs));
        Pair {
            image,
            ours,
            theirs,
            outstanding: Vec::new(),
            published: false,
        }
    }

    /// Pops from both in step; false once ours has refused something, rightly.
    fn pop_all(&mut self, memory: &Memory, tally: &mut Tally) -> bool {
        let mut chain = Chain::new();
        // Bound: the ring holds at most its size of chains.
        loop {
            let popped = self.ours.pop_chain(&mut chain);
            let theirs = match self.theirs.iter(&memory.theirs) {
                Ok(mut iter) => Ok(iter.next().map(|c| (c.head_index(), c.collect::<Vec<_>>()))),
                Err(error) => Err(error.to_string()),
            };
            match (popped, theirs) {
                (Ok(false), Ok(None)) => return true,
                (Ok(true), Ok(Some((head, descs)))) => {
                    assert_eq!(chain.head(), head);
                    let descs: Vec<_> = descs
                        .iter()
                        .map(|d| (d.addr().0, d.len(), d.is_write_only()))
                        .collect();
                    assert_eq!(seen_by_ours(memory, &chain), split_at_seam(&descs));
                    self.outstanding.push(head);
                    *tally.entry("chains").or_default() += 1;
                }
                (Err(error), theirs) => {
                    let theirs = theirs.map(|popped| popped.map(|(head, _)| head));
                    let way = self.refused_rightly(memory, &error, theirs);
                    *tally.entry(way).or_default() += 1;
                    return false;
                }
                (ours, theirs) => panic!("ours {ours:?}, theirs {theirs:?}"),
            }
        }
    }

    /// Answers up to `count` heads in any order and in batches, and compares the used rings byte for byte.
    fn answer(&mut self, memory: &Memory, count: usize) {
        self.outstanding.shuffle(&mut self.image.random);
        let count = count.min(self.outstanding.len());
        let heads: Vec<u16> = self.outstanding.drain(..count).collect();
        for batch in heads.chunks(self.image.random.random_range(1..=8)) {
            for &head in batch {
                let len = self.image.random.random();
                self.ours.push(head, len);
                self.theirs.add_used(&memory.theirs, head, len).unwrap();
                self.image.answered(head);
            }
            let told = self.ours.publish();
            let event = self.theirs.needs_notification(&memory.theirs).unwrap();
            let wanted = match self.image.features.event_idx {
                // virtio-queue does not know the flag and always tells.
                false => !self.image.no_interrupt,
                true => event || !self.published,
            };
            self.published = true;
            assert_eq!(told, wanted, "interrupt");
            self.compare_used(memory);
        }
    }

    fn compare_arming(&mut self, memory: &Memory) {
        self.ours.disarm();
        self.theirs.disable_notification(&memory.theirs).unwrap();
        self.compare_used(memory);
        let more = self.theirs.enable_notification(&memory.theirs).unwrap();
        assert_eq!(self.ours.arm(), Ok(more));
        self.compare_used(memory);
    }

    fn compare_used(&self, memory: &Memory) {
        let at = self.image.layout.used - USER_BASE;
        let len = 6 + 8 * usize::from(self.image.layout.size);
        let (mut ours, mut theirs) = (vec![0; len], vec![0; len]);
        assert!(memory.ours.read(at, &mut ours));
        memory
            .theirs
            .read_slice(&mut theirs, GuestAddress(at))
            .unwrap();
        assert_eq!(ours, theirs, "used rings");
    }

    /// Whether the ring breaks the rule that ours says it breaks; the name of the rule.
    fn refused_rightly(
        &self,
        memory: &Memory,
        error: &QueueError,
        theirs: Result<Option<u16>, String>,
    ) -> &'static str {
        if let QueueError::AvailIndexJumped {
            avail_idx,
            last_avail,
            ..
        } = *error
        {
            let ahead = usize::from(avail_idx.wrapping_sub(last_avail));
            let size = usize::from(self.image.layout.size);
            assert!(ahead > size - self.outstanding.len(), "{error}");
            assert_eq!(ahead > size, theirs.is_err(), "{error}, theirs {theirs:?}");
            return WAYS[usize::from(ahead <= size)];
        }
        let head = theirs
            .expect("virtio-queue refuses only jumps")
            .expect("a head is there");
        let walk = Walk::from(memory, &self.image, head);
        let (way, right) = match *error {
            QueueError::HeadOutOfRange { head: h, .. } => (
                "head out of range",
                h == head && head >= self.image.layout.size,
            ),
            QueueError::HeadRepeated { head: h } => (
                "head repeated",
                h == head && self.outstanding.contains(&head),
            ),
            _ => walk.breaks(error, self.image.features.indirect),
        };
        assert!(right, "{error}: but the chain is {walk:?}");
        way
    }
}

/// The descriptors that a chain leads to, nothing checked.
#[derive(Debug, Default)]
struct Walk {
    /// With each, the size of its table and whether that is an indirect one.
    descs: Vec<(Desc, u32, bool)>,
    looped: bool,
}

impl Walk {
    fn from(memory: &Memory, image: &Image, head: u16) -> Walk {
        let mut walk = Walk::default();
        let (mut table, mut size) = (image.layout.desc - USER_BASE, u32::from(image.layout.size));
        let (mut index, mut indirect, mut hops) = (u32::from(head), false, 0);
        // Bound: leaves a table after as many hops as it has descriptors.
        while index < size && hops < size {
            let Some(desc) = memory.desc(table.wrapping_add(16 * u64::from(index))) else {
                return walk;
            };
            walk.descs.push((desc, size, indirect));
            if desc.2 & INDIRECT != 0 {
                // No queue looks into a table that is in a table, or too long.
                if indirect || desc.1 / 16 > 1024 {
                    return walk;
                }
                (table, size, index, hops, indirect) = (desc.0, desc.1 / 16, 0, 0, true);
                continue;
            }
            if desc.2 & NEXT == 0 {
                return walk;
            }
            (index, hops) = (u32::from(desc.3), hops + 1);
        }
        walk.looped = hops == size;
        walk
    }

    /// Whether the chain breaks the rule that `error` names; the name of the rule.
    fn breaks(&self, error: &QueueError, negotiated: bool) -> (&'static str, bool) {
        let mut tables = self.descs.iter().filter(|(d, ..)| d.2 & INDIRECT != 0);
        let mut buffers = self.descs.iter().filter(|(d, ..)| d.2 & INDIRECT == 0);
        match *error {
            QueueError::EmptyDescriptor { .. } => {
                ("empty descriptor", buffers.any(|(d, ..)| d.1 == 0))
            }
            QueueError::ReadableAfterWritable { .. } => {
                buffers.find(|(d, ..)| d.2 & WRITE != 0);
                (
                    "readable after writable",
                    buffers.any(|(d, ..)| d.2 & WRITE == 0),
                )
            }
            QueueError::BufferOutsideMemory { addr, len, .. } => {
                let named = self.descs.iter().any(|(d, ..)| (d.0, d.1) == (addr, len));
                ("buffer outside memory", named && !is_memory(addr, len))
            }
            QueueError::ChainTooLarge { .. } => {
                let sum: u64 = buffers.map(|(d, ..)| u64::from(d.1)).sum();
                ("chain of 4 GiB", sum > u64::from(u32::MAX))
            }
            QueueError::NextOutOfRange { next, size, .. } => {
                let out = |&&(d, s, _): &&(Desc, u32, bool)| {
                    d.2 & NEXT != 0 && d.3 == next && s == u32::from(size) && next >= size
                };
                ("next out of range", buffers.find(out).is_some())
            }
            QueueError::ChainLoops { .. } => ("loop", self.looped),
            QueueError::IndirectNotNegotiated { .. } => (
                "indirect not negotiated",
                !negotiated && tables.next().is_some(),
            ),
            QueueError::IndirectNested { .. } => (
                "indirect nested or with next",
                tables.any(|&(.., inner)| inner),
            ),
            QueueError::IndirectWithNext { .. } => (
                "indirect nested or with next",
                tables.any(|(d, ..)| d.2 & NEXT != 0),
            ),
            QueueError::IndirectLength { len, .. } => {
                let bad = len == 0 || len % 16 != 0 || len / 16 > 1024;
                ("indirect length", bad && tables.any(|(d, ..)| d.1 == len))
            }
            _ => ("nothing known", false),
        }
    }
}

/// Pieces as virtio-queue would name them: guest address, length, whether the device may write.
fn seen_by_ours(memory: &Memory, chain: &Chain) -> Vec<(u64, u32, bool)> {
    let named =
        |write| move |piece: &libc::iovec| (guest_addr(memory, piece), piece.iov_len as u32, write);
    let readable = chain.readable().iter().map(named(false));
    readable
        .chain(chain.writable().iter().map(named(true)))
        .collect()
}

fn guest_addr(memory: &Memory, piece: &libc::iovec) -> u64 {
    let host = piece.iov_base.addr();
    let inside =
        |start: usize, size: u64| host >= start && host + piece.iov_len <= start + size as usize;
    let region = memory
        .ours
        .regions()
        .iter()
        .find(|r| inside(r.host_addr().addr(), r.spec().size));
    let region = region.expect("a piece in guest memory");
    region.spec().guest_addr + (host - region.host_addr().addr()) as u64
}

/// Ours cuts a buffer where one region ends and the next begins; virtio-queue leaves that to whoever uses it.
fn split_at_seam(descs: &[(u64, u32, bool)]) -> Vec<(u64, u32, bool)> {
    let split = |&(addr, len, write): &(u64, u32, bool)| {
        if addr >= SEAM || addr + u64::from(len) <= SEAM {
            return vec![(addr, len, write)];
        }
        let first = (SEAM - addr) as u32;
        vec![(addr, first, write), (SEAM, len - first, write)]
    };
    descs.iter().flat_map(split).collect()
}

/// Whether all of a range is guest memory, by the table of regions alone.
fn is_memory(addr: u64, len: u32) -> bool {
    let end = u128::from(addr) + u128::from(len);
    let holds = |start: u64, stop: u64| addr >= start && end <= u128::from(stop);
    holds(0, driver::HOLE) || holds(driver::FAR, driver::END)
}
