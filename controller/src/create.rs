//! CreateVolume: look for the volume first, place it only if it is not there, wait for the agent's verdict.

use crate::error::ControllerError;
use crate::parameters::{self, Parameters};
use crate::placement::{self, Nodes, Readiness};
use crate::wait::Patience;
use crate::{Controller, delete, limits, volume};
use holdfast_api::{
    ALIGNMENT_BYTES, BlockPool, ClaimRef, NODE_FINALIZER, Qos, SplitVolume, SplitVolumeSpec,
    quantity, reasons, volume_id,
};
use holdfast_csi::{SizeRange, check_capabilities, check_capacity};
use holdfast_proto::csi::v1::volume_content_source::Type as SourceType;
use holdfast_proto::csi::v1::{CreateVolumeRequest, CreateVolumeResponse, VolumeContentSource};
use holdfast_store::Store;

/// The size of a volume whose caller named none.
const DEFAULT_BYTES: u64 = 1 << 30;
/// CSI's limit for the length of a name.
const NAME_BYTES_MAX: usize = 128;

/// A checked CreateVolume call.
struct Wish {
    csi_name: String,
    id: String,
    range: SizeRange,
    size_bytes: u64,
    parameters: Parameters,
    qos: Option<Qos>,
    claim: Option<ClaimRef>,
    nodes: Nodes,
}

/// How the agent judged a volume.
enum Verdict {
    Allocated(Box<SplitVolume>),
    Refused {
        reason: String,
        message: String,
    },
    /// It was removed while we waited.
    Gone,
}

pub(crate) async fn create<S: Store>(
    controller: &Controller<S>,
    request: CreateVolumeRequest,
) -> Result<CreateVolumeResponse, tonic::Status> {
    let wish = check(request)?;
    let id = wish.id.clone();
    let store = controller.store.clone();
    let patience = Patience::new(controller.config.wait);
    let work = async move {
        let volume = make(&store, &wish, patience).await?;
        Ok(CreateVolumeResponse {
            volume: Some(volume::to_csi(&volume)),
        })
    };
    controller.operations.run(&id, work).await
}

fn check(request: CreateVolumeRequest) -> Result<Wish, ControllerError> {
    if request.name.is_empty() {
        return Err(ControllerError::Missing { field: "name" });
    }
    if request.name.len() > NAME_BYTES_MAX {
        return Err(ControllerError::NameTooLong {
            bytes: request.name.len(),
        });
    }
    check_capabilities(&request.volume_capabilities)?;
    check_source(request.volume_content_source.as_ref())?;
    let range = check_capacity(request.capacity_range.as_ref())?;
    Ok(Wish {
        id: volume_id(&request.name),
        csi_name: request.name,
        size_bytes: range.choose(ALIGNMENT_BYTES, DEFAULT_BYTES)?,
        range,
        parameters: Parameters::parse(&request.parameters)?,
        qos: limits::parse(&request.mutable_parameters)?,
        claim: parameters::claim(&request.parameters),
        nodes: Nodes::parse(request.accessibility_requirements.as_ref())?,
    })
}

fn check_source(source: Option<&VolumeContentSource>) -> Result<(), ControllerError> {
    let source_kind = match source.map(|source| &source.r#type) {
        None => return Ok(()),
        Some(Some(SourceType::Snapshot(_))) => "a snapshot",
        Some(Some(SourceType::Volume(_))) => "another volume",
        Some(None) => "a source of unknown kind",
    };
    Err(ControllerError::ContentSource { source_kind })
}

/// Finds or places the volume. Each pool is tried once: the agent is the judge of room, its status only a hint.
async fn make<S: Store>(
    store: &S,
    wish: &Wish,
    patience: Patience,
) -> Result<SplitVolume, ControllerError> {
    let mut refused_by: Vec<String> = Vec::new();
    if let Some(existing) = store.get::<SplitVolume>(&wish.id).await? {
        check_same(wish, &existing)?;
        if let Some(volume) = settle(store, wish, &existing, patience, &mut refused_by).await? {
            return Ok(volume);
        }
    }
    loop {
        let pool = choose_pool(store, wish, patience, &refused_by).await?;
        let created = store.create(wish.volume(&pool)).await?;
        tracing::info!(
            volume = wish.id,
            pool = placement::name(&pool),
            bytes = wish.size_bytes,
            "Volume placed"
        );
        if let Some(volume) = settle(store, wish, &created, patience, &mut refused_by).await? {
            return Ok(volume);
        }
    }
}

/// Refuses an existing volume that is not what was asked for.
fn check_same(wish: &Wish, existing: &SplitVolume) -> Result<(), ControllerError> {
    if volume::is_deleting(existing) {
        return Err(ControllerError::Deleting {
            volume: wish.id.clone(),
        });
    }
    let spec = &existing.spec;
    let size = volume::size_bytes(existing);
    let difference = if spec.requested_name != wish.requested_name() {
        Some("it was made under another name with the same id".to_owned())
    } else if !wish.range.contains(size) {
        Some(format!("it has {size} bytes, asked for is {}", wish.range))
    } else if !wish.nodes.allow(&spec.node_name) {
        Some(format!("it is on node {:?}", spec.node_name))
    } else {
        let parameters = wish.parameters.difference(spec);
        parameters.or_else(|| limits::difference(wish.qos, spec.qos))
    };
    match difference {
        None => Ok(()),
        Some(difference) => Err(ControllerError::Differs {
            volume: wish.id.clone(),
            difference,
        }),
    }
}

