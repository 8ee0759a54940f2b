//! What else may come to the webhook's port, and how fast it answers.

use crate::install::NAMESPACE;
use crate::replica::{Replica, ask, post, review};
use crate::stage::{PATIENCE, Stage, claim, machine};
use anyhow::{Context, ensure};
use holdfast_cluster::{Daemon, Plane, until};
use serde_json::json;
use std::process::Command;
use std::time::{Duration, Instant};

/// What the webhook is promised to need at most, with an API server that does not answer.
const ANSWER: Duration = Duration::from_secs(1);

pub(crate) async fn what_is_no_review_is_refused(plane: &mut Plane) -> anyhow::Result<()> {
    let stage = Stage::set(plane, "requests")?;
    let replica = Replica::start(plane).await?;
    let client = replica.client(plane).await?;
    stage.bound_claim("data", "csi.holdfast.dev")?;
    let whole = review(&machine("vm", &[claim("data")]), stage.namespace());
    let text = whole.to_string();
    let large = |bytes: usize| {
        let mut large = whole.clone();
        large["request"]["object"]["spec"]["filler"] = json!("x".repeat(bytes));
        large.to_string()
    };
    const JSON: &str = "application/json";
    for (content_type, body, expected) in [
        ("text/plain", text.clone(), 415),
        ("application/yaml", text.clone(), 415),
        (JSON, "garbage".to_owned(), 400),
        (JSON, text[..text.len() / 2].to_owned(), 400),
        (JSON, String::new(), 400),
        (JSON, "[]".to_owned(), 422),
        (
            JSON,
            r#"{"kind": "AdmissionReview", "apiVersion": "admission.k8s.io/v1"}"#.to_owned(),
            400,
        ),
        (JSON, large(3 << 20), 413),
        (JSON, large(2 << 20), 200),
    ] {
        let bytes = body.len();
        let (status, said) = post(&client, content_type, body.into_bytes()).await?;
        ensure!(
            status == expected,
            "{content_type}, {bytes} bytes: {status} {said:.200}"
        );
    }
    let response = ask(&client, &whole).await?;
    ensure!(
        response["allowed"] == json!(true) && response["patch"].is_array(),
        "{response}"
    );
    // Reviews about what was not asked for, and machines that cannot be read, pass as they are.
    for (path, value) in [
        ("/request/operation", json!("UPDATE")),
        ("/request/object", json!(null)),
        ("/request/object/spec/volumes", json!("none")),
    ] {
        let mut odd = whole.clone();
        *odd.pointer_mut(path).context("it is there")? = value;
        let response = ask(&client, &odd).await?;
        ensure!(
            response["allowed"] == json!(true) && response["patch"].is_null(),
            "{response}"
        );
    }
    Ok(())
}

pub(crate) async fn slow_api_server_does_not_hold_it_up(plane: &mut Plane) -> anyhow::Result<()> {
    let stage = Stage::set(plane, "slow")?;
    let replica = Replica::start(plane).await?;
    let client = replica.client(plane).await?;
    stage.bound_claim("data", "csi.holdfast.dev")?;
    let asked = review(&machine("vm", &[claim("data")]), stage.namespace());
    ask(&client, &asked).await?;

    plane.freeze_api()?;
    let began = Instant::now();
    let response = ask(&client, &asked).await;
    let took = began.elapsed();
    plane.thaw_api()?;

    let response = response?;
    ensure!(took < ANSWER, "it took {took:?}");
    ensure!(
        response["allowed"] == json!(true) && response["patch"].is_null(),
        "{response}"
    );
    ensure!(
        response["warnings"][0]
            .as_str()
            .is_some_and(|said| said.contains("in time"))
    );
    // A machine that says itself what it needs is not held up at all.
    let mut named = machine("vm", &[claim("data")]);
    named["metadata"]["annotations"] = json!({"holdfast.dev/volumes": "data"});
    let named = review(&named, stage.namespace());
    plane.freeze_api()?;
    let response = ask(&client, &named).await;
    plane.thaw_api()?;
    ensure!(response?["patch"].is_array(), "it was not added");
    Ok(())
}

