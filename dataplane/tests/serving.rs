//! What a well-behaved front end gets: every kind of request, every way to start and stop, one disk over many queues.
#![allow(clippy::unwrap_used, clippy::cast_possible_truncation)]

mod common;

use common::{Bench, SIZE, eventually, pattern};
use holdfast_bdev::{BlockDevice, DriverKind, Malloc, Uring};
use holdfast_dataplane::{EngineError, ErrorKind, ExportSpec};
use holdfast_testkit::foreign::{ForeignPlan, verified_io};
use holdfast_testkit::frontend::{BlkConfig, Guest, Layout, Op, Protocol, Range, feature, status};
use holdfast_testkit::workload::{Plan, Workload};
use std::sync::Arc;
use std::time::Duration;

#[test]
fn every_kind_of_request_is_served() {
    let (bench, device) = Bench::malloc();
    let mut guest = Guest::builder()
        .queues(2)
        .connect(bench.socket("disk"))
        .unwrap();
    let config = guest.config().unwrap();
    assert_eq!(
        (config.capacity_sectors, config.num_queues),
        (SIZE / 512, 16)
    );
    let data = pattern(1, 8192);
    guest.queue(0).write(4096, &data).unwrap();
    guest.queue(0).flush().unwrap();
    assert_eq!(guest.queue(1).read(4096, 8192).unwrap(), data);
    let mut direct = vec![0; 8192];
    device.read_at(4096, &mut direct).unwrap();
    assert_eq!(direct, data, "what the guest wrote is where it wrote it");
    guest.queue(1).write_zeroes(8, 8).unwrap();
    guest.queue(1).discard(16, 8).unwrap();
    assert_eq!(guest.queue(0).read(4096, 8192).unwrap(), vec![0; 8192]);
    assert_eq!(guest.queue(0).id().unwrap(), "disk");
}

#[test]
fn bad_requests_are_answered_and_the_ring_goes_on() {
    let (bench, _device) = Bench::malloc();
    let mut guest = Guest::builder().connect(bench.socket("disk")).unwrap();
    let range = |sector, sectors, flags| {
        vec![Range {
            sector,
            sectors,
            flags,
        }]
    };
    let end = SIZE / 512;
    let raw = |kind, room| Op::Raw {
        kind,
        sector: 0,
        data: Vec::new(),
        room,
    };
    let cases = [
        (
            Op::Read {
                offset: SIZE,
                len: 512,
            },
            status::IOERR,
        ),
        (
            Op::Write {
                offset: SIZE - 512,
                data: vec![1; 1024],
            },
            status::IOERR,
        ),
        (Op::Discard(range(end, 1, 0)), status::IOERR),
        (Op::WriteZeroes(range(u64::MAX, 1, 0)), status::IOERR),
        (Op::Discard(range(0, 1, 0x80)), status::UNSUPP),
        (raw(77, 512), status::UNSUPP),
    ];
    for (op, expected) in cases {
        let done = guest.queue(0).call(op.clone(), Layout::DIRECT).unwrap();
        assert_eq!(done.status, expected, "{op:?}");
    }
    guest.queue(0).write(0, &pattern(3, 512)).unwrap();
}

#[test]
fn verified_workload_over_four_queues_and_two_reactors_is_clean() {
    for kind in [DriverKind::Uring, DriverKind::Threads] {
        let bench = Bench::with(kind);
        bench.serve("memory", Arc::new(Malloc::new(SIZE, 512).unwrap()));
        let path = std::env::current_exe()
            .unwrap()
            .with_file_name(format!("serving-{kind:?}.disk"));
        let _ = std::fs::remove_file(&path);
        bench.serve("file", Arc::new(Uring::create(&path, SIZE).unwrap()));
        for name in ["memory", "file"] {
            let mut guest = Guest::builder()
                .queues(4)
                .regions(3)
                .connect(bench.socket(name))
                .unwrap();
            let mut workload = Workload::new(Plan::default(), 1, 0..8192);
            workload.run(&mut guest, 4000).unwrap();
            workload.report().assert_clean();
        }
        std::fs::remove_file(path).unwrap();
    }
}

#[test]
fn features_left_out_are_not_needed() {
    let (bench, _device) = Bench::malloc();
    for without in [
        feature::EVENT_IDX,
        feature::INDIRECT,
        feature::EVENT_IDX | feature::INDIRECT | feature::MQ,
        feature::PROTOCOL_FEATURES,
        feature::FLUSH | feature::CONFIG_WCE,
        feature::DISCARD | feature::WRITE_ZEROES,
    ] {
        let mut guest = Guest::builder()
            .without(without)
            .connect(bench.socket("disk"))
            .unwrap();
        let queue = guest.queue(0);
        for offset in [0, 4096, SIZE - 4096] {
            let data = pattern(without.count_ones() as u8, 4096);
            queue.write(offset, &data).unwrap();
            assert_eq!(
                queue.read(offset, 4096).unwrap(),
                data,
                "without {without:#x}"
            );
        }
    }
}

