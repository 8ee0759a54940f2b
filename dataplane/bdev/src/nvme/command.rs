//! The words of NVMe: commands as the kernel's passthrough takes them, and what an answer means.

use crate::IoStatus;

/// `NVME_URING_CMD_IO`: one buffer, by address and length in bytes.
pub(crate) const URING_CMD_IO: u32 = 0xC048_4E80;
/// `NVME_URING_CMD_IO_VEC`: an iovec array, by address and number of entries.
pub(crate) const URING_CMD_IO_VEC: u32 = 0xC048_4E81;
/// `NVME_IOCTL_ADMIN_CMD`.
#[allow(clippy::cast_possible_wrap, clippy::cast_lossless)] // musl's type is narrower than glibc's, and signed.
pub(super) const IOCTL_ADMIN: libc::Ioctl = 0xC048_4E41_u32 as libc::Ioctl;
/// `NVME_IOCTL_ID`: tells the namespace's number.
pub(super) const IOCTL_ID: libc::Ioctl = 0x4E40;

const FLUSH: u8 = 0x00;
const WRITE: u8 = 0x01;
const READ: u8 = 0x02;
const WRITE_ZEROES: u8 = 0x08;
const DATASET_MANAGEMENT: u8 = 0x09;
const ADMIN_IDENTIFY: u8 = 0x06;

/// Dword 12 of Write Zeroes: the blocks may be deallocated.
const DEALLOCATE_ZEROES: u32 = 1 << 25;
/// Dword 11 of Dataset Management: deallocate the ranges.
const DEALLOCATE: u32 = 1 << 2;
/// The number of blocks of a command has 16 bits and counts from 0.
pub(super) const BLOCKS_MAX: u64 = 1 << 16;

/// `struct nvme_uring_cmd` (and `nvme_passthru_cmd`, which differs in the last word only), in our terms.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Command {
    opcode: u8,
    nsid: u32,
    address: u64,
    length: u32,
    /// Dwords 10 to 12; no command of ours has more.
    dwords: [u32; 3],
}

/// One entry of a Dataset Management command. Aligned so that it lies in one page, as a drive wants it.
#[derive(Debug, PartialEq, Eq)]
#[repr(C, align(16))]
pub(super) struct Range {
    attributes: u32,
    blocks: u32,
    first: u64,
}

impl Command {
    pub(super) fn read(nsid: u32, first: u64, blocks: u64) -> Command {
        Command::on_blocks(READ, nsid, first, blocks)
    }

    pub(super) fn write(nsid: u32, first: u64, blocks: u64) -> Command {
        Command::on_blocks(WRITE, nsid, first, blocks)
    }

    pub(super) fn write_zeroes(nsid: u32, first: u64, blocks: u64, deallocate: bool) -> Command {
        let mut command = Command::on_blocks(WRITE_ZEROES, nsid, first, blocks);
        if deallocate {
            command.dwords[2] |= DEALLOCATE_ZEROES;
        }
        command
    }

    pub(super) fn flush(nsid: u32) -> Command {
        Command {
            opcode: FLUSH,
            nsid,
            ..Command::default()
        }
    }

    /// The range must stay where it is until the command has come back.
    pub(super) fn deallocate(nsid: u32, range: &Range) -> Command {
        Command {
            opcode: DATASET_MANAGEMENT,
            nsid,
            // Dword 10 is the number of ranges, counted from 0.
            dwords: [0, DEALLOCATE, 0],
            ..Command::default()
        }
        .with_data(std::ptr::from_ref(range) as u64, size_of::<Range>())
    }

    /// Identify: what `structure` (CNS) says of the namespace, or of the controller if that is 0.
    pub(super) fn identify(structure: u32, nsid: u32, into: &mut [u8]) -> Command {
        Command {
            opcode: ADMIN_IDENTIFY,
            nsid,
            dwords: [structure, 0, 0],
            ..Command::default()
        }
        .with_data(into.as_mut_ptr() as u64, into.len())
    }

    /// Data at an address; `length` in bytes, or in entries of the iovec array there.
    pub(super) fn with_data(self, address: u64, length: usize) -> Command {
        let length = u32::try_from(length).expect("cut to what one command moves");
        Command {
            address,
            length,
            ..self
        }
    }

    fn on_blocks(opcode: u8, nsid: u32, first: u64, blocks: u64) -> Command {
        assert!((1..=BLOCKS_MAX).contains(&blocks), "the caller cuts");
        let counted_from_0 = u32::try_from(blocks - 1).expect("16 bits");
        Command {
            opcode,
            nsid,
            dwords: [low(first), low(first >> 32), counted_from_0],
            ..Command::default()
        }
    }

    /// As the kernel reads it: 72 bytes and, for io_uring's 80, zeros.
    pub(crate) fn bytes(&self) -> [u8; 80] {
        let mut bytes = [0; 80];
        bytes[0] = self.opcode;
        bytes[4..8].copy_from_slice(&self.nsid.to_ne_bytes());
        bytes[24..32].copy_from_slice(&self.address.to_ne_bytes());
        bytes[36..40].copy_from_slice(&self.length.to_ne_bytes());
        for (place, dword) in bytes[40..52].chunks_exact_mut(4).zip(self.dwords) {
            place.copy_from_slice(&dword.to_ne_bytes());
        }
        bytes
    }
}

impl Range {
    pub(super) fn new(first: u64, blocks: u64) -> Range {
        Range {
            attributes: 0,
            blocks: u32::try_from(blocks).expect("the caller cuts").to_le(),
            first: first.to_le(),
        }
    }
}

