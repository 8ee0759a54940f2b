//! What can be said of docs/kubevirt.md without following it: its manifests are shown to the API server, and its tests exist.

use crate::page::{PAGE, blocks, code};
use crate::reader::finish;
use crate::stage::Stage;
use anyhow::{Context, ensure};
use holdfast_cluster::Plane;
use serde::Deserialize;
use serde_json::Value;
use std::process::Command;

const EXAMPLE: &str = include_str!("../../../../deploy/examples/machine.yaml");
/// The server checks every field, and a field that a kind does not have is an error.
pub(crate) const APPLY_STRICTLY: [&str; 5] = [
    "apply",
    "--server-side",
    "--force-conflicts",
    "--validate=strict",
    "--filename=-",
];

/// A part of a machine is put into the example, as a reader would.
pub(crate) async fn manifests_of_the_page_are_taken(plane: &mut Plane) -> anyhow::Result<()> {
    Stage::set(plane, "manifests").await?;
    let blocks = blocks(PAGE, "yaml");
    ensure!(!blocks.is_empty(), "the page shows no manifest");
    for block in blocks {
        let machine = example_with(block)?;
        let words = [&APPLY_STRICTLY[..], &["--dry-run=server"]].concat();
        let taken = plane.kubectl_with(&words, &machine.to_string());
        taken.with_context(|| format!("the page says\n{block}"))?;
    }
    Ok(())
}

/// The machine of the examples, changed as a block of the page says.
pub(crate) fn example_with(block: &str) -> anyhow::Result<Value> {
    let part: Value = yaml(block)?;
    if part.get("kind").is_some() {
        return Ok(part);
    }
    let mut machine: Value = yaml(EXAMPLE)?;
    merge(&mut machine, part);
    Ok(machine)
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
