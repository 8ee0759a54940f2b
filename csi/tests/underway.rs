//! The end of a server: calls are answered, silence is not waited for.
#![allow(clippy::unwrap_used)]

use holdfast_csi::{BoundEndpoint, Identity, PluginCapabilities, Underway, connect};
use holdfast_proto::csi::v1::ProbeRequest;
use holdfast_proto::csi::v1::identity_client::IdentityClient;
use std::convert::Infallible;
use std::future::{pending, ready};
use std::time::Duration;
use tempfile::TempDir;
use tokio::net::UnixStream;
use tokio::sync::oneshot;
use tokio::time::timeout;
use tonic::transport::Server;
use tower::{Layer, Service, service_fn};

const SHORT: Duration = Duration::from_millis(50);
const LONG: Duration = Duration::from_secs(1);
/// Below the 10 s that a call under way is given: only an end that waits for what it should not reaches it.
const PATIENCE: Duration = Duration::from_secs(8);

/// A call that is answered when `answer` says so, on its way.
async fn call(underway: &Underway, answer: oneshot::Receiver<()>) {
    let answer = std::sync::Mutex::new(Some(answer));
    let mut server = underway.layer(service_fn(move |(): ()| {
        let answer = answer.lock().unwrap().take().unwrap();
        async move {
            answer.await.unwrap();
            Ok::<_, Infallible>(())
        }
    }));
    server.call(()).await.unwrap();
}

#[tokio::test]
async fn end_waits_for_the_call_under_way() {
    let underway = Underway::new();
    let (answer, answered) = oneshot::channel();
    let mut calling = Box::pin(call(&underway, answered));
    assert!(timeout(SHORT, calling.as_mut()).await.is_err(), "it waits");
    let mut farewell = std::pin::pin!(underway.farewell(ready(())));
    // Longer than the pause for last words.
    let early = timeout(LONG, farewell.as_mut()).await;
    assert!(early.is_err(), "ended before the call was answered");
    answer.send(()).unwrap();
    calling.await;
    timeout(PATIENCE, farewell).await.unwrap();
}

#[tokio::test]
async fn call_whose_caller_hung_up_is_not_waited_for() {
    let underway = Underway::new();
    let (_answer, answered) = oneshot::channel();
    let given_up = timeout(SHORT, call(&underway, answered)).await;
    assert!(given_up.is_err());
    timeout(PATIENCE, underway.farewell(ready(())))
        .await
        .unwrap();
}

#[tokio::test]
async fn silent_connections_hold_up_no_end() {
    let dir = TempDir::new().unwrap();
    let endpoint = format!("unix://{}", dir.path().join("csi.sock").display());
    let bound = BoundEndpoint::bind(&endpoint).unwrap();
    let path = bound.path().to_owned();
    let underway = Underway::new();
    let identity = Identity::new("csi.test", "1", PluginCapabilities::all(), || true);
    let router = Server::builder()
        .layer(underway.clone())
        .add_service(identity.into_server());
    let (_file, incoming) = bound.into_incoming();
    let (end, asked) = oneshot::channel::<()>();
    let serving = tokio::spawn(async move {
        tokio::select! {
            _ = router.serve_with_incoming_shutdown(incoming, pending()) => {}
            () = underway.farewell(async { drop(asked.await) }) => {}
        }
    });
    let silent = UnixStream::connect(&path).await.unwrap();
    let mut client = IdentityClient::new(connect(&endpoint).await.unwrap());
    client.probe(ProbeRequest {}).await.unwrap();
    drop(end);
    timeout(PATIENCE, serving).await.unwrap().unwrap();
    drop((silent, client));
}
