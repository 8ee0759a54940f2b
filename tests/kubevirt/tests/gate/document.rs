//! docs/kubevirt.md, followed to the letter: its commands are run, its manifests are shown to the API server, and the machine
//! that it makes is marked.

use crate::stage::{Loop, Stage};
use anyhow::{Context, ensure};
use holdfast_cluster::{Plane, kit};
use holdfast_guest::kit::workspace;
use serde::Deserialize;
use serde_json::{Value, json};
use std::process::Command;

const PAGE: &str = include_str!("../../../../docs/kubevirt.md");
const EXAMPLE: &str = include_str!("../../../../deploy/examples/machine.yaml");
/// The server checks every field, and a field that a kind does not have is an error.
const APPLY_STRICTLY: [&str; 5] = [
    "apply",
    "--server-side",
    "--force-conflicts",
    "--validate=strict",
    "-f",
];

pub(crate) async fn commands_of_the_page_set_kubevirt_and_the_chart_up(
    plane: &mut Plane,
) -> anyhow::Result<()> {
    let stage = Stage::set(plane, "page").await?;
    prepare(plane)?;

    for block in blocks("console") {
        shell(plane, block)?;
    }

    let gates = "-o=jsonpath={.spec.configuration.developerConfiguration.featureGates}";
    let gates = plane.kubectl(&["-n", "kubevirt", "get", "kubevirt", "kubevirt", gates])?;
    ensure!(gates == r#"["Plugins"]"#, "{gates}");
    let hooks = "-o=jsonpath={.spec.domainHooks[*].cel.expression}";
    let hooks = plane.kubectl(&["get", "plugin", "holdfast", hooks])?;
    ensure!(hooks.contains("v.sock"), "{hooks}");
    for workload in ["deployment/holdfast-controller", "daemonset/holdfast-node"] {
        let told = plane.kubectl(&["-n", "holdfast", "get", workload, "-o=yaml"])?;
        ensure!(told.contains("- --kubevirt\n"), "{workload}: {told}");
    }
    machine_of_the_page_is_marked(plane, &stage).await?;
    for command in inline_commands() {
        shell(plane, &command.replace("NAME", "first"))?;
    }
    Ok(())
}

/// Somebody who begins with the page has installed KubeVirt and Holdfast.
fn prepare(plane: &Plane) -> anyhow::Result<()> {
    plane.kubectl(&["create", "namespace", "kubevirt"])?;
    let kubevirt = "{apiVersion: kubevirt.io/v1, kind: KubeVirt, metadata: {name: kubevirt, namespace: kubevirt}, spec: {}}";
    plane.kubectl_with(&[&APPLY_STRICTLY[..], &["-"]].concat(), kubevirt)?;
    shell(
        plane,
        "helm install holdfast charts/holdfast --namespace holdfast --create-namespace",
    )?;
    Ok(())
}

/// What KubeVirt makes of a machine: an instance of its template, and a pod with its volumes.
async fn machine_of_the_page_is_marked(plane: &Plane, stage: &Stage) -> anyhow::Result<()> {
    let machine: Value = serde_json::from_str(&plane.kubectl(&["get", "vm", "first", "-o=json"])?)?;
    let template = &machine["spec"]["template"];
    let instance = json!({
        "apiVersion": "kubevirt.io/v1",
        "kind": "VirtualMachineInstance",
        "metadata": {"name": "first", "annotations": template["metadata"]["annotations"]},
        "spec": template["spec"],
    });
    let apply = [&APPLY_STRICTLY[..], &["-"]].concat();
    plane.kubectl_with(&apply, &instance.to_string())?;
    stage.create(&instance).await?;
    stage.claim("data", "csi.holdfast.dev").await?;
    let _gate = Loop::start(plane);
    stage.launcher("pod", Some("first"), &["data"]).await?;

    stage.until_admitted("pod", "data").await?;
    ensure!(stage.annotation("first").await? == Some("data".to_owned()));
    Ok(())
}

/// A part of a machine is put into the example, as a reader would.
pub(crate) async fn manifests_of_the_page_are_taken(plane: &mut Plane) -> anyhow::Result<()> {
    Stage::set(plane, "manifests").await?;
    let blocks = blocks("yaml");
    ensure!(!blocks.is_empty(), "the page shows no manifest");
    for block in blocks {
        let part: Value = yaml(block)?;
        let mut machine: Value = yaml(EXAMPLE)?;
        match part.get("kind") {
            Some(_) => machine = part,
            None => merge(&mut machine, part),
        }
        let words = [&APPLY_STRICTLY[..], &["-", "--dry-run=server"]].concat();
        let taken = plane.kubectl_with(&words, &machine.to_string());
        taken.with_context(|| format!("the page says\n{block}"))?;
    }
    Ok(())
}

/// The table of a volume's life names the test of each row.
pub(crate) async fn tests_that_the_page_names_are_there(_: &mut Plane) -> anyhow::Result<()> {
    let named: Vec<&str> = code().filter(|word| is_test(word)).collect();
    ensure!(named.len() > 8, "the page names only {named:?}");
    let tests = "grep -rhE --include=*.rs --include=*.go --exclude-dir=target --exclude-dir=.cache '(fn [a-z_0-9]{12,}|func Test[A-Za-z]+)\\(' .";
    let sources = finish(Command::new("bash").args(["-c", tests]))?;
    for name in named {
        let (rust, go) = (format!("fn {name}("), format!("func {name}("));
        ensure!(
            sources.contains(&rust) || sources.contains(&go),
            "there is no test {name}"
        );
    }
    Ok(())
}

/// Names of tests are sentences; nothing else in code has five words.
fn is_test(word: &str) -> bool {
    let plain = word.chars().all(|c| c.is_ascii_alphanumeric() || c == '_');
    plain && (word.matches('_').count() >= 4 || word.starts_with("Test"))
}

/// The fenced blocks of a language.
fn blocks(language: &str) -> Vec<&'static str> {
    let fence = format!("```{language}\n");
    let parts = PAGE.split(fence.as_str()).skip(1);
    parts
        .filter_map(|part| Some(part.split_once("```")?.0))
        .collect()
}

