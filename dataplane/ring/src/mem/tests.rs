//! Regions and views: what is refused, what is found.
#![allow(unsafe_code, clippy::unwrap_used)] // Files of every kind come from the kernel.

use super::{MemError, MemRegion, MemView, RegionSpec};
use std::fs::File;
use std::io::Write;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::os::unix::fs::FileExt;
use std::sync::Arc;

const PAGE: u64 = 4096;
const USER: u64 = 0x7f00_0000_0000;

/// A memory file of `len` bytes, sealed against shrinking if asked.
fn memfd(len: u64, sealed: bool) -> File {
    // SAFETY: the name is a C string, and the flags are plain.
    let fd = unsafe { libc::memfd_create(c"test".as_ptr(), libc::MFD_ALLOW_SEALING) };
    assert!(fd >= 0);
    // SAFETY: the descriptor was just made, and nobody else has it.
    let file = File::from(unsafe { OwnedFd::from_raw_fd(fd) });
    file.set_len(len).unwrap();
    if sealed {
        // SAFETY: sealing has no memory effects.
        let done = unsafe { libc::fcntl(file.as_raw_fd(), libc::F_ADD_SEALS, libc::F_SEAL_SHRINK) };
        assert_eq!(done, 0);
    }
    file
}

fn spec(guest_addr: u64, size: u64, fd_offset: u64) -> RegionSpec {
    RegionSpec {
        guest_addr,
        user_addr: USER + guest_addr,
        size,
        fd_offset,
    }
}

fn map(spec: RegionSpec, file: File) -> Result<MemRegion, MemError> {
    MemRegion::map(spec, file.into(), true)
}

fn region(guest_addr: u64, size: u64) -> Arc<MemRegion> {
    Arc::new(MemRegion::anonymous(spec(guest_addr, size, 0)).unwrap())
}

fn view(regions: &[(u64, u64)]) -> MemView {
    let add = |view: MemView, &(at, size)| view.with_region(region(at, size)).unwrap();
    regions.iter().fold(MemView::empty(), add)
}

#[test]
fn mapped_file_is_the_guests_memory_both_ways() {
    let file = memfd(4 * PAGE, true);
    let other = file.try_clone().unwrap();
    let region = map(spec(0, 2 * PAGE, PAGE), file).unwrap();
    let view = MemView::empty().with_region(region.into()).unwrap();
    assert!(view.write(10, b"from us"));
    let mut bytes = [0; 7];
    other.read_exact_at(&mut bytes, PAGE + 10).unwrap();
    assert_eq!(&bytes, b"from us");
    other.write_all_at(b"from them", PAGE + 100).unwrap();
    let mut bytes = [0; 9];
    assert!(view.read(100, &mut bytes));
    assert_eq!(&bytes, b"from them");
}

#[test]
fn region_may_begin_in_the_middle_of_a_page() {
    let file = memfd(3 * PAGE, true);
    let other = file.try_clone().unwrap();
    let region = map(spec(0x1000, PAGE + 200, 100), file).unwrap();
    assert_eq!(region.host_addr().addr() % 4096, 100);
    let view = MemView::empty().with_region(region.into()).unwrap();
    assert!(view.write(0x1000 + PAGE + 199, &[7]), "the last byte");
    assert!(
        !view.write(0x1000 + PAGE + 200, &[7]),
        "the byte after it, in the same page"
    );
    let mut byte = [0];
    other.read_exact_at(&mut byte, 100 + PAGE + 199).unwrap();
    assert_eq!(byte, [7]);
}

#[test]
fn region_without_a_byte_is_refused() {
    let error = map(spec(0, 0, 0), memfd(PAGE, true)).unwrap_err();
    assert!(matches!(error, MemError::Empty(_)), "{error}");
}

#[test]
fn region_that_wraps_in_any_space_is_refused() {
    let end = u64::MAX - PAGE + 1;
    for spec in [
        RegionSpec {
            guest_addr: end,
            user_addr: 0,
            size: PAGE,
            fd_offset: 0,
        },
        RegionSpec {
            guest_addr: 0,
            user_addr: end,
            size: PAGE,
            fd_offset: 0,
        },
        RegionSpec {
            guest_addr: 0,
            user_addr: 0,
            size: PAGE,
            fd_offset: end,
        },
        RegionSpec {
            guest_addr: 1,
            user_addr: 1,
            size: u64::MAX,
            fd_offset: 1,
        },
    ] {
        let error = map(spec, memfd(PAGE, true)).unwrap_err();
        assert!(matches!(error, MemError::Wraps(_)), "{error}");
        let error = MemRegion::anonymous(spec).unwrap_err();
        assert!(matches!(error, MemError::Wraps(_)), "{error}");
    }
}

