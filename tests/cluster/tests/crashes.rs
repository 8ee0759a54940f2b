//! One part of the cluster dies at each step of a volume's life, and comes back: nothing is lost, nothing is left over.
#![forbid(unsafe_code)]

use anyhow::{Context, ensure};
use holdfast_api::{SplitVolume, VolumeSession, conditions, events, is_true, reasons};
use holdfast_cluster::lab::{Machine, PATIENCE, Running};
use holdfast_cluster::{Lab, until};
use kube::ResourceExt;
use kube::api::{Api, DeleteParams, ListParams};
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

holdfast_cluster::tests!(on Lab:
    controller_killed_at_each_step_finishes_when_it_is_back,
    agent_killed_at_each_step_finishes_when_it_is_back,
    api_server_killed_at_each_step_is_waited_for,
    volume_written_before_the_controller_died_is_joined_not_made_twice,
    volume_unseen_by_a_killed_agent_is_made_by_its_successor,
    agent_started_without_api_server_serves_what_it_served,
    refusal_that_a_dead_controller_never_heard_is_cleared_by_the_next,
    session_deleted_while_the_agent_is_down_is_served_until_it_is_unpublished,
    controller_asked_to_end_does_not_wait_for_silent_sidecars,
);

const MIB: u64 = 1 << 20;

/// A part that can die.
#[derive(Clone, Copy, Debug)]
enum Victim {
    Controller,
    Agents,
    ApiServer,
}

/// How far a volume has come when that happens.
#[derive(Clone, Copy, Debug, PartialEq, PartialOrd)]
enum Step {
    Asked,
    Written,
    Bound,
    Staged,
    Running,
    Leaving,
    Erasing,
}

const STEPS: [Step; 7] = [
    Step::Asked,
    Step::Written,
    Step::Bound,
    Step::Staged,
    Step::Running,
    Step::Leaving,
    Step::Erasing,
];

async fn controller_killed_at_each_step_finishes_when_it_is_back(
    lab: &mut Lab,
) -> anyhow::Result<()> {
    at_each_step(lab, Victim::Controller).await
}

async fn agent_killed_at_each_step_finishes_when_it_is_back(lab: &mut Lab) -> anyhow::Result<()> {
    at_each_step(lab, Victim::Agents).await
}

async fn api_server_killed_at_each_step_is_waited_for(lab: &mut Lab) -> anyhow::Result<()> {
    at_each_step(lab, Victim::ApiServer).await
}

async fn at_each_step(lab: &mut Lab, victim: Victim) -> anyhow::Result<()> {
    for step in STEPS {
        let lived = live(lab, victim, step).await;
        lived.map_err(|why| why.context(format!("{victim:?} killed when {step:?}")))?;
    }
    Ok(())
}

/// One whole life of a volume, with one death in it.
async fn live(lab: &mut Lab, victim: Victim, fatal: Step) -> anyhow::Result<()> {
    let name = format!("{victim:?}-{fatal:?}").to_lowercase();
    lab.claim(&name, "32Mi").await?;
    lab.pod(&name, None).await?;
    if fatal < Step::Running {
        until_at(lab, &name, fatal).await?;
        strike(lab, victim).await?;
    }
    let run = lab.until_running(&name).await?;
    let mut machine = boot(lab, &run)?;
    let mark = machine.leave_mark()?;
    if fatal == Step::Running {
        strike(lab, victim).await?;
        if let Victim::Agents = victim {
            machine.reconnect()?;
        }
    }
    machine.work(8 * MIB..32 * MIB, 500)?;
    ensure!(machine.still_has(&mark)?, "what was flushed is gone");
    machine.shut_down();
    ensure!(
        lab.volumes().await?.len() == 1,
        "one claim, and not one volume"
    );
    lab.remove(&name).await?;
    if fatal > Step::Running {
        until_at(lab, &name, fatal).await?;
        strike(lab, victim).await?;
    }
    lab.until_empty().await?;
    ensure!(
        !lab.node(&run.node)?.pool_holds(&mark)?,
        "what was deleted is not erased"
    );
    Ok(())
}

