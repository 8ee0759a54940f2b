//! Metrics of a node: what the engine counts and what the agent last saw, put together when they are asked for.
//!
//! A volume is labelled by its name, never by its socket; the claim and the pod it is for stand once, in an info metric, so
//! that they do not multiply every series. A scrape reads memory, and what the kernel tells of this process's control groups.

mod write;

use crate::agent::{Agent, facts::Known};
use holdfast_dataplane::{Engine, ExportStats, OpStats, PoolInfo, Processors};
use holdfast_store::Store;
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeLabelSet};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::{Family, MetricConstructor};
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::{Registry, Unit};
use std::fmt;
use std::sync::Arc;
use std::time::Duration;
use write::{Row, Writer};

/// Seconds. A turn mostly waits for the API server; one that formats a drive takes longer.
const TURN_BUCKETS: [f64; 12] = [
    0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1.0, 2.5, 10.0, 60.0,
];

/// How the agent's turns went, by the kind of object.
#[derive(Debug, Clone)]
pub(crate) struct Turns {
    seconds: Family<OfKind, Histogram, TurnBuckets>,
    errors: Family<OfKind, Counter>,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct OfKind {
    kind: String,
}

#[derive(Debug, Clone)]
struct TurnBuckets;

impl MetricConstructor<Histogram> for TurnBuckets {
    fn new_metric(&self) -> Histogram {
        Histogram::new(TURN_BUCKETS)
    }
}

impl Turns {
    pub(crate) fn new() -> Turns {
        Turns {
            seconds: Family::new_with_constructor(TurnBuckets),
            errors: Family::default(),
        }
    }

    pub(crate) fn record(&self, kind: &str, took: Duration, failed: bool) {
        let of_kind = OfKind {
            kind: kind.to_owned(),
        };
        let seconds = took.as_secs_f64();
        self.seconds.get_or_create(&of_kind).observe(seconds);
        if failed {
            self.errors.get_or_create(&of_kind).inc();
        }
    }
}

impl<S: Store> Agent<S> {
    /// Registers what this node tells of its pools, volumes and sessions, and of the agent's own work.
    pub fn register_metrics(&self, registry: &mut Registry) {
        let turns = self.turns();
        registry.register_with_unit(
            "holdfast_reconcile_duration",
            "Time the agent's turns took, by kind of object",
            Unit::Seconds,
            turns.seconds.clone(),
        );
        registry.register(
            "holdfast_reconcile_errors",
            "Turns that failed and are tried again, by kind of object",
            turns.errors.clone(),
        );
        registry.register_collector(Box::new(NodeMetrics {
            agent: self.clone(),
        }));
    }
}

struct NodeMetrics<S> {
    agent: Agent<S>,
}

impl<S> fmt::Debug for NodeMetrics<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("NodeMetrics")
    }
}

impl<S: Store> Collector for NodeMetrics<S> {
    fn encode(&self, encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let engine: &Engine = self.agent.the_engine();
        let scrape = Scrape {
            node: Arc::from(self.agent.config().node_name.as_str()),
            known: self.agent.facts().all(),
            pools: engine.pools(),
            exports: engine.stats(),
            processors: engine.processors(),
        };
        let mut writer = Writer::new(encoder);
        scrape.write_processors(&mut writer)?;
        scrape.write_pools(&mut writer)?;
        scrape.write_volumes(&mut writer)?;
        scrape.write_requests(&mut writer)?;
        scrape.write_sessions(&mut writer)
    }
}

/// One look at everything.
struct Scrape {
    node: Arc<str>,
    known: Known,
    pools: Vec<PoolInfo>,
    exports: Vec<ExportStats>,
    processors: Processors,
}

type OfPool = fn(&PoolInfo) -> u64;
type OfExport = fn(&ExportStats) -> u64;

const POOL_GAUGES: [(&str, &str, OfPool); 5] = [
    ("capacity", "What volumes can use in all", |pool| {
        pool.usage.capacity_bytes
    }),
    ("allocated", "What belongs to volumes", |pool| {
        pool.usage.allocated_bytes
    }),
    ("free", "What new volumes can have now", |pool| {
        pool.usage.free_bytes
    }),
    (
        "largest_free_extent",
        "The largest piece of free space",
        |pool| pool.usage.largest_free_extent_bytes,
    ),
    (
        "erase_pending",
        "What belonged to deleted volumes and is still being erased",
        |pool| pool.usage.erase_pending_bytes,
    ),
];

const EXPORT_GAUGES: [(&str, &str, OfExport); 4] = [
    (
        "holdfast_volume_inflight",
        "Requests taken and not answered",
        |export| export.inflight,
    ),
    (
        "holdfast_volume_held",
        "Requests that wait for a lost drive",
        |export| export.held,
    ),
    (
        "holdfast_session_connected",
        "A machine is connected",
        |export| export.connected.into(),
    ),
    (
        "holdfast_session_stop_waits",
        "Stopping the disk waits for requests that the drive does not answer",
        |export| export.stop_waits.into(),
    ),
];

const EXPORT_COUNTERS: [(&str, &str, OfExport); 3] = [
    (
        "holdfast_session_reconnects",
        "Connections after the first",
        |export| export.reconnects,
    ),
    (
        "holdfast_session_replayed_requests",
        "Requests in flight at a restart that were submitted again",
        |export| export.replayed,
    ),
    (
        "holdfast_volume_rejected_requests",
        "Requests refused without asking the drive",
        |export| export.rejected,
    ),
];

type OfOp = fn(&ExportStats) -> &OpStats;

const OPS: [(&str, OfOp); 4] = [
    ("read", |export| &export.reads),
    ("write", |export| &export.writes),
    ("flush", |export| &export.flushes),
    ("discard", |export| &export.discards),
];

