//! What is measured on every medium.

use crate::peers::{DEVICE_BYTES, Medium};
use holdfast_testkit::load::{Pattern, Wait};

/// A way to load a disk.
#[derive(Clone, Debug)]
pub(crate) struct Case {
    /// As in `randread-32`.
    pub(crate) name: String,
    pub(crate) pattern: Pattern,
    pub(crate) wait: Wait,
}

impl Case {
    fn new(kind: &str, depth: u16, reads_percent: u8) -> Case {
        Case {
            name: format!("{kind}-{depth}"),
            pattern: Pattern {
                depth,
                bytes: 4096,
                reads_percent,
                sequential: false,
                span_bytes: DEVICE_BYTES,
            },
            wait: Wait::Poll,
        }
    }

    fn sequential(kind: &str, reads_percent: u8) -> Case {
        let mut case = Case::new(kind, 8, reads_percent);
        case.pattern.bytes = 128 << 10;
        case.pattern.sequential = true;
        case
    }

    /// 4 KiB, one after the other, as a log is written.
    fn following(kind: &str, reads_percent: u8) -> Case {
        let mut case = Case::new(kind, 32, reads_percent);
        case.pattern.sequential = true;
        case
    }

    fn interrupted(depth: u16) -> Case {
        Case {
            wait: Wait::Interrupt,
            ..Case::new("intr-randread", depth, 100)
        }
    }

    /// What the targets of a medium need, or everything.
    pub(crate) fn of(medium: Medium, quick: bool) -> Vec<Case> {
        let mut cases = Vec::new();
        for depth in [1, 8, 32, 128] {
            if quick && (depth == 8 || (depth == 128 && medium == Medium::Malloc)) {
                continue;
            }
            cases.push(Case::new("randread", depth, 100));
            if !quick || (medium == Medium::Disk && depth == 32) {
                cases.push(Case::new("randwrite", depth, 0));
                cases.push(Case::new("mixed70", depth, 70));
            }
        }
        if !quick {
            cases.push(Case::sequential("read128k", 100));
            cases.push(Case::sequential("write128k", 0));
            if medium == Medium::Disk {
                cases.push(Case::following("seqread", 100));
                cases.push(Case::following("seqwrite", 0));
            }
            cases.push(Case::interrupted(1));
            cases.push(Case::interrupted(32));
        }
        cases
    }

    /// 4 KiB anywhere, from a polling guest.
    pub(crate) fn random_reads(depth: u16) -> Case {
        Case::new("randread", depth, 100)
    }

    /// Whether it is one of those, at any depth.
    pub(crate) fn is_random_reads(&self) -> bool {
        self.name.starts_with("randread-")
    }

    /// Writes every block of the device once: what was never written is read faster than any data.
    pub(crate) fn filling() -> Case {
        Case::sequential("write128k", 0)
    }
}
