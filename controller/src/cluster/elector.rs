//! Who of several replicas runs the loops: the holder of a Lease, as Kubernetes' own controllers do it.
//!
//! Written here because kube has none and the crates that do pin an older kube. Two rules make it safe: a Lease is only written
//! over the version that was read, and a holder that could not renew stops before anybody else may begin. Time is measured by
//! each replica's own monotonic clock, so clocks need not agree.

use super::{LoopsConfig, ask};
use crate::error::ControllerError;
use crate::metrics::ControllerMetrics;
use k8s_openapi::api::coordination::v1::{Lease, LeaseSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::MicroTime;
use k8s_openapi::jiff::Timestamp;
use kube::api::PostParams;
use kube::{Api, Client};
use std::future::Future;
use std::time::Duration;
use tokio::time::{Instant, sleep, timeout, timeout_at};

/// The Lease, and what is said of it in messages.
const LEASE: &str = "holdfast-controller";
/// Giving up leadership is a courtesy: the end does not wait long for it.
const FAREWELL: Duration = Duration::from_secs(2);

/// How leadership is kept and lost.
#[derive(Debug, Clone, Copy)]
pub struct LeaseTimes {
    /// A Lease that was not renewed for this long may be taken. Whole seconds, at least one.
    pub duration: Duration,
    /// A holder that could not renew for this long stops. Below `duration`.
    pub renew_deadline: Duration,
    /// Time between two attempts to take or renew.
    pub retry: Duration,
}

impl Default for LeaseTimes {
    /// What Kubernetes' own controllers use.
    fn default() -> Self {
        Self {
            duration: Duration::from_secs(15),
            renew_deadline: Duration::from_secs(10),
            retry: Duration::from_secs(2),
        }
    }
}

pub(super) struct Elector {
    leases: Api<Lease>,
    identity: String,
    times: LeaseTimes,
    metrics: ControllerMetrics,
}

/// The version of a Lease that was seen last, and when first.
type Sighting = Option<(Option<String>, Instant)>;

impl Elector {
    pub(super) fn new(client: &Client, config: &LoopsConfig, metrics: ControllerMetrics) -> Self {
        Self {
            leases: Api::namespaced(client.clone(), &config.namespace),
            identity: config.identity.clone(),
            times: config.lease,
            metrics,
        }
    }

    /// Does `work` whenever this replica leads, and drops it where it stands when it no longer does. Never returns.
    pub(super) async fn lead<F: Future<Output = ()>>(&self, work: impl Fn() -> F) {
        loop {
            let since = self.acquire().await;
            tracing::info!(identity = self.identity, "Leading");
            self.metrics.set_leader(true);
            tokio::select! {
                () = self.renew_until_lost(since) => {}
                () = work() => {}
            }
            self.metrics.set_leader(false);
            tracing::warn!(identity = self.identity, "No longer leading");
        }
    }

    /// Lets another replica lead at once, if this one does.
    pub(super) async fn resign(&self) {
        let release = async {
            let lease = self.leases.get_opt(LEASE).await.ok().flatten()?;
            if holder(&lease) == self.identity {
                drop(self.write(lease, "").await);
            }
            Some(())
        };
        drop(timeout(FAREWELL, release).await);
        self.metrics.set_leader(false);
    }

    /// Waits until the Lease is ours; returns when the attempt that took it began.
    async fn acquire(&self) -> Instant {
        let mut sighting: Sighting = None;
        loop {
            let since = Instant::now();
            match self.take(&mut sighting).await {
                Ok(true) => return since,
                Ok(false) => {}
                Err(error) => tracing::warn!(%error, "Cannot take the lead yet"),
            }
            sleep(self.times.retry).await;
        }
    }

    /// Takes the Lease if it is free or has expired before our eyes. False if it is another's.
    async fn take(&self, sighting: &mut Sighting) -> Result<bool, ControllerError> {
        let Some(lease) = self.read().await? else {
            let mut lease = Lease::default();
            lease.metadata.name = Some(LEASE.to_owned());
            lease.spec = Some(self.spec(&lease, &self.identity));
            let made = async { won(self.leases.create(&PostParams::default(), &lease).await) };
            return ask("make", LEASE, made).await;
        };
        let version = lease.metadata.resource_version.clone();
        let seen_at = match sighting {
            Some((seen, at)) if *seen == version => *at,
            _ => sighting.insert((version, Instant::now())).1,
        };
        let is_free = holder(&lease).is_empty() || holder(&lease) == self.identity;
        if !is_free && seen_at.elapsed() < self.expiry(&lease) {
            return Ok(false);
        }
        self.write(lease, &self.identity).await
    }

    /// Renews the Lease; returns when it is lost, or when no renewal succeeded for so long that it may be.
    async fn renew_until_lost(&self, mut since: Instant) {
        loop {
            sleep(self.times.retry).await;
            let begun = Instant::now();
            match timeout_at(since + self.times.renew_deadline, self.renew()).await {
                Ok(Ok(true)) => since = begun,
                Ok(Ok(false)) => return,
                Ok(Err(error)) => tracing::warn!(%error, "Cannot renew the lead"),
                Err(_) => return,
            }
        }
    }

    /// False if another replica holds the Lease.
    async fn renew(&self) -> Result<bool, ControllerError> {
        match self.read().await? {
            Some(lease) if holder(&lease) == self.identity => {
                // Nobody but us writes a Lease that is ours and has not expired.
                self.write(lease, &self.identity).await
            }
            _ => Ok(false),
        }
    }

    async fn read(&self) -> Result<Option<Lease>, ControllerError> {
        ask("read", LEASE, self.leases.get_opt(LEASE)).await
    }

    /// Writes over the version that was read. False if another replica came before.
    async fn write(&self, mut lease: Lease, identity: &str) -> Result<bool, ControllerError> {
        lease.spec = Some(self.spec(&lease, identity));
        let params = PostParams::default();
        let written = async { won(self.leases.replace(LEASE, &params, &lease).await) };
        ask("write", LEASE, written).await
    }

    fn spec(&self, before: &Lease, identity: &str) -> LeaseSpec {
        let now = Some(MicroTime(Timestamp::now()));
        let mut spec = before.spec.clone().unwrap_or_default();
        if spec.holder_identity.as_deref() != Some(identity) {
            spec.acquire_time = now.clone();
            spec.lease_transitions = Some(spec.lease_transitions.map_or(0, |n| n + 1));
        }
        spec.holder_identity = Some(identity.to_owned());
        spec.lease_duration_seconds = i32::try_from(self.times.duration.as_secs().max(1)).ok();
        spec.renew_time = now;
        spec
    }

    /// The holder's word on how long it may be silent counts, not ours.
    fn expiry(&self, lease: &Lease) -> Duration {
        let told = lease.spec.as_ref().and_then(|s| s.lease_duration_seconds);
        told.and_then(|seconds| u64::try_from(seconds).ok())
            .map_or(self.times.duration, Duration::from_secs)
    }
}

fn holder(lease: &Lease) -> &str {
    let spec = lease.spec.as_ref();
    spec.and_then(|spec| spec.holder_identity.as_deref())
        .unwrap_or_default()
}

/// A write that another replica came before is no error, it is the answer.
fn won(written: kube::Result<Lease>) -> kube::Result<bool> {
    match written {
        Ok(_) => Ok(true),
        Err(kube::Error::Api(status)) if status.code == 409 => Ok(false),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests;
