//! Requests for adjacent places go to the kernel in one call, and nobody can tell but by the speed: each has its own data
//! and its own status.
#![allow(unsafe_code, clippy::unwrap_used)] // Buffers that outlive their requests, and one that is no memory.

mod support;

use holdfast_bdev::{BlockDevice, Completion, DriverKind, Io, IoStatus, Op, Token};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use rustix::mm::{MapFlags, ProtFlags, mmap_anonymous, munmap};
use support::{Bench, Skewed, TempFile, pattern, resize, uring_file};

const BLOCK: usize = 4096;

/// Hands all requests over in one turn: operation, offset, and the data to write or the room to read into.
/// Returns how they ended, in their order, and how many went along with another.
fn together(file: &TempFile, requests: &mut [(Op, u64, Skewed)]) -> (Vec<IoStatus>, u64) {
    let arrays: Vec<_> = requests.iter_mut().map(|r| r.2.iovecs(&[])).collect();
    let mut bench = Bench::new(&file.device, DriverKind::Uring);
    for (number, ((op, offset, _), array)) in (0u64..).zip(requests.iter().zip(&arrays)) {
        // SAFETY: buffers and arrays outlive the driver.
        bench.submit(unsafe { Io::with_buffers(*op, *offset, array, Token(number)) });
    }
    let done = bench.take(arrays.len());
    (in_order(done), bench.driver.merged())
}

fn in_order(mut done: Vec<Completion>) -> Vec<IoStatus> {
    done.sort_by_key(|completion| completion.token.0);
    let numbers = done.iter().map(|completion| completion.token.0);
    assert!(numbers.eq(0..done.len() as u64), "each ends once");
    done.iter().map(|completion| completion.status).collect()
}

fn write(offset: u64, seed: u64) -> (Op, u64, Skewed) {
    (Op::Write, offset, Skewed::of(&pattern(BLOCK, seed), 0))
}

fn read(offset: u64, len: usize) -> (Op, u64, Skewed) {
    (Op::Read, offset, Skewed::new(len, 0))
}

#[test]
fn adjacent_requests_go_in_one_call_and_each_has_its_data() {
    let file = uring_file(1 << 20);
    let mut writes: Vec<_> = (0..4).map(|at| write(at * BLOCK as u64, at)).collect();
    assert_eq!(together(&file, &mut writes), (vec![IoStatus::Ok; 4], 3));
    // Lengths need not be equal.
    let mut reads = [
        read(0, BLOCK),
        read(BLOCK as u64, 2 * BLOCK),
        read(3 * BLOCK as u64, BLOCK),
    ];
    assert_eq!(together(&file, &mut reads), (vec![IoStatus::Ok; 3], 2));
    let found: Vec<u8> = reads
        .iter()
        .flat_map(|read| read.2.bytes().to_vec())
        .collect();
    let written: Vec<u8> = (0..4).flat_map(|seed| pattern(BLOCK, seed)).collect();
    assert_eq!(found, written);
}

#[test]
fn requests_that_do_not_follow_each_other_go_alone() {
    let file = uring_file(4 << 20);
    let at = |block: u64| block * BLOCK as u64;
    let long = 128 << 10;
    for mut requests in [
        vec![read(at(1), BLOCK), read(at(0), BLOCK)],
        vec![read(at(0), BLOCK), read(at(0), BLOCK)],
        vec![read(at(0), BLOCK), read(at(2), BLOCK)],
        vec![read(at(0), BLOCK), write(at(1), 1)],
        vec![read(0, long), read(long as u64, long)],
        // Through a buffer of ours.
        vec![read(at(0), BLOCK), (Op::Read, at(1), Skewed::new(BLOCK, 1))],
    ] {
        let (statuses, merged) = together(&file, &mut requests);
        assert!(statuses.iter().all(|status| *status == IoStatus::Ok));
        assert_eq!(
            merged,
            0,
            "{:?}",
            requests.iter().map(|r| r.1).collect::<Vec<_>>()
        );
    }
}

#[test]
fn adjacent_places_of_two_files_go_alone() {
    let files = [uring_file(1 << 20), uring_file(1 << 20)];
    let mut buffers: Vec<Skewed> = (0..2).map(|_| Skewed::new(BLOCK, 0)).collect();
    let arrays: Vec<_> = buffers
        .iter_mut()
        .map(|buffer| buffer.iovecs(&[]))
        .collect();
    let mut bench = Bench::new(&files[0].device, DriverKind::Uring);
    let mut other = files[1].device.open_channel(&mut bench.driver).unwrap();
    let io = |number: u64, array| {
        // SAFETY: buffers and arrays outlive the driver.
        unsafe { Io::with_buffers(Op::Read, number * BLOCK as u64, array, Token(number)) }
    };
    bench.submit(io(0, &arrays[0]));
    other.submit(&mut bench.driver, io(1, &arrays[1]));
    assert_eq!(in_order(bench.take(2)), [IoStatus::Ok; 2]);
    assert_eq!(bench.driver.merged(), 0);
    drop((other, bench));
}

