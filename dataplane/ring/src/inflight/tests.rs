//! A back end is killed before every single store of its life, and a successor must find each request exactly once.
#![allow(unsafe_code, clippy::unwrap_used, clippy::cast_possible_truncation)]

use super::{InflightError, InflightMap, InflightSlot};
use crate::driver::*;
use crate::word::watch;
use crate::{Chain, QueueError, SplitQueue};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use std::cell::RefCell;
use std::fs::File;
use std::os::fd::{FromRawFd, OwnedFd};
use std::os::unix::fs::FileExt;
use std::rc::Rc;
use std::sync::Arc;

const SIZE: u16 = 8;
const RINGS: usize = SEAM as usize;

/// A region for one queue, and the file behind it.
struct Region {
    file: File,
    map: Arc<InflightMap>,
}

impl Region {
    fn of(bytes: &[u8]) -> Region {
        // SAFETY: memfd_create makes a new descriptor, which is owned from here on.
        let file = unsafe {
            let fd = libc::memfd_create(c"inflight".as_ptr(), 0);
            assert!(fd >= 0);
            File::from(OwnedFd::from_raw_fd(fd))
        };
        file.write_all_at(bytes, 0).unwrap();
        let fd = OwnedFd::from(file.try_clone().unwrap());
        let map = InflightMap::map(fd, (0, bytes.len() as u64), 1, SIZE).unwrap();
        Region {
            file,
            map: Arc::new(map),
        }
    }

    fn blank() -> Region {
        Region::of(&vec![0; InflightMap::bytes(1, SIZE).unwrap() as usize])
    }

    fn bytes(&self) -> Vec<u8> {
        let mut bytes = vec![0; InflightMap::bytes(1, SIZE).unwrap() as usize];
        self.file.read_exact_at(&mut bytes, 0).unwrap();
        bytes
    }

    fn queue(&self, driver: &Driver) -> Result<SplitQueue, QueueError> {
        let slot = InflightSlot {
            map: Arc::clone(&self.map),
            index: 0,
        };
        SplitQueue::with_inflight(
            Arc::clone(&driver.view),
            driver.layout(),
            driver.features,
            slot,
        )
    }
}

/// What a kill leaves.
#[derive(Clone, PartialEq)]
struct Wreck {
    rings: Vec<u8>,
    region: Vec<u8>,
    /// Heads in the order they were offered, and in the order they were answered.
    offered: Vec<u16>,
    answered: Vec<u16>,
}

impl Wreck {
    /// Offered and not shown as answered, in the order of offering.
    fn unanswered(&self, used_idx: u16) -> Vec<u16> {
        let mut left = self.offered.clone();
        for head in &self.answered[..usize::from(used_idx)] {
            let at = left.iter().position(|offered| offered == head).unwrap();
            left.remove(at);
        }
        left
    }

    /// A successor takes over and pops everything there is.
    fn recover(&self) -> (Vec<u16>, Vec<u16>) {
        let mut driver = Driver::new(SIZE);
        driver.write(0, &self.rings);
        driver.avail_idx = self.offered.len() as u16;
        let mut queue = Region::of(&self.region).queue(&driver).unwrap();
        let (mut popped, mut chain) = (Vec::new(), Chain::new());
        while queue.pop_chain(&mut chain).unwrap() {
            popped.push(chain.head());
        }
        (popped, self.unanswered(driver.used_idx()))
    }
}

/// A guest and a back end that live until killed.
struct Life {
    driver: Driver,
    region: Region,
    free: Vec<u16>,
    taken: Vec<u16>,
    offered: Vec<u16>,
    answered: Vec<u16>,
}

impl Life {
    fn new() -> Life {
        Life {
            driver: Driver::new(SIZE),
            region: Region::blank(),
            free: (0..SIZE).collect(),
            taken: Vec::new(),
            offered: Vec::new(),
            answered: Vec::new(),
        }
    }

    fn wreck(&self) -> Wreck {
        Wreck {
            rings: self.driver.read::<RINGS>(0).to_vec(),
            region: self.region.bytes(),
            offered: self.offered.clone(),
            answered: self.answered.clone(),
        }
    }
}

