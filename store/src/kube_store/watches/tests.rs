//! What a watch lives through, with a server that answers as told: a real one forgets versions too seldom.

use super::*;
use crate::kube_store::{KubeStore, KubeStoreConfig};
use holdfast_api::SplitVolume;
use http::{Request, Response};
use kube::client::Body;
use serde_json::{Value, json};
use std::convert::Infallible;
use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};
use tokio::time::Instant;

/// A server with these answers, one after the other; each has a code and lines. Later requests are never answered.
struct Server {
    store: KubeStore,
    asked: UnboundedReceiver<String>,
}

type Answer = (u16, Vec<Value>);

const SOON: Duration = Duration::from_secs(60);

impl Server {
    fn with(answers: Vec<Answer>) -> Server {
        let answers = Mutex::new(answers.into_iter());
        let (tell, asked) = unbounded_channel();
        let service = tower::service_fn(move |request: Request<Body>| {
            let _ = tell.send(request.uri().to_string());
            let next = answers.lock().unwrap().next();
            async {
                let Some((code, lines)) = next else {
                    return std::future::pending().await;
                };
                let lines: Vec<String> = lines.iter().map(|line| format!("{line}\n")).collect();
                let mut answer = Response::new(Body::from(lines.concat().into_bytes()));
                *answer.status_mut() = code.try_into().unwrap();
                Ok::<_, Infallible>(answer)
            }
        });
        let config = KubeStoreConfig {
            field_manager: "holdfast-node",
            node: Some("n1".to_owned()),
        };
        let store = KubeStore::new(Client::new(service, "default"), config);
        Server { store, asked }
    }

    /// The next request: `list`, or `watch` and the version it begins at. Each is for the objects of one node.
    async fn next(&mut self) -> String {
        let uri = timeout(SOON, self.asked.recv()).await.unwrap().unwrap();
        assert!(uri.contains("fieldSelector=spec.nodeName%3Dn1"), "{uri}");
        if !uri.contains("watch=true") {
            return "list".to_owned();
        }
        let version = uri.split("resourceVersion=").nth(1).unwrap();
        format!("watch {}", version.split('&').next().unwrap())
    }

    /// Begins to watch; the count of what is told, and that of failures.
    fn watch(&self) -> (watch::Receiver<u64>, watch::Receiver<u64>) {
        let (count, failures) = watch::channel(0);
        self.store.on_watch_failure(move |kind| {
            assert_eq!(kind, "SplitVolume");
            count.send_modify(|count| *count += 1);
        });
        (self.store.inner.watches.of::<SplitVolume>(), failures)
    }
}

fn list(version: &str) -> Answer {
    let list = json!({
        "apiVersion": "meta.k8s.io/v1", "kind": "PartialObjectMetadataList",
        "metadata": { "resourceVersion": version }, "items": [],
    });
    (200, vec![list])
}

fn event(kind: &str, version: &str) -> Value {
    let metadata = json!({ "name": "a", "resourceVersion": version });
    let object = json!({
        "apiVersion": "meta.k8s.io/v1", "kind": "PartialObjectMetadata", "metadata": metadata,
    });
    json!({ "type": kind, "object": object })
}

fn status(code: u16) -> Value {
    json!({
        "apiVersion": "v1", "kind": "Status", "metadata": {}, "status": "Failure", "code": code,
        "reason": "Expired", "message": "too old resource version: 1 (7)",
    })
}

#[tokio::test]
async fn change_and_removal_are_told_and_the_watch_goes_on_behind_them() {
    let events = vec![event("ADDED", "2"), event("DELETED", "3")];
    let mut server = Server::with(vec![list("1"), (200, events)]);
    let (told, failures) = server.watch();
    for expected in ["list", "watch 1", "watch 3"] {
        assert_eq!(server.next().await, expected);
    }
    // One more for the end of the list.
    assert_eq!((*told.borrow(), *failures.borrow()), (3, 0));
}

/// The end of the second list is told: whatever happened in between has no event.
async fn check_that_forgetting_makes_it_list_anew(forgotten: Answer) {
    let mut server = Server::with(vec![list("1"), forgotten, list("7")]);
    let (told, failures) = server.watch();
    for expected in ["list", "watch 1", "list", "watch 7"] {
        assert_eq!(server.next().await, expected);
    }
    assert_eq!((*told.borrow(), *failures.borrow()), (2, 1));
}

#[tokio::test]
async fn watch_whose_version_is_forgotten_lists_anew_and_tells() {
    let event = json!({ "type": "ERROR", "object": status(410) });
    check_that_forgetting_makes_it_list_anew((200, vec![event])).await;
}

#[tokio::test]
async fn watch_that_is_refused_for_a_forgotten_version_lists_anew_and_tells() {
    check_that_forgetting_makes_it_list_anew((410, vec![status(410)])).await;
}

#[tokio::test]
async fn watch_that_fails_is_tried_again_but_not_at_once() {
    let refused = || (503, vec![status(503)]);
    let mut server = Server::with(vec![refused(), refused(), list("1")]);
    let (_told, mut failures) = server.watch();
    let begun = Instant::now();
    failures.wait_for(|count| *count >= 1).await.unwrap();
    failures.wait_for(|count| *count >= 2).await.unwrap();
    // Kube's first pause is 0.8 s and more; without one, both are a matter of milliseconds.
    let took = begun.elapsed();
    assert!(took > Duration::from_millis(500), "{took:?}");
    for expected in ["list", "list", "list", "watch 1"] {
        assert_eq!(server.next().await, expected);
    }
}

#[tokio::test]
async fn server_that_forgets_every_version_is_not_asked_without_a_pause() {
    let forgotten = || (410, vec![status(410)]);
    let mut server = Server::with(vec![list("1"), forgotten(), list("2"), forgotten()]);
    let (_told, mut failures) = server.watch();
    failures.wait_for(|count| *count >= 1).await.unwrap();
    let begun = Instant::now();
    failures.wait_for(|count| *count >= 2).await.unwrap();
    let took = begun.elapsed();
    assert!(took > Duration::from_millis(500), "{took:?}");
    for expected in ["list", "watch 1", "list", "watch 2", "list"] {
        assert_eq!(server.next().await, expected);
    }
}

#[tokio::test]
async fn watch_that_is_silent_for_too_long_ends_to_be_begun_anew() {
    let mut server = Server::with(vec![list("1")]);
    let follower = Follower {
        client: server.store.client(),
        config: watcher::Config::default().fields("spec.nodeName=n1"),
        changes: watch::channel(0).0,
        on_failure: Arc::default(),
        silence_max: Duration::from_millis(100),
    };
    let ended = timeout(SOON, follower.follow::<SplitVolume>()).await;
    assert!(ended.is_ok(), "it waits for a server that says nothing");
    assert_eq!(server.next().await, "list");
    assert_eq!(server.next().await, "watch 1");
}

#[test]
fn watch_that_fails_for_long_is_tried_every_few_seconds() {
    let mut pauses = Pauses(DefaultBackoff::default());
    let first = pauses.next().unwrap();
    assert!(first < Duration::from_secs(2), "{first:?}");
    let later: Vec<Duration> = pauses.by_ref().skip(8).take(4).collect();
    assert_eq!(later, [PAUSE_MAX; 4]);
}
