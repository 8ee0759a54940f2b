//! The two places where queue and guest look past each other unless both have a full barrier: each stores its own word,
//! then loads the other's. A processor lets a load overtake an older store, so without a barrier both can see the old
//! value, and the guest waits for ever. Here the two sides do it at the same moment on two processors, again and again.
#![allow(unsafe_code, clippy::unwrap_used, clippy::cast_possible_truncation)]

use crate::driver::*;
use crate::mem::MemView;
use crate::queue::{Chain, SplitQueue};
use std::hint::{black_box, spin_loop};
use std::sync::atomic::Ordering::{Acquire, Relaxed, Release, SeqCst};
use std::sync::atomic::{AtomicBool, AtomicU16, AtomicU32, AtomicU64, fence};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

/// The two sides try until they have been as close as can be this often, which takes a second or less on a machine that has
/// the processors for it. Without a barrier a small part of that is enough.
const CLOSE: u32 = 20_000;
/// But no longer than this.
const TIME: Duration = Duration::from_secs(15);
const SIZE: u16 = 16;
/// Some microseconds, in turns of an empty loop.
const DELAY_MAX: u32 = 20_000;

const USED_IDX: u64 = USED + 2;
const USED_EVENT: u64 = AVAIL + 4 + 2 * SIZE as u64;
const AVAIL_IDX: u64 = AVAIL + 2;
const AVAIL_EVENT: u64 = USED + 4 + 8 * SIZE as u64;

/// A word of the ring, as the guest's processor uses it.
fn word(view: &MemView, addr: u64) -> &AtomicU16 {
    let at = view.resolve_user(USER_BASE + addr, 2).unwrap();
    // SAFETY: mapped as long as `view` lives, aligned because parts of a ring are, and used through atomics only.
    unsafe { AtomicU16::from_ptr(at.cast()) }
}

/// What the guest does in a round: stores to one word, looks at another.
#[derive(Clone, Copy)]
struct GuestSide {
    stores: u64,
    looks_at: u64,
}

/// How the sides of a round find each other.
#[derive(Default)]
struct Meeting {
    ready: AtomicU32,
    go: AtomicU32,
    /// How long the guest hesitates: as long as makes it hard to say who was first.
    delay: AtomicU32,
    /// The round the guest has ended.
    over: AtomicU32,
    /// What it saw in that round.
    seen: AtomicU16,
    stop: AtomicBool,
}

impl Meeting {
    /// Waits for the other side; false if there will be no more rounds.
    fn wait(&self, word: &AtomicU32, round: u32) -> bool {
        let mut turns = 0u32;
        while word.load(Acquire) != round {
            if self.stop.load(Relaxed) {
                return false;
            }
            turns += 1;
            if turns.is_multiple_of(10_000) {
                std::thread::yield_now();
            }
            spin_loop();
        }
        true
    }

    /// The guest was too early if the device saw its store, and too late otherwise.
    fn aim(&self, saw: bool, round: u32) {
        let (delay, step) = (self.delay.load(Relaxed), 1 + round % 32);
        let next = match saw {
            true => (delay + step).min(DELAY_MAX),
            false => delay.saturating_sub(step),
        };
        self.delay.store(next, Relaxed);
    }

    /// The guest's thread: stores the round's number minus `behind`, and notes what the device has stored.
    fn play(&self, view: &MemView, side: GuestSide, behind: u16) {
        let (mine, theirs) = (word(view, side.stores), word(view, side.looks_at));
        for round in 1.. {
            if !self.wait(&self.ready, round) {
                return;
            }
            // Both have the line the device is about to store to: its store takes time to get through.
            theirs.load(Relaxed);
            self.go.store(round, Release);
            for turn in 0..self.delay.load(Relaxed) {
                black_box(turn);
            }
            mine.store((round as u16).wrapping_sub(behind), Relaxed);
            fence(SeqCst);
            self.seen.store(theirs.load(Relaxed), Relaxed);
            self.over.store(round, Release);
        }
    }
}

/// Runs a duel on a thread that may be bound to a processor, one at a time: it needs two of them.
fn alone(duel: impl FnOnce() + Send) {
    static FLOOR: Mutex<()> = Mutex::new(());
    if std::thread::available_parallelism().map_or(1, usize::from) < 2 {
        eprintln!("skipped: two sides need two processors");
        return;
    }
    let _floor = FLOOR.lock().unwrap_or_else(PoisonError::into_inner);
    std::thread::scope(|scope| {
        scope.spawn(duel);
    });
}