/// One random step of guest or back end. Returns false when nothing was left to do.
fn step(life: &Rc<RefCell<Life>>, queue: &mut SplitQueue, rng: &mut StdRng) {
    let choice = rng.random_range(0..4);
    if choice == 0 {
        let mut life = life.borrow_mut();
        if let Some(at) = (!life.free.is_empty()).then(|| rng.random_range(0..life.free.len())) {
            let head = life.free.swap_remove(at);
            life.driver.desc(head, Desc(DATA, 512, WRITE, 0));
            life.driver.offer(head);
            life.offered.push(head);
        }
    } else if choice == 1 {
        let mut chain = Chain::new();
        if queue.pop_chain(&mut chain).unwrap() {
            life.borrow_mut().taken.push(chain.head());
        }
    } else if choice == 2 {
        let head = {
            let mut life = life.borrow_mut();
            if life.taken.is_empty() {
                return;
            }
            let at = rng.random_range(0..life.taken.len());
            let head = life.taken.swap_remove(at);
            life.answered.push(head);
            head
        };
        queue.push(head, 512);
    } else {
        queue.publish();
        let mut life = life.borrow_mut();
        let published = usize::from(queue.used_idx());
        let free: Vec<u16> = (0..SIZE)
            .filter(|head| {
                let offered = life.offered.iter().filter(|h| *h == head).count();
                let shown = life.answered[..published].iter().filter(|h| *h == head);
                offered == shown.count()
            })
            .collect();
        life.free = free;
    }
}

#[test]
fn kill_before_any_store_leaves_every_request_to_be_done_exactly_once() {
    let mut kills = 0;
    for seed in 0..80 {
        let life = Rc::new(RefCell::new(Life::new()));
        let wrecks = Rc::new(RefCell::new(Vec::<Wreck>::new()));
        let (seen, dying) = (Rc::clone(&life), Rc::clone(&wrecks));
        let mut rng = StdRng::seed_from_u64(seed);
        // The guest's own stores go through the same words, but with the life borrowed: those are not ours to die at.
        let witness = move || {
            if let Ok(life) = seen.try_borrow() {
                dying.borrow_mut().push(life.wreck());
            }
        };
        watch::before_each_store(witness, || {
            let mut queue = {
                let life = life.borrow();
                life.region.queue(&life.driver).unwrap()
            };
            for _ in 0..120 {
                step(&life, &mut queue, &mut rng);
            }
        });
        for wreck in wrecks.borrow().iter() {
            let (popped, expected) = wreck.recover();
            assert_eq!(popped, expected, "seed {seed}, kill {kills}");
            kills += 1;
        }
    }
    assert!(kills > 10_000, "only {kills} kills were tried");
}

#[test]
fn kill_during_recovery_changes_nothing() {
    let life = Rc::new(RefCell::new(Life::new()));
    let mut rng = StdRng::seed_from_u64(7);
    let mut queue = {
        let life = life.borrow();
        life.region.queue(&life.driver).unwrap()
    };
    for _ in 0..57 {
        step(&life, &mut queue, &mut rng);
    }
    drop(queue);
    let first = life.borrow().wreck();
    let expected = first.recover();
    let wrecks = Rc::new(RefCell::new(Vec::new()));
    let (seen, dying) = (Rc::clone(&life), Rc::clone(&wrecks));
    let witness = move || dying.borrow_mut().push(seen.borrow().wreck());
    watch::before_each_store(witness, || {
        let life = life.borrow();
        life.region.queue(&life.driver).unwrap()
    });
    let wrecks = wrecks.borrow();
    assert!(!wrecks.is_empty());
    assert!(wrecks.iter().all(|wreck| wreck.recover() == expected));
}

/// Offsets into the part of a queue.
const VERSION: usize = 8;
const DESC_NUM: usize = 10;
const LAST_BATCH_HEAD: usize = 12;
const USED_IDX: usize = 14;
const fn state(head: usize) -> usize {
    16 + 16 * head
}

/// A region as it is after heads 2 and 5 were taken, and a ring that fits it.
fn two_taken() -> (Driver, Vec<u8>) {
    let mut driver = Driver::new(SIZE);
    let region = Region::blank();
    let mut queue = region.queue(&driver).unwrap();
    for head in [5, 2] {
        driver.desc(head, Desc(DATA, 512, WRITE, 0));
        driver.offer(head);
        assert!(queue.pop_chain(&mut Chain::new()).unwrap());
    }
    (driver, region.bytes())
}

