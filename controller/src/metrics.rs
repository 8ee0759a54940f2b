//! What the controller tells of itself in numbers. Names stand here in full, so that a search finds them.

use crate::error::ControllerError;
use crate::volume;
use holdfast_api::SplitVolume;
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;
use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, PoisonError};

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Volumes {
    pool: String,
    phase: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Kind {
    kind: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Outcome {
    outcome: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Loop {
    name: &'static str,
}

/// The controller's metrics. Clones count into the same ones.
#[derive(Debug, Clone, Default)]
pub struct ControllerMetrics {
    leader: Gauge,
    volumes: Family<Volumes, Gauge>,
    /// Which of `volumes` are shown: those of the last count.
    shown: Arc<Mutex<HashSet<Volumes>>>,
    garbage: Gauge,
    garbage_deleted: Counter,
    nodes_gone: Gauge,
    let_go: Family<Kind, Counter>,
    loop_passes: Family<Loop, Counter>,
    loop_errors: Family<Loop, Counter>,
    watch_errors: Family<Kind, Counter>,
    webhook_requests: Family<Outcome, Counter>,
}

impl ControllerMetrics {
    /// Registers all of them.
    pub fn register(registry: &mut Registry) -> Self {
        let new = Self::default();
        registry.register(
            "holdfast_controller_leader",
            "1 in the replica that removes garbage and looks after lost nodes",
            new.leader.clone(),
        );
        registry.register(
            "holdfast_controller_volumes",
            "Volumes by pool and phase; told by the leader",
            new.volumes.clone(),
        );
        registry.register(
            "holdfast_controller_garbage_volumes",
            "Volumes that the last pass found nobody wants; told by the leader",
            new.garbage.clone(),
        );
        registry.register(
            "holdfast_controller_garbage_deleted",
            "Volumes deleted because nobody wanted them",
            new.garbage_deleted.clone(),
        );
        registry.register(
            "holdfast_controller_nodes_gone",
            "Nodes gone for good that still have volumes or sessions; told by the leader",
            new.nodes_gone.clone(),
        );
        registry.register(
            "holdfast_controller_let_go",
            "Objects whose removal was finished in place of a lost node, by kind",
            new.let_go.clone(),
        );
        registry.register(
            "holdfast_controller_loop_passes",
            "Passes of a background loop that went through, by loop",
            new.loop_passes.clone(),
        );
        registry.register(
            "holdfast_controller_loop_errors",
            "Passes of a background loop that failed, by loop",
            new.loop_errors.clone(),
        );
        registry.register(
            "holdfast_controller_watch_errors",
            "Failures of a watch on the API server, by kind",
            new.watch_errors.clone(),
        );
        registry.register(
            "holdfast_controller_webhook_requests",
            "Requests to the KubeVirt webhook, by what became of them",
            new.webhook_requests.clone(),
        );
        new
    }

    /// What only a leader knows is not told by others.
    pub(crate) fn set_leader(&self, leads: bool) {
        self.leader.set(i64::from(leads));
        if !leads {
            self.count_volumes(&[]);
            self.garbage.set(0);
            self.nodes_gone.set(0);
        }
    }

    pub(crate) fn count_volumes(&self, volumes: &[SplitVolume]) {
        let mut counts: HashMap<Volumes, i64> = HashMap::new();
        for volume in volumes {
            let labels = Volumes {
                pool: volume.spec.pool.clone(),
                phase: volume::phase(volume),
            };
            *counts.entry(labels).or_default() += 1;
        }
        // Sets only ever replaced as a whole are whole even if a holder panicked.
        let mut shown = self.shown.lock().unwrap_or_else(PoisonError::into_inner);
        for stale in shown.iter().filter(|labels| !counts.contains_key(labels)) {
            self.volumes.remove(stale);
        }
        for (labels, count) in &counts {
            self.volumes.get_or_create(labels).set(*count);
        }
        *shown = counts.into_keys().collect();
    }

    pub(crate) fn garbage_found(&self, volumes: usize) {
        self.garbage.set(i64::try_from(volumes).unwrap_or(i64::MAX));
    }

    pub(crate) fn garbage_deleted(&self) {
        self.garbage_deleted.inc();
    }

    pub(crate) fn nodes_gone(&self, nodes: i64) {
        self.nodes_gone.set(nodes);
    }

    pub(crate) fn let_go(&self, kind: &str) {
        let kind = kind.to_owned();
        self.let_go.get_or_create(&Kind { kind }).inc();
    }

    /// A pass of a loop ended; says so if it failed, for it is tried again and nobody else hears of it.
    pub(crate) fn passed(&self, name: &'static str, outcome: Result<(), ControllerError>) {
        let ended = match outcome {
            Ok(()) => &self.loop_passes,
            Err(error) => {
                tracing::warn!(name, %error, "A background loop failed");
                &self.loop_errors
            }
        };
        ended.get_or_create(&Loop { name }).inc();
    }

    /// A watch on the API server failed.
    pub fn watch_failed(&self, kind: &str) {
        let kind = kind.to_owned();
        self.watch_errors.get_or_create(&Kind { kind }).inc();
    }

    /// The KubeVirt webhook answered a request.
    pub fn webhook_answered(&self, outcome: &'static str) {
        let requests = &self.webhook_requests;
        requests.get_or_create(&Outcome { outcome }).inc();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use holdfast_api::SplitVolumeSpec;
    use holdfast_observe::{metric_names, new_registry};

    const DOCUMENT: &str = include_str!("../../docs/observability.md");

    /// A metric with labels is told only once it has a value, so each is given one.
    #[test]
    fn every_metric_of_the_controller_is_documented() {
        let mut registry = new_registry("1");
        let metrics = ControllerMetrics::register(&mut registry);
        metrics.count_volumes(&[SplitVolume::new("v", SplitVolumeSpec::default())]);
        metrics.let_go("SplitVolume");
        metrics.passed("garbage", Ok(()));
        let failed = ControllerError::NotFound { volume: "v".into() };
        metrics.passed("garbage", Err(failed));
        metrics.watch_failed("Node");
        metrics.webhook_answered("added");
        let names = metric_names(&registry);
        assert_eq!(names.len(), 11, "{names:?}");
        for name in names {
            let rows = [format!("| `{name}`"), format!("| `{name}_info`")];
            assert!(
                rows.iter().any(|row| DOCUMENT.contains(row)),
                "docs/observability.md has no row for {name}"
            );
        }
    }
}
