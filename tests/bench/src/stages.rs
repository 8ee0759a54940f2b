//! What the stages of a request cost inside the ring room: time, and instructions, which are the same on any day.

use anyhow::{Context, ensure};
use holdfast_ring::blk::{Kind, Limits, Request, Status};
use holdfast_ring::{
    Chain, MemRegion, MemView, QueueFeatures, QueueLayout, RegionSpec, SplitQueue,
};
use std::process::Command;
use std::time::Instant;

/// How far a request is taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Stage {
    /// The driver's side alone: requests are written into the ring.
    Driver,
    /// Also popped: head, descriptors, and guest addresses made host addresses.
    Pop,
    /// Also understood: header, limits, where the data is.
    Parse,
    /// Also answered: status, used element, one used index for the batch.
    Complete,
}

const SIZE: u16 = 256;
const USER: u64 = 0x7000_0000;
const DESC: u64 = 0;
const AVAIL: u64 = 0x2000;
const USED: u64 = 0x3000;
const REQUESTS: u64 = 0x1_0000;

/// A ring that this thread serves from both sides.
struct Bench {
    view: MemView,
    queue: SplitQueue,
    requests: Vec<Request>,
    chains: Vec<Chain>,
    avail: u16,
    batch: u16,
}

impl Bench {
    fn new(batch: u16) -> anyhow::Result<Bench> {
        let spec = RegionSpec {
            guest_addr: 0,
            user_addr: USER,
            size: 4 << 20,
            fd_offset: 0,
        };
        let view = MemView::empty().with_region(MemRegion::anonymous(spec)?.into())?;
        let layout = QueueLayout {
            size: SIZE,
            desc: USER + DESC,
            avail: USER + AVAIL,
            used: USER + USED,
        };
        let features = QueueFeatures {
            event_idx: true,
            indirect: true,
        };
        let queue = SplitQueue::new(view.clone().into(), layout, features, 0)?;
        let mut bench = Bench {
            view,
            queue,
            requests: (0..batch).map(|_| Request::new()).collect(),
            chains: (0..batch).map(|_| Chain::new()).collect(),
            avail: 0,
            batch,
        };
        (0..batch).try_for_each(|head| bench.format(head))?;
        Ok(bench)
    }

    /// Header, 4 KiB and status in an indirect table, as Linux sends a read.
    fn format(&mut self, head: u16) -> anyhow::Result<()> {
        let at = REQUESTS + u64::from(head) * 0x2000;
        let (header, status, data) = (at + 48, at + 64, at + 0x1000);
        let table = [
            desc(header, 16, 1, 1),
            desc(data, 4096, 1 | 2, 2),
            desc(status, 1, 2, 0),
        ];
        self.write(at, table.as_flattened())?;
        self.write(header, &[0; 16])?;
        self.write(DESC + 16 * u64::from(head), &desc(at, 48, 4, 0))
    }

    fn write(&self, at: u64, bytes: &[u8]) -> anyhow::Result<()> {
        ensure!(
            self.view.write(at, bytes),
            "outside the memory of the benchmark"
        );
        Ok(())
    }

    /// One batch, taken as far as `stage`.
    fn turn(&mut self, stage: Stage, limits: &Limits) -> anyhow::Result<()> {
        for head in 0..self.batch {
            let slot = u64::from((self.avail + head) % SIZE);
            self.write(AVAIL + 4 + 2 * slot, &head.to_le_bytes())?;
        }
        self.avail = self.avail.wrapping_add(self.batch);
        self.write(AVAIL + 2, &self.avail.to_le_bytes())?;
        match stage {
            Stage::Driver => return Ok(()),
            Stage::Pop => {
                for chain in &mut self.chains {
                    ensure!(self.queue.pop_chain(chain)?, "the ring is empty");
                }
                // Not answered in earnest: only taken off the list of what is under way.
                let heads = self.chains.iter().map(Chain::head);
                heads.for_each(|head| self.queue.push(head, 0));
            }
            Stage::Parse | Stage::Complete => {
                for request in &mut self.requests {
                    ensure!(self.queue.pop(request, limits)?, "the ring is empty");
                    ensure!(request.kind() == Kind::In, "a read is a read");
                }
                for request in &mut self.requests {
                    let head = request.head();
                    let len = match stage {
                        Stage::Complete => request.finish(Status::Ok),
                        _ => 0,
                    };
                    self.queue.push(head, len);
                }
            }
        }
        self.queue.publish();
        Ok(())
    }
}