#[test]
fn requests_come_back_in_the_order_they_were_taken() {
    let (driver, bytes) = two_taken();
    let mut queue = Region::of(&bytes).queue(&driver).unwrap();
    assert!(queue.arm().unwrap(), "there is work without a kick");
    let mut chain = Chain::new();
    for head in [5, 2] {
        assert!(queue.pop_chain(&mut chain).unwrap());
        assert_eq!(chain.head(), head);
    }
    assert_eq!((queue.outstanding(), queue.last_avail()), (2, 2));
    assert!(!queue.pop_chain(&mut chain).unwrap());
}

#[test]
fn region_never_used_starts_where_the_ring_is() {
    let mut driver = Driver::new(SIZE);
    driver.start_at(65_530);
    let region = Region::blank();
    let queue = region.queue(&driver).unwrap();
    assert_eq!(queue.last_avail(), 65_530);
    let bytes = region.bytes();
    assert_eq!(bytes[VERSION..VERSION + 4], [1, 0, SIZE as u8, 0]);
    assert_eq!(bytes[USED_IDX..USED_IDX + 2], 65_530u16.to_le_bytes());
}

#[test]
fn hostile_region_is_refused_with_its_reason_and_not_touched() {
    type Damage<'a> = (&'a [(usize, u8)], fn(&InflightError) -> bool);
    let damages: &[Damage<'_>] = &[
        (&[(VERSION, 2)], |e| matches!(e, InflightError::Version(2))),
        (&[(DESC_NUM, 7)], |e| {
            matches!(e, InflightError::DescNum { found: 7, .. })
        }),
        (&[(DESC_NUM + 1, 1)], |e| {
            matches!(e, InflightError::DescNum { .. })
        }),
        (&[(USED_IDX, 200)], |e| {
            matches!(e, InflightError::UsedIndex { .. })
        }),
        (&[(USED_IDX + 1, 255)], |e| {
            matches!(e, InflightError::UsedIndex { .. })
        }),
        (
            &[(USED_IDX, 0xff), (USED_IDX + 1, 0xff), (LAST_BATCH_HEAD, 8)],
            |e| matches!(e, InflightError::Batch { head: 8 }),
        ),
        // Two published, and the list runs in a circle.
        (
            &[
                (USED_IDX, 0xfe),
                (USED_IDX + 1, 0xff),
                (LAST_BATCH_HEAD, 3),
                (state(3) + 6, 3),
            ],
            |e| matches!(e, InflightError::Batch { head: 3 }),
        ),
        (&[(state(4), 2)], |e| {
            matches!(e, InflightError::Flag { head: 4, flag: 2 })
        }),
    ];
    for (number, (damage, expected)) in damages.iter().enumerate() {
        let (driver, mut bytes) = two_taken();
        for (at, value) in *damage {
            bytes[*at] = *value;
        }
        let region = Region::of(&bytes);
        match region.queue(&driver) {
            Err(QueueError::InFlight(error)) if expected(&error) => {}
            other => panic!("damage {number}: {:?}", other.map(|_| ())),
        }
        assert!(
            region.bytes() == bytes,
            "damage {number}: the region was changed"
        );
    }
}

#[test]
fn counter_near_its_end_keeps_the_order() {
    let (driver, mut bytes) = two_taken();
    bytes[state(5) + 8..state(5) + 16].copy_from_slice(&(u64::MAX - 1).to_le_bytes());
    bytes[state(2) + 8..state(2) + 16].copy_from_slice(&u64::MAX.to_le_bytes());
    let mut queue = Region::of(&bytes).queue(&driver).unwrap();
    let mut chain = Chain::new();
    assert!(queue.pop_chain(&mut chain).unwrap());
    assert_eq!(chain.head(), 5);
}

#[test]
fn shape_that_nobody_uses_is_refused() {
    for (queues, size) in [(0, 8), (257, 8), (1, 0), (1, 1025)] {
        let error = InflightMap::bytes(queues, size).unwrap_err();
        assert!(matches!(error, InflightError::Shape { .. }), "{error}");
    }
    let file = OwnedFd::from(Region::blank().file);
    let error = InflightMap::map(file, (0, 64), 1, SIZE).unwrap_err();
    assert!(matches!(error, InflightError::TooSmall { .. }), "{error}");
}
