//! csi-sanity against the controller and a node agent as they run in a cluster, on objects in the API server.
#![forbid(unsafe_code)]

use anyhow::{Context, ensure};
use holdfast_api::{BlockPool, SplitVolume};
use holdfast_cluster::{Lab, kit};
use kube::api::{Api, ListParams, Patch, PatchParams};
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::process::Command;

holdfast_cluster::tests!(on Lab: csi_sanity_passes_and_skips_only_what_is_listed);

/// Specs that are not to run, and why: as without a cluster.
const LISTED: &str = include_str!("../../../cli/tests/sanity/skipped.txt");
const NODE: &str = "n1";
const SIZE_BYTES: u64 = 16 << 20;

async fn csi_sanity_passes_and_skips_only_what_is_listed(lab: &mut Lab) -> anyhow::Result<()> {
    // The suite plays a cluster of one node.
    let pools: Api<BlockPool> = Api::all(lab.client());
    let cordon = json!({ "spec": { "cordoned": true } });
    pools
        .patch("n2", &PatchParams::default(), &Patch::Merge(&cordon))
        .await?;
    let folder = lab.plane.folder().join("sanity");
    fs::create_dir(&folder)?;
    let report = folder.join("report.json");
    let output = sanity(lab, &folder, &report)?.output()?;
    let said = String::from_utf8_lossy(&output.stdout);
    let report = fs::read(&report).with_context(|| format!("no report:\n{said}"))?;
    let specs = specs(&serde_json::from_slice(&report)?);
    judge(&specs).with_context(|| said.into_owned())?;
    let volumes: Api<SplitVolume> = Api::all(lab.client());
    let left = volumes.list(&ListParams::default()).await?;
    ensure!(
        left.items.is_empty(),
        "the suite cleans up, and yet {:?} is left",
        left.items
    );
    Ok(())
}

fn sanity(lab: &mut Lab, folder: &Path, report: &Path) -> anyhow::Result<Command> {
    let path = |name: &str| folder.join(name).display().to_string();
    fs::write(path("vac.yaml"), "iops: \"2000\"\n")?;
    let mut command = Command::new(kit::program("csi-sanity")?);
    command
        .arg(format!("--csi.endpoint={}", lab.node(NODE)?.endpoint()))
        .arg(format!(
            "--csi.controllerendpoint={}",
            lab.controller_endpoint()
        ))
        .arg(format!("--csi.mountdir={}", path("mnt")))
        .arg(format!("--csi.stagingdir={}", path("stage")))
        .arg(format!("--csi.testvolumesize={SIZE_BYTES}"))
        .arg(format!("--csi.testvolumeexpandsize={}", 2 * SIZE_BYTES))
        .arg(format!(
            "--csi.testvolumemutableparameters={}",
            path("vac.yaml")
        ))
        .args([
            "--csi.testvolumeaccesstype=mount",
            "--ginkgo.no-color",
            "--ginkgo.seed=1",
        ])
        .arg(format!("--ginkgo.json-report={}", report.display()));
    Ok(command)
}

/// Name, state and complaint of each spec in ginkgo's report; set-up and clean-up are in it only where they failed.
fn specs(report: &Value) -> Vec<(String, String, String)> {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let list = |value: &Value| value.as_array().cloned().unwrap_or_default();
    let suites = list(report).into_iter();
    suites
        .flat_map(|suite| list(&suite["SpecReports"]))
        .filter(|spec| spec["LeafNodeType"] == "It" || spec["State"] != "passed")
        .map(|spec| {
            let mut words: Vec<_> = list(&spec["ContainerHierarchyTexts"])
                .iter()
                .map(text)
                .collect();
            words.push(text(&spec["LeafNodeText"]));
            (
                words.join(" "),
                text(&spec["State"]),
                text(&spec["Failure"]["Message"]),
            )
        })
        .collect()
}

fn judge(specs: &[(String, String, String)]) -> anyhow::Result<()> {
    let of = |wanted: &[&str]| -> BTreeSet<&str> {
        let those = specs
            .iter()
            .filter(|(_, state, _)| wanted.contains(&state.as_str()));
        those.map(|(name, _, _)| name.as_str()).collect()
    };
    let (passed, skipped) = (of(&["passed"]), of(&["skipped", "pending"]));
    println!(
        "csi-sanity: {} specs passed, {} skipped",
        passed.len(),
        skipped.len()
    );
    let known = ["passed", "skipped", "pending"];
    let failed: Vec<_> = specs
        .iter()
        .filter(|spec| !known.contains(&spec.1.as_str()))
        .collect();
    ensure!(
        failed.is_empty() && !passed.is_empty(),
        "failed: {failed:#?}"
    );
    let listed = LISTED.lines().filter_map(|line| line.strip_prefix("  "));
    let listed: BTreeSet<&str> = listed.collect();
    ensure!(
        skipped == listed,
        "skipped {skipped:#?}\nlisted {listed:#?}"
    );
    Ok(())
}
