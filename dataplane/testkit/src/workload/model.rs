//! What each sector may hold: the last change acknowledged, or, where a change failed or left it open, one of several.

use super::report::{Finding, Flaw};
use super::sector::{SECTOR, Seen, Tag};
use std::ops::Range;

/// What a request does to its sectors.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    /// Nothing, but looks at them.
    Read,
    /// Fills them with tags of one sequence number.
    Write,
    /// Nothing; touches no sector.
    Flush,
    /// Leaves old content or zeros.
    Discard,
    /// Leaves zeros.
    WriteZeroes,
}

/// A request in flight, as the model sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Intent {
    /// What it does.
    pub change: Change,
    /// First sector.
    pub first: u64,
    /// Number of sectors; 0 for a flush.
    pub count: u64,
    /// The sequence number of a write.
    pub sequence: u32,
}

impl Intent {
    /// The used length of its answer, if it succeeds (virtio 1.x section 2.7.8): all bytes written, status included.
    pub fn used_len(&self) -> u32 {
        match self.change {
            Change::Read => u32::try_from(self.count * 512 + 1).unwrap_or(u32::MAX),
            _ => 1,
        }
    }
}

/// Something a sector may hold: zeros, or the tag of a write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Value {
    Zeros,
    Write(u32),
}

#[derive(Clone, Debug)]
struct Cell {
    /// What the last acknowledged change left.
    settled: Value,
    /// What it may hold instead: an open change's effect, or what was there before one.
    others: Vec<Value>,
    /// The last write that was read back: if an older one shows up later, it came back.
    seen: Option<u32>,
    /// A request in flight touches it.
    busy: bool,
}

/// The model of a range of sectors.
#[derive(Clone, Debug)]
pub struct Model {
    volume: u32,
    first: u64,
    cells: Vec<Cell>,
    sequence: u32,
}

impl Model {
    /// Sectors that read as zeros.
    pub fn new(volume: u32, sectors: Range<u64>) -> Model {
        let blank = Cell {
            settled: Value::Zeros,
            others: Vec::new(),
            seen: None,
            busy: false,
        };
        let count = usize::try_from(sectors.end - sectors.start).expect("a model fits in memory");
        Model {
            volume,
            first: sectors.start,
            cells: vec![blank; count],
            sequence: 0,
        }
    }

    /// The sectors modelled.
    pub fn sectors(&self) -> Range<u64> {
        self.first..self.first + self.cells.len() as u64
    }

    /// Begins a request; none if another one in flight touches one of its sectors.
    pub fn begin(&mut self, change: Change, first: u64, count: u64) -> Option<Intent> {
        if change == Change::Flush {
            return Some(Intent {
                change,
                first: self.first,
                count: 0,
                sequence: 0,
            });
        }
        let cells = self.cells_mut(first, count);
        if cells.iter().any(|cell| cell.busy) {
            return None;
        }
        cells.iter_mut().for_each(|cell| cell.busy = true);
        self.sequence += u32::from(change == Change::Write);
        Some(Intent {
            change,
            first,
            count,
            sequence: self.sequence,
        })
    }

    /// The bytes of a write.
    pub fn bytes(&self, intent: &Intent) -> Vec<u8> {
        let mut bytes = Vec::new();
        for sector in intent.first..intent.first + intent.count {
            let mut tagged = [0; SECTOR];
            self.tag(sector, intent.sequence).fill(&mut tagged);
            bytes.extend_from_slice(&tagged);
        }
        bytes
    }

    /// The request was not submitted after all.
    pub fn abandon(&mut self, intent: &Intent) {
        self.cells_mut(intent.first, intent.count)
            .iter_mut()
            .for_each(|cell| cell.busy = false);
    }

    /// The request was answered. A failed change may have happened or not, now or at any later time.
    pub fn end(&mut self, intent: &Intent, ok: bool) {
        let effect = match intent.change {
            Change::Write => Some(Value::Write(intent.sequence)),
            Change::WriteZeroes | Change::Discard => Some(Value::Zeros),
            Change::Read | Change::Flush => None,
        };
        let settles = ok && intent.change != Change::Discard;
        for cell in self.cells_mut(intent.first, intent.count) {
            cell.busy = false;
            match effect {
                Some(value) if settles => {
                    cell.settled = value;
                    cell.others.clear();
                }
                Some(value) if !cell.others.contains(&value) => cell.others.push(value),
                _ => {}
            }
        }
    }

    /// Compares what a read returned with what its sectors may hold.
    pub fn verify(&mut self, intent: &Intent, data: &[u8]) -> Vec<Finding> {
        let (sectors, rest) = data.as_chunks::<SECTOR>();
        let mut findings = Vec::new();
        if sectors.len() as u64 != intent.count || !rest.is_empty() {
            let detail = format!(
                "{} bytes read, asked for {} sectors",
                data.len(),
                intent.count
            );
            findings.push(Finding {
                flaw: Flaw::WrongLength,
                sector: intent.first,
                detail,
            });
        }
        for (sector, bytes) in (intent.first..).zip(sectors) {
            findings.extend(self.verify_sector(sector, Seen::read(bytes)));
        }
        findings
    }

    fn verify_sector(&mut self, sector: u64, seen: Seen) -> Option<Finding> {
        let expected = self.tag(sector, 0);
        let cell = &mut self.cells_mut(sector, 1)[0];
        let (value, sequence) = match seen {
            Seen::Zeros => (Value::Zeros, 0),
            Seen::Whole(tag) if Tag { sequence: 0, ..tag } == expected => {
                (Value::Write(tag.sequence), tag.sequence)
            }
            Seen::Whole(_) => return Some(cell.finding(Flaw::Misplaced, sector, seen)),
            Seen::Torn { .. } => return Some(cell.finding(Flaw::Torn, sector, seen)),
            Seen::Corrupt { .. } => return Some(cell.finding(Flaw::Corrupt, sector, seen)),
        };
        if cell.settled == value || cell.others.contains(&value) {
            if let Value::Write(sequence) = value {
                cell.seen = Some(sequence);
            }
            return None;
        }
        // The settled write was read back before, and now an older one is there; or it was never there at all.
        let flaw = match cell.settled {
            Value::Write(settled) if sequence < settled && cell.seen == Some(settled) => {
                Flaw::Reverted
            }
            _ => Flaw::Lost,
        };
        Some(cell.finding(flaw, sector, seen))
    }

    fn tag(&self, sector: u64, sequence: u32) -> Tag {
        // Truncated on purpose: 2^32 sectors are 2 TiB, and a mix-up at exactly that distance has no cause.
        #[allow(clippy::cast_possible_truncation)]
        Tag {
            volume: self.volume,
            sector: sector as u32,
            sequence,
        }
    }

    fn cells_mut(&mut self, first: u64, count: u64) -> &mut [Cell] {
        let at = usize::try_from(first - self.first).expect("inside the model");
        &mut self.cells[at..at + usize::try_from(count).expect("inside the model")]
    }
}

impl Cell {
    fn finding(&self, flaw: Flaw, sector: u64, seen: Seen) -> Finding {
        let detail = match self.others.len() {
            0 => format!("expected {:?}, found {seen:?}", self.settled),
            _ => format!(
                "expected {:?} or one of {:?}, found {seen:?}",
                self.settled, self.others
            ),
        };
        Finding {
            flaw,
            sector,
            detail,
        }
    }
}

#[cfg(test)]
mod tests;