fn boot(lab: &mut Lab, run: &Running) -> anyhow::Result<Machine> {
    let socket = lab.node(&run.node)?.socket(&run.uid, &run.volume)?;
    Machine::boot(&socket)
}

async fn strike(lab: &mut Lab, victim: Victim) -> anyhow::Result<()> {
    match victim {
        Victim::Controller => {
            lab.controller().kill()?;
            lab.restart_controller().await
        }
        Victim::Agents => {
            for name in ["n1", "n2"] {
                lab.node(name)?.agent().kill()?;
            }
            for name in ["n1", "n2"] {
                lab.restart_agent(name).await?;
            }
            Ok(())
        }
        Victim::ApiServer => {
            lab.plane.stop_api()?;
            lab.plane.start_api().await
        }
    }
}

/// Waits until the volume of the claim has come so far; a step that is over by then counts as well.
async fn until_at(lab: &Lab, name: &str, step: Step) -> anyhow::Result<()> {
    let volumes: Api<SplitVolume> = Api::all(lab.client());
    let sessions: Api<VolumeSession> = Api::all(lab.client());
    let any = ListParams::default();
    until(&format!("the volume is {step:?}"), PATIENCE, || async {
        let reached = match step {
            Step::Asked | Step::Running | Step::Leaving => true,
            Step::Written => !volumes.list(&any).await?.items.is_empty(),
            Step::Bound => {
                let claim = lab.claims().get(name).await?;
                claim.status.and_then(|status| status.phase).as_deref() == Some("Bound")
            }
            Step::Staged => !sessions.list(&any).await?.items.is_empty(),
            Step::Erasing => {
                let volumes = volumes.list(&any).await?;
                volumes
                    .iter()
                    .all(|volume| volume.metadata.deletion_timestamp.is_some())
            }
        };
        Ok(reached.then_some(()).ok_or_else(|| "not yet".to_owned()))
    })
    .await
}

/// Agents that stand still take no order; so the controller's is there, and nothing has come of it.
async fn volume_written_and_not_made(lab: &mut Lab, name: &str) -> anyhow::Result<String> {
    for node in &mut lab.nodes {
        node.agent().freeze()?;
    }
    lab.claim(name, "32Mi").await?;
    lab.pod(name, None).await?;
    until_at(lab, name, Step::Written).await?;
    let volumes = lab.volumes().await?;
    ensure!(
        volumes.iter().all(|volume| volume.status.is_none()),
        "{volumes:?}"
    );
    Ok(volumes.iter().map(ResourceExt::name_any).collect())
}

async fn volume_written_before_the_controller_died_is_joined_not_made_twice(
    lab: &mut Lab,
) -> anyhow::Result<()> {
    let written = volume_written_and_not_made(lab, "joined").await?;
    lab.controller().kill()?;
    for node in &mut lab.nodes {
        node.agent().thaw()?;
    }
    lab.restart_controller().await?;
    let run = lab.until_running("joined").await?;
    ensure!(run.volume == written, "{} instead of {written}", run.volume);
    ensure!(lab.volumes().await?.len() == 1);
    lab.remove("joined").await?;
    lab.until_empty().await
}

async fn volume_unseen_by_a_killed_agent_is_made_by_its_successor(
    lab: &mut Lab,
) -> anyhow::Result<()> {
    let written = volume_written_and_not_made(lab, "unseen").await?;
    strike(lab, Victim::Agents).await?;
    let run = lab.until_running("unseen").await?;
    ensure!(run.volume == written, "{} instead of {written}", run.volume);
    lab.remove("unseen").await?;
    lab.until_empty().await
}

async fn agent_started_without_api_server_serves_what_it_served(
    lab: &mut Lab,
) -> anyhow::Result<()> {
    let run = lab.run("alone", "32Mi", Some("n1")).await?;
    let mut machine = boot(lab, &run)?;
    let mark = machine.leave_mark()?;
    lab.plane.stop_api()?;
    lab.node("n1")?.agent().kill()?;
    // Ready, too: kubelet must not kill it for what is not its fault.
    lab.restart_agent("n1").await?;
    machine.reconnect()?;
    machine.work(8 * MIB..32 * MIB, 500)?;
    ensure!(machine.still_has(&mark)?);
    lab.plane.start_api().await?;
    machine.shut_down();
    lab.remove("alone").await?;
    lab.until_empty().await
}

