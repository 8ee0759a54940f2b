//! Requests put together at random from values that are good, odd or wrong: every answer is a code that callers know how to take,
//! and what was refused leaves nothing behind.
#![allow(clippy::unwrap_used)]

mod common;

use common::{House, MIB, NODE};
use holdfast_api::TOPOLOGY_KEY;
use holdfast_proto::csi::v1::volume_capability::{
    AccessMode, AccessType, BlockVolume, MountVolume,
};
use holdfast_proto::csi::v1::{
    CapacityRange, CreateVolumeRequest, Topology, TopologyRequirement, VolumeCapability,
};
use rand::rngs::StdRng;
use rand::seq::IndexedRandom;
use rand::{Rng, SeedableRng};
use std::collections::{BTreeSet, HashMap};
use tonic::Code;

const REQUESTS: usize = 1000;
const SEED: &str = "HOLDFAST_TEST_SEED";

const NAMES: &[&str] = &["a", "b", "", "B", "../a", "a\0b", "ü", "a b", "-", "v-0"];
const SIZES: &[i64] = &[
    0,
    1,
    -1,
    1 << 20,
    (1 << 20) + 1,
    8 << 20,
    1 << 60,
    i64::MAX,
    i64::MIN,
];
const KEYS: &[&str] = &[
    "pool",
    "onDeviceLoss",
    "holdSeconds",
    "csi.storage.k8s.io/x",
    "",
    "Pool",
];
const VALUES: &[&str] = &["p1", "p2", "none", "hold", "fail", "7", "-7", "", "../p1"];
const NODES: &[&str] = &[NODE, "n2", "n9", ""];
const TOPOLOGY_KEYS: &[&str] = &[TOPOLOGY_KEY, TOPOLOGY_KEY, TOPOLOGY_KEY, "zone"];

fn one<T: Clone>(random: &mut StdRng, of: &[T]) -> T {
    of.choose(random).unwrap().clone()
}

fn few<T>(random: &mut StdRng, mut make: impl FnMut(&mut StdRng) -> T) -> Vec<T> {
    let count = one(random, &[0, 0, 0, 1, 2]);
    (0..count).map(|_| make(random)).collect()
}

fn pair(random: &mut StdRng, keys: &[&str], values: &[&str]) -> (String, String) {
    (one(random, keys).to_owned(), one(random, values).to_owned())
}

fn capability(random: &mut StdRng) -> VolumeCapability {
    let mount = AccessType::Mount(MountVolume::default());
    let block = AccessType::Block(BlockVolume {});
    let types = [
        Some(mount.clone()),
        Some(mount.clone()),
        Some(mount),
        Some(block),
        None,
    ];
    VolumeCapability {
        access_type: one(random, &types),
        access_mode: one(
            random,
            &[Some(1), Some(1), Some(6), Some(7), Some(5), Some(99), None],
        )
        .map(|mode| AccessMode { mode }),
    }
}

fn topology(random: &mut StdRng) -> Topology {
    let segments = few(random, |random| pair(random, TOPOLOGY_KEYS, NODES));
    Topology {
        segments: segments.into_iter().collect(),
    }
}

fn request(random: &mut StdRng) -> CreateVolumeRequest {
    let range = CapacityRange {
        required_bytes: one(random, SIZES),
        limit_bytes: one(random, &[0, 0, 0, 1, 8 << 20, -1]),
    };
    let required = TopologyRequirement {
        requisite: few(random, topology),
        preferred: few(random, topology),
    };
    let parameters: HashMap<String, String> = few(random, |random| pair(random, KEYS, VALUES))
        .into_iter()
        .collect();
    let mut capabilities = vec![capability(random)];
    capabilities.extend(few(random, capability));
    CreateVolumeRequest {
        name: one(random, NAMES).to_owned(),
        capacity_range: random.random_bool(0.9).then_some(range),
        volume_capabilities: capabilities,
        parameters,
        accessibility_requirements: random.random_bool(0.5).then_some(required),
        ..Default::default()
    }
}

#[tokio::test]
async fn odd_request_is_answered_by_a_known_code_and_leaves_nothing_when_refused() {
    let seed = std::env::var(SEED).map_or_else(|_| rand::random(), |seed| seed.parse().unwrap());
    println!("{SEED}={seed}");
    let mut random = StdRng::seed_from_u64(seed);
    let house = House::with_pools(&[("p1", NODE, 64 * MIB), ("p2", "n2", 16 * MIB)]).await;
    let known = [
        Code::InvalidArgument,
        Code::AlreadyExists,
        Code::ResourceExhausted,
        Code::OutOfRange,
    ];
    let (mut made, mut refused) = (BTreeSet::new(), 0);
    for _ in 0..REQUESTS {
        let request = request(&mut random);
        match house.create(request.clone()).await {
            Ok(volume) => {
                made.insert(volume.volume_id);
            }
            Err(status) => {
                refused += 1;
                assert!(known.contains(&status.code()), "{status}: {request:?}");
                assert!(!status.message().is_empty(), "{request:?}");
            }
        }
        let there: BTreeSet<String> = house.list(0, "").await.unwrap().0.into_iter().collect();
        assert_eq!(there, made, "after {request:?}");
        if random.random_bool(0.1)
            && let Some(id) = made.pop_first()
        {
            house.delete(&id).await.unwrap();
        }
    }
    assert!(
        refused > REQUESTS / 10 && refused < REQUESTS,
        "{refused} refused: no fair mix"
    );
}
