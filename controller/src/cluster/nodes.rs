//! Whether a node is there, not there, or gone for good.

use holdfast_api::BlockPool;
use k8s_openapi::api::core::v1::Node;
use kube::ResourceExt;

/// Put on a Node or on one of its BlockPools by a person who knows that it does not come back.
const GONE_ANNOTATION: &str = "holdfast.dev/node-gone";
/// Kubernetes' own word for the same.
const OUT_OF_SERVICE: &str = "node.kubernetes.io/out-of-service";

/// What the cluster says of a node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Standing {
    /// It is there, ready or not: a node that does not answer may still run VMs.
    There,
    /// It has no Node object.
    Absent,
    /// A person says so.
    DeclaredGone,
}

pub(super) fn standing(name: &str, node: Option<&Node>, pools: &[BlockPool]) -> Standing {
    let declared_by_pool = pools
        .iter()
        .any(|pool| pool.spec.node_name == name && is_declared_gone(pool.annotations()));
    let declared_by_node = node.is_some_and(|node| {
        is_declared_gone(node.annotations()) || taints(node).any(|taint| taint == OUT_OF_SERVICE)
    });
    match node {
        _ if declared_by_pool || declared_by_node => Standing::DeclaredGone,
        Some(_) => Standing::There,
        None => Standing::Absent,
    }
}

fn is_declared_gone(annotations: &std::collections::BTreeMap<String, String>) -> bool {
    annotations
        .get(GONE_ANNOTATION)
        .is_some_and(|v| v == "true")
}

fn taints(node: &Node) -> impl Iterator<Item = &str> {
    let spec = node.spec.as_ref();
    let taints = spec.and_then(|spec| spec.taints.as_ref());
    taints.into_iter().flatten().map(|taint| taint.key.as_str())
}

#[cfg(test)]
mod tests {
    use super::*;
    use holdfast_api::BlockPoolSpec;
    use k8s_openapi::api::core::v1::{NodeCondition, NodeSpec, NodeStatus, Taint};

    fn node(taint: &str) -> Node {
        let taint = Taint {
            key: taint.to_owned(),
            effect: "NoExecute".to_owned(),
            ..Default::default()
        };
        let mut node = Node {
            spec: Some(NodeSpec {
                taints: Some(vec![taint]),
                ..Default::default()
            }),
            ..Default::default()
        };
        node.metadata.name = Some("n1".to_owned());
        node
    }

    fn pool(node: &str, gone: &str) -> BlockPool {
        let spec = BlockPoolSpec {
            node_name: node.to_owned(),
            ..Default::default()
        };
        let mut pool = BlockPool::new("p", spec);
        let annotation = (GONE_ANNOTATION.to_owned(), gone.to_owned());
        pool.metadata.annotations = Some([annotation].into());
        pool
    }

    #[test]
    fn node_that_is_only_unreachable_is_there() {
        let mut silent = node("node.kubernetes.io/unreachable");
        silent.status = Some(NodeStatus {
            conditions: Some(vec![NodeCondition {
                type_: "Ready".to_owned(),
                status: "Unknown".to_owned(),
                ..Default::default()
            }]),
            ..Default::default()
        });
        assert_eq!(standing("n1", Some(&silent), &[]), Standing::There);
    }

    #[test]
    fn node_is_declared_gone_by_taint_or_annotation_of_node_or_pool() {
        let tainted = node(OUT_OF_SERVICE);
        let mut noted = node("other");
        let annotation = (GONE_ANNOTATION.to_owned(), "true".to_owned());
        noted.metadata.annotations = Some([annotation].into());
        for (node, pools) in [
            (Some(&tainted), vec![]),
            (Some(&noted), vec![]),
            (None, vec![pool("n1", "true")]),
        ] {
            assert_eq!(standing("n1", node, &pools), Standing::DeclaredGone);
        }
    }

    #[test]
    fn word_on_another_node_or_another_word_declares_nothing() {
        for pools in [vec![pool("n2", "true")], vec![pool("n1", "false")]] {
            assert_eq!(standing("n1", None, &pools), Standing::Absent);
        }
    }
}