impl Scrape {
    /// What the kernel does not tell, and a quota that is not there, have no sample.
    fn write_processors(&self, writer: &mut Writer<'_>) -> fmt::Result {
        let Processors {
            reactors,
            allowed,
            quota,
            throttled,
        } = &self.processors;
        let of_node = || Row::of_node(&self.node);
        let one = |count: usize| std::iter::once((of_node(), count as u64));
        let help = "Threads that serve disks";
        writer.gauges("holdfast_reactors", help, None, one(*reactors))?;
        let help = "Processors this process may run on";
        writer.gauges("holdfast_cpus_allowed", help, None, one(*allowed))?;
        let quota = quota.iter().map(|quota| (of_node(), *quota));
        let help = "Processor time that control groups leave this process, in processors";
        writer.gauges("holdfast_cpu_quota", help, None, quota)?;
        let throttled = throttled.iter();
        let throttled = throttled.map(|time| (of_node(), time.as_secs_f64()));
        let help = "Time that processors stood still because the quota was used up";
        let unit = Some(&Unit::Seconds);
        writer.counters("holdfast_cpu_throttled", help, unit, throttled)
    }

    fn write_pools(&self, writer: &mut Writer<'_>) -> fmt::Result {
        for (name, help, of_pool) in POOL_GAUGES {
            let rows = self.pools.iter();
            let rows = rows.map(|pool| (self.of_pool(&pool.name), of_pool(pool)));
            let name = format!("holdfast_pool_{name}");
            writer.gauges(&name, help, Some(&Unit::Bytes), rows)?;
        }
        let known = &self.known.pools;
        let ready = known.iter();
        let ready = ready.map(|(name, pool)| (self.of_pool(name), u64::from(pool.ready)));
        writer.gauges(
            "holdfast_pool_ready",
            "The drive is open and its table valid",
            None,
            ready,
        )?;
        let orphans = known.iter();
        let orphans = orphans.map(|(name, pool)| (self.of_pool(name), pool.orphans as u64));
        let help = "Volumes on the drive that no SplitVolume stands for";
        writer.gauges("holdfast_orphan_extents", help, None, orphans)
    }

    fn write_volumes(&self, writer: &mut Writer<'_>) -> fmt::Result {
        let rows = self.known.volumes.iter().map(|(name, volume)| {
            let session = self.known.sessions.get(name).cloned().unwrap_or_default();
            let row = self.of_volume(name);
            row.with("namespace", &volume.claim.namespace)
                .with("persistentvolumeclaim", &volume.claim.name)
                .with("persistentvolume", &volume.claim.persistent_volume)
                .with("pod_namespace", &session.pod_namespace)
                .with("pod", &session.pod_name)
                .with("vmi", &session.machine)
        });
        let help = "The claim a volume was made for, and the pod and machine it is published to";
        writer.infos("holdfast_volume", help, rows)
    }

    fn write_requests(&self, writer: &mut Writer<'_>) -> fmt::Result {
        for (op, stats) in OPS {
            let counts = |of: fn(&OpStats) -> u64| {
                let exports = self.exports.iter();
                exports.map(move |export| (self.of_volume(&export.export), of(stats(export))))
            };
            let name = format!("holdfast_volume_{op}_ops");
            writer.counters(&name, "Requests answered", None, counts(|op| op.ops))?;
            if op != "flush" {
                let name = format!("holdfast_volume_{op}");
                let bytes = counts(|op| op.bytes);
                writer.counters(
                    &name,
                    "Bytes of requests that succeeded",
                    Some(&Unit::Bytes),
                    bytes,
                )?;
            }
        }
        let of_op = |export: &ExportStats, op| self.of_volume(&export.export).with("op", op);
        let errors = self
            .exports
            .iter()
            .flat_map(|export| OPS.map(|(op, stats)| (of_op(export, op), stats(export).errors)));
        writer.counters(
            "holdfast_volume_errors",
            "Requests answered with an error",
            None,
            errors,
        )?;
        let latencies = self
            .exports
            .iter()
            .flat_map(|export| OPS.map(|(op, stats)| (of_op(export, op), &stats(export).latency)));
        writer.latencies("holdfast_volume_latency", "Time requests took", latencies)
    }

    fn write_sessions(&self, writer: &mut Writer<'_>) -> fmt::Result {
        for (name, help, of_export) in EXPORT_GAUGES {
            writer.gauges(name, help, None, self.rows(of_export))?;
        }
        for (name, help, of_export) in EXPORT_COUNTERS {
            writer.counters(name, help, None, self.rows(of_export))?;
        }
        let published = self.known.sessions.iter();
        let published =
            published.map(|(name, session)| (self.of_volume(name), u64::from(session.published)));
        let help = "The disk is published to a pod";
        writer.gauges("holdfast_session_published", help, None, published)?;
        let restored = self.known.restored_in.into_iter();
        let node = |seconds: Duration| (Row::of_node(&self.node), seconds.as_secs_f64());
        let help = "Time from the start until every session had its turn";
        let unit = Some(&Unit::Seconds);
        writer.gauges("holdfast_reexport_duration", help, unit, restored.map(node))
    }

    fn rows(&self, of_export: OfExport) -> impl Iterator<Item = (Row, u64)> {
        let exports = self.exports.iter();
        exports.map(move |export| (self.of_volume(&export.export), of_export(export)))
    }

    fn of_pool(&self, pool: &str) -> Row {
        Row::of_node(&self.node).with("pool", pool)
    }

    fn of_volume(&self, volume: &str) -> Row {
        let pool = self.known.volumes.get(volume);
        let pool = pool.map_or("", |volume| volume.pool.as_str());
        self.of_pool(pool).with("volume", volume)
    }
}