#[allow(clippy::cast_possible_truncation)] // Takes the word apart.
fn low(word: u64) -> u32 {
    word as u32
}

/// What to make of the answer to a command.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Answer {
    Done,
    /// The drive's last word on this command.
    Failed(IoStatus),
    /// The command met no drive that could serve it now, as while its controller is reset, or one that does not know
    /// it. The block path waits for the first, knows another way for the second, and tells what the truth is.
    Undecided,
}

/// `result` as io_uring tells it: 0, a negative error number, or the drive's status field without its phase bit.
/// The error numbers are those that Linux makes of the same status on the block path.
pub(super) fn answer(result: i32) -> Answer {
    /// Status code and its type, without the bits on retrying.
    const STATUS: i32 = 0x7ff;
    let errno = match result {
        0 => return Answer::Done,
        ..0 => return Answer::Undecided,
        status => match status & STATUS {
            0x080 => libc::EREMOTEIO,       // LBA out of range
            0x081 => libc::ENOSPC,          // capacity exceeded
            0x083 => libc::EBADE,           // reservation conflict
            0x282..=0x284 => libc::EILSEQ,  // end-to-end protection
            0x280 | 0x281 => libc::ENODATA, // write fault, unrecovered read
            0x285..=0x287 => libc::ENODATA, // compare, access denied, unwritten
            _ => return Answer::Undecided,
        },
    };
    Answer::Failed(IoStatus::Failed(errno))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Dwords 10 to 15 of the command as a drive sees them.
    fn dwords(command: Command) -> [u32; 6] {
        let bytes = command.bytes();
        std::array::from_fn(|n| u32::from_ne_bytes(bytes[40 + 4 * n..][..4].try_into().unwrap()))
    }

    #[test]
    fn transfer_names_its_first_block_and_counts_from_0() {
        let command = Command::write(7, 0x1_0000_0002, 8).with_data(0xABCD_0000_1000, 4096);
        let bytes = command.bytes();
        assert_eq!((bytes[0], bytes[1]), (0x01, 0), "opcode and flags");
        assert_eq!(bytes[4..8], 7u32.to_ne_bytes());
        assert_eq!(bytes[8..24], [0; 16], "dwords 2 and 3, metadata");
        assert_eq!(bytes[24..32], 0xABCD_0000_1000_u64.to_ne_bytes());
        assert_eq!(bytes[32..36], [0; 4], "length of metadata");
        assert_eq!(bytes[36..40], 4096u32.to_ne_bytes());
        assert_eq!(dwords(command), [2, 1, 7, 0, 0, 0]);
        assert_eq!(bytes[64..], [0; 16], "the drive's usual timeout");
        assert_eq!(Command::read(7, 0, 1).bytes()[0], 0x02);
        assert_eq!(dwords(Command::read(7, 0, BLOCKS_MAX))[2], 0xffff);
    }

    #[test]
    fn zeroes_are_deallocated_only_if_that_is_asked_for() {
        let command = |deallocate| Command::write_zeroes(1, 5, 3, deallocate);
        assert_eq!(command(false).bytes()[0], 0x08);
        assert_eq!(dwords(command(false)), [5, 0, 2, 0, 0, 0]);
        assert_eq!(dwords(command(true)), [5, 0, 2 | 1 << 25, 0, 0, 0]);
        assert_eq!(command(true).bytes()[24..40], [0; 16], "it has no data");
    }

    #[test]
    fn flush_is_nothing_but_its_opcode_and_namespace() {
        let mut expected = [0; 80];
        expected[4] = 9;
        assert_eq!(Command::flush(9).bytes(), expected);
    }

    #[test]
    fn deallocation_names_one_range_which_counts_from_1() {
        let range = Range::new(0x1_0000_0000, 16);
        let command = Command::deallocate(1, &range);
        assert_eq!(command.bytes()[0], 0x09);
        assert_eq!(dwords(command), [0, 4, 0, 0, 0, 0]);
        assert_eq!(command.address, std::ptr::from_ref(&range) as u64);
        assert_eq!((command.length, align_of::<Range>()), (16, 16));
        let (blocks, first) = (16u32.to_le(), 0x1_0000_0000_u64.to_le());
        assert_eq!(
            (range.attributes, range.blocks, range.first),
            (0, blocks, first)
        );
    }

    #[test]
    fn answer_is_the_error_linux_would_give_or_left_to_it() {
        let failed = |errno| Answer::Failed(IoStatus::Failed(errno));
        const DO_NOT_RETRY: i32 = 0x4000;
        for (result, expected) in [
            (0, Answer::Done),
            (0x281 | DO_NOT_RETRY, failed(libc::ENODATA)),
            (0x280, failed(libc::ENODATA)),
            (0x283, failed(libc::EILSEQ)),
            (0x080 | DO_NOT_RETRY, failed(libc::EREMOTEIO)),
            (0x081, failed(libc::ENOSPC)),
            (0x001 | DO_NOT_RETRY, Answer::Undecided), // invalid opcode
            (0x00b | DO_NOT_RETRY, Answer::Undecided), // no such namespace (any more)
            (0x370, Answer::Undecided),                // host path error
            (0x371, Answer::Undecided),                // aborted by the host
            (-libc::EINTR, Answer::Undecided),         // cancelled by a reset
            (-libc::ENODEV, Answer::Undecided),        // the controller is gone
            (-libc::ENXIO, Answer::Undecided),         // so is the namespace
            (-libc::EIO, Answer::Undecided),           // neither says so: the block path tells
            (0x006 | DO_NOT_RETRY, Answer::Undecided), // internal error
        ] {
            assert_eq!(answer(result), expected, "{result:#x}");
        }
    }
}
