//! DeleteVolume and ControllerExpandVolume: idempotence, refusals, and calls that were cut short.
#![allow(clippy::unwrap_used)]

mod common;

use common::{House, MIB, NODE, SHORT, capability, range, wish};
use holdfast_api::{BlockPool, SplitVolume, VolumeSession, quantity};
use holdfast_proto::csi::v1::ControllerExpandVolumeRequest;
use holdfast_proto::csi::v1::controller_server::Controller as _;
use holdfast_proto::csi::v1::volume_capability::access_mode::Mode;
use holdfast_store::Store;
use tonic::{Code, Request};

#[tokio::test]
async fn deleted_volume_is_gone_and_its_space_free() {
    let house = House::with_pools(&[("p1", NODE, 64 * MIB)]).await;
    house.create(wish("a", 64 * MIB)).await.unwrap();
    house.delete("a").await.unwrap();
    assert_eq!(house.stored("a").await, None);
    let pool: BlockPool = house.store.get("p1").await.unwrap().unwrap();
    assert_eq!(pool.status.unwrap().free_bytes, 64 * MIB);
    house.delete("a").await.unwrap();
}

#[tokio::test]
async fn volume_that_never_was_is_deleted_without_a_word() {
    let house = House::with_pools(&[]).await;
    for id in [
        "a",
        "fake-vol-id-1",
        "Not A Name",
        "../../etc/passwd",
        &"x".repeat(500),
    ] {
        house.delete(id).await.unwrap();
    }
}

#[tokio::test]
async fn staged_volume_is_not_deleted() {
    let house = House::with_pools(&[("p1", NODE, 64 * MIB)]).await;
    house.create(wish("a", MIB)).await.unwrap();
    house.stage("a").await;
    let status = house.delete("a").await.unwrap_err();
    assert_eq!(status.code(), Code::FailedPrecondition, "{status}");
    assert!(status.message().contains(NODE), "{status}");
    let stored = house.stored("a").await.unwrap();
    assert!(stored.metadata.deletion_timestamp.is_none(), "untouched");
    house.store.delete::<VolumeSession>("a").await.unwrap();
    house.delete("a").await.unwrap();
}

#[tokio::test]
async fn delete_without_an_agent_ends_by_deadline_and_blocks_the_name() {
    let mut house = House::empty(SHORT);
    house.add_pool("p1", NODE, 64 * MIB).await;
    house.create(wish("a", MIB)).await.unwrap_err();
    let status = house.delete("a").await.unwrap_err();
    assert_eq!(status.code(), Code::DeadlineExceeded, "{status}");
    let status = house.create(wish("a", MIB)).await.unwrap_err();
    assert_eq!(status.code(), Code::Aborted, "{status}");
    let status = house.expand("a", 2 * MIB).await.unwrap_err();
    assert_eq!(status.code(), Code::Aborted, "{status}");
    house.start_agent();
    while house.delete("a").await.is_err() {}
    assert_eq!(house.stored("a").await, None);
}

#[tokio::test]
async fn volume_grows_and_a_repeated_call_finds_it_grown() {
    let house = House::with_pools(&[("p1", NODE, 64 * MIB)]).await;
    house.create(wish("a", 8 * MIB)).await.unwrap();
    assert_eq!(house.expand("a", 16 * MIB).await.unwrap(), 16 * MIB);
    assert_eq!(house.expand("a", 16 * MIB).await.unwrap(), 16 * MIB);
    assert_eq!(house.expand("a", MIB).await.unwrap(), 16 * MIB);
    assert_eq!(house.expand("a", 16 * MIB + 1).await.unwrap(), 17 * MIB);
    let again = house.create(wish("a", 8 * MIB)).await.unwrap();
    assert_eq!(again.capacity_bytes, 17 << 20, "still the same volume");
}

#[tokio::test]
async fn volume_that_cannot_grow_keeps_its_size_and_its_wish() {
    let house = House::with_pools(&[("p1", NODE, 64 * MIB)]).await;
    house.create(wish("a", 8 * MIB)).await.unwrap();
    for bytes in [65 * MIB, 1 << 60] {
        let status = house.expand("a", bytes).await.unwrap_err();
        assert_eq!(status.code(), Code::OutOfRange, "{status}");
        let volume: SplitVolume = house.stored("a").await.unwrap();
        assert_eq!(volume.spec.size, quantity(8 * MIB));
    }
    assert_eq!(house.expand("a", 64 * MIB).await.unwrap(), 64 * MIB);
}

#[tokio::test]
async fn growing_beyond_the_limit_or_below_the_size_is_out_of_range() {
    let house = House::with_pools(&[("p1", NODE, 64 * MIB)]).await;
    house.create(wish("a", 8 * MIB)).await.unwrap();
    for capacity_range in [range(MIB, 4 * MIB), range(9 * MIB + 1, 9 * MIB + 2)] {
        let request = ControllerExpandVolumeRequest {
            volume_id: "a".to_owned(),
            capacity_range,
            volume_capability: Some(capability(Mode::SingleNodeWriter)),
            ..Default::default()
        };
        let answer = house
            .controller
            .controller_expand_volume(Request::new(request))
            .await;
        assert_eq!(answer.unwrap_err().code(), Code::OutOfRange);
    }
}

#[tokio::test]
async fn growing_what_is_not_there_is_not_found() {
    let house = House::with_pools(&[]).await;
    for id in ["a", "Not A Name"] {
        let status = house.expand(id, MIB).await.unwrap_err();
        assert_eq!(status.code(), Code::NotFound, "{status}");
    }
}

#[tokio::test]
async fn growth_cut_short_is_completed_by_its_repetition() {
    let mut house = House::empty(SHORT);
    house.add_pool("p1", NODE, 64 * MIB).await;
    house.create(wish("a", MIB)).await.unwrap_err();
    let status = house.expand("a", 8 * MIB).await.unwrap_err();
    assert_eq!(status.code(), Code::DeadlineExceeded, "{status}");
    house.start_agent();
    loop {
        match house.expand("a", 8 * MIB).await {
            Ok(bytes) => break assert_eq!(bytes, 8 * MIB),
            Err(status) => assert_eq!(status.code(), Code::DeadlineExceeded, "{status}"),
        }
    }
}
