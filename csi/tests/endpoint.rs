//! Serving and calling over a real socket.
#![allow(clippy::unwrap_used)]

use holdfast_csi::{BoundEndpoint, EndpointError, Identity, PluginCapabilities, connect, serve};
use holdfast_proto::csi::v1::identity_client::IdentityClient;
use holdfast_proto::csi::v1::{GetPluginCapabilitiesRequest, GetPluginInfoRequest, ProbeRequest};
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixListener;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use tempfile::TempDir;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use tonic::transport::Server;
use tonic::transport::server::Router;

struct Served {
    path: PathBuf,
    endpoint: String,
    ready: Arc<AtomicBool>,
    stop: oneshot::Sender<()>,
    task: JoinHandle<Result<(), EndpointError>>,
}

fn router(ready: &Arc<AtomicBool>) -> Router {
    let ready = Arc::clone(ready);
    let ready = move || ready.load(Ordering::Relaxed);
    let identity = Identity::new("csi.test", "1.2.3", PluginCapabilities::all(), ready);
    Server::builder().add_service(identity.into_server())
}

fn endpoint(dir: &TempDir) -> (PathBuf, String) {
    let path = dir.path().join("csi.sock");
    let endpoint = format!("unix://{}", path.display());
    (path, endpoint)
}

fn start(dir: &TempDir) -> Served {
    let (path, endpoint) = endpoint(dir);
    let ready = Arc::new(AtomicBool::new(false));
    let (stop, stopped) = oneshot::channel();
    let bound = BoundEndpoint::bind(&endpoint).unwrap();
    let serving = bound.serve(router(&ready), async { stopped.await.unwrap_or(()) });
    Served {
        path,
        endpoint,
        ready,
        stop,
        task: tokio::spawn(serving),
    }
}

#[tokio::test]
async fn caller_learns_name_capabilities_and_readiness() {
    let dir = TempDir::new().unwrap();
    let served = start(&dir);
    let mut client = IdentityClient::new(connect(&served.endpoint).await.unwrap());
    let info = client
        .get_plugin_info(GetPluginInfoRequest {})
        .await
        .unwrap();
    assert_eq!(info.get_ref().name, "csi.test");
    assert_eq!(info.get_ref().vendor_version, "1.2.3");
    let offered = client
        .get_plugin_capabilities(GetPluginCapabilitiesRequest {})
        .await
        .unwrap();
    assert_eq!(offered.get_ref().capabilities.len(), 3);
    for ready in [false, true] {
        served.ready.store(ready, Ordering::Relaxed);
        let probe = client.probe(ProbeRequest {}).await.unwrap();
        assert_eq!(probe.get_ref().ready, Some(ready));
    }
}

#[tokio::test]
async fn socket_is_private_and_goes_with_the_server() {
    let dir = TempDir::new().unwrap();
    let served = start(&dir);
    let mode = fs::metadata(&served.path).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    served.stop.send(()).unwrap();
    served.task.await.unwrap().unwrap();
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
    assert!(connect(&served.endpoint).await.is_err());
}

#[tokio::test]
async fn socket_goes_also_when_serving_is_given_up() {
    let dir = TempDir::new().unwrap();
    let served = start(&dir);
    connect(&served.endpoint).await.unwrap();
    served.task.abort();
    assert!(served.task.await.unwrap_err().is_cancelled());
    assert!(!served.path.exists());
}

#[tokio::test]
async fn dead_socket_is_replaced_and_live_one_refused() {
    let dir = TempDir::new().unwrap();
    let (path, address) = endpoint(&dir);
    drop(UnixListener::bind(&path).unwrap());
    let served = start(&dir);
    let error = BoundEndpoint::bind(&address).unwrap_err();
    assert!(matches!(error, EndpointError::InUse { .. }), "{error}");
    connect(&served.endpoint).await.unwrap();
}

#[tokio::test]
async fn socket_of_a_successor_is_left_alone() {
    let dir = TempDir::new().unwrap();
    let served = start(&dir);
    fs::remove_file(&served.path).unwrap();
    let _successor = UnixListener::bind(&served.path).unwrap();
    served.stop.send(()).unwrap();
    served.task.await.unwrap().unwrap();
    assert!(served.path.exists());
}

#[tokio::test]
async fn file_in_the_way_is_refused_and_kept() {
    let dir = TempDir::new().unwrap();
    let (path, address) = endpoint(&dir);
    fs::write(&path, "precious").unwrap();
    let error = BoundEndpoint::bind(&address).unwrap_err();
    assert!(matches!(error, EndpointError::NotASocket { .. }), "{error}");
    assert_eq!(fs::read_to_string(&path).unwrap(), "precious");
}

#[tokio::test]
async fn address_that_cannot_work_is_refused_with_its_text() {
    let long = format!("unix:///tmp/{}.sock", "x".repeat(100));
    let cases = [
        ("tcp://127.0.0.1:1", "tcp://"),
        ("/tmp/csi.sock", "unix:///"),
        ("unix://relative.sock", "relative"),
        ("unix:///tmp/csi", "unix:///tmp/csi"),
        ("", "unix:///"),
        (long.as_str(), "the limit is 107"),
        (
            "unix:///nowhere/at/all/csi.sock",
            "/nowhere/at/all/csi.sock",
        ),
    ];
    for (address, word) in cases {
        let idle = Arc::new(AtomicBool::new(true));
        let error = serve(address, router(&idle), async {}).await.unwrap_err();
        assert!(error.to_string().contains(word), "{error}");
    }
}
