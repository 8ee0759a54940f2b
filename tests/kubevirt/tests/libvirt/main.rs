//! A machine as KubeVirt describes it, rewritten by the hook sidecar and by the Plugin, on real libvirt: session mode, the
//! user that QEMU has in KubeVirt's pods, a Linux guest that verifies its I/O on a volume of `holdfast standalone`.
//!
//! Paths inside KubeVirt's pods are fixed, so all of it runs in a mount namespace.
#![forbid(unsafe_code)]

mod libvirt;
mod machine;
mod pod;
mod rewriter;
mod storage;

use anyhow::{Context, ensure};
use futures::future::LocalBoxFuture;
use holdfast_cluster::runner::Stage;
use holdfast_guest::load::{self, WAIT_FOR_50_WRITES, WAIT_FOR_REPORT};
use libvirt::Libvirt;
use machine::{Machine, VOLUME};
use pod::Pod;
use rewriter::Rewriter;
use std::path::Path;
use std::process::Command;
use std::time::Instant;
use storage::Storage;

holdfast_cluster::tests!(
    on Host:
    machine_rewritten_by_the_hook_keeps_its_data_over_a_crash_and_a_reboot,
    machine_rewritten_by_the_plugin_keeps_its_data_over_a_crash_and_a_reboot,
    volume_grown_under_the_machine_is_seen,
    machine_that_nobody_rewrote_never_starts,
    machine_whose_server_is_away_waits_and_runs_when_it_comes,
    placeholder_takes_direct_reads_and_no_writes_from_the_machines_user,
    state_where_no_placeholder_takes_direct_reads_is_told,
);

/// As KubeVirt's converters of these releases write it.
const KUBEVIRT_1_6: &str = include_str!("kubevirt-1.6.xml");
const KUBEVIRT_1_9: &str = include_str!("kubevirt-1.9.xml");

/// This machine with libvirt and Go.
struct Host;

impl Stage for Host {
    const MOUNTS: bool = true;

    fn set() -> LocalBoxFuture<'static, anyhow::Result<Host>> {
        Box::pin(async {
            libvirt::know_the_user()?;
            Ok(Host)
        })
    }

    fn reason_to_skip() -> anyhow::Result<Option<String>> {
        let missing = libvirt::PROGRAMS
            .iter()
            .find(|path| !Path::new(path).exists());
        if let Some(path) = missing {
            return Ok(Some(format!(
                "libvirt is missing ({path}); `cargo xtask setup` installs it where it can"
            )));
        }
        let go = Command::new("go").arg("version").output();
        Ok(go
            .is_err()
            .then(|| "Go is missing, and KubeVirt's libraries are written in it".to_owned()))
    }
}

async fn machine_rewritten_by_the_hook_keeps_its_data_over_a_crash_and_a_reboot(
    _: &mut Host,
) -> anyhow::Result<()> {
    for (release, domain) in [("1.6", KUBEVIRT_1_6), ("1.9", KUBEVIRT_1_9)] {
        let lived = keeps_its_data(domain, Rewriter::hook()?).await;
        lived.with_context(|| format!("as KubeVirt {release} writes it"))?;
    }
    Ok(())
}

async fn machine_rewritten_by_the_plugin_keeps_its_data_over_a_crash_and_a_reboot(
    _: &mut Host,
) -> anyhow::Result<()> {
    keeps_its_data(KUBEVIRT_1_9, Rewriter::plugin()?).await
}

async fn keeps_its_data(domain: &str, rewriter: Rewriter) -> anyhow::Result<()> {
    let (_pod, mut storage, libvirt) = (Pod::new()?, Storage::start()?, Libvirt::start().await?);
    storage.publish()?;
    let mut machine = Machine::prepare(&libvirt, domain)?;
    machine.define_as_kubevirt_does(&rewriter).await?;
    machine.start()?;
    let serial = machine.boot().await?.check("cat /sys/block/vda/serial")?;
    ensure!(
        !serial.is_empty() && serial != "chosen-by-the-user",
        "the serial {serial:?} comes from the server"
    );

    machine.guest()?.check(&load::start(6, 1))?;
    machine.guest()?.check(WAIT_FOR_50_WRITES)?;
    storage.kill()?;
    storage.start_again()?;

    let report = machine.guest()?.check(WAIT_FOR_REPORT)?;
    ensure!(report.contains(" errors=0 wrong=0 "), "{report}");
    machine.guest()?.reboot(machine::in_time())?;
    machine.guest()?.check("guest-io check /dev/vda")?;
    Ok(())
}