#[test]
fn region_larger_than_the_address_space_is_refused() {
    let error = map(spec(0, 1 << 63, 0), memfd(PAGE, true)).unwrap_err();
    assert!(matches!(error, MemError::TooLarge(_)), "{error}");
    // Fits in a number, but not into this process.
    let error = MemRegion::anonymous(spec(0, 1 << 60, 0)).unwrap_err();
    assert!(
        matches!(error, MemError::System { step: "mmap", .. }),
        "{error}"
    );
}

#[test]
fn file_that_ends_before_the_region_is_refused() {
    for (size, offset) in [(2 * PAGE, 0), (PAGE, 1), (1, PAGE)] {
        let error = map(spec(0, size, offset), memfd(PAGE, true)).unwrap_err();
        let MemError::FileTooShort { needed, actual, .. } = error else {
            panic!("{error}");
        };
        assert_eq!((needed, actual), (size + offset, PAGE));
    }
}

#[test]
fn file_that_may_shrink_is_refused_unless_allowed() {
    let error = map(spec(0, PAGE, 0), memfd(PAGE, false)).unwrap_err();
    assert!(matches!(error, MemError::NotSealed(_)), "{error}");
    let mut file = tempfile();
    file.write_all(&[0; 4096]).unwrap();
    let error = map(spec(0, PAGE, 0), file.try_clone().unwrap()).unwrap_err();
    assert!(
        matches!(error, MemError::NotSealed(_)),
        "a file that knows no seals: {error}"
    );
    MemRegion::map(spec(0, PAGE, 0), file.into(), false).unwrap();
}

/// A file on a disk, without a name.
fn tempfile() -> File {
    let flags = libc::O_TMPFILE | libc::O_RDWR;
    // SAFETY: the path is a C string.
    let fd = unsafe { libc::open(c"/tmp".as_ptr(), flags, 0o600) };
    assert!(fd >= 0, "{}", std::io::Error::last_os_error());
    // SAFETY: the descriptor was just made, and nobody else has it.
    File::from(unsafe { OwnedFd::from_raw_fd(fd) })
}

#[test]
fn what_is_not_a_file_is_refused() {
    let pipe: OwnedFd = std::io::pipe().unwrap().0.into();
    let others = [
        pipe,
        File::open("/").unwrap().into(),
        File::options()
            .read(true)
            .write(true)
            .open("/dev/null")
            .unwrap()
            .into(),
        std::net::TcpListener::bind("127.0.0.1:0").unwrap().into(),
    ];
    for fd in others {
        let error = MemRegion::map(spec(0, PAGE, 0), fd, false).unwrap_err();
        assert!(matches!(error, MemError::NotAFile(_)), "{error}");
    }
}

#[test]
fn file_opened_for_reading_is_refused() {
    let file = File::open("/proc/self/exe").unwrap();
    let error = MemRegion::map(spec(0, 16, 0), file.into(), false).unwrap_err();
    assert!(
        matches!(error, MemError::System { step: "mmap", .. }),
        "{error}"
    );
}

#[test]
fn dropping_the_last_reference_unmaps() {
    // So large that what other tests map meanwhile does not reach its middle.
    let size = 1 << 30;
    let region = region(0, size);
    let middle = region.host_addr().wrapping_add(1 << 29);
    let first = MemView::empty().with_region(region).unwrap();
    let second = first.without_region(&spec(0, size, 0)).unwrap();
    assert!(is_mapped(middle), "the old view still holds it");
    assert!(second.regions().is_empty());
    drop(first);
    assert!(!is_mapped(middle));
}

fn is_mapped(at: *mut u8) -> bool {
    let mut resident = 0u8;
    // SAFETY: mincore reads no memory of ours and writes one byte for one page.
    unsafe { libc::mincore(at.cast(), 1, &raw mut resident) == 0 }
}

#[test]
fn regions_that_share_an_address_in_either_space_are_refused() {
    let view = view(&[(0x10000, 0x10000)]);
    let present = |guest_addr, user_addr, size| {
        let spec = RegionSpec {
            guest_addr,
            user_addr,
            size,
            fd_offset: 0,
        };
        view.with_region(Arc::new(MemRegion::anonymous(spec).unwrap()))
    };
    for (guest, user, size) in [
        (0x10000, 0, PAGE),
        (0x1f000, 0, PAGE),
        (0xf000, 0, 2 * PAGE),
        (0, 0, 0x40000),
        (0x40000, USER + 0x10000, PAGE),
        (0x40000, USER + 0x1f000, PAGE),
        (0x40000, USER + 0xf000, 2 * PAGE),
    ] {
        let error = present(guest, user, size).unwrap_err();
        assert!(
            matches!(error, MemError::Overlap { .. }),
            "{guest:#x} {user:#x}: {error}"
        );
    }
    present(0xf000, USER + 0xf000, PAGE).unwrap();
    present(0x20000, USER + 0x20000, PAGE).unwrap();
}

