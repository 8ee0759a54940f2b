//! Random ring images: what a driver, or somebody who plays one badly, leaves in guest memory. Written alike into the memory
//! of both implementations, so that a seed alone says what they saw.
#![allow(unreachable_pub, clippy::unwrap_used, clippy::cast_possible_truncation)]

use crate::driver::{Desc, END, FAR, HOLE, INDIRECT, NEXT, REGIONS, SEAM, USER_BASE, WRITE};
use holdfast_ring::{MemRegion, MemView, QueueFeatures, QueueLayout};
use rand::rngs::SmallRng;
use rand::seq::SliceRandom;
use rand::{Rng, SeedableRng};
use std::sync::Arc;
use vm_memory::{Bytes, GuestAddress, GuestMemoryMmap};

/// The same bytes twice: once for our queue, once for virtio-queue.
pub struct Memory {
    pub ours: Arc<MemView>,
    pub theirs: GuestMemoryMmap,
    written: Vec<(u64, usize)>,
}

impl Memory {
    pub fn new() -> Memory {
        let add = |view: MemView, spec| {
            let region = MemRegion::anonymous(spec).unwrap();
            view.with_region(Arc::new(region)).unwrap()
        };
        let ranges = REGIONS.map(|spec| (GuestAddress(spec.guest_addr), spec.size as usize));
        Memory {
            ours: Arc::new(REGIONS.into_iter().fold(MemView::empty(), add)),
            theirs: GuestMemoryMmap::from_ranges(&ranges).unwrap(),
            written: Vec::new(),
        }
    }

    pub fn write(&mut self, addr: u64, bytes: &[u8]) {
        assert!(self.ours.write(addr, bytes));
        self.theirs.write_slice(bytes, GuestAddress(addr)).unwrap();
        self.written.push((addr, bytes.len()));
    }

    /// Zeroes what was written since the last call.
    pub fn clear(&mut self) {
        for (addr, len) in std::mem::take(&mut self.written) {
            self.write(addr, &vec![0; len]);
        }
        self.written.clear();
    }

    /// The descriptor at an address, if it is memory.
    pub fn desc(&self, addr: u64) -> Option<Desc> {
        let mut bytes = [0; 16];
        if !self.ours.read(addr, &mut bytes) {
            return None;
        }
        let half = |at: usize| u64::from_le_bytes(std::array::from_fn(|i| bytes[at + i]));
        let rest = half(8);
        Some(Desc(
            half(0),
            rest as u32,
            (rest >> 32) as u16,
            (rest >> 48) as u16,
        ))
    }
}

/// A ring under way: where it lies, what was negotiated, and what the driver knows.
pub struct Image {
    pub layout: QueueLayout,
    pub features: QueueFeatures,
    pub start: u16,
    pub no_interrupt: bool,
    /// Descriptors that no chain uses, in the order in which they will be taken.
    free: Vec<u16>,
    /// Which descriptors each head holds.
    held: Vec<Vec<u16>>,
    avail_idx: u16,
    next_table: u64,
    pub random: SmallRng,
}

/// Indirect tables are laid here one after the other: across the seam of two regions.
const TABLES: u64 = SEAM - 0x1800;
const TABLES_END: u64 = SEAM + 0x4000;

/// What one round adds to the ring before it is written: descriptors by index, tables, heads.
#[derive(Default)]
struct Round {
    descs: Vec<(u16, Desc)>,
    tables: Vec<(u64, Vec<Desc>)>,
    heads: Vec<u16>,
    jump: u16,
}

impl Image {
    pub fn new(seed: u64, memory: &mut Memory) -> Image {
        let mut random = SmallRng::seed_from_u64(seed);
        let size = 1u16 << random.random_range(0..=8);
        let layout = QueueLayout {
            size,
            desc: USER_BASE + 16 * random.random_range(0..0x100),
            avail: USER_BASE + 0x4000 + 2 * random.random_range(0..0x100),
            used: USER_BASE + 0x5000 + 4 * random.random_range(0..0x100),
        };
        let features = QueueFeatures {
            event_idx: random.random(),
            indirect: random.random_bool(0.8),
        };
        // Often close to where positions wrap.
        let start = if random.random() {
            random.random_range(65000..=65535)
        } else {
            random.random()
        };
        let mut free: Vec<u16> = (0..size).collect();
        free.shuffle(&mut random);
        let image = Image {
            layout,
            features,
            start,
            no_interrupt: random.random(),
            free,
            held: vec![Vec::new(); usize::from(size)],
            avail_idx: start,
            next_table: TABLES,
            random,
        };
        image.write_fixed(memory);
        image
    }

