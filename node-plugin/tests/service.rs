//! The CSI node calls: what they do, what they answer when repeated, and the code of everything they refuse.
#![allow(clippy::unwrap_used)]

mod common;

use common::{Cut, MIB, Machine, NODE, VOLUME, VOLUME_BYTES, capability, code, staging_path};
use holdfast_api::{SplitVolume, TOPOLOGY_KEY, VolumeSession};
use holdfast_csi::Mode;
use holdfast_proto::csi::v1::node_server::Node as _;
use holdfast_proto::csi::v1::node_service_capability::{Type, rpc};
use holdfast_proto::csi::v1::volume_capability::{AccessType, BlockVolume, MountVolume};
use holdfast_proto::csi::v1::{
    NodeGetCapabilitiesRequest, NodeGetInfoRequest, NodePublishVolumeRequest,
    NodeStageVolumeRequest, NodeUnpublishVolumeRequest, NodeUnstageVolumeRequest, VolumeCapability,
};
use holdfast_store::Store;
use std::fs;
use std::os::unix::fs::symlink;
use std::os::unix::net::UnixStream;
use tonic::{Code, Request};

#[test]
fn volume_goes_through_its_life_and_every_call_may_be_repeated() {
    let machine = Machine::with_volume();
    machine.run(|node| async move {
        let target = node.targets.join("t");
        for _ in 0..2 {
            for _ in 0..3 {
                node.stage(VOLUME).await.unwrap();
            }
            for _ in 0..3 {
                node.publish(VOLUME, "t").await.unwrap();
                UnixStream::connect(target.join("v.sock")).unwrap();
                assert!(target.join("disk.img").exists());
            }
            for _ in 0..3 {
                node.unpublish(VOLUME, "t").await.unwrap();
                assert!(!target.exists());
            }
            for _ in 0..3 {
                node.unstage(VOLUME).await.unwrap();
                assert!(node.engine.exports().is_empty());
            }
        }
    });
}

#[test]
fn call_without_a_required_field_is_invalid() {
    let machine = Machine::with_volume();
    machine.run(|node| async move {
        let stage = NodeStageVolumeRequest {
            volume_id: VOLUME.into(),
            staging_target_path: staging_path(VOLUME),
            volume_capability: Some(capability(Mode::SingleNodeWriter)),
            ..Default::default()
        };
        let publish = node.publish_request(VOLUME, "t", Mode::SingleNodeWriter);
        let none = String::new;
        let stages = [
            NodeStageVolumeRequest {
                volume_id: none(),
                ..stage.clone()
            },
            NodeStageVolumeRequest {
                staging_target_path: none(),
                ..stage.clone()
            },
            NodeStageVolumeRequest {
                volume_capability: None,
                ..stage
            },
        ];
        for call in stages {
            let answer = node.service.node_stage_volume(Request::new(call)).await;
            assert_eq!(code(answer), Code::InvalidArgument);
        }
        let publishes = [
            NodePublishVolumeRequest {
                volume_id: none(),
                ..publish.clone()
            },
            NodePublishVolumeRequest {
                target_path: none(),
                ..publish.clone()
            },
            NodePublishVolumeRequest {
                volume_capability: None,
                ..publish
            },
        ];
        for call in publishes {
            assert_eq!(code(node.publish_call(call).await), Code::InvalidArgument);
        }
        for (volume_id, path) in [("", "/t"), (VOLUME, "")] {
            let unstage = NodeUnstageVolumeRequest {
                volume_id: volume_id.into(),
                staging_target_path: path.into(),
            };
            let answer = node
                .service
                .node_unstage_volume(Request::new(unstage))
                .await;
            assert_eq!(code(answer), Code::InvalidArgument);
            let unpublish = NodeUnpublishVolumeRequest {
                volume_id: volume_id.into(),
                target_path: path.into(),
            };
            let answer = node
                .service
                .node_unpublish_volume(Request::new(unpublish))
                .await;
            assert_eq!(code(answer), Code::InvalidArgument);
            assert_eq!(
                code(node.stats(volume_id, path).await),
                Code::InvalidArgument
            );
            assert_eq!(
                code(node.expand(volume_id, path, (1, 0)).await),
                Code::InvalidArgument
            );
        }
    });
}