/// Waits for the agent's verdict. A volume it refuses for lack of room is removed before another pool is tried, so that nothing
/// is left of it; `None` then.
async fn settle<S: Store>(
    store: &S,
    wish: &Wish,
    placed: &SplitVolume,
    patience: Patience,
    refused_by: &mut Vec<String>,
) -> Result<Option<SplitVolume>, ControllerError> {
    let verdict = patience.volume(store, &wish.id, "allocated", judge).await?;
    let (reason, message) = match verdict {
        Verdict::Allocated(volume) => return Ok(Some(*volume)),
        Verdict::Gone => {
            return Err(ControllerError::Deleting {
                volume: wish.id.clone(),
            });
        }
        Verdict::Refused { reason, message } => (reason, message),
    };
    tracing::info!(volume = wish.id, %message, "Node refused the volume, removing it");
    delete::remove(store, &wish.id, patience).await?;
    if reason != reasons::NO_SPACE {
        return Err(ControllerError::Impossible {
            volume: wish.id.clone(),
            message,
        });
    }
    refused_by.push(placed.spec.pool.clone());
    Ok(None)
}

fn judge(volume: Option<SplitVolume>) -> Option<Verdict> {
    let Some(volume) = volume else {
        return Some(Verdict::Gone);
    };
    if volume::is_allocated(&volume) {
        return Some(Verdict::Allocated(Box::new(volume)));
    }
    volume::refusal(&volume).map(|condition| Verdict::Refused {
        reason: condition.reason.clone(),
        message: condition.message.clone(),
    })
}

/// The best pool with room. Pools that their node has not looked at yet are waited for: right after a start, all are.
async fn choose_pool<S: Store>(
    store: &S,
    wish: &Wish,
    patience: Patience,
    refused_by: &[String],
) -> Result<BlockPool, ControllerError> {
    let candidates = || async {
        let mut pools = placement::candidates(store.list().await?, &wish.parameters, &wish.nodes)?;
        pools.retain(|pool| !refused_by.iter().any(|name| name == placement::name(pool)));
        Ok::<_, ControllerError>(pools)
    };
    let look = || async {
        let pools = candidates().await?;
        let fits = placement::with_room(&pools, wish.size_bytes, &wish.nodes);
        if let Some(best) = fits.into_iter().next() {
            return Ok(Some(Ok(best)));
        }
        let may_open = pools
            .iter()
            .any(|pool| placement::readiness(pool) == Readiness::Unknown);
        Ok((!may_open).then_some(Err(pools)))
    };
    let found = patience.until::<S, BlockPool, _, _>(store, look).await?;
    match found {
        Some(Ok(pool)) => Ok(pool),
        Some(Err(pools)) => Err(none_fits(&pools, wish, refused_by)),
        None => Err(none_fits(&candidates().await?, wish, refused_by)),
    }
}

/// Why none of the pools can be taken: none is open, or none has room.
fn none_fits(pools: &[BlockPool], wish: &Wish, refused_by: &[String]) -> ControllerError {
    let is = |pool, readiness| placement::readiness(pool) == readiness;
    let is_ready = |pool| is(pool, Readiness::Ready);
    let may_become_ready = |pool| !is(pool, Readiness::Cordoned);
    if !pools.iter().any(is_ready) && pools.iter().any(may_become_ready) {
        return ControllerError::NoPoolReady {
            why: placement::describe(pools),
        };
    }
    ControllerError::NoRoom {
        bytes: wish.size_bytes,
        why: if refused_by.is_empty() {
            placement::describe(pools)
        } else {
            format!("{} had none", refused_by.join(", "))
        },
    }
}

impl Wish {
    /// The name to remember, where the object cannot bear it itself.
    fn requested_name(&self) -> &str {
        if self.id == self.csi_name {
            ""
        } else {
            &self.csi_name
        }
    }

    fn volume(&self, pool: &BlockPool) -> SplitVolume {
        let spec = SplitVolumeSpec {
            node_name: pool.spec.node_name.clone(),
            pool: placement::name(pool).to_owned(),
            size: quantity(self.size_bytes),
            requested_name: self.requested_name().to_owned(),
            on_device_loss: self.parameters.on_device_loss,
            hold_seconds: self.parameters.hold_seconds,
            qos: self.qos,
            claim: self.claim.clone(),
        };
        let mut volume = SplitVolume::new(&self.id, spec);
        volume.metadata.finalizers = Some(vec![NODE_FINALIZER.to_owned()]);
        volume
    }
}
