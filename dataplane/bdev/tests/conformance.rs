//! Every device, on both kinds of driver, against the same questions.
#![allow(clippy::unwrap_used)]

mod support;

use holdfast_bdev::{BlockDevice, DriverKind, IoStatus, Malloc, Op, Split};
use std::sync::Arc;
use support::{Bench, KINDS, Skewed, pattern, uring_file};

const MIB: u64 = 1 << 20;

/// Runs a case on a device of each kind with 4 MiB of zeros, on each kind of driver.
fn on_all(case: impl Fn(&dyn BlockDevice, DriverKind)) {
    for kind in KINDS {
        case(&Malloc::new(4 * MIB, 512).unwrap(), kind);
        case(&uring_file(4 * MIB).device, kind);
        case(
            &fragmented(Arc::new(Malloc::new(8 * MIB, 512).unwrap())),
            kind,
        );
        let file = uring_file(8 * MIB);
        case(&fragmented(Arc::new(file.device.clone())), kind);
    }
}

/// 4 MiB in pieces of odd lengths, out of order.
fn fragmented(base: Arc<dyn BlockDevice>) -> Split {
    let pieces = [
        (5 * MIB, MIB),
        (512, 1536),
        (2 * MIB, 2 * MIB - 1536),
        (MIB, MIB),
    ];
    Split::new(base, pieces.map(Into::into).to_vec()).unwrap()
}

#[test]
fn written_data_is_read_back() {
    on_all(|device, kind| {
        let mut bench = Bench::new(device, kind);
        let data = pattern(3 * 1024 * 1024, 1);
        assert_eq!(bench.write(MIB / 2, &data), IoStatus::Ok);
        assert_eq!(bench.plain(Op::Flush, 0, 0), IoStatus::Ok);
        assert_eq!(bench.read(MIB / 2, data.len()), data, "{device:?} {kind:?}");
        assert!(bench.read(0, 512 * 1024).iter().all(|byte| *byte == 0));
        assert_eq!(bench.driver.outstanding(), 0);
    });
}

#[test]
fn misaligned_buffers_of_odd_lengths_carry_the_same_bytes() {
    on_all(|device, kind| {
        let mut bench = Bench::new(device, kind);
        let data = pattern(600 * 1024, 2);
        for (skew, cuts) in [
            (1, &[3, 512, 0, 7000][..]),
            (4, &[]),
            (512, &[1]),
            (0, &[511, 1]),
        ] {
            let offset = MIB - 1024;
            let status = bench.transfer(Op::Write, offset, &mut Skewed::of(&data, skew), cuts);
            assert_eq!(status, IoStatus::Ok);
            let mut back = Skewed::new(data.len(), skew + 3);
            assert_eq!(
                bench.transfer(Op::Read, offset, &mut back, cuts),
                IoStatus::Ok
            );
            assert_eq!(
                back.bytes(),
                data,
                "{device:?} {kind:?} skew {skew} cuts {cuts:?}"
            );
        }
    });
}
