//! `holdfast node` on a real API server: it serves without it, keeps what lost its object, and leaves other nodes alone.
#![forbid(unsafe_code)]

#[path = "node/agent.rs"]
mod agent;
#[path = "node/crashes.rs"]
mod crashes;
#[path = "node/lists.rs"]
mod lists;

use agent::{Agent, PATIENCE, edit, holds, install, pool, store, until_object, volume};
use anyhow::{Context, ensure};
use crashes::{
    agent_killed_at_each_place_of_a_volumes_life_goes_on,
    agent_killed_at_each_place_of_an_orphans_life_goes_on, each_place_of_the_agent_is_tried,
};
use holdfast_api::{
    BlockPool, OrphanExtent, Qos, SplitVolume, VolumeSession, VolumeSessionSpec, conditions,
    events, orphan_name,
};
use holdfast_cluster::{Plane, until};
use holdfast_store::{KubeStore, Store};
use holdfast_testkit::frontend::{Guest, Layout, Op, status};
use k8s_openapi::api::events::v1::Event;
use kube::api::{Api, ListParams};
use lists::volume_that_comes_has_no_other_kind_listed;
use std::path::Path;

holdfast_cluster::tests!(
    volume_is_served_and_what_happens_is_told,
    agent_that_starts_without_the_api_server_serves_the_same_sessions,
    volume_that_lost_its_object_is_kept_and_taken_over,
    orphan_that_a_person_deletes_is_erased,
    second_agent_of_a_node_waits_for_the_first,
    objects_of_another_node_are_left_alone,
    limits_are_changed_while_a_machine_runs,
    volume_that_comes_has_no_other_kind_listed,
    each_place_of_the_agent_is_tried,
    agent_killed_at_each_place_of_a_volumes_life_goes_on,
    agent_killed_at_each_place_of_an_orphans_life_goes_on,
);

/// Bytes of the volumes here.
const SIZE: u64 = 16 << 20;
const BLOCK: usize = 4096;

/// A node of its own with a pool and a volume that is ready.
async fn node_with_volume(plane: &Plane, node: &str) -> anyhow::Result<(KubeStore, Agent)> {
    install(plane)?;
    let store = store(plane);
    let agent = Agent::start(plane, node).await?;
    store.create(pool(&agent, node)).await?;
    store.create(volume(node, node, SIZE)).await?;
    until_object::<SplitVolume>(&store, node, |v| holds(v, conditions::READY)).await?;
    Ok((store, agent))
}

/// A machine on the volume of a node.
async fn machine(store: &KubeStore, agent: &Agent, node: &str) -> anyhow::Result<Guest> {
    agent.stage(node).await?;
    connect(store, node).await
}

/// A machine on a volume that is staged.
async fn connect(store: &KubeStore, volume: &str) -> anyhow::Result<Guest> {
    let session = store.get::<VolumeSession>(volume).await?;
    let session = session.context("a staged volume has a session")?;
    let socket = session.status.context("and a status")?.socket_path;
    let guest = Guest::builder().queues(1).queue_size(128).inflight();
    Ok(guest.deadline(PATIENCE).connect(Path::new(&socket))?)
}

fn write(guest: &mut Guest, with: u8) -> anyhow::Result<()> {
    let data = vec![with; BLOCK];
    let write = Op::Write { offset: 0, data };
    guest.queue(0).submit(write, Layout::DIRECT)?;
    let done = guest.queue(0).drain()?;
    ensure!(done[0].status == status::OK, "{:?}", done[0]);
    Ok(())
}

fn read(guest: &mut Guest) -> anyhow::Result<Vec<u8>> {
    let len = u32::try_from(BLOCK)?;
    let read = Op::Read { offset: 0, len };
    guest.queue(0).submit(read, Layout::DIRECT)?;
    let done = guest.queue(0).drain()?;
    ensure!(done[0].status == status::OK, "{:?}", done[0]);
    Ok(done[0].data.clone())
}

/// Waits for an event of this reason about an object.
async fn until_event(plane: &Plane, reason: &str, name: &str) -> anyhow::Result<Event> {
    let api: Api<Event> = Api::all(plane.client());
    until(reason, PATIENCE, async || {
        let all = api.list(&ListParams::default()).await?.items;
        let is_it = |event: &Event| {
            let about = event
                .regarding
                .as_ref()
                .and_then(|about| about.name.as_deref());
            event.reason.as_deref() == Some(reason) && about == Some(name)
        };
        Ok(all
            .into_iter()
            .find(is_it)
            .ok_or_else(|| "no such event".to_owned()))
    })
    .await
}

