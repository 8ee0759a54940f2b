//! A release on a real API server: installed, upgraded, and taken away only when nobody would miss it.
//!
//! No kubelet is here, so these tests do its part for the one pod that matters: the check before uninstalling.

use crate::helm::{NAMESPACE, chart, helm, run, said};
use anyhow::{Context, ensure};
use holdfast_cluster::{Plane, until};
use k8s_openapi::api::core::v1::Pod;
use kube::ResourceExt;
use kube::api::{Api, ListParams, Patch, PatchParams};
use serde_json::json;
use std::process::{Command, Stdio};
use std::time::Duration;

const PATIENCE: Duration = Duration::from_secs(120);

/// A volume as the provisioner leaves it behind, with its SplitVolume.
const VOLUME: &str = "
apiVersion: v1
kind: PersistentVolume
metadata: {name: pvc-1}
spec:
  accessModes: [ReadWriteOnce]
  capacity: {storage: 1Gi}
  claimRef: {namespace: team, name: data}
  csi: {driver: csi.holdfast.dev, volumeHandle: pvc-1}
---
apiVersion: v1
kind: PersistentVolume
metadata: {name: of-another-driver}
spec:
  accessModes: [ReadWriteOnce]
  capacity: {storage: 1Gi}
  csi: {driver: csi.example.com, volumeHandle: other}
---
apiVersion: holdfast.dev/v1alpha1
kind: SplitVolume
metadata: {name: pvc-2}
spec: {nodeName: n1, pool: p, size: 1Gi}
";

/// Pools in the values: one that the second step makes.
const POOL: &str =
    "pools[0].name=p,pools[0].nodeName=n1,pools[0].device.path=/dev/disk/by-id/nvme-x";

fn install(plane: &Plane, words: &[&str]) -> anyhow::Result<String> {
    run(
        helm(plane, &["install", "holdfast", "--namespace", NAMESPACE])?
            .arg(chart())
            .args(words),
    )
}

fn upgrade(plane: &Plane, values: &str) -> anyhow::Result<String> {
    let words = [
        "upgrade",
        "holdfast",
        "--namespace",
        NAMESPACE,
        "--reuse-values",
    ];
    run(helm(plane, &words)?.args(["--set", values]).arg(chart()))
}

pub(crate) async fn first_install_tells_what_to_do_next(plane: &mut Plane) -> anyhow::Result<()> {
    let notes = install(plane, &["--create-namespace", "--set", POOL])?;
    for expected in [
        "Make the 1 pool(s) of your values",
        "helm upgrade holdfast",
        "storageClassName holdfast",
        "WARNING: image.registry is empty",
    ] {
        ensure!(notes.contains(expected), "no {expected:?} in\n{notes}");
    }
    ensure!(
        plane
            .kubectl(&["get", "blockpools", "-o", "name"])?
            .is_empty()
    );
    plane.kubectl(&["get", "csidriver", "csi.holdfast.dev"])?;
    plane.kubectl(&["get", "storageclass", "holdfast"])?;
    Ok(())
}

pub(crate) async fn release_lives_through_upgrade_and_guarded_uninstall(
    plane: &mut Plane,
) -> anyhow::Result<()> {
    let notes = upgrade(plane, "controller.replicas=1")?;
    ensure!(
        notes.contains("WARNING: controller.replicas is 1"),
        "{notes}"
    );
    ensure!(
        notes.contains("WARNING: node.updateStrategy.type is OnDelete"),
        "{notes}"
    );
    ensure!(
        plane.kubectl(&["get", "blockpools", "-o", "name"])?.trim() == "blockpool.holdfast.dev/p"
    );
    let replicas = [
        "get",
        "deployment",
        "holdfast-controller",
        "-n",
        NAMESPACE,
        "-o",
    ];
    let replicas = plane.kubectl(&[&replicas[..], &["jsonpath={.spec.replicas}"]].concat())?;
    ensure!(replicas == "1", "{replicas}");

    plane.kubectl_with(&["apply", "-f", "-"], VOLUME)?;
    let (succeeded, words, check) = uninstall(plane).await?;
    ensure!(!succeeded, "uninstalled under a volume: {words}");
    ensure!(check.contains("2 volumes of csi.holdfast.dev"), "{check}");
    ensure!(
        check.contains("pvc-1: PersistentVolume pvc-1 of claim team/data"),
        "{check}"
    );
    ensure!(check.contains("pvc-2: SplitVolume on node n1"), "{check}");
    plane.kubectl(&["get", "daemonset", "holdfast-node", "-n", NAMESPACE])?;

    plane.kubectl(&["delete", "pv/pvc-1", "splitvolume/pvc-2"])?;
    let (succeeded, words, check) = uninstall(plane).await?;
    ensure!(succeeded, "{words}\n{check}");
    ensure!(
        plane
            .kubectl(&["get", "daemonset", "holdfast-node", "-n", NAMESPACE])
            .is_err()
    );
    Ok(())
}

