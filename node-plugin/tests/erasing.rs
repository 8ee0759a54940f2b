//! A drive that takes no zeros where a deleted volume was: that is told, and the space is nobody's until it does.
#![allow(clippy::unwrap_used)]

mod common;

use common::{Machine, POOL, VOLUME, VOLUME_BYTES};
use holdfast_api::{BlockPool, Condition, SplitVolume, condition, conditions};
use holdfast_bdev::{Effect, ErrorDevice, Fault, FaultOp, Uring, UringOptions};
use holdfast_dataplane::{Extent, Opener};
use holdfast_store::Store;
use std::sync::{Arc, Mutex};

const EIO: i32 = 5;

/// The drives that an engine has opened, to switch their faults.
type Opened = Arc<Mutex<Vec<ErrorDevice>>>;

fn opener(opened: &Opened) -> Opener {
    let opened = Arc::clone(opened);
    Opener::new(move |path| {
        let drive = Uring::open(path, UringOptions::default())?;
        let drive = ErrorDevice::new(Arc::new(drive));
        opened.lock().unwrap().push(drive.clone());
        Ok(Arc::new(drive))
    })
}

/// The drive answers with errors wherever the extents are; its table is elsewhere.
fn spoil(opened: &Opened, extents: &[Extent]) {
    for drive in &*opened.lock().unwrap() {
        for extent in extents {
            let bytes = extent.offset_bytes..extent.offset_bytes + extent.length_bytes;
            for operation in [FaultOp::WriteZeroes, FaultOp::Write] {
                let fault = Fault::new(Effect::Fail(EIO)).within(bytes.clone());
                drive.inject(fault.on(operation));
            }
        }
    }
}

fn erased(pool: &BlockPool) -> Option<Condition> {
    condition(&pool.status.as_ref()?.conditions, conditions::ERASED).cloned()
}

fn free(pool: &BlockPool) -> u64 {
    pool.status.as_ref().unwrap().free_bytes
}

#[test]
fn space_that_cannot_be_erased_is_told_and_kept_out_of_use_until_it_can() {
    let opened = Opened::default();
    let machine = Machine::new();
    machine.run_with(opener(&opened), |node| async move {
        node.make_pool(POOL).await;
        node.make_volume(VOLUME, VOLUME_BYTES).await;
        let has_it = |pool: &BlockPool| pool.status.as_ref().is_some_and(|s| s.volumes == 1);
        let before = node.until_pool(POOL, has_it).await;
        let on_drive = node.engine.volume(POOL, VOLUME).unwrap().unwrap();
        spoil(&opened, &on_drive.extents);
        node.store.delete::<SplitVolume>(VOLUME).await.unwrap();
        node.until_gone::<SplitVolume>(VOLUME).await;

        let stuck = node.until_pool(POOL, |pool| erased(pool).is_some()).await;
        let told = erased(&stuck).unwrap();
        assert_eq!((&*told.status, &*told.reason), ("False", "EraseFailed"));
        assert!(told.message.contains("erasing"), "{}", told.message);
        assert_eq!(free(&stuck), free(&before));
        let status = stuck.status.unwrap();
        assert_eq!(status.erase_pending_bytes, VOLUME_BYTES);
        // What is left is still given out, and nothing of what is not erased.
        let rest = node.make_volume("rest", free(&before)).await;
        let places = rest.status.unwrap().extents;
        let overlap = places.iter().any(|given| {
            on_drive.extents.iter().any(|kept| {
                given.offset_bytes < kept.offset_bytes + kept.length_bytes
                    && kept.offset_bytes < given.offset_bytes + given.length_bytes
            })
        });
        assert!(!overlap, "space with somebody's data was given away");

        for drive in &*opened.lock().unwrap() {
            drive.clear();
        }
        let well = |pool: &BlockPool| erased(pool).is_none() && free(pool) == VOLUME_BYTES;
        node.until_pool(POOL, well).await;
    });
}
