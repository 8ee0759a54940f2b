//! Recognises what others leave on a drive, so that nothing of theirs is ever taken for free space.

use crate::bytes::{u16_at, u32_at, u64_at};

/// A name, where its magic stands, and the magic.
type Magic = (&'static str, usize, &'static [u8]);

/// Magic numbers at fixed places from the start of the device.
const HEAD: &[Magic] = &[
    ("a GPT partition table", 512, b"EFI PART"),
    ("a GPT partition table", 4096, b"EFI PART"),
    ("a LUKS encrypted volume", 0, b"LUKS\xba\xbe"),
    ("a LUKS encrypted volume", 0x4000, b"SKUL\xba\xbe"),
    ("an XFS file system", 0, b"XFSB"),
    ("a btrfs file system", 65536 + 64, b"_BHRfS_M"),
    ("an LVM physical volume", 0, b"LABELONE"),
    ("an LVM physical volume", 512, b"LABELONE"),
    ("an LVM physical volume", 1024, b"LABELONE"),
    ("an LVM physical volume", 1536, b"LABELONE"),
    ("swap space", 4096 - 10, b"SWAPSPACE2"),
    ("swap space", 4096 - 10, b"SWAP-SPACE"),
    ("swap space", 65536 - 10, b"SWAPSPACE2"),
    ("a member of a Linux RAID", 0, b"\xfc\x4e\x2b\xa9"),
    ("a member of a Linux RAID", 4096, b"\xfc\x4e\x2b\xa9"),
    ("a Ceph OSD", 0, b"bluestore block device"),
    ("an SPDK blobstore", 0, b"SPDKBLOB"),
    ("an NTFS file system", 3, b"NTFS    "),
    ("an exFAT file system", 3, b"EXFAT   "),
    ("a FAT file system", 54, b"FAT1"),
    ("a FAT file system", 82, b"FAT32"),
    ("an f2fs file system", 1024, b"\x10\x20\xf5\xf2"),
    (
        "a bcache device",
        4096 + 24,
        b"\xc6\x85\x73\xf6\x4e\x1a\x45\xca",
    ),
    (
        "a bcachefs file system",
        4096 + 24,
        b"\xc6\x85\x73\xf6\x66\xce\x90\xa9",
    ),
    ("a Stratis pool member", 512 + 4, b"!Stra0tis\x86\xff\x02"),
    ("a VDO volume", 0, b"dmvdo001"),
    ("an ISO 9660 image", 32769, b"CD001"),
    ("a squashfs image", 0, b"hsqs"),
    ("a qcow2 image", 0, b"QFI\xfb"),
    ("a VHDX image", 0, b"vhdxfile"),
];

const ZFS_UBERBLOCK: u64 = 0x00ba_b10c;
const ZFS_LABEL_BYTES: usize = 256 << 10;
const RAID: u32 = 0xa92b_4efc;

/// What the first MiB shows, if it shows anything known.
pub(crate) fn in_head(head: &[u8]) -> Option<&'static str> {
    let at_fixed_place = HEAD.iter().find(|(_, at, magic)| {
        head.get(*at..)
            .is_some_and(|bytes| bytes.starts_with(magic))
    });
    if let Some((name, ..)) = at_fixed_place {
        return Some(name);
    }
    if head.len() > 1082 && u16_at(head, 1024 + 56) == 0xef53 {
        return Some("an ext2, ext3 or ext4 file system");
    }
    if [0, ZFS_LABEL_BYTES].into_iter().any(|at| is_zfs(head, at)) {
        return Some("a ZFS pool member");
    }
    // Last, because many of the above end their first sector like a boot sector.
    mbr(head)
}

/// What the last MiB of the device shows: backups that outlive an overwritten head.
pub(crate) fn in_tail(tail: &[u8], device_bytes: u64) -> Option<&'static str> {
    let start = device_bytes - tail.len() as u64;
    let at = |offset: u64| usize::try_from(offset.checked_sub(start)?).ok();
    let gpt = [512, 4096].iter().any(|block| {
        let last = device_bytes.checked_sub(*block).and_then(at);
        last.and_then(|last| tail.get(last..))
            .is_some_and(|bytes| bytes.starts_with(b"EFI PART"))
    });
    if gpt {
        return Some("the backup of a GPT partition table");
    }
    let old_raid = (device_bytes & !0xffff).checked_sub(0x10000);
    let raid = (device_bytes / 512)
        .checked_sub(16)
        .map(|sector| (sector & !7) * 512);
    let is_raid = [old_raid, raid]
        .into_iter()
        .flatten()
        .filter_map(at)
        .any(|at| u32_at(tail, at) == RAID);
    if is_raid {
        return Some("a member of a Linux RAID");
    }
    let labels_end = device_bytes / ZFS_LABEL_BYTES as u64 * ZFS_LABEL_BYTES as u64;
    let zfs = [1, 2]
        .into_iter()
        .filter_map(|label| at(labels_end.checked_sub(label * ZFS_LABEL_BYTES as u64)?))
        .any(|at| is_zfs(tail, at));
    zfs.then_some("a ZFS pool member")
}

/// Whether a ZFS label stands at `label`: a ring of uberblocks of at least 1 KiB fills its second half.
fn is_zfs(bytes: &[u8], label: usize) -> bool {
    (label + ZFS_LABEL_BYTES / 2..label + ZFS_LABEL_BYTES)
        .step_by(1024)
        .any(|at| u64_at(bytes, at) == ZFS_UBERBLOCK)
}

/// A partition table of the old kind: the boot signature and at least one plausible partition.
fn mbr(head: &[u8]) -> Option<&'static str> {
    if head.get(510..512)? != [0x55, 0xaa] {
        return None;
    }
    let kinds: Vec<u8> = (0..4).map(|entry| head[446 + entry * 16 + 4]).collect();
    if kinds.contains(&0xee) {
        return Some("a GPT partition table");
    }
    Some(if kinds.iter().any(|kind| *kind != 0) {
        "an MBR partition table"
    } else {
        "a boot sector"
    })
}
