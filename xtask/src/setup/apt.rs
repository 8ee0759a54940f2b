//! Debian's packages: installed on the machine, or only unpacked into the cache.

use super::sources::Source;
use anyhow::{Context, bail, ensure};
use std::fs;
use std::io::IsTerminal;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

const SOURCES: &str = "/etc/apt/sources.list.d";
const BACKPORTS: &str = "/etc/apt/sources.list.d/holdfast-backports.sources";

/// The package manager, known to be there.
#[derive(Debug)]
pub(crate) struct Apt {
    updated: bool,
}

impl Apt {
    /// # Errors
    /// If this is no Debian machine.
    pub(crate) fn new() -> anyhow::Result<Apt> {
        ensure!(
            Path::new("/usr/bin/apt-get").exists(),
            "this machine has no apt-get; install by hand what is missing: qemu-system-x86_64 \
             (9.1 or newer), qemu-storage-daemon, mkfs.ext4, fsck.ext4, sfdisk"
        );
        Ok(Apt { updated: false })
    }

    /// Installs packages on the machine, from `suite` if one is given.
    ///
    /// # Errors
    /// If apt fails, or this user may not use it.
    pub(crate) fn install(&mut self, packages: &[&str], suite: Option<&str>) -> anyhow::Result<()> {
        self.update()?;
        let mut words = vec!["apt-get", "install", "-y", "-q", "--no-install-recommends"];
        // A new machine often updates itself in the background and holds the lock for a while.
        words.extend(["-o", "DPkg::Lock::Timeout=300"]);
        words.extend(suite.iter().flat_map(|suite| ["-t", suite]));
        words.extend(packages);
        as_root(&words).map(drop)
    }

    /// Unpacks the newest version of `package` below `target`, without installing it.
    ///
    /// # Errors
    /// If it cannot be fetched or unpacked.
    pub(crate) fn unpack(&mut self, package: &str, target: &Path) -> anyhow::Result<()> {
        self.update()?;
        let (partial, download) = (
            target.with_extension("partial"),
            target.with_extension("deb"),
        );
        for folder in [&partial, &download] {
            if folder.exists() {
                fs::remove_dir_all(folder)?;
            }
            fs::create_dir_all(folder)?;
        }
        let fetch = ["-o", "APT::Sandbox::User=root", "download", package];
        output(Command::new("apt-get").args(fetch).current_dir(&download))?;
        let archive = only_entry(&download)?;
        output(Command::new("dpkg").arg("-x").args([&archive, &partial]))?;
        fs::remove_dir_all(&download)?;
        fs::rename(&partial, target).with_context(|| format!("cannot make {}", target.display()))
    }

    /// The package that the empty package `package` points at: the kernel of this week.
    ///
    /// # Errors
    /// If apt does not know it.
    pub(crate) fn dependency(&mut self, package: &str) -> anyhow::Result<String> {
        self.update()?;
        let text = output(Command::new("apt-cache").args(["depends", package]))?;
        text.lines()
            .find_map(|line| line.trim().strip_prefix("Depends: "))
            .map(str::to_owned)
            .with_context(|| format!("the package {package} names no kernel"))
    }

    /// Makes the backports of this release known to apt. Returns the name of the suite.
    ///
    /// # Errors
    /// If no source of the release itself is known, or apt refuses.
    pub(crate) fn add_backports(&mut self) -> anyhow::Result<String> {
        let release = release()?;
        let suite = format!("{release}-backports");
        let texts = source_texts()?;
        if Source::find(&texts, &suite).is_none() {
            let source = Source::find(&texts, &release)
                .with_context(|| format!("no source in {SOURCES} serves {release}"))?;
            let staged = std::env::temp_dir().join("holdfast-backports.sources");
            fs::write(&staged, source.stanza(&suite))?;
            let staged = staged.to_string_lossy();
            as_root(&["install", "-m", "644", &staged, BACKPORTS])?;
            self.updated = false;
        }
        Ok(suite)
    }

    fn update(&mut self) -> anyhow::Result<()> {
        if !self.updated {
            as_root(&["apt-get", "update", "-q"])
                .context("apt-get update failed; is there a network?")?;
            self.updated = true;
        }
        Ok(())
    }
}

fn release() -> anyhow::Result<String> {
    let text = fs::read_to_string("/etc/os-release").context("/etc/os-release is missing")?;
    text.lines()
        .find_map(|line| line.strip_prefix("VERSION_CODENAME="))
        .map(|name| name.trim_matches('"').to_owned())
        .context("/etc/os-release names no release")
}

fn source_texts() -> anyhow::Result<Vec<String>> {
    let mut paths = vec![PathBuf::from("/etc/apt/sources.list")];
    for entry in fs::read_dir(SOURCES).with_context(|| format!("cannot read {SOURCES}"))? {
        let path = entry?.path();
        // apt itself reads these two endings only.
        if path
            .extension()
            .is_some_and(|e| e == "sources" || e == "list")
        {
            paths.push(path);
        }
    }
    Ok(paths.iter().flat_map(fs::read_to_string).collect())
}

/// Runs `words` as root, through sudo if need be.
fn as_root(words: &[&str]) -> anyhow::Result<String> {
    let mut command;
    if rustix::process::geteuid().is_root() {
        command = Command::new(words[0]);
        command.args(&words[1..]);
    } else {
        ensure!(
            Path::new("/usr/bin/sudo").exists(),
            "`{}` needs root; run `cargo xtask setup` once as root",
            words.join(" ")
        );
        command = Command::new("sudo");
        if !std::io::stdin().is_terminal() {
            command.arg("-n");
        }
        command.args(words);
    }
    output(command.env("DEBIAN_FRONTEND", "noninteractive"))
}

fn output(command: &mut Command) -> anyhow::Result<String> {
    let Output {
        status,
        stdout,
        stderr,
    } = command
        .output()
        .with_context(|| format!("cannot run {:?}", command.get_program()))?;
    if !status.success() {
        let said = String::from_utf8_lossy(&stderr);
        bail!("{command:?} failed ({status}): {}", said.trim());
    }
    Ok(String::from_utf8_lossy(&stdout).into_owned())
}

fn only_entry(folder: &Path) -> anyhow::Result<PathBuf> {
    let entry = fs::read_dir(folder)?
        .next()
        .with_context(|| format!("nothing was downloaded to {}", folder.display()))?;
    Ok(entry?.path())
}
