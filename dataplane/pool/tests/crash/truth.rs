//! What a drive shows to whoever opens it, and what must be true of its bytes.

use crate::drive::Drive;
use crate::image::Image;
use holdfast_pool::{EXTENT_BYTES, Extent, Pending, Pool, PoolError, Volume};
use std::collections::BTreeMap;
use std::sync::Arc;

pub(crate) const MIB: u64 = EXTENT_BYTES;
pub(crate) const HEAD: u64 = 6 * MIB;

/// What opening a drive finds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Found {
    Pool(Vec<Volume>, Vec<Pending>),
    Blank,
    Foreign,
    Interrupted,
}

/// What each tenant has written: its own byte, and the pages that were flushed.
pub(crate) type Tenants = BTreeMap<String, Tenant>;

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Tenant {
    pub(crate) byte: u8,
    pub(crate) flushed: Vec<u64>,
}

impl Found {
    pub(crate) fn of(pool: &Pool) -> Found {
        Found::Pool(pool.volumes(), pool.pending())
    }

    pub(crate) fn from(opened: &Result<Pool, PoolError>) -> Found {
        match opened {
            Ok(pool) => Found::of(pool),
            Err(PoolError::NotAPool) => Found::Blank,
            Err(PoolError::Foreign { .. }) => Found::Foreign,
            Err(PoolError::FormatInterrupted) => Found::Interrupted,
            Err(other) => panic!("{other}"),
        }
    }
}

/// Opens a crashed drive, checks everything that must hold, and returns what was found.
pub(crate) fn examine(drive: &Arc<Drive>, tenants: &Tenants) -> Found {
    let image = drive.image();
    let inspected = Pool::inspect(&**drive).unwrap().pool;
    let opened = Pool::open(drive.clone());
    let found = Found::from(&opened);
    assert_eq!(inspected.is_some(), opened.is_ok(), "inspect disagrees");
    let Ok(pool) = opened else { return found };
    let Found::Pool(volumes, pending) = &found else {
        unreachable!("an open pool")
    };
    if pool.mended().is_empty() {
        let shown = inspected.unwrap();
        assert_eq!((&shown.volumes, &shown.pending), (volumes, pending));
    }
    check_bytes(&image, volumes, pending, tenants);
    let again = Pool::open(drive.clone()).unwrap();
    assert!(again.mended().is_empty(), "{:?}", again.mended());
    assert_eq!(Found::of(&again), found, "opening twice");
    found
}

/// Each byte has at most one owner; a byte without one is zero; a tenant sees its own bytes, all that were flushed, or zeros.
fn check_bytes(image: &Image, volumes: &[Volume], pending: &[Pending], tenants: &Tenants) {
    let owned = volumes.iter().map(|volume| &volume.extents);
    let waiting = pending.iter().map(|waiting| &waiting.extents);
    let mut all: Vec<Extent> = owned.chain(waiting).flatten().copied().collect();
    all.sort_by_key(|extent| extent.offset_bytes);
    for pair in all.windows(2) {
        assert!(
            end(&pair[0]) <= pair[1].offset_bytes,
            "two owners: {pair:?}"
        );
    }
    for (at, page) in image.non_zero().filter(|(at, _)| *at >= HEAD) {
        assert!(
            all.iter().any(|extent| holds(extent, at)),
            "leftover at {at}"
        );
        if let Some(volume) = volumes.iter().find(|volume| holds_any(volume, at)) {
            let own = tenants.get(&volume.id).map_or(0, |tenant| tenant.byte);
            assert!(
                page.iter().all(|byte| [0, own].contains(byte)),
                "{:?} reads another tenant's bytes at {at}",
                volume.id
            );
        }
    }
    for volume in volumes {
        for at in tenants
            .get(&volume.id)
            .iter()
            .flat_map(|tenant| &tenant.flushed)
        {
            let mut page = [0; 4096];
            image.read(*at, &mut page);
            assert_eq!(
                page, [tenants[&volume.id].byte; 4096],
                "flushed bytes at {at}"
            );
        }
    }
}

fn holds_any(volume: &Volume, at: u64) -> bool {
    volume.extents.iter().any(|extent| holds(extent, at))
}

fn holds(extent: &Extent, at: u64) -> bool {
    (extent.offset_bytes..end(extent)).contains(&at)
}

fn end(extent: &Extent) -> u64 {
    extent.offset_bytes + extent.length_bytes
}
