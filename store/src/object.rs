//! The kinds a store keeps, and the few fields of their metadata that it works on.

use holdfast_api::{BlockPool, OrphanExtent, SplitVolume, VolumeSession};
use kube::Resource;
use kube::core::object::{HasSpec, HasStatus};
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::fmt::Debug;

mod sealed {
    pub trait Sealed {}
}

/// A kind that a store keeps: [`BlockPool`], [`SplitVolume`], [`VolumeSession`] or [`OrphanExtent`].
pub trait Object:
    Resource<DynamicType = ()>
    + HasSpec<Spec: PartialEq + Clone + Send>
    + HasStatus<Status: PartialEq + Send>
    + Clone
    + Debug
    + PartialEq
    + Serialize
    + DeserializeOwned
    + Send
    + Sync
    + sealed::Sealed
    + 'static
{
}

impl sealed::Sealed for BlockPool {}
impl sealed::Sealed for SplitVolume {}
impl sealed::Sealed for VolumeSession {}
impl sealed::Sealed for OrphanExtent {}
impl Object for BlockPool {}
impl Object for SplitVolume {}
impl Object for VolumeSession {}
impl Object for OrphanExtent {}

/// The plural of every kind: the name of its directory and of its watch.
pub(crate) fn plurals() -> [String; 4] {
    [
        plural::<BlockPool>(),
        plural::<SplitVolume>(),
        plural::<VolumeSession>(),
        plural::<OrphanExtent>(),
    ]
}

pub(crate) fn plural<K: Object>() -> String {
    K::plural(&()).into_owned()
}

pub(crate) fn name<K: Object>(object: &K) -> &str {
    object.meta().name.as_deref().unwrap_or_default()
}
