//! What can be said about the chart without installing it.

use crate::helm::{objects, run};
use anyhow::{Context, ensure};
use holdfast_cluster::{Plane, chart, kit};
use holdfast_guest::kit::workspace;
use serde_json::Value;
use std::collections::BTreeSet;
use std::fs;
use std::path::PathBuf;
use std::process::Command;

pub(crate) async fn unit_suites_pass(plane: &mut Plane) -> anyhow::Result<()> {
    let told = run(Command::new(kit::program("helm-unittest")?)
        .arg(crate::helm::chart())
        .env("HOME", plane.folder()))?;
    let tests = told.lines().find(|line| line.starts_with("Tests:"));
    println!("  {}", tests.context("helm-unittest counts its tests")?);
    Ok(())
}

pub(crate) async fn made_files_are_up_to_date(_: &mut Plane) -> anyhow::Result<()> {
    let crds = run(Command::new(holdfast_guest::holdfast()?).arg("crds"))?;
    for made in chart::made(&workspace(), &kit::program("helm")?, &crds)? {
        let is = fs::read_to_string(workspace().join(made.path)).unwrap_or_default();
        let path = made.path;
        ensure!(is == made.text, "{path} is old; run `cargo xtask deploy`");
    }
    Ok(())
}

/// Each program gets the very arguments of the chart, and then --help: an argument it does not know comes first.
pub(crate) async fn arguments_are_known_to_their_programs(plane: &mut Plane) -> anyhow::Result<()> {
    let rare = [
        "--set=node.cpus=0,gc.dryRun=true,kubevirt.plugin.enabled=true,kubevirt.hook.enabled=true",
        "--set=kubevirt.webhook.certManager.enabled=true",
    ];
    let mut asked = BTreeSet::new();
    for object in objects(plane, &rare)? {
        let containers = object.pointer("/spec/template/spec/containers");
        for container in containers.and_then(Value::as_array).into_iter().flatten() {
            let name = container["name"]
                .as_str()
                .context("containers have names")?;
            let Some(program) = program(name)? else {
                continue;
            };
            let words = container["args"].as_array().context("and arguments")?;
            let words = words.iter().filter_map(Value::as_str);
            run(Command::new(program).args(words).arg("--help"))?;
            asked.insert(name.to_owned());
        }
    }
    let known = ["holdfast", "provisioner", "resizer", "uninstall-check"];
    ensure!(
        asked == known.map(str::to_owned).into(),
        "asked only {asked:?}"
    );
    Ok(())
}

/// What runs in a container of this name, where it is built here.
fn program(container: &str) -> anyhow::Result<Option<PathBuf>> {
    Ok(Some(match container {
        "holdfast" | "uninstall-check" => holdfast_guest::holdfast()?,
        "provisioner" => kit::program("csi-provisioner")?,
        "resizer" => kit::program("csi-resizer")?,
        _ => return Ok(None),
    }))
}
