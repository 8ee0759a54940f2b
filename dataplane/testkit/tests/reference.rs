//! The front end and the reference engine against each other: neither has a line in common with Holdfast's ring.
#![allow(clippy::unwrap_used, clippy::cast_possible_truncation)]

use holdfast_bdev::{BlockDevice, Malloc};
use holdfast_testkit::frontend::{Guest, GuestError, Layout, Op, Protocol, Range, feature, status};
use holdfast_testkit::reference::{ReferenceConfig, ReferenceEngine};
use std::sync::Arc;
use std::time::Duration;

struct Served {
    engine: ReferenceEngine,
    device: Malloc,
    dir: tempfile::TempDir,
}

fn serve() -> Served {
    let dir = tempfile::tempdir().unwrap();
    let device = Malloc::new(64 << 20, 512).unwrap();
    let shared: Arc<dyn BlockDevice> = Arc::new(device.clone());
    let config = ReferenceConfig::default();
    let engine = ReferenceEngine::serve(dir.path().join("v.sock"), shared, config).unwrap();
    Served {
        engine,
        device,
        dir,
    }
}

impl Served {
    fn path(&self) -> std::path::PathBuf {
        self.dir.path().join("v.sock")
    }
}

fn pattern(seed: u8, len: usize) -> Vec<u8> {
    (0..len)
        .map(|i| (i as u8).wrapping_mul(31).wrapping_add(seed) ^ (i >> 8) as u8)
        .collect()
}

#[test]
fn every_kind_of_request_is_served() {
    let served = serve();
    let mut guest = Guest::builder().queues(2).connect(served.path()).unwrap();
    let config = guest.config().unwrap();
    assert_eq!((config.capacity_sectors, config.num_queues), (64 << 11, 4));
    let data = pattern(1, 8192);
    guest.queue(0).write(4096, &data).unwrap();
    guest.queue(0).flush().unwrap();
    assert_eq!(guest.queue(1).read(4096, 8192).unwrap(), data);
    let mut direct = vec![0; 8192];
    served.device.read_at(4096, &mut direct).unwrap();
    assert_eq!(direct, data, "what the guest wrote is where it wrote it");
    guest.queue(1).write_zeroes(8, 8).unwrap();
    guest.queue(1).discard(16, 8).unwrap();
    assert_eq!(guest.queue(0).read(4096, 8192).unwrap(), vec![0; 8192]);
    assert_eq!(guest.queue(0).id().unwrap(), "reference");
}

#[test]
fn every_layout_and_feature_set_carries_the_same_bytes() {
    let served = serve();
    let layouts = [
        Layout::DIRECT,
        Layout::INDIRECT,
        Layout::ODD,
        Layout {
            indirect: false,
            ..Layout::ODD
        },
        Layout {
            pieces: 16,
            ..Layout::DIRECT
        },
        Layout {
            split_header: true,
            ..Layout::INDIRECT
        },
        Layout {
            joined: true,
            ..Layout::DIRECT
        },
        Layout {
            shift: 512,
            odd: true,
            pieces: 7,
            ..Layout::INDIRECT
        },
    ];
    for without in [
        0,
        feature::EVENT_IDX,
        feature::INDIRECT,
        feature::PROTOCOL_FEATURES,
    ] {
        let builder = Guest::builder().regions(3).queue_size(64).without(without);
        let mut guest = builder.connect(served.path()).unwrap();
        assert_eq!(guest.features() & without, 0);
        for (i, layout) in layouts.into_iter().enumerate() {
            let offset = i as u64 * 65536;
            let data = pattern(i as u8, 12288);
            let write = Op::Write {
                offset,
                data: data.clone(),
            };
            let done = guest.queue(0).call(write, layout).unwrap();
            assert_eq!((done.status, done.used_len), (status::OK, 1), "{layout:?}");
            let read = Op::Read { offset, len: 12288 };
            let done = guest.queue(0).call(read, layout).unwrap();
            assert_eq!(
                (done.status, done.used_len),
                (status::OK, 12289),
                "{layout:?}"
            );
            assert_eq!(done.data, data, "{layout:?} without {without:#x}");
        }
    }
}

#[test]
fn queue_full_of_requests_is_answered_completely() {
    let served = serve();
    for polling in [false, true] {
        let mut guest = Guest::builder()
            .queue_size(128)
            .connect(served.path())
            .unwrap();
        let queue = guest.queue(0);
        queue.set_polling(polling);
        // More than 65536 elements, so that every position wraps.
        for round in 0..600 {
            for i in 0..128 {
                let op = Op::Read {
                    offset: (i * 512) % 4096,
                    len: 512,
                };
                queue.stage(op, Layout::INDIRECT).unwrap();
            }
            let full = queue.stage(Op::Flush, Layout::DIRECT).unwrap_err();
            assert!(matches!(full, GuestError::QueueFull { .. }), "{full}");
            queue.notify().unwrap();
            let done = queue.drain().unwrap();
            assert_eq!(done.len(), 128, "round {round}");
            assert!(
                done.iter()
                    .all(|d| d.status == status::OK && d.used_len == 513)
            );
        }
    }
}

