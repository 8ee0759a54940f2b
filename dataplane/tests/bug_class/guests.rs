//! Rows G08, I01, I02, L09 and P01: what guests send, and how they are woken.

use crate::common::{Bench, SIZE, pattern};
use crate::{all_ok, late, malloc, write};
use holdfast_bdev::{BdevError, BlockDevice, Driver, Info, IoChannel, Malloc};
use holdfast_testkit::frontend::{BlkConfig, Guest, Layout, Op, Range, feature, status};
use std::sync::Arc;
use vhost::VhostBackend;
use vmm_sys_util::eventfd::EventFd;

/// L09: the no-descriptor flag of SET_VRING_KICK and SET_VRING_CALL: both sides poll.
#[test]
fn spdk_71c1bbeeb5_queue_without_descriptors_is_polled() {
    let bench = late();
    let mut guest = Guest::builder().connect(bench.socket("disk")).unwrap();
    guest.queue(0).flush().unwrap();
    guest.unplug(0).unwrap();
    guest.queue(0).set_polling(true);
    assert!(guest.config().is_ok(), "it was not refused");
    for round in 0..20 {
        let queue = guest.queue(0);
        // Shown and not kicked: `notify` would write to a descriptor that nobody watches.
        queue.write(512 * round, &pattern(1, 512)).unwrap();
        queue.take_interrupt();
    }
    let base = guest.stop_queue(0).unwrap();
    assert_eq!(base, 21);
}

/// G08: the header lies anywhere, as SeaBIOS puts it, and every buffer is cut at odd bytes.
#[test]
fn spdk_2452_header_at_any_address() {
    let bench = late();
    let mut guest = Guest::builder().connect(bench.socket("disk")).unwrap();
    for shift in [1, 2, 3, 7, 15, 511] {
        let layout = Layout {
            shift,
            ..Layout::ODD
        };
        let write = Op::Write {
            offset: 0,
            data: pattern(shift as u8, 4096),
        };
        let done = guest.queue(0).call(write, layout).unwrap();
        assert_eq!(done.status, status::OK);
        let read = Op::Read {
            offset: 0,
            len: 4096,
        };
        let done = guest.queue(0).call(read, layout).unwrap();
        assert_eq!(
            (done.status, done.data),
            (status::OK, pattern(shift as u8, 4096))
        );
    }
}

/// G08: write-zeroes may unmap, and is zeros either way. G07: lengths that wrap at 32 bits are refused.
#[test]
fn spdk_1714_write_zeroes_with_unmap_is_taken() {
    let bench = late();
    let mut guest = Guest::builder().connect(bench.socket("disk")).unwrap();
    for flags in [0, 1] {
        guest.queue(0).write(4096, &pattern(1, 4096)).unwrap();
        let zeroes = Op::WriteZeroes(vec![Range {
            sector: 8,
            sectors: 8,
            flags,
        }]);
        let done = guest.queue(0).call(zeroes, Layout::DIRECT).unwrap();
        assert_eq!(done.status, status::OK, "flags {flags}");
        assert_eq!(guest.queue(0).read(4096, 4096).unwrap(), vec![0; 4096]);
    }
    for sectors in [0x0080_0000, u32::MAX] {
        let range = Range {
            sector: 0,
            sectors,
            flags: 0,
        };
        for op in [Op::WriteZeroes(vec![range]), Op::Discard(vec![range])] {
            let done = guest.queue(0).call(op, Layout::DIRECT).unwrap();
            assert_eq!(done.status, status::IOERR, "{sectors:#x} sectors");
        }
    }
}

/// A disk that has nothing to flush.
#[derive(Debug)]
struct NoFlush(Malloc);

impl BlockDevice for NoFlush {
    fn info(&self) -> Info {
        Info {
            flush: false,
            ..self.0.info()
        }
    }
    fn open_channel(&self, driver: &mut Driver) -> Result<Box<dyn IoChannel>, BdevError> {
        self.0.open_channel(driver)
    }
    fn read_at(&self, offset: u64, buf: &mut [u8]) -> Result<(), BdevError> {
        self.0.read_at(offset, buf)
    }
    fn write_at(&self, offset: u64, buf: &[u8]) -> Result<(), BdevError> {
        self.0.write_at(offset, buf)
    }
    fn write_zeroes_at(&self, offset: u64, len: u64) -> Result<(), BdevError> {
        self.0.write_zeroes_at(offset, len)
    }
    fn flush(&self) -> Result<(), BdevError> {
        self.0.flush()
    }
}

