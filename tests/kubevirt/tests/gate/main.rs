//! The gate on a real API server: a launcher's pod appears, its machine is marked, and only then the pod may have its volumes.
#![allow(clippy::unwrap_used)]
#![forbid(unsafe_code)]

mod deployment;
mod document;
mod page;
mod reader;
mod stage;
mod ways;

use anyhow::{Context, ensure};
use document::{manifests_of_the_page_are_taken, tests_that_the_page_names_are_there};
use holdfast_cluster::{Plane, until};
use holdfast_kubevirt::Refusal;
use serde_json::json;
use stage::{Loop, PATIENCE, Stage, disk, machine};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};
use ways::{
    commands_of_the_page_give_an_older_kubevirts_machine_the_hook,
    commands_of_the_page_set_kubevirt_and_the_chart_up,
    machine_of_the_page_that_names_the_hook_itself_is_taken_as_it_is,
};

holdfast_cluster::tests!(
    machine_with_one_volume_is_marked_and_its_pod_admitted,
    five_volumes_are_marked_in_one_write,
    machine_is_marked_by_a_controller_that_was_started_again,
    names_that_a_person_wrote_are_kept,
    disk_that_a_socket_cannot_be_is_refused_with_events,
    foreign_and_unknown_names_are_told,
    second_machine_on_a_claim_is_refused_until_the_first_has_ended,
    pod_that_has_ended_and_machine_that_was_refused_hold_nothing,
    claim_of_a_block_device_is_refused_with_events,
    pods_that_are_no_launchers_of_a_machine,
    pod_without_a_node_is_not_looked_at,
    watch_that_fails_is_counted_and_begins_again,
    time_from_pod_to_admission_is_measured,
    manifests_of_the_page_are_taken,
    commands_of_the_page_set_kubevirt_and_the_chart_up,
    commands_of_the_page_give_an_older_kubevirts_machine_the_hook,
    machine_of_the_page_that_names_the_hook_itself_is_taken_as_it_is,
    tests_that_the_page_names_are_there,
);

async fn machine_with_one_volume_is_marked_and_its_pod_admitted(
    plane: &mut Plane,
) -> anyhow::Result<()> {
    let stage = Stage::set(plane, "one").await?;
    stage.claim("data", "csi.holdfast.dev").await?;
    stage.claim("other", "csi.example.com").await?;
    let volumes = [("data", disk("virtio")), ("other", disk("virtio"))];
    stage.create(&machine("vm", &volumes)).await?;
    stage
        .launcher("pod", Some("vm"), &["data", "other"])
        .await?;

    let refusal = stage.admit("pod", "data").await.unwrap_err();
    ensure!(
        matches!(refusal, Refusal::NotYet { .. }) && refusal.may_pass(),
        "{refusal}"
    );
    let _gate = Loop::start(plane);

    stage.until_admitted("pod", "data").await?;
    ensure!(stage.annotation("vm").await? == Some("data".to_owned()));
    let machine = stage.admit("pod", "data").await?;
    ensure!(machine.as_deref() == Some("vm"), "{machine:?}");
    Ok(())
}

async fn five_volumes_are_marked_in_one_write(plane: &mut Plane) -> anyhow::Result<()> {
    let stage = Stage::set(plane, "five").await?;
    let names = ["a", "b", "c", "d", "e"];
    for name in names {
        stage.claim(name, "csi.holdfast.dev").await?;
    }
    stage
        .create(&machine("vm", &names.map(|name| (name, disk("virtio")))))
        .await?;
    let _gate = Loop::start(plane);
    let before = stage.generation_of_writes("vm").await?;
    stage.launcher("pod", Some("vm"), &names).await?;

    for name in names {
        stage.until_admitted("pod", name).await?;
    }
    ensure!(stage.annotation("vm").await? == Some("a,b,c,d,e".to_owned()));
    let writes = stage.writes_since("vm", &before).await?;
    ensure!(writes == ["a,b,c,d,e"], "written: {writes:?}");
    Ok(())
}

