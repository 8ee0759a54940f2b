//! A volume's whole life in a cluster, as its user sees it: from a claim to erased space.
#![forbid(unsafe_code)]

use anyhow::{Context, ensure};
use holdfast_api::{SplitVolume, events, parse_quantity};
use holdfast_cluster::lab::{Machine, PATIENCE, POOL_BYTES};
use holdfast_cluster::{Lab, until};
use kube::api::{Patch, PatchParams};
use serde_json::json;
use std::collections::BTreeSet;
use std::time::{Duration, Instant};

holdfast_cluster::tests!(on Lab:
    claim_becomes_a_disk_and_ends_as_erased_space,
    claims_are_bound_within_seconds,
    node_is_chosen_by_its_free_space,
    race_for_the_last_space_sends_the_loser_elsewhere,
    what_happens_to_a_volume_is_told,
);

const MIB: u64 = 1 << 20;

async fn claim_becomes_a_disk_and_ends_as_erased_space(lab: &mut Lab) -> anyhow::Result<()> {
    let run = lab.run("whole", "64Mi", None).await?;
    let socket = lab.node(&run.node)?.socket(&run.uid, &run.volume)?;
    let mut machine = Machine::boot(&socket)?;
    ensure!(machine.disk_bytes()? == 64 * MIB);
    machine.work(0..32 * MIB, 2_000)?;

    resize(lab, "whole", "96Mi").await?;
    ensure!(
        machine.disk_bytes()? == 96 * MIB,
        "the machine does not see the new size"
    );
    machine.work(64 * MIB..96 * MIB, 2_000)?;

    let quick = machine.time_reads(300)?;
    change_class(lab, "whole", "slow").await?;
    let slow = machine.time_reads(300)?;
    println!("300 reads take {quick:?} without limit, and {slow:?} at 100 a second");
    // At least one second of the three is no burst.
    ensure!(
        slow > Duration::from_secs(1),
        "the class limits nothing: {slow:?}"
    );

    let mark = machine.leave_mark()?;
    machine.shut_down();
    ensure!(
        lab.node(&run.node)?.pool_holds(&mark)?,
        "the mark never reached the pool"
    );
    lab.remove("whole").await?;
    lab.until_empty().await?;
    ensure!(
        !lab.node(&run.node)?.pool_holds(&mark)?,
        "deleted data is still on the pool"
    );
    Ok(())
}

async fn resize(lab: &Lab, name: &str, size: &str) -> anyhow::Result<()> {
    let wanted = parse_quantity(size)?;
    let patch = json!({ "spec": { "resources": { "requests": { "storage": size } } } });
    change(lab, name, &patch).await?;
    until("the claim has its new size", PATIENCE, || async {
        let status = lab.claims().get(name).await?.status.unwrap_or_default();
        let capacity = status.capacity.unwrap_or_default();
        let has = capacity.get("storage").map(|size| parse_quantity(&size.0));
        let grown = has == Some(Ok(wanted));
        Ok(grown
            .then_some(())
            .ok_or_else(|| format!("{capacity:?} {:?}", status.conditions)))
    })
    .await
}

/// Kept loose: the oldest client types do not know the class yet.
async fn change_class(lab: &Lab, name: &str, class: &str) -> anyhow::Result<()> {
    change(
        lab,
        name,
        &json!({ "spec": { "volumeAttributesClassName": class } }),
    )
    .await?;
    let path = "jsonpath={.status.currentVolumeAttributesClassName}";
    until("the claim has its new class", PATIENCE, || async {
        let has = lab
            .plane
            .kubectl(&["get", "persistentvolumeclaim", name, "-o", path])?;
        Ok((has == class).then_some(()).ok_or(has))
    })
    .await
}

async fn change(lab: &Lab, name: &str, patch: &serde_json::Value) -> anyhow::Result<()> {
    let patch = Patch::Merge(patch);
    lab.claims()
        .patch(name, &PatchParams::default(), &patch)
        .await?;
    Ok(())
}

