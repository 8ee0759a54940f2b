//! Helm with folders of its own, and the chart.

use anyhow::{Context, ensure};
use holdfast_cluster::{Plane, kit};
use holdfast_guest::kit::workspace;
use std::path::PathBuf;
use std::process::{Command, Output};

/// Where the release lives.
pub(crate) const NAMESPACE: &str = "holdfast";

/// The chart's folder.
pub(crate) fn chart() -> PathBuf {
    workspace().join("charts/holdfast")
}

/// A value set of these tests.
pub(crate) fn values(name: &str) -> PathBuf {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/chart/values");
    PathBuf::from(folder).join(name)
}

/// `helm WORDS`, talking to this plane; its cache and settings are the plane's too.
pub(crate) fn helm(plane: &Plane, words: &[&str]) -> anyhow::Result<Command> {
    let mut helm = Command::new(kit::program("helm")?);
    for folder in ["CACHE", "CONFIG", "DATA"] {
        helm.env(format!("HELM_{folder}_HOME"), plane.folder().join("helm"));
    }
    helm.env("KUBECONFIG", plane.kubeconfig()).args(words);
    Ok(helm)
}

/// Runs a command that must succeed, and returns what it prints.
pub(crate) fn run(command: &mut Command) -> anyhow::Result<String> {
    let output = command.output()?;
    ensure!(output.status.success(), "{command:?}: {}", said(&output));
    Ok(String::from_utf8(output.stdout)?)
}

/// Runs a command that must fail, and returns what it says.
pub(crate) fn refused(command: &mut Command) -> anyhow::Result<String> {
    let output = command.output()?;
    ensure!(!output.status.success(), "{command:?} succeeded");
    Ok(said(&output))
}

/// Both streams: Helm complains on either.
pub(crate) fn said(output: &Output) -> String {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    text(&output.stdout) + &text(&output.stderr)
}

/// The chart's objects with these arguments for `helm template`, hooks included.
pub(crate) fn objects(plane: &Plane, words: &[&str]) -> anyhow::Result<Vec<serde_json::Value>> {
    let text = run(
        helm(plane, &["template", "holdfast", "--namespace", NAMESPACE])?
            .arg(chart())
            .args(words),
    )?;
    serde_yaml::Deserializer::from_str(&text)
        .map(|document| serde::Deserialize::deserialize(document).context("helm prints YAML"))
        .filter(|object: &anyhow::Result<serde_json::Value>| {
            object.as_ref().map_or(true, |object| !object.is_null())
        })
        .collect()
}
