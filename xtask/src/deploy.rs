//! `cargo xtask deploy`: writes the manifests in deploy/ and the chart's own copies anew, from the chart and the kinds.
//!
//! A program of another package does the work, so that other commands need not build a Kubernetes client first.

use anyhow::{Context, ensure};
use holdfast_guest::kit::workspace;
use std::process::Command;

/// Runs `deploy` of holdfast-cluster.
pub(crate) fn run() -> anyhow::Result<()> {
    let status = Command::new(env!("CARGO"))
        .args([
            "run",
            "--quiet",
            "--package",
            "holdfast-cluster",
            "--bin",
            "deploy",
        ])
        .current_dir(workspace())
        .status()
        .context("cannot run cargo")?;
    ensure!(status.success(), "the manifests are not written");
    Ok(())
}