#[test]
fn capability_not_served_is_invalid_and_nothing_is_done() {
    let machine = Machine::with_volume();
    machine.run(|node| async move {
        let good = capability(Mode::SingleNodeWriter);
        let flags = MountVolume {
            mount_flags: vec!["ro".into()],
            ..Default::default()
        };
        let bad = [
            VolumeCapability {
                access_type: Some(AccessType::Block(BlockVolume {})),
                ..good
            },
            VolumeCapability {
                access_type: Some(AccessType::Mount(flags)),
                ..good
            },
            VolumeCapability {
                access_type: None,
                ..good
            },
            VolumeCapability {
                access_mode: None,
                ..good.clone()
            },
            capability(Mode::MultiNodeMultiWriter),
            capability(Mode::Unknown),
        ];
        for capability in bad {
            let stage = NodeStageVolumeRequest {
                volume_id: VOLUME.into(),
                staging_target_path: staging_path(VOLUME),
                volume_capability: Some(capability.clone()),
                ..Default::default()
            };
            let answer = node.service.node_stage_volume(Request::new(stage)).await;
            assert_eq!(code(answer), Code::InvalidArgument, "{capability:?}");
            let mut publish = node.publish_request(VOLUME, "t", Mode::SingleNodeWriter);
            publish.volume_capability = Some(capability);
            assert_eq!(
                code(node.publish_call(publish).await),
                Code::InvalidArgument
            );
        }
        assert!(node.store.list::<VolumeSession>().await.unwrap().is_empty());
    });
}

#[test]
fn unknown_volume_is_not_found_whatever_its_id_looks_like() {
    let machine = Machine::with_volume();
    machine.run(|node| async move {
        let ids = [
            "no-such",
            "fake-vol-id-B3",
            "../../etc",
            "a/b",
            "A",
            &"x".repeat(128),
            "\0",
        ];
        for id in ids {
            assert_eq!(code(node.stage(id).await), Code::NotFound, "{id:?}");
            assert_eq!(code(node.publish(id, "t").await), Code::NotFound, "{id:?}");
            assert_eq!(code(node.stats(id, "/t").await), Code::NotFound, "{id:?}");
            assert_eq!(
                code(node.expand(id, "/t", (1, 0)).await),
                Code::NotFound,
                "{id:?}"
            );
            assert_eq!(code(node.unpublish(id, "t").await), Code::Ok, "{id:?}");
            let unstage = NodeUnstageVolumeRequest {
                volume_id: id.into(),
                staging_target_path: "/s".into(),
            };
            let answer = node
                .service
                .node_unstage_volume(Request::new(unstage))
                .await;
            assert_eq!(code(answer), Code::Ok, "{id:?}");
        }
    });
}

#[test]
fn path_that_is_no_target_is_invalid_and_leaves_no_trace() {
    let machine = Machine::with_volume();
    let victim = machine.path("victim");
    fs::create_dir(&victim).unwrap();
    machine.run(|node| async move {
        symlink(&victim, node.targets.join("link")).unwrap();
        node.stage(VOLUME).await.unwrap();
        let outside = node.target("../victim");
        let through = node.target("link/t");
        let long = format!("/{}", "p".repeat(5000));
        let at_link = node.target("link");
        let paths = [
            "relative", "/", &outside, &long, "/a\0b", &at_link, &through,
        ];
        for path in paths {
            let mut publish = node.publish_request(VOLUME, "t", Mode::SingleNodeWriter);
            publish.target_path = path.into();
            let answer = node.publish_call(publish).await;
            assert_eq!(code(answer), Code::InvalidArgument, "{path:?}");
            let unpublish = NodeUnpublishVolumeRequest {
                volume_id: VOLUME.into(),
                target_path: path.into(),
            };
            let answer = node
                .service
                .node_unpublish_volume(Request::new(unpublish))
                .await;
            assert_eq!(code(answer), Code::InvalidArgument, "{path:?}");
            let session = node
                .store
                .get::<VolumeSession>(VOLUME)
                .await
                .unwrap()
                .unwrap();
            assert_eq!(session.spec.targets, [], "{path:?}");
        }
        assert_eq!(fs::read_dir(&victim).unwrap().count(), 0);
        node.unstage(VOLUME).await.unwrap();
    });
}