async fn machine_is_marked_by_a_controller_that_was_started_again(
    plane: &mut Plane,
) -> anyhow::Result<()> {
    let stage = Stage::set(plane, "again").await?;
    stage.claim("first", "csi.holdfast.dev").await?;
    stage.claim("second", "csi.holdfast.dev").await?;
    stage
        .create(&machine("vm-1", &[("first", disk("virtio"))]))
        .await?;
    stage
        .create(&machine("vm-2", &[("second", disk("virtio"))]))
        .await?;
    let gate = Loop::start(plane);
    stage.launcher("pod-1", Some("vm-1"), &["first"]).await?;
    stage.until_admitted("pod-1", "first").await?;
    gate.kill().await;

    stage.launcher("pod-2", Some("vm-2"), &["second"]).await?;
    ensure!(
        stage.admit("pod-2", "second").await.is_err(),
        "admitted with nobody to mark it"
    );
    // Two at once, as during an update of the controller.
    let _gates = (Loop::start(plane), Loop::start(plane));

    stage.until_admitted("pod-2", "second").await?;
    stage.until_admitted("pod-1", "first").await
}

async fn names_that_a_person_wrote_are_kept(plane: &mut Plane) -> anyhow::Result<()> {
    let stage = Stage::set(plane, "person").await?;
    stage.claim("data", "csi.holdfast.dev").await?;
    stage.claim("more", "csi.holdfast.dev").await?;
    stage.claim("theirs", "csi.example.com").await?;
    let names = ["data", "more", "theirs"];
    let mut vm = machine("vm", &names.map(|name| (name, disk("virtio"))));
    // The second name is wrong, and kept all the same: the machine's events say so.
    vm["metadata"]["annotations"] = json!({"holdfast.dev/volumes": "data,theirs", "other": "x"});
    stage.create(&vm).await?;
    stage.launcher("pod", Some("vm"), &["data", "more"]).await?;

    stage
        .admit("pod", "data")
        .await
        .context("a person's word is enough")?;
    let _gate = Loop::start(plane);

    stage.until_admitted("pod", "more").await?;
    ensure!(stage.annotation("vm").await? == Some("data,more,theirs".to_owned()));
    Ok(())
}

async fn disk_that_a_socket_cannot_be_is_refused_with_events(
    plane: &mut Plane,
) -> anyhow::Result<()> {
    let stage = Stage::set(plane, "refused").await?;
    stage.claim("good", "csi.holdfast.dev").await?;
    stage.claim("sata", "csi.holdfast.dev").await?;
    stage
        .create(&machine(
            "vm",
            &[("good", disk("virtio")), ("sata", disk("sata"))],
        ))
        .await?;
    let _gate = Loop::start(plane);
    stage.launcher("pod", Some("vm"), &["good", "sata"]).await?;

    stage.until_admitted("pod", "good").await?;
    let refusal = stage.admit("pod", "sata").await.unwrap_err();
    ensure!(!refusal.may_pass(), "{refusal}");
    ensure!(
        refusal
            .to_string()
            .contains("its bus is sata; set bus: virtio"),
        "{refusal}"
    );
    for (kind, name) in [
        ("VirtualMachineInstance", "vm"),
        ("PersistentVolumeClaim", "sata"),
    ] {
        stage
            .until_event(kind, name, "VolumeNotServed", "set bus: virtio")
            .await?;
    }
    ensure!(stage.annotation("vm").await? == Some("good".to_owned()));
    Ok(())
}

async fn foreign_and_unknown_names_are_told(plane: &mut Plane) -> anyhow::Result<()> {
    let stage = Stage::set(plane, "foreign").await?;
    stage.claim("theirs", "csi.example.com").await?;
    for (name, written, words) in [
        ("vm-1", "theirs", "is not bound to a volume of Holdfast"),
        ("vm-2", "gone", "no volume of the machine with that name"),
        ("vm-3", "a, b", "cannot be a volume"),
    ] {
        let mut vm = machine(name, &[("theirs", disk("virtio"))]);
        vm["metadata"]["annotations"] = json!({"holdfast.dev/volumes": written});
        stage.create(&vm).await?;
        let _gate = Loop::start(plane);
        stage
            .launcher(&format!("pod-{name}"), Some(name), &["theirs"])
            .await?;
        stage
            .until_event(
                "VirtualMachineInstance",
                name,
                "BadVolumesAnnotation",
                words,
            )
            .await?;
        ensure!(
            stage.annotation(name).await? == Some(written.to_owned()),
            "it was changed"
        );
    }
    Ok(())
}

