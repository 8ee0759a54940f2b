//! A kernel that moves as little as it likes, and interrupts: the rest must go on at the right byte.

#![allow(clippy::cast_possible_truncation)] // Patterns of bytes.

use super::*;
use proptest::prelude::*;

fn lane(address_align: usize) -> Arc<Lane> {
    let fd = std::fs::File::open("/dev/null").unwrap().into();
    Arc::new(Lane::new(Arc::new(Medium {
        fd,
        address_align,
        length_align: 1,
        memory: false,
    })))
}

fn iovec(bytes: &mut [u8]) -> libc::iovec {
    libc::iovec {
        iov_base: bytes.as_mut_ptr().cast(),
        iov_len: bytes.len(),
    }
}

fn buffers(span: Span) -> Vec<libc::iovec> {
    match span {
        Span::One(part) => vec![part],
        Span::Many(iov, count) => {
            // SAFETY: the transfer has just named this array.
            let array = unsafe { std::slice::from_raw_parts(iov, count as usize) };
            array.to_vec()
        }
    }
}

/// Moves at most `limit` bytes between the disk and the buffers of the call, as the kernel would.
fn perform(disk: &mut [u8], call: Call, limit: usize) -> i32 {
    let (span, at, reads) = match call {
        Call::Read(span, at) => (span, at, true),
        Call::Write(span, at) => (span, at, false),
        Call::Sync | Call::Allocate { .. } => panic!("not a transfer"),
    };
    let (mut at, mut left) = (usize::try_from(at).unwrap(), limit);
    for part in buffers(span) {
        let len = part.iov_len.min(left);
        // SAFETY: the buffer is one of the test's, or a bounce buffer, and not borrowed now.
        let memory = unsafe { std::slice::from_raw_parts_mut(part.iov_base.cast::<u8>(), len) };
        if reads {
            memory.copy_from_slice(&disk[at..at + len]);
        } else {
            disk[at..at + len].copy_from_slice(memory);
        }
        (at, left) = (at + len, left - len);
    }
    i32::try_from(limit - left).unwrap()
}

proptest! {
    #[test]
    fn transfer_in_bits_moves_every_byte_once(
        op in prop_oneof![Just(Op::Read), Just(Op::Write)],
        lengths in prop::collection::vec(0..5000usize, 1..20),
        limits in prop::collection::vec(0..9000usize, 1..10),
        bounces in any::<bool>(),
        offset in 0..1000u64,
    ) {
        let total: usize = lengths.iter().sum();
        prop_assume!(total > 0);
        let content = |salt: usize| move |index: usize| (index * 7 + index / 251 + salt) as u8;
        let mut disk: Vec<u8> = (0..total + 1000).map(content(1)).collect();
        let mut memory: Vec<Vec<u8>> = lengths.iter().map(|len| vec![0; *len]).collect();
        (0..total).zip(memory.iter_mut().flatten()).for_each(|(at, byte)| *byte = content(2)(at));
        let array: Vec<_> = memory.iter_mut().map(|part| iovec(part)).collect();

        let lane = lane(if bounces { 1 << 62 } else { 1 });
        // SAFETY: buffers and array outlive the transfer.
        let io = unsafe { Io::with_buffers(op, offset, &array, Token(1)) };
        let mut transfer = Transfer::new(&lane, io);
        prop_assert!(transfer.is_ready(None));
        let mut limits = limits.into_iter().cycle();
        let status = loop {
            let limit = limits.next().unwrap();
            let call = transfer.call();
            // No bytes at all would be the end of the medium: interrupt instead.
            let result = if limit == 0 { -libc::EINTR } else { perform(&mut disk, call, limit) };
            if let Some(status) = transfer.advance(result) {
                break status;
            }
        };
        transfer.finish();
        let at = usize::try_from(offset).unwrap();
        // Only if every limit was 0 is it interrupted for ever.
        let moves = limits.take(10).any(|limit| limit > 0);
        let expected = if moves { IoStatus::Ok } else { IoStatus::Failed(libc::EINTR) };
        prop_assert_eq!(status, expected);
        if moves {
            let content: Vec<u8> = match op {
                Op::Read => (at..at + total).map(content(1)).collect(),
                _ => (0..total).map(content(2)).collect(),
            };
            prop_assert!(memory.concat() == content, "in memory");
            prop_assert!(disk[at..at + total] == content, "on the disk");
        }
    }
}