#[test]
fn end_of_a_file_inside_a_merged_read_fails_what_is_behind_it_and_nothing_else() {
    let file = uring_file(1 << 20);
    file.device.write_at(0, &pattern(BLOCK, 7)).unwrap();
    resize(&file.path, BLOCK as u64);
    let mut reads = [read(0, BLOCK), read(BLOCK as u64, BLOCK)];
    let (statuses, merged) = together(&file, &mut reads);
    assert_eq!(statuses, [IoStatus::Ok, IoStatus::Failed(libc::EIO)]);
    assert_eq!((reads[0].2.bytes(), merged), (&pattern(BLOCK, 7)[..], 1));
}

#[test]
fn buffer_that_is_no_memory_fails_its_own_request_and_not_its_neighbours() {
    let file = uring_file(1 << 20);
    let nowhere = BLOCK;
    // SAFETY: a new mapping, which nobody may touch.
    let hole = unsafe {
        mmap_anonymous(
            std::ptr::null_mut(),
            nowhere,
            ProtFlags::empty(),
            MapFlags::PRIVATE,
        )
    };
    let hole = libc::iovec {
        iov_base: hole.unwrap(),
        iov_len: nowhere,
    };
    let mut around = [
        Skewed::of(&pattern(BLOCK, 1), 0),
        Skewed::of(&pattern(BLOCK, 3), 0),
    ];
    let [before, after] = around.each_mut().map(|buffer| buffer.iovecs(&[])[0]);
    let arrays = [[before], [hole], [after]];
    let mut bench = Bench::new(&file.device, DriverKind::Uring);
    for (number, array) in (0u64..).zip(&arrays) {
        // SAFETY: buffers and arrays outlive the driver, and nobody but the kernel uses the hole.
        bench.submit(unsafe {
            Io::with_buffers(Op::Write, number * BLOCK as u64, array, Token(number))
        });
    }
    let statuses = in_order(bench.take(3));
    assert_eq!(
        statuses,
        [IoStatus::Ok, IoStatus::Failed(libc::EFAULT), IoStatus::Ok]
    );
    assert_eq!(bench.driver.merged(), 2);
    assert_eq!(bench.read(0, BLOCK), pattern(BLOCK, 1));
    assert_eq!(bench.read(2 * BLOCK as u64, BLOCK), pattern(BLOCK, 3));
    drop(bench);
    // SAFETY: the mapping made above.
    unsafe { munmap(hole.iov_base, nowhere) }.unwrap();
}

#[test]
fn storm_of_requests_that_often_follow_each_other_agrees_with_plain_memory() {
    const BLOCKS: u64 = 64;
    let file = uring_file(BLOCKS * BLOCK as u64);
    let mut model = vec![0; usize::try_from(BLOCKS).unwrap() * BLOCK];
    let (mut random, mut merged) = (StdRng::seed_from_u64(42), 0);
    for turn in 0..300 {
        // Places of one turn do not overlap: nobody promises an order there.
        let (mut at, mut requests) = (random.random_range(0..8), Vec::new());
        while at < BLOCKS && requests.len() < 12 {
            let blocks = random.random_range(1..=3.min(BLOCKS - at));
            let (offset, len) = (at * BLOCK as u64, usize::try_from(blocks).unwrap() * BLOCK);
            requests.push(match random.random_bool(0.5) {
                true => (
                    Op::Write,
                    offset,
                    Skewed::of(&pattern(len, turn * 100 + at), 0),
                ),
                false => read(offset, len),
            });
            at += blocks + u64::from(random.random_bool(0.3));
        }
        let (statuses, along) = together(&file, &mut requests);
        assert!(statuses.iter().all(|status| *status == IoStatus::Ok));
        merged += along;
        for (op, offset, buffer) in &requests {
            let place = &mut model[usize::try_from(*offset).unwrap()..][..buffer.bytes().len()];
            match op {
                Op::Write => place.copy_from_slice(buffer.bytes()),
                _ => assert_eq!(place, buffer.bytes(), "turn {turn}, offset {offset}"),
            }
        }
    }
    assert!(merged > 300, "only {merged} were merged");
}
