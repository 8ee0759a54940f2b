//! The programs of a control plane, and where `cargo xtask setup` puts them.

use anyhow::ensure;
use holdfast_guest::kit::cache;
use std::path::PathBuf;
use std::process::Command;

/// What [`crate::Plane::start`] runs.
const PROGRAMS: &[&str] = &[
    "etcd",
    "kube-apiserver",
    "kube-controller-manager",
    "kube-scheduler",
    "kubectl",
    "csi-provisioner",
    "csi-resizer",
];

/// The path of a program that set-up has built.
///
/// # Errors
/// If it is missing; the message says how to get it.
pub fn program(name: &str) -> anyhow::Result<PathBuf> {
    let path = cache().join("bin").join(name);
    ensure!(
        path.exists(),
        "{} is missing; run `cargo xtask setup`",
        path.display()
    );
    Ok(path)
}

/// Why no control plane can run on this machine; `None` if it can.
///
/// # Errors
/// If it could after `cargo xtask setup`: that is no reason to skip.
pub fn reason_to_skip() -> anyhow::Result<Option<String>> {
    let missing = PROGRAMS.iter().find_map(|name| program(name).err());
    let has_go = || Command::new("go").arg("version").output().is_ok();
    match missing {
        None => Ok(None),
        Some(why) if has_go() => Err(why),
        Some(why) => Ok(Some(format!(
            "Go is missing, and Kubernetes cannot be built without it ({why})"
        ))),
    }
}