async fn volume_grown_under_the_machine_is_seen(_: &mut Host) -> anyhow::Result<()> {
    let (_pod, mut storage, libvirt) = (Pod::new()?, Storage::start()?, Libvirt::start().await?);
    storage.publish()?;
    let mut machine = Machine::prepare(&libvirt, KUBEVIRT_1_9)?;
    machine.define_as_kubevirt_does(&Rewriter::hook()?).await?;
    machine.start()?;
    let before: u64 = machine
        .boot()
        .await?
        .check("cat /sys/block/vda/size")?
        .parse()?;
    ensure!(before == 96 << 11, "{before} sectors");

    storage.expand("192MiB")?;

    let grown = "until [ $(cat /sys/block/vda/size) = 393216 ]; do usleep 20000; done";
    machine.guest()?.check(grown)?;
    machine
        .guest()?
        .check("dd if=/dev/zero of=/dev/vda bs=1M seek=191 count=1 conv=fsync")?;
    Ok(())
}

async fn machine_that_nobody_rewrote_never_starts(_: &mut Host) -> anyhow::Result<()> {
    let (_pod, mut storage, libvirt) = (Pod::new()?, Storage::start()?, Libvirt::start().await?);
    storage.publish()?;
    for (release, domain) in [("1.6", KUBEVIRT_1_6), ("1.9", KUBEVIRT_1_9)] {
        let machine = Machine::prepare(&libvirt, domain)?;
        machine.define(machine.described())?;

        let started = machine.start();

        let refused = started
            .err()
            .with_context(|| format!("{release}: it started"))?
            .to_string();
        let placeholder = format!("{VOLUME}/disk.img");
        ensure!(
            refused.contains("Permission denied") && refused.contains(&placeholder),
            "{release}: {refused}"
        );
        ensure!(
            machine.state()? == "shut off",
            "{release}: {}",
            machine.state()?
        );
    }
    Ok(())
}

async fn machine_whose_server_is_away_waits_and_runs_when_it_comes(
    _: &mut Host,
) -> anyhow::Result<()> {
    let (_pod, mut storage, libvirt) = (Pod::new()?, Storage::start()?, Libvirt::start().await?);
    storage.publish()?;
    storage.kill()?;
    let mut machine = Machine::prepare(&libvirt, KUBEVIRT_1_9)?;
    machine.define_as_kubevirt_does(&Rewriter::hook()?).await?;
    let starting = machine.start_in_background()?;
    machine.until_state("paused").await?;

    storage.start_again()?;

    let since = Instant::now();
    starting.finish()?;
    machine.boot().await?.check("guest-io run /dev/vda 1 1")?;
    println!("booted {:?} after the server came", since.elapsed());
    Ok(())
}

/// KubeVirt tries that before each start, and gives up if the disk says `cache: none`.
async fn placeholder_takes_direct_reads_and_no_writes_from_the_machines_user(
    _: &mut Host,
) -> anyhow::Result<()> {
    let (_pod, mut storage) = (Pod::new()?, Storage::start()?);
    storage.publish()?;
    let file = storage.target().join("disk.img");
    let dd = |words: &[&str]| libvirt::as_user("dd").args(words).output();

    let from = format!("if={}", file.display());
    let read = dd(&[&from, "of=/dev/null", "iflag=direct", "bs=4096", "count=1"])?;
    let to = format!("of={}", file.display());
    let written = dd(&["if=/dev/zero", &to, "conv=notrunc", "bs=4096", "count=1"])?;

    ensure!(
        read.status.success(),
        "{}",
        String::from_utf8_lossy(&read.stderr)
    );
    let refused = String::from_utf8_lossy(&written.stderr);
    ensure!(refused.contains("Permission denied"), "{refused}");
    Ok(())
}

async fn state_where_no_placeholder_takes_direct_reads_is_told(_: &mut Host) -> anyhow::Result<()> {
    let pod = Pod::new()?;
    let mut storage = Storage::with_state_in(pod.mount("ramfs", "state")?)?;
    storage.publish()?;
    storage.until_said("takes no direct I/O")
}
