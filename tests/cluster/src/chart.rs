//! What is made from the chart: the manifests in deploy/, the chart's copy of the definitions, and its table of values.
//! `cargo xtask deploy` writes them; a test says when they are old.

use anyhow::{Context, ensure};
use serde_json::Value;
use std::path::Path;
use std::process::Command;

/// What stands before the table of values in the chart's README.
const TABLE_BEGINS: &str = "| value | default | what it is |\n";

const MANIFESTS_BEGIN: &str = "# Made by `cargo xtask deploy` from charts/holdfast with its defaults; apply deploy/crds.yaml first.\n";

/// A file that is made, and what must be in it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Made {
    /// Below the root of the source tree.
    pub path: &'static str,
    /// What belongs in it.
    pub text: String,
}

/// All files that are made from the chart and from `crds`, which is what `holdfast crds` prints.
///
/// # Errors
/// When helm cannot render the chart, or a file of it cannot be read.
pub fn made(root: &Path, helm: &Path, crds: &str) -> anyhow::Result<Vec<Made>> {
    let made = |path, text| Made { path, text };
    Ok(vec![
        made("charts/holdfast/files/crds.yaml", crds.to_owned()),
        made(
            "charts/holdfast/README.md",
            readme(&root.join("charts/holdfast"))?,
        ),
        made("deploy/crds.yaml", crds.to_owned()),
        made("deploy/holdfast.yaml", manifests(root, helm)?),
    ])
}

/// The chart with its defaults, without the definitions and without what Helm alone runs.
fn manifests(root: &Path, helm: &Path) -> anyhow::Result<String> {
    let told = Command::new(helm)
        .args(["template", "holdfast"])
        .arg(root.join("charts/holdfast"))
        .args([
            "--namespace",
            "holdfast",
            "--no-hooks",
            "--set",
            "crds.install=false",
        ])
        .args(["--kube-version", "1.34.0"])
        .output()
        .with_context(|| format!("cannot run {}", helm.display()))?;
    let complaint = String::from_utf8_lossy(&told.stderr);
    ensure!(
        told.status.success(),
        "helm cannot render the chart: {complaint}"
    );
    let rendered = String::from_utf8(told.stdout).context("helm prints no text")?;
    let by_helm = |line: &&str| {
        ["app.kubernetes.io/managed-by: Helm", "helm.sh/chart:"]
            .iter()
            .any(|label| line.contains(label))
    };
    let lines: Vec<&str> = rendered.lines().filter(|line| !by_helm(line)).collect();
    Ok(format!("{MANIFESTS_BEGIN}{}\n", lines.join("\n")))
}

/// The chart's README with a fresh table of values.
fn readme(chart: &Path) -> anyhow::Result<String> {
    let read = |name: &str| {
        let path = chart.join(name);
        std::fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))
    };
    let values: serde_yaml::Value = serde_yaml::from_str(&read("values.yaml")?)?;
    let schema: Value = serde_json::from_str(&read("values.schema.json")?)?;
    let text = read("README.md")?;
    let head = text
        .split_once(TABLE_BEGINS)
        .map_or(text.as_str(), |(head, _)| head);
    let mut rows = String::new();
    Table {
        schema: &schema,
        rows: &mut rows,
    }
    .add("", &values, &schema);
    Ok(format!("{head}{TABLE_BEGINS}| --- | --- | --- |\n{rows}"))
}

struct Table<'a> {
    schema: &'a Value,
    rows: &'a mut String,
}

impl Table<'_> {
    /// A row for each value that is no group of others.
    fn add(&mut self, path: &str, value: &serde_yaml::Value, schema: &Value) {
        let schema = self.resolve(schema);
        if let (Some(group), Some(known)) = (value.as_mapping(), schema.get("properties"))
            && !group.is_empty()
        {
            for (key, value) in group {
                let key = key.as_str().unwrap_or_default();
                let path = if path.is_empty() {
                    key.to_owned()
                } else {
                    format!("{path}.{key}")
                };
                self.add(&path, value, &known[key]);
            }
            return;
        }
        let default = serde_json::to_string(value).unwrap_or_default();
        let what = schema["description"].as_str().unwrap_or_default();
        self.rows.push_str(&format!(
            "| `{path}` | `{default}` | {} |\n",
            what.replace('|', "\\|")
        ));
    }

    /// Follows a reference; what stands beside it wins.
    fn resolve(&self, schema: &Value) -> Value {
        let reference = schema
            .get("$ref")
            .or_else(|| schema["allOf"][0].get("$ref"));
        let Some(name) = reference.and_then(Value::as_str) else {
            return schema.clone();
        };
        let mut found = self.schema.pointer(&name[1..]).cloned().unwrap_or_default();
        if let Some(description) = schema.get("description") {
            found["description"] = description.clone();
        }
        found
    }
}