#[test]
fn second_staging_must_be_like_the_first() {
    let machine = Machine::with_volume();
    machine.run(|node| async move {
        node.stage(VOLUME).await.unwrap();
        let other_mode = node.stage_as(VOLUME, Mode::SingleNodeSingleWriter).await;
        assert_eq!(code(other_mode), Code::AlreadyExists);
        let elsewhere = NodeStageVolumeRequest {
            volume_id: VOLUME.into(),
            staging_target_path: "/another/place".into(),
            volume_capability: Some(capability(Mode::SingleNodeWriter)),
            ..Default::default()
        };
        let answer = node
            .service
            .node_stage_volume(Request::new(elsewhere))
            .await;
        assert_eq!(code(answer), Code::FailedPrecondition);
    });
}

#[test]
fn unstaging_where_it_is_not_staged_does_nothing() {
    let machine = Machine::with_volume();
    machine.run(|node| async move {
        node.stage(VOLUME).await.unwrap();
        let elsewhere = NodeUnstageVolumeRequest {
            volume_id: VOLUME.into(),
            staging_target_path: "/another/place".into(),
        };
        let answer = node
            .service
            .node_unstage_volume(Request::new(elsewhere))
            .await;
        assert_eq!(code(answer), Code::Ok);
        assert!(node.engine.export_info(VOLUME).is_some());
    });
}

#[test]
fn volume_that_is_not_staged_there_cannot_be_published() {
    let machine = Machine::with_volume();
    machine.run(|node| async move {
        assert_eq!(
            code(node.publish(VOLUME, "t").await),
            Code::FailedPrecondition
        );
        node.stage(VOLUME).await.unwrap();
        for path in ["", "relative", "/another/place"] {
            let mut publish = node.publish_request(VOLUME, "t", Mode::SingleNodeWriter);
            publish.staging_target_path = path.into();
            assert_eq!(
                code(node.publish_call(publish).await),
                Code::FailedPrecondition
            );
        }
        assert!(!node.targets.join("t").exists());
    });
}

#[test]
fn same_target_with_other_arguments_already_exists() {
    let machine = Machine::with_volume();
    machine.run(|node| async move {
        node.stage(VOLUME).await.unwrap();
        node.publish(VOLUME, "t").await.unwrap();
        let other_mode = node.publish_request(VOLUME, "t", Mode::SingleNodeMultiWriter);
        assert_eq!(
            code(node.publish_call(other_mode).await),
            Code::AlreadyExists
        );
        let mut read_only = node.publish_request(VOLUME, "t", Mode::SingleNodeWriter);
        read_only.readonly = true;
        assert_eq!(
            code(node.publish_call(read_only).await),
            Code::AlreadyExists
        );
        node.unpublish(VOLUME, "t").await.unwrap();
    });
}

#[test]
fn second_target_depends_on_the_access_mode() {
    let cases = [
        (Mode::SingleNodeWriter, Code::FailedPrecondition),
        (Mode::SingleNodeSingleWriter, Code::FailedPrecondition),
        (Mode::SingleNodeMultiWriter, Code::Ok),
        (Mode::SingleNodeReaderOnly, Code::Ok),
    ];
    let machine = Machine::with_volume();
    machine.run(|node| async move {
        for (mode, expected) in cases {
            node.stage_as(VOLUME, mode).await.unwrap();
            let first = node.publish_request(VOLUME, "t", mode);
            node.publish_call(first).await.unwrap();
            let second = node.publish_request(VOLUME, "other", mode);
            assert_eq!(code(node.publish_call(second).await), expected, "{mode:?}");
            assert_eq!(node.targets.join("other").exists(), expected == Code::Ok);
            for target in ["t", "other"] {
                node.unpublish(VOLUME, target).await.unwrap();
            }
            node.unstage(VOLUME).await.unwrap();
        }
    });
}

