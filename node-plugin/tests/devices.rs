//! Drives that people let go of and give back: what the next process knows of it. With a machine on them: `cli/tests/device.rs`.
#![allow(clippy::unwrap_used)]

mod common;

use common::{Machine, Node, POOL};
use holdfast_api::BlockPool;
use holdfast_node::DeviceService;
use holdfast_proto::holdfast::v1alpha1::devices_server::Devices;
use holdfast_proto::holdfast::v1alpha1::{AddRequest, Device, DeviceState, RemoveRequest};
use holdfast_store::Store;
use std::fs;
use tonic::{Code, Request, Status};

const OTHER: &str = "pool-2";

async fn remove(node: &Node, pool: &str) -> Result<Device, Status> {
    let service = DeviceService::new(node.agent.clone());
    let pool = pool.to_owned();
    let answer = service.remove(Request::new(RemoveRequest { pool })).await;
    Ok(answer?.into_inner().device.unwrap())
}

async fn add(node: &Node, pool: &str) -> Device {
    let service = DeviceService::new(node.agent.clone());
    let request = AddRequest {
        pool: pool.to_owned(),
        ..Default::default()
    };
    let answer = service.add(Request::new(request)).await.unwrap();
    answer.into_inner().device.unwrap()
}

/// What the next process opens. Not by the status, which may be that of the last.
fn check_that_the_next_process_opens(machine: &Machine, pool: &'static str) {
    machine.run(|node| async move {
        node.agent.wait_ready().await;
        let opened = node.engine.pool(pool);
        assert!(opened.is_ok_and(|opened| !opened.lost), "{pool}");
    });
}

/// A machine with two pools, of which one was let go of by a process that has ended.
fn machine_without_one() -> Machine {
    let machine = Machine::new();
    machine.run(|node| async move {
        node.make_pool(POOL).await;
        node.make_pool(OTHER).await;
        let device = remove(&node, POOL).await.unwrap();
        assert_eq!(device.state(), DeviceState::Removed);
    });
    machine
}

#[test]
fn drive_let_go_of_stays_so_and_keeps_no_other_from_being_opened() {
    let machine = machine_without_one();
    machine.run(|node| async move {
        node.agent.wait_ready().await;
        assert!(node.engine.pool(OTHER).is_ok());
        assert!(node.engine.pool(POOL).is_err(), "its drive is there");
        let again = remove(&node, POOL).await.unwrap();
        assert_eq!(again.state(), DeviceState::Removed);
        assert_eq!(add(&node, POOL).await.state(), DeviceState::Present);
    });
    check_that_the_next_process_opens(&machine, POOL);
}

#[test]
fn drive_given_back_to_the_process_that_let_go_of_it_is_opened_by_the_next() {
    let machine = Machine::new();
    machine.run(|node| async move {
        node.make_pool(POOL).await;
        remove(&node, POOL).await.unwrap();
        assert_eq!(add(&node, POOL).await.state(), DeviceState::Present);
    });
    check_that_the_next_process_opens(&machine, POOL);
}

#[test]
fn drive_stays_in_use_if_letting_go_of_it_cannot_be_remembered() {
    let machine = Machine::new();
    fs::create_dir_all(machine.path("s")).unwrap();
    fs::write(machine.path("s").join("removed-drives"), "a file").unwrap();
    machine.run(|node| async move {
        node.make_pool(POOL).await;
        let refused = remove(&node, POOL).await.unwrap_err();
        assert_eq!(refused.code(), Code::Internal, "{refused}");
        assert!(refused.message().contains("removed-drives"), "{refused}");
        let pool = node.engine.pool(POOL).unwrap();
        assert!(!pool.lost && !pool.removed, "{pool:?}");
    });
}

#[test]
fn pool_deleted_while_its_drive_is_away_may_be_made_again() {
    let machine = Machine::new();
    let remembered = machine.path("s").join("removed-drives").join(POOL);
    machine.run(|node| async move {
        node.make_pool(POOL).await;
        remove(&node, POOL).await.unwrap();
        assert!(remembered.exists());
        node.store.delete::<BlockPool>(POOL).await.unwrap();
        while remembered.exists() {
            tokio::task::yield_now().await;
        }
        node.make_pool(POOL).await;
    });
}