/// Agents that stand still let two volumes be placed where only one has room; the one without hears so when nobody waits.
async fn refusal_that_a_dead_controller_never_heard_is_cleared_by_the_next(
    lab: &mut Lab,
) -> anyhow::Result<()> {
    for node in &mut lab.nodes {
        node.agent().freeze()?;
    }
    for name in ["first", "second"] {
        lab.claim(name, "160Mi").await?;
        lab.pod(name, Some("n1")).await?;
    }
    until("both volumes are written", PATIENCE, || async {
        let written = lab.volumes().await?.len();
        Ok((written == 2).then_some(()).ok_or(written.to_string()))
    })
    .await?;
    lab.controller().kill()?;
    for node in &mut lab.nodes {
        node.agent().thaw()?;
    }
    let refused = until_refused(lab).await?;
    lab.until_told(events::NO_SPACE, &refused.name_any())
        .await?;
    lab.restart_controller().await?;
    until("the refused volume is gone", PATIENCE, || async {
        let left = lab.volumes().await?;
        let is_left = left.iter().any(|volume| volume.uid() == refused.uid());
        Ok((!is_left).then_some(()).ok_or_else(|| format!("{left:?}")))
    })
    .await?;
    let (winner, loser) = match refused.spec.claim.as_ref().map(|claim| &*claim.name) {
        Some("first") => ("second", "first"),
        _ => ("first", "second"),
    };
    lab.until_running(winner).await?;
    // It was RESOURCE_EXHAUSTED that the provisioner heard: it tries again when there is room.
    lab.remove(winner).await?;
    lab.until_running(loser).await?;
    ensure!(lab.volumes().await?.len() == 1);
    lab.remove(loser).await?;
    lab.until_empty().await
}

async fn until_refused(lab: &Lab) -> anyhow::Result<SplitVolume> {
    until("one volume has no room", PATIENCE, || async {
        let volumes = lab.volumes().await?;
        let refused = volumes.iter().find(|volume| {
            let known = volume.status.iter().flat_map(|status| &status.conditions);
            known.clone().any(|known| known.reason == reasons::NO_SPACE)
        });
        Ok(refused.cloned().ok_or_else(|| format!("{volumes:?}")))
    })
    .await
}

async fn session_deleted_while_the_agent_is_down_is_served_until_it_is_unpublished(
    lab: &mut Lab,
) -> anyhow::Result<()> {
    let run = lab.run("cut-off", "32Mi", Some("n1")).await?;
    let mut machine = boot(lab, &run)?;
    let mark = machine.leave_mark()?;
    lab.node("n1")?.agent().kill()?;
    let sessions: Api<VolumeSession> = Api::all(lab.client());
    let params = DeleteParams::default();
    sessions.delete(&run.volume, &params).await?;
    lab.restart_agent("n1").await?;
    machine.reconnect()?;
    machine.work(8 * MIB..32 * MIB, 500)?;
    ensure!(machine.still_has(&mark)?, "what was flushed is gone");
    let session = sessions.get(&run.volume).await?;
    let status = session.status.context("it is served, so it says so")?;
    ensure!(is_true(&status.conditions, conditions::EXPORTED));

    // It ends when it is unpublished, without being asked again.
    machine.shut_down();
    lab.remove("cut-off").await?;
    lab.until_empty().await
}

async fn controller_asked_to_end_does_not_wait_for_silent_sidecars(
    lab: &mut Lab,
) -> anyhow::Result<()> {
    // Provisioner and resizer keep their connections open as well.
    let socket = lab.controller_endpoint().replace("unix://", "");
    let silent = UnixStream::connect(socket)?;
    let since = Instant::now();
    let ended = lab.controller().holdfast().end(Duration::from_secs(60))?;
    let took = since.elapsed();
    drop(silent);
    println!("the controller ended {took:.2?} after it was asked to");
    ensure!(ended.success(), "{ended}");
    // Calls under way would have 10 s; there is none.
    ensure!(took < Duration::from_secs(5), "it took {took:?}");
    lab.controller().kill()?;
    lab.restart_controller().await
}
