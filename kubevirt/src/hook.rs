//! The hook sidecar, for KubeVirt older than its Plugins: rewrites the domain whenever virt-launcher is about to define it.
//!
//! It keeps no state, so that a repeated call and a restarted sidecar are the same. virt-launcher uses the newest version of
//! the callbacks that both know; all are the same call, and only the newest one says when the machine has ended.

mod callbacks;

use crate::domain::{DomainError, rewrite};
use crate::volumes::{VOLUMES_ANNOTATION, Volumes, VolumesError};
use holdfast_proto::kubevirt::hooks::info::{
    HookPoint, InfoParams, InfoResult,
    info_server::{Info, InfoServer},
};
use holdfast_proto::kubevirt::hooks::{v1alpha1, v1alpha2, v1alpha3};
use serde::Deserialize;
use std::collections::BTreeMap;
use std::future::Future;
use std::sync::Arc;
use tokio::net::UnixListener;
use tokio::sync::Notify;
use tokio_stream::wrappers::UnixListenerStream;
use tonic::transport::Server;
use tonic::{Request, Response, Status};

/// A domain has a few dozen KiB and the instance some more; tonic's own limit of 4 MiB would be the smaller one.
const MESSAGE_BYTES_MAX: usize = 32 << 20;
/// When virt-launcher shall call: Shutdown, too, for it would wait for the sidecar otherwise.
const HOOK_POINTS: [&str; 2] = ["OnDefineDomain", "Shutdown"];
const VERSIONS: [&str; 3] = ["v1alpha1", "v1alpha2", "v1alpha3"];

/// Serves until virt-launcher says that the machine has ended, or `shutdown` completes.
///
/// # Errors
/// When the listener fails.
pub async fn serve_hook(
    listener: UnixListener,
    shutdown: impl Future<Output = ()> + Send,
) -> Result<(), tonic::transport::Error> {
    let hook = Hook::default();
    let ended = Arc::clone(&hook.ended);
    let first_end = async move {
        tokio::select! {
            () = ended.notified() => {}
            () = shutdown => {}
        }
    };
    Server::builder()
        .add_service(InfoServer::new(hook.clone()))
        .add_service(
            v1alpha1::callbacks_server::CallbacksServer::new(hook.clone())
                .max_decoding_message_size(MESSAGE_BYTES_MAX),
        )
        .add_service(
            v1alpha2::callbacks_server::CallbacksServer::new(hook.clone())
                .max_decoding_message_size(MESSAGE_BYTES_MAX),
        )
        .add_service(
            v1alpha3::callbacks_server::CallbacksServer::new(hook)
                .max_decoding_message_size(MESSAGE_BYTES_MAX),
        )
        .serve_with_incoming_shutdown(UnixListenerStream::new(listener), first_end)
        .await
}

#[derive(Debug, Clone, Default)]
struct Hook {
    ended: Arc<Notify>,
}

/// The little that matters of a VirtualMachineInstance.
#[derive(Deserialize)]
struct Instance {
    metadata: Metadata,
}

#[derive(Deserialize)]
struct Metadata {
    #[serde(default)]
    namespace: String,
    #[serde(default)]
    name: String,
    annotations: Option<BTreeMap<String, String>>,
}

/// Why a call was refused. virt-launcher puts the text into an event of the machine.
#[derive(Debug, thiserror::Error)]
enum HookError {
    #[error("the VirtualMachineInstance cannot be read: {0}")]
    Instance(serde_json::Error),
    #[error("the domain XML is not UTF-8: {0}")]
    Encoding(std::str::Utf8Error),
    #[error(transparent)]
    Volumes(VolumesError),
    #[error(transparent)]
    Domain(DomainError),
}

/// Rewrites the domain for the volumes that the instance's annotation names.
fn define(domain_xml: &[u8], instance: &[u8]) -> Result<Vec<u8>, HookError> {
    let instance: Instance = serde_json::from_slice(instance).map_err(HookError::Instance)?;
    let Metadata {
        namespace,
        name,
        annotations,
    } = instance.metadata;
    let listed = annotations.unwrap_or_default().remove(VOLUMES_ANNOTATION);
    let volumes = Volumes::parse(&listed.unwrap_or_default()).map_err(HookError::Volumes)?;
    let xml = std::str::from_utf8(domain_xml).map_err(HookError::Encoding)?;
    let rewritten = rewrite(xml, &volumes).map_err(HookError::Domain)?;
    tracing::info!(namespace, name, %volumes, "Rewrote the domain");
    Ok(rewritten.into_bytes())
}

/// The one place where errors of the hook become gRPC's.
fn status(error: &HookError) -> Status {
    let text = format!("holdfast: {error}");
    tracing::warn!(error = text, "Refused to rewrite the domain");
    match error {
        HookError::Instance(_) | HookError::Encoding(_) => Status::invalid_argument(text),
        HookError::Domain(DomainError::Malformed { .. } | DomainError::TooLarge { .. }) => {
            Status::invalid_argument(text)
        }
        HookError::Volumes(_) | HookError::Domain(_) => Status::failed_precondition(text),
    }
}

#[tonic::async_trait]
impl Info for Hook {
    async fn info(&self, _: Request<InfoParams>) -> Result<Response<InfoResult>, Status> {
        let point = |name: &str| HookPoint {
            name: name.to_owned(),
            priority: 0,
        };
        Ok(Response::new(InfoResult {
            name: "holdfast".to_owned(),
            hook_points: HOOK_POINTS.into_iter().map(point).collect(),
            versions: VERSIONS.map(str::to_owned).to_vec(),
        }))
    }
}
