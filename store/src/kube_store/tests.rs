//! What a real API server does too seldom to wait for: a list that expires between two of its pages.

use super::*;
use holdfast_api::SplitVolume;
use http::{Request, Response};
use kube::client::Body;
use serde_json::{Value, json};
use std::convert::Infallible;
use std::sync::Mutex;

/// A server that gives these answers, one after the other, each with its code.
fn scripted(answers: Vec<(u16, Value)>) -> KubeStore {
    let answers = Mutex::new(answers.into_iter());
    let service = tower::service_fn(move |_: Request<Body>| {
        let next = answers.lock().unwrap().next();
        let (code, body) = next.expect("no request beyond the script");
        let mut answer = Response::new(Body::from(body.to_string().into_bytes()));
        *answer.status_mut() = code.try_into().unwrap();
        std::future::ready(Ok::<_, Infallible>(answer))
    });
    let config = KubeStoreConfig {
        field_manager: "holdfast-node",
        node: None,
    };
    KubeStore::new(Client::new(service, "default"), config)
}

fn page(name: &str, next: &str) -> (u16, Value) {
    let spec = json!({ "nodeName": "n1", "pool": "p1", "size": "1Gi" });
    let item = json!({ "metadata": { "name": name }, "spec": spec });
    let list = json!({
        "apiVersion": "holdfast.dev/v1alpha1", "kind": "SplitVolumeList",
        "metadata": { "resourceVersion": "1", "continue": next }, "items": [item],
    });
    (200, list)
}

fn expired() -> (u16, Value) {
    let status = json!({
        "apiVersion": "v1", "kind": "Status", "status": "Failure", "code": 410, "reason": "Expired",
        "message": "The provided continue parameter is too old",
    });
    (410, status)
}

#[tokio::test]
async fn list_that_expires_between_its_pages_is_read_anew() {
    let answers = vec![page("a", "t1"), expired(), page("a", "t2"), page("b", "")];
    let listed = scripted(answers).list::<SplitVolume>().await.unwrap();
    let names: Vec<_> = listed.iter().map(object::name).collect();
    assert_eq!(names, ["a", "b"], "each once");
}

#[tokio::test]
async fn list_that_always_expires_is_given_up() {
    let answers = (0..LIST_ATTEMPTS).flat_map(|_| [page("a", "t"), expired()]);
    let answer = scripted(answers.collect()).list::<SplitVolume>().await;
    assert!(
        matches!(answer, Err(StoreError::Unavailable { .. })),
        "{answer:?}"
    );
}

#[tokio::test]
async fn object_that_cannot_be_understood_hides_no_other() {
    let (_, mut odd) = page("a", "");
    let mut good = odd["items"][0].clone();
    good["metadata"]["name"] = json!("b");
    odd["items"][0]["spec"]["onDeviceLoss"] = json!("a word of the future");
    odd["items"].as_array_mut().unwrap().push(good);
    let one = odd["items"][0].clone();
    let store = scripted(vec![(200, odd), (200, one)]);
    assert_eq!(store.list::<SplitVolume>().await.unwrap().len(), 1);
    let answer = store.get::<SplitVolume>("a").await;
    assert!(
        matches!(answer, Err(StoreError::Unreadable { .. })),
        "{answer:?}"
    );
}