async fn second_machine_on_a_claim_is_refused_until_the_first_has_ended(
    plane: &mut Plane,
) -> anyhow::Result<()> {
    let stage = Stage::set(plane, "twice").await?;
    stage.claim("data", "csi.holdfast.dev").await?;
    stage
        .create(&machine("vm-1", &[("data", disk("virtio"))]))
        .await?;
    stage
        .create(&machine("vm-2", &[("data", disk("virtio"))]))
        .await?;
    let _gate = Loop::start(plane);
    stage.launcher("pod-1", Some("vm-1"), &["data"]).await?;
    stage.until_admitted("pod-1", "data").await?;

    stage.launcher("pod-2", Some("vm-2"), &["data"]).await?;
    let event = stage.until_event(
        "VirtualMachineInstance",
        "vm-2",
        "VolumeNotServed",
        "vm-1 has it",
    );
    event.await?;
    ensure!(stage.annotation("vm-2").await?.is_none());
    stage.remove_pod("pod-1").await?;

    stage.until_admitted("pod-2", "data").await
}

async fn pod_that_has_ended_and_machine_that_was_refused_hold_nothing(
    plane: &mut Plane,
) -> anyhow::Result<()> {
    let stage = Stage::set(plane, "nothing").await?;
    stage.claim("data", "csi.holdfast.dev").await?;
    for (name, bus) in [("refused", "sata"), ("ended", "virtio"), ("last", "virtio")] {
        stage.create(&machine(name, &[("data", disk(bus))])).await?;
    }
    let _gate = Loop::start(plane);
    stage
        .launcher("pod-refused", Some("refused"), &["data"])
        .await?;
    stage
        .until_event(
            "VirtualMachineInstance",
            "refused",
            "VolumeNotServed",
            "set bus",
        )
        .await?;
    stage
        .launcher("pod-ended", Some("ended"), &["data"])
        .await?;
    stage.until_admitted("pod-ended", "data").await?;
    stage.end_pod("pod-ended").await?;

    stage.launcher("pod-last", Some("last"), &["data"]).await?;
    stage.until_admitted("pod-last", "data").await
}

async fn claim_of_a_block_device_is_refused_with_events(plane: &mut Plane) -> anyhow::Result<()> {
    let stage = Stage::set(plane, "block").await?;
    stage.claim_as("data", "csi.holdfast.dev", "Block").await?;
    stage
        .create(&machine("vm", &[("data", disk("virtio"))]))
        .await?;
    let _gate = Loop::start(plane);
    stage.launcher("pod", Some("vm"), &["data"]).await?;
    for (kind, name) in [
        ("VirtualMachineInstance", "vm"),
        ("PersistentVolumeClaim", "data"),
    ] {
        stage
            .until_event(kind, name, "VolumeNotServed", "use Filesystem")
            .await?;
    }
    ensure!(stage.annotation("vm").await?.is_none());
    Ok(())
}