/// Keeps this thread on the first or second processor it may use: on one, the two sides never meet.
fn stay_on(which: usize) {
    // SAFETY: a `cpu_set_t` is plain bits, and both calls are given its size.
    unsafe {
        let (mut all, mut one) = std::mem::zeroed::<(libc::cpu_set_t, libc::cpu_set_t)>();
        libc::sched_getaffinity(0, size_of::<libc::cpu_set_t>(), &raw mut all);
        let mut allowed = (0..1024).filter(|cpu| libc::CPU_ISSET(*cpu, &all));
        let cpu = allowed.nth(which).unwrap();
        libc::CPU_SET(cpu, &mut one);
        libc::sched_setaffinity(0, size_of::<libc::cpu_set_t>(), &raw const one);
    }
}

/// Memory that no cache holds. Stores to it keep younger ones from getting through, and loads overtake them all.
struct Cold {
    words: Vec<AtomicU64>,
    at: usize,
}

impl Cold {
    /// More than caches hold.
    const WORDS: usize = (64 << 20) / 8;
    /// Fewer than a processor keeps under way.
    const STORES: usize = 24;

    fn new() -> Cold {
        let words = (0..Cold::WORDS as u64).map(AtomicU64::new).collect();
        Cold { words, at: 0 }
    }

    fn store(&mut self) {
        for _ in 0..Cold::STORES {
            // Some pages and lines further, so that nobody guesses what comes next.
            self.at = (self.at + 40_507 * 8) % Cold::WORDS;
            self.words[self.at].store(1, Relaxed);
        }
    }
}

/// One queue of heads that are all 0, and its guest on another processor.
struct Duel {
    view: Arc<MemView>,
    queue: SplitQueue,
    chain: Chain,
    cold: Cold,
}

impl Duel {
    fn new() -> Duel {
        let driver = Driver::new(SIZE);
        driver.chain(0, &[(HEADER, 16, 0), (STATUS, 1, WRITE)]);
        Duel {
            view: Arc::clone(&driver.view),
            queue: driver.queue(),
            chain: Chain::new(),
            cold: Cold::new(),
        }
    }

    /// Takes and answers the only request.
    fn answer(&mut self) {
        assert_eq!(self.queue.pop_chain(&mut self.chain), Ok(true));
        self.queue.push(0, 1);
    }

    /// Plays rounds: `prepare`, then `device` and the guest at once. `device` tells whether it saw the guest's store;
    /// `missed` whether what the guest saw is older than the device's.
    fn play(
        &mut self,
        (side, behind): (GuestSide, u16),
        prepare: impl Fn(&mut Duel, u32),
        device: impl Fn(&mut Duel) -> bool,
        missed: impl Fn(u32, u16) -> bool,
    ) {
        let (meeting, view) = (Meeting::default(), Arc::clone(&self.view));
        let end = Instant::now() + TIME;
        std::thread::scope(|scope| {
            scope.spawn(|| {
                stay_on(1);
                meeting.play(&view, side, behind);
            });
            stay_on(0);
            let (mut lost, mut before, mut close) = (None, false, 0);
            for round in 1.. {
                prepare(self, round);
                meeting.ready.store(round, Release);
                meeting.wait(&meeting.go, round);
                self.cold.store();
                let saw = device(self);
                meeting.aim(saw, round);
                close += u32::from(std::mem::replace(&mut before, saw) != saw);
                meeting.wait(&meeting.over, round);
                if !saw && missed(round, meeting.seen.load(Relaxed)) {
                    lost = Some(round);
                }
                let late = round.is_multiple_of(256) && Instant::now() > end;
                if lost.is_some() || close >= CLOSE || late {
                    break;
                }
            }
            meeting.stop.store(true, Relaxed);
            assert_eq!(lost, None, "in this round neither side saw the other");
        });
    }
}

/// The guest asks for an interrupt and looks for answers, while the queue shows an answer and looks for the wish.
#[test]
fn interrupt_is_never_missed_by_both() {
    let guest = GuestSide {
        stores: USED_EVENT,
        looks_at: USED_IDX,
    };
    let prepare = |duel: &mut Duel, round: u32| {
        word(&duel.view, AVAIL_IDX).store(round as u16, Release);
        duel.answer();
    };
    let device = |duel: &mut Duel| duel.queue.publish();
    let missed = |round: u32, seen: u16| seen != round as u16;
    alone(|| Duel::new().play((guest, 1), prepare, device, missed));
}

/// The guest offers a request and looks whether it has to kick, while the queue asks for a kick and looks for requests.
#[test]
fn kick_is_never_missed_by_both() {
    let guest = GuestSide {
        stores: AVAIL_IDX,
        looks_at: AVAIL_EVENT,
    };
    let prepare = |duel: &mut Duel, round: u32| {
        if round > 1 {
            duel.answer();
            duel.queue.publish();
        }
    };
    let device = |duel: &mut Duel| duel.queue.arm().unwrap();
    let missed = |round: u32, seen: u16| seen != (round as u16).wrapping_sub(1);
    alone(|| Duel::new().play((guest, 0), prepare, device, missed));
}
