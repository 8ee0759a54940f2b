//! The rules that keep two replicas from leading at once.

use super::super::stand_in::Cluster;
use super::*;
use serde_json::{Value, json};

/// Far more than any case takes.
const PATIENCE: Duration = Duration::from_secs(60);

fn elector(client: &Client, cluster: &Cluster) -> Elector {
    let mut config = cluster.loops.config.clone();
    config.lease = LeaseTimes {
        duration: PATIENCE,
        renew_deadline: Duration::from_millis(300),
        retry: Duration::from_millis(20),
    };
    Elector::new(client, &config, ControllerMetrics::default())
}

fn lease_of(holder: &str, version: &str) -> Value {
    json!({
        "apiVersion": "coordination.k8s.io/v1", "kind": "Lease",
        "metadata": { "name": LEASE, "resourceVersion": version },
        "spec": { "holderIdentity": holder, "leaseDurationSeconds": 1 },
    })
}

/// An API server that never answers.
fn silent() -> Client {
    let service = tower::service_fn(|_: http::Request<kube::client::Body>| {
        std::future::pending::<Result<http::Response<kube::client::Body>, std::convert::Infallible>>(
        )
    });
    Client::new(service, "default")
}

#[tokio::test]
async fn holder_that_hears_nothing_stops_before_another_may_begin() {
    let cluster = Cluster::empty();
    let elector = elector(&silent(), &cluster);
    let lost = elector.renew_until_lost(Instant::now());
    // One request alone is given 10 s.
    let lost = timeout(Duration::from_secs(8), lost).await;
    assert!(lost.is_ok(), "it leads on without a renewal");
}

#[tokio::test]
async fn holder_whose_renewals_succeed_leads_on() {
    let cluster = Cluster::empty();
    cluster.answer("/leases/holdfast-controller", 200, lease_of("us", "1"));
    let elector = elector(&cluster.loops.client, &cluster);
    let lost = elector.renew_until_lost(Instant::now());
    assert!(timeout(Duration::from_secs(1), lost).await.is_err());
    cluster.answer("/leases/holdfast-controller", 200, lease_of("them", "2"));
    let lost = elector.renew_until_lost(Instant::now());
    timeout(PATIENCE, lost).await.expect("another holds it");
}

#[tokio::test]
async fn lease_is_taken_when_its_holder_was_silent_for_as_long_as_it_said() {
    let cluster = Cluster::empty();
    cluster.answer("/leases/holdfast-controller", 200, lease_of("them", "1"));
    let elector = elector(&cluster.loops.client, &cluster);
    let (mut sighting, begun) = (None, Instant::now());
    while !elector.take(&mut sighting).await.unwrap() {
        sleep(Duration::from_millis(20)).await;
    }
    assert!(begun.elapsed() >= Duration::from_secs(1), "too early");
    // One that goes on renewing keeps it.
    let mut sighting = None;
    for version in ["2", "3", "4", "5"] {
        cluster.answer(
            "/leases/holdfast-controller",
            200,
            lease_of("them", version),
        );
        assert!(!elector.take(&mut sighting).await.unwrap());
        sleep(Duration::from_millis(400)).await;
    }
}
