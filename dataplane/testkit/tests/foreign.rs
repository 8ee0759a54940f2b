//! The foreign front end against the reference engine: neither is ours.
#![allow(clippy::unwrap_used)]

use holdfast_bdev::{BlockDevice, Malloc};
use holdfast_testkit::foreign::{ForeignPlan, verified_io};
use holdfast_testkit::reference::{ReferenceConfig, ReferenceEngine};
use holdfast_testkit::workload::Flaw;
use std::sync::Arc;

#[test]
fn foreign_front_end_finds_its_data_again() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("v.sock");
    let device = Arc::new(Malloc::new(1 << 20, 512).unwrap());
    let _engine = ReferenceEngine::serve(&path, device, ReferenceConfig::default()).unwrap();
    let report = verified_io(&path, 0..2048, ForeignPlan::default()).unwrap();
    report.assert_clean();
    assert_eq!(report.submitted(), 2000 + 2048 / 16);
    assert!(report.sectors_verified > 2048, "{report}");
}

#[test]
fn foreign_front_end_notices_a_device_that_was_not_blank() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("v.sock");
    let device = Malloc::new(1 << 20, 512).unwrap();
    device.write_at(1000 * 512, &[7; 512]).unwrap();
    let device = Arc::new(device);
    let _engine = ReferenceEngine::serve(&path, device, ReferenceConfig::default()).unwrap();
    let plan = ForeignPlan {
        requests: 0,
        ..ForeignPlan::default()
    };
    let report = verified_io(&path, 0..2048, plan).unwrap();
    assert_eq!(
        (report.flaws, report.found(Flaw::Corrupt)),
        (1, 1),
        "{report}"
    );
}