    fn write_fixed(&self, memory: &mut Memory) {
        let size = usize::from(self.layout.size);
        let mut avail = vec![0; 6 + 2 * size];
        avail[0] = u8::from(self.no_interrupt && !self.features.event_idx);
        avail[2..4].copy_from_slice(&self.start.to_le_bytes());
        let mut used = vec![0; 6 + 8 * size];
        used[2..4].copy_from_slice(&self.start.to_le_bytes());
        memory.write(self.layout.desc - USER_BASE, &vec![0; 16 * size]);
        memory.write(self.layout.avail - USER_BASE, &avail);
        memory.write(self.layout.used - USER_BASE, &used);
    }

    /// Makes some chains available; mostly sound ones if `sound`.
    pub fn advance(&mut self, memory: &mut Memory, sound: bool) {
        let mut round = Round::default();
        // Bound: each chain takes at least one free descriptor.
        for _ in 0..self.random.random_range(0..=8) {
            if self.free.is_empty() {
                break;
            }
            self.add_chain(&mut round);
        }
        if !sound {
            for _ in 0..self.random.random_range(1..=2) {
                self.spoil(&mut round);
            }
        }
        self.write_round(&round, memory);
    }

    fn write_round(&mut self, round: &Round, memory: &mut Memory) {
        let (size, avail) = (self.layout.size, self.layout.avail - USER_BASE);
        for (index, desc) in &round.descs {
            let at = self.layout.desc - USER_BASE + 16 * u64::from(*index);
            memory.write(at, &desc.bytes());
        }
        for (at, descs) in &round.tables {
            let bytes: Vec<u8> = descs.iter().flat_map(|desc| desc.bytes()).collect();
            memory.write(*at, &bytes);
        }
        for head in &round.heads {
            let slot = u64::from(self.avail_idx % size);
            memory.write(avail + 4 + 2 * slot, &head.to_le_bytes());
            self.avail_idx = self.avail_idx.wrapping_add(1);
        }
        let shown = self.avail_idx.wrapping_add(round.jump);
        memory.write(avail + 2, &shown.to_le_bytes());
        let event: u16 = match self.random.random_range(0..3) {
            0 => self.random.random(),
            _ => self.start.wrapping_add(self.random.random_range(0..32)),
        };
        memory.write(avail + 4 + 2 * u64::from(size), &event.to_le_bytes());
    }

    fn add_chain(&mut self, round: &mut Round) {
        let pieces = self.random.random_range(1..=6).min(self.free.len());
        let readable = self.random.random_range(0..=pieces);
        let mut descs: Vec<Desc> = (0..pieces)
            .map(|i| {
                let (addr, len) = self.buffer();
                Desc(addr, len, if i < readable { 0 } else { WRITE }, 0)
            })
            .collect();
        if self.features.indirect && self.random.random_bool(0.5) {
            let direct = self.random.random_range(0..pieces);
            let table = descs.split_off(direct);
            descs.push(self.add_table(table, round));
        }
        let taken = self.free.split_off(self.free.len() - descs.len());
        for (i, desc) in descs.iter_mut().enumerate() {
            if let Some(&next) = taken.get(i + 1) {
                (desc.2, desc.3) = (desc.2 | NEXT, next);
            }
            round.descs.push((taken[i], *desc));
        }
        let head = taken[0];
        round.heads.push(head);
        self.held[usize::from(head)] = taken;
    }