async fn volume_is_served_and_what_happens_is_told(plane: &mut Plane) -> anyhow::Result<()> {
    let node = "told";
    let (store, agent) = node_with_volume(plane, node).await?;
    let mut guest = machine(&store, &agent, node).await?;
    write(&mut guest, 7)?;
    ensure!(read(&mut guest)? == [7; BLOCK]);
    for reason in [
        events::POOL_READY,
        events::ALLOCATED,
        events::EXPORTED,
        events::GUEST_CONNECTED,
    ] {
        until_event(plane, reason, node).await?;
    }
    until_object::<VolumeSession>(&store, node, |s| holds(s, conditions::CONNECTED)).await?;
    let metrics = agent.http("/metrics")?;
    let sample = format!(
        "holdfast_volume_write_ops_total{{node=\"{node}\",pool=\"{node}\",volume=\"{node}\"}} 1"
    );
    ensure!(metrics.contains(&sample), "{metrics}");
    ensure!(agent.http("/healthz")?.contains("200 OK"));
    ensure!(agent.http("/readyz")?.contains("200 OK"));
    Ok(())
}

async fn agent_that_starts_without_the_api_server_serves_the_same_sessions(
    plane: &mut Plane,
) -> anyhow::Result<()> {
    let node = "alone";
    let (store, mut agent) = node_with_volume(plane, node).await?;
    let mut guest = machine(&store, &agent, node).await?;
    write(&mut guest, 42)?;
    until_object::<VolumeSession>(&store, node, |s| holds(s, conditions::CONNECTED)).await?;
    agent.kill()?;
    plane.stop_api()?;
    guest.disconnect();

    agent.start_again(plane)?;
    agent.until_ready().await?;
    guest.reconnect()?;
    ensure!(read(&mut guest)? == [42; BLOCK]);
    write(&mut guest, 43)?;

    plane.start_api().await?;
    until_object::<VolumeSession>(&store, node, |s| holds(s, conditions::CONNECTED)).await?;
    store.create(volume("alone-2", node, SIZE)).await?;
    until_object::<SplitVolume>(&store, "alone-2", |v| holds(v, conditions::READY)).await?;
    ensure!(read(&mut guest)? == [43; BLOCK]);
    Ok(())
}

/// Takes an object away without asking the agent, as a restore of an older database does.
async fn lose(store: &KubeStore, name: &str) -> anyhow::Result<()> {
    edit::<SplitVolume>(store, name, |volume| volume.metadata.finalizers = None).await?;
    store.delete::<SplitVolume>(name).await?;
    Ok(())
}

async fn orphan_of(store: &KubeStore, node: &str) -> anyhow::Result<OrphanExtent> {
    let name = orphan_name(node, node);
    until_object::<OrphanExtent>(store, &name, |_| true).await
}

async fn until_no_orphan(store: &KubeStore, node: &str) -> anyhow::Result<()> {
    let name = orphan_name(node, node);
    until("the orphan is gone", PATIENCE, async || {
        let found = store.get::<OrphanExtent>(&name).await?;
        Ok(found.map_or(Ok(()), |found| Err(format!("{found:?}"))))
    })
    .await
}

async fn volume_that_lost_its_object_is_kept_and_taken_over(
    plane: &mut Plane,
) -> anyhow::Result<()> {
    let node = "adopter";
    let (store, mut agent) = node_with_volume(plane, node).await?;
    let mut guest = machine(&store, &agent, node).await?;
    write(&mut guest, 9)?;
    drop(guest);
    agent.unstage(node).await?;
    agent.kill()?;
    // Both while the agent is away: it may not have seen the object go. Its finalizer would come back otherwise.
    lose(&store, node).await?;
    agent.start_again(plane)?;
    let orphan = orphan_of(&store, node).await?;
    ensure!(orphan.spec.volume_id == node);
    until_event(plane, events::ORPHAN_DETECTED, &orphan_name(node, node)).await?;

    store.create(volume(node, node, SIZE)).await?;
    until_object::<SplitVolume>(&store, node, |v| holds(v, conditions::READY)).await?;
    until_no_orphan(&store, node).await?;
    let mut guest = machine(&store, &agent, node).await?;
    ensure!(read(&mut guest)? == [9; BLOCK], "it has its data");
    Ok(())
}

