//! What a node tells in numbers, as Prometheus reads it.
#![allow(clippy::unwrap_used)]

mod common;

use common::{Machine, NODE, Node, POOL, VOLUME, VOLUME_BYTES, has};
use holdfast_api::{ClaimRef, SplitVolume, VolumeSession, conditions};
use holdfast_csi::Mode;
use holdfast_store::Store;
use holdfast_testkit::frontend::{Guest, Layout, Op};
use prometheus_client::encoding::text::encode;
use prometheus_client::registry::Registry;

/// A registry that outlives its scrapes.
struct Metrics(Registry);

impl Metrics {
    fn of(node: &Node) -> Metrics {
        let mut registry = Registry::default();
        node.agent.register_metrics(&mut registry);
        Metrics(registry)
    }

    /// The value of a sample whose only label is the node.
    fn of_node(&self, name: &str) -> Option<f64> {
        let text = self.text();
        let sample = format!("{name}{{node=\"{NODE}\"}} ");
        let mut values = text.lines().filter_map(|line| line.strip_prefix(&sample));
        values.next().map(|value| value.parse().unwrap())
    }

    fn text(&self) -> String {
        let mut text = String::new();
        encode(&mut text, &self.0).unwrap();
        text
    }

    /// The value of a sample with these labels beside the node's.
    fn value(&self, name: &str, labels: &str) -> String {
        let text = self.text();
        let sample = format!("{name}{{node=\"{NODE}\",{labels}}} ");
        let line = text.lines().find_map(|line| line.strip_prefix(&sample));
        let line = line.unwrap_or_else(|| panic!("no {sample}in {text}"));
        line.to_owned()
    }
}

const OF_POOL: &str = "pool=\"pool-1\"";
const OF_VOLUME: &str = "pool=\"pool-1\",volume=\"vol-1\"";

async fn publish_to_pod(node: &Node) {
    let mut request = node.publish_request(VOLUME, "t", Mode::SingleNodeWriter);
    let pod = [
        ("csi.storage.k8s.io/pod.name", "virt-launcher-db"),
        ("csi.storage.k8s.io/pod.namespace", "shop"),
        ("csi.storage.k8s.io/pod.uid", "u-1"),
    ];
    let pod = pod.map(|(key, value)| (key.to_owned(), value.to_owned()));
    request.volume_context = pod.into();
    node.publish_call(request).await.unwrap();
}

/// What is recorded of a pod that KubeVirt runs a machine in; waits until the agent has seen it.
async fn run_in_machine(node: &Node, mut session: VolumeSession, machine: &str) {
    session.spec.targets[0].machine = machine.to_owned();
    let generation = node
        .store
        .update(session)
        .await
        .unwrap()
        .metadata
        .generation;
    let look = |session: Option<&VolumeSession>| {
        let seen = session?.status.as_ref()?.observed_generation;
        (Some(seen) == generation).then_some(())
    };
    node.until(VOLUME, look).await;
}

#[test]
fn pool_tells_its_space_and_whether_it_is_ready() {
    Machine::with_volume().run(|node| async move {
        node.agent.wait_ready().await;
        let metrics = Metrics::of(&node);
        let usage = node.engine.pool(POOL).unwrap().usage;
        let cases = [
            ("holdfast_pool_capacity_bytes", usage.capacity_bytes),
            ("holdfast_pool_allocated_bytes", VOLUME_BYTES),
            ("holdfast_pool_free_bytes", usage.free_bytes),
            (
                "holdfast_pool_largest_free_extent_bytes",
                usage.largest_free_extent_bytes,
            ),
            ("holdfast_pool_erase_pending_bytes", 0),
            ("holdfast_pool_ready", 1),
            ("holdfast_orphan_extents", 0),
        ];
        for (name, value) in cases {
            assert_eq!(metrics.value(name, OF_POOL), value.to_string(), "{name}");
        }
        node.engine.remove_pool_device(POOL).unwrap();
        node.until_pool(POOL, |pool| {
            common::ready(pool).is_some_and(|(holds, _)| !holds)
        })
        .await;
        assert_eq!(metrics.value("holdfast_pool_ready", OF_POOL), "0");
    });
}

#[test]
fn processors_are_told_with_what_a_quota_leaves_of_them() {
    Machine::with_volume().run(|node| async move {
        let (metrics, expected) = (Metrics::of(&node), node.engine.processors());
        let count = |count: usize| Some(u32::try_from(count).unwrap().into());
        assert_eq!(
            metrics.of_node("holdfast_reactors"),
            count(expected.reactors)
        );
        assert_eq!(
            metrics.of_node("holdfast_cpus_allowed"),
            count(expected.allowed)
        );
        assert!(expected.reactors >= 1 && expected.allowed >= 1);
        assert_eq!(metrics.of_node("holdfast_cpu_quota"), expected.quota);
        let throttled = metrics.of_node("holdfast_cpu_throttled_seconds_total");
        assert_eq!(throttled.is_some(), expected.throttled.is_some());
        let since = node.engine.processors().throttled.unwrap_or_default();
        assert!(throttled.unwrap_or(0.0) <= since.as_secs_f64());
        for family in [
            "holdfast_cpu_quota gauge",
            "holdfast_cpu_throttled_seconds counter",
        ] {
            assert!(
                metrics.text().contains(&format!("# TYPE {family}\n")),
                "{family}"
            );
        }
    });
}