/// G08: a flush that was not offered is unknown, not failed.
#[test]
fn spdk_3572_flush_without_support_is_unsupported() {
    let bench = Bench::empty();
    let device = NoFlush(Malloc::new(SIZE, 512).unwrap());
    bench.serve("disk", Arc::new(device));
    let mut guest = Guest::builder().connect(bench.socket("disk")).unwrap();
    assert_eq!(guest.features() & feature::FLUSH, 0);
    let done = guest.queue(0).call(Op::Flush, Layout::DIRECT).unwrap();
    assert_eq!(done.status, status::UNSUPP);
}

/// I01: every queue sleeps and is woken by its own kick.
#[test]
fn spdk_2940_every_queue_wakes_by_its_own_kick() {
    let bench = late();
    for without in [0, feature::EVENT_IDX] {
        let builder = Guest::builder().queues(8).without(without);
        let mut guest = builder.connect(bench.socket("disk")).unwrap();
        for round in 0..200usize {
            let at = (round * 5) % 8;
            guest.queue(at).flush().unwrap();
        }
    }
}

/// I02: positions pass 65535 with far more than a batch waiting, in both ways of asking for kicks and interrupts.
#[test]
fn spdk_i02_positions_wrap_with_many_waiting() {
    let bench = Bench::empty();
    bench.serve("disk", malloc());
    for without in [0, feature::EVENT_IDX] {
        let builder = Guest::builder().queue_size(256).without(without).inflight();
        let mut guest = builder.connect(bench.socket("disk")).unwrap();
        let mut done = 0u32;
        // Not a divisor of 65536, so that a batch lies across the wrap.
        while done < 65536 + 2000 {
            for _ in 0..200 {
                guest.queue(0).stage(Op::GetId, Layout::INDIRECT).unwrap();
            }
            guest.queue(0).notify().unwrap();
            let answers = guest.queue(0).drain().unwrap();
            assert!(all_ok(&answers));
            done += answers.len() as u32;
        }
        assert_eq!(guest.stop_queue(0).unwrap(), done as u16);
        guest.start_queue(0).unwrap();
        guest.queue(0).flush().unwrap();
    }
}

/// P01: requests complete during every message that a running disk can get.
#[test]
fn spdk_2518_completions_during_every_message() {
    let bench = late();
    let builder = Guest::builder().queues(2).inflight();
    let mut guest = builder.connect(bench.socket("disk")).unwrap();
    type Tell = fn(&mut Guest);
    let messages: [Tell; 10] = [
        |guest| guest.send_features().unwrap(),
        |guest| _ = guest.config().unwrap(),
        |guest| guest.set_config(BlkConfig::WCE_OFFSET, &[0]).unwrap(),
        |guest| guest.set_config(BlkConfig::WCE_OFFSET, &[1]).unwrap(),
        |guest| guest.send_call(0).unwrap(),
        |guest| guest.send_kick(0).unwrap(),
        |guest| {
            let err = EventFd::new(0).unwrap();
            guest
                .ask("SET_VRING_ERR", |f| f.set_vring_err(0, &err))
                .unwrap();
        },
        |guest| {
            let plugged = guest.add_region(1 << 20).unwrap();
            guest.remove_region(plugged).unwrap();
        },
        |guest| {
            guest.enable_queue(0, false).unwrap();
            guest.enable_queue(0, true).unwrap();
        },
        |guest| {
            guest.stop_queue(0).unwrap();
            guest.start_queue(0).unwrap();
        },
    ];
    for round in 0..40u8 {
        for message in messages {
            for at in 0..32 {
                let queue = guest.queue(at % 2);
                queue
                    .submit(write(at as u64 * 512, round), Layout::INDIRECT)
                    .unwrap();
            }
            message(&mut guest);
            for queue in guest.queues() {
                assert!(all_ok(&queue.drain().unwrap()));
            }
        }
    }
}
