//! Mutable parameters: the limits of a VolumeAttributesClass. The class says everything: a limit it does not name is none.

use crate::error::ControllerError;
use crate::parameters::bad;
use holdfast_api::{Qos, parse_quantity};
use std::collections::HashMap;

const IOPS: &str = "iops";
const IOPS_BURST: &str = "iopsBurst";
const BPS: &str = "bps";
const BPS_BURST: &str = "bpsBurst";

/// The limits that mutable parameters ask for; none for no parameters.
pub(crate) fn parse(given: &HashMap<String, String>) -> Result<Option<Qos>, ControllerError> {
    let mut qos = Qos::default();
    for (name, value) in given {
        match name.as_str() {
            IOPS => qos.iops = Some(count(IOPS, value)?),
            IOPS_BURST => qos.iops_burst = Some(count(IOPS_BURST, value)?),
            BPS => qos.bps = Some(bytes(BPS, value)?),
            BPS_BURST => qos.bps_burst = Some(bytes(BPS_BURST, value)?),
            _ => {
                return Err(ControllerError::UnknownParameter {
                    name: name.clone(),
                    known: [IOPS, IOPS_BURST, BPS, BPS_BURST].join(", "),
                });
            }
        }
    }
    needs(IOPS_BURST, qos.iops_burst, IOPS, qos.iops)?;
    needs(BPS_BURST, qos.bps_burst, BPS, qos.bps)?;
    Ok((!given.is_empty()).then_some(qos))
}

/// In what a volume's limits differ from those asked for, if they do.
pub(crate) fn difference(asked: Option<Qos>, has: Option<Qos>) -> Option<String> {
    let told = |qos: Option<Qos>| qos.map_or("no limits".to_owned(), |qos| format!("{qos:?}"));
    (asked != has).then(|| format!("it has {}, asked for is {}", told(has), told(asked)))
}

fn needs(
    burst_name: &'static str,
    burst: Option<u64>,
    rate_name: &'static str,
    rate: Option<u64>,
) -> Result<(), ControllerError> {
    if burst.is_some() && rate.is_none() {
        return Err(ControllerError::Contradiction {
            name: burst_name,
            why: format!("it is what may be done at once beyond {rate_name}, which is not given"),
        });
    }
    Ok(())
}

fn count(name: &'static str, value: &str) -> Result<u64, ControllerError> {
    let given: Option<i64> = value.parse().ok();
    given
        .and_then(|given| u64::try_from(given).ok())
        .filter(|count| *count > 0)
        .ok_or_else(|| bad(name, value, "a whole number above 0"))
}

fn bytes(name: &'static str, value: &str) -> Result<u64, ControllerError> {
    parse_quantity(value)
        .ok()
        .filter(|bytes| *bytes > 0)
        .ok_or_else(|| bad(name, value, "bytes above 0, such as 1048576 or 100Mi"))
}