async fn orphan_that_a_person_deletes_is_erased(plane: &mut Plane) -> anyhow::Result<()> {
    let node = "eraser";
    let (store, mut agent) = node_with_volume(plane, node).await?;
    agent.kill()?;
    lose(&store, node).await?;
    agent.start_again(plane)?;
    let orphan = orphan_of(&store, node).await?;
    store
        .delete::<OrphanExtent>(&orphan_name(node, node))
        .await?;
    until_no_orphan(&store, node).await?;
    ensure!(orphan.spec.pool == node);
    let is_empty = |pool: &BlockPool| {
        let status = pool.status.as_ref();
        status.is_some_and(|status| status.free_bytes == status.capacity_bytes)
    };
    until_object::<BlockPool>(&store, node, is_empty).await?;
    Ok(())
}

async fn second_agent_of_a_node_waits_for_the_first(plane: &mut Plane) -> anyhow::Result<()> {
    let node = "twice";
    let (store, mut first) = node_with_volume(plane, node).await?;
    let mut second = first.twin(plane)?;
    until("it says why it waits", PATIENCE, async || {
        let said = second.said();
        let waits = said.contains("Another agent of this node runs");
        Ok(waits.then_some(()).ok_or(said))
    })
    .await?;
    first.stage(node).await?; // The first is not disturbed.
    let pool = store.get::<BlockPool>(node).await?.context("the pool")?;
    ensure!(holds(&pool, conditions::READY), "{pool:?}");
    ensure!(!second.said().contains("Ready"), "{}", second.said());
    first.kill()?;
    second.until_ready().await?;
    let session = store
        .get::<VolumeSession>(node)
        .await?
        .context("the session")?;
    ensure!(holds(&session, conditions::EXPORTED), "{session:?}");
    second.kill()
}

async fn objects_of_another_node_are_left_alone(plane: &mut Plane) -> anyhow::Result<()> {
    let node = "ours";
    install(plane)?;
    let theirs = store(plane);
    let agent = Agent::start(plane, node).await?;
    let elsewhere = "theirs";
    theirs.create(pool(&agent, elsewhere)).await?;
    theirs.create(volume(elsewhere, elsewhere, SIZE)).await?;
    let spec = VolumeSessionSpec {
        volume: elsewhere.into(),
        node_name: elsewhere.into(),
        queues: 1,
        ..Default::default()
    };
    theirs.create(VolumeSession::new(elsewhere, spec)).await?;
    // Ours, made afterwards and served, shows that theirs have been passed over.
    theirs.create(pool(&agent, node)).await?;
    theirs.create(volume(node, node, SIZE)).await?;
    until_object::<SplitVolume>(&theirs, node, |v| holds(v, conditions::READY)).await?;
    agent.stage(node).await?;
    let pool = theirs.get::<BlockPool>(elsewhere).await?.context("pool")?;
    let volume = theirs
        .get::<SplitVolume>(elsewhere)
        .await?
        .context("volume")?;
    let session = theirs
        .get::<VolumeSession>(elsewhere)
        .await?
        .context("session")?;
    ensure!((pool.status, volume.status, session.status) == (None, None, None));
    ensure!(volume.metadata.finalizers.is_none());
    let refused = agent.stage(elsewhere).await;
    ensure!(refused.is_err(), "staged a volume of another node");
    Ok(())
}

async fn limits_are_changed_while_a_machine_runs(plane: &mut Plane) -> anyhow::Result<()> {
    let node = "limited";
    let (store, agent) = node_with_volume(plane, node).await?;
    let mut guest = machine(&store, &agent, node).await?;
    let qos = Qos {
        iops: Some(100),
        ..Qos::default()
    };
    edit::<SplitVolume>(&store, node, |volume| volume.spec.qos = Some(qos)).await?;
    until_object::<SplitVolume>(&store, node, |v| holds(v, conditions::LIMITED)).await?;
    let start = std::time::Instant::now();
    for round in 0..50 {
        write(&mut guest, round)?;
    }
    let took = start.elapsed();
    ensure!(
        took.as_millis() > 300,
        "50 requests at 100 a second took {took:?}"
    );
    edit::<SplitVolume>(&store, node, |volume| volume.spec.qos = None).await?;
    let unlimited = |volume: &SplitVolume| {
        let status = volume.status.as_ref();
        status.map(|status| status.observed_generation) == volume.metadata.generation
            && !holds(volume, conditions::LIMITED)
    };
    until_object::<SplitVolume>(&store, node, unlimited).await?;
    write(&mut guest, 1)
}