#[test]
fn table_is_full_at_its_limit() {
    let mut view = MemView::empty();
    for i in 0..MemView::MAX_REGIONS as u64 {
        view = view.with_region(region(i * 2 * PAGE, PAGE)).unwrap();
    }
    let error = view.with_region(region(1 << 40, PAGE)).unwrap_err();
    assert!(
        matches!(error, MemError::TooMany { limit: 509, .. }),
        "{error}"
    );
    assert!(view.holds(508 * 2 * PAGE, PAGE) && !view.holds(PAGE, 1));
}

#[test]
fn region_is_removed_by_its_addresses_whatever_its_file_offset() {
    let view = view(&[(0, PAGE), (PAGE, PAGE)]);
    let left = view.without_region(&spec(PAGE, PAGE, 77)).unwrap();
    assert_eq!(left.regions().len(), 1);
    assert!(left.holds(0, PAGE) && !left.holds(PAGE, 1));
    for unknown in [
        spec(PAGE, 2 * PAGE, 0),
        spec(1, PAGE, 0),
        RegionSpec {
            user_addr: USER,
            ..spec(PAGE, PAGE, 0)
        },
    ] {
        let error = view.without_region(&unknown).unwrap_err();
        assert!(matches!(error, MemError::Unknown(_)), "{error}");
    }
}

#[test]
fn each_change_of_the_table_is_a_new_epoch() {
    let first = view(&[(0, PAGE)]);
    let second = first.with_region(region(PAGE, PAGE)).unwrap();
    let third = second.without_region(&spec(0, PAGE, 0)).unwrap();
    let fourth = third
        .replaced_by([region(0, PAGE), region(8 * PAGE, PAGE)])
        .unwrap();
    let epochs = [&first, &second, &third, &fourth].map(MemView::epoch);
    assert_eq!(epochs, [1, 2, 3, 4]);
    assert!(fourth.holds(8 * PAGE, PAGE) && !fourth.holds(PAGE, 1));
    let twice = fourth.replaced_by([region(0, PAGE), region(0, PAGE)]);
    assert!(matches!(twice.unwrap_err(), MemError::Overlap { .. }));
}

#[test]
fn range_runs_across_neighbours_but_not_across_a_hole() {
    // Added out of order, and with a hole of one page before the last.
    let view = view(&[(2 * PAGE, PAGE), (0, PAGE), (PAGE, PAGE), (4 * PAGE, PAGE)]);
    let bytes: Vec<u8> = (0..3 * 4096u32).map(|i| (i % 251) as u8).collect();
    assert!(view.write(0, &bytes));
    let mut back = vec![0; bytes.len()];
    assert!(view.read(0, &mut back));
    assert_eq!(back, bytes);
    let mut pieces = Vec::new();
    assert!(view.pieces(PAGE - 1, PAGE + 2, |_, len| pieces.push(len)));
    assert_eq!(pieces, [1, 4096, 1]);

    for (at, len) in [
        (3 * PAGE, 1),
        (3 * PAGE - 1, 2),
        (0, 5 * PAGE),
        (4 * PAGE - 1, 2),
    ] {
        assert!(!view.holds(at, len), "{at:#x}+{len:#x}");
    }
    for (at, len) in [
        (5 * PAGE, 1),
        (u64::MAX, 1),
        (u64::MAX, u64::MAX),
        (PAGE, u64::MAX),
    ] {
        assert!(!view.holds(at, len), "{at:#x}+{len:#x}");
    }
    assert!(view.holds(4 * PAGE, PAGE) && view.holds(0, 3 * PAGE));
}

#[test]
fn copy_that_meets_a_hole_copies_nothing() {
    let view = view(&[(0, PAGE)]);
    assert!(!view.write(PAGE - 4, &[9; 8]));
    let mut bytes = [1; 4];
    assert!(view.read(PAGE - 4, &mut bytes));
    assert_eq!(bytes, [0; 4]);
    let mut bytes = [1; 8];
    assert!(!view.read(PAGE - 4, &mut bytes));
    assert_eq!(bytes, [1; 8]);
}

#[test]
fn ring_must_lie_in_one_region_of_user_addresses() {
    let view = view(&[(0, PAGE), (PAGE, PAGE)]);
    let host = view.regions()[1].host_addr();
    assert_eq!(
        view.resolve_user(USER + PAGE + 16, 64),
        Some(host.wrapping_add(16))
    );
    assert_eq!(
        view.resolve_user(USER + 2 * PAGE - 64, 64),
        Some(host.wrapping_add(4032))
    );
    assert_eq!(
        view.resolve_user(USER + PAGE - 8, 16),
        None,
        "across two regions"
    );
    assert_eq!(
        view.resolve_user(16, 64),
        None,
        "a guest address is no user address"
    );
    assert_eq!(view.resolve_user(u64::MAX, 1), None);
}
