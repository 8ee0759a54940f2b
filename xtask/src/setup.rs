//! Makes a machine ready for the tests: what is there stays, what is missing is installed or fetched.

mod apt;
mod go;
mod sources;

use crate::say::Step;
use anyhow::{Context, ensure};
use apt::Apt;
use holdfast_guest::kit::{self, Kit};
use std::path::Path;
use std::process::{Command, Output};

/// Files of this machine, and the Debian package that brings each.
const TOOLS: &[(&str, &str)] = &[
    ("/usr/bin/qemu-storage-daemon", "qemu-utils"),
    ("/sbin/mkfs.ext4", "e2fsprogs"),
    ("/sbin/sfdisk", "fdisk"),
];

/// libvirt, as in the pods of KubeVirt: without a daemon of the system.
const LIBVIRT: &[(&str, &str)] = &[
    ("/usr/bin/virsh", "libvirt-clients"),
    ("/usr/sbin/libvirtd", "libvirt-daemon"),
    (
        "/usr/lib/x86_64-linux-gnu/libvirt/connection-driver/libvirt_driver_qemu.so",
        "libvirt-daemon-driver-qemu",
    ),
];

/// Fuzzes with the compiler that is there; no nightly one is needed.
const FUZZ: &str = "cargo-fuzz@0.13.2";

/// Does all of it; what cannot be done is an error that names the remedy.
pub(crate) fn run() -> anyhow::Result<()> {
    guests()?;
    libvirt()?;
    go::programs()?;
    fuzz()
}

/// What guests need, and so all that the demo needs.
pub(crate) fn guests() -> anyhow::Result<()> {
    qemu()?;
    tools()?;
    kernel()?;
    busybox()?;
    let kit = Kit::find()?;
    let (major, minor) = kit.qemu_version;
    let kernel = kit.kernel.file_name().unwrap_or_default().to_string_lossy();
    println!("  ok set-up: QEMU {major}.{minor}, guest kernel {kernel}");
    Ok(())
}

fn qemu() -> anyhow::Result<()> {
    if kit::qemu_version().is_ok_and(|version| version >= kit::QEMU_RECONNECTS) {
        return Ok(());
    }
    let step = Step::begin("install QEMU from Debian's backports");
    let mut apt = Apt::new()?;
    let newest = apt
        .add_backports()
        .and_then(|suite| apt.install(&["qemu-system-x86", "qemu-utils"], Some(&suite)));
    match newest {
        Ok(()) => step.done("installed"),
        Err(why) => {
            step.failed(&format!("{why:#}"));
            let step = Step::begin("install this release's own QEMU instead");
            apt.install(&["qemu-system-x86", "qemu-utils"], None)?;
            step.done("an old QEMU may not reconnect to a server that crashed in a handshake");
        }
    }
    Ok(())
}

/// What builds container images without a daemon.
pub(crate) fn buildah() -> anyhow::Result<&'static str> {
    install(&[("/usr/bin/buildah", "buildah")])?;
    Ok("buildah")
}

/// What a static binary is built with.
pub(crate) fn musl(target: &str) -> anyhow::Result<()> {
    install(&[("/usr/bin/musl-gcc", "musl-tools")])?;
    let installed = Command::new("rustup")
        .args(["target", "list", "--installed"])
        .output();
    let installed = installed.context("cannot run rustup; the static binary needs its target")?;
    if String::from_utf8_lossy(&installed.stdout).contains(target) {
        return Ok(());
    }
    let added = Command::new("rustup")
        .args(["target", "add", target])
        .output();
    check(
        &added.context("cannot run rustup")?,
        &format!("rustup target add {target}"),
    )
}

/// Small programs of this machine.
pub(crate) fn tools() -> anyhow::Result<()> {
    install(TOOLS)
}

/// What counts instructions.
pub(crate) fn valgrind() -> anyhow::Result<()> {
    install(&[("/usr/bin/valgrind", "valgrind")])
}

/// Without it nothing else suffers: the tests that need it count as skipped.
fn libvirt() -> anyhow::Result<()> {
    let packages = missing(LIBVIRT);
    if packages.is_empty() {
        return Ok(());
    }
    let step = Step::begin(format!("install {}", packages.join(", ")));
    match Apt::new().and_then(|mut apt| apt.install(&packages, None)) {
        Ok(()) => step.done("installed"),
        Err(why) => step.done(&format!(
            "skipped: {why:#}; and so are the tests on libvirt"
        )),
    }
    Ok(())
}

/// The packages of files that are not there.
fn missing(files: &[(&str, &'static str)]) -> Vec<&'static str> {
    let absent = files.iter().filter(|(path, _)| !Path::new(path).exists());
    absent.map(|(_, package)| *package).collect()
}

/// What samples a running program.
pub(crate) fn perf() -> anyhow::Result<()> {
    install(&[("/usr/bin/perf", "linux-perf")])
}

fn install(files: &[(&str, &'static str)]) -> anyhow::Result<()> {
    let missing = missing(files);
    if missing.is_empty() {
        return Ok(());
    }
    let step = Step::begin(format!("install {}", missing.join(", ")));
    Apt::new()?.install(&missing, None)?;
    step.done("installed");
    Ok(())
}

fn kernel() -> anyhow::Result<()> {
    if kit::kernel_folder().exists() {
        return Ok(());
    }
    let step = Step::begin("fetch a Debian kernel for guests");
    let mut apt = Apt::new()?;
    let package = apt.dependency("linux-image-cloud-amd64")?;
    apt.unpack(&package, &kit::kernel_folder())?;
    step.done(&package);
    Ok(())
}

fn busybox() -> anyhow::Result<()> {
    if kit::busybox_folder().exists() {
        return Ok(());
    }
    let step = Step::begin("fetch busybox for guests");
    Apt::new()?.unpack("busybox-static", &kit::busybox_folder())?;
    step.done("unpacked");
    Ok(())
}

fn fuzz() -> anyhow::Result<()> {
    let installed = Command::new("cargo-fuzz").arg("--version").output();
    if installed.is_ok() || kit::cache().join("bin/cargo-fuzz").exists() {
        return Ok(());
    }
    let step = Step::begin("build cargo-fuzz");
    let built = Command::new(env!("CARGO"))
        .args(["install", "--quiet", "--locked", FUZZ, "--root"])
        .arg(kit::cache())
        .output()
        .context("cannot run cargo")?;
    check(&built, &format!("cargo install {FUZZ}"))?;
    step.done("built");
    Ok(())
}

fn check(output: &Output, what: &str) -> anyhow::Result<()> {
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "{what} failed: {}", said.trim());
    Ok(())
}
