//! Feature bits: what is offered, and what the rings make of what was agreed on. Numbers from virtio 1.x sections 5.2.3
//! and 6, and from the vhost-user specification.

use holdfast_ring::QueueFeatures;
use holdfast_ring::blk::Limits;
use vhost::vhost_user::VhostUserProtocolFeatures;

const SIZE_MAX: u64 = 1 << 1;
const SEG_MAX: u64 = 1 << 2;
const RO: u64 = 1 << 5;
const BLK_SIZE: u64 = 1 << 6;
const FLUSH: u64 = 1 << 9;
const TOPOLOGY: u64 = 1 << 10;
const CONFIG_WCE: u64 = 1 << 11;
const MQ: u64 = 1 << 12;
const DISCARD: u64 = 1 << 13;
const WRITE_ZEROES: u64 = 1 << 14;
const INDIRECT_DESC: u64 = 1 << 28;
const EVENT_IDX: u64 = 1 << 29;
/// The front end speaks protocol features; rings then start disabled.
const PROTOCOL_FEATURES: u64 = 1 << 30;
const VERSION_1: u64 = 1 << 32;

/// The protocol features offered.
pub(super) const PROTOCOL: VhostUserProtocolFeatures = VhostUserProtocolFeatures::MQ
    .union(VhostUserProtocolFeatures::REPLY_ACK)
    .union(VhostUserProtocolFeatures::CONFIG)
    .union(VhostUserProtocolFeatures::BACKEND_REQ)
    .union(VhostUserProtocolFeatures::CONFIGURE_MEM_SLOTS)
    .union(VhostUserProtocolFeatures::RESET_DEVICE)
    .union(VhostUserProtocolFeatures::INFLIGHT_SHMFD);

/// The virtio features offered for a disk with these limits.
pub(super) fn offered(limits: &Limits) -> u64 {
    let always = SIZE_MAX
        | SEG_MAX
        | BLK_SIZE
        | TOPOLOGY
        | MQ
        | INDIRECT_DESC
        | EVENT_IDX
        | PROTOCOL_FEATURES
        | VERSION_1;
    let on_condition = [
        (limits.read_only, RO),
        (limits.flush, FLUSH | CONFIG_WCE),
        (limits.discard, DISCARD),
        (limits.write_zeroes, WRITE_ZEROES),
    ];
    on_condition
        .iter()
        .filter(|(holds, _)| *holds)
        .fold(always, |bits, (_, feature)| bits | feature)
}

/// What the rings are served with.
pub(super) fn of_queues(agreed: u64) -> QueueFeatures {
    QueueFeatures {
        event_idx: agreed & EVENT_IDX != 0,
        indirect: agreed & INDIRECT_DESC != 0,
    }
}

/// Whether rings wait for SET_VRING_ENABLE.
pub(super) fn rings_start_disabled(agreed: u64) -> bool {
    agreed & PROTOCOL_FEATURES != 0
}

/// Whether the driver may choose between write-back and write-through.
pub(super) fn lets_choose_cache(agreed: u64) -> bool {
    agreed & CONFIG_WCE != 0
}

/// Whether the driver can flush. One that cannot must find every write durable (virtio 1.x 5.2.6.2).
pub(super) fn can_flush(agreed: u64) -> bool {
    agreed & FLUSH != 0
}
