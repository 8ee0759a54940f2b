//! Two planners, one truth: what holdfast-ring makes of an in-flight region, and what the specification's text makes of it,
//! over many thousands of regions, sound and damaged.
#![allow(clippy::unwrap_used, clippy::cast_possible_truncation)]

use holdfast_ring::{
    Chain, InflightError, InflightMap, InflightSlot, MemRegion, MemView, QueueError, QueueFeatures,
    QueueLayout, RegionSpec, SplitQueue,
};
use holdfast_testkit::planner::{Plan, Refusal, part_len, plan};
use rand::rngs::StdRng;
use rand::seq::SliceRandom;
use rand::{Rng, SeedableRng};
use rustix::fs::{MemfdFlags, memfd_create};
use std::collections::BTreeMap;
use std::fs::File;
use std::os::fd::OwnedFd;
use std::os::unix::fs::FileExt;
use std::sync::Arc;

/// Where the parts of the ring lie in its memory; a ring of 64 descriptors fits.
const DESC: u64 = 0;
const AVAIL: u64 = 2048;
const USED: u64 = 4096;
const RING_BYTES: usize = 8192;

/// A ring and a region of one shape, written anew for each case.
struct Stage {
    queues: u16,
    queue_size: u16,
    ring_size: u16,
    ring: File,
    view: Arc<MemView>,
    region: File,
    map: Arc<InflightMap>,
}

fn memfd(len: u64) -> File {
    let file = File::from(memfd_create("planner", MemfdFlags::CLOEXEC).unwrap());
    file.set_len(len).unwrap();
    file
}

fn owned(file: &File) -> OwnedFd {
    file.try_clone().unwrap().into()
}

impl Stage {
    fn new(queues: u16, queue_size: u16, ring_size: u16) -> Stage {
        let ring = memfd(RING_BYTES as u64);
        let spec = RegionSpec {
            guest_addr: 0,
            user_addr: 0,
            size: RING_BYTES as u64,
            fd_offset: 0,
        };
        let memory = Arc::new(MemRegion::map(spec, owned(&ring), false).unwrap());
        let len = u64::from(queues) * part_len(queue_size) as u64;
        let region = memfd(len);
        let map = InflightMap::map(owned(&region), (0, len), queues, queue_size).unwrap();
        Stage {
            queues,
            queue_size,
            ring_size,
            ring,
            view: Arc::new(MemView::empty().with_region(memory).unwrap()),
            region,
            map: Arc::new(map),
        }
    }

    /// Every head is one readable descriptor, so that any of them can be popped.
    fn write_ring(&self, used_idx: u16, avail_idx: u16) -> Vec<u8> {
        let mut bytes = vec![0; RING_BYTES];
        for head in 0..usize::from(self.ring_size) {
            bytes[16 * head + 8] = 16;
        }
        bytes[AVAIL as usize + 2..][..2].copy_from_slice(&avail_idx.to_le_bytes());
        bytes[USED as usize + 2..][..2].copy_from_slice(&used_idx.to_le_bytes());
        self.ring.write_all_at(&bytes, 0).unwrap();
        bytes.split_off(USED as usize)
    }

    fn region(&self) -> Vec<u8> {
        let mut bytes = vec![0; usize::from(self.queues) * part_len(self.queue_size)];
        self.region.read_exact_at(&mut bytes, 0).unwrap();
        bytes
    }

    fn take_over(&self, index: u16) -> Result<SplitQueue, QueueError> {
        let layout = QueueLayout {
            size: self.ring_size,
            desc: DESC,
            avail: AVAIL,
            used: USED,
        };
        let map = Arc::clone(&self.map);
        let slot = InflightSlot { map, index };
        SplitQueue::with_inflight(
            Arc::clone(&self.view),
            layout,
            QueueFeatures::default(),
            slot,
        )
    }

    /// What the ring's code makes of it, down to the heads that it really pops.
    fn plan_of_ring(&self, index: u16) -> Result<Plan, Refusal> {
        let mut queue = self.take_over(index).map_err(|error| refusal(&error))?;
        let (mut resubmit, mut chain) = (Vec::new(), Chain::new());
        while queue.pop_chain(&mut chain).unwrap() {
            resubmit.push(chain.head());
        }
        Ok(Plan {
            resubmit,
            last_avail: queue.last_avail(),
        })
    }
}

fn refusal(error: &QueueError) -> Refusal {
    match error {
        QueueError::InFlight(InflightError::Version(_)) => Refusal::Version,
        QueueError::InFlight(InflightError::DescNum { .. }) => Refusal::Size,
        QueueError::InFlight(InflightError::UsedIndex { .. }) => Refusal::Distance,
        QueueError::InFlight(InflightError::Batch { .. }) => Refusal::Batch,
        QueueError::InFlight(InflightError::Flag { .. }) => Refusal::Flag,
        other => panic!("not about the region: {other}"),
    }
}

