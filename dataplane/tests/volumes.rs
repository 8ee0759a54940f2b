//! Volumes of a pool in use: made, grown under a running guest, given up, and found again by the next engine.
#![allow(clippy::unwrap_used, clippy::cast_possible_truncation)]

mod common;

use common::{Bench, pattern};
use holdfast_dataplane::{EngineError, ErrorKind, ExportSpec, PoolError, PoolSpec, Source};
use holdfast_testkit::frontend::Guest;
use holdfast_testkit::workload::{Plan, Workload};
use std::path::PathBuf;
use std::time::{Duration, Instant};

const MIB: u64 = 1 << 20;

/// A file for a pool, on a real file system; gone with the value.
struct PoolFile(PathBuf);

impl PoolFile {
    fn new(name: &str) -> PoolFile {
        let path = std::env::current_exe()
            .unwrap()
            .with_file_name(format!("volumes-{name}.pool"));
        let _ = std::fs::remove_file(&path);
        PoolFile(path)
    }

    fn spec(&self) -> PoolSpec {
        PoolSpec {
            name: "pool".into(),
            path: self.0.clone(),
            create_bytes: Some(64 * MIB),
            force: false,
            expect_uuid: None,
            identity: "test".into(),
        }
    }
}

impl Drop for PoolFile {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}

fn export(bench: &Bench, id: &str) -> ExportSpec {
    let source = Source::Volume {
        pool: "pool".into(),
        id: id.into(),
    };
    let spec = ExportSpec::new(id, source, bench.socket(id));
    bench.engine.export(&spec).unwrap();
    spec
}

#[test]
fn neighbours_on_one_pool_never_see_each_other() {
    let (bench, file) = (Bench::empty(), PoolFile::new("neighbours"));
    bench.engine.open_pool(&file.spec()).unwrap();
    let mut guests: Vec<(Guest, Workload)> = ["a", "b"]
        .iter()
        .zip(1..)
        .map(|(id, volume)| {
            bench.engine.create_volume("pool", id, 4 * MIB).unwrap();
            export(&bench, id);
            let guest = Guest::builder()
                .queues(2)
                .connect(bench.socket(id))
                .unwrap();
            (guest, Workload::new(Plan::default(), volume, 0..8192))
        })
        .collect();
    for _ in 0..5 {
        for (guest, workload) in &mut guests {
            workload.run(guest, 300).unwrap();
        }
    }
    for (_, workload) in &guests {
        workload.report().assert_clean();
    }
}

#[test]
fn volume_grows_under_its_guest_and_the_guest_is_told() {
    let (bench, file) = (Bench::empty(), PoolFile::new("grow"));
    bench.engine.open_pool(&file.spec()).unwrap();
    // A second volume behind it, so that growing takes another extent.
    for id in ["a", "b"] {
        bench.engine.create_volume("pool", id, 2 * MIB).unwrap();
    }
    export(&bench, "a");
    let mut guest = Guest::builder()
        .queues(2)
        .connect(bench.socket("a"))
        .unwrap();
    // A front end that starts without having asked, as one that comes back does, is told once to ask.
    let channel = guest.back_channel().unwrap();
    channel.wait_config_change(Duration::from_secs(10)).unwrap();
    guest
        .queue(0)
        .write(2 * MIB - 512, &pattern(1, 512))
        .unwrap();
    assert!(guest.queue(1).read(2 * MIB, 512).is_err(), "past the end");
    let grown = bench.engine.grow_volume("pool", "a", 5 * MIB).unwrap();
    assert_eq!((grown.size_bytes, grown.extents.len()), (5 * MIB, 2));
    guest
        .back_channel()
        .unwrap()
        .wait_config_change(Duration::from_secs(10))
        .unwrap();
    assert_eq!(guest.config().unwrap().capacity_sectors, 5 * MIB / 512);
    let across = pattern(7, 64 << 10);
    guest.queue(1).write(2 * MIB - (32 << 10), &across).unwrap();
    assert_eq!(
        guest.queue(0).read(2 * MIB - (32 << 10), 64 << 10).unwrap(),
        across
    );
    assert_eq!(
        guest.queue(0).read(5 * MIB - 512, 512).unwrap(),
        vec![0; 512]
    );
    assert_eq!(
        bench.engine.grow_volume("pool", "a", 5 * MIB).unwrap(),
        grown
    );
    assert_eq!(bench.engine.export_info("a").unwrap().size_bytes, 5 * MIB);
}

