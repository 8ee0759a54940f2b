//! What a guest is made of, and where `cargo xtask setup` puts it.

use anyhow::Context;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Everything a guest needs, found on this machine.
#[derive(Clone, Debug)]
pub struct Kit {
    /// The emulator.
    pub qemu: PathBuf,
    /// Its version, as in (10, 0).
    pub qemu_version: (u32, u32),
    /// The guest's kernel image.
    pub kernel: PathBuf,
    /// The folder `lib/modules/VERSION` that belongs to the kernel.
    pub modules: PathBuf,
    /// A busybox that needs no library.
    pub busybox: PathBuf,
    /// Programs of this machine that go into the guest together with their libraries.
    pub programs: Vec<PathBuf>,
}

/// From here on QEMU finds a back end again that went away at any moment of the handshake.
pub const QEMU_RECONNECTS: (u32, u32) = (9, 1);

/// What partitions, makes and checks file systems in the guest.
const PROGRAMS: &[&str] = &[
    "/sbin/mkfs.ext4",
    "/sbin/e2fsck",
    "/sbin/resize2fs",
    "/sbin/sfdisk",
];
const QEMU: &str = "/usr/bin/qemu-system-x86_64";
const STORAGE_DAEMON: &str = "/usr/bin/qemu-storage-daemon";
const REMEDY: &str = "run `cargo xtask setup`";

/// The root of the source tree.
pub fn workspace() -> PathBuf {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    root.canonicalize().unwrap_or(root)
}

/// Where set-up keeps what it fetched: `.cache/` of the source tree, ignored by git.
pub fn cache() -> PathBuf {
    workspace().join(".cache")
}

/// Where cargo builds: `target/` of the source tree unless CARGO_TARGET_DIR names another place.
pub fn target() -> PathBuf {
    let named = std::env::var_os("CARGO_TARGET_DIR");
    named.map_or_else(|| workspace().join("target"), PathBuf::from)
}

/// The unpacked kernel package.
pub fn kernel_folder() -> PathBuf {
    cache().join("kernel")
}

/// The unpacked busybox package.
pub fn busybox_folder() -> PathBuf {
    cache().join("busybox")
}

impl Kit {
    /// Looks everything up.
    ///
    /// # Errors
    /// Names what is missing, and the command that installs it.
    pub fn find() -> anyhow::Result<Kit> {
        let kernel = kernel_folder();
        Ok(Kit {
            qemu_version: qemu_version()?,
            qemu: existing(QEMU)?,
            kernel: starting_with(&kernel.join("boot"), "vmlinuz-")?,
            modules: starting_with(&kernel.join("lib/modules"), "")?,
            busybox: existing(busybox_folder().join("bin/busybox"))?,
            programs: PROGRAMS.iter().map(existing).collect::<Result<_, _>>()?,
        })
    }

    /// Whether this QEMU takes the time between two tries to reconnect in milliseconds.
    pub fn reconnects_in_milliseconds(&self) -> bool {
        self.qemu_version >= (9, 2)
    }
}

/// QEMU's own vhost-user-blk server, a back end that is not ours.
///
/// # Errors
/// If it is not installed.
pub fn storage_daemon() -> anyhow::Result<PathBuf> {
    existing(STORAGE_DAEMON)
}

/// The version of the installed QEMU, as in (10, 0).
///
/// # Errors
/// If it is not installed, or says nothing that looks like a version.
pub fn qemu_version() -> anyhow::Result<(u32, u32)> {
    let output = Command::new(QEMU)
        .arg("--version")
        .output()
        .with_context(|| format!("{QEMU} is missing; {REMEDY}"))?;
    let said = String::from_utf8_lossy(&output.stdout);
    version_in(&said).with_context(|| format!("{QEMU} does not tell its version: {said}"))
}

fn version_in(said: &str) -> Option<(u32, u32)> {
    let mut numbers = said.split("version ").nth(1)?.split('.');
    Some((numbers.next()?.parse().ok()?, numbers.next()?.parse().ok()?))
}

fn existing(path: impl AsRef<Path>) -> anyhow::Result<PathBuf> {
    let path = path.as_ref();
    fs::metadata(path).with_context(|| format!("{} is missing; {REMEDY}", path.display()))?;
    Ok(path.to_owned())
}

fn starting_with(folder: &Path, prefix: &str) -> anyhow::Result<PathBuf> {
    fs::read_dir(folder)
        .ok()
        .and_then(|mut entries| {
            entries.find_map(|entry| {
                let entry = entry.ok()?;
                let fits = entry.file_name().to_string_lossy().starts_with(prefix);
                fits.then(|| entry.path())
            })
        })
        .with_context(|| format!("{}/{prefix}* is missing; {REMEDY}", folder.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn version_is_read_from_what_qemu_says() {
        let said = "QEMU emulator version 10.0.2 (Debian 1:10.0.2+ds-2)\nCopyright";
        assert_eq!(version_in(said), Some((10, 0)));
        assert_eq!(version_in("QEMU"), None);
    }

    #[test]
    fn what_is_missing_is_named_with_the_remedy() {
        let file = existing("/nowhere/qemu").unwrap_err().to_string();
        assert!(
            file.contains("/nowhere/qemu is missing; run `cargo xtask setup`"),
            "{file}"
        );
        let kernel = starting_with(Path::new("/nowhere"), "vmlinuz-").unwrap_err();
        assert!(kernel.to_string().contains(REMEDY), "{kernel}");
    }
}
