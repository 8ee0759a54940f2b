//! The service through which people let go of a pool's drive and give it back, while machines run.

use crate::agent::pools::{describe_loss, describe_removal};
use crate::agent::{Agent, blocking};
use crate::drives::describe;
use crate::error::NodeError;
use crate::removals::Removals;
use crate::service::required;
use holdfast_api::{BlockPool, check_object_name, condition, conditions};
use holdfast_dataplane::{EngineError, ErrorKind, PoolInfo};
use holdfast_proto::holdfast::v1alpha1 as wire;
use holdfast_proto::holdfast::v1alpha1::DeviceState;
use holdfast_proto::holdfast::v1alpha1::devices_server::{Devices, DevicesServer};
use holdfast_store::Store;
use std::path::PathBuf;
use tonic::{Request, Response, Status};

/// The device service. When a call is answered, the status of its pool tells of it.
#[derive(Debug, Clone)]
pub struct DeviceService<S> {
    agent: Agent<S>,
}

impl<S: Store> DeviceService<S> {
    /// The service beside an agent of the same process.
    #[must_use]
    pub fn new(agent: Agent<S>) -> DeviceService<S> {
        DeviceService { agent }
    }

    /// The service as tonic routes it.
    #[must_use]
    pub fn into_server(self) -> DevicesServer<DeviceService<S>> {
        DevicesServer::new(self)
    }

    async fn devices(&self) -> Result<Vec<wire::Device>, NodeError> {
        let open = self.agent.engine(|engine| Ok(engine.pools())).await?;
        let mut devices: Vec<wire::Device> = open.iter().map(opened).collect();
        for pool in self.agent.store().list::<BlockPool>().await? {
            let name = pool.metadata.name.as_deref().unwrap_or_default();
            let is_open = open.iter().any(|open| open.name == name);
            if !is_open && self.agent.is_ours(&pool.spec.node_name) {
                devices.push(self.not_opened(name, &pool));
            }
        }
        devices.sort_by(|a, b| a.pool.cmp(&b.pool));
        Ok(devices)
    }

    async fn let_go(&self, pool: &str) -> Result<wire::Device, NodeError> {
        let found = self.find(pool).await?;
        if found.state() == DeviceState::Removed {
            return Ok(found);
        }
        // First: whoever gets the answer pulls the drive, and a start after that must not take it.
        self.remember(pool, |removals, pool| removals.note(pool))
            .await?;
        let name = pool.to_owned();
        let removed = self.agent.engine(move |engine| {
            engine.remove_pool_device(&name)?;
            engine.pool(&name)
        });
        let removed = removed.await;
        self.agent.refresh_pool(pool).await;
        Ok(opened(&removed?))
    }

    async fn take(&self, pool: &str, path: &str) -> Result<wire::Device, NodeError> {
        let path = absolute(path)?;
        let (name, at) = (pool.to_owned(), path.clone());
        let taken = self
            .agent
            .engine(move |engine| engine.add_pool_device(&name, at.as_deref()));
        let info = match taken.await {
            Err(error) if error.kind() == ErrorKind::NotFound => self.open(pool).await?,
            Err(error) => {
                self.agent.refresh_pool(pool).await;
                return Err(error.into());
            }
            Ok(info) => {
                self.remember(pool, |removals, pool| removals.forget(pool))
                    .await?;
                self.agent.refresh_pool(pool).await;
                info
            }
        };
        match path {
            Some(path) if path != info.path => Err(NodeError::OpenElsewhere {
                pool: info.name,
                path: info.path,
            }),
            _ => Ok(opened(&info)),
        }
    }

    /// Has the agent open a pool now, wherever its object says. If its drive is not there, it is taken when it comes.
    async fn open(&self, pool: &str) -> Result<PoolInfo, NodeError> {
        if self.declared(pool).await?.is_some() {
            self.remember(pool, |removals, pool| removals.forget(pool))
                .await?;
            self.agent.refresh_pool(pool).await;
        }
        let name = pool.to_owned();
        let opened = self.agent.engine(move |engine| engine.pool(&name)).await;
        self.explained(pool, opened).await
    }

    /// The drive of a pool that is open, or was let go of before this start.
    async fn find(&self, pool: &str) -> Result<wire::Device, NodeError> {
        let name = pool.to_owned();
        let known = self.agent.engine(move |engine| engine.pool(&name)).await;
        if known.is_err()
            && let Some(declared) = self.declared(pool).await?
            && self.agent.removals().contains(pool)
        {
            return Ok(self.not_opened(pool, &declared));
        }
        Ok(opened(&self.explained(pool, known).await?))
    }