#[test]
fn memory_table_of_the_old_kind_is_served() {
    let (bench, _device) = Bench::malloc();
    let protocol = Protocol::MQ | Protocol::CONFIG | Protocol::REPLY_ACK;
    let mut guest = Guest::builder()
        .protocol(protocol)
        .regions(4)
        .connect(bench.socket("disk"))
        .unwrap();
    guest.queue(0).write(0, &pattern(9, 65536)).unwrap();
    guest.send_memory().unwrap();
    assert_eq!(guest.queue(0).read(0, 65536).unwrap(), pattern(9, 65536));
}

#[test]
fn stopped_queue_starts_again_where_it_was() {
    let (bench, _device) = Bench::malloc();
    let mut guest = Guest::builder()
        .queues(2)
        .connect(bench.socket("disk"))
        .unwrap();
    for round in 0..50u16 {
        guest.queue(0).write(0, &pattern(round as u8, 512)).unwrap();
        let base = guest.stop_queue(0).unwrap();
        assert_eq!(base, 2 * round + 1);
        assert_eq!(
            guest.queue(1).read(0, 512).unwrap(),
            pattern(round as u8, 512)
        );
        guest.start_queue(0).unwrap();
        assert_eq!(
            guest.queue(0).read(0, 512).unwrap(),
            pattern(round as u8, 512)
        );
    }
}

#[test]
fn disabled_queue_waits_and_enabled_one_goes_on_without_a_kick() {
    let (bench, _device) = Bench::malloc();
    let mut guest = Guest::builder()
        .queues(2)
        .connect(bench.socket("disk"))
        .unwrap();
    guest.enable_queue(0, false).unwrap();
    guest.queue(0).submit(Op::Flush, Layout::DIRECT).unwrap();
    guest.queue(1).flush().unwrap();
    assert_eq!(guest.queue(0).outstanding(), 1);
    assert_eq!(guest.queue(0).complete().unwrap(), []);
    guest.enable_queue(0, true).unwrap();
    assert_eq!(guest.queue(0).drain().unwrap().len(), 1);
}

#[test]
fn session_outlives_its_front_end() {
    let (bench, _device) = Bench::malloc();
    let mut guest = Guest::builder()
        .queues(2)
        .connect(bench.socket("disk"))
        .unwrap();
    for round in 0..20 {
        guest
            .queue(1)
            .write(512 * round, &pattern(round as u8, 512))
            .unwrap();
        assert!(bench.engine.export_info("disk").unwrap().connected);
        guest.disconnect();
        eventually("disconnected", || {
            !bench.engine.export_info("disk").unwrap().connected
        });
        guest.reconnect().unwrap();
        assert_eq!(
            guest.queue(0).read(512 * round, 512).unwrap(),
            pattern(round as u8, 512)
        );
    }
}

/// As SeaBIOS does before the kernel takes over: one queue, then a reset, then all of them.
#[test]
fn firmware_with_one_queue_is_followed_by_a_kernel_with_four() {
    let (bench, _device) = Bench::malloc();
    let mut guest = Guest::builder()
        .queues(4)
        .negotiate(bench.socket("disk"))
        .unwrap();
    for _ in 0..5 {
        guest.send_features().unwrap();
        guest.send_memory().unwrap();
        guest.start_queue(0).unwrap();
        guest.queue(0).read(0, 512).unwrap();
        guest.stop_queue(0).unwrap();
        guest.reset_device().unwrap();
        for queue in guest.queues() {
            queue.reset();
        }
        guest.start().unwrap();
        for at in 0..4 {
            guest
                .queue(at)
                .write(at as u64 * 512, &pattern(at as u8, 512))
                .unwrap();
        }
        for at in 0..4 {
            guest.stop_queue(at).unwrap();
        }
        guest.reset_device().unwrap();
        for queue in guest.queues() {
            queue.reset();
        }
    }
}

#[test]
fn write_cache_mode_is_chosen_by_the_driver() {
    let (bench, _device) = Bench::malloc();
    let mut guest = Guest::builder().connect(bench.socket("disk")).unwrap();
    assert!(guest.config().unwrap().writeback);
    guest.set_config(BlkConfig::WCE_OFFSET, &[0]).unwrap();
    assert!(!guest.config().unwrap().writeback);
    guest.queue(0).write(0, &pattern(1, 512)).unwrap();
    guest.set_config(BlkConfig::WCE_OFFSET, &[1]).unwrap();
    guest.queue(0).write(0, &pattern(2, 512)).unwrap();
}