/// All that stands between backticks in running text.
fn code() -> impl Iterator<Item = &'static str> {
    // Blocks are every other part, and so is code in what is left.
    let prose = PAGE.split("```").step_by(2);
    prose.flat_map(|text| text.split('`').skip(1).step_by(2))
}

fn inline_commands() -> Vec<String> {
    let commands = code().filter(|text| text.starts_with("kubectl "));
    let commands: Vec<String> = commands
        .map(|text| text.split_whitespace().collect::<Vec<_>>().join(" "))
        .collect();
    assert!(commands.len() > 2, "the page helps with {commands:?} only");
    commands
}

/// Runs lines as a reader would: in the source tree, with its kubectl and helm, on this cluster.
fn shell(plane: &Plane, lines: &str) -> anyhow::Result<String> {
    let programs = kit::program("kubectl")?;
    let folder = programs.parent().context("a program is in a folder")?;
    let path = format!("{}:{}", folder.display(), std::env::var("PATH")?);
    let mut shell = Command::new("bash");
    for home in ["CACHE", "CONFIG", "DATA"] {
        shell.env(format!("HELM_{home}_HOME"), plane.folder().join("helm"));
    }
    shell
        .env("PATH", path)
        .env("KUBECONFIG", plane.kubeconfig())
        .env("HOME", plane.folder());
    finish(shell.args(["-euo", "pipefail", "-c", lines]))
}

fn finish(command: &mut Command) -> anyhow::Result<String> {
    let output = command.current_dir(workspace()).output()?;
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "{command:?}: {said}");
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

fn yaml(text: &str) -> anyhow::Result<Value> {
    Ok(Value::deserialize(serde_yaml::Deserializer::from_str(
        text,
    ))?)
}

/// Maps are merged, all else is replaced.
fn merge(into: &mut Value, part: Value) {
    match (into, part) {
        (Value::Object(into), Value::Object(part)) => {
            for (key, value) in part {
                merge(into.entry(key).or_insert(Value::Null), value);
            }
        }
        (into, part) => *into = part,
    }
}
