//! What a workload did, and everything it found wrong.

use super::Change;
use std::fmt;

/// A way in which a device can betray its guest.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Flaw {
    /// Bytes that nobody wrote.
    Corrupt,
    /// Parts of two writes in one sector.
    Torn,
    /// Another sector's content, or another volume's.
    Misplaced,
    /// An acknowledged change is not there.
    Lost,
    /// An acknowledged write was there, and then an older one came back.
    Reverted,
    /// A request was answered twice.
    Repeated,
    /// A used length or amount of data that does not fit the request.
    WrongLength,
}

/// One thing found wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// What kind.
    pub flaw: Flaw,
    /// At which sector; 0 if that means nothing.
    pub sector: u64,
    /// Expected and found.
    pub detail: String,
}

impl Finding {
    pub(crate) fn repeated(queue: usize, head: u32) -> Finding {
        let detail = format!("queue {queue}: head {head} was used and is not outstanding");
        Finding {
            flaw: Flaw::Repeated,
            sector: 0,
            detail,
        }
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{:?} at sector {}: {}",
            self.flaw, self.sector, self.detail
        )
    }
}

/// Counts of what was done, and findings.
#[derive(Clone, Debug, Default)]
pub struct Report {
    /// Reads submitted.
    pub reads: u64,
    /// Writes submitted.
    pub writes: u64,
    /// Flushes submitted.
    pub flushes: u64,
    /// Discards submitted.
    pub discards: u64,
    /// Write-zeroes submitted.
    pub write_zeroes: u64,
    /// Requests answered with success.
    pub succeeded: u64,
    /// Requests answered with an error status.
    pub failed: u64,
    /// Sectors read back and compared.
    pub sectors_verified: u64,
    /// How many things were found wrong.
    pub flaws: u64,
    /// The first of them.
    pub findings: Vec<Finding>,
}

/// More findings than this help nobody.
const FINDINGS_KEPT: usize = 32;

impl Report {
    /// Requests submitted.
    pub fn submitted(&self) -> u64 {
        self.reads + self.writes + self.flushes + self.discards + self.write_zeroes
    }

    /// Whether every request succeeded and nothing was found wrong.
    pub fn is_clean(&self) -> bool {
        self.failed == 0 && self.flaws == 0
    }

    /// # Panics
    /// With all findings, unless [`is_clean`](Self::is_clean). For tests.
    #[track_caller]
    pub fn assert_clean(&self) {
        assert!(self.is_clean(), "{self}");
    }

    /// How many of the findings kept are of this kind.
    pub fn found(&self, flaw: Flaw) -> usize {
        self.findings
            .iter()
            .filter(|finding| finding.flaw == flaw)
            .count()
    }

    pub(crate) fn count(&mut self, change: Change) {
        *match change {
            Change::Read => &mut self.reads,
            Change::Write => &mut self.writes,
            Change::Flush => &mut self.flushes,
            Change::Discard => &mut self.discards,
            Change::WriteZeroes => &mut self.write_zeroes,
        } += 1;
    }

    pub(crate) fn answered(&mut self, ok: bool) {
        *if ok {
            &mut self.succeeded
        } else {
            &mut self.failed
        } += 1;
    }

    pub(crate) fn verified(&mut self, sectors: u64) {
        self.sectors_verified += sectors;
    }

    pub(crate) fn find(&mut self, finding: Finding) {
        self.flaws += 1;
        if self.findings.len() < FINDINGS_KEPT {
            self.findings.push(finding);
        }
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} reads, {} writes, {} flushes, {} discards, {} write-zeroes; {} ok, {} failed; \
             {} sectors verified; {} flaws",
            self.reads,
            self.writes,
            self.flushes,
            self.discards,
            self.write_zeroes,
            self.succeeded,
            self.failed,
            self.sectors_verified,
            self.flaws
        )?;
        self.findings
            .iter()
            .try_for_each(|finding| write!(f, "\n  {finding}"))
    }
}
