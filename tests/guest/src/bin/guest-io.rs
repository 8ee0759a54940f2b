//! Runs inside a test guest: writes a disk at random, with direct I/O, and verifies every block it reads.
//!
//! Each 4 KiB block holds its own number, a sequence number and bytes that follow from both, so that
//! a lost, torn, misplaced or stale write shows. A ledger at the head of the disk keeps the
//! sequence number of every block, so that `check` can verify the disk after a reboot.
//!
//! `guest-io run DEVICE SECONDS [THREADS]` writes and verifies; `guest-io check DEVICE` verifies all.
//! Built with nothing but the standard library: the guest has no other.
#![forbid(unsafe_code)]

use std::fs::{File, OpenOptions};
use std::io::{self, Seek, SeekFrom};
use std::ops::{AddAssign, Range};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::process::ExitCode;
use std::thread;
use std::time::{Duration, Instant};

const BLOCK: usize = 4096;
/// Blocks under test: 64 MiB, small enough to be checked within a second or two.
const BLOCKS: usize = 16_384;
/// The ledger has 4 bytes for each block, and stands before the blocks.
const LEDGER_BYTES: usize = BLOCKS * 4;
const BLOCKS_PER_REQUEST_MAX: usize = 8;
/// One request in so many is a flush.
const FLUSH_EVERY: u64 = 64;
/// Linux's O_DIRECT on x86-64.
const O_DIRECT: i32 = 0o40_000;
/// What the ledger says of a block whose last write failed: old or new, nobody knows.
const UNKNOWN: u32 = u32::MAX;

/// What was done and what went wrong.
#[derive(Clone, Copy, Debug, Default)]
struct Tally {
    writes: u64,
    reads: u64,
    /// Requests that the device failed.
    errors: u64,
    /// Blocks that held something else than what was written last.
    wrong: u64,
    slowest: Duration,
}

impl AddAssign for Tally {
    fn add_assign(&mut self, other: Tally) {
        self.writes += other.writes;
        self.reads += other.reads;
        self.errors += other.errors;
        self.wrong += other.wrong;
        self.slowest = self.slowest.max(other.slowest);
    }
}

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let tally = match words[..] {
        ["run", device, seconds] => run(device, seconds, "1"),
        ["run", device, seconds, threads] => run(device, seconds, threads),
        ["check", device] => check(device),
        _ => Err(io::Error::other(
            "usage: run DEVICE SECONDS [THREADS] | check DEVICE",
        )),
    };
    match tally {
        Ok(tally) => {
            println!(
                "writes={} reads={} errors={} wrong={} slowest_ms={}",
                tally.writes,
                tally.reads,
                tally.errors,
                tally.wrong,
                tally.slowest.as_millis()
            );
            ExitCode::from(u8::from(tally.errors + tally.wrong > 0))
        }
        Err(error) => {
            println!("guest-io: {error}");
            ExitCode::from(2)
        }
    }
}

fn run(device: &str, seconds: &str, threads: &str) -> io::Result<Tally> {
    let seconds = seconds.parse().map_err(io::Error::other)?;
    let threads = threads
        .parse::<usize>()
        .map_err(io::Error::other)?
        .clamp(1, 64);
    let disk = open(device)?;
    let until = Instant::now() + Duration::from_secs(seconds);
    let mut ledger = vec![0; BLOCKS];
    let mut sum = Tally::default();
    thread::scope(|scope| {
        let mut workers = Vec::new();
        let share = BLOCKS.div_ceil(threads);
        for (number, ledger) in ledger.chunks_mut(share).enumerate() {
            let worker = Worker::new(&disk, number * share, ledger);
            workers.push(scope.spawn(move || worker.run(until)));
        }
        for worker in workers {
            sum += worker.join().unwrap_or_else(|_| Tally {
                errors: 1,
                ..Tally::default()
            });
        }
    });
    store_ledger(&disk, &ledger)?;
    Ok(sum)
}

fn check(device: &str) -> io::Result<Tally> {
    let disk = open(device)?;
    let mut ledger = load_ledger(&disk)?;
    let mut worker = Worker::new(&disk, 0, &mut ledger);
    for first in (0..BLOCKS).step_by(BLOCKS_PER_REQUEST_MAX) {
        worker.read(first..first + BLOCKS_PER_REQUEST_MAX);
    }
    Ok(worker.tally)
}

fn open(device: &str) -> io::Result<File> {
    let mut options = OpenOptions::new();
    let mut disk = options
        .read(true)
        .write(true)
        .custom_flags(O_DIRECT)
        .open(device)?;
    let needed = (LEDGER_BYTES + BLOCKS * BLOCK) as u64;
    let size = disk.seek(SeekFrom::End(0))?;
    if size < needed {
        return Err(io::Error::other(format!(
            "{device} has {size} bytes, {needed} are needed"
        )));
    }
    Ok(disk)
}

fn store_ledger(disk: &File, ledger: &[u32]) -> io::Result<()> {
    let mut buffer = Aligned::new(LEDGER_BYTES);
    for (bytes, sequence) in buffer.bytes().chunks_exact_mut(4).zip(ledger) {
        bytes.copy_from_slice(&sequence.to_le_bytes());
    }
    disk.write_all_at(buffer.bytes(), 0)?;
    disk.sync_all()
}