pub(crate) async fn time_to_answer_is_measured(plane: &mut Plane) -> anyhow::Result<()> {
    const REVIEWS: usize = 300;
    const MACHINES: usize = 100;
    let stage = Stage::set(plane, "time")?;
    let replica = Replica::start(plane).await?;
    stage.point_to(&replica).await?;
    let client = replica.client(plane).await?;
    stage.class("ours", "csi.holdfast.dev", false)?;
    stage.unbound_claim("data", Some("ours"))?;
    let vm = machine("vm", &[claim("data")]);
    let asked = review(&vm, stage.namespace());
    let mut answers = Vec::new();
    for _ in 0..REVIEWS {
        let began = Instant::now();
        ensure!(ask(&client, &asked).await?["patch"].is_array());
        answers.push(began.elapsed());
    }
    let mut creations = Vec::new();
    for _ in 0..MACHINES {
        let began = Instant::now();
        stage.dry_run(&vm).await?.has_only_our_hook()?;
        creations.push(began.elapsed());
    }
    let (median, p99) = percentiles(&mut answers);
    println!("  webhook: median {median:?}, p99 {p99:?} of {REVIEWS}");
    let (whole, whole_p99) = percentiles(&mut creations);
    println!("  machine created through it: median {whole:?}, p99 {whole_p99:?} of {MACHINES}");
    ensure!(p99 < ANSWER, "p99 {p99:?}");
    Ok(())
}

fn percentiles(times: &mut [Duration]) -> (Duration, Duration) {
    times.sort_unstable();
    (times[times.len() / 2], times[times.len() * 99 / 100])
}

/// The controller's process with the chart's rights and arguments: ready once it can answer, and it marks machines, too.
pub(crate) async fn program_serves_the_webhook_with_the_rights_of_the_chart(
    plane: &mut Plane,
) -> anyhow::Result<()> {
    let stage = Stage::set(plane, "program")?;
    stage.bound_claim("data", "csi.holdfast.dev")?;
    let kubeconfig = plane
        .kubeconfig_of("holdfast-controller", NAMESPACE, None)
        .await?;
    let (webhook, health) = (free_port()?, free_port()?);
    let mut command = Command::new(holdfast_guest::holdfast()?);
    command
        .arg("controller")
        .arg(format!(
            "--csi-endpoint=unix://{}",
            plane.folder().join("w.sock").display()
        ))
        .arg(format!("--kubeconfig={}", kubeconfig.display()))
        .arg(format!("--namespace={NAMESPACE}"))
        .arg(format!("--http-endpoint=127.0.0.1:{health}"))
        .args([
            "--kubevirt",
            "--kubevirt-hook-image=registry.example/holdfast:0.1.0",
        ])
        .arg(format!("--kubevirt-webhook=127.0.0.1:{webhook}"));
    let mut controller = Daemon::start("webhook-controller", &command, &plane.logs())?;
    until("the controller is ready", PATIENCE, || {
        let alive = controller.check();
        async move {
            alive?;
            Ok(ready(health).await.map_err(|why| why.to_string()))
        }
    })
    .await?;
    stage.point_at(webhook)?;
    let vm = machine("vm", &[claim("data")]);
    until("the program gives machines the hook", PATIENCE, || async {
        let created = stage.dry_run(&vm).await?;
        Ok(created.has_only_our_hook().map_err(|why| why.to_string()))
    })
    .await
    .with_context(|| controller.tail())
}

async fn ready(port: u16) -> anyhow::Result<()> {
    let address: http::Uri = format!("http://127.0.0.1:{port}").parse()?;
    let client = kube::Client::try_from(kube::Config::new(address))?;
    let asked = http::Request::get("/readyz").body(Vec::new())?;
    client.request_text(asked).await?;
    Ok(())
}

fn free_port() -> anyhow::Result<u16> {
    let listener = std::net::TcpListener::bind("127.0.0.1:0")?;
    Ok(listener.local_addr()?.port())
}
