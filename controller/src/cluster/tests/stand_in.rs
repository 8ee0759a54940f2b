//! A cluster for unit tests: its API server answers what the test says, and our own objects are in a directory.

use super::{GarbageConfig, LeaseTimes, Loops, LoopsConfig, NodeLossConfig};
use crate::metrics::ControllerMetrics;
use holdfast_store::DirStore;
use http::{Request, Response};
use kube::Client;
use kube::client::Body;
use serde_json::{Value, json};
use std::convert::Infallible;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tempfile::TempDir;

/// Answers by the last words of a path: code and body. What is not named does not exist.
type Answers = Arc<Mutex<Vec<(&'static str, u16, Value)>>>;

pub(super) struct Cluster {
    pub(super) loops: Loops<DirStore>,
    answers: Answers,
    _dir: TempDir,
}

impl Cluster {
    /// With no PersistentVolume, and nothing else.
    pub(super) fn empty() -> Self {
        let dir = TempDir::new().unwrap();
        let answers = Answers::default();
        let loops = Loops {
            store: DirStore::open(dir.path()).unwrap(),
            client: client(&answers),
            metrics: ControllerMetrics::default(),
            config: config(),
        };
        let cluster = Self {
            loops,
            answers,
            _dir: dir,
        };
        cluster.answer("/persistentvolumes", 200, list(&[]));
        cluster
    }

    /// From now on a path that ends so is answered so.
    pub(super) fn answer(&self, path: &'static str, code: u16, body: Value) {
        let mut answers = self.answers.lock().unwrap();
        answers.retain(|(known, ..)| *known != path);
        answers.push((path, code, body));
    }
}

pub(super) fn list(items: &[Value]) -> Value {
    json!({ "apiVersion": "v1", "kind": "List", "metadata": {}, "items": items })
}

pub(super) fn failure(code: u16) -> Value {
    let reason = if code == 404 { "NotFound" } else { "" };
    json!({
        "apiVersion": "v1", "kind": "Status", "status": "Failure", "code": code, "reason": reason,
        "message": "said by the test",
    })
}

fn client(answers: &Answers) -> Client {
    let answers = Arc::clone(answers);
    let service = tower::service_fn(move |request: Request<Body>| {
        let path = request.uri().path().to_owned();
        let answers = answers.lock().unwrap();
        let known = answers.iter().find(|(end, ..)| path.ends_with(end));
        let (code, body) =
            known.map_or((404, failure(404)), |(_, code, body)| (*code, body.clone()));
        let mut answer = Response::new(Body::from(body.to_string().into_bytes()));
        *answer.status_mut() = code.try_into().unwrap();
        std::future::ready(Ok::<_, Infallible>(answer))
    });
    Client::new(service, "default")
}

/// One that looks when the test says so, and waits for nothing.
fn config() -> LoopsConfig {
    LoopsConfig {
        namespace: "default".to_owned(),
        identity: "us".to_owned(),
        lease: LeaseTimes::default(),
        garbage: GarbageConfig {
            grace: Duration::ZERO,
            ..GarbageConfig::default()
        },
        node_loss: NodeLossConfig {
            grace: Duration::ZERO,
            ..NodeLossConfig::default()
        },
    }
}
