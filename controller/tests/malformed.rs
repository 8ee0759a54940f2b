//! Malformed calls: the right code, a message that names what is wrong, and nothing half done.
#![allow(clippy::unwrap_used)]

mod common;

use common::{House, MIB, NODE, capability, parameters, wish};
use holdfast_proto::csi::v1::controller_server::Controller as _;
use holdfast_proto::csi::v1::volume_capability::access_mode::Mode;
use holdfast_proto::csi::v1::volume_capability::{AccessType, BlockVolume};
use holdfast_proto::csi::v1::{
    CapacityRange, ControllerExpandVolumeRequest, ControllerPublishVolumeRequest,
    ControllerUnpublishVolumeRequest, CreateSnapshotRequest, CreateVolumeRequest,
    DeleteSnapshotRequest, GetCapacityRequest, GetSnapshotRequest, ListSnapshotsRequest, Topology,
    TopologyRequirement, ValidateVolumeCapabilitiesRequest, VolumeCapability, VolumeContentSource,
    volume_content_source,
};
use std::collections::HashMap;
use tonic::{Code, Request, Status};

fn with_parameters(pairs: &[(&str, &str)]) -> CreateVolumeRequest {
    CreateVolumeRequest {
        parameters: parameters(pairs),
        ..wish("a", MIB)
    }
}

fn with_range(required_bytes: i64, limit_bytes: i64) -> CreateVolumeRequest {
    CreateVolumeRequest {
        capacity_range: Some(CapacityRange {
            required_bytes,
            limit_bytes,
        }),
        ..wish("a", MIB)
    }
}

fn with_capabilities(volume_capabilities: Vec<VolumeCapability>) -> CreateVolumeRequest {
    CreateVolumeRequest {
        volume_capabilities,
        ..wish("a", MIB)
    }
}

