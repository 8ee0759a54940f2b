//! What others leave on drives is named and never touched; a pool that was written over is not opened, and once the intruder
//! is wiped, free space is not believed to be zero.

#![allow(clippy::unwrap_used)]

mod support;

use holdfast_bdev::{BlockDevice, Malloc};
use holdfast_pool::{Pool, PoolError};
use std::io::{Read, Write};
use std::process::{Command, Stdio};
use std::sync::Arc;
use support::{MIB, SIZE, blank, ends, options, pooled, refused};

/// What is named, where the bytes stand, and the bytes, from the formats' public descriptions.
type Trace = (&'static str, u64, &'static [u8]);

const ZFS_UBERBLOCK: &[u8] = &[0x0c, 0xb1, 0xba, 0, 0, 0, 0, 0];
const RAID: &[u8] = &[0xfc, 0x4e, 0x2b, 0xa9];
const BCACHE: &[u8] = &[0xc6, 0x85, 0x73, 0xf6, 0x4e, 0x1a, 0x45, 0xca];
const BCACHEFS: &[u8] = &[0xc6, 0x85, 0x73, 0xf6, 0x66, 0xce, 0x90, 0xa9];
const MBR: &[u8] = &[0x55, 0xaa];

const HEAD: [Trace; 33] = [
    ("GPT partition table", 512, b"EFI PART"),
    ("GPT partition table", 4096, b"EFI PART"),
    ("boot sector", 510, MBR),
    ("LUKS", 0, b"LUKS\xba\xbe"),
    ("LUKS", 0x4000, b"SKUL\xba\xbe"),
    ("ext2, ext3 or ext4", 1080, b"\x53\xef"),
    ("XFS", 0, b"XFSB"),
    ("btrfs", 65600, b"_BHRfS_M"),
    ("bcachefs", 4120, BCACHEFS),
    ("f2fs", 1024, b"\x10\x20\xf5\xf2"),
    ("NTFS", 3, b"NTFS    "),
    ("exFAT", 3, b"EXFAT   "),
    ("FAT file system", 54, b"FAT16   "),
    ("FAT file system", 82, b"FAT32   "),
    ("ISO 9660", 32769, b"CD001"),
    ("squashfs", 0, b"hsqs"),
    ("LVM physical volume", 0, b"LABELONE"),
    ("LVM physical volume", 512, b"LABELONE"),
    ("LVM physical volume", 1536, b"LABELONE"),
    ("Linux RAID", 0, RAID),
    ("Linux RAID", 4096, RAID),
    ("swap", 4086, b"SWAPSPACE2"),
    ("swap", 65526, b"SWAPSPACE2"),
    ("bcache device", 4120, BCACHE),
    ("Stratis", 516, b"!Stra0tis\x86\xff\x02^\x41rh"),
    ("VDO", 0, b"dmvdo001"),
    ("Ceph OSD", 0, b"bluestore block device\n"),
    ("SPDK blobstore", 0, b"SPDKBLOB"),
    ("ZFS", 128 << 10, ZFS_UBERBLOCK),
    ("ZFS", (255 << 10) + (256 << 10), ZFS_UBERBLOCK),
    ("qcow2", 0, b"QFI\xfb"),
    ("VHDX", 0, b"vhdxfile"),
    ("LVM physical volume", 1024, b"LABELONE"),
];

/// Left at the end of a drive whose head was wiped.
const TAIL: [Trace; 6] = [
    ("backup of a GPT", SIZE - 512, b"EFI PART"),
    ("backup of a GPT", SIZE - 4096, b"EFI PART"),
    ("Linux RAID", SIZE - (64 << 10), RAID),
    ("Linux RAID", SIZE - 8192, RAID),
    ("ZFS", SIZE - (128 << 10), ZFS_UBERBLOCK),
    ("ZFS", SIZE - (384 << 10), ZFS_UBERBLOCK),
];

