//! What an agent asks of the API server when something happens: that, and not everything.

use crate::agent::{holds, until_object, volume};
use crate::{SIZE, node_with_volume};
use anyhow::{Context, ensure};
use holdfast_api::{SplitVolume, conditions};
use holdfast_cluster::Plane;
use holdfast_store::Store;

const MANY: usize = 5;

/// How often all objects of a kind were listed.
fn lists(plane: &Plane, resource: &str) -> anyhow::Result<u64> {
    let figures = plane.kubectl(&["get", "--raw", "/metrics"])?;
    let of_kind = format!("resource=\"{resource}\"");
    let counters = figures.lines().filter(|line| {
        line.starts_with("apiserver_request_total{")
            && line.contains(&of_kind)
            && line.contains("verb=\"LIST\"")
    });
    let counts = counters.map(|line| {
        let count = line.rsplit(' ').next().context("a counter has a value")?;
        Ok(count.parse::<u64>()?) // Below a million, which is written with an exponent.
    });
    counts.sum()
}

pub(crate) async fn volume_that_comes_has_no_other_kind_listed(
    plane: &mut Plane,
) -> anyhow::Result<()> {
    let node = "thrifty";
    let (store, _agent) = node_with_volume(plane, node).await?;
    let seen = |plane: &Plane| -> anyhow::Result<_> {
        Ok((
            lists(plane, "splitvolumes")?,
            lists(plane, "volumesessions")?,
        ))
    };
    let before = seen(plane)?;
    for number in 0..MANY {
        let name = format!("{node}-{number}");
        store.create(volume(&name, node, SIZE)).await?;
        until_object::<SplitVolume>(&store, &name, |v| holds(v, conditions::READY)).await?;
    }
    let after = seen(plane)?;
    println!("{MANY} volumes: lists of volumes and of sessions {before:?}, then {after:?}");
    ensure!(after.0 > before.0, "nothing is counted");
    ensure!(after.1 == before.1, "sessions were listed, and none came");
    Ok(())
}
