//! Somebody who follows a page to the letter: a shell in the source tree, with kubectl and helm, in a namespace of its own.

use anyhow::{Context, ensure};
use holdfast_cluster::{Plane, kit};
use holdfast_guest::kit::workspace;
use std::fs;
use std::path::PathBuf;
use std::process::Command;

/// What the reader puts where a page says REGISTRY.
pub(crate) const REGISTRY: &str = "registry.example";

pub(crate) struct Reader {
    home: PathBuf,
    kubeconfig: PathBuf,
}

impl Reader {
    /// Their kubectl is in `namespace` where a command names none.
    pub(crate) fn arrive(plane: &Plane, namespace: &str) -> anyhow::Result<Reader> {
        let home = plane.folder().join(namespace);
        fs::create_dir_all(&home)?;
        let kubeconfig = home.join("kubeconfig");
        fs::copy(plane.kubeconfig(), &kubeconfig)?;
        let reader = Reader { home, kubeconfig };
        reader.run(&format!(
            "kubectl config set-context --current --namespace={namespace}"
        ))?;
        Ok(reader)
    }

    /// Runs lines of a page; returns what they print.
    pub(crate) fn run(&self, lines: &str) -> anyhow::Result<String> {
        let programs = kit::program("kubectl")?;
        let folder = programs.parent().context("a program is in a folder")?;
        let path = format!("{}:{}", folder.display(), std::env::var("PATH")?);
        let mut shell = Command::new("bash");
        for place in ["CACHE", "CONFIG", "DATA"] {
            shell.env(format!("HELM_{place}_HOME"), self.home.join("helm"));
        }
        shell
            .env("PATH", path)
            .env("KUBECONFIG", &self.kubeconfig)
            .env("HOME", &self.home);
        let lines = lines.replace("REGISTRY", REGISTRY);
        finish(shell.args(["-euo", "pipefail", "-c", &lines]))
    }
}

/// Runs a command in the source tree; returns what it prints.
pub(crate) fn finish(command: &mut Command) -> anyhow::Result<String> {
    let output = command.current_dir(workspace()).output()?;
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "{command:?}: {said}");
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}
