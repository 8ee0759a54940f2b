//! The hook sidecar as virt-launcher meets it: a socket, one question, and calls that repeat.
#![allow(clippy::unwrap_used)]

use holdfast_kubevirt::serve_hook;
use holdfast_proto::kubevirt::hooks::info::{InfoParams, info_client::InfoClient};
use holdfast_proto::kubevirt::hooks::{v1alpha1, v1alpha2, v1alpha3};
use hyper_util::rt::TokioIo;
use std::path::{Path, PathBuf};
use std::time::Duration;
use tempfile::TempDir;
use tokio::net::{UnixListener, UnixStream};
use tokio::task::JoinHandle;
use tonic::Code;
use tonic::transport::{Channel, Endpoint};

const FIRST: &str = include_str!("xml/first-call.xml");
const VMI: &str =
    r#"{"metadata":{"name":"vm","namespace":"n","annotations":{"holdfast.dev/volumes":"data"}}}"#;
const SOON: Duration = Duration::from_secs(30);

struct Sidecar {
    channel: Channel,
    serving: JoinHandle<Result<(), tonic::transport::Error>>,
    _folder: TempDir,
}

async fn sidecar() -> Sidecar {
    let folder = tempfile::tempdir().unwrap();
    let socket = folder.path().join("holdfast.sock");
    let listener = UnixListener::bind(&socket).unwrap();
    let serving = tokio::spawn(serve_hook(listener, std::future::pending()));
    Sidecar {
        channel: connect(&socket).await,
        serving,
        _folder: folder,
    }
}

async fn connect(socket: &Path) -> Channel {
    let socket: PathBuf = socket.to_owned();
    let dial = tower::service_fn(move |_| {
        let socket = socket.clone();
        async move { UnixStream::connect(socket).await.map(TokioIo::new) }
    });
    let endpoint = Endpoint::from_static("http://hook");
    endpoint.connect_with_connector(dial).await.unwrap()
}

/// The newest version's call.
async fn define(sidecar: &Sidecar, xml: &str, vmi: &str) -> Result<String, tonic::Status> {
    let client = v1alpha3::callbacks_client::CallbacksClient::new(sidecar.channel.clone());
    let mut client = client.max_decoding_message_size(64 << 20);
    let call = v1alpha3::OnDefineDomainParams {
        domain_xml: xml.into(),
        vmi: vmi.into(),
    };
    let answer = client.on_define_domain(call).await?.into_inner();
    Ok(String::from_utf8(answer.domain_xml).unwrap())
}

#[tokio::test]
async fn sidecar_says_when_it_wants_to_be_called() {
    let sidecar = sidecar().await;
    let mut client = InfoClient::new(sidecar.channel.clone());
    let info = client.info(InfoParams {}).await.unwrap().into_inner();
    let points: Vec<_> = info.hook_points.iter().map(|p| p.name.as_str()).collect();
    assert_eq!(points, ["OnDefineDomain", "Shutdown"]);
    assert_eq!(info.versions, ["v1alpha1", "v1alpha2", "v1alpha3"]);
}

#[tokio::test]
async fn every_version_gives_the_same_domain() {
    let sidecar = sidecar().await;
    let newest = define(&sidecar, FIRST, VMI).await.unwrap();
    assert!(newest.contains("vmi-disks/data/v.sock"));

    let mut first = v1alpha1::callbacks_client::CallbacksClient::new(sidecar.channel.clone());
    let call = v1alpha1::OnDefineDomainParams {
        domain_xml: FIRST.into(),
        vmi: VMI.into(),
    };
    let answer = first.on_define_domain(call).await.unwrap().into_inner();
    assert_eq!(answer.domain_xml, newest.as_bytes());

    let mut second = v1alpha2::callbacks_client::CallbacksClient::new(sidecar.channel.clone());
    let call = v1alpha2::OnDefineDomainParams {
        domain_xml: FIRST.into(),
        vmi: VMI.into(),
    };
    let answer = second.on_define_domain(call).await.unwrap().into_inner();
    assert_eq!(answer.domain_xml, newest.as_bytes());
}

#[tokio::test]
async fn cloud_init_data_come_back_as_they_were() {
    let sidecar = sidecar().await;
    let mut client = v1alpha3::callbacks_client::CallbacksClient::new(sidecar.channel.clone());
    let call = v1alpha3::PreCloudInitIsoParams {
        cloud_init_no_cloud_source: "source".into(),
        vmi: VMI.into(),
        cloud_init_data: "data".into(),
    };
    let answer = client.pre_cloud_init_iso(call).await.unwrap().into_inner();
    assert_eq!(answer.cloud_init_no_cloud_source, b"source");
    assert_eq!(answer.cloud_init_data, b"data");
}

#[tokio::test]
async fn instance_without_the_annotation_keeps_its_domain() {
    let sidecar = sidecar().await;
    for vmi in [
        r#"{"metadata":{"name":"vm"}}"#,
        r#"{"metadata":{"annotations":null}}"#,
        r#"{"metadata":{"annotations":{"other":"x"}}}"#,
        r#"{"metadata":{"annotations":{"holdfast.dev/volumes":""}}}"#,
    ] {
        assert_eq!(define(&sidecar, FIRST, vmi).await.unwrap(), FIRST);
    }
}

#[tokio::test]
async fn bad_input_is_refused_with_the_reason_and_serving_goes_on() {
    let sidecar = sidecar().await;
    let named = |names: &str| VMI.replace("\"data\"", &format!("\"{names}\""));
    let cases = [
        (FIRST, "no json", Code::InvalidArgument, "cannot be read"),
        ("<domain", VMI, Code::InvalidArgument, "cannot be used"),
        (FIRST, &named("gone"), Code::FailedPrecondition, "ua-gone"),
        (
            FIRST,
            &named("data, root"),
            Code::FailedPrecondition,
            "\" root\"",
        ),
        (
            FIRST,
            &named("cloudinit"),
            Code::FailedPrecondition,
            "noCloud.iso",
        ),
    ];
    for (xml, vmi, code, words) in cases {
        let error = define(&sidecar, xml, vmi).await.unwrap_err();
        assert_eq!(error.code(), code);
        assert!(error.message().contains(words), "{}", error.message());
    }
    assert!(define(&sidecar, FIRST, VMI).await.is_ok());
}

#[tokio::test]
async fn domain_of_5_mb_is_rewritten() {
    let sidecar = sidecar().await;
    let large = FIRST.replace(
        "<devices>",
        &format!("<!--{}--><devices>", "x".repeat(5 << 20)),
    );
    let out = define(&sidecar, &large, VMI).await.unwrap();
    assert!(out.len() > 5 << 20 && out.contains("vmi-disks/data/v.sock"));
}

#[tokio::test]
async fn shutdown_is_answered_and_ends_the_sidecar() {
    let sidecar = sidecar().await;
    let mut client = v1alpha3::callbacks_client::CallbacksClient::new(sidecar.channel.clone());
    client.shutdown(v1alpha3::ShutdownParams {}).await.unwrap();
    // The caller still holds its connection, as virt-launcher may.
    let ended = tokio::time::timeout(SOON, sidecar.serving).await;
    ended.expect("the sidecar ends").unwrap().unwrap();
}
