//! Requests of every kind and layout, from the guest's descriptors to its used ring.

#![allow(clippy::unwrap_used, clippy::cast_possible_truncation)]

mod driver;

use driver::*;
use holdfast_ring::MemView;
use holdfast_ring::blk::{BlkRange, Kind, Limits, Request, Status};
use std::sync::Arc;

fn pop_one(driver: &Driver) -> Request {
    pop(&mut driver.queue_at_start())
        .unwrap()
        .expect("a request")
}

impl Driver {
    fn queue_at_start(&self) -> holdfast_ring::SplitQueue {
        holdfast_ring::SplitQueue::new(Arc::clone(&self.view), self.layout(), self.features, 0)
            .unwrap()
    }
}

#[test]
fn read_of_the_usual_shape_is_parsed_and_answered() {
    let mut driver = Driver::new(8);
    let mut queue = driver.queue();
    driver.request(0, TYPE_IN, 7, &[(DATA, 4096), (FAR, 512)]);

    let mut request = pop(&mut queue).unwrap().expect("a request");
    assert_eq!((request.head(), request.kind()), (0, Kind::In));
    assert_eq!(
        (request.offset_bytes(), request.data_len()),
        (7 * 512, 4608)
    );
    assert_eq!(
        driver.guest_ranges(request.iov()),
        [(DATA, 4096), (FAR, 512)]
    );
    assert_eq!(queue.outstanding(), 1);

    driver.write(STATUS, &[0xff]);
    let used_len = request.finish(Status::Ok);
    queue.push(request.head(), used_len);
    assert_eq!(driver.used_idx(), 0, "staged, not yet published");
    assert!(
        queue.publish(),
        "the first answer of a new owner is always announced"
    );
    assert_eq!(
        (driver.status(0), driver.used_idx(), driver.used(0)),
        (0, 1, (0, 4609))
    );
    assert_eq!(
        (queue.outstanding(), queue.last_avail(), queue.used_idx()),
        (0, 1, 1)
    );
    assert!(pop(&mut queue).unwrap().is_none());
}

#[test]
fn write_carries_the_guests_bytes() {
    let mut driver = Driver::new(8);
    driver.request(3, TYPE_OUT, 1, &[(DATA, 512)]);
    let mut request = pop_one(&driver);
    assert_eq!(
        (request.kind(), request.offset_bytes(), request.data_len()),
        (Kind::Out, 512, 512)
    );
    assert_eq!(driver.guest_ranges(request.iov()), [(DATA, 512)]);
    assert_eq!(request.finish(Status::Ok), 1);
}

#[test]
fn finished_request_lets_go_of_guest_memory() {
    let mut driver = Driver::new(8);
    driver.request(0, TYPE_IN, 0, &[(DATA, 512)]);
    let mut queue = driver.queue_at_start();
    let mut request = pop(&mut queue).unwrap().expect("a request");
    let region = Arc::downgrade(&driver.view.regions()[1]);
    queue
        .swap_view(Arc::new(driver.view.without_region(&REGIONS[2]).unwrap()))
        .unwrap();
    driver.view = Arc::new(MemView::empty());
    drop(queue);
    assert!(
        region.upgrade().is_some(),
        "a request in flight keeps its memory mapped"
    );
    assert_eq!(request.finish(Status::Ok), 513);
    assert!(region.upgrade().is_none(), "a finished request does not");
    assert!(request.iov().is_empty() && request.epoch().is_none());
    assert_eq!(
        request.finish(Status::Ok),
        0,
        "a second answer goes nowhere"
    );
}

#[test]
fn ranges_of_a_discard_are_read() {
    let mut driver = Driver::new(8);
    driver.write(DATA, &[range(8, 16, 0), range(0, 2048, 0)].concat());
    driver.request(0, TYPE_DISCARD, 0, &[(DATA, 32)]);
    let request = pop_one(&driver);
    assert_eq!(request.kind(), Kind::Discard);
    let expected = [(4096, 8192), (0, 1 << 20)].map(|(offset_bytes, len_bytes)| BlkRange {
        offset_bytes,
        len_bytes,
    });
    assert_eq!(request.ranges(), expected);
}

