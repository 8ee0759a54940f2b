//! Alerts and dashboard against what a running Holdfast really tells.

use crate::helm::run;
use anyhow::ensure;
use holdfast_cluster::{Daemon, Plane, until};
use std::collections::BTreeSet;
use std::fs;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::process::Command;
use std::time::Duration;

const PATIENCE: Duration = Duration::from_secs(60);

pub(crate) async fn alerts_and_dashboard_ask_for_metrics_that_exist(
    plane: &mut Plane,
) -> anyhow::Result<()> {
    let files = crate::helm::chart().join("files");
    let asked = fs::read_to_string(files.join("alerts.yaml"))?
        + &fs::read_to_string(files.join("dashboard.json"))?;
    let words = asked.split(|c: char| !c.is_ascii_alphanumeric() && c != '_');
    let ours = |word: &&str| word.starts_with("holdfast_") || word.starts_with("csi_plugin_");
    let metrics: BTreeSet<&str> = words.filter(ours).collect();
    ensure!(metrics.len() > 10, "only {metrics:?} are asked for");

    let told = tell(plane).await?;
    let families = told.lines().filter_map(|line| line.strip_prefix("# TYPE "));
    let families: BTreeSet<&str> = families.filter_map(|line| line.split(' ').next()).collect();
    let unknown: Vec<_> = metrics
        .iter()
        .filter(|metric| !families.contains(family(metric)))
        .collect();
    ensure!(
        unknown.is_empty(),
        "nobody tells {unknown:?}; told are {families:?}"
    );
    Ok(())
}

/// The family that a series belongs to: OpenMetrics names it without the suffix for its kind.
fn family(metric: &str) -> &str {
    let kinds = ["_total", "_bucket", "_info"];
    let shorter = kinds.iter().find_map(|kind| metric.strip_suffix(kind));
    shorter.unwrap_or(metric)
}

/// What a node tells: names and kinds are there before any pool or volume is. Calls are told of once there was one.
async fn tell(plane: &Plane) -> anyhow::Result<String> {
    let holdfast = holdfast_guest::holdfast()?;
    // Nobody else is likely to take the port in between; if so, the test fails and says that nobody answers.
    let address = TcpListener::bind("127.0.0.1:0")?.local_addr()?;
    let endpoint = format!("unix://{}/csi.sock", plane.folder().display());
    let mut standalone = Command::new(&holdfast);
    standalone
        .env("CSI_ENDPOINT", &endpoint)
        .args(["standalone", "--node-name=n1", "--dir"])
        .arg(plane.folder().join("node"))
        .arg(format!("--http-endpoint={address}"));
    let mut daemon = Daemon::start("standalone", &standalone, &plane.logs())?;
    until("health is told", PATIENCE, || {
        let alive = daemon.check();
        async move {
            alive?;
            Ok(get(address, "/healthz").map_err(|why| why.to_string()))
        }
    })
    .await?;
    run(Command::new(&holdfast)
        .env("CSI_ENDPOINT", &endpoint)
        .args(["csi", "probe"]))?;
    get(address, "/metrics")
}

fn get(address: std::net::SocketAddr, path: &str) -> anyhow::Result<String> {
    let mut stream = TcpStream::connect(address)?;
    write!(stream, "GET {path} HTTP/1.0\r\nHost: localhost\r\n\r\n")?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    ensure!(answer.starts_with("HTTP/1.0 200"), "{answer}");
    Ok(answer)
}
