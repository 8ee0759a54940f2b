//! The load generator against engines that are known to work: it keeps its depth, counts every answer, and stops empty.
#![cfg_attr(test, allow(clippy::unwrap_used, clippy::cast_precision_loss))]

use holdfast_bdev::{BlockDevice, Malloc, Null};
use holdfast_testkit::frontend::Guest;
use holdfast_testkit::load::{BareReads, Clock, Echo, LoadQueue, Pattern, Wait, beside, run, wake};
use holdfast_testkit::reference::{ReferenceConfig, ReferenceEngine};
use std::io::Write as _;
use std::sync::Arc;
use std::time::Duration;

const SHORT: Duration = Duration::from_millis(50);

fn pattern(depth: u16, reads_percent: u8) -> Pattern {
    Pattern {
        depth,
        bytes: 4096,
        reads_percent,
        sequential: false,
        span_bytes: 16 << 20,
    }
}

fn engine(device: Arc<dyn BlockDevice>) -> (tempfile::TempDir, ReferenceEngine, Guest) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("v.sock");
    let engine = ReferenceEngine::serve(&path, device, ReferenceConfig::default()).unwrap();
    let guest = Guest::builder().queues(2).connect(&path).unwrap();
    (folder, engine, guest)
}

#[test]
fn queues_under_load_are_answered_in_every_pattern_and_end_empty() {
    let (_folder, _engine, mut guest) = engine(Arc::new(Malloc::new(16 << 20, 512).unwrap()));
    let clock = Clock::new();
    let mut queues = LoadQueue::all(&mut guest, pattern(1, 100)).unwrap();
    for (depth, reads, wait) in [
        (1, 100, Wait::Poll),
        (32, 0, Wait::Poll),
        (128, 70, Wait::Poll),
        (8, 70, Wait::Interrupt),
    ] {
        let (first, rest) = queues.split_at_mut(1);
        first[0].set_pattern(pattern(depth, reads), wait).unwrap();
        rest[0].set_pattern(pattern(depth, reads), wait).unwrap();
        let tally = match wait {
            Wait::Poll => run(&mut queues, &clock, SHORT, SHORT).unwrap(),
            Wait::Interrupt => run(first, &clock, SHORT, SHORT).unwrap(),
        };
        assert!(tally.latency.count() > u64::from(depth), "{depth}");
        assert_eq!(tally.errors, 0, "{depth}");
        assert!(tally.elapsed >= SHORT && tally.per_second() > 0.0);
    }
}

#[test]
fn neighbour_and_flood_are_counted_apart_and_end_empty() {
    let (_folder, _engine, mut guest) = engine(Arc::new(Malloc::new(16 << 20, 512).unwrap()));
    let clock = Clock::new();
    let mut queues = LoadQueue::all(&mut guest, pattern(1, 100)).unwrap();
    queues[1].set_pattern(pattern(64, 0), Wait::Poll).unwrap();
    let (one, flood) = queues.split_at_mut(1);
    let times = (SHORT, 10 * SHORT);
    // The reactor may not have been let run for all of a time where others keep the processors busy.
    let mut both_served = 0;
    for _ in 0..20 {
        let (seen, flooded) = beside(&mut one[0], &mut flood[0], &clock, times).unwrap();
        assert_eq!(seen.elapsed, flooded.elapsed);
        assert_eq!((seen.errors, flooded.errors), (0, 0));
        both_served += u32::from(seen.latency.count() > 0 && flooded.latency.count() > 0);
        if both_served == 2 {
            return;
        }
    }
    panic!("served both in {both_served} of 20 times");
}

#[test]
fn answers_other_than_success_are_counted_as_errors() {
    let (_folder, _engine, mut guest) = engine(Arc::new(Null::new(1 << 20, 512).unwrap()));
    let beyond = Pattern {
        span_bytes: 2 << 20,
        ..pattern(8, 100)
    };
    let mut queues = LoadQueue::all(&mut guest, beyond).unwrap();
    let tally = run(&mut queues[..1], &Clock::new(), Duration::ZERO, SHORT).unwrap();
    let share = tally.errors * 100 / tally.latency.count();
    assert!((40..60).contains(&share), "{share} % of errors");
}

#[test]
fn request_after_a_pause_is_timed_from_the_moment_it_is_asked() {
    let (_folder, _engine, mut guest) = engine(Arc::new(Null::new(16 << 20, 512).unwrap()));
    let mut queues = LoadQueue::all(&mut guest, pattern(1, 100)).unwrap();
    let pause = Duration::from_millis(20);
    let woken = wake(&mut queues[0], &Clock::new(), 10, pause).unwrap();
    assert_eq!(woken.count(), 10);
    // The fastest of ten: others may have met a busy processor.
    assert!(woken.quantile(0.0) < 20_000_000, "{}", woken.quantile(0.0));
}

#[test]
fn echo_answers_more_positions_than_a_ring_index_holds() {
    let (queue, echo) = Echo::start(256, pattern(32, 100), || ()).unwrap();
    let mut queues = [queue];
    let (clock, mut answers) = (Clock::new(), 0);
    while answers < 200_000 {
        let tally = run(&mut queues, &clock, Duration::ZERO, SHORT).unwrap();
        assert_eq!(tally.errors, 0);
        answers += tally.latency.count();
    }
    drop(echo);
}

#[test]
fn bare_reads_are_counted_and_those_behind_the_end_fail() {
    let mut file = tempfile::NamedTempFile::new_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let half = 8 << 20;
    file.write_all(&vec![1; half]).unwrap();
    let clock = Clock::new();
    for depth in [1, 32] {
        let inside = Pattern {
            span_bytes: half as u64,
            ..pattern(depth, 100)
        };
        let mut reads = BareReads::open(file.path(), inside).unwrap();
        let tally = reads.run(&clock, SHORT).unwrap();
        assert!(tally.latency.count() > u64::from(depth), "{depth}");
        assert_eq!(tally.errors, 0, "{depth}");
        let mut reads = BareReads::open(file.path(), pattern(depth, 100)).unwrap();
        let (tally, share) = (reads.run(&clock, SHORT).unwrap(), 0.3..0.7);
        let failed = tally.errors as f64 / tally.latency.count() as f64;
        assert!(share.contains(&failed), "{failed} at depth {depth}");
    }
}