    async fn remember(
        &self,
        pool: &str,
        change: fn(&Removals, &str) -> std::io::Result<()>,
    ) -> Result<(), NodeError> {
        let (removals, name) = (self.agent.removals().clone(), pool.to_owned());
        let changed = blocking(move || change(&removals, &name)).await;
        changed.map_err(|source| NodeError::NotRemembered {
            pool: pool.to_owned(),
            path: self.agent.removals().path(pool),
            source,
        })
    }

    /// What the engine says; of a pool that only the store knows, what its status says.
    async fn explained(
        &self,
        pool: &str,
        said: Result<PoolInfo, EngineError>,
    ) -> Result<PoolInfo, NodeError> {
        match said {
            Err(error) if error.kind() == ErrorKind::NotFound => match self.declared(pool).await? {
                Some(declared) => Err(NodeError::NotOpened {
                    pool: pool.to_owned(),
                    path: PathBuf::from(describe(&declared.spec.device)),
                    why: why_not_open(&declared),
                }),
                None => Err(error.into()),
            },
            other => Ok(other?),
        }
    }

    fn not_opened(&self, name: &str, pool: &BlockPool) -> wire::Device {
        let status = pool.status.as_ref();
        let path = describe(&pool.spec.device);
        let (state, message) = match self.agent.removals().contains(name) {
            true => (DeviceState::Removed, describe_removal(name, &path)),
            false => (DeviceState::NotOpened, why_not_open(pool)),
        };
        wire::Device {
            pool: name.to_owned(),
            path,
            state: state.into(),
            capacity_bytes: status.map_or(0, |status| status.capacity_bytes),
            allocated_bytes: status.map_or(0, |status| status.allocated_bytes),
            message,
        }
    }

    /// The pool's object, if it is this node's.
    async fn declared(&self, pool: &str) -> Result<Option<BlockPool>, NodeError> {
        if check_object_name(pool).is_err() {
            return Ok(None);
        }
        let found = self.agent.store().get::<BlockPool>(pool).await?;
        Ok(found.filter(|found| self.agent.is_ours(&found.spec.node_name)))
    }
}

#[tonic::async_trait]
impl<S: Store> Devices for DeviceService<S> {
    async fn list(
        &self,
        _: Request<wire::ListRequest>,
    ) -> Result<Response<wire::ListResponse>, Status> {
        let devices = self.devices().await?;
        Ok(Response::new(wire::ListResponse { devices }))
    }

    async fn remove(
        &self,
        request: Request<wire::RemoveRequest>,
    ) -> Result<Response<wire::RemoveResponse>, Status> {
        let call = request.into_inner();
        required(&call.pool, "pool")?;
        let device = Some(self.let_go(&call.pool).await?);
        Ok(Response::new(wire::RemoveResponse { device }))
    }

    async fn add(
        &self,
        request: Request<wire::AddRequest>,
    ) -> Result<Response<wire::AddResponse>, Status> {
        let call = request.into_inner();
        required(&call.pool, "pool")?;
        let device = Some(self.take(&call.pool, &call.path).await?);
        Ok(Response::new(wire::AddResponse { device }))
    }
}

/// A path of a call; none if it is empty.
fn absolute(path: &str) -> Result<Option<PathBuf>, NodeError> {
    let path = Some(PathBuf::from(path)).filter(|path| !path.as_os_str().is_empty());
    match path {
        Some(path) if path.is_relative() => Err(EngineError::Invalid {
            what: format!("path {:?}", path.display()),
            why: "it must be absolute; the driver runs in a directory of its own".into(),
        }
        .into()),
        other => Ok(other),
    }
}

fn opened(info: &PoolInfo) -> wire::Device {
    let (state, message) = match (info.lost, info.removed) {
        (false, _) => (DeviceState::Present, describe_place(info)),
        (true, true) => (DeviceState::Removed, describe_loss(info)),
        (true, false) => (DeviceState::Lost, describe_loss(info)),
    };
    wire::Device {
        pool: info.name.clone(),
        path: info.path.display().to_string(),
        state: state.into(),
        capacity_bytes: info.usage.capacity_bytes,
        allocated_bytes: info.usage.allocated_bytes,
        message,
    }
}

/// Where the identity is a path, the drive is looked for there after a start; otherwise it is found wherever it is.
fn describe_place(info: &PoolInfo) -> String {
    if info.path.as_os_str() == info.identity.as_str() {
        return "the drive is there".to_owned();
    }
    if !info.identity.starts_with('/') {
        return format!("the drive is there, known as {}", info.identity);
    }
    format!(
        "the drive is there; after a restart it is looked for at {}, see that this leads to it",
        info.identity
    )
}

fn why_not_open(pool: &BlockPool) -> String {
    let status = pool.status.as_ref();
    let ready = status.and_then(|status| condition(&status.conditions, conditions::READY));
    ready
        .filter(|ready| ready.status != "True")
        .map_or("it was not looked at yet", |ready| ready.message.as_str())
        .to_owned()
}
