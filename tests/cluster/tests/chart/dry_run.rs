//! Every object that the chart can make is shown to a real API server, which checks it in full and keeps nothing.

use crate::helm::{NAMESPACE, chart, helm, run, values};
use anyhow::ensure;
use holdfast_cluster::Plane;

/// Each shows another side of the chart.
const SETS: &[&str] = &[
    "default.yaml",
    "small.yaml",
    "mirror.yaml",
    "closed.yaml",
    "watched.yaml",
    "full.yaml",
];

/// Kinds of the Prometheus operator, which is not here: known by name, and open in their content.
const MONITORING: &[(&str, &str)] = &[
    ("ServiceMonitor", "servicemonitors"),
    ("PrometheusRule", "prometheusrules"),
];

pub(crate) async fn every_object_of_every_value_set_is_taken_by_the_server(
    plane: &mut Plane,
) -> anyhow::Result<()> {
    let crds = chart().join("files/crds.yaml");
    let crds = crds.to_str().unwrap_or_default();
    plane.kubectl(&["create", "namespace", NAMESPACE])?;
    plane.kubectl(&["apply", "--server-side", "-f", crds])?;
    for (kind, plural) in MONITORING {
        plane.kubectl_with(&["apply", "-f", "-"], &definition(kind, plural))?;
    }
    let established = ["wait", "crd", "--all", "--for=condition=Established"];
    plane.kubectl(&established)?;
    let shown = show_all(plane);
    // They are the release's to make in the tests that follow.
    plane.kubectl(&["delete", "--wait", "-f", crds])?;
    shown
}

fn show_all(plane: &Plane) -> anyhow::Result<()> {
    let mut sum = 0;
    for set in SETS {
        let objects = show(plane, set)?;
        println!("  {set}: {objects} objects");
        sum += objects;
    }
    ensure!(sum > 100, "only {sum} objects were shown");
    Ok(())
}

/// Shows the objects of a value set to the server; returns how many.
fn show(plane: &Plane, set: &str) -> anyhow::Result<usize> {
    let words = ["template", "holdfast", "--namespace", NAMESPACE];
    let text = run(helm(plane, &words)?
        .arg(chart())
        .args([
            "--api-versions",
            "holdfast.dev/v1alpha1/BlockPool",
            "--values",
        ])
        .arg(values(set)))?;
    let told = plane.kubectl_with(
        &[
            "apply",
            "--server-side",
            "--force-conflicts",
            "--dry-run=server",
            "--validate=strict",
            "-f",
            "-",
        ],
        &text,
    )?;
    let kinds = text.lines().filter(|line| line.starts_with("kind: "));
    let (shown, taken) = (kinds.count(), told.lines().count());
    ensure!(
        shown == taken,
        "{shown} objects were shown, {taken} taken:\n{told}"
    );
    Ok(taken)
}

fn definition(kind: &str, plural: &str) -> String {
    let singular = kind.to_lowercase();
    format!(
        "apiVersion: apiextensions.k8s.io/v1
kind: CustomResourceDefinition
metadata: {{name: {plural}.monitoring.coreos.com}}
spec:
  group: monitoring.coreos.com
  scope: Namespaced
  names: {{kind: {kind}, plural: {plural}, singular: {singular}}}
  versions:
    - name: v1
      served: true
      storage: true
      schema: {{openAPIV3Schema: {{type: object, x-kubernetes-preserve-unknown-fields: true}}}}
"
    )
}
