//! Calls that only look: statistics, and the node's part of an expansion, which is to say how large the volume is now.

use super::NodeService;
use crate::error::NodeError;
use crate::path::TargetPath;
use holdfast_api::{SplitVolume, VolumeSession, condition, conditions};
use holdfast_csi::SizeRange;
use holdfast_proto::csi::v1 as csi;
use holdfast_store::Store;

impl<S: Store> NodeService<S> {
    /// Only the total is known: how much of it is in use, the guest's file system alone can tell. Zero stands for that, so
    /// that nobody is alarmed by a disk that seems full.
    pub(super) async fn stats(
        &self,
        call: &csi::NodeGetVolumeStatsRequest,
    ) -> Result<csi::NodeGetVolumeStatsResponse, NodeError> {
        let volume = self.volume(&call.volume_id).await?;
        let session = self.session_at(&call.volume_id, &call.volume_path).await?;
        let usage = csi::VolumeUsage {
            total: i64::try_from(size_of(&volume)).unwrap_or(i64::MAX),
            unit: csi::volume_usage::Unit::Bytes.into(),
            ..Default::default()
        };
        Ok(csi::NodeGetVolumeStatsResponse {
            usage: vec![usage],
            volume_condition: Some(condition_of(&volume, &session)),
        })
    }

    /// The drive and the machine's disk have grown already when the controller has answered.
    pub(super) async fn expand(
        &self,
        call: &csi::NodeExpandVolumeRequest,
        range: SizeRange,
    ) -> Result<i64, NodeError> {
        let id = &call.volume_id;
        let volume = self.volume(id).await?;
        self.session_at(id, &call.volume_path).await?;
        let size_bytes = size_of(&volume);
        if let Some(wanted_bytes) = range.required.filter(|wanted| *wanted > size_bytes) {
            return Err(NodeError::NotExpanded {
                id: id.clone(),
                size_bytes,
                wanted_bytes,
            });
        }
        if let Some(limit_bytes) = range.limit.filter(|limit| *limit < size_bytes) {
            return Err(NodeError::TooLarge {
                id: id.clone(),
                size_bytes,
                limit_bytes,
            });
        }
        Ok(i64::try_from(size_bytes).unwrap_or(i64::MAX))
    }

    /// The session, if the volume is staged or published at this path. Any other text is merely a place where it is not.
    async fn session_at(&self, id: &str, path: &str) -> Result<VolumeSession, NodeError> {
        let elsewhere = || NodeError::NotAtPath {
            id: id.to_owned(),
            path: path.chars().take(128).collect(),
        };
        let target = TargetPath::parse(path).map_err(|_| elsewhere())?;
        let session = self.session(id).await?.ok_or_else(elsewhere)?;
        let text = target.text();
        let recorded = session.spec.targets.iter().any(|there| there.path == text);
        if session.spec.staging_path == text || recorded && self.is_published(id, &target).await? {
            return Ok(session);
        }
        Err(elsewhere())
    }
}

fn size_of(volume: &SplitVolume) -> u64 {
    volume.status.as_ref().map_or(0, |status| status.size_bytes)
}

/// Abnormal as soon as the drive or the socket is.
fn condition_of(volume: &SplitVolume, session: &VolumeSession) -> csi::VolumeCondition {
    let of_volume = volume.status.as_ref().map(|status| &status.conditions);
    let of_session = session.status.as_ref().map(|status| &status.conditions);
    let ready = of_volume.and_then(|all| condition(all, conditions::READY));
    let exported = of_session.and_then(|all| condition(all, conditions::EXPORTED));
    let bad = [ready, exported]
        .into_iter()
        .flatten()
        .find(|condition| condition.status != "True");
    csi::VolumeCondition {
        abnormal: bad.is_some(),
        message: bad.map_or_else(
            || "the volume is served".to_owned(),
            |condition| condition.message.clone(),
        ),
    }
}