#[test]
fn read_only_export_refuses_writes_and_says_so() {
    let bench = Bench::empty();
    bench
        .engine
        .add_device("disk", Arc::new(Malloc::new(SIZE, 512).unwrap()))
        .unwrap();
    let spec = ExportSpec {
        read_only: true,
        ..bench.spec("disk")
    };
    bench.engine.export(&spec).unwrap();
    let mut guest = Guest::builder().connect(bench.socket("disk")).unwrap();
    assert_ne!(guest.features() & feature::RO, 0);
    let write = Op::Write {
        offset: 0,
        data: pattern(1, 512),
    };
    let done = guest.queue(0).call(write, Layout::DIRECT).unwrap();
    assert_eq!(done.status, status::IOERR);
    assert_eq!(guest.queue(0).read(0, 512).unwrap(), vec![0; 512]);
}

#[test]
fn second_front_end_waits_until_the_first_has_gone() {
    let (bench, _device) = Bench::malloc();
    let mut first = Guest::builder().connect(bench.socket("disk")).unwrap();
    let path = bench.socket("disk");
    let second = std::thread::spawn(move || {
        Guest::builder()
            .deadline(Duration::from_secs(20))
            .connect(path)
    });
    for round in 0..100 {
        first.queue(0).write(0, &pattern(round, 512)).unwrap();
    }
    assert!(!second.is_finished(), "two front ends are served at once");
    drop(first);
    let mut second = second.join().unwrap().unwrap();
    assert_eq!(second.queue(0).read(0, 512).unwrap(), pattern(99, 512));
}

#[test]
fn export_says_what_is_wrong_with_it() {
    let (bench, _device) = Bench::malloc();
    let same = bench.engine.export(&bench.spec("disk")).unwrap();
    assert_eq!(same.socket, bench.socket("disk"));
    let other_place = ExportSpec {
        socket: bench.socket("other"),
        ..bench.spec("disk")
    };
    let other_name = ExportSpec {
        name: "again".into(),
        ..other_place.clone()
    };
    let nothing = ExportSpec {
        name: "none".into(),
        ..bench.spec("none")
    };
    let long = ExportSpec {
        name: "long".into(),
        socket: bench.dir.path().join("x".repeat(100)),
        ..bench.spec("disk")
    };
    let no_queue = ExportSpec {
        queues: 0,
        ..bench.spec("disk")
    };
    let cases = [
        (
            other_place,
            ErrorKind::AlreadyExists,
            "exists already and differs",
        ),
        (
            other_name,
            ErrorKind::FailedPrecondition,
            "in use by export \"disk\"",
        ),
        (nothing, ErrorKind::NotFound, "no device named \"none\""),
        (long, ErrorKind::FailedPrecondition, "in use"),
        (no_queue, ErrorKind::InvalidArgument, "0 queues"),
    ];
    for (spec, kind, text) in cases {
        let error = bench.engine.export(&spec).unwrap_err();
        assert!(error.to_string().contains(text), "{error}");
        assert_eq!(error.kind(), kind, "{error}");
    }
    assert!(bench.engine.unexport("disk").unwrap());
    assert!(!bench.engine.unexport("disk").unwrap());
    let long = ExportSpec {
        socket: bench.dir.path().join("x".repeat(100)),
        ..bench.spec("disk")
    };
    let error = bench.engine.export(&long).unwrap_err();
    assert!(
        matches!(error, EngineError::SocketPathTooLong { .. }),
        "{error}"
    );
    assert!(
        !bench.socket("disk").exists(),
        "an ended export leaves no socket"
    );
}

#[test]
fn dead_socket_is_replaced_and_a_living_one_is_not() {
    let (bench, _device) = Bench::malloc();
    let other = Bench::empty();
    other
        .engine
        .add_device("disk", Arc::new(Malloc::new(SIZE, 512).unwrap()))
        .unwrap();
    let spec = ExportSpec {
        socket: bench.socket("disk"),
        ..other.spec("disk")
    };
    let error = other.engine.export(&spec).unwrap_err();
    assert!(matches!(error, EngineError::SocketInUse { .. }), "{error}");
    let dead = other.socket("disk");
    drop(std::os::unix::net::UnixListener::bind(&dead).unwrap());
    other.engine.export(&other.spec("disk")).unwrap();
    Guest::builder()
        .connect(dead)
        .unwrap()
        .queue(0)
        .flush()
        .unwrap();
}

#[test]
fn front_end_of_another_project_does_verified_io() {
    let (bench, _device) = Bench::malloc();
    for queues in [1, 4] {
        let plan = ForeignPlan {
            queues,
            ..ForeignPlan::default()
        };
        let first = 8192 * queues as u64;
        let report = verified_io(bench.socket("disk"), first..first + 8192, plan).unwrap();
        report.assert_clean();
    }
}
