//! Holds the floor table of ARCHITECTURE.md: imports point down, and some rooms must never see some crates.

use cargo_metadata::{DependencyKind, Metadata, MetadataCommand, Package};
use std::collections::{BTreeMap, BTreeSet};

/// A row of the table: the crate, its floor, which of our crates it may import, and which outside
/// crates it must never see, directly or through others.
struct Room {
    name: &'static str,
    may_import: &'static [&'static str],
    never: &'static [&'static str],
}

const KUBE_CLIENT: &str = "kube-client";

const FLOORS: &[Room] = &[
    Room {
        name: "holdfast-crash",
        may_import: &[],
        never: &[KUBE_CLIENT, "tokio", "vhost", "tracing"],
    },
    Room {
        name: "holdfast-proto",
        may_import: &[],
        never: &[KUBE_CLIENT, "vhost"],
    },
    Room {
        name: "holdfast-api",
        may_import: &[],
        never: &[KUBE_CLIENT, "tokio", "tonic", "vhost"],
    },
    Room {
        name: "holdfast-ring",
        may_import: &["holdfast-crash"],
        never: &[KUBE_CLIENT, "tokio", "vhost"],
    },
    Room {
        name: "holdfast-bdev",
        may_import: &["holdfast-crash"],
        never: &[KUBE_CLIENT, "tokio", "vhost", "vm-memory"],
    },
    Room {
        name: "holdfast-store",
        may_import: &["holdfast-api"],
        never: &["vhost", "tonic"],
    },
    Room {
        name: "holdfast-csi",
        may_import: &["holdfast-proto"],
        never: &[KUBE_CLIENT, "vhost"],
    },
    Room {
        name: "holdfast-observe",
        may_import: &[],
        never: &[KUBE_CLIENT, "tonic", "vhost"],
    },
    Room {
        name: "holdfast-pool",
        may_import: &["holdfast-crash", "holdfast-bdev"],
        never: &[KUBE_CLIENT, "tokio", "vhost"],
    },
    Room {
        name: "holdfast-dataplane",
        may_import: &[
            "holdfast-crash",
            "holdfast-ring",
            "holdfast-bdev",
            "holdfast-pool",
        ],
        never: &[KUBE_CLIENT, "kube", "k8s-openapi", "tonic", "tokio"],
    },
    Room {
        name: "holdfast-kubevirt",
        may_import: &["holdfast-api", "holdfast-proto", "holdfast-store"],
        never: &["vhost", "vm-memory", "io-uring"],
    },
    Room {
        name: "holdfast-controller",
        may_import: &[
            "holdfast-api",
            "holdfast-proto",
            "holdfast-store",
            "holdfast-csi",
            "holdfast-observe",
        ],
        never: &["vhost", "vm-memory", "io-uring"],
    },
    Room {
        name: "holdfast-node",
        may_import: &[
            "holdfast-crash",
            "holdfast-dataplane",
            "holdfast-kubevirt",
            "holdfast-api",
            "holdfast-proto",
            "holdfast-store",
            "holdfast-csi",
            "holdfast-observe",
        ],
        never: &[],
    },
];

/// Crates that exist for tests and developers only: no product crate may depend on them.
const BASEMENT: &[&str] = &[
    "holdfast-testkit",
    "holdfast-guest",
    "holdfast-house",
    "holdfast-soak",
    "holdfast-bench",
    "holdfast-cluster",
    "holdfast-kubevirt-tests",
    "xtask",
];

fn metadata() -> Metadata {
    MetadataCommand::new()
        .manifest_path(concat!(env!("CARGO_MANIFEST_DIR"), "/../../Cargo.toml"))
        .exec()
        .expect("cargo metadata runs")
}

fn product_dependencies(package: &Package) -> BTreeSet<String> {
    package
        .dependencies
        .iter()
        .filter(|dependency| dependency.kind != DependencyKind::Development)
        .map(|dependency| dependency.name.clone())
        .collect()
}

