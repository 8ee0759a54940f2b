//! Programs that are built from Go modules: a Kubernetes control plane, CSI's sidecars, Helm, the conformance suite.
//!
//! Each module in `tests/cluster/tools` pins what it builds. Programs are built once; a changed pin builds them again.

use super::check;
use crate::say::Step;
use anyhow::Context;
use holdfast_guest::kit;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// A module of `tests/cluster/tools`, and the programs that come out of it: name and package.
struct Module {
    folder: &'static str,
    programs: &'static [(&'static str, &'static str)],
}

const MODULES: &[Module] = &[
    Module {
        folder: "csi-sanity",
        programs: &[(
            "csi-sanity",
            "github.com/kubernetes-csi/csi-test/v5/cmd/csi-sanity",
        )],
    },
    Module {
        folder: "k8s",
        programs: &[
            ("etcd", "go.etcd.io/etcd/server/v3"),
            ("kube-apiserver", "k8s.io/kubernetes/cmd/kube-apiserver"),
            (
                "kube-controller-manager",
                "k8s.io/kubernetes/cmd/kube-controller-manager",
            ),
            ("kube-scheduler", "k8s.io/kubernetes/cmd/kube-scheduler"),
            ("kubectl", "k8s.io/kubernetes/cmd/kubectl"),
        ],
    },
    Module {
        folder: "csi",
        programs: &[
            (
                "csi-provisioner",
                "github.com/kubernetes-csi/external-provisioner/v6/cmd/csi-provisioner",
            ),
            (
                "csi-resizer",
                "github.com/kubernetes-csi/external-resizer/v2/cmd/csi-resizer",
            ),
        ],
    },
    Module {
        folder: "helm",
        programs: &[("helm", "helm.sh/helm/v4/cmd/helm")],
    },
    Module {
        folder: "helm-unittest",
        programs: &[(
            "helm-unittest",
            "github.com/helm-unittest/helm-unittest/cmd/helm-unittest",
        )],
    },
];

/// The module whose version a Kubernetes server reports as its own.
const KUBERNETES: &str = "k8s.io/kubernetes";

/// Builds what is missing or old. Without Go nothing is built, and the tests that need it count as skipped.
///
/// # Errors
/// If Go is there and a module does not build.
pub(super) fn programs() -> anyhow::Result<()> {
    let mut old = Vec::new();
    for module in MODULES {
        if !module.is_built()? {
            old.push(module);
        }
    }
    if old.is_empty() {
        return Ok(());
    }
    if Command::new("go").arg("version").output().is_err() {
        let step = Step::begin("build Kubernetes, CSI sidecars, Helm and csi-sanity with Go");
        step.done("skipped: Go is missing; install Go 1.26 or newer to run what needs them");
        return Ok(());
    }
    let scratch = tempfile::tempdir().context("cannot make a folder for what Go compiles")?;
    old.into_iter()
        .try_for_each(|module| module.build(scratch.path()))
}

impl Module {
    fn path(&self) -> PathBuf {
        kit::workspace()
            .join("tests/cluster/tools")
            .join(self.folder)
    }

    /// What decides whether a program is up to date: every version and every checksum.
    fn pins(&self) -> anyhow::Result<String> {
        let read = |name| {
            let path = self.path().join(name);
            fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))
        };
        Ok(read("go.mod")? + &read("go.sum")?)
    }

    /// Written once all programs of the module are there: the pins they were built from.
    fn stamp(&self) -> PathBuf {
        bin().join(format!(".{}.built", self.folder))
    }

    fn is_built(&self) -> anyhow::Result<bool> {
        let here = self
            .programs
            .iter()
            .all(|(name, _)| bin().join(name).exists());
        let built_from = fs::read_to_string(self.stamp()).ok();
        Ok(here && built_from == Some(self.pins()?))
    }

    /// `scratch` takes what Go compiles on the way: gigabytes that nobody needs once the programs are there.
    fn build(&self, scratch: &Path) -> anyhow::Result<()> {
        let pins = self.pins()?;
        let flags = link_flags(&pins);
        fs::create_dir_all(bin())?;
        for (name, package) in self.programs {
            let step = Step::begin(format!("build {name} with Go"));
            let made = bin().join(format!("{name}.partial"));
            self.compile(package, &flags, &made, scratch)?;
            fs::rename(&made, bin().join(name))?;
            step.done("built");
        }
        fs::write(self.stamp(), pins).context("cannot note what was built")
    }

    fn compile(&self, package: &str, flags: &str, to: &Path, scratch: &Path) -> anyhow::Result<()> {
        let output = Command::new("go")
            .args(["build", "-trimpath", "-p", "2", "-ldflags", flags, "-o"])
            .arg(to)
            .arg(package)
            .current_dir(self.path())
            .env("CGO_ENABLED", "0")
            .env("GOCACHE", scratch)
            .env("GOTOOLCHAIN", "local")
            .output()
            .context("cannot run go")?;
        check(&output, &format!("go build {package}"))
    }
}

fn bin() -> PathBuf {
    kit::cache().join("bin")
}

/// Without symbols; a Kubernetes server learns its version only from here.
fn link_flags(pins: &str) -> String {
    let mut flags = "-s -w".to_owned();
    if let Some(version) = version_of(KUBERNETES, pins) {
        let mut numbers = version.trim_start_matches('v').split('.');
        let (major, minor) = (numbers.next().unwrap_or("0"), numbers.next().unwrap_or("0"));
        for (variable, value) in [
            ("k8s.io/component-base/version.gitVersion", version),
            ("k8s.io/component-base/version.gitMajor", major),
            ("k8s.io/component-base/version.gitMinor", minor),
            ("k8s.io/component-base/version.gitTreeState", "clean"),
            ("k8s.io/client-go/pkg/version.gitVersion", version),
        ] {
            flags.push_str(&format!(" -X {variable}={value}"));
        }
    }
    flags
}

/// The version that `go.mod` requires of `module`.
fn version_of<'a>(module: &str, go_mod: &'a str) -> Option<&'a str> {
    go_mod.lines().find_map(|line| {
        let mut words = line.trim().trim_start_matches("require ").split(' ');
        (words.next() == Some(module)).then(|| words.next())?
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kubernetes_is_told_the_version_it_is_pinned_to() {
        let pins = "require (\n\tk8s.io/api v0.36.1\n\tk8s.io/kubernetes v1.36.1 // indirect\n)\n";
        let flags = link_flags(pins);
        assert!(
            flags.contains("component-base/version.gitVersion=v1.36.1 "),
            "{flags}"
        );
        assert!(
            flags.contains("gitMajor=1 ") && flags.contains("gitMinor=36 "),
            "{flags}"
        );
    }

    #[test]
    fn programs_without_kubernetes_are_only_stripped() {
        assert_eq!(link_flags("require helm.sh/helm/v4 v4.2.4\n"), "-s -w");
    }

    #[test]
    fn every_module_has_its_pins() {
        for module in MODULES {
            module.pins().unwrap();
        }
    }
}