pub(crate) async fn second_install_finds_what_the_first_one_left(
    plane: &mut Plane,
) -> anyhow::Result<()> {
    ensure!(
        plane.kubectl(&["get", "blockpools", "-o", "name"])?.trim() == "blockpool.holdfast.dev/p"
    );
    let notes = install(plane, &["--set", POOL])?;
    ensure!(notes.contains("Look at your pools"), "{notes}");
    // With force nothing is asked: this ends although nobody plays the check's pod.
    plane.kubectl_with(&["apply", "-f", "-"], VOLUME)?;
    upgrade(plane, "uninstall.force=true")?;
    run(&mut helm(
        plane,
        &["uninstall", "holdfast", "--namespace", NAMESPACE],
    )?)?;
    plane.kubectl(&["get", "splitvolume", "pvc-2"])?;
    Ok(())
}

/// Runs `helm uninstall` and meanwhile, as kubelet would, the pod of the check. Returns whether Helm succeeded, its words,
/// and those of the check.
async fn uninstall(plane: &Plane) -> anyhow::Result<(bool, String, String)> {
    let mut helm = helm(
        plane,
        &[
            "uninstall",
            "holdfast",
            "--namespace",
            NAMESPACE,
            "--timeout=5m",
        ],
    )?
    .stdout(Stdio::piped())
    .stderr(Stdio::piped())
    .spawn()?;
    let check = play_kubelet(plane).await;
    if check.is_err() {
        helm.kill()?;
    }
    let output = helm.wait_with_output()?;
    let words = said(&output);
    let check = check.with_context(|| words.clone())?;
    Ok((output.status.success(), words, check))
}

/// Runs what the check's container runs, with the pod's account, and tells the API server how it ended.
async fn play_kubelet(plane: &Plane) -> anyhow::Result<String> {
    let pods: Api<Pod> = Api::namespaced(plane.client(), NAMESPACE);
    let ours = ListParams::default().labels("app.kubernetes.io/component=uninstall-check");
    let pod = until("the check has a pod", PATIENCE, || async {
        let listed = pods.list(&ours).await?;
        let waiting = listed.into_iter().find(|pod| {
            let phase = pod
                .status
                .as_ref()
                .and_then(|status| status.phase.as_deref());
            pod.metadata.deletion_timestamp.is_none() && phase == Some("Pending")
        });
        Ok(waiting.ok_or_else(|| "there is none".to_owned()))
    })
    .await?;
    let spec = pod.spec.as_ref().context("a pod has a spec")?;
    let account = spec.service_account_name.as_deref().unwrap_or_default();
    let kubeconfig = plane.kubeconfig_of(account, NAMESPACE, None).await?;
    let output = Command::new(holdfast_guest::holdfast()?)
        .args(spec.containers[0].args.iter().flatten())
        .env("KUBECONFIG", kubeconfig)
        .output()?;
    let phase = if output.status.success() {
        "Succeeded"
    } else {
        "Failed"
    };
    let code = output.status.code();
    let status = json!({ "status": { "phase": phase, "containerStatuses": [{
        "name": spec.containers[0].name, "image": "", "imageID": "", "ready": false, "restartCount": 0,
        "state": { "terminated": { "exitCode": code, "reason": "Ended" } },
    }] } });
    pods.patch_status(
        &pod.name_any(),
        &PatchParams::default(),
        &Patch::Merge(status),
    )
    .await?;
    Ok(said(&output))
}
