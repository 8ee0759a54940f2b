//! The agent is killed at each named place, most of them between the drive and the API server, and started again as kubelet
//! does. Then there is one volume of the right size with its data, nothing is left over, and the books are the drive's.

use crate::agent::{Agent, PATIENCE, edit, holds, install, pool, store, volume};
use crate::{connect, lose, read, write};
use anyhow::{Context, ensure};
use futures::stream::{self, StreamExt, TryStreamExt};
use holdfast_api::{BlockPool, OrphanExtent, SplitVolume, conditions, orphan_name, quantity};
use holdfast_cluster::{Plane, until};
use holdfast_guest::kit::workspace;
use holdfast_store::{KubeStore, Object, Store};
use serde_json::Value;
use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::process::Command;

/// Where it dies in the life of a volume.
const OF_A_VOLUME: &[&str] = &[
    "pool.taken",
    "volume.wanted",
    "volume.allocated",
    "session.exported",
    "volume.grown",
    "session.ended",
    "session.removed",
    "volume.released",
    "erase.chosen",
    "erase.zeroed",
];
/// Where it dies while a volume has no object.
const OF_AN_ORPHAN: &[&str] = &[
    "orphan.recorded",
    "volume.adopted",
    "orphan.marked",
    "orphan.released",
];

/// Bytes of a volume.
const SIZE: u64 = 16 << 20;
const BLOCK: usize = 4096;
/// What the machines write.
const OURS: u8 = 7;
const BYSTANDERS: u8 = 9;
/// Lives side by side; each mostly waits.
const SIDE_BY_SIDE: usize = 4;

pub(crate) async fn each_place_of_the_agent_is_tried(_: &mut Plane) -> anyhow::Result<()> {
    let mut found = BTreeSet::new();
    named_in(&workspace().join("node-plugin/src"), &mut found)?;
    let tried = [OF_A_VOLUME, OF_AN_ORPHAN].concat();
    let untried: Vec<_> = found
        .iter()
        .filter(|name| !tried.contains(&name.as_str()))
        .collect();
    ensure!(untried.is_empty(), "never died at {untried:?}");
    ensure!(found.len() >= 12, "only {found:?}");
    Ok(())
}

fn named_in(dir: &Path, found: &mut BTreeSet<String>) -> anyhow::Result<()> {
    for entry in fs::read_dir(dir)? {
        let path = entry?.path();
        if path.is_dir() {
            named_in(&path, found)?;
            continue;
        }
        let text = fs::read_to_string(&path)?;
        let names = text.split("crash_point!(\"").skip(1);
        found.extend(names.filter_map(|rest| Some(rest.split_once('"')?.0.to_owned())));
    }
    Ok(())
}

pub(crate) async fn agent_killed_at_each_place_of_a_volumes_life_goes_on(
    plane: &mut Plane,
) -> anyhow::Result<()> {
    install(plane)?;
    at_each(OF_A_VOLUME, |place| live(plane, place)).await
}

pub(crate) async fn agent_killed_at_each_place_of_an_orphans_life_goes_on(
    plane: &mut Plane,
) -> anyhow::Result<()> {
    install(plane)?;
    at_each(OF_AN_ORPHAN, |place| live_without_object(plane, place)).await
}

