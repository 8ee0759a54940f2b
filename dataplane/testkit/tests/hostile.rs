//! The catalogue of attacks against the reference engine: the oracle must survive what the product must survive.
#![allow(clippy::unwrap_used)]

use holdfast_bdev::Malloc;
use holdfast_testkit::frontend::Guest;
use holdfast_testkit::raw::{Message, RawPeer, hostile, request};
use holdfast_testkit::reference::{ReferenceConfig, ReferenceEngine};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

const DEADLINE: Duration = Duration::from_secs(10);

fn serve() -> (ReferenceEngine, PathBuf, tempfile::TempDir) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("v.sock");
    let device = Arc::new(Malloc::new(1 << 20, 512).unwrap());
    let engine = ReferenceEngine::serve(&path, device, ReferenceConfig::default()).unwrap();
    (engine, path, dir)
}

#[test]
fn honest_bytes_are_understood() {
    let (_engine, path, _dir) = serve();
    let mut peer = RawPeer::connect(path, DEADLINE).unwrap();
    peer.shake_hands().unwrap();
    let reply = peer
        .ask(&Message::new(request::GET_QUEUE_NUM))
        .unwrap()
        .unwrap();
    assert_eq!(
        (reply.request, reply.flags & 4, reply.value()),
        (request::GET_QUEUE_NUM, 4, Some(4))
    );
    peer.wait_hang_up().unwrap();
}

#[test]
fn engine_outlives_every_attack() {
    let (_engine, path, _dir) = serve();
    let attacks = hostile::catalogue().unwrap();
    assert!(attacks.len() > 70, "{}", attacks.len());
    for attack in attacks {
        let name = attack.name;
        let peer = RawPeer::connect(&path, DEADLINE).unwrap();
        attack
            .carry_out(peer)
            .unwrap_or_else(|error| panic!("{name}: {error}"));
        let mut guest = Guest::builder()
            .connect(&path)
            .unwrap_or_else(|e| panic!("{name}: {e}"));
        guest
            .queue(0)
            .read(0, 512)
            .unwrap_or_else(|e| panic!("{name}: {e}"));
    }
}
