//! CreateVolume: idempotence, placement, and what is left after each way to fail.
#![allow(clippy::unwrap_used)]

mod common;

use common::{House, LONG, MIB, NODE, SHORT, capability, parameters, range, say, wish};
use holdfast_api::{
    BlockPool, ClaimRef, NODE_FINALIZER, OnDeviceLoss, Qos, SplitVolume, SplitVolumeSpec,
    SplitVolumeStatus, TOPOLOGY_KEY, conditions, quantity, reasons,
};
use holdfast_proto::csi::v1::volume_capability::access_mode::Mode;
use holdfast_proto::csi::v1::{CreateVolumeRequest, Topology, TopologyRequirement};
use holdfast_store::Store;
use std::collections::HashMap;
use tonic::Code;

fn on_nodes(names: &[&str]) -> Vec<Topology> {
    names
        .iter()
        .map(|name| Topology {
            segments: HashMap::from([(TOPOLOGY_KEY.to_owned(), (*name).to_owned())]),
        })
        .collect()
}

fn placed(name: &str, requisite: &[&str], preferred: &[&str]) -> CreateVolumeRequest {
    CreateVolumeRequest {
        accessibility_requirements: Some(TopologyRequirement {
            requisite: on_nodes(requisite),
            preferred: on_nodes(preferred),
        }),
        ..wish(name, MIB)
    }
}

#[tokio::test]
async fn volume_is_made_as_asked_and_described_by_its_answer() {
    let house = House::with_pools(&[("p1", NODE, 100 * MIB)]).await;
    let asked = CreateVolumeRequest {
        parameters: parameters(&[
            ("pool", "p1"),
            ("onDeviceLoss", "hold"),
            ("holdSeconds", "7"),
            ("csi.storage.k8s.io/pvc/name", "claim"),
            ("csi.storage.k8s.io/pvc/namespace", "db"),
            ("csi.storage.k8s.io/pv/name", "pvc-1"),
        ]),
        mutable_parameters: parameters(&[("iops", "500"), ("bps", "100Mi")]),
        ..wish("pvc-1", 64 * MIB)
    };
    let volume = house.create(asked).await.unwrap();
    assert_eq!(volume.volume_id, "pvc-1");
    assert_eq!(volume.capacity_bytes, 64 << 20);
    assert_eq!(volume.accessible_topology, on_nodes(&[NODE]));
    assert_eq!(volume.volume_context, parameters(&[("pool", "p1")]));

    let stored = house.stored("pvc-1").await.unwrap();
    let finalizers = stored.metadata.finalizers.unwrap();
    assert_eq!(finalizers, [NODE_FINALIZER]);
    assert_eq!(stored.spec.on_device_loss, OnDeviceLoss::Hold);
    assert_eq!(stored.spec.hold_seconds, 7);
    assert_eq!(stored.spec.size, quantity(64 * MIB));
    let claim = ClaimRef {
        namespace: "db".to_owned(),
        name: "claim".to_owned(),
        persistent_volume: "pvc-1".to_owned(),
    };
    assert_eq!(stored.spec.claim, Some(claim));
    let limits = Qos {
        iops: Some(500),
        bps: Some(100 * MIB),
        ..Default::default()
    };
    assert_eq!(stored.spec.qos, Some(limits));
}

#[tokio::test]
async fn repeated_call_gives_the_same_volume_even_with_a_full_pool() {
    let house = House::with_pools(&[("p1", NODE, 64 * MIB)]).await;
    let first = house.create(wish("a", 64 * MIB)).await.unwrap();
    assert_eq!(house.create(wish("a", 64 * MIB)).await.unwrap(), first);
    let smaller = house.create(wish("a", MIB)).await.unwrap();
    assert_eq!(smaller, first, "64 MiB are enough where 1 MiB is required");
}

#[tokio::test]
async fn same_name_with_another_wish_already_exists() {
    let house = House::with_pools(&[("p1", NODE, 1 << 30), ("p2", "n2", 1 << 20)]).await;
    let made = CreateVolumeRequest {
        parameters: parameters(&[("pool", "p1")]),
        ..wish("a", 64 * MIB)
    };
    house.create(made).await.unwrap();
    let with = |pairs: &[(&str, &str)]| CreateVolumeRequest {
        parameters: parameters(pairs),
        ..wish("a", 64 * MIB)
    };
    let limited = CreateVolumeRequest {
        capacity_range: range(MIB, 32 * MIB),
        ..wish("a", 0)
    };
    let slow = CreateVolumeRequest {
        mutable_parameters: parameters(&[("iops", "1")]),
        ..wish("a", 64 * MIB)
    };
    let cases = [
        (wish("a", 65 * MIB), "67108864 bytes"),
        (limited, "67108864 bytes"),
        (slow, "no limits"),
        (with(&[("pool", "p2")]), "p2"),
        (with(&[("onDeviceLoss", "fail")]), "onDeviceLoss"),
        (with(&[("holdSeconds", "61")]), "holdSeconds"),
        (placed("a", &["n2"], &[]), "n1"),
    ];
    for (other, word) in cases {
        let status = house.create(other).await.unwrap_err();
        assert_eq!(status.code(), Code::AlreadyExists, "{status}");
        assert!(status.message().contains(word), "{status}");
    }
}

