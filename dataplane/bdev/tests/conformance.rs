//! Every device, on both kinds of driver, against the same questions.
#![allow(clippy::unwrap_used, clippy::cast_possible_truncation)] // Sizes here are small.

mod support;

use holdfast_bdev::{
    BdevError, BlockDevice, DriverKind, Io, IoStatus, Malloc, Nvme, Op, Split, Token, Uring,
    UringOptions,
};
use std::path::Path;
use std::sync::Arc;
use support::{Bench, KINDS, Skewed, memory_file, pattern, uring_file};

const MIB: u64 = 1 << 20;

/// Runs a case on a device of each kind with 4 MiB of zeros, on each kind of driver.
fn on_all(case: impl Fn(&dyn BlockDevice, DriverKind)) {
    if let Some(path) = std::env::var_os(support::NVME) {
        return on_drive(path.as_ref(), case);
    }
    for kind in KINDS {
        case(&Malloc::new(4 * MIB, 512).unwrap(), kind);
        case(&uring_file(4 * MIB).device, kind);
        case(&memory_file(4 * MIB).device, kind);
        case(
            &fragmented(Arc::new(Malloc::new(8 * MIB, 512).unwrap())),
            kind,
        );
        let file = uring_file(8 * MIB);
        case(&fragmented(Arc::new(file.device.clone())), kind);
        let file = memory_file(8 * MIB);
        case(&fragmented(Arc::new(file.device.clone())), kind);
    }
}

/// Runs a case on an NVMe drive of 8 MiB instead: `tests/guest/tests/nvme.rs` does, inside a guest that has one.
fn on_drive(path: &Path, case: impl Fn(&dyn BlockDevice, DriverKind)) {
    for kind in KINDS {
        for fragments in [false, true] {
            let drive = Nvme::open(path, UringOptions::default()).unwrap();
            drive.write_zeroes_at(0, 8 * MIB).unwrap();
            let drive = Arc::new(drive);
            case(
                &if fragments {
                    fragmented(drive)
                } else {
                    beginning(drive)
                },
                kind,
            );
        }
    }
}