async fn pods_that_are_no_launchers_of_a_machine(plane: &mut Plane) -> anyhow::Result<()> {
    let stage = Stage::set(plane, "others").await?;
    stage.claim("data", "csi.holdfast.dev").await?;
    let _gate = Loop::start(plane);
    stage.launcher("ownerless", None, &["data"]).await?;
    stage
        .pod(
            "hp-volume-x",
            json!({"kubevirt.io": "hotplug-disk"}),
            None,
            &["data"],
        )
        .await?;
    stage.pod("plain", json!({}), None, &["data"]).await?;
    stage
        .launcher("early", Some("not-there"), &["data"])
        .await?;

    let refusal = stage.admit("ownerless", "data").await.unwrap_err();
    ensure!(
        matches!(refusal, Refusal::NoMachine { .. }) && !refusal.may_pass(),
        "{refusal}"
    );
    let refusal = stage.admit("hp-volume-x", "data").await.unwrap_err();
    ensure!(
        matches!(refusal, Refusal::Hotplug { .. }) && !refusal.may_pass(),
        "{refusal}"
    );
    let refusal = stage.admit("early", "data").await.unwrap_err();
    ensure!(
        matches!(refusal, Refusal::Gone { .. }) && refusal.may_pass(),
        "{refusal}"
    );
    let machine = stage.admit("plain", "data").await.context("a plain pod")?;
    ensure!(machine.is_none(), "{machine:?}");
    Ok(())
}

async fn pod_without_a_node_is_not_looked_at(plane: &mut Plane) -> anyhow::Result<()> {
    let stage = Stage::set(plane, "unplaced").await?;
    for name in ["data", "later"] {
        stage.claim(name, "csi.holdfast.dev").await?;
    }
    stage
        .create(&machine("vm-1", &[("data", disk("virtio"))]))
        .await?;
    stage
        .create(&machine("vm-2", &[("later", disk("virtio"))]))
        .await?;
    let _gate = Loop::start(plane);
    stage.unplaced_launcher("pod-1", "vm-1", &["data"]).await?;
    // By then the loop has seen the first pod for long, too.
    stage.launcher("pod-2", Some("vm-2"), &["later"]).await?;
    stage.until_admitted("pod-2", "later").await?;

    ensure!(
        stage.annotation("vm-1").await?.is_none(),
        "its claims need not be bound yet"
    );
    stage.place("pod-1").await?;
    stage.until_admitted("pod-1", "data").await
}

async fn watch_that_fails_is_counted_and_begins_again(plane: &mut Plane) -> anyhow::Result<()> {
    let stage = Stage::set(plane, "watch").await?;
    stage.claim("data", "csi.holdfast.dev").await?;
    stage
        .create(&machine("vm", &[("data", disk("virtio"))]))
        .await?;
    let failures = Arc::new(AtomicU64::new(0));
    let _gate = Loop::counting(plane, Arc::clone(&failures));
    plane.stop_api()?;
    let counted = until("the failure is counted", PATIENCE, || async {
        let count = failures.load(Ordering::Relaxed);
        Ok(if count > 0 {
            Ok(())
        } else {
            Err(format!("{count} so far"))
        })
    })
    .await;
    plane.start_api().await?;
    counted?;

    stage.launcher("pod", Some("vm"), &["data"]).await?;
    stage.until_admitted("pod", "data").await
}

async fn time_from_pod_to_admission_is_measured(plane: &mut Plane) -> anyhow::Result<()> {
    const MACHINES: usize = 30;
    let stage = Stage::set(plane, "time").await?;
    let _gate = Loop::start(plane);
    let mut times = Vec::new();
    for number in 0..MACHINES {
        let (vm, claim) = (format!("vm-{number}"), format!("claim-{number}"));
        stage.claim(&claim, "csi.holdfast.dev").await?;
        stage
            .create(&machine(&vm, &[(claim.as_str(), disk("virtio"))]))
            .await?;
        let started = Instant::now();
        stage
            .launcher(&format!("pod-{number}"), Some(&vm), &[claim.as_str()])
            .await?;
        stage
            .until_admitted(&format!("pod-{number}"), &claim)
            .await?;
        times.push(started.elapsed());
    }
    times.sort_unstable();
    let (median, p99) = (times[MACHINES / 2], times[MACHINES * 99 / 100]);
    println!("pod created to volume admitted: median {median:?}, p99 {p99:?} of {MACHINES}");
    // Kubelet's first retry comes after 500 ms; a gate slower than its patience would be no gate.
    ensure!(median < Duration::from_secs(5), "median {median:?}");
    Ok(())
}