#[test]
fn write_zeroes_may_unmap_only_if_all_ranges_may() {
    for (second, expected) in [(1, true), (0, false)] {
        let mut driver = Driver::new(8);
        driver.write(DATA, &[range(8, 16, 1), range(0, 8, second)].concat());
        driver.request(0, TYPE_WRITE_ZEROES, 0, &[(DATA, 32)]);
        assert_eq!(
            pop_one(&driver).kind(),
            Kind::WriteZeroes {
                may_unmap: expected
            }
        );
    }
}

#[test]
fn get_id_is_answered_with_the_bytes_written() {
    let mut driver = Driver::new(8);
    driver.request(0, TYPE_GET_ID, 0, &[(DATA, 12), (FAR, 8)]);
    let mut request = pop_one(&driver);
    assert_eq!((request.kind(), request.data_len()), (Kind::GetId, 20));
    assert_eq!(request.write_data(b"holdfast-volume-0001"), 20);
    assert_eq!(request.finish(Status::Ok), 21);
    assert_eq!(&driver.read::<12>(DATA), b"holdfast-vol");
    assert_eq!(&driver.read::<8>(FAR), b"ume-0001");
}

#[test]
fn get_id_with_little_room_is_cut() {
    let mut driver = Driver::new(8);
    driver.request(0, TYPE_GET_ID, 0, &[(DATA, 4)]);
    let mut request = pop_one(&driver);
    assert_eq!(request.write_data(b"holdfast"), 4);
    assert_eq!(request.finish(Status::Ok), 5);
    assert_eq!(&driver.read::<5>(DATA), b"hold\0");
}

#[test]
fn used_length_never_counts_bytes_behind_a_gap() {
    let mut driver = Driver::new(8);
    driver.request(0, TYPE_IN, 0, &[(DATA, 512)]);
    assert_eq!(
        pop_one(&driver).finish(Status::IoErr),
        0,
        "data was not written, status comes after it"
    );
    let mut driver = Driver::new(8);
    driver.request(0, TYPE_GET_ID, 0, &[(DATA, 20)]);
    let mut request = pop_one(&driver);
    request.write_data(b"id");
    assert_eq!(request.finish(Status::Ok), 2);
    let mut driver = Driver::new(8);
    driver.request(0, TYPE_FLUSH, 0, &[]);
    assert_eq!(pop_one(&driver).finish(Status::IoErr), 1);
}

