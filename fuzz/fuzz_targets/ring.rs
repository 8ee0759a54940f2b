//! Any bytes as guest memory with a ring in it: popped, parsed, answered. Nothing may panic, and every piece of memory that a
//! request names must be the guest's.
#![no_main]

use holdfast_ring::blk::{Kind, Limits, Request, Status};
use holdfast_ring::{MemRegion, MemView, QueueFeatures, QueueLayout, RegionSpec, SplitQueue};
use libfuzzer_sys::fuzz_target;
use std::sync::Arc;

const USER: u64 = 0x7f00_0000_0000;
/// Guest memory: two neighbours, the second short so that much crosses their seam, and one region
/// behind a hole. Start and length.
const REGIONS: [(u64, u64); 3] = [(0, 0x8000), (0x8000, 0x1000), (0x2_0000, 0x4000)];
/// Everything lies in the first 4096 bytes, for longer inputs are tried late.
const AVAIL: u64 = 0x410;
const USED: u64 = 0x510;
const TABLES: usize = 0x800;
/// Bytes of input that say how the rest is used.
const KNOBS: usize = 8;

fuzz_target!(|input: &[u8]| {
    let Some((knobs, image)) = input.split_first_chunk::<KNOBS>() else {
        return;
    };
    let view = Arc::new(memory());
    write_image(&view, knobs, image);
    let features = QueueFeatures {
        event_idx: knobs[0] & 1 != 0,
        indirect: knobs[0] & 2 != 0,
    };
    let layout = QueueLayout {
        size: 1 << (knobs[1] % 7),
        desc: USER + u64::from(knobs[2] & 8),
        avail: USER + AVAIL,
        used: USER + USED,
    };
    let last_avail = u16::from_le_bytes([knobs[3], knobs[4]]);
    let Ok(queue) = SplitQueue::new(Arc::clone(&view), layout, features, last_avail) else {
        return;
    };
    serve(queue, &view, &limits(knobs));
});

fn memory() -> MemView {
    let add = |view: MemView, (at, size)| {
        let spec = RegionSpec {
            guest_addr: at,
            user_addr: USER + at,
            size,
            fd_offset: 0,
        };
        let region = MemRegion::anonymous(spec).expect("a small region can be mapped");
        view.with_region(region.into())
            .expect("regions do not overlap")
    };
    REGIONS.into_iter().fold(MemView::empty(), add)
}

/// The image goes to the start of memory. Half of the time its descriptors are folded into memory: hardly any random 64-bit
/// number is an address otherwise.
fn write_image(view: &MemView, knobs: &[u8; KNOBS], image: &[u8]) {
    let len = image.len().min(0x8000);
    let mut image = image[..len].to_vec();
    if knobs[5] & 1 != 0 {
        let table = image.len().min(AVAIL as usize);
        fold(&mut image[..table]);
        if let Some(rest) = image.get_mut(TABLES..) {
            fold(rest);
        }
    }
    assert!(view.write(0, &image));
    // A plausible avail.idx, or the image's own.
    if knobs[5] & 2 != 0 {
        let index = u16::from_le_bytes([knobs[3], knobs[4]]).wrapping_add(u16::from(knobs[6]));
        assert!(view.write(AVAIL + 2, &index.to_le_bytes()));
    }
}

fn fold(descs: &mut [u8]) {
    for desc in descs.as_chunks_mut::<16>().0 {
        desc[2] &= 3;
        desc[3..8].fill(0);
        desc[10..12].fill(0);
    }
}

fn limits(knobs: &[u8; KNOBS]) -> Limits {
    Limits {
        seg_max: 16,
        size_max: if knobs[7] & 1 != 0 { 4096 } else { u32::MAX },
        max_discard_sectors: 1024,
        max_discard_seg: 8,
        max_write_zeroes_sectors: 1024,
        max_write_zeroes_seg: 8,
        block_size: if knobs[7] & 2 != 0 { 4096 } else { 512 },
        capacity_bytes: 1 << 24,
        read_only: knobs[7] & 4 != 0,
        discard: knobs[7] & 8 != 0,
        write_zeroes: knobs[7] & 16 != 0,
        flush: knobs[7] & 32 != 0,
    }
}

fn serve(mut queue: SplitQueue, view: &MemView, limits: &Limits) {
    let mut request = Request::new();
    // Bound: a queue that is not refilled holds at most its size of heads, and each is answered at once.
    for turn in 0..=u32::from(queue.layout().size) {
        match queue.pop(&mut request, limits) {
            Ok(true) => {}
            Ok(false) => break,
            Err(error) => {
                assert_eq!(queue.poison(), Some(&error));
                assert_eq!(queue.pop(&mut request, limits), Err(error));
                break;
            }
        }
        assert!(
            turn < u32::from(queue.layout().size),
            "more heads than the ring holds"
        );
        check(&request, view, limits);
        let (head, kind, len) = (request.head(), request.kind(), request.data_len());
        let used_len = u64::from(request.finish(Status::Ok));
        match kind {
            Kind::In => assert_eq!(used_len, len + 1),
            Kind::Out => assert_eq!(used_len, 1),
            _ => {}
        }
        queue.push(head, u32::try_from(used_len).expect("it was one"));
        if turn % 2 == 0 {
            queue.publish();
        }
    }
    queue.publish();
    assert_eq!(queue.outstanding(), 0);
    let _ = queue.arm();
    queue.disarm();
}

/// What the block device will rely on.
fn check(request: &Request, view: &MemView, limits: &Limits) {
    let total: u64 = request.iov().iter().map(|piece| piece.iov_len as u64).sum();
    for piece in request.iov() {
        assert!(piece.iov_len > 0);
        assert!(is_guest_memory(view, piece), "a piece outside guest memory");
        touch(piece, request.kind());
    }
    match request.kind() {
        Kind::In | Kind::Out => {
            assert_eq!(total, request.data_len());
            assert!(total > 0 && total % u64::from(limits.block_size) == 0);
            assert!(request.offset_bytes() % u64::from(limits.block_size) == 0);
            assert!(request.offset_bytes() + total <= limits.capacity_bytes);
            assert!(!(limits.read_only && request.kind() == Kind::Out));
        }
        Kind::Discard | Kind::WriteZeroes { .. } => {
            assert!(!limits.read_only && !request.ranges().is_empty());
            assert!(request.ranges().len() <= 8);
            for range in request.ranges() {
                assert!(range.offset_bytes + range.len_bytes <= limits.capacity_bytes);
            }
        }
        _ => {}
    }
}

fn is_guest_memory(view: &MemView, piece: &libc::iovec) -> bool {
    let start = piece.iov_base.addr();
    view.regions().iter().any(|region| {
        let host = region.host_addr().addr();
        start >= host && start + piece.iov_len <= host + region.spec().size as usize
    })
}

/// As a device does it: reads or writes the first and the last byte.
fn touch(piece: &libc::iovec, kind: Kind) {
    let first = piece.iov_base.cast::<u8>();
    for at in [first, first.wrapping_add(piece.iov_len - 1)] {
        // SAFETY: `is_guest_memory` found the piece inside a mapped region.
        unsafe {
            match kind {
                Kind::In => at.write_volatile(0xa5),
                _ => _ = at.read_volatile(),
            }
        }
    }
}
