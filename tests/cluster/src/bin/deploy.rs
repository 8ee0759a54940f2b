//! Writes what is made from the Helm chart and from the definitions of the custom resources: `cargo xtask deploy`.
#![forbid(unsafe_code)]

use anyhow::{Context, ensure};
use holdfast_cluster::{chart, kit};
use holdfast_guest::{holdfast, kit::workspace};
use std::fs;
use std::process::Command;

fn main() -> anyhow::Result<()> {
    let told = Command::new(holdfast()?).arg("crds").output()?;
    ensure!(told.status.success(), "`holdfast crds` fails");
    let crds = String::from_utf8(told.stdout).context("the definitions are text")?;
    for made in chart::made(&workspace(), &kit::program("helm")?, &crds)? {
        let path = workspace().join(made.path);
        if fs::read_to_string(&path).is_ok_and(|text| text == made.text) {
            println!("  {} is up to date", made.path);
            continue;
        }
        fs::write(&path, made.text).with_context(|| format!("cannot write {}", path.display()))?;
        println!("  {} is written anew", made.path);
    }
    Ok(())
}