#[test]
fn bad_requests_get_an_error_status() {
    let served = serve();
    let mut guest = Guest::builder().connect(served.path()).unwrap();
    let end = 64 << 20;
    let bad = [
        (
            Op::Read {
                offset: end,
                len: 512,
            },
            status::IOERR,
        ),
        (
            Op::Write {
                offset: end - 512,
                data: vec![1; 1024],
            },
            status::IOERR,
        ),
        (
            Op::Discard(vec![Range {
                sector: end / 512,
                sectors: 1,
                flags: 0,
            }]),
            status::IOERR,
        ),
        (
            Op::Discard(vec![Range {
                sector: 0,
                sectors: 1,
                flags: 1,
            }]),
            status::UNSUPP,
        ),
        (
            Op::Raw {
                kind: 77,
                sector: 0,
                data: vec![],
                room: 0,
            },
            status::UNSUPP,
        ),
        (
            Op::Raw {
                kind: 0,
                sector: 0,
                data: vec![],
                room: 100,
            },
            status::IOERR,
        ),
    ];
    for (op, expected) in bad {
        let name = op.to_string();
        assert_eq!(
            guest.queue(0).call(op, Layout::DIRECT).unwrap().status,
            expected,
            "{name}"
        );
    }
    let refused = guest.queue(0).read(end, 512).unwrap_err();
    assert!(
        matches!(
            refused,
            GuestError::Status {
                status: status::IOERR,
                ..
            }
        ),
        "{refused}"
    );
    guest.queue(0).read(0, 512).unwrap();
}

#[test]
fn queue_stops_and_restarts_where_it_stood() {
    let served = serve();
    let mut guest = Guest::builder().queues(2).connect(served.path()).unwrap();
    for _ in 0..5 {
        guest.queue(1).read(0, 512).unwrap();
    }
    assert_eq!(guest.stop_queue(1).unwrap(), 5);
    guest.queue(1).submit(Op::Flush, Layout::DIRECT).unwrap();
    let silent = guest
        .queue(1)
        .wait_for(Duration::from_millis(50))
        .unwrap_err();
    assert!(matches!(silent, GuestError::Timeout { .. }), "{silent}");
    guest.start_queue(1).unwrap();
    guest.queue(1).kick_now().unwrap();
    assert_eq!(guest.queue(1).drain().unwrap().len(), 1);
}

#[test]
fn guest_goes_on_after_the_back_end_hung_up() {
    let served = serve();
    let mut guest = Guest::builder().queues(2).connect(served.path()).unwrap();
    guest.queue(0).write(0, &pattern(9, 4096)).unwrap();
    served.engine.hang_up();
    guest
        .queue(0)
        .submit(
            Op::Read {
                offset: 0,
                len: 4096,
            },
            Layout::DIRECT,
        )
        .unwrap();
    guest.reconnect().unwrap();
    guest.queue(0).kick_now().unwrap();
    let done = guest.queue(0).drain().unwrap();
    assert_eq!((done.len(), &done[0].data), (1, &pattern(9, 4096)));
    guest.disconnect();
    guest.reconnect().unwrap();
    assert_eq!(guest.queue(1).read(0, 4096).unwrap(), pattern(9, 4096));
}

#[test]
fn device_reset_starts_from_zero() {
    let served = serve();
    let mut guest = Guest::builder().connect(served.path()).unwrap();
    guest.queue(0).read(0, 512).unwrap();
    guest.stop_queue(0).unwrap();
    guest.reset_device().unwrap();
    guest.start().unwrap();
    assert_eq!(guest.queue(0).used_position(), 0);
    guest.queue(0).read(0, 512).unwrap();
}

#[test]
fn region_added_at_run_time_is_used_and_removed() {
    let served = serve();
    let mut guest = Guest::builder().connect(served.path()).unwrap();
    assert!(guest.mem_slots() > 1);
    let at = guest.add_region(1 << 20).unwrap();
    guest.memory().write(at, b"here");
    guest.remove_region(at).unwrap();
    guest.queue(0).read(0, 512).unwrap();
    let unknown = guest.remove_region(at).unwrap_err();
    assert!(matches!(unknown, GuestError::Invalid { .. }), "{unknown}");
}

#[test]
fn memory_table_is_sent_at_once_without_slots() {
    let served = serve();
    let builder = Guest::builder()
        .regions(4)
        .protocol(Protocol::MQ | Protocol::CONFIG);
    let mut guest = builder.connect(served.path()).unwrap();
    guest.queue(0).write(0, &pattern(3, 512)).unwrap();
    assert_eq!(guest.queue(0).read(0, 512).unwrap(), pattern(3, 512));
}

#[test]
fn nobody_listening_is_an_error_at_the_deadline() {
    let dir = tempfile::tempdir().unwrap();
    let builder = Guest::builder().deadline(Duration::from_millis(20));
    let Err(error) = builder.connect(dir.path().join("nobody.sock")) else {
        panic!("connected to nobody");
    };
    assert!(matches!(error, GuestError::Connect { .. }), "{error}");
}

#[test]
fn back_end_that_never_answers_is_an_error_at_the_deadline() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("mute.sock");
    let _mute = std::os::unix::net::UnixListener::bind(&path).unwrap();
    let Err(error) = Guest::builder()
        .deadline(Duration::from_millis(20))
        .connect(path)
    else {
        panic!("a mute back end negotiated");
    };
    assert!(matches!(error, GuestError::Timeout { .. }), "{error}");
}
