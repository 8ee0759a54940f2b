//! What may be opened and by whom: refusals, the lock, creation, growth.
#![allow(clippy::unwrap_used)]

mod support;

use holdfast_bdev::{BdevError, BlockDevice, Io, IoStatus, Op, Uring, UringOptions, from_spec};
use std::fs::File;
use std::path::Path;
use support::{
    Bench, KINDS, Skewed, TempFile, disk_folder, memory_file, open, pattern, resize, uring_file,
};

/// The flags of the open file description of `path` in this process.
fn open_flags(path: &Path) -> i32 {
    let descriptors = std::fs::read_dir("/proc/self/fd").unwrap();
    let number = descriptors
        .filter_map(|entry| Some(entry.ok()?.path()))
        .find(|link| std::fs::read_link(link).is_ok_and(|target| target == path))
        .expect("the file is open");
    let number = number.file_name().unwrap().to_string_lossy().into_owned();
    let info = std::fs::read_to_string(format!("/proc/self/fdinfo/{number}")).unwrap();
    let flags = info
        .lines()
        .find_map(|line| line.strip_prefix("flags:"))
        .unwrap();
    i32::from_str_radix(flags.trim(), 8).unwrap()
}

#[test]
fn file_on_a_disk_bypasses_the_page_cache() {
    let file = uring_file(1 << 20);
    let direct = open_flags(&file.path) & libc::O_DIRECT != 0;
    let folder = rustix::fs::statfs(file.path.parent().unwrap()).unwrap();
    if u64::try_from(folder.f_type) == Ok(0x0102_1994) {
        eprintln!("The build folder is on tmpfs: O_DIRECT is not what it is on a disk");
        return;
    }
    assert!(direct, "O_DIRECT is off");
    assert_eq!(file.device.info().block_size, 512);
}

#[test]
fn file_without_o_direct_works_through_the_page_cache() {
    // A memory file system, which takes buffers of any alignment whether it accepts O_DIRECT or not.
    let folder = tempfile::tempdir_in("/dev/shm").unwrap();
    let device = Uring::create(folder.path().join("disk"), 1 << 20).unwrap();
    for kind in KINDS {
        let mut bench = Bench::new(&device, kind);
        let data = pattern(9216, 1);
        for op in [
            Op::WriteZeroes { may_unmap: false },
            Op::WriteZeroes { may_unmap: true },
        ] {
            assert_eq!(
                bench.transfer(Op::Write, 512, &mut Skewed::of(&data, 3), &[100]),
                IoStatus::Ok
            );
            assert_eq!(bench.read(512, 9216), data);
            assert_eq!(bench.plain(op, 512, 9216), IoStatus::Ok, "{kind:?} {op:?}");
            assert!(bench.read(512, 9216).iter().all(|byte| *byte == 0));
        }
        assert_eq!(bench.plain(Op::Flush, 0, 0), IoStatus::Ok);
    }
}

#[test]
fn second_open_is_refused_and_names_the_holder() {
    let file = uring_file(1 << 20);
    let error = open(&file.path).unwrap_err();
    assert!(matches!(error, BdevError::InUse { .. }), "{error}");
    let text = error.to_string();
    assert!(text.contains(&file.path.display().to_string()), "{text}");
    assert!(
        text.contains(&format!("by process {}", std::process::id())),
        "{text}"
    );
}

#[test]
fn lock_is_free_after_the_last_clone_is_gone() {
    for file in [uring_file(1 << 20), memory_file(1 << 20)] {
        frees_its_lock(file);
    }
}

fn frees_its_lock(file: TempFile) {
    let clone = file.device.clone();
    drop(file.device);
    assert!(matches!(open(&file.path), Err(BdevError::InUse { .. })));
    drop(clone);
    open(&file.path).unwrap();
}

#[test]
fn lock_is_kept_while_a_request_is_under_way() {
    let file = uring_file(1 << 20);
    let mut buffer = Skewed::new(4096, 0);
    let array = buffer.iovecs(&[]);
    let mut bench = Bench::new(&file.device, holdfast_bdev::DriverKind::Uring);
    let token = bench.token();
    // SAFETY: buffer and array outlive `take`.
    bench.submit(unsafe { Io::with_buffers(Op::Read, 0, &array, token) });
    let (mut driver, channel) = (bench.driver, bench.channel);
    drop(channel);
    drop(file.device);
    assert!(
        matches!(open(&file.path), Err(BdevError::InUse { .. })),
        "nobody has waited yet"
    );
    let mut events = holdfast_bdev::Events::default();
    driver.wait(&mut events, Some(support::DEADLINE)).unwrap();
    assert_eq!(events.completions[0].status, IoStatus::Ok);
    open(&file.path).unwrap();
}

#[test]
fn what_is_no_file_or_device_is_refused_by_name() {
    let folder = disk_folder();
    let path = folder.path();
    let pipe = path.join("pipe");
    rustix::fs::mknodat(
        rustix::fs::CWD,
        &pipe,
        rustix::fs::FileType::Fifo,
        rustix::fs::Mode::RUSR,
        0,
    )
    .unwrap();
    let socket = path.join("socket");
    let _listener = std::os::unix::net::UnixListener::bind(&socket).unwrap();
    let cases = [
        (path, "a folder"),
        (&pipe, "a pipe"),
        (&socket, "a socket"),
        (Path::new("/dev/null"), "a character device"),
    ];
    for (path, expected) in cases {
        match open(path) {
            Err(BdevError::NotAFileOrDevice { what, .. }) => assert_eq!(what, expected),
            other => panic!("{path:?}: {other:?}"),
        }
    }
    assert!(matches!(
        open(&path.join("missing")),
        Err(BdevError::Open { .. })
    ));
}

