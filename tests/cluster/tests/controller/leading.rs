//! Two replicas: one runs the loops, the other follows it, and never both do.

use crate::stage::{PATIENCE, Replica, install, without_garbage};
use anyhow::ensure;
use holdfast_cluster::{Plane, until};
use holdfast_controller::LoopsConfig;
use std::time::{Duration, Instant};

fn config(identity: &str, lease_seconds: u64) -> LoopsConfig {
    let mut config = without_garbage(identity);
    config.lease.duration = Duration::from_secs(lease_seconds);
    config.lease.renew_deadline = Duration::from_secs(lease_seconds) * 2 / 3;
    config
}

/// Waits until `condition`; fails if ever both lead.
async fn watch(
    a: &Replica,
    b: &Replica,
    what: &str,
    condition: impl Fn() -> bool,
) -> anyhow::Result<()> {
    let look = || async {
        ensure!(!(a.leads() && b.leads()), "both replicas lead");
        Ok(condition().then_some(()).ok_or("not yet".to_owned()))
    };
    until(what, PATIENCE, look).await
}

pub(crate) async fn only_one_of_two_replicas_leads(plane: &mut Plane) -> anyhow::Result<()> {
    install(plane)?;
    let a = Replica::start(plane, config("a", 2));
    let b = Replica::start(plane, config("b", 2));
    watch(&a, &b, "one leads", || a.leads() || b.leads()).await?;
    let end = Instant::now() + Duration::from_secs(6);
    let first = a.leads();
    watch(&a, &b, "three leases are over", || Instant::now() > end).await?;
    ensure!(
        a.leads() == first && b.leads() != first,
        "leadership moved although nobody failed"
    );
    let (leader, other) = if first { (&a, &b) } else { (&b, &a) };
    leader.pass("garbage", 1).await?;
    let idle = other.metric("holdfast_controller_loop_passes_total{name=\"garbage\"}");
    ensure!(idle == 0, "the follower ran its loops");
    a.end().await?;
    b.end().await
}

pub(crate) async fn leader_that_ends_hands_over_at_once(plane: &mut Plane) -> anyhow::Result<()> {
    install(plane)?;
    // Far longer than the test may take: only a lease that was given up can be taken.
    let a = Replica::start(plane, config("a", 3600));
    a.lead().await?;
    let b = Replica::start(plane, config("b", 3600));
    a.end().await?;
    b.lead().await?;
    b.end().await
}

pub(crate) async fn leader_that_is_killed_is_followed_by_the_other(
    plane: &mut Plane,
) -> anyhow::Result<()> {
    install(plane)?;
    let a = Replica::start(plane, config("a", 3));
    a.lead().await?;
    let b = Replica::start(plane, config("b", 3));
    let killed = Instant::now();
    drop(a);
    b.lead().await?;
    let waited = killed.elapsed();
    ensure!(
        waited > Duration::from_secs(2),
        "the lease was taken {waited:?} after its last renewal"
    );
    b.end().await
}

pub(crate) async fn leader_that_cannot_renew_steps_down(plane: &mut Plane) -> anyhow::Result<()> {
    install(plane)?;
    let a = Replica::start(plane, config("a", 3));
    a.lead().await?;
    let b = Replica::start(plane, config("b", 3));
    plane.freeze_api()?;
    watch(&a, &b, "the leader steps down", || !a.leads()).await?;
    ensure!(!b.leads(), "nobody can have taken the lease");
    plane.thaw_api()?;
    watch(&a, &b, "one leads again", || a.leads() || b.leads()).await?;
    a.end().await?;
    b.end().await
}
