//! What reactors cost while their guests wait. Alone in its process: it counts the time of all reactors there.
#![allow(clippy::unwrap_used)]

mod common;

use common::{Bench, eventually};
use holdfast_bdev::Malloc;
use holdfast_dataplane::Limits;
use holdfast_testkit::frontend::{Guest, Layout, Op};
use std::sync::Arc;
use std::time::{Duration, Instant};

#[test]
fn reactors_sleep_while_requests_wait_for_a_limit() {
    let bench = Bench::empty();
    bench.serve("disk", Arc::new(Malloc::new(16 << 20, 512).unwrap()));
    let limits = Limits {
        iops: Some(1),
        ..Limits::default()
    };
    bench.engine.set_limits("disk", Some(limits)).unwrap();
    let builder = Guest::builder().queues(2);
    let mut guest = builder.connect(bench.socket("disk")).unwrap();
    for queue in guest.queues() {
        for _ in 0..8 {
            queue.submit(Op::Flush, Layout::DIRECT).unwrap();
        }
    }
    let before = reactor_ticks();
    let start = Instant::now();
    eventually("a second and a half has passed", || {
        start.elapsed() > Duration::from_millis(1500)
    });
    let used = reactor_ticks() - before;
    // A loop that is busy for this long takes 150 ticks of 10 ms, or half of that on a full machine.
    assert!(used < 15, "reactors were busy for {used} ticks");
    bench.engine.set_limits("disk", None).unwrap();
    for queue in guest.queues() {
        queue.drain().unwrap();
    }
}

/// Processor time of the reactors of this process, in ticks of 10 ms.
fn reactor_ticks() -> u64 {
    let mut ticks = 0;
    for task in std::fs::read_dir("/proc/self/task").unwrap() {
        let stat = std::fs::read_to_string(task.unwrap().path().join("stat")).unwrap_or_default();
        let Some((name, fields)) = stat.rsplit_once(')') else {
            continue;
        };
        if name.contains("reactor-") {
            let fields: Vec<&str> = fields.split_whitespace().collect();
            ticks += fields[11].parse::<u64>().unwrap() + fields[12].parse::<u64>().unwrap();
        }
    }
    ticks
}