#[test]
fn endless_interruption_ends_in_an_error() {
    let mut transfer = Transfer::new(&lane(1), Io::without_buffers(Op::Flush, 0, 0, Token(1)));
    let answers = std::iter::repeat_with(|| transfer.advance(-libc::EAGAIN));
    let status = answers.take(1000).flatten().next();
    assert_eq!(status, Some(IoStatus::Failed(libc::EAGAIN)));
}

#[test]
fn buffer_longer_than_a_call_takes_is_moved_in_several() {
    let length = 3 * CALL_MAX + 4096;
    let part = libc::iovec {
        iov_base: std::ptr::dangling_mut::<u64>().cast(), // Never touched: nobody makes the calls.
        iov_len: length,
    };
    let array = [part];
    // SAFETY: as above.
    let io = unsafe { Io::with_buffers(Op::Read, 0, &array, Token(1)) };
    let mut transfer = Transfer::new(&lane(1), io);
    let mut moved = Vec::new();
    loop {
        let Call::Read(span, at) = transfer.call() else {
            panic!("not a read");
        };
        assert_eq!(at, moved.iter().sum::<usize>() as u64);
        let len = buffers(span)[0].iov_len;
        moved.push(len);
        if transfer.advance(i32::try_from(len).unwrap()) == Some(IoStatus::Ok) {
            break;
        }
    }
    assert_eq!(moved, [CALL_MAX, CALL_MAX, CALL_MAX, 4096]);
}

#[test]
fn zeros_that_the_medium_cannot_make_are_written() {
    let op = Op::WriteZeroes { may_unmap: true };
    let len = 3 * 64 * 1024 + 512;
    let mut transfer = Transfer::new(&lane(1), Io::without_buffers(op, 512, len, Token(1)));
    assert!(matches!(transfer.call(), Call::Allocate { .. }));
    assert_eq!(transfer.advance(-libc::EOPNOTSUPP), None);
    let mut disk = vec![0xFF; 1 << 20];
    loop {
        let call = transfer.call();
        let result = perform(&mut disk, call, 100_000);
        if let Some(status) = transfer.advance(result) {
            assert_eq!(status, IoStatus::Ok);
            break;
        }
    }
    let end = usize::try_from(512 + len).unwrap();
    assert!(
        disk[..512]
            .iter()
            .chain(&disk[end..])
            .all(|byte| *byte == 0xFF)
    );
    assert!(disk[512..end].iter().all(|byte| *byte == 0));
}

#[test]
fn discard_that_the_medium_does_not_know_is_unsupported() {
    let io = Io::without_buffers(Op::Discard, 0, 512, Token(1));
    let mut transfer = Transfer::new(&lane(1), io);
    assert_eq!(
        transfer.advance(-libc::EOPNOTSUPP),
        Some(IoStatus::Unsupported)
    );
    let mut transfer = Transfer::new(&lane(1), io);
    assert_eq!(
        transfer.advance(-libc::EIO),
        Some(IoStatus::Failed(libc::EIO))
    );
}

#[test]
fn discard_past_the_end_that_a_vanished_drive_has_is_a_failure_of_the_drive() {
    let io = Io::without_buffers(Op::Discard, 0, 512, Token(1));
    let mut transfer = Transfer::new(&lane(1), io);
    assert_eq!(
        transfer.advance(-libc::EINVAL),
        Some(IoStatus::Failed(libc::EIO))
    );
}