#[test]
fn foreign_data_is_named_and_not_touched() {
    for (name, at, trace) in HEAD.into_iter().chain(TAIL) {
        let drive = blank();
        drive.write_at(at, trace).unwrap();
        let message = refused(&drive);
        assert!(message.contains(name), "{name} at {at}: {message}");
        assert!(message.contains("force"), "{message}");
    }
}

#[test]
fn forced_format_leaves_no_trace_of_foreign_data() {
    for (name, at, trace) in HEAD.into_iter().chain(TAIL) {
        let drive = blank();
        drive.write_at(at, trace).unwrap();
        let pool = Pool::format(drive.clone(), options(true)).unwrap();
        // "Zeroed" is not believed where something was found.
        assert_eq!(pool.usage().erase_pending_bytes, 16 * MIB, "{name}");
        let mut there = vec![0; trace.len()];
        drive.read_at(at, &mut there).unwrap();
        assert_ne!(there, trace, "{name} at {at}");
        assert!(Pool::open(drive).unwrap().mended().is_empty());
    }
}

#[test]
fn pool_that_was_written_over_is_not_opened_until_it_is_wiped() {
    for (name, at, trace) in HEAD {
        let drive = pooled();
        drive.write_at(at, trace).unwrap();
        let message = refused(&drive);
        assert!(
            message.contains(name) && message.contains("Holdfast pool"),
            "{name} at {at}: {message}"
        );
        // As `wipefs` does: only the magic goes, whatever else was written stays.
        drive.write_at(at, &vec![0; trace.len()]).unwrap();
        drive.write_at(at + 16, b"x").unwrap();
        let pool = Pool::open(drive.clone()).unwrap();
        assert_eq!(pool.mended().len(), 1, "{name}: {:?}", pool.mended());
        let usage = pool.usage();
        assert_eq!((usage.volumes, usage.free_bytes), (2, 0), "{name}");
        assert!(Pool::open(drive).unwrap().mended().is_empty(), "{name}");
    }
}

#[test]
fn partition_kinds_are_told_apart() {
    for (kind, name) in [(0x83, "MBR partition table"), (0xee, "GPT")] {
        let drive = blank();
        drive.write_at(446 + 4, &[kind]).unwrap();
        drive.write_at(510, MBR).unwrap();
        let message = refused(&drive);
        assert!(message.contains(name), "{message}");
    }
}

#[test]
fn unknown_data_is_refused_wherever_it_stands() {
    for at in [0, 511, 700_000, 4 << 20, (6 << 20) - 1] {
        let drive = blank();
        drive.write_at(at, b"?").unwrap();
        let message = refused(&drive);
        let place = format!("a kind Holdfast does not know, from byte {at} on");
        assert!(message.contains(&place), "{message}");
    }
}

#[test]
fn guest_cannot_make_its_pool_look_foreign() {
    let drive = pooled();
    let pool = Pool::open(drive.clone()).unwrap();
    pool.allocate("hostile", pool.usage().free_bytes).unwrap();
    for volume in pool.volumes() {
        for extent in volume.extents {
            let len = usize::try_from(extent.length_bytes).unwrap();
            drive
                .write_at(extent.offset_bytes, &RAID.repeat(len / RAID.len()))
                .unwrap();
        }
    }
    assert!(Pool::open(drive.clone()).unwrap().mended().is_empty());
    // What hosts assemble by is the last MiB, and nobody owns it.
    let mut tail = vec![0; 1 << 20];
    drive.read_at(SIZE - MIB, &mut tail).unwrap();
    assert!(tail.iter().all(|byte| *byte == 0));
}

/// A command that makes something of a file, what goes into it, and what must be named.
type Maker = (
    &'static str,
    &'static [&'static str],
    &'static str,
    &'static str,
);