fn beginning(base: Arc<dyn BlockDevice>) -> Split {
    Split::new(base, vec![(0, 4 * MIB).into()]).unwrap()
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

#[test]
fn zeroed_range_reads_as_zeros_and_nothing_else_does() {
    on_all(|device, kind| {
        let mut bench = Bench::new(device, kind);
        let data = pattern(4 << 20, 3);
        let ops = [
            Op::WriteZeroes { may_unmap: false },
            Op::WriteZeroes { may_unmap: true },
            Op::Discard,
        ];
        for op in ops {
            assert_eq!(bench.write(0, &data), IoStatus::Ok);
            // Neither end on a page; over the edges of extents.
            let (start, len) = (MIB - 512, MIB + 1024 + 1536);
            assert_eq!(
                bench.plain(op, start, len),
                IoStatus::Ok,
                "{device:?} {op:?}"
            );
            let mut expected = data.clone();
            expected[start as usize..][..len as usize].fill(0);
            assert!(
                bench.read(0, data.len()) == expected,
                "{device:?} {kind:?} {op:?}"
            );
        }
    });
}

#[test]
fn request_past_the_end_is_refused_and_changes_nothing() {
    on_all(|device, kind| {
        let mut bench = Bench::new(device, kind);
        let data = pattern(8192, 4);
        let end = 4 * MIB;
        assert_eq!(bench.write(end - 4096, &data), IoStatus::OutOfRange);
        assert_eq!(bench.write(u64::MAX - 511, &data), IoStatus::OutOfRange);
        for op in [Op::Discard, Op::WriteZeroes { may_unmap: true }] {
            assert_eq!(bench.plain(op, end, 512), IoStatus::OutOfRange);
            assert_eq!(
                bench.plain(op, 512, u64::MAX - 511),
                IoStatus::OutOfRange,
                "the end does not fit into 64 bits"
            );
        }
        assert!(bench.read(end - 4096, 4096).iter().all(|byte| *byte == 0));
        assert!(matches!(
            device.write_at(end - 1, &[1, 2]),
            Err(BdevError::OutOfRange { .. })
        ));
        assert!(matches!(
            device.read_at(u64::MAX, &mut [0]),
            Err(BdevError::OutOfRange { .. })
        ));
    });
}

#[test]
fn request_of_broken_blocks_is_refused() {
    on_all(|device, kind| {
        let mut bench = Bench::new(device, kind);
        let refused = IoStatus::Failed(libc::EINVAL);
        assert_eq!(bench.write(1, &[0; 512]), refused);
        assert_eq!(bench.write(0, &[0; 511]), refused);
        assert_eq!(bench.plain(Op::Discard, 0, 100), refused);
        assert_eq!(bench.plain(Op::Read, 0, 512), refused, "no buffers");
    });
}

#[test]
fn request_of_nothing_succeeds() {
    on_all(|device, kind| {
        let mut bench = Bench::new(device, kind);
        for op in [Op::Read, Op::Write, Op::Discard] {
            assert_eq!(bench.plain(op, 4 * MIB, 0), IoStatus::Ok);
            assert_eq!(
                bench.transfer(op, 0, &mut Skewed::new(0, 1), &[0, 0]),
                IoStatus::Ok
            );
        }
        assert_eq!(bench.driver.stale(), 0);
    });
}

#[test]
fn blocking_access_of_any_alignment_agrees_with_requests() {
    on_all(|device, kind| {
        let mut bench = Bench::new(device, kind);
        let mut expected = pattern(4 << 20, 5);
        assert_eq!(bench.write(0, &expected), IoStatus::Ok);
        for (seed, at, len) in [(6, 1, 1), (7, 511, 2), (8, MIB - 7, 300_001), (9, 0, 4096)] {
            let piece = pattern(len, seed);
            device.write_at(at, &piece).unwrap();
            expected[at as usize..][..len].copy_from_slice(&piece);
            let mut back = vec![0; len];
            device.read_at(at, &mut back).unwrap();
            assert!(back == piece, "{device:?} {at}+{len}");
        }
        for (at, len) in [(3, 5), (1000, 700), (2 * MIB - 13, 1_000_003)] {
            device.write_zeroes_at(at, len).unwrap();
            expected[at as usize..][..len as usize].fill(0);
        }
        device.flush().unwrap();
        assert!(
            bench.read(0, expected.len()) == expected,
            "{device:?} {kind:?}"
        );
    });
}

#[test]
fn many_requests_at_once_all_complete_with_their_own_token() {
    const COUNT: usize = 1500; // More than a submission queue holds.
    on_all(|device, kind| {
        let mut bench = Bench::new(device, kind);
        let data = pattern(512 * COUNT, 10);
        assert_eq!(bench.write(0, &data), IoStatus::Ok);
        // Every third buffer is one that O_DIRECT cannot take: more than there are bounce buffers.
        let mut buffers: Vec<Skewed> = (0..COUNT)
            .map(|index| Skewed::new(512, usize::from(index % 3 == 0)))
            .collect();
        let arrays: Vec<Vec<libc::iovec>> = buffers.iter_mut().map(|b| b.iovecs(&[])).collect();
        for (index, array) in arrays.iter().enumerate() {
            let token = Token(index as u64);
            // SAFETY: buffers and arrays outlive `take`, which waits for all.
            bench.submit(unsafe { Io::with_buffers(Op::Read, 512 * index as u64, array, token) });
        }
        let mut tokens: Vec<u64> = bench
            .take(COUNT)
            .iter()
            .map(|done| {
                assert_eq!(done.status, IoStatus::Ok);
                done.token.0
            })
            .collect();
        tokens.sort_unstable();
        assert!(tokens.iter().copied().eq(0..COUNT as u64));
        for (index, buffer) in buffers.iter().enumerate() {
            assert!(
                buffer.bytes() == &data[512 * index..][..512],
                "{device:?} {index}"
            );
        }
        assert_eq!((bench.driver.outstanding(), bench.driver.stale()), (0, 0));
    });
}

#[test]
fn request_of_more_buffers_than_the_kernel_takes_is_served_whole() {
    on_all(|device, kind| {
        let mut bench = Bench::new(device, kind);
        let data = pattern(512 * 2500, 11);
        let cuts = [512; 2499];
        assert_eq!(
            bench.transfer(Op::Write, 0, &mut Skewed::of(&data, 0), &cuts),
            IoStatus::Ok
        );
        let mut back = Skewed::new(data.len(), 0);
        assert_eq!(bench.transfer(Op::Read, 0, &mut back, &cuts), IoStatus::Ok);
        assert!(back.bytes() == data, "{device:?} {kind:?}");
    });
}

#[test]
fn read_only_device_refuses_every_change() {
    for file in [uring_file(MIB), memory_file(MIB)] {
        refuses_every_change(file);
    }
}

fn refuses_every_change(file: support::TempFile) {
    drop(file.device);
    let options = UringOptions {
        readonly: true,
        ..UringOptions::default()
    };
    let device = Uring::open(&file.path, options).unwrap();
    assert!(device.info().read_only);
    for kind in KINDS {
        let mut bench = Bench::new(&device, kind);
        assert_eq!(bench.write(0, &[1; 512]), IoStatus::Failed(libc::EROFS));
        assert_ne!(bench.plain(Op::Discard, 0, 512), IoStatus::Ok);
        assert_ne!(
            bench.plain(Op::WriteZeroes { may_unmap: true }, 0, 512),
            IoStatus::Ok
        );
        assert!(bench.read(0, 4096).iter().all(|byte| *byte == 0));
    }
    assert!(matches!(
        device.write_at(0, &[1]),
        Err(BdevError::ReadOnly { .. })
    ));
    assert!(matches!(
        device.write_zeroes_at(0, 1),
        Err(BdevError::ReadOnly { .. })
    ));
}
