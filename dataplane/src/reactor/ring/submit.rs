//! The way of one request from guest memory to a block device.
#![allow(unsafe_code)] // Hands the buffers of a guest to a block device.

use holdfast_bdev::{Driver, Io, IoChannel, Op, Token};
use holdfast_ring::blk::{Kind, Request};

/// Hands a request that needs a device to the device.
pub(super) fn submit(
    channel: &mut dyn IoChannel,
    kind: Kind,
    request: &Request,
    token: Token,
    driver: &mut Driver,
) {
    let transfer = |op| {
        // SAFETY: the request stays in its slot, and with it the iovecs and the mapping of the guest's memory, until the
        // completion for `token` has been taken from the driver: it is answered only then, or while no device has it;
        // and a reactor drops its driver before its slots.
        unsafe { Io::with_buffers(op, request.offset_bytes(), request.iov(), token) }
    };
    let op = match kind {
        Kind::In => return channel.submit(driver, transfer(Op::Read)),
        Kind::Out => return channel.submit(driver, transfer(Op::Write)),
        Kind::Discard => Op::Discard,
        Kind::WriteZeroes { may_unmap } => Op::WriteZeroes { may_unmap },
        Kind::Flush | Kind::GetId | Kind::Rejected(_) => {
            return channel.submit(driver, Io::without_buffers(Op::Flush, 0, 0, token));
        }
    };
    // At least one range: `pop` rejects a request without.
    let parts = u32::try_from(request.ranges().len()).unwrap_or(u32::MAX);
    let part = driver.join(token, parts);
    for range in request.ranges() {
        let io = Io::without_buffers(op, range.offset_bytes, range.len_bytes, part);
        channel.submit(driver, io);
    }
}
