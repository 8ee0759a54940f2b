//! Parameters of a StorageClass. One that is unknown is refused, because a wish that is not heard is worse than an error.

use crate::error::ControllerError;
use holdfast_api::{ClaimRef, OnDeviceLoss, SplitVolumeSpec};
use std::collections::HashMap;

const POOL: &str = "pool";
const ON_DEVICE_LOSS: &str = "onDeviceLoss";
const HOLD_SECONDS: &str = "holdSeconds";
const HOLD_SECONDS_DEFAULT: u32 = 60;
/// Keys that the external provisioner adds for drivers that want them.
const PROVISIONER_PREFIX: &str = "csi.storage.k8s.io/";
const CLAIM_NAMESPACE: &str = "csi.storage.k8s.io/pvc/namespace";
const CLAIM_NAME: &str = "csi.storage.k8s.io/pvc/name";
const PERSISTENT_VOLUME: &str = "csi.storage.k8s.io/pv/name";

/// What a caller asks of a volume beside its size.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Parameters {
    /// The pool it must come from; any if not said.
    pub(crate) pool: Option<String>,
    pub(crate) on_device_loss: OnDeviceLoss,
    pub(crate) hold_seconds: u32,
}

impl Parameters {
    pub(crate) fn parse(given: &HashMap<String, String>) -> Result<Self, ControllerError> {
        let mut parsed = Self {
            pool: None,
            on_device_loss: OnDeviceLoss::default(),
            hold_seconds: HOLD_SECONDS_DEFAULT,
        };
        for (name, value) in given {
            match name.as_str() {
                POOL => parsed.pool = Some(pool(value)?),
                ON_DEVICE_LOSS => parsed.on_device_loss = on_device_loss(value)?,
                HOLD_SECONDS => parsed.hold_seconds = hold_seconds(value)?,
                provisioner if provisioner.starts_with(PROVISIONER_PREFIX) => {}
                _ => {
                    return Err(ControllerError::UnknownParameter {
                        name: name.clone(),
                        known: [POOL, ON_DEVICE_LOSS, HOLD_SECONDS].join(", "),
                    });
                }
            }
        }
        if parsed.on_device_loss == OnDeviceLoss::Fail && given.contains_key(HOLD_SECONDS) {
            return Err(ControllerError::Contradiction {
                name: HOLD_SECONDS,
                why: format!("with {ON_DEVICE_LOSS} \"fail\" nothing is held"),
            });
        }
        Ok(parsed)
    }

    /// In what a volume differs from these parameters, if it does.
    pub(crate) fn difference(&self, spec: &SplitVolumeSpec) -> Option<String> {
        let wanted_pool = self.pool.as_deref().unwrap_or(&spec.pool);
        let differs = |name: &str, has: &dyn std::fmt::Debug, wanted: &dyn std::fmt::Debug| {
            Some(format!("{name} is {has:?}, asked for is {wanted:?}"))
        };
        if spec.pool != wanted_pool {
            differs(POOL, &spec.pool, &wanted_pool)
        } else if spec.on_device_loss != self.on_device_loss {
            differs(ON_DEVICE_LOSS, &spec.on_device_loss, &self.on_device_loss)
        } else if spec.hold_seconds != self.hold_seconds {
            differs(HOLD_SECONDS, &spec.hold_seconds, &self.hold_seconds)
        } else {
            None
        }
    }
}

/// The claim that a volume is made for, where the provisioner says (`--extra-create-metadata`).
pub(crate) fn claim(given: &HashMap<String, String>) -> Option<ClaimRef> {
    let value = |key: &str| given.get(key).filter(|value| !value.is_empty()).cloned();
    Some(ClaimRef {
        namespace: value(CLAIM_NAMESPACE)?,
        name: value(CLAIM_NAME)?,
        persistent_volume: value(PERSISTENT_VOLUME).unwrap_or_default(),
    })
}

fn pool(value: &str) -> Result<String, ControllerError> {
    holdfast_api::check_object_name(value)
        .map(|()| value.to_owned())
        .map_err(|_| bad(POOL, value, "the name of a BlockPool"))
}

fn on_device_loss(value: &str) -> Result<OnDeviceLoss, ControllerError> {
    match value {
        "hold" => Ok(OnDeviceLoss::Hold),
        "fail" => Ok(OnDeviceLoss::Fail),
        _ => Err(bad(ON_DEVICE_LOSS, value, "hold or fail")),
    }
}

fn hold_seconds(value: &str) -> Result<u32, ControllerError> {
    value
        .parse()
        .map_err(|_| bad(HOLD_SECONDS, value, "a whole number of seconds"))
}

pub(crate) fn bad(name: &'static str, value: &str, expected: &'static str) -> ControllerError {
    ControllerError::BadParameter {
        name,
        value: value.to_owned(),
        expected,
    }
}