#[tokio::test]
async fn cordoned_pool_gets_no_volumes_and_keeps_those_it_has() {
    let house = House::with_pools(&[("p1", NODE, 64 * MIB), ("p2", NODE, 32 * MIB)]).await;
    house.create(wish("a", MIB)).await.unwrap();
    house.cordon("p1").await;
    house.create(wish("b", MIB)).await.unwrap();
    assert_eq!(house.stored("b").await.unwrap().spec.pool, "p2");
    house.cordon("p2").await;
    let status = house.create(wish("c", MIB)).await.unwrap_err();
    assert_eq!(status.code(), Code::ResourceExhausted, "{status}");
    assert!(status.message().contains("p1 is cordoned"), "{status}");
    assert_eq!(house.stored("c").await, None);
    assert_eq!(house.create(wish("a", MIB)).await.unwrap().volume_id, "a");
}

#[tokio::test]
async fn name_that_cannot_name_an_object_is_hashed_and_remembered() {
    let house = House::with_pools(&[("p1", NODE, 100 * MIB)]).await;
    let long = "X".repeat(128);
    let id = house.create(wish(&long, MIB)).await.unwrap().volume_id;
    assert!(id.starts_with("v-"), "{id}");
    let again = house.create(wish(&long, MIB)).await.unwrap();
    assert_eq!(again.volume_id, id);
    assert_eq!(house.stored(&id).await.unwrap().spec.requested_name, long);

    let impostor = house.create(wish(&id, MIB)).await.unwrap_err();
    assert_eq!(impostor.code(), Code::AlreadyExists, "{impostor}");
}

#[tokio::test]
async fn size_is_rounded_up_within_its_limit() {
    let house = House::with_pools(&[("p1", NODE, 4 << 30)]).await;
    let byte = house.create(wish("byte", 1)).await.unwrap();
    assert_eq!(byte.capacity_bytes, 1 << 20);
    let any = CreateVolumeRequest {
        capacity_range: None,
        ..wish("any", 0)
    };
    assert_eq!(house.create(any).await.unwrap().capacity_bytes, 1 << 30);
    let tight = CreateVolumeRequest {
        capacity_range: range(1, MIB - 1),
        ..wish("tight", 0)
    };
    let status = house.create(tight).await.unwrap_err();
    assert_eq!(status.code(), Code::OutOfRange, "{status}");
}

#[tokio::test]
async fn too_large_a_volume_is_exhausted_and_leaves_nothing() {
    let house = House::with_pools(&[("p1", NODE, 64 * MIB)]).await;
    for bytes in [65 * MIB, 1 << 60] {
        let status = house.create(wish("a", bytes)).await.unwrap_err();
        assert_eq!(status.code(), Code::ResourceExhausted, "{status}");
        assert!(status.message().contains("p1 has 67108864"), "{status}");
        assert_eq!(house.stored("a").await, None);
    }
}

#[tokio::test]
async fn pool_whose_agent_refuses_is_left_for_the_next_one() {
    let mut house = House::empty(LONG);
    house.add_pool("large", NODE, 100 * MIB).await;
    house.add_pool("small", NODE, 50 * MIB).await;
    hide_space(&house, "large").await;
    house.start_agent();
    let volume = house.create(wish("a", 10 * MIB)).await.unwrap();
    assert_eq!(volume.volume_context["pool"], "small");

    hide_space(&house, "small").await;
    let status = house.create(wish("b", 10 * MIB)).await.unwrap_err();
    assert_eq!(status.code(), Code::ResourceExhausted, "{status}");
    assert_eq!(house.stored("b").await, None, "nothing is left of it");
}

/// The status still promises space that the agent will not find.
async fn hide_space(house: &House, pool: &str) {
    let mut pool: BlockPool = house.store.get(pool).await.unwrap().unwrap();
    let status = pool.status.as_mut().unwrap();
    status.erase_pending_bytes = status.free_bytes;
    house.store.update_status(pool).await.unwrap();
}