#[test]
fn volume_in_use_stays_and_a_deleted_one_is_erased_for_the_next_tenant() {
    let (bench, file) = (Bench::empty(), PoolFile::new("delete"));
    let capacity = bench
        .engine
        .open_pool(&file.spec())
        .unwrap()
        .usage
        .capacity_bytes;
    bench.engine.create_volume("pool", "old", capacity).unwrap();
    export(&bench, "old");
    let mut guest = Guest::builder().connect(bench.socket("old")).unwrap();
    guest.queue(0).write(MIB, &pattern(5, 64 << 10)).unwrap();
    drop(guest);
    let error = bench.engine.delete_volume("pool", "old").unwrap_err();
    assert!(
        error.to_string().contains("in use by export \"old\""),
        "{error}"
    );
    let error = bench.engine.close_pool("pool").unwrap_err();
    assert_eq!(error.kind(), ErrorKind::FailedPrecondition, "{error}");
    bench.engine.unexport("old").unwrap();
    assert!(bench.engine.delete_volume("pool", "old").unwrap());
    assert!(!bench.engine.delete_volume("pool", "old").unwrap());
    let deadline = Instant::now() + Duration::from_secs(30);
    assert_eq!(bench.engine.wait_erased("pool", deadline).unwrap(), 0);
    bench.engine.create_volume("pool", "new", capacity).unwrap();
    export(&bench, "new");
    let mut guest = Guest::builder().connect(bench.socket("new")).unwrap();
    assert_eq!(
        guest.queue(0).read(MIB, 64 << 10).unwrap(),
        vec![0; 64 << 10]
    );
}

#[test]
fn next_engine_finds_pool_and_volumes_and_nothing_is_formatted_twice() {
    let file = PoolFile::new("again");
    let mut first = None;
    for round in 0..3u8 {
        let bench = Bench::empty();
        let pool = bench.engine.open_pool(&file.spec()).unwrap();
        assert_eq!(
            bench.engine.open_pool(&file.spec()).unwrap().uuid,
            pool.uuid
        );
        assert_eq!(*first.get_or_insert(pool.uuid), pool.uuid);
        let made = bench.engine.create_volume("pool", "v", 3 * MIB).unwrap();
        assert_eq!(bench.engine.volumes("pool").unwrap(), [made]);
        export(&bench, "v");
        let mut guest = Guest::builder().connect(bench.socket("v")).unwrap();
        let expected = if round == 0 {
            vec![0; 512]
        } else {
            pattern(round - 1, 512)
        };
        assert_eq!(guest.queue(0).read(512, 512).unwrap(), expected);
        guest.queue(0).write(512, &pattern(round, 512)).unwrap();
    }
}

#[test]
fn pool_that_is_not_the_one_expected_is_refused_and_left_alone() {
    let file = PoolFile::new("wrong");
    let bench = Bench::empty();
    let there = bench.engine.open_pool(&file.spec()).unwrap();
    let in_use = bench
        .engine
        .open_pool(&PoolSpec {
            name: "other".into(),
            ..file.spec()
        })
        .unwrap_err();
    assert!(in_use.to_string().contains("in use"), "{in_use}");
    bench.engine.close_pool("pool").unwrap();
    let uuid = uuid::Uuid::from_u128(7);
    for spec in [
        PoolSpec {
            expect_uuid: Some(uuid),
            ..file.spec()
        },
        PoolSpec {
            identity: "another drive".into(),
            ..file.spec()
        },
    ] {
        let error = bench.engine.open_pool(&spec).unwrap_err();
        let wrong = matches!(
            &error,
            EngineError::Pool {
                source: PoolError::WrongPool { .. },
                ..
            }
        );
        assert!(wrong, "{error}");
    }
    assert_eq!(
        bench.engine.open_pool(&file.spec()).unwrap().uuid,
        there.uuid
    );
    bench.engine.close_pool("pool").unwrap();
    let blank = PoolFile::new("blank");
    std::fs::File::create(&blank.0)
        .unwrap()
        .set_len(64 * MIB)
        .unwrap();
    let expecting = PoolSpec {
        expect_uuid: Some(there.uuid),
        ..blank.spec()
    };
    let error = bench.engine.open_pool(&expecting).unwrap_err();
    assert!(
        matches!(
            &error,
            EngineError::Pool {
                source: PoolError::NotAPool,
                ..
            }
        ),
        "{error}"
    );
}

#[test]
fn names_that_are_not_there_are_named() {
    let bench = Bench::empty();
    let deadline = Instant::now();
    let errors = [
        bench.engine.pool("p").unwrap_err(),
        bench.engine.close_pool("p").unwrap_err(),
        bench.engine.create_volume("p", "v", MIB).unwrap_err(),
        bench.engine.grow_volume("p", "v", MIB).unwrap_err(),
        bench.engine.delete_volume("p", "v").unwrap_err(),
        bench.engine.wait_erased("p", deadline).unwrap_err(),
    ];
    for error in errors {
        assert_eq!(error.kind(), ErrorKind::NotFound);
        assert!(error.to_string().contains("pool named \"p\""), "{error}");
    }
}
