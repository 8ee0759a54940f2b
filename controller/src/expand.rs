//! ControllerExpandVolume: raise the intent, wait until the drive has it. The agent grows live exports too, so nothing is left
//! for the node call to do.

use crate::Controller;
use crate::error::ControllerError;
use crate::volume;
use crate::wait::Patience;
use holdfast_api::{ALIGNMENT_BYTES, SplitVolume, quantity};
use holdfast_csi::{SizeRange, check_capability, check_capacity};
use holdfast_proto::csi::v1::{ControllerExpandVolumeRequest, ControllerExpandVolumeResponse};
use holdfast_store::Store;

/// How growing ended.
enum Outcome {
    Grown(u64),
    Refused { message: String },
    Gone,
}

pub(crate) async fn expand<S: Store>(
    controller: &Controller<S>,
    request: ControllerExpandVolumeRequest,
) -> Result<ControllerExpandVolumeResponse, tonic::Status> {
    let id = request.volume_id;
    if id.is_empty() {
        return Err(ControllerError::Missing { field: "volume_id" }.into());
    }
    if request.capacity_range.is_none() {
        return Err(ControllerError::Missing {
            field: "capacity_range",
        }
        .into());
    }
    let range = check_capacity(request.capacity_range.as_ref())?;
    if request.volume_capability.is_some() {
        check_capability(request.volume_capability.as_ref())?;
    }
    let store = controller.store.clone();
    let patience = Patience::new(controller.config.wait);
    let name = id.clone();
    let work = async move {
        let bytes = grow(&store, &name, range, patience).await?;
        Ok(ControllerExpandVolumeResponse {
            capacity_bytes: i64::try_from(bytes).unwrap_or(i64::MAX),
            node_expansion_required: false,
        })
    };
    controller.operations.run(&id, work).await
}

/// Returns the bytes on the drive, which are enough.
async fn grow<S: Store>(
    store: &S,
    id: &str,
    range: SizeRange,
    patience: Patience,
) -> Result<u64, ControllerError> {
    let (step, _) = volume::change(store, id, |volume| raise(volume, id, range)).await?;
    let wanted = match step {
        Step::Enough(bytes) => return Ok(bytes),
        Step::Asked(bytes) => bytes,
    };
    let judge = |seen| judge(seen, wanted);
    match patience.volume(store, id, "grown", judge).await? {
        Outcome::Grown(bytes) => {
            tracing::info!(volume = id, bytes, "Volume grown");
            Ok(bytes)
        }
        Outcome::Gone => Err(ControllerError::NotFound {
            volume: id.to_owned(),
        }),
        Outcome::Refused { message } => {
            volume::change(store, id, withdraw).await?;
            Err(ControllerError::CannotGrow {
                volume: id.to_owned(),
                bytes: wanted,
                why: message,
            })
        }
    }
}

/// What is left to do for a volume to be large enough.
enum Step {
    /// Nothing: it has these bytes.
    Enough(u64),
    /// The agent is asked for these bytes.
    Asked(u64),
}

fn raise(volume: &mut SplitVolume, id: &str, range: SizeRange) -> Result<Step, ControllerError> {
    let volume_name = || id.to_owned();
    if volume::is_deleting(volume) {
        return Err(ControllerError::Deleting {
            volume: volume_name(),
        });
    }
    let actual = volume::size_bytes(volume);
    if let Some(limit) = range.limit
        && actual > limit
    {
        return Err(ControllerError::CannotShrink {
            volume: volume_name(),
            actual,
            limit,
        });
    }
    if range.contains(actual) && volume::is_allocated(volume) {
        return Ok(Step::Enough(actual));
    }
    let wanted = range.choose(ALIGNMENT_BYTES, actual)?.max(actual);
    volume.spec.size = quantity(wanted);
    Ok(Step::Asked(wanted))
}

/// Takes a wish back that was refused, so that the agent does not grow the volume when nobody expects it any more. This is no
/// shrinking: the drive never had more.
fn withdraw(volume: &mut SplitVolume) -> Result<(), ControllerError> {
    volume.spec.size = quantity(volume::size_bytes(volume));
    Ok(())
}

fn judge(volume: Option<SplitVolume>, wanted: u64) -> Option<Outcome> {
    let Some(volume) = volume else {
        return Some(Outcome::Gone);
    };
    let on_drive = volume.status.as_ref().map_or(0, |status| status.size_bytes);
    if on_drive >= wanted {
        return Some(Outcome::Grown(on_drive));
    }
    volume::refusal(&volume).map(|condition| Outcome::Refused {
        message: condition.message.clone(),
    })
}