#[test]
fn read_only_is_decided_by_the_first_target_and_enforced_by_the_engine() {
    let machine = Machine::with_volume();
    machine.run(|node| async move {
        let mode = Mode::SingleNodeMultiWriter;
        node.stage_as(VOLUME, mode).await.unwrap();
        let mut first = node.publish_request(VOLUME, "t", mode);
        first.readonly = true;
        node.publish_call(first).await.unwrap();
        let session = node
            .store
            .get::<VolumeSession>(VOLUME)
            .await
            .unwrap()
            .unwrap();
        assert!(session.spec.read_only);
        fs::write(node.targets.join("t/by-kubevirt"), b"").unwrap(); // The mount is writable.
        let writable = node.publish_request(VOLUME, "other", mode);
        assert_eq!(
            code(node.publish_call(writable.clone()).await),
            Code::AlreadyExists
        );
        node.unpublish(VOLUME, "t").await.unwrap();
        node.publish_call(writable).await.unwrap();
        let session = node
            .store
            .get::<VolumeSession>(VOLUME)
            .await
            .unwrap()
            .unwrap();
        assert!(!session.spec.read_only);
        node.unpublish(VOLUME, "other").await.unwrap();
    });
}

#[test]
fn published_volume_cannot_be_unstaged() {
    let machine = Machine::with_volume();
    machine.run(|node| async move {
        node.stage(VOLUME).await.unwrap();
        node.publish(VOLUME, "t").await.unwrap();
        let refused = node.unstage(VOLUME).await.unwrap_err();
        assert_eq!(refused.code(), Code::FailedPrecondition);
        assert!(refused.message().contains(&node.target("t")), "{refused}");
        assert!(node.engine.export_info(VOLUME).is_some());
        node.unpublish(VOLUME, "t").await.unwrap();
        node.unstage(VOLUME).await.unwrap();
    });
}

#[test]
fn volume_under_deletion_cannot_be_staged() {
    let machine = Machine::with_volume();
    machine.run(|node| async move {
        node.stage(VOLUME).await.unwrap();
        node.store.delete::<SplitVolume>(VOLUME).await.unwrap();
        assert_eq!(code(node.stage(VOLUME).await), Code::FailedPrecondition);
    });
}

#[test]
fn volume_of_another_node_is_refused() {
    let machine = Machine::with_volume();
    machine.run(|node| async move {
        let mut volume = node.volume_object("theirs", MIB);
        volume.spec.node_name = "node-2".into();
        node.store.create(volume).await.unwrap();
        let refused = node.stage("theirs").await.unwrap_err();
        assert_eq!(refused.code(), Code::FailedPrecondition);
        assert!(refused.message().contains("node-2"), "{refused}");
    });
}

#[test]
fn target_whose_mount_is_gone_does_not_block_another() {
    let machine = Machine::with_volume();
    machine.run(|node| async move {
        node.stage(VOLUME).await.unwrap();
        node.publish(VOLUME, "before").await.unwrap();
    });
    // What a reboot of the node does to mounts.
    rustix::mount::unmount(
        machine.path("targets/before"),
        rustix::mount::UnmountFlags::empty(),
    )
    .unwrap();
    machine.run(|node| async move {
        node.publish(VOLUME, "after").await.unwrap();
        assert!(!node.targets.join("before").exists());
        assert!(node.targets.join("after/v.sock").exists());
        node.unpublish(VOLUME, "before").await.unwrap();
        node.unpublish(VOLUME, "after").await.unwrap();
    });
}

#[test]
fn stats_tell_the_total_where_the_volume_is_and_not_found_elsewhere() {
    let machine = Machine::with_volume();
    machine.run(|node| async move {
        node.stage(VOLUME).await.unwrap();
        node.publish(VOLUME, "t").await.unwrap();
        for path in [node.target("t"), staging_path(VOLUME)] {
            let stats = node.stats(VOLUME, &path).await.unwrap();
            let usage = &stats.usage[0];
            assert_eq!(usage.total, i64::try_from(VOLUME_BYTES).unwrap());
            assert_eq!((usage.unit, usage.used, usage.available), (1, 0, 0));
            assert!(!stats.volume_condition.unwrap().abnormal);
        }
        for path in ["some/path", "/no/such", &node.target("other"), "/a/../b"] {
            assert_eq!(
                code(node.stats(VOLUME, path).await),
                Code::NotFound,
                "{path}"
            );
        }
        node.unpublish(VOLUME, "t").await.unwrap();
        assert_eq!(
            code(node.stats(VOLUME, &node.target("t")).await),
            Code::NotFound
        );
    });
}