async fn at_each<F: Future<Output = anyhow::Result<()>>>(
    places: &[&'static str],
    live: impl Fn(&'static str) -> F,
) -> anyhow::Result<()> {
    let lives = places.iter().map(|place| {
        let life = live(place);
        async move { life.await.with_context(|| format!("killed at {place}")) }
    });
    stream::iter(lives)
        .buffer_unordered(SIDE_BY_SIDE)
        .try_collect()
        .await
}

/// Made, used, made larger, given up.
async fn live(plane: &Plane, place: &'static str) -> anyhow::Result<()> {
    let mut life = Life::begin(plane, place).await?;
    let name = life.ours();
    life.make(&name).await?;
    life.leave(&name, OURS).await?;
    edit::<SplitVolume>(&life.store, &name, |volume| {
        volume.spec.size = quantity(2 * SIZE);
    })
    .await?;
    life.until::<SplitVolume>(&name, |found| size_of(found) == Some(2 * SIZE))
        .await?;
    life.still_has(&name, OURS).await?;
    life.unstage(&name).await?;
    life.store.delete::<SplitVolume>(&name).await?;
    life.until::<SplitVolume>(&name, |found| found.is_none())
        .await?;
    life.end().await
}

/// Its object is lost and made again, and lost once more for good.
async fn live_without_object(plane: &Plane, place: &'static str) -> anyhow::Result<()> {
    let mut life = Life::begin(plane, place).await?;
    let name = life.ours();
    let orphan = orphan_name(&life.node, &name);
    life.make(&name).await?;
    life.leave(&name, OURS).await?;
    life.unstage(&name).await?;
    life.lose(&name).await?;
    life.until::<OrphanExtent>(&orphan, |found| found.is_some())
        .await?;
    life.make(&name).await?;
    life.until::<OrphanExtent>(&orphan, |found| found.is_none())
        .await?;
    life.still_has(&name, OURS).await?;
    life.unstage(&name).await?;
    life.lose(&name).await?;
    life.until::<OrphanExtent>(&orphan, |found| found.is_some())
        .await?;
    life.store.delete::<OrphanExtent>(&orphan).await?;
    life.until::<OrphanExtent>(&orphan, |found| found.is_none())
        .await?;
    life.end().await
}

fn size_of(volume: Option<&SplitVolume>) -> Option<u64> {
    volume?.status.as_ref().map(|status| status.size_bytes)
}

/// A node of its own, whose agent dies once; and a volume beside the one it is about.
struct Life<'a> {
    plane: &'a Plane,
    store: KubeStore,
    agent: Agent,
    node: String,
}

impl Life<'_> {
    async fn begin<'a>(plane: &'a Plane, place: &'static str) -> anyhow::Result<Life<'a>> {
        let node = place.replace('.', "-");
        let agent = Agent::start_to_die(plane, &node, place).await?;
        let store = store(plane);
        store.create(pool(&agent, &node)).await?;
        let mut life = Life {
            plane,
            store,
            agent,
            node,
        };
        let bystander = life.bystander();
        life.make(&bystander).await?;
        life.leave(&bystander, BYSTANDERS).await?;
        Ok(life)
    }

    fn ours(&self) -> String {
        format!("{}-ours", self.node)
    }

    fn bystander(&self) -> String {
        format!("{}-bystander", self.node)
    }

    /// Waits until an object is as it should be; an agent that dies meanwhile is started again.
    async fn until<K: Object>(
        &mut self,
        name: &str,
        is_right: impl Fn(Option<&K>) -> bool,
    ) -> anyhow::Result<()> {
        let (plane, store, agent) = (self.plane, &self.store, &mut self.agent);
        let is_right = &is_right;
        until(name, PATIENCE, || {
            let alive = agent.tend(plane);
            async move {
                alive?;
                let found = store.get::<K>(name).await?;
                Ok(is_right(found.as_ref())
                    .then_some(())
                    .ok_or_else(|| format!("{found:?}")))
            }
        })
        .await
    }

    async fn make(&mut self, name: &str) -> anyhow::Result<()> {
        self.store.create(volume(name, &self.node, SIZE)).await?;
        self.until::<SplitVolume>(name, |found| {
            found.is_some_and(|found| holds(found, conditions::READY))
        })
        .await
    }

    async fn stage(&mut self, volume: &str) -> anyhow::Result<()> {
        let (plane, agent) = (self.plane, &mut self.agent);
        until("the volume is staged", PATIENCE, || {
            let alive = agent.tend(plane);
            let call = agent.staging(volume);
            async move {
                alive?;
                Ok(call.await.map_err(|why| why.to_string()))
            }
        })
        .await?;
        self.agent.until_ready().await
    }

    async fn unstage(&mut self, volume: &str) -> anyhow::Result<()> {
        let (plane, agent) = (self.plane, &mut self.agent);
        until("the volume is unstaged", PATIENCE, || {
            let alive = agent.tend(plane);
            let call = agent.unstage(volume);
            async move {
                alive?;
                Ok(call.await.map_err(|why| why.to_string()))
            }
        })
        .await
    }

    /// A machine writes, and goes.
    async fn leave(&mut self, volume: &str, what: u8) -> anyhow::Result<()> {
        self.stage(volume).await?;
        write(&mut connect(&self.store, volume).await?, what)
    }

    async fn still_has(&mut self, volume: &str, what: u8) -> anyhow::Result<()> {
        self.stage(volume).await?;
        let found = read(&mut connect(&self.store, volume).await?)?;
        ensure!(found == [what; BLOCK], "{volume} has not its data");
        Ok(())
    }

    /// Takes the object away while no agent runs: one that sees it without its finalizer puts that back.
    async fn lose(&mut self, volume: &str) -> anyhow::Result<()> {
        self.agent.tend(self.plane)?;
        self.agent.kill()?;
        lose(&self.store, volume).await?;
        self.agent.start_again(self.plane)
    }

    /// Only the bystander is left, with its data: for people, and on the drive.
    async fn end(mut self) -> anyhow::Result<()> {
        let (node, bystander) = (self.node.clone(), self.bystander());
        let is_settled = |pool: Option<&BlockPool>| {
            let status = pool.and_then(|pool| pool.status.as_ref());
            status.is_some_and(|s| {
                (s.volumes, s.allocated_bytes, s.erase_pending_bytes) == (1, SIZE, 0)
            })
        };
        self.until::<BlockPool>(&node, is_settled).await?;
        ensure!(self.agent.deaths() == 1, "it never came by that place");
        self.still_has(&bystander, BYSTANDERS).await?;
        let orphans = self.store.list::<OrphanExtent>().await?;
        let left = orphans.iter().find(|orphan| orphan.spec.node_name == node);
        ensure!(left.is_none(), "{left:?}");
        let pool = self.store.get::<BlockPool>(&node).await?;
        let told = pool.and_then(|pool| pool.status).context("a status")?;
        self.agent.kill()?;
        let drive = inspect(&self.agent.drive())?;
        let volumes = drive["volumes"].as_array().context("volumes")?;
        ensure!(volumes.len() == 1, "{drive:#}");
        ensure!(
            volumes[0]["id"] == bystander && volumes[0]["sizeBytes"] == SIZE,
            "{drive:#}"
        );
        ensure!(drive["pending"] == Value::Array(Vec::new()), "{drive:#}");
        ensure!(drive["allocatedBytes"] == SIZE, "{drive:#}");
        ensure!(
            drive["freeBytes"] == told.free_bytes && told.free_bytes == told.capacity_bytes - SIZE,
            "{told:?} of {drive:#}"
        );
        Ok(())
    }
}

/// What is on a drive that nobody uses.
fn inspect(drive: &Path) -> anyhow::Result<Value> {
    let mut command = Command::new(holdfast_guest::holdfast()?);
    let output = command
        .args(["pool", "inspect", "--output", "json"])
        .arg(drive)
        .output()?;
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "{said}");
    let report: Value = serde_json::from_slice(&output.stdout)?;
    Ok(report["pool"].clone())
}
