//! A disk is damaged by hand in every way that the workload claims to notice.

use super::*;

/// A disk the size of the model, to be damaged by hand.
struct Disk {
    model: Model,
    bytes: Vec<u8>,
}

impl Disk {
    fn new() -> Disk {
        Disk {
            model: Model::new(7, 100..116),
            bytes: vec![0; 16 * SECTOR],
        }
    }

    fn at(first: u64, count: u64) -> Range<usize> {
        let [start, end] = [first - 100, first - 100 + count].map(|n| usize::try_from(n).unwrap());
        start * SECTOR..end * SECTOR
    }

    fn write(&mut self, first: u64, count: u64) -> Intent {
        let intent = self.model.begin(Change::Write, first, count).unwrap();
        self.bytes[Self::at(first, count)].copy_from_slice(&self.model.bytes(&intent));
        self.model.end(&intent, true);
        intent
    }

    fn flaws(&mut self) -> Vec<(Flaw, u64)> {
        let intent = self.model.begin(Change::Read, 100, 16).unwrap();
        let findings = self.model.verify(&intent, &self.bytes);
        self.model.end(&intent, true);
        findings
            .iter()
            .map(|finding| (finding.flaw, finding.sector))
            .collect()
    }
}

#[test]
fn honest_disk_has_no_flaw() {
    let mut disk = Disk::new();
    assert_eq!(disk.flaws(), []);
    disk.write(100, 16);
    disk.write(103, 2);
    assert_eq!(disk.flaws(), []);
    let zero = disk.model.begin(Change::WriteZeroes, 110, 2).unwrap();
    disk.bytes[Disk::at(110, 2)].fill(0);
    disk.model.end(&zero, true);
    assert_eq!(disk.flaws(), []);
}

#[test]
fn any_flipped_bit_is_corruption() {
    let mut disk = Disk::new();
    disk.write(100, 16);
    for at in 0..SECTOR {
        for bit in 0..8 {
            disk.bytes[2 * SECTOR + at] ^= 1 << bit;
            assert_eq!(disk.flaws(), [(Flaw::Corrupt, 102)], "byte {at} bit {bit}");
            disk.bytes[2 * SECTOR + at] ^= 1 << bit;
        }
    }
}

#[test]
fn lost_write_is_found_whether_it_was_the_first_or_not() {
    let mut disk = Disk::new();
    let before = disk.bytes.clone();
    disk.write(104, 1);
    let after = std::mem::replace(&mut disk.bytes, before);
    assert_eq!(disk.flaws(), [(Flaw::Lost, 104)]);
    disk.bytes = after.clone();
    disk.write(104, 1);
    disk.bytes = after;
    assert_eq!(disk.flaws(), [(Flaw::Lost, 104)]);
}

#[test]
fn old_write_that_lands_after_a_newer_one_was_seen_is_a_revert() {
    let mut disk = Disk::new();
    disk.write(104, 1);
    let old = disk.bytes.clone();
    disk.write(104, 1);
    assert_eq!(disk.flaws(), []);
    disk.bytes = old;
    assert_eq!(disk.flaws(), [(Flaw::Reverted, 104)]);
}

#[test]
fn half_a_sector_is_torn() {
    let mut disk = Disk::new();
    disk.write(104, 1);
    let old = disk.bytes.clone();
    disk.write(104, 1);
    let half = 4 * SECTOR..4 * SECTOR + 256;
    disk.bytes[half.clone()].copy_from_slice(&old[half]);
    assert_eq!(disk.flaws(), [(Flaw::Torn, 104)]);
    disk.write(104, 1);
    disk.bytes[4 * SECTOR..4 * SECTOR + 16].fill(0);
    assert_eq!(disk.flaws(), [(Flaw::Torn, 104)]);
}

#[test]
fn content_of_another_sector_or_volume_is_misplaced() {
    let mut disk = Disk::new();
    disk.write(100, 16);
    disk.bytes
        .copy_within(Disk::at(107, 1), Disk::at(104, 1).start);
    assert_eq!(disk.flaws(), [(Flaw::Misplaced, 104)]);
    disk.write(104, 1);
    let mut other = Model::new(8, 100..116);
    let intent = other.begin(Change::Write, 104, 1).unwrap();
    disk.bytes[Disk::at(104, 1)].copy_from_slice(&other.bytes(&intent));
    assert_eq!(disk.flaws(), [(Flaw::Misplaced, 104)]);
}

#[test]
fn failed_write_may_have_happened_or_not_but_nothing_else() {
    let mut disk = Disk::new();
    let first = disk.write(104, 1);
    let old = disk.bytes.clone();
    let intent = disk.model.begin(Change::Write, 104, 1).unwrap();
    let new = disk.model.bytes(&intent);
    disk.model.end(&intent, false);
    assert_eq!(disk.flaws(), []);
    disk.bytes[Disk::at(104, 1)].copy_from_slice(&new);
    assert_eq!(disk.flaws(), []);
    disk.bytes = old;
    assert_eq!(
        disk.flaws(),
        [],
        "it may come and go until something newer is acknowledged"
    );
    disk.write(104, 1);
    disk.bytes[Disk::at(104, 1)].copy_from_slice(&disk.model.bytes(&first));
    assert_eq!(disk.flaws(), [(Flaw::Lost, 104)]);
}

#[test]
fn discard_leaves_old_content_or_zeros() {
    let mut disk = Disk::new();
    disk.write(104, 2);
    let discard = disk.model.begin(Change::Discard, 104, 2).unwrap();
    disk.model.end(&discard, true);
    disk.bytes[Disk::at(104, 1)].fill(0);
    assert_eq!(disk.flaws(), []);
    let never = Intent {
        change: Change::Write,
        first: 104,
        count: 1,
        sequence: 99,
    };
    disk.bytes[Disk::at(104, 1)].copy_from_slice(&disk.model.bytes(&never));
    assert_eq!(
        disk.flaws(),
        [(Flaw::Lost, 104)],
        "a write that was never made here"
    );
}

#[test]
fn requests_in_flight_do_not_overlap() {
    let mut disk = Disk::new();
    let write = disk.model.begin(Change::Write, 104, 4).unwrap();
    assert_eq!(disk.model.begin(Change::Read, 100, 5), None);
    assert_eq!(disk.model.begin(Change::Write, 107, 1), None);
    assert!(disk.model.begin(Change::Read, 108, 1).is_some());
    disk.model.abandon(&write);
    assert!(disk.model.begin(Change::Read, 100, 5).is_some());
}