#[test]
fn expansion_answers_with_the_size_that_is_there() {
    let machine = Machine::with_volume();
    machine.run(|node| async move {
        node.stage(VOLUME).await.unwrap();
        node.publish(VOLUME, "t").await.unwrap();
        let (path, size) = (node.target("t"), i64::try_from(VOLUME_BYTES).unwrap());
        assert_eq!(node.expand(VOLUME, &path, (size, 0)).await.unwrap(), size);
        assert_eq!(node.expand(VOLUME, &path, (1, size)).await.unwrap(), size);
        let cases = [
            ((size + 1, 0), Code::FailedPrecondition),
            ((1, size - 1), Code::OutOfRange),
            ((0, 0), Code::InvalidArgument),
            ((-1, 0), Code::InvalidArgument),
            ((2, 1), Code::InvalidArgument),
        ];
        for (range, expected) in cases {
            assert_eq!(
                code(node.expand(VOLUME, &path, range).await),
                expected,
                "{range:?}"
            );
        }
        assert_eq!(
            code(node.expand(VOLUME, "/no/such", (1, 0)).await),
            Code::NotFound
        );
        node.ask_for(VOLUME, 2 * VOLUME_BYTES).await;
        let grown = |v: &SplitVolume| v.status.as_ref().unwrap().size_bytes > VOLUME_BYTES;
        node.until_volume(VOLUME, grown).await;
        assert_eq!(
            node.expand(VOLUME, &path, (size + 1, 0)).await.unwrap(),
            2 * size
        );
        node.unpublish(VOLUME, "t").await.unwrap();
    });
}

#[test]
fn node_says_who_it_is_and_what_it_can_do() {
    let machine = Machine::new();
    machine.run(|node| async move {
        let info = node
            .service
            .node_get_info(Request::new(NodeGetInfoRequest {}))
            .await;
        let info = info.unwrap().into_inner();
        assert_eq!(info.node_id, NODE);
        assert_eq!(
            info.accessible_topology.unwrap().segments[TOPOLOGY_KEY],
            NODE
        );
        let request = Request::new(NodeGetCapabilitiesRequest {});
        let answer = node
            .service
            .node_get_capabilities(request)
            .await
            .unwrap()
            .into_inner();
        let offered: Vec<rpc::Type> = answer
            .capabilities
            .into_iter()
            .map(|capability| match capability.r#type {
                Some(Type::Rpc(rpc)) => rpc.r#type(),
                None => rpc::Type::Unknown,
            })
            .collect();
        assert!(offered.contains(&rpc::Type::StageUnstageVolume));
        assert!(offered.contains(&rpc::Type::GetVolumeStats));
        assert!(offered.contains(&rpc::Type::ExpandVolume));
        assert!(!offered.contains(&rpc::Type::Unknown));
    });
}

#[test]
fn second_call_on_a_volume_is_aborted_while_the_first_is_under_way() {
    let machine = Machine::with_volume();
    // The pool is away, so staging waits.
    let (file, aside) = (machine.pool_file(common::POOL), machine.path("aside.img"));
    fs::rename(&file, &aside).unwrap();
    let was_cut = machine.run_cut(Cut::Never, |node| async move {
        let first = tokio::spawn({
            let node = node.clone();
            async move { node.stage(VOLUME).await }
        });
        node.until::<VolumeSession, ()>(VOLUME, |session| session.map(drop))
            .await;
        assert_eq!(code(node.stage(VOLUME).await), Code::Aborted);
        assert_eq!(code(node.unpublish(VOLUME, "t").await), Code::Aborted);
        assert_eq!(code(node.unstage("another").await), Code::Ok);
        fs::rename(&aside, &file).unwrap();
        first.await.unwrap().unwrap();
    });
    assert!(!was_cut);
}