#[tokio::test]
async fn pool_is_chosen_by_topology_then_by_free_space() {
    let pools = [
        ("p1", "n1", 10 * MIB),
        ("p2", "n2", 30 * MIB),
        ("p3", "n3", 20 * MIB),
    ];
    let house = House::with_pools(&pools).await;
    let cases = [
        (wish("a", MIB), "n2"),
        (placed("b", &["n1"], &[]), "n1"),
        (placed("c", &["n1", "n3"], &[]), "n3"),
        (placed("d", &["n1", "n3"], &["n1"]), "n1"),
        (placed("e", &[], &["n3"]), "n3"),
        (placed("f", &["n1"], &["n2"]), "n1"),
    ];
    for (asked, node) in cases {
        let name = asked.name.clone();
        let volume = house.create(asked).await.unwrap();
        assert_eq!(volume.accessible_topology, on_nodes(&[node]), "{name}");
    }
    let status = house.create(placed("g", &["n9"], &[])).await.unwrap_err();
    assert_eq!(status.code(), Code::ResourceExhausted, "{status}");
}

#[tokio::test]
async fn pool_with_the_volume_in_one_piece_goes_before_one_with_more_space() {
    let mut house = House::empty(LONG);
    house.add_pool("p1", "n1", 30 * MIB).await;
    house.add_pool("p2", "n2", 20 * MIB).await;
    let mut scattered: BlockPool = house.store.get("p1").await.unwrap().unwrap();
    let status = scattered.status.as_mut().unwrap();
    status.largest_free_extent_bytes = 4 * MIB;
    house.store.update_status(scattered).await.unwrap();
    house.start_agent();
    let whole = house.create(wish("a", 8 * MIB)).await.unwrap();
    assert_eq!(whole.accessible_topology, on_nodes(&["n2"]));
    let small = house.create(wish("b", 4 * MIB)).await.unwrap();
    assert_eq!(small.accessible_topology, on_nodes(&["n1"]), "both have it");
}

#[tokio::test]
async fn pool_that_is_being_removed_gets_no_volumes() {
    let mut house = House::empty(LONG);
    house.add_pool("p1", "n1", 10 * MIB).await;
    let mut leaving = BlockPool::new("p2", Default::default());
    leaving.spec.node_name = "n2".to_owned();
    leaving.metadata.finalizers = Some(vec![NODE_FINALIZER.to_owned()]);
    let leaving = house.store.create(leaving).await.unwrap();
    house.open_pool(leaving, 30 * MIB).await;
    house.start_agent();
    house.store.delete::<BlockPool>("p2").await.unwrap();
    let volume = house.create(wish("a", MIB)).await.unwrap();
    assert_eq!(volume.accessible_topology, on_nodes(&["n1"]));
}

#[tokio::test]
async fn topology_that_names_no_node_holds_on_every_node() {
    let house = House::with_pools(&[("p1", NODE, 10 * MIB)]).await;
    let mut asked = placed("a", &["n9"], &[]);
    let required = asked.accessibility_requirements.as_mut().unwrap();
    required.requisite.push(Topology::default());
    let volume = house.create(asked).await.unwrap();
    assert_eq!(volume.accessible_topology, on_nodes(&[NODE]));
}

#[tokio::test]
async fn call_without_an_agent_ends_by_deadline_and_its_repetition_completes() {
    let mut house = House::empty(SHORT);
    house.add_pool("p1", NODE, 64 * MIB).await;
    let status = house.create(wish("a", MIB)).await.unwrap_err();
    assert_eq!(status.code(), Code::DeadlineExceeded, "{status}");
    assert!(house.stored("a").await.is_some(), "the wish stays");
    house.start_agent();
    let repeat = async {
        loop {
            match house.create(wish("a", MIB)).await {
                Err(status) if status.code() == Code::DeadlineExceeded => {}
                done => return done,
            }
        }
    };
    let volume = repeat.await.unwrap();
    assert_eq!(volume.capacity_bytes, 1 << 20);
}

#[tokio::test]
async fn volume_left_over_by_a_crash_with_a_refusal_is_cleared_and_judged_anew() {
    let mut house = House::empty(LONG);
    house.add_pool("p1", NODE, 64 * MIB).await;
    let spec = SplitVolumeSpec {
        node_name: NODE.to_owned(),
        pool: "p1".to_owned(),
        size: quantity(MIB),
        hold_seconds: 60,
        ..Default::default()
    };
    let mut left = SplitVolume::new("a", spec);
    left.metadata.finalizers = Some(vec![NODE_FINALIZER.to_owned()]);
    let mut left = house.store.create(left).await.unwrap();
    let uid = left.metadata.uid.clone();
    let mut status = SplitVolumeStatus {
        observed_generation: 1,
        ..Default::default()
    };
    let refused = Err(reasons::NO_SPACE);
    say(&mut status.conditions, conditions::ALLOCATED, refused, 1);
    left.status = Some(status);
    house.store.update_status(left).await.unwrap();

    house.start_agent();
    // The pool that refused it is not tried again within one call.
    let first = house.create(wish("a", MIB)).await.unwrap_err();
    assert_eq!(first.code(), Code::ResourceExhausted, "{first}");
    assert_eq!(house.stored("a").await, None);
    house.create(wish("a", MIB)).await.unwrap();
    assert_ne!(house.stored("a").await.unwrap().metadata.uid, uid);
}