#[test]
fn requests_of_a_machine_are_counted_and_its_session_is_told() {
    Machine::with_volume().run(|node| async move {
        node.stage(VOLUME).await.unwrap();
        publish_to_pod(&node).await;
        let metrics = Metrics::of(&node);
        assert_eq!(metrics.value("holdfast_session_connected", OF_VOLUME), "0");
        assert_eq!(metrics.value("holdfast_session_published", OF_VOLUME), "1");
        let session = node.store.get::<VolumeSession>(VOLUME).await.unwrap();
        let socket = session.unwrap().status.unwrap().socket_path;
        let guest = Guest::builder().queues(1).queue_size(128);
        let mut guest = guest.connect(&socket).unwrap();
        let read = Op::Read {
            offset: 0,
            len: 4096,
        };
        guest.queue(0).submit(read, Layout::DIRECT).unwrap();
        guest.queue(0).drain().unwrap();
        let cases = [
            ("holdfast_session_connected", "1"),
            ("holdfast_volume_read_ops_total", "1"),
            ("holdfast_volume_read_bytes_total", "4096"),
            ("holdfast_volume_write_ops_total", "0"),
            ("holdfast_volume_inflight", "0"),
            ("holdfast_session_stop_waits", "0"),
        ];
        for (name, value) in cases {
            assert_eq!(metrics.value(name, OF_VOLUME), value, "{name}");
        }
        let of_reads = format!("{OF_VOLUME},op=\"read\"");
        assert_eq!(
            metrics.value("holdfast_volume_errors_total", &of_reads),
            "0"
        );
        let slowest = format!("{of_reads},le=\"+Inf\"");
        let bucket = "holdfast_volume_latency_seconds_bucket";
        // The encoder puts the bound first or last; either way there is one request in the last bucket.
        let text = metrics.text();
        let last = text.lines().rfind(|line| {
            line.starts_with(bucket) && line.contains("op=\"read\"") && line.contains("+Inf")
        });
        assert!(
            last.is_some_and(|line| line.ends_with(" 1")),
            "{slowest} {text}"
        );
        node.unpublish(VOLUME, "t").await.unwrap();
    });
}

#[test]
fn claim_and_pod_stand_in_one_info_metric_and_no_socket_anywhere() {
    Machine::with_volume().run(|node| async move {
        let mut volume = node
            .store
            .get::<SplitVolume>(VOLUME)
            .await
            .unwrap()
            .unwrap();
        volume.spec.claim = Some(ClaimRef {
            namespace: "shop".into(),
            name: "db-disk".into(),
            persistent_volume: "pv-1".into(),
        });
        let generation = node.store.update(volume).await.unwrap().metadata.generation;
        node.until_volume(VOLUME, |volume| {
            volume.metadata.generation == generation && has(volume, conditions::READY, true)
        })
        .await;
        node.stage(VOLUME).await.unwrap();
        publish_to_pod(&node).await;
        let session = node
            .store
            .get::<VolumeSession>(VOLUME)
            .await
            .unwrap()
            .unwrap();
        let target = &session.spec.targets[0];
        let pod = (&*target.pod_namespace, &*target.pod_name, &*target.pod_uid);
        assert_eq!(pod, ("shop", "virt-launcher-db", "u-1"));
        run_in_machine(&node, session, "db").await;
        let text = Metrics::of(&node).text();
        let info = text
            .lines()
            .find(|line| line.starts_with("holdfast_volume_info{"));
        let info = info.unwrap();
        for label in [
            "vmi=\"db\"",
            "volume=\"vol-1\"",
            "namespace=\"shop\"",
            "persistentvolumeclaim=\"db-disk\"",
            "persistentvolume=\"pv-1\"",
            "pod=\"virt-launcher-db\"",
        ] {
            assert!(info.contains(label), "{info}");
        }
        assert!(!text.contains("v.sock"), "{text}");
        node.unpublish(VOLUME, "t").await.unwrap();
    });
}

#[test]
fn turns_of_the_agent_are_timed_by_kind() {
    Machine::with_volume().run(|node| async move {
        node.agent.wait_ready().await;
        let text = Metrics::of(&node).text();
        let counted = "holdfast_reconcile_duration_seconds_count{kind=\"BlockPool\"}";
        assert!(text.contains(counted), "{text}");
        assert!(
            text.contains("holdfast_reexport_duration_seconds{"),
            "{text}"
        );
    });
}

#[test]
fn metrics_are_those_of_the_documentation() {
    let page = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/observability.md");
    let page = std::fs::read_to_string(page).unwrap();
    Machine::with_volume().run(|node| async move {
        node.stage(VOLUME).await.unwrap();
        let text = Metrics::of(&node).text();
        let names = text.lines().filter_map(|line| line.strip_prefix("# HELP "));
        for line in names {
            let name = line.split(' ').next().unwrap();
            let short = name.trim_start_matches("holdfast_volume");
            let known = [name.to_owned(), format!("{name}_info"), short.to_owned()];
            let is_there = known.iter().any(|name| page.contains(&format!("`{name}`")));
            assert!(is_there, "docs/observability.md does not know {name}");
        }
    });
}