    /// Puts descriptors into an indirect table, in any order, linked; returns the descriptor that names it.
    fn add_table(&mut self, descs: Vec<Desc>, round: &mut Round) -> Desc {
        let len = (descs.len() + self.random.random_range(0..4)) as u64;
        if self.next_table + 16 * len + 16 > TABLES_END {
            self.next_table = TABLES;
        }
        // Tables need no alignment.
        let at = self.next_table + self.random.random_range(0..16);
        self.next_table = at + 16 * len;
        let mut order: Vec<u16> = (1..len as u16).collect();
        order.shuffle(&mut self.random);
        order.insert(0, 0);
        let mut table = vec![Desc(0, 0, 0, 0); len as usize];
        for (i, mut desc) in descs.iter().copied().enumerate() {
            if i + 1 < descs.len() {
                (desc.2, desc.3) = (desc.2 | NEXT, order[i + 1]);
            }
            table[usize::from(order[i])] = desc;
        }
        round.tables.push((at, table));
        // The write flag of a descriptor that names a table means nothing.
        let flags = INDIRECT | if self.random.random() { WRITE } else { 0 };
        Desc(at, 16 * len as u32, flags, 0)
    }

    /// A range of guest memory: anywhere, across the seam, or to the last byte.
    fn buffer(&mut self) -> (u64, u32) {
        let (start, end) = if self.random.random_bool(0.7) {
            (0, HOLE)
        } else {
            (FAR, END)
        };
        let addr = match self.random.random_range(0..8) {
            0 => SEAM - self.random.random_range(1..64),
            1 => end - self.random.random_range(1..64),
            _ => self.random.random_range(start..end),
        };
        let end = if addr < HOLE { HOLE } else { END };
        let most = if self.random.random_bool(0.1) {
            end - addr
        } else {
            4096.min(end - addr)
        };
        (addr, self.random.random_range(1..=most) as u32)
    }

    /// Breaks something: a descriptor, a table, the available ring.
    fn spoil(&mut self, round: &mut Round) {
        let (size, random) = (self.layout.size, &mut self.random);
        match random.random_range(0..20) {
            0 => round.jump = random.random(),
            1 => round.jump = random.random_range(1..=size),
            2 => {
                if let Some(head) = pick(random, &mut round.heads) {
                    // The first index that is too large is the likeliest to slip through.
                    *head = if random.random() {
                        size
                    } else {
                        random.random_range(size..=u16::MAX)
                    };
                }
            }
            3 => {
                if let Some(head) = pick(random, &mut round.heads) {
                    *head = random.random_range(0..size);
                }
            }
            4..=11 => {
                if let Some((_, desc)) = pick(random, &mut round.descs) {
                    spoil_desc(random, desc, size);
                }
            }
            _ => {
                if let Some((_, table)) = pick(random, &mut round.tables) {
                    let len = table.len() as u16;
                    if let Some(desc) = pick(random, table) {
                        spoil_desc(random, desc, len);
                    }
                }
            }
        }
    }

    /// The device has answered this head; its descriptors are free again.
    pub fn answered(&mut self, head: u16) {
        let held = std::mem::take(&mut self.held[usize::from(head)]);
        self.free.extend(held);
        self.free.shuffle(&mut self.random);
    }
}

fn pick<'a, T>(random: &mut SmallRng, list: &'a mut [T]) -> Option<&'a mut T> {
    let len = list.len();
    if len == 0 {
        return None;
    }
    list.get_mut(random.random_range(0..len))
}

fn spoil_desc(random: &mut SmallRng, desc: &mut Desc, size: u16) {
    match random.random_range(0..13) {
        0 => desc.0 = random.random_range(HOLE..FAR),
        1 => desc.0 = u64::MAX - random.random_range(0..64),
        2 => desc.0 = END - random.random_range(0..16),
        3 => desc.1 = 0,
        4 => desc.1 = u32::MAX - random.random_range(0..64),
        5 => desc.2 ^= INDIRECT,
        6 => desc.2 ^= WRITE,
        7 => desc.2 ^= NEXT,
        8 => (desc.2, desc.3) = (desc.2 | NEXT, random.random_range(0..size)),
        9 => (desc.2, desc.3) = (desc.2 | NEXT, random.random()),
        10 => (desc.2, desc.3) = (desc.2 | NEXT, size),
        11 => desc.1 = desc.1.wrapping_add(random.random_range(1..32)),
        _ => {
            let [addr, rest]: [u64; 2] = random.random();
            *desc = Desc(addr, rest as u32, (rest >> 32) as u16, (rest >> 48) as u16);
        }
    }
}