/// The first two come with every Debian, Ubuntu and Fedora; the others are tried where they are installed.
const MAKERS: [Maker; 9] = [
    ("mkfs.ext4", &["-q", "-F"], "", "ext4"),
    ("mkswap", &["-f"], "", "swap"),
    ("mkfs.xfs", &["-q", "-f"], "", "XFS"),
    ("mkfs.btrfs", &["-q", "-f"], "", "btrfs"),
    ("mkfs.vfat", &[], "", "FAT"),
    ("sfdisk", &["-q"], "label: gpt\n,\n", "GPT"),
    ("sfdisk", &["-q"], "label: dos\n,\n", "MBR"),
    ("cryptsetup", LUKS1, "secret", "LUKS"),
    ("cryptsetup", LUKS2, "secret", "LUKS"),
];
const LUKS1: &[&str] = &[
    "luksFormat",
    "-q",
    "--type=luks1",
    "--pbkdf-force-iterations=1000",
    "-d-",
];
const LUKS2: &[&str] = &[
    "luksFormat",
    "-q",
    "--type=luks2",
    "--pbkdf=pbkdf2",
    "--pbkdf-force-iterations=1000",
    "-d-",
];

#[test]
fn work_of_real_tools_is_named_on_blank_drives_and_on_pools() {
    let mut missing = Vec::new();
    for (number, maker) in MAKERS.iter().enumerate() {
        // XFS refuses to be smaller than 300 MiB, the others are content with less.
        let mib = if maker.3 == "XFS" { 320 } else { 128 };
        for drive in [wide(mib, false), wide(mib, true)] {
            match after(maker, &drive) {
                Some(made) => {
                    let message = refused(&made);
                    assert!(message.contains(maker.3), "{maker:?}: {message}");
                }
                None => missing.push((number, maker.0)),
            }
        }
    }
    println!("not installed: {missing:?}");
    assert!(
        missing.iter().all(|(number, _)| *number > 1),
        "install e2fsprogs and util-linux: {missing:?}"
    );
}

fn wide(mib: u64, pool: bool) -> Arc<Malloc> {
    let drive = Arc::new(Malloc::new(mib * MIB, 512).unwrap());
    if pool {
        Pool::format(drive.clone(), options(false)).unwrap();
    }
    drive
}

/// The drive as a tool leaves it; `None` if the tool is not installed.
fn after((tool, args, input, _): &Maker, drive: &Arc<Malloc>) -> Option<Arc<Malloc>> {
    let mut file = tempfile::NamedTempFile::new().unwrap();
    let size_bytes = drive.info().size_bytes;
    file.as_file().set_len(size_bytes).unwrap();
    // Of a fresh pool only the head is not zero.
    file.write_all(&ends(&**drive)[..6 << 20]).unwrap();
    let path = std::env::var("PATH").unwrap_or_default();
    let child = Command::new(tool)
        .args(*args)
        .arg(file.path())
        .env("PATH", format!("{path}:/usr/sbin:/sbin"))
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn();
    let mut child = match child {
        Ok(child) => child,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return None,
        Err(error) => panic!("{tool}: {error}"),
    };
    // A tool that reads nothing may be gone already.
    drop(child.stdin.take().unwrap().write_all(input.as_bytes()));
    let output = child.wait_with_output().unwrap();
    let complaint = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{tool}: {complaint}");
    let made = Arc::new(Malloc::new(size_bytes, 512).unwrap());
    let mut made_file = std::fs::File::open(file.path()).unwrap();
    let mut part = vec![0; 1 << 20];
    for at in (0..size_bytes).step_by(1 << 20) {
        made_file.read_exact(&mut part).unwrap();
        if part.iter().any(|byte| *byte != 0) {
            made.write_at(at, &part).unwrap();
        }
    }
    Some(made)
}

#[test]
fn forced_format_over_a_pool_gives_another_pool() {
    let drive = pooled();
    let old = Pool::open(drive.clone()).unwrap().uuid();
    let refusal = Pool::format(drive.clone(), options(false)).unwrap_err();
    assert!(matches!(refusal, PoolError::AlreadyAPool { uuid, .. } if uuid == old));
    assert!(refusal.to_string().contains(&old.to_string()));
    let new = Pool::format(drive, options(true)).unwrap();
    assert_ne!(new.uuid(), old);
    assert_eq!((new.usage().volumes, new.usage().free_bytes), (0, 0));
}