#[test]
fn file_of_less_than_a_block_is_too_small() {
    let folder = disk_folder();
    for size in [0, 1, 511] {
        let path = folder.path().join(size.to_string());
        File::create(&path).unwrap().set_len(size).unwrap();
        match open(&path) {
            Err(BdevError::TooSmall {
                size: found,
                block_size: 512,
                ..
            }) => {
                assert_eq!(found, size);
            }
            other => panic!("{size}: {other:?}"),
        }
    }
}

#[test]
fn file_that_ends_inside_a_block_is_used_up_to_there() {
    let folder = disk_folder();
    let path = folder.path().join("odd");
    File::create(&path).unwrap().set_len(5000).unwrap();
    let info = open(&path).unwrap().info();
    assert_eq!((info.block_size, info.size_bytes), (512, 4608));
    let options = UringOptions {
        block_size: Some(4096),
        ..UringOptions::default()
    };
    let info = Uring::open(&path, options).unwrap().info();
    assert_eq!((info.block_size, info.size_bytes), (4096, 4096));
    let options = UringOptions {
        block_size: Some(1024),
        ..UringOptions::default()
    };
    assert!(matches!(
        Uring::open(&path, options),
        Err(BdevError::Invalid { .. })
    ));
}

#[test]
fn create_refuses_what_exists_and_leaves_it_alone() {
    let folder = disk_folder();
    let path = folder.path().join("disk");
    std::fs::write(&path, [7; 1024]).unwrap();
    let error = Uring::create(&path, 1 << 20).unwrap_err();
    assert!(matches!(error, BdevError::Open { .. }), "{error}");
    assert_eq!(std::fs::read(&path).unwrap(), [7; 1024]);
    for size in [0, 1, 1000, 1 << 60] {
        let path = folder.path().join("bad");
        assert!(
            matches!(Uring::create(&path, size), Err(BdevError::Invalid { .. })),
            "{size}"
        );
        assert!(!path.exists());
    }
}

#[test]
fn created_file_is_sparse_and_private() {
    let file = uring_file(1 << 30);
    let stat = rustix::fs::stat(&file.path).unwrap();
    assert_eq!(stat.st_size, 1 << 30);
    assert!(
        stat.st_blocks < 2048,
        "{} blocks are allocated",
        stat.st_blocks
    );
    assert_eq!(stat.st_mode & 0o777, 0o600);
}

#[test]
fn discarded_space_goes_back_to_the_file_system() {
    for file in [uring_file(4 << 20), memory_file(4 << 20)] {
        gives_space_back(file);
    }
}

fn gives_space_back(file: TempFile) {
    let allocated = || rustix::fs::stat(&file.path).unwrap().st_blocks;
    for kind in KINDS {
        let mut bench = Bench::new(&file.device, kind);
        assert_eq!(bench.write(0, &pattern(4 << 20, 1)), IoStatus::Ok);
        let full = allocated();
        assert_eq!(bench.plain(Op::Discard, 0, 2 << 20), IoStatus::Ok);
        assert!(allocated() < full, "{kind:?}");
    }
}

#[test]
fn grown_file_is_served_by_open_channels_after_a_refresh() {
    for file in [uring_file(1 << 20), memory_file(1 << 20)] {
        grows(file);
    }
}

fn grows(file: TempFile) {
    for (round, kind) in KINDS.into_iter().enumerate() {
        let mut bench = Bench::new(&file.device, kind);
        let end = file.device.info().size_bytes;
        assert_eq!(bench.write(end, &[1; 512]), IoStatus::OutOfRange);
        resize(&file.path, end + 4096 + 100);
        assert_eq!(
            bench.write(end, &[1; 512]),
            IoStatus::OutOfRange,
            "not before the refresh"
        );
        let info = file.device.refresh().unwrap();
        assert_eq!(info.size_bytes, (end + 4096 + 100) / 512 * 512);
        assert_eq!(bench.write(end, &[1; 512]), IoStatus::Ok, "round {round}");
        resize(&file.path, info.size_bytes);
    }
}

#[test]
fn file_truncated_by_somebody_else_fails_reads_past_its_end() {
    for file in [uring_file(1 << 20), memory_file(1 << 20)] {
        fails_past_its_end(file);
    }
}

fn fails_past_its_end(file: TempFile) {
    resize(&file.path, 4096);
    for kind in KINDS {
        let mut bench = Bench::new(&file.device, kind);
        let mut buffer = Skewed::new(8192, 0);
        // Half of it is there: the rest must not pass for data.
        assert_eq!(
            bench.transfer(Op::Read, 0, &mut buffer, &[]),
            IoStatus::Failed(libc::EIO)
        );
        assert_eq!(bench.read(0, 4096), [0; 4096]);
    }
    assert!(matches!(
        file.device.read_at(4096, &mut [0]),
        Err(BdevError::Io { .. })
    ));
    assert_eq!(
        file.device.refresh().unwrap().size_bytes,
        1 << 20,
        "a size never shrinks"
    );
}

#[test]
fn spec_opens_the_file_it_names() {
    let file = uring_file(1 << 20);
    drop(file.device);
    let spec = format!(
        "uring:path={},readonly,block_size=4096",
        file.path.display()
    );
    let info = from_spec(&spec).unwrap().info();
    assert_eq!(
        (info.kind, info.block_size, info.read_only),
        ("uring", 4096, true)
    );
}