fn with_source(kind: Option<volume_content_source::Type>) -> CreateVolumeRequest {
    CreateVolumeRequest {
        volume_content_source: Some(VolumeContentSource { r#type: kind }),
        ..wish("a", MIB)
    }
}

fn in_zone() -> Topology {
    Topology {
        segments: HashMap::from([("zone".to_owned(), "z1".to_owned())]),
    }
}

#[tokio::test]
async fn malformed_create_is_invalid_and_makes_nothing() {
    let house = House::with_pools(&[("p1", NODE, 64 * MIB)]).await;
    let block = VolumeCapability {
        access_type: Some(AccessType::Block(BlockVolume {})),
        ..capability(Mode::SingleNodeWriter)
    };
    let snapshot = volume_content_source::Type::Snapshot(Default::default());
    let clone = volume_content_source::Type::Volume(Default::default());
    let cases = [
        (wish("", MIB), "name"),
        (wish(&"x".repeat(129), MIB), "129 bytes"),
        (with_capabilities(vec![]), "volume_capabilities"),
        (
            with_capabilities(vec![VolumeCapability::default()]),
            "access type",
        ),
        (with_capabilities(vec![block]), "block"),
        (
            with_capabilities(vec![capability(Mode::MultiNodeMultiWriter)]),
            "MULTI_NODE",
        ),
        (with_range(0, 0), "empty"),
        (with_range(-1, 0), "negative"),
        (with_range(2, 1), "limits"),
        (
            with_parameters(&[("speed", "11")]),
            "known are pool, onDeviceLoss, holdSeconds",
        ),
        (with_parameters(&[("pool", "../x")]), "../x"),
        (with_parameters(&[("pool", "unborn")]), "pools are p1"),
        (with_parameters(&[("onDeviceLoss", "Hold")]), "hold or fail"),
        (with_parameters(&[("holdSeconds", "-1")]), "holdSeconds"),
        (with_parameters(&[("holdSeconds", "soon")]), "soon"),
        (
            with_parameters(&[("onDeviceLoss", "fail"), ("holdSeconds", "9")]),
            "holdSeconds makes no sense",
        ),
        (with_source(Some(snapshot)), "a snapshot"),
        (with_source(Some(clone)), "another volume"),
        (with_source(None), "unknown kind"),
        (
            CreateVolumeRequest {
                mutable_parameters: parameters(&[("speed", "1")]),
                ..wish("a", MIB)
            },
            "known are iops, iopsBurst, bps, bpsBurst",
        ),
        (
            CreateVolumeRequest {
                accessibility_requirements: Some(TopologyRequirement {
                    requisite: vec![in_zone()],
                    preferred: vec![],
                }),
                ..wish("a", MIB)
            },
            "zone",
        ),
    ];
    for (request, word) in cases {
        let status = house.create(request).await.unwrap_err();
        assert_eq!(status.code(), Code::InvalidArgument, "{status}");
        assert!(status.message().contains(word), "{word}: {status}");
    }
    assert!(house.list(0, "").await.unwrap().0.is_empty());
}

#[tokio::test]
async fn missing_field_is_invalid_and_named() {
    let house = House::with_pools(&[("p1", NODE, 64 * MIB)]).await;
    house.create(wish("a", MIB)).await.unwrap();
    let expand = |volume_id: &str, capacity_range, volume_capability| {
        let request = ControllerExpandVolumeRequest {
            volume_id: volume_id.to_owned(),
            capacity_range,
            volume_capability,
            ..Default::default()
        };
        house
            .controller
            .controller_expand_volume(Request::new(request))
    };
    let validate = |volume_id: &str, volume_capabilities| {
        let request = ValidateVolumeCapabilitiesRequest {
            volume_id: volume_id.to_owned(),
            volume_capabilities,
            ..Default::default()
        };
        house
            .controller
            .validate_volume_capabilities(Request::new(request))
    };
    let megabyte = common::range(MIB, 0);
    let mode = |mode| capability(mode);
    let get = Request::new(Default::default());
    let zoned = GetCapacityRequest {
        accessible_topology: Some(in_zone()),
        ..Default::default()
    };
    let unknown = GetCapacityRequest {
        parameters: parameters(&[("speed", "11")]),
        ..Default::default()
    };
    let cases = [
        (house.delete("").await.err(), "volume_id"),
        (expand("", megabyte, None).await.err(), "volume_id"),
        (expand("a", None, None).await.err(), "capacity_range"),
        (
            expand("a", common::range(0, 0), None).await.err(),
            "capacity_range",
        ),
        (
            expand("a", megabyte, Some(mode(Mode::MultiNodeReaderOnly)))
                .await
                .err(),
            "MULTI_NODE_READER_ONLY",
        ),
        (
            validate("", vec![mode(Mode::SingleNodeWriter)]).await.err(),
            "volume_id",
        ),
        (validate("a", vec![]).await.err(), "volume_capabilities"),
        (
            house.controller.controller_get_volume(get).await.err(),
            "volume_id",
        ),
        (house.list(-1, "").await.err(), "max_entries"),
        (
            house
                .controller
                .get_capacity(Request::new(zoned))
                .await
                .err(),
            "zone",
        ),
        (
            house
                .controller
                .get_capacity(Request::new(unknown))
                .await
                .err(),
            "speed",
        ),
    ];
    for (status, word) in cases {
        let status = status.unwrap();
        assert_eq!(status.code(), Code::InvalidArgument, "{status}");
        assert!(status.message().contains(word), "{word}: {status}");
    }
    let absent = validate("b", vec![mode(Mode::SingleNodeWriter)]).await;
    assert_eq!(absent.unwrap_err().code(), Code::NotFound);
}

#[tokio::test]
async fn call_that_is_not_offered_is_unimplemented_and_says_so() {
    let house = House::with_pools(&[]).await;
    let on = &house.controller;
    fn refused<T>(answer: Result<T, Status>) -> Status {
        answer.err().unwrap()
    }
    let answers = [
        refused(
            on.controller_publish_volume(Request::new(ControllerPublishVolumeRequest::default()))
                .await,
        ),
        refused(
            on.controller_unpublish_volume(Request::new(
                ControllerUnpublishVolumeRequest::default(),
            ))
            .await,
        ),
        refused(
            on.create_snapshot(Request::new(CreateSnapshotRequest::default()))
                .await,
        ),
        refused(
            on.delete_snapshot(Request::new(DeleteSnapshotRequest::default()))
                .await,
        ),
        refused(
            on.list_snapshots(Request::new(ListSnapshotsRequest::default()))
                .await,
        ),
        refused(
            on.get_snapshot(Request::new(GetSnapshotRequest::default()))
                .await,
        ),
    ];
    for status in answers {
        assert_eq!(status.code(), Code::Unimplemented);
        assert!(status.message().contains("not served"), "{status}");
    }
}

#[tokio::test]
async fn damaged_manifest_is_unavailable_and_named() {
    let (house, dir) = House::in_known_dir().await;
    let path = dir.join("splitvolumes").join("a.yaml");
    std::fs::write(path, "kind: [").unwrap();
    for status in [
        house.create(wish("a", MIB)).await.unwrap_err(),
        house.delete("a").await.unwrap_err(),
        house.expand("a", MIB).await.unwrap_err(),
    ] {
        assert_eq!(status.code(), Code::Unavailable, "{status}");
        assert!(status.message().contains("a.yaml"), "{status}");
    }
    house.create(wish("b", MIB)).await.unwrap();
}
