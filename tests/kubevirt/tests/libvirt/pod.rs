//! The paths that a machine's pod has.

use crate::libvirt::USER;
use anyhow::Context;
use std::fs;
use std::os::unix::fs::chown;
use std::path::{Path, PathBuf};
use std::process::Command;

/// KubeVirt's name for it is /var/run/kubevirt-private; /var/run is a link.
const PRIVATE: &str = "/run/kubevirt-private";
/// The machine's; its consoles lie in a folder of that name.
const UID: &str = "5f0a4d57-6c2b-4b4c-8a53-2d8b9b0a4d11";

/// An empty /var/run/kubevirt-private; gone with all that is mounted in it when dropped.
pub(crate) struct Pod;

impl Pod {
    pub(crate) fn new() -> anyhow::Result<Pod> {
        fs::create_dir_all(PRIVATE)?;
        run(
            "mount",
            &["-t", "tmpfs", "-o", "mode=755", "tmpfs", PRIVATE],
        )?;
        let pod = Pod;
        fs::create_dir(format!("{PRIVATE}/vmi-disks"))?;
        let consoles = format!("{PRIVATE}/{UID}");
        fs::create_dir(&consoles)?;
        chown(consoles, Some(USER), Some(USER))?;
        Ok(pod)
    }

    /// A folder in it on a file system of this kind; gone with it.
    pub(crate) fn mount(&self, kind: &str, name: &str) -> anyhow::Result<PathBuf> {
        let folder = Path::new(PRIVATE).join(name);
        fs::create_dir(&folder)?;
        run("mount", &["-t", kind, kind, &folder.display().to_string()])?;
        Ok(folder)
    }
}

impl Drop for Pod {
    fn drop(&mut self) {
        // If it fails, it goes with the mount namespace.
        let _ = run("umount", &["--recursive", "--lazy", PRIVATE]);
    }
}

/// Runs a program that must succeed.
pub(crate) fn run(program: &str, words: &[&str]) -> anyhow::Result<String> {
    let output = Command::new(program).args(words).output();
    let output = output.with_context(|| format!("cannot run {program}"))?;
    let said = String::from_utf8_lossy(&output.stderr);
    anyhow::ensure!(
        output.status.success(),
        "{program} {words:?}: {}",
        said.trim()
    );
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}
