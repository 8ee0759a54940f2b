//! Guest memory is cut off under its disk: that guest's session ends, the process and everybody else go on.
#![allow(clippy::unwrap_used, clippy::cast_possible_truncation)]

mod common;

use common::{Bench, SIZE, eventually, pattern};
use holdfast_bdev::{Malloc, Uring};
use holdfast_testkit::frontend::{Guest, Layout, Op};
use std::path::PathBuf;
use std::sync::Arc;

/// Files behind the disks, gone with this value.
struct Files {
    file: PathBuf,
    mapped: PathBuf,
}

impl Drop for Files {
    fn drop(&mut self) {
        for path in [&self.file, &self.mapped] {
            let _ = std::fs::remove_file(path);
        }
    }
}

fn disks(disk: &str) -> (Bench, Files) {
    let bench = Bench::empty();
    let files = Files {
        file: std::env::current_exe().unwrap().with_file_name(disk),
        mapped: format!("/dev/shm/{}-{disk}", std::process::id()).into(),
    };
    for (name, path) in [("file", &files.file), ("mapped", &files.mapped)] {
        let _ = std::fs::remove_file(path);
        bench.serve(name, Arc::new(Uring::create(path, SIZE).unwrap()));
    }
    for name in ["memory", "neighbour"] {
        bench.serve(name, Arc::new(Malloc::new(SIZE, 512).unwrap()));
    }
    (bench, files)
}

/// A file in memory is cut short under its disk, which faults where it is served, and is whole again.
fn cut_short_and_mend(files: &Files, guest: &mut Guest, offset: u64) {
    let file = std::fs::OpenOptions::new().write(true).open(&files.mapped);
    let file = file.unwrap();
    file.set_len(offset).unwrap();
    assert!(guest.queue(0).read(offset, 4096).is_err());
    file.set_len(SIZE).unwrap();
    assert_eq!(guest.queue(0).read(offset, 4096).unwrap(), [0; 4096]);
}

#[test]
fn memory_cut_off_under_load_ends_its_own_session_only() {
    let (bench, files) = disks("vanish.disk");
    let mut neighbour = Guest::builder()
        .queues(2)
        .connect(bench.socket("neighbour"))
        .unwrap();
    for round in 0..20u8 {
        for name in ["memory", "file", "mapped"] {
            let builder = Guest::builder()
                .queues(2)
                .regions(2)
                .sealed(false)
                .inflight();
            let mut victim = builder.connect(bench.socket(name)).unwrap();
            let offset = u64::from(round) * 4096;
            victim
                .queue(0)
                .write(offset, &pattern(round, 4096))
                .unwrap();
            for at in 0..64 {
                let read = Op::Read {
                    offset: at * 4096,
                    len: 4096,
                };
                victim
                    .queue(at as usize % 2)
                    .submit(read, Layout::INDIRECT)
                    .unwrap();
            }
            victim.memory().cut_off().unwrap();
            for queue in victim.queues() {
                queue.kick_now().unwrap();
            }
            eventually("the victim is cut off", || {
                !bench.engine.export_info(name).unwrap().connected
            });
            drop(victim);
            neighbour
                .queue(1)
                .write(offset, &pattern(round, 4096))
                .unwrap();
            assert_eq!(
                neighbour.queue(0).read(offset, 4096).unwrap(),
                pattern(round, 4096)
            );
            let mut next = Guest::builder().connect(bench.socket(name)).unwrap();
            assert_eq!(
                next.queue(0).read(offset, 4096).unwrap(),
                pattern(round, 4096)
            );
            if name == "mapped" {
                cut_short_and_mend(&files, &mut next, offset);
            }
        }
    }
}

#[test]
fn sealed_memory_cannot_be_cut_off() {
    let (bench, _files) = disks("sealed.disk");
    let mut guest = Guest::builder().connect(bench.socket("memory")).unwrap();
    assert!(guest.memory().cut_off().is_err());
    guest.queue(0).flush().unwrap();
}
