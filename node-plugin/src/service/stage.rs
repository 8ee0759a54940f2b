//! Staging: a VolumeSession is written, and the agent listens on its socket.

use super::NodeService;
use crate::error::NodeError;
use crate::path::TargetPath;
use holdfast_api::{NODE_FINALIZER, VolumeSession, VolumeSessionSpec, check_object_name};
use holdfast_csi::Access;
use holdfast_proto::csi::v1 as csi;
use holdfast_store::{Store, StoreError};

/// Most queues a front end may use; a machine takes one for each of its CPUs, up to this.
const QUEUES: u16 = 16;
/// Most times a change is made again because somebody else wrote the object meanwhile.
const CONFLICTS_MAX: usize = 32;

impl<S: Store> NodeService<S> {
    pub(super) async fn stage(
        &self,
        call: &csi::NodeStageVolumeRequest,
        access: Access,
    ) -> Result<(), NodeError> {
        let id = &call.volume_id;
        let path = TargetPath::parse(&call.staging_target_path)?;
        let volume = self.volume(id).await?;
        if volume.metadata.deletion_timestamp.is_some() {
            return Err(NodeError::BeingDeleted { id: id.clone() });
        }
        let wanted = VolumeSessionSpec {
            volume: id.clone(),
            node_name: self.agent.config().node_name.clone(),
            staging_path: path.text(),
            access_mode: access.name().to_owned(),
            read_only: access.is_read_only(),
            queues: QUEUES,
            targets: Vec::new(),
        };
        match self.store().get::<VolumeSession>(id).await? {
            Some(session) => check_same(&session, &wanted)?,
            None => self.begin_session(wanted).await?,
        }
        self.wait_exported(id).await
    }

    async fn begin_session(&self, spec: VolumeSessionSpec) -> Result<(), NodeError> {
        let mut session = VolumeSession::new(&spec.volume.clone(), spec);
        session.metadata.finalizers = Some(vec![NODE_FINALIZER.to_owned()]);
        self.store().create(session).await?;
        Ok(())
    }

    pub(super) async fn unstage(
        &self,
        call: &csi::NodeUnstageVolumeRequest,
    ) -> Result<(), NodeError> {
        let id = &call.volume_id;
        let path = TargetPath::parse(&call.staging_target_path)?;
        let Some(session) = self.session(id).await? else {
            return Ok(());
        };
        if session.spec.staging_path != path.text() {
            return Ok(()); // Not staged there, which is what was asked for.
        }
        if !session.spec.targets.is_empty() {
            let paths: Vec<&str> = session
                .spec
                .targets
                .iter()
                .map(|target| target.path.as_str())
                .collect();
            return Err(NodeError::StillPublished {
                id: id.clone(),
                targets: paths.join(", "),
            });
        }
        self.store().delete::<VolumeSession>(id).await?;
        self.wait_gone(id).await
    }

    /// Changes what a session asks for. The agent writes the same object, so a conflict is no news: the change is made again.
    pub(super) async fn edit_session(
        &self,
        id: &str,
        edit: impl Fn(&mut VolumeSessionSpec) + Send,
    ) -> Result<VolumeSession, NodeError> {
        for _ in 0..CONFLICTS_MAX {
            let session = self.store().get::<VolumeSession>(id).await?;
            let mut session =
                session.ok_or_else(|| NodeError::BeingUnstaged { id: id.to_owned() })?;
            edit(&mut session.spec);
            match self.store().update(session).await {
                Err(StoreError::Conflict { .. }) => {}
                other => return Ok(other?),
            }
        }
        Err(NodeError::BeingWritten { id: id.to_owned() })
    }

    /// The volume's session on this node, if it has one. What cannot name an object has none.
    pub(super) async fn session(&self, id: &str) -> Result<Option<VolumeSession>, NodeError> {
        if check_object_name(id).is_err() {
            return Ok(None);
        }
        let session = self.store().get::<VolumeSession>(id).await?;
        Ok(session.filter(|session| self.agent.is_ours(&session.spec.node_name)))
    }
}

fn check_same(session: &VolumeSession, wanted: &VolumeSessionSpec) -> Result<(), NodeError> {
    let (id, there) = (wanted.volume.clone(), &session.spec);
    if session.metadata.deletion_timestamp.is_some() {
        return Err(NodeError::BeingUnstaged { id });
    }
    if there.node_name != wanted.node_name {
        let node = there.node_name.clone();
        return Err(NodeError::OtherNode { id, node });
    }
    if there.staging_path != wanted.staging_path {
        let path = there.staging_path.clone();
        return Err(NodeError::StagedElsewhere { id, path });
    }
    if there.access_mode != wanted.access_mode {
        let there = there.access_mode.clone();
        return Err(NodeError::StagedDifferently { id, there });
    }
    Ok(())
}
