//! ControllerModifyVolume: a class is taken as a whole, or not at all.
#![allow(clippy::unwrap_used)]

mod common;

use common::{House, LONG, MIB, NODE, SHORT, parameters, wish};
use holdfast_api::Qos;
use holdfast_proto::csi::v1::ControllerModifyVolumeRequest;
use holdfast_proto::csi::v1::controller_server::Controller as _;
use holdfast_store::Store;
use tonic::{Code, Request, Status};

async fn modify(house: &House, id: &str, class: &[(&str, &str)]) -> Result<(), Status> {
    let request = ControllerModifyVolumeRequest {
        volume_id: id.to_owned(),
        mutable_parameters: parameters(class),
        ..Default::default()
    };
    let answer = house
        .controller
        .controller_modify_volume(Request::new(request))
        .await;
    answer.map(drop)
}

async fn limits(house: &House, id: &str) -> Option<Qos> {
    house.stored(id).await.unwrap().spec.qos
}

#[tokio::test]
async fn volume_has_the_limits_of_its_newest_class_and_no_others() {
    let house = House::with_pools(&[("p1", NODE, 64 * MIB)]).await;
    house.create(wish("a", MIB)).await.unwrap();
    let class = [("iops", "1000"), ("iopsBurst", "5000"), ("bps", "1048576")];
    for _repeated in 0..2 {
        modify(&house, "a", &class).await.unwrap();
        let expected = Qos {
            iops: Some(1000),
            iops_burst: Some(5000),
            bps: Some(MIB),
            bps_burst: None,
        };
        assert_eq!(limits(&house, "a").await, Some(expected));
    }
    modify(&house, "a", &[("bps", "2Mi"), ("bpsBurst", "4Mi")])
        .await
        .unwrap();
    let expected = Qos {
        bps: Some(2 * MIB),
        bps_burst: Some(4 * MIB),
        ..Default::default()
    };
    assert_eq!(limits(&house, "a").await, Some(expected));
    modify(&house, "a", &[]).await.unwrap();
    assert_eq!(limits(&house, "a").await, None);
}

#[tokio::test]
async fn class_with_one_bad_word_is_refused_and_nothing_of_it_applied() {
    let house = House::with_pools(&[("p1", NODE, 64 * MIB)]).await;
    house.create(wish("a", MIB)).await.unwrap();
    modify(&house, "a", &[("iops", "7")]).await.unwrap();
    let before = house.stored("a").await;
    let cases: [(&[(&str, &str)], &str); 9] = [
        (&[("iops", "9"), ("speed", "11")], "speed"),
        (&[("iops", "0")], "above 0"),
        (&[("iops", "-1")], "iops is \"-1\""),
        (&[("iops", "1k")], "iops is \"1k\""),
        (&[("iops", "9223372036854775808")], "iops"),
        (&[("bps", "fast")], "bps is \"fast\""),
        (&[("bps", "0")], "bps"),
        (&[("iopsBurst", "5")], "iops, which is not given"),
        (
            &[("iops", "9"), ("bpsBurst", "5")],
            "bps, which is not given",
        ),
    ];
    for (class, word) in cases {
        let status = modify(&house, "a", class).await.unwrap_err();
        assert_eq!(status.code(), Code::InvalidArgument, "{status}");
        assert!(status.message().contains(word), "{word}: {status}");
    }
    assert_eq!(house.stored("a").await, before);
}

#[tokio::test]
async fn volume_that_is_not_there_is_not_found_and_one_that_leaves_is_aborted() {
    let house = House::empty(LONG);
    let class = [("iops", "7")];
    let missing = modify(&house, "", &class).await.unwrap_err();
    assert_eq!(missing.code(), Code::InvalidArgument, "{missing}");
    for unknown in ["nobody", "No Name", "../x"] {
        let status = modify(&house, unknown, &class).await.unwrap_err();
        assert_eq!(status.code(), Code::NotFound, "{status}");
    }
    house.put_volume("a").await;
    house
        .store
        .delete::<holdfast_api::SplitVolume>("a")
        .await
        .unwrap();
    let leaving = modify(&house, "a", &class).await.unwrap_err();
    assert_eq!(leaving.code(), Code::Aborted, "{leaving}");
}

#[tokio::test]
async fn node_that_does_not_answer_is_a_deadline_and_the_repeated_call_completes() {
    let mut house = House::empty(SHORT);
    house.add_pool("p1", NODE, 64 * MIB).await;
    house.put_volume("a").await;
    let status = modify(&house, "a", &[("iops", "7")]).await.unwrap_err();
    assert_eq!(status.code(), Code::DeadlineExceeded, "{status}");
    house.start_agent();
    house.be_patient();
    modify(&house, "a", &[("iops", "7")]).await.unwrap();
    assert_eq!(limits(&house, "a").await.unwrap().iops, Some(7));
}