fn load_ledger(disk: &File) -> io::Result<Vec<u32>> {
    let mut buffer = Aligned::new(LEDGER_BYTES);
    disk.read_exact_at(buffer.bytes(), 0)?;
    let (words, _) = buffer.bytes().as_chunks();
    Ok(words.iter().map(|word| u32::from_le_bytes(*word)).collect())
}

/// One thread's share of the disk.
struct Worker<'a> {
    disk: &'a File,
    /// Number of the first block of the share.
    first: usize,
    /// What each block of the share must hold; 0: never written, anything goes.
    ledger: &'a mut [u32],
    buffer: Aligned,
    random: u64,
    tally: Tally,
}

impl<'a> Worker<'a> {
    fn new(disk: &'a File, first: usize, ledger: &'a mut [u32]) -> Worker<'a> {
        Worker {
            disk,
            first,
            ledger,
            buffer: Aligned::new(BLOCKS_PER_REQUEST_MAX * BLOCK),
            random: first as u64,
            tally: Tally::default(),
        }
    }

    fn run(mut self, until: Instant) -> Tally {
        while Instant::now() < until {
            let length = 1 + self.below(BLOCKS_PER_REQUEST_MAX);
            let first = self.below(self.ledger.len().saturating_sub(length) + 1);
            let blocks = first..(first + length).min(self.ledger.len());
            if self.below(3) == 0 {
                self.read(blocks);
            } else {
                self.write(blocks);
            }
            if self.tally.writes % FLUSH_EVERY == 1 {
                self.timed(|worker| worker.disk.sync_data());
            }
        }
        self.tally
    }

    fn write(&mut self, blocks: Range<usize>) {
        for (slot, index) in blocks.clone().enumerate() {
            let known = self.ledger[index];
            self.ledger[index] = if known == UNKNOWN { 1 << 30 } else { known + 1 };
            let (number, sequence) = (self.first + index, self.ledger[index]);
            fill(self.buffer.block(slot), number, sequence);
        }
        self.tally.writes += 1;
        let written = self.timed(|worker| {
            let place = worker.place(blocks.start);
            worker
                .disk
                .write_all_at(&worker.buffer.bytes()[..blocks.len() * BLOCK], place)
        });
        if !written {
            self.ledger[blocks].fill(UNKNOWN);
        }
    }

    fn read(&mut self, blocks: Range<usize>) {
        self.tally.reads += 1;
        let read = self.timed(|worker| {
            let place = worker.place(blocks.start);
            worker
                .disk
                .read_exact_at(&mut worker.buffer.bytes()[..blocks.len() * BLOCK], place)
        });
        if !read {
            return;
        }
        let mut expected = [0; BLOCK];
        for (slot, index) in blocks.enumerate() {
            let (number, sequence) = (self.first + index, self.ledger[index]);
            if sequence == 0 || sequence == UNKNOWN {
                continue;
            }
            fill(&mut expected, number, sequence);
            if self.buffer.block(slot) != expected {
                self.tally.wrong += 1;
                println!("guest-io: block {number} does not hold its write {sequence}");
            }
        }
    }

    /// Runs a request, counts it if it fails, and notes how long it took.
    fn timed(&mut self, request: impl FnOnce(&mut Self) -> io::Result<()>) -> bool {
        let since = Instant::now();
        let done = request(self);
        self.tally.slowest = self.tally.slowest.max(since.elapsed());
        if let Err(error) = &done {
            self.tally.errors += 1;
            println!("guest-io: {error}");
        }
        done.is_ok()
    }

    fn place(&self, index: usize) -> u64 {
        (LEDGER_BYTES + (self.first + index) * BLOCK) as u64
    }

    fn below(&mut self, limit: usize) -> usize {
        self.random = mixed(self.random);
        usize::try_from(self.random % limit.max(1) as u64).unwrap_or_default()
    }
}

/// The bytes that block `number` holds after its write `sequence`.
fn fill(block: &mut [u8], number: usize, sequence: u32) {
    let mut state = mixed((number as u64) << 32 | u64::from(sequence));
    let (words, _) = block.as_chunks_mut();
    for word in words {
        state = mixed(state);
        *word = state.to_le_bytes();
    }
}

/// A step of the splitmix64 generator: any two states give unrelated numbers.
fn mixed(state: u64) -> u64 {
    let mut z = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

/// Bytes that begin at a multiple of a block, as direct I/O demands.
struct Aligned {
    raw: Vec<u8>,
    start: usize,
    length: usize,
}

impl Aligned {
    fn new(length: usize) -> Aligned {
        let raw = vec![0; length + BLOCK];
        let start = raw.as_ptr().align_offset(BLOCK);
        Aligned { raw, start, length }
    }

    fn bytes(&mut self) -> &mut [u8] {
        &mut self.raw[self.start..self.start + self.length]
    }

    fn block(&mut self, slot: usize) -> &mut [u8] {
        &mut self.bytes()[slot * BLOCK..(slot + 1) * BLOCK]
    }
}