async fn claims_are_bound_within_seconds(lab: &mut Lab) -> anyhow::Result<()> {
    const ROUNDS: usize = 9;
    let mut times = Vec::new();
    for round in 0..ROUNDS {
        let name = format!("round-{round}");
        let since = Instant::now();
        lab.claim(&name, "8Mi").await?;
        lab.pod(&name, None).await?;
        lab.until_bound(&name).await?;
        times.push(since.elapsed());
    }
    for round in 0..ROUNDS {
        lab.remove(&format!("round-{round}")).await?;
    }
    times.sort();
    let (median, longest) = (times[ROUNDS / 2], times[ROUNDS - 1]);
    println!(
        "from claim to bound volume: median {median:.2?}, longest {longest:.2?}, {ROUNDS} rounds"
    );
    ensure!(
        median < bound_within()?,
        "claims take {median:?} to be bound"
    );
    lab.until_empty().await
}

/// The promise is for a machine that is not busy with other things; a loaded one gets as many times longer.
fn bound_within() -> anyhow::Result<Duration> {
    let load = std::fs::read_to_string("/proc/loadavg")?;
    let load: f64 = load.split(' ').next().context("a load")?.parse()?;
    let cores = std::thread::available_parallelism()?.get();
    Ok(Duration::from_millis(1500).mul_f64((load / cores as f64).max(1.0)))
}

async fn node_is_chosen_by_its_free_space(lab: &mut Lab) -> anyhow::Result<()> {
    lab.run("big", "160Mi", Some("n1")).await?;
    // Larger than what is left of n1, smaller than n2's pool.
    let second = lab.run("second", "128Mi", None).await?;
    ensure!(
        second.node == "n2",
        "placed on {}, which has no room",
        second.node
    );
    lab.remove("big").await?;
    lab.remove("second").await?;
    lab.until_empty().await
}

async fn race_for_the_last_space_sends_the_loser_elsewhere(lab: &mut Lab) -> anyhow::Result<()> {
    // Either node has room for one of them only, and the scheduler may send both to the same.
    let size = format!("{}Mi", POOL_BYTES / MIB * 5 / 8);
    for name in ["one", "other"] {
        lab.claim(name, &size).await?;
    }
    for name in ["one", "other"] {
        lab.pod(name, None).await?;
    }
    let (one, other) = (
        lab.until_running("one").await?,
        lab.until_running("other").await?,
    );
    ensure!(one.node != other.node, "both on {}", one.node);
    let volumes: BTreeSet<_> = lab.volumes().await?.iter().map(name_of).collect();
    ensure!(
        volumes == BTreeSet::from([one.volume, other.volume]),
        "left over: {volumes:?}"
    );
    lab.remove("one").await?;
    lab.remove("other").await?;
    lab.until_empty().await
}

fn name_of(volume: &SplitVolume) -> String {
    kube::ResourceExt::name_any(volume)
}

async fn what_happens_to_a_volume_is_told(lab: &mut Lab) -> anyhow::Result<()> {
    let run = lab.run("told", "32Mi", Some("n1")).await?;
    let volume = &run.volume;
    let socket = lab.node("n1")?.socket(&run.uid, volume)?;
    let machine = Machine::boot(&socket)?;
    resize(lab, "told", "64Mi").await?;
    lab.until_told(events::EXPANDED, volume).await?;
    let too_much = json!({ "spec": { "resources": { "requests": { "storage": "1Gi" } } } });
    change(lab, "told", &too_much).await?;
    lab.until_told(events::EXPAND_FAILED, volume).await?;
    machine.shut_down();
    lab.until_told(events::GUEST_DISCONNECTED, volume).await?;
    lab.node("n1")?.agent().kill()?;
    lab.restart_agent("n1").await?;
    lab.until_told(events::RE_EXPORTED, volume).await?;
    lab.remove("told").await?;
    lab.until_told(events::ERASE_STARTED, volume).await?;
    lab.until_empty().await
}