/// A part as a back end leaves it that is killed somewhere between publishing a batch and settling it.
fn sound_part(stage: &Stage, used_idx: u16, random: &mut StdRng) -> Vec<u8> {
    let mut part = vec![0; part_len(stage.queue_size)];
    random.fill(&mut part[..8]);
    let mut heads: Vec<u16> = (0..stage.ring_size).collect();
    heads.shuffle(random);
    let published = random.random_range(0..=heads.len());
    let taken = random.random_range(published..=heads.len());
    let settled = random.random_range(0..=published);
    let mut last = random.random();
    let counter: u64 = random.random::<u64>() >> random.random_range(1..64);
    for (at, head) in heads[..taken].iter().enumerate() {
        let state = &mut part[16 + 16 * usize::from(*head)..][..16];
        // Marks are cleared in the order of the batch; `next` and counter stay behind.
        state[0] = u8::from(at >= settled);
        random.fill(&mut state[1..6]);
        state[8..].copy_from_slice(&(counter + at as u64).to_le_bytes());
        if at < published {
            state[6..8].copy_from_slice(&u16::to_le_bytes(last));
            last = *head;
        }
    }
    let words = [
        1,
        stage.queue_size,
        last,
        used_idx.wrapping_sub(published as u16),
    ];
    for (at, word) in words.into_iter().enumerate() {
        part[8 + 2 * at..][..2].copy_from_slice(&word.to_le_bytes());
    }
    // Sequences of an honest back end never meet, but the order in which heads were taken is not that of answers.
    shuffle_counters(&mut part, &heads[..taken], random);
    part
}

fn shuffle_counters(part: &mut [u8], heads: &[u16], random: &mut StdRng) {
    let at = |head: u16| 16 + 16 * usize::from(head) + 8;
    for a in (1..heads.len()).rev() {
        let b = random.random_range(0..=a);
        for byte in 0..8 {
            part.swap(at(heads[a]) + byte, at(heads[b]) + byte);
        }
    }
}

/// Harm that a hostile or broken front end may do, aimed at one field at a time.
fn damage(part: &mut [u8], ring_size: u16, random: &mut StdRng) {
    let head = usize::from(random.random_range(0..ring_size.next_multiple_of(4)));
    let state = (16 + 16 * head).min(part.len() - 16);
    match random.random_range(0..9) {
        0 => random.fill(&mut part[8..10]),
        1 => random.fill(&mut part[10..12]),
        2 => part[12..14].copy_from_slice(&random.random_range(0..2 * ring_size).to_le_bytes()),
        3 => part[14] = part[14].wrapping_add(random.random_range(0..8)),
        4 => random.fill(&mut part[14..16]),
        5 => part[state] = random.random_range(0..3),
        6 => {
            let next = random.random_range(0..ring_size + 1);
            part[state + 6..state + 8].copy_from_slice(&next.to_le_bytes());
        }
        7 => random.fill(&mut part[state + 8..state + 16]),
        _ => {
            let at = random.random_range(0..part.len());
            part[at] ^= 1 << random.random_range(0..8);
        }
    }
}

#[test]
fn both_planners_agree_on_40000_regions() {
    let mut random = StdRng::seed_from_u64(1);
    let mut tally: BTreeMap<Option<Refusal>, u32> = BTreeMap::new();
    let mut resubmitted = 0;
    for _ in 0..80 {
        let ring_size = 1 << random.random_range(0..7);
        let queue_size = ring_size + [0, 0, 1, 7][random.random_range(0..4)];
        let stage = Stage::new(random.random_range(1..4), queue_size, ring_size);
        for _ in 0..500 {
            let verdict = judge(&stage, &mut random);
            resubmitted += verdict.as_ref().map_or(0, |plan| plan.resubmit.len());
            *tally.entry(verdict.err()).or_default() += 1;
        }
    }
    // The cases are worth something only if all verdicts occur often.
    assert_eq!(tally.len(), 6, "{tally:?}");
    assert!(tally.values().all(|count| *count > 200), "{tally:?}");
    assert!(resubmitted > 20_000, "{resubmitted} heads");
}

fn judge(stage: &Stage, random: &mut StdRng) -> Result<Plan, Refusal> {
    let used_idx = match random.random_range(0..3) {
        0 => random.random_range(0..40),
        1 => random.random_range(65500..=65535),
        _ => random.random(),
    };
    let mut part = sound_part(stage, used_idx, random);
    if random.random_bool(0.1) {
        part.fill(0);
    }
    for _ in 0..random.random_range(0..3) {
        damage(&mut part, stage.ring_size, random);
    }
    let index = random.random_range(0..stage.queues);
    let (offset, len) = (usize::from(index) * part.len(), part.len());
    let mut region = vec![0xa5; usize::from(stage.queues) * len];
    region[offset..][..len].copy_from_slice(&part);
    stage.region.write_all_at(&region, 0).unwrap();
    let used_ring = stage.write_ring(used_idx, 0);
    let expected = plan(&part, stage.queue_size, stage.ring_size, &used_ring);
    // Nothing new is available beyond what was taken, so only what is done again can be popped.
    let avail_idx = expected.as_ref().map_or(used_idx, |plan| plan.last_avail);
    stage.write_ring(used_idx, avail_idx);
    assert_eq!(stage.plan_of_ring(index), expected, "{part:?}");
    let after = stage.region();
    if expected.is_err() {
        assert!(after == region, "a refused region was written to");
    } else {
        // Killed again at once, a third owner has to do the same.
        let part = &after[offset..][..len];
        let again = plan(part, stage.queue_size, stage.ring_size, &used_ring);
        assert_eq!(again, expected, "after recovery");
        assert!(
            after[..offset] == region[..offset],
            "a neighbour's part was written to"
        );
        assert!(after[offset + len..] == region[offset + len..]);
    }
    expected
}
