//! ListVolumes, ControllerGetVolume, GetCapacity, ValidateVolumeCapabilities, ControllerGetCapabilities.
#![allow(clippy::unwrap_used)]

mod common;

use common::{House, MIB, NODE, capability, parameters, wish};
use holdfast_api::TOPOLOGY_KEY;
use holdfast_proto::csi::v1::controller_server::Controller as _;
use holdfast_proto::csi::v1::volume_capability::access_mode::Mode;
use holdfast_proto::csi::v1::{
    ControllerGetCapabilitiesRequest, ControllerGetVolumeRequest, GetCapacityRequest,
    GetCapacityResponse, Topology, ValidateVolumeCapabilitiesRequest,
};
use std::collections::HashMap;
use tonic::{Code, Request};

#[tokio::test]
async fn pages_hold_each_volume_once_while_volumes_come_and_go() {
    let house = House::with_pools(&[("p1", NODE, 64 * MIB)]).await;
    for name in ["a", "c", "d", "e"] {
        house.create(wish(name, MIB)).await.unwrap();
    }
    let (first, token) = house.list(2, "").await.unwrap();
    assert_eq!(first, ["a", "c"]);
    house.delete("c").await.unwrap();
    house.create(wish("b", MIB)).await.unwrap();
    let (second, token) = house.list(1, &token).await.unwrap();
    assert_eq!(second, ["d"]);
    let (third, token) = house.list(1, &token).await.unwrap();
    assert_eq!(
        (third.as_slice(), token.as_str()),
        (&["e".to_owned()][..], "")
    );
    let (all, token) = house.list(0, "").await.unwrap();
    assert_eq!((all.len(), token.as_str()), (4, ""));
}

#[tokio::test]
async fn token_that_is_not_ours_is_aborted() {
    let house = House::with_pools(&[]).await;
    for token in ["invalid-token", "1", "after/", "after/../x", "after/A"] {
        let status = house.list(0, token).await.unwrap_err();
        assert_eq!(status.code(), Code::Aborted, "{token}");
    }
}

#[tokio::test]
async fn volume_is_described_with_its_condition() {
    let house = House::with_pools(&[("p1", NODE, 64 * MIB)]).await;
    house.create(wish("a", MIB)).await.unwrap();
    let get = |id: &str| {
        let volume_id = id.to_owned();
        let request = Request::new(ControllerGetVolumeRequest { volume_id });
        house.controller.controller_get_volume(request)
    };
    let answer = get("a").await.unwrap().into_inner();
    assert_eq!(answer.volume.unwrap().capacity_bytes, 1 << 20);
    let condition = answer.status.unwrap().volume_condition.unwrap();
    assert!(condition.abnormal, "the test's agent says nothing of Ready");
    assert!(condition.message.contains(NODE));
    assert_eq!(get("b").await.unwrap_err().code(), Code::NotFound);
}

async fn capacity(house: &House, request: GetCapacityRequest) -> GetCapacityResponse {
    let answer = house.controller.get_capacity(Request::new(request)).await;
    answer.unwrap().into_inner()
}

fn on_node(name: &str) -> Option<Topology> {
    Some(Topology {
        segments: HashMap::from([(TOPOLOGY_KEY.to_owned(), name.to_owned())]),
    })
}

#[tokio::test]
async fn capacity_honours_node_pool_and_capabilities() {
    let pools = [
        ("p1", "n1", 64 * MIB),
        ("p2", "n1", 32 * MIB),
        ("p3", "n2", MIB),
    ];
    let house = House::with_pools(&pools).await;
    let pool = |name: &str| GetCapacityRequest {
        parameters: parameters(&[("pool", name)]),
        ..Default::default()
    };
    let node = |name: &str| GetCapacityRequest {
        accessible_topology: on_node(name),
        ..Default::default()
    };
    let shared = GetCapacityRequest {
        volume_capabilities: vec![capability(Mode::MultiNodeMultiWriter)],
        ..Default::default()
    };
    let cases = [
        (GetCapacityRequest::default(), 97, 64),
        (node("n1"), 96, 64),
        (node("n2"), 1, 1),
        (node("n9"), 0, 0),
        (pool("p2"), 32, 32),
        (pool("unborn"), 0, 0),
        (shared, 0, 0),
    ];
    for (request, available, maximum) in cases {
        let answer = capacity(&house, request.clone()).await;
        assert_eq!(answer.available_capacity, available << 20, "{request:?}");
        assert_eq!(
            answer.maximum_volume_size,
            Some(maximum << 20),
            "{request:?}"
        );
        assert_eq!(answer.minimum_volume_size, Some(1 << 20));
    }
    house.create(wish("a", 10 * MIB)).await.unwrap();
    let left = capacity(&house, node("n1")).await;
    assert_eq!(left.available_capacity, 86 << 20);
    house.cordon("p1").await;
    let left = capacity(&house, node("n1")).await;
    assert_eq!(left.available_capacity, 32 << 20);
}

async fn objection(house: &House, request: ValidateVolumeCapabilitiesRequest) -> Option<String> {
    let answer = house
        .controller
        .validate_volume_capabilities(Request::new(request))
        .await
        .unwrap()
        .into_inner();
    answer.confirmed.is_none().then_some(answer.message)
}

#[tokio::test]
async fn capabilities_are_confirmed_only_where_all_is_served() {
    let house = House::with_pools(&[("p1", NODE, 64 * MIB)]).await;
    house.create(wish("a", MIB)).await.unwrap();
    let ask = || ValidateVolumeCapabilitiesRequest {
        volume_id: "a".to_owned(),
        volume_capabilities: vec![capability(Mode::SingleNodeWriter)],
        volume_context: parameters(&[("pool", "p1")]),
        parameters: parameters(&[("pool", "p1")]),
        ..Default::default()
    };
    assert_eq!(objection(&house, ask()).await, None);
    let mut kept = ask();
    let provisioner = "storage.kubernetes.io/csiProvisionerIdentity";
    kept.volume_context
        .insert(provisioner.to_owned(), "x".to_owned());
    assert_eq!(objection(&house, kept).await, None);
    let mut shared = ask();
    shared
        .volume_capabilities
        .push(capability(Mode::MultiNodeMultiWriter));
    let mut foreign = ask();
    foreign.volume_context = parameters(&[("pool", "p2")]);
    let mut other = ask();
    other.parameters = parameters(&[("onDeviceLoss", "fail")]);
    let mut unknown = ask();
    unknown.parameters = parameters(&[("speed", "11")]);
    let mut mutable = ask();
    mutable.mutable_parameters = parameters(&[("iops", "1")]);
    let cases = [
        (shared, "MULTI_NODE_MULTI_WRITER"),
        (foreign, "pool=p2"),
        (other, "onDeviceLoss"),
        (unknown, "speed"),
        (mutable, "no limits"),
    ];
    for (request, word) in cases {
        let message = objection(&house, request).await.unwrap();
        assert!(message.contains(word), "{message}");
    }
}

#[tokio::test]
async fn what_is_offered_is_what_is_served() {
    let house = House::with_pools(&[]).await;
    let request = Request::new(ControllerGetCapabilitiesRequest {});
    let answer = house.controller.controller_get_capabilities(request).await;
    assert_eq!(answer.unwrap().get_ref().capabilities.len(), 8);
}