#[tokio::test]
async fn volume_that_can_never_exist_is_refused_with_the_agents_words() {
    let house = House::empty(LONG);
    house.add_pool("p1", NODE, 64 * MIB).await;
    let agent = tokio::spawn({
        let store = house.store.clone();
        async move {
            let mut changes = store.watch::<SplitVolume>();
            loop {
                changes.changed().await;
                let Some(mut volume) = store.get::<SplitVolume>("a").await.unwrap() else {
                    continue;
                };
                if volume.metadata.deletion_timestamp.is_some() {
                    volume.metadata.finalizers = None;
                    store.update(volume).await.unwrap();
                    return;
                }
                let mut status = SplitVolumeStatus::default();
                let refused = Err(reasons::INVALID);
                say(&mut status.conditions, conditions::ALLOCATED, refused, 1);
                volume.status = Some(status);
                store.update_status(volume).await.ok();
            }
        }
    });
    let status = house.create(wish("a", MIB)).await.unwrap_err();
    assert_eq!(status.code(), Code::InvalidArgument, "{status}");
    assert!(status.message().contains("said by the test's agent"));
    agent.await.unwrap();
    assert_eq!(house.stored("a").await, None);
}

#[tokio::test]
async fn pool_that_no_node_has_opened_yet_is_waited_for() {
    let mut house = House::empty(LONG);
    let pool = house.declare_pool("slow", NODE).await;
    house.start_agent();
    let open = house.open_pool(pool, 64 * MIB);
    let (volume, ()) = tokio::join!(house.create(wish("a", MIB)), open);
    assert_eq!(volume.unwrap().volume_context["pool"], "slow");
}

#[tokio::test]
async fn pool_that_stays_unopened_makes_the_call_unavailable() {
    let house = House::empty(SHORT);
    house.declare_pool("slow", NODE).await;
    let status = house.create(wish("a", MIB)).await.unwrap_err();
    assert_eq!(status.code(), Code::Unavailable, "{status}");
    assert!(
        status.message().contains("slow is not open yet"),
        "{status}"
    );
    assert_eq!(house.stored("a").await, None);
}

#[tokio::test]
async fn pool_that_cannot_be_opened_makes_the_call_unavailable_with_its_reason() {
    let house = House::with_pools(&[("p1", NODE, 64 * MIB)]).await;
    let mut pool: BlockPool = house.store.get("p1").await.unwrap().unwrap();
    let conditions = &mut pool.status.as_mut().unwrap().conditions;
    say(conditions, conditions::READY, Err(reasons::FAILED), 1);
    house.store.update_status(pool).await.unwrap();
    let status = house.create(wish("a", MIB)).await.unwrap_err();
    assert_eq!(status.code(), Code::Unavailable, "{status}");
    assert!(status.message().contains("said by the test's agent"));
}

#[tokio::test]
async fn concurrent_calls_for_one_name_make_one_volume() {
    let house = House::with_pools(&[("p1", NODE, 64 * MIB)]).await;
    let calls = (0..50).map(|_| {
        let controller = house.controller.clone();
        tokio::spawn(async move {
            use holdfast_proto::csi::v1::controller_server::Controller as _;
            controller
                .create_volume(tonic::Request::new(wish("a", 60 * MIB)))
                .await
        })
    });
    let calls: Vec<_> = calls.collect();
    let mut made = 0;
    for call in calls {
        match call.await.unwrap() {
            Ok(response) => {
                made += 1;
                assert_eq!(response.get_ref().volume.as_ref().unwrap().volume_id, "a");
            }
            Err(status) => assert_eq!(status.code(), Code::Aborted, "{status}"),
        }
    }
    assert!(made >= 1);
    assert_eq!(house.list(0, "").await.unwrap().0, ["a"]);
}

#[tokio::test]
async fn every_single_node_mode_is_served() {
    let house = House::with_pools(&[("p1", NODE, 64 * MIB)]).await;
    let asked = CreateVolumeRequest {
        volume_capabilities: vec![
            capability(Mode::SingleNodeWriter),
            capability(Mode::SingleNodeReaderOnly),
            capability(Mode::SingleNodeSingleWriter),
            capability(Mode::SingleNodeMultiWriter),
        ],
        ..wish("a", MIB)
    };
    house.create(asked).await.unwrap();
}
