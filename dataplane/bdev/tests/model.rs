//! Random requests against a plain vector of bytes: whatever the device, it must hold the same.
#![allow(clippy::unwrap_used, clippy::cast_possible_truncation)] // Sizes here are small.

mod support;

use holdfast_bdev::{BlockDevice, DriverKind, IoStatus, Malloc, Op, Split};
use proptest::prelude::*;
use std::sync::Arc;
use support::{Bench, Skewed, pattern, uring_file};

const BLOCKS: u64 = 1024;
const BLOCK: u64 = 512;

#[derive(Clone, Debug)]
enum Step {
    Write {
        first: u64,
        count: u64,
        skew: usize,
        cuts: Vec<usize>,
        seed: u64,
    },
    Zero {
        first: u64,
        count: u64,
        op: u8,
    },
    Read {
        first: u64,
        count: u64,
        skew: usize,
        cuts: Vec<usize>,
    },
    BlockingWrite {
        at: u64,
        len: usize,
        seed: u64,
    },
    BlockingZero {
        at: u64,
        len: u64,
    },
    Flush,
}

fn step() -> impl Strategy<Value = Step> {
    let range = || (0..BLOCKS).prop_flat_map(|first| (Just(first), 1..=(BLOCKS - first).min(300)));
    let skew = || prop_oneof![3 => Just(0usize), 1 => 0..4096usize];
    // Whole blocks, which need no bounce, and odd lengths.
    let cut = prop_oneof![(1..40usize).prop_map(|blocks| blocks * 512), 0..5000usize];
    let cuts = move || prop::collection::vec(cut.clone(), 0..5);
    let bytes = || (0..BLOCKS * BLOCK - 9000, 0..9000u64);
    prop_oneof![
        4 => (range(), skew(), cuts(), any::<u64>()).prop_map(|((first, count), skew, cuts, seed)| {
            Step::Write { first, count, skew, cuts, seed }
        }),
        2 => (range(), 0..3u8).prop_map(|((first, count), op)| Step::Zero { first, count, op }),
        3 => (range(), skew(), cuts()).prop_map(|((first, count), skew, cuts)| {
            Step::Read { first, count, skew, cuts }
        }),
        1 => (bytes(), any::<u64>())
            .prop_map(|((at, len), seed)| Step::BlockingWrite { at, len: len as usize, seed }),
        1 => bytes().prop_map(|(at, len)| Step::BlockingZero { at, len }),
        1 => Just(Step::Flush),
    ]
}

/// The base is cut into runs of 1 to 40 blocks, shuffled.
fn extents() -> impl Strategy<Value = Vec<(u64, u64)>> {
    prop::collection::vec(1..=40u64, 60).prop_flat_map(|lengths| {
        let mut at = 0;
        let mut runs = Vec::new();
        for len in lengths {
            let len = len.min(BLOCKS - at);
            if len > 0 {
                runs.push((at * BLOCK, len * BLOCK));
            }
            at += len;
        }
        if at < BLOCKS {
            runs.push((at * BLOCK, (BLOCKS - at) * BLOCK));
        }
        Just(runs).prop_shuffle()
    })
}

fn run(device: &dyn BlockDevice, kind: DriverKind, steps: &[Step]) {
    let mut bench = Bench::new(device, kind);
    let mut model = vec![0u8; (BLOCKS * BLOCK) as usize];
    for step in steps {
        play(device, &mut bench, &mut model, step);
    }
    assert!(bench.read(0, model.len()) == model, "at the end");
    assert_eq!((bench.driver.outstanding(), bench.driver.stale()), (0, 0));
}

fn play(device: &dyn BlockDevice, bench: &mut Bench, model: &mut [u8], step: &Step) {
    let bytes = |first: u64, count: u64| (first * BLOCK, (count * BLOCK) as usize);
    match step {
        Step::Write {
            first,
            count,
            skew,
            cuts,
            seed,
        } => {
            let (at, len) = bytes(*first, *count);
            let data = pattern(len, *seed);
            let status = bench.transfer(Op::Write, at, &mut Skewed::of(&data, *skew), cuts);
            assert_eq!(status, IoStatus::Ok);
            model[at as usize..][..len].copy_from_slice(&data);
        }
        Step::Zero { first, count, op } => {
            let (at, len) = bytes(*first, *count);
            let op = match op {
                0 => Op::Discard,
                op => Op::WriteZeroes {
                    may_unmap: *op == 1,
                },
            };
            assert_eq!(bench.plain(op, at, len as u64), IoStatus::Ok);
            model[at as usize..][..len].fill(0);
        }
        Step::Read {
            first,
            count,
            skew,
            cuts,
        } => {
            let (at, len) = bytes(*first, *count);
            let mut back = Skewed::new(len, *skew);
            assert_eq!(bench.transfer(Op::Read, at, &mut back, cuts), IoStatus::Ok);
            assert!(back.bytes() == &model[at as usize..][..len], "{step:?}");
        }
        Step::BlockingWrite { at, len, seed } => {
            let data = pattern(*len, *seed);
            device.write_at(*at, &data).unwrap();
            model[*at as usize..][..*len].copy_from_slice(&data);
        }
        Step::BlockingZero { at, len } => {
            device.write_zeroes_at(*at, *len).unwrap();
            model[*at as usize..][..*len as usize].fill(0);
        }
        Step::Flush => assert_eq!(bench.plain(Op::Flush, 0, 0), IoStatus::Ok),
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 40, ..ProptestConfig::default() })]

    #[test]
    fn malloc_holds_what_the_model_holds(steps in prop::collection::vec(step(), 1..60)) {
        run(&Malloc::new(BLOCKS * BLOCK, 512).unwrap(), DriverKind::Uring, &steps);
    }

    #[test]
    fn file_holds_what_the_model_holds(
        steps in prop::collection::vec(step(), 1..60),
        threads in any::<bool>(),
    ) {
        let kind = if threads { DriverKind::Threads } else { DriverKind::Uring };
        run(&uring_file(BLOCKS * BLOCK).device, kind, &steps);
    }

    #[test]
    fn split_over_fragments_holds_what_the_model_holds(
        extents in extents(),
        steps in prop::collection::vec(step(), 1..60),
        on_file in any::<bool>(),
        threads in any::<bool>(),
    ) {
        let kind = if threads { DriverKind::Threads } else { DriverKind::Uring };
        let file = on_file.then(|| uring_file(BLOCKS * BLOCK));
        let base: Arc<dyn BlockDevice> = match &file {
            Some(file) => Arc::new(file.device.clone()),
            None => Arc::new(Malloc::new(BLOCKS * BLOCK, 512).unwrap()),
        };
        let extents = extents.into_iter().map(Into::into).collect();
        run(&Split::new(base, extents).unwrap(), kind, &steps);
    }
}