/// All crates reachable from `start` over non-development edges, ours and outside ones alike.
fn reachable(edges: &BTreeMap<String, BTreeSet<String>>, start: &str) -> BTreeSet<String> {
    let mut seen = BTreeSet::new();
    let mut open = vec![start.to_owned()];
    while let Some(name) = open.pop() {
        for next in edges.get(&name).into_iter().flatten() {
            if seen.insert(next.clone()) {
                open.push(next.clone());
            }
        }
    }
    seen
}

/// Resolved edges by crate name; features that nobody turned on are not in it.
fn resolved_edges(metadata: &Metadata) -> BTreeMap<String, BTreeSet<String>> {
    let names: BTreeMap<_, _> = metadata
        .packages
        .iter()
        .map(|p| (p.id.clone(), p.name.to_string()))
        .collect();
    let resolve = metadata.resolve.as_ref().expect("cargo metadata resolves");
    let mut edges: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for node in &resolve.nodes {
        let targets = edges.entry(names[&node.id].clone()).or_default();
        for dep in &node.deps {
            if dep
                .dep_kinds
                .iter()
                .any(|kind| kind.kind == DependencyKind::Normal)
            {
                targets.insert(names[&dep.pkg].clone());
            }
        }
    }
    only_who_asks_has_the_client(metadata, &mut edges);
    edges
}

/// Features are resolved for the whole house at once: the client that one room asks of `kube` is there for all. What counts
/// is who asks.
fn only_who_asks_has_the_client(
    metadata: &Metadata,
    edges: &mut BTreeMap<String, BTreeSet<String>>,
) {
    if let Some(parts) = edges.get_mut("kube") {
        parts.retain(|part| part != KUBE_CLIENT && part != "kube-runtime");
    }
    for package in metadata.workspace_packages() {
        let asks = package.dependencies.iter().any(|dependency| {
            dependency.name == "kube"
                && dependency.kind == DependencyKind::Normal
                && dependency
                    .features
                    .iter()
                    .any(|feature| feature == "client")
        });
        if asks {
            let targets = edges.entry(package.name.to_string()).or_default();
            targets.insert(KUBE_CLIENT.to_owned());
        }
    }
}

#[test]
fn room_imports_only_what_its_floor_allows() {
    let metadata = metadata();
    for room in FLOORS {
        let package = metadata
            .packages
            .iter()
            .find(|p| p.name.as_str() == room.name)
            .unwrap_or_else(|| {
                panic!(
                    "the room {} is in the table but not in the house",
                    room.name
                )
            });
        for import in product_dependencies(package)
            .iter()
            .filter(|d| d.starts_with("holdfast"))
        {
            assert!(
                room.may_import.contains(&import.as_str()),
                "{} imports {import}, which the floor table of ARCHITECTURE.md forbids",
                room.name
            );
        }
    }
}

#[test]
fn room_never_sees_what_it_must_not() {
    let metadata = metadata();
    let edges = resolved_edges(&metadata);
    for room in FLOORS {
        let seen = reachable(&edges, room.name);
        for never in room.never {
            assert!(
                !seen.contains(*never),
                "{} sees {never}; the floor table says never",
                room.name
            );
        }
    }
}

#[test]
fn product_room_does_not_import_the_basement() {
    for package in metadata().workspace_packages() {
        if BASEMENT.contains(&package.name.as_str()) {
            continue;
        }
        let imports = product_dependencies(package);
        for name in BASEMENT {
            assert!(
                !imports.contains(*name),
                "{} ships {name}, which is for tests only",
                package.name
            );
        }
    }
}

#[test]
fn every_workspace_crate_is_in_the_table() {
    for package in metadata().workspace_packages() {
        let name = package.name.as_str();
        let listed = FLOORS.iter().any(|room| room.name == name);
        assert!(
            listed || BASEMENT.contains(&name) || name == "holdfast",
            "{name} has no row in the floor table: give it one here and in ARCHITECTURE.md"
        );
    }
}
