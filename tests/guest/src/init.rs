//! What a guest boots into: busybox, drivers, file system tools and our verifying I/O tool, in memory.

mod cpio;

use crate::kit::{Kit, workspace};
use anyhow::{Context, ensure};
use cpio::Archive;
use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Drivers in the order in which each finds what it needs; one that the kernel has built in is no file.
const MODULES: &[&str] = &[
    "drivers/virtio/virtio_ring.ko",
    "drivers/virtio/virtio.ko",
    "drivers/virtio/virtio_pci_legacy_dev.ko",
    "drivers/virtio/virtio_pci_modern_dev.ko",
    "drivers/virtio/virtio_pci.ko",
    "drivers/block/virtio_blk.ko",
    "drivers/char/virtio_console.ko",
];
const FOLDERS: &[&str] = &[
    "bin", "sbin", "lib", "lib64", "proc", "sys", "dev", "run", "modules", "mnt", "etc", "tmp",
];
const INIT: &str = include_str!("init/init.sh");
const IO_TOOL: &str = "tests/guest/src/bin/guest-io.rs";

/// Writes the guest's first file system to `path`.
///
/// # Errors
/// If a part of it cannot be read or built.
pub fn write(kit: &Kit, path: &Path) -> anyhow::Result<()> {
    let mut archive = Archive::new(Vec::new());
    for folder in FOLDERS {
        archive.folder(folder)?;
    }
    archive.file("init", INIT.as_bytes())?;
    archive.file("bin/busybox", &read(&kit.busybox)?)?;
    archive.file("bin/guest-io", &read(&io_tool()?)?)?;
    archive.link("etc/mtab", "/proc/mounts")?;
    add_modules(&mut archive, kit)?;
    add_programs(&mut archive, kit)?;
    fs::write(path, archive.finish()?).with_context(|| format!("cannot write {}", path.display()))
}

fn add_modules(archive: &mut Archive<Vec<u8>>, kit: &Kit) -> anyhow::Result<()> {
    let mut order = String::new();
    for module in MODULES {
        let path = kit.modules.join("kernel").join(module);
        let Some(name) = path.file_name().filter(|_| path.exists()) else {
            continue;
        };
        let name = name.to_string_lossy();
        archive.file(&format!("modules/{name}"), &read(&path)?)?;
        order.push_str(&format!("{name}\n"));
    }
    Ok(archive.file("modules/order", order.as_bytes())?)
}

fn add_programs(archive: &mut Archive<Vec<u8>>, kit: &Kit) -> anyhow::Result<()> {
    let mut libraries = BTreeSet::new();
    for program in &kit.programs {
        let name = program.file_name().unwrap_or_default().to_string_lossy();
        archive.file(&format!("sbin/{name}"), &read(program)?)?;
        libraries.extend(libraries_of(program)?);
    }
    for library in libraries {
        let name = library.file_name().unwrap_or_default().to_string_lossy();
        // The loader's path is written into each program; all others are found in /lib.
        let folder = if name.starts_with("ld-") {
            "lib64"
        } else {
            "lib"
        };
        archive.file(&format!("{folder}/{name}"), &read(&library)?)?;
    }
    Ok(())
}

/// The shared libraries of a program: every absolute path in what `ldd` says.
fn libraries_of(program: &Path) -> anyhow::Result<Vec<PathBuf>> {
    let output = Command::new("ldd")
        .arg(program)
        .output()
        .context("cannot run ldd")?;
    let said = String::from_utf8_lossy(&output.stdout);
    let paths = said.split_whitespace().filter(|word| word.starts_with('/'));
    Ok(paths.map(PathBuf::from).collect())
}

/// The verifying tool, linked statically since the guest has no library of its own.
fn io_tool() -> anyhow::Result<PathBuf> {
    let (source, folder) = (workspace().join(IO_TOOL), build_folder()?);
    let tool = folder.join("guest-io");
    if is_newer(&tool, &source) {
        return Ok(tool);
    }
    // Tests that start at once each build their own; the last rename wins, with the same bytes.
    let staged = tempfile::NamedTempFile::new_in(&folder)?.into_temp_path();
    let output = Command::new("rustc")
        .args([
            "--edition",
            "2024",
            "-O",
            "-C",
            "target-feature=+crt-static",
            "-o",
        ])
        .args([staged.as_os_str(), source.as_os_str()])
        .output()
        .context("cannot run rustc")?;
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(
        output.status.success(),
        "cannot build {}: {said}",
        source.display()
    );
    staged.persist(&tool)?;
    Ok(tool)
}

/// `guest/` beside what cargo built.
fn build_folder() -> anyhow::Result<PathBuf> {
    let folder = crate::target_folder()?.join("guest");
    fs::create_dir_all(&folder).with_context(|| format!("cannot make {}", folder.display()))?;
    Ok(folder)
}

fn is_newer(product: &Path, source: &Path) -> bool {
    let changed = |path: &Path| fs::metadata(path).and_then(|m| m.modified());
    matches!((changed(product), changed(source)), (Ok(p), Ok(s)) if p > s)
}

fn read(path: &Path) -> anyhow::Result<Vec<u8>> {
    fs::read(path).with_context(|| format!("cannot read {}", path.display()))
}