fn desc(addr: u64, len: u32, flags: u16, next: u16) -> [u8; 16] {
    let mut bytes = [0; 16];
    bytes[..8].copy_from_slice(&addr.to_le_bytes());
    bytes[8..12].copy_from_slice(&len.to_le_bytes());
    bytes[12..14].copy_from_slice(&flags.to_le_bytes());
    bytes[14..].copy_from_slice(&next.to_le_bytes());
    bytes
}

fn limits() -> Limits {
    Limits {
        seg_max: 254,
        size_max: u32::MAX,
        max_discard_sectors: 0,
        max_discard_seg: 0,
        max_write_zeroes_sectors: 0,
        max_write_zeroes_seg: 0,
        block_size: 512,
        capacity_bytes: 1 << 30,
        read_only: false,
        discard: false,
        write_zeroes: false,
        flush: true,
    }
}

/// Takes `requests` requests as far as `stage`; nanoseconds for each.
pub(crate) fn run(stage: Stage, batch: u16, requests: u32) -> anyhow::Result<f64> {
    let (mut bench, limits) = (Bench::new(batch)?, limits());
    let start = Instant::now();
    for _ in 0..requests / u32::from(batch) {
        bench.turn(stage, &limits)?;
    }
    Ok(start.elapsed().as_secs_f64() * 1e9 / f64::from(requests))
}

const STAGES: [Stage; 4] = [Stage::Driver, Stage::Pop, Stage::Parse, Stage::Complete];
const BATCHES: [u16; 3] = [1, 8, 32];
const ROUNDS: usize = 11;
const REQUESTS_TIMED: u32 = 320_000;
const REQUESTS_COUNTED: u32 = 32_000;

/// The table of all stages: each costs what it adds to the one before.
pub(crate) fn table() -> anyhow::Result<String> {
    let mut text =
        String::from("| batch | stage | ns | instructions |\n| --- | --- | --- | --- |\n");
    for batch in BATCHES {
        let (mut time_before, mut count_before) = (0.0, Some(0.0));
        for stage in STAGES {
            let mut times = Vec::new();
            for _ in 0..ROUNDS {
                times.push(run(stage, batch, REQUESTS_TIMED)?);
            }
            let time = crate::figures::Middle::of(times.into_iter());
            let time = time.context("eleven rounds were run")?.median;
            let count = instructions(stage, batch).ok();
            let added = count.zip(count_before).map(|(now, before)| now - before);
            let added = added.map_or("-".to_owned(), |count| format!("{count:.0}"));
            let (name, ns) = (format!("{stage:?}").to_lowercase(), time - time_before);
            text.push_str(&format!("| {batch} | {name} | {ns:.1} | {added} |\n"));
            (time_before, count_before) = (time, count);
        }
    }
    Ok(text)
}

/// Instructions for each request, by callgrind: what twice as many requests take more.
fn instructions(stage: Stage, batch: u16) -> anyhow::Result<f64> {
    let count = |requests: u32| {
        let mut valgrind = Command::new("valgrind");
        valgrind.args(["--tool=callgrind", "--callgrind-out-file=/dev/null"]);
        valgrind
            .arg(std::env::current_exe()?)
            .args(["ring", "--stage"]);
        valgrind.arg(format!("{stage:?}").to_lowercase());
        valgrind.args([
            "--batch",
            &batch.to_string(),
            "--requests",
            &requests.to_string(),
        ]);
        let said = String::from_utf8_lossy(&valgrind.output()?.stderr).into_owned();
        let line = said
            .lines()
            .find_map(|line| line.split_once("Collected : "));
        let number = line.context("callgrind did not run")?.1.trim();
        anyhow::Ok(number.parse::<u64>()?)
    };
    let (once, twice) = (count(REQUESTS_COUNTED)?, count(2 * REQUESTS_COUNTED)?);
    Ok((twice - once) as f64 / f64::from(REQUESTS_COUNTED))
}
