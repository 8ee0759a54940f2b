//! The CSI identity service: who we are, what we can do, whether we are ready.

use holdfast_proto::csi::v1 as csi;
use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;
use tonic::{Request, Response, Status};

/// What the process offers beside its identity.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PluginCapabilities {
    /// It serves the controller service.
    pub controller: bool,
    /// Volumes can be reached from some nodes only.
    pub topology: bool,
    /// Volumes can grow while a VM uses them.
    pub online_expansion: bool,
}

impl PluginCapabilities {
    /// Everything: what `standalone` and the controller say.
    #[must_use]
    pub fn all() -> Self {
        Self {
            controller: true,
            topology: true,
            online_expansion: true,
        }
    }

    fn to_proto(self) -> Vec<csi::PluginCapability> {
        use csi::plugin_capability::{Service, Type, VolumeExpansion, service, volume_expansion};
        let service = |kind: service::Type| {
            Type::Service(Service {
                r#type: kind.into(),
            })
        };
        let online = VolumeExpansion {
            r#type: volume_expansion::Type::Online.into(),
        };
        let offered = [
            (self.controller, service(service::Type::ControllerService)),
            (
                self.topology,
                service(service::Type::VolumeAccessibilityConstraints),
            ),
            (self.online_expansion, Type::VolumeExpansion(online)),
        ];
        offered
            .into_iter()
            .filter(|(has, _)| *has)
            .map(|(_, kind)| csi::PluginCapability { r#type: Some(kind) })
            .collect()
    }
}

/// The identity service.
#[derive(Clone)]
pub struct Identity {
    name: String,
    version: String,
    capabilities: PluginCapabilities,
    ready: Arc<dyn Fn() -> bool + Send + Sync>,
}

impl Identity {
    /// `ready` answers `Probe`: true once every persisted session is exported again.
    pub fn new(
        name: impl Into<String>,
        version: impl Into<String>,
        capabilities: PluginCapabilities,
        ready: impl Fn() -> bool + Send + Sync + 'static,
    ) -> Self {
        Self {
            name: name.into(),
            version: version.into(),
            capabilities,
            ready: Arc::new(ready),
        }
    }

    /// For a tonic router.
    #[must_use]
    pub fn into_server(self) -> csi::identity_server::IdentityServer<Self> {
        csi::identity_server::IdentityServer::new(self)
    }
}

impl fmt::Debug for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Identity")
            .field("name", &self.name)
            .field("version", &self.version)
            .field("capabilities", &self.capabilities)
            .finish_non_exhaustive()
    }
}

#[tonic::async_trait]
impl csi::identity_server::Identity for Identity {
    async fn get_plugin_info(
        &self,
        _request: Request<csi::GetPluginInfoRequest>,
    ) -> Result<Response<csi::GetPluginInfoResponse>, Status> {
        Ok(Response::new(csi::GetPluginInfoResponse {
            name: self.name.clone(),
            vendor_version: self.version.clone(),
            manifest: HashMap::new(),
        }))
    }

    async fn get_plugin_capabilities(
        &self,
        _request: Request<csi::GetPluginCapabilitiesRequest>,
    ) -> Result<Response<csi::GetPluginCapabilitiesResponse>, Status> {
        Ok(Response::new(csi::GetPluginCapabilitiesResponse {
            capabilities: self.capabilities.to_proto(),
        }))
    }

    async fn probe(
        &self,
        _request: Request<csi::ProbeRequest>,
    ) -> Result<Response<csi::ProbeResponse>, Status> {
        Ok(Response::new(csi::ProbeResponse {
            ready: Some((self.ready)()),
        }))
    }
}