/// Every way to cut the readable and the writable part of a write and a read into two or three descriptors means the same.
#[test]
fn request_means_the_same_however_it_is_cut() {
    let mut checked = 0;
    for kind in [TYPE_IN, TYPE_OUT] {
        // One run of memory for each direction; the cuts say where descriptors end.
        let readable: u32 = if kind == TYPE_OUT { 16 + 512 } else { 16 };
        let writable: u32 = if kind == TYPE_IN { 512 + 1 } else { 1 };
        let cuts = [0, 1, 7, 8, 15, 16, 17, 24, 511, 512, 513, 527];
        for (a, b) in cuts.iter().flat_map(|a| cuts.iter().map(move |b| (*a, *b))) {
            for layout in [Layout::Direct, Layout::Indirect, Layout::Seam] {
                check_cut(kind, readable, writable, (a, b), layout);
                checked += 1;
            }
        }
    }
    assert_eq!(checked, 2 * 144 * 3);
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Layout {
    Direct,
    Indirect,
    /// Both parts begin 8 bytes before the end of a region.
    Seam,
}

fn check_cut(kind: u32, readable: u32, writable: u32, cut: (u32, u32), layout: Layout) {
    let mut driver = Driver::new(16);
    let (from, to) = match layout {
        Layout::Seam => (SEAM - 8, SEAM + 0x1000 - 8),
        _ => (HEADER + 3, DATA + 5),
    };
    driver.header(from, kind, 9);
    let mut buffers = pieces(from, readable, cut, 0);
    buffers.extend(pieces(to, writable, cut, WRITE));
    if layout == Layout::Indirect {
        let table: Vec<Desc> = buffers
            .iter()
            .enumerate()
            .map(|(i, &(addr, len, flags))| {
                let next = if i + 1 < buffers.len() { NEXT } else { 0 };
                Desc(addr, len, flags | next, i as u16 + 1)
            })
            .collect();
        // Eight bytes off any alignment and across the seam.
        let at = SEAM - 24;
        driver.table(at, &table);
        driver.desc(0, Desc(at, 16 * table.len() as u32, INDIRECT | WRITE, 0));
    } else {
        driver.chain(0, &buffers);
    }
    driver.offer(0);

    let mut request = pop_one(&driver);
    let context = format!("{kind} {cut:?} {layout:?}");
    let (expected, data_at) = if kind == TYPE_IN {
        (Kind::In, to)
    } else {
        (Kind::Out, from + 16)
    };
    assert_eq!(request.kind(), expected, "{context}");
    assert_eq!(
        (request.offset_bytes(), request.data_len()),
        (9 * 512, 512),
        "{context}"
    );
    let mut at = data_at;
    for (addr, len) in driver.guest_ranges(request.iov()) {
        assert_eq!(addr, at, "{context}");
        assert!(len > 0, "{context}");
        at += len;
    }
    assert_eq!(at, data_at + 512, "{context}");
    let status_at = to + u64::from(writable) - 1;
    driver.write(status_at, &[0xee]);
    assert_eq!(request.finish(Status::Ok), writable, "{context}");
    assert_eq!(driver.read::<1>(status_at), [0], "{context}");
}

/// Cuts `len` bytes at `at` in up to three descriptors.
fn pieces(at: u64, len: u32, cut: (u32, u32), flags: u16) -> Vec<(u64, u32, u16)> {
    let mut ends = vec![cut.0, cut.1, len];
    ends.retain(|end| *end > 0 && *end <= len);
    ends.sort_unstable();
    ends.dedup();
    let mut from = 0;
    let mut buffers = Vec::new();
    for end in ends {
        buffers.push((at + u64::from(from), end - from, flags));
        from = end;
    }
    buffers
}

#[test]
fn normal_descriptors_before_an_indirect_table_belong_to_the_chain() {
    let mut driver = Driver::new(8);
    driver.header(HEADER, TYPE_IN, 2);
    driver.desc(0, Desc(HEADER, 16, NEXT, 5));
    driver.desc(5, Desc(TABLE, 32, INDIRECT, 0));
    // The chain may run through its table in any order.
    driver.table(
        TABLE,
        &[Desc(DATA, 512, WRITE | NEXT, 1), Desc(STATUS, 1, WRITE, 0)],
    );
    driver.offer(0);
    let request = pop_one(&driver);
    assert_eq!(driver.guest_ranges(request.iov()), [(DATA, 512)]);
}

#[test]
fn buffer_across_regions_is_one_segment() {
    let mut driver = Driver::new(8);
    driver.request(0, TYPE_IN, 0, &[(SEAM - 512, 1024)]);
    let mut request = Request::new();
    let limits = Limits {
        seg_max: 1,
        ..LIMITS
    };
    assert!(driver.queue_at_start().pop(&mut request, &limits).unwrap());
    assert_eq!(request.kind(), Kind::In);
    assert_eq!(
        driver.guest_ranges(request.iov()),
        [(SEAM - 512, 512), (SEAM, 512)]
    );
}

#[test]
fn steady_state_reuses_the_request() {
    let mut driver = Driver::new(16);
    let mut queue = driver.queue();
    let mut request = Request::new();
    let data: Vec<(u64, u32)> = (0..8).map(|i| (DATA + 512 * i, 512)).collect();
    let mut capacity = None;
    for _ in 0..100_000 {
        driver.request(0, TYPE_IN, 0, &data);
        assert!(queue.pop(&mut request, &LIMITS).unwrap());
        let now = request.iov().as_ptr();
        assert_eq!(*capacity.get_or_insert(now), now, "no new allocation");
        let used_len = request.finish(Status::Ok);
        queue.push(0, used_len);
        queue.publish();
    }
    assert_eq!(driver.used_idx(), (100_000 % 65_536) as u16);
}
