//! VolumeSession: a socket that listens as long as the object exists.

use super::queue::Outcome;
use super::trouble::{IN_USE, Trouble};
use super::volumes::limits_of;
use super::work::Reconcile;
use super::{Agent, News, blocking, now};
use crate::error::NodeError;
use holdfast_api::{
    OnDeviceLoss as Wish, SplitVolume, Verdict, VolumeSession, VolumeSessionSpec, conditions,
    events, is_true, reasons, set_condition, short_id,
};
use holdfast_crash::crash_point;
use holdfast_dataplane::{EngineError, ExportInfo, ExportSpec, OnDeviceLoss, Source, VolumeInfo};
use holdfast_store::{Announcement, Store};
use std::time::Duration;

impl Reconcile for VolumeSession {
    fn node_name(&self) -> &str {
        &self.spec.node_name
    }

    async fn reconcile<S: Store>(agent: &Agent<S>, name: &str) -> Result<Outcome, NodeError> {
        let Some(session) = agent.store().get::<VolumeSession>(name).await? else {
            agent.facts().forget_session(name);
            agent.warn_if_exported(name).await;
            return Ok(Outcome::Done);
        };
        if !agent.is_ours(&session.spec.node_name) {
            return Ok(Outcome::Done);
        }
        agent.facts().saw_session(name, &session);
        if session.metadata.deletion_timestamp.is_some() {
            return agent.end_session(session, name).await;
        }
        let session = agent.hold(session).await?;
        let is_new = matches!(agent.find_export(name).await, Ok(None));
        let exported = agent.export(&session.spec, name).await;
        crash_point!("session.exported");
        let told = is_new.then(|| announcement(&session, &exported)).flatten();
        let outcome = agent.write_session(&session, exported).await?;
        if let Some(said) = told {
            agent.announce_session(&session, said).await;
        }
        Ok(outcome)
    }

    fn news<S>(agent: &Agent<S>) -> &News {
        &agent.shared.session_news
    }
}

impl<S: Store> Agent<S> {
    async fn export(&self, spec: &VolumeSessionSpec, name: &str) -> Result<ExportInfo, Trouble> {
        if spec.volume != name {
            return Err(Trouble::invalid(format!(
                "spec.volume is {:?}; a session bears the name of its volume",
                spec.volume
            )));
        }
        let (volume, on_drive) = match self.volume_of(name).await {
            Ok(found) => found,
            // A machine keeps its socket, whatever became of drive and objects.
            Err(trouble) => return self.find_export(name).await?.ok_or(trouble),
        };
        let (dirs, id, size) = (self.dirs().clone(), name.to_owned(), on_drive.size_bytes);
        let prepared = blocking(move || dirs.prepare(&id, size)).await;
        prepared.map_err(|error| {
            Trouble::retry(
                reasons::FAILED,
                format!(
                    "the session directory {} cannot be made: {error}",
                    self.dirs().socket(name).display()
                ),
            )
        })?;
        let wanted = self.export_spec(spec, &volume, name);
        let again = wanted.clone();
        match self.engine(move |engine| engine.export(&wanted)).await {
            Err(EngineError::AlreadyExists { .. }) => self.replace_export(again).await,
            other => Ok(other?),
        }
    }

    fn export_spec(
        &self,
        spec: &VolumeSessionSpec,
        volume: &SplitVolume,
        name: &str,
    ) -> ExportSpec {
        let source = Source::Volume {
            pool: volume.spec.pool.clone(),
            id: name.to_owned(),
        };
        let mut wanted = ExportSpec::new(name, source, self.dirs().socket(name));
        wanted.queues = spec.queues;
        wanted.read_only = spec.read_only;
        wanted.serial = short_id(name);
        wanted.owner = self.config().socket_owner;
        wanted.mode = self.config().socket_mode;
        wanted.limits = limits_of(volume);
        wanted.on_device_loss = match volume.spec.on_device_loss {
            Wish::Hold => OnDeviceLoss::Hold(Duration::from_secs(volume.spec.hold_seconds.into())),
            Wish::Fail => OnDeviceLoss::Fail,
        };
        wanted
    }

    /// The session asks for other settings than it was exported with. They change only while nobody is connected.
    async fn replace_export(&self, wanted: ExportSpec) -> Result<ExportInfo, Trouble> {
        let there = self.find_export(&wanted.name).await?;
        if there.is_some_and(|export| export.connected) {
            return Err(Trouble::retry(
                IN_USE,
                "a machine is connected; new settings take effect when it has gone",
            ));
        }
        let replaced = self.engine(move |engine| {
            engine.unexport(&wanted.name)?;
            engine.export(&wanted)
        });
        Ok(replaced.await?)
    }

    async fn find_export(&self, name: &str) -> Result<Option<ExportInfo>, Trouble> {
        let export = name.to_owned();
        Ok(self
            .engine(move |engine| Ok(engine.export_info(&export)))
            .await?)
    }

    /// The volume as it is asked for, and as the drive has it.
    async fn volume_of(&self, name: &str) -> Result<(SplitVolume, VolumeInfo), Trouble> {
        let missing = |why: &str| {
            Trouble::waiting(
                reasons::NOT_FOUND,
                format!("volume {name:?} {why}; the session waits for it"),
            )
        };
        let object = self.store().get::<SplitVolume>(name).await;
        let object = object.map_err(|error| Trouble::retry(reasons::FAILED, error.to_string()))?;
        let object = object.ok_or_else(|| missing("does not exist"))?;
        let (pool, id) = (object.spec.pool.clone(), name.to_owned());
        let info = self.engine(move |engine| engine.volume(&pool, &id)).await?;
        let info = info.ok_or_else(|| missing("is not on its drive"))?;
        Ok((object, info))
    }

    async fn write_session(
        &self,
        session: &VolumeSession,
        exported: Result<ExportInfo, Trouble>,
    ) -> Result<Outcome, NodeError> {
        let mut wanted = session.clone();
        let generation = session.metadata.generation.unwrap_or_default();
        let status = wanted.status.get_or_insert_default();
        status.observed_generation = generation;
        let (mut outcome, mut connected) = (Outcome::Done, false);
        let (holds, reason, message) = match &exported {
            Ok(export) => {
                status.socket_path = export.socket.to_string_lossy().into_owned();
                connected = export.connected;
                (true, reasons::OK, "the socket listens")
            }
            Err(trouble) => {
                outcome = trouble.outcome;
                (false, trouble.reason, trouble.message.as_str())
            }
        };
        let said = if connected {
            "a machine is connected"
        } else {
            "no machine is connected"
        };
        let verdicts = [
            (conditions::EXPORTED, holds, reason, message),
            (conditions::CONNECTED, connected, reasons::OK, said),
        ];
        for (kind, holds, reason, message) in verdicts {
            let verdict = Verdict {
                kind,
                holds,
                reason,
                message,
            };
            set_condition(&mut status.conditions, verdict, generation, &now());
        }
        if self.write_status(session, wanted).await? && !holds {
            let name = session.metadata.name.as_deref().unwrap_or_default();
            tracing::warn!(session = name, reason, message, "Session is not exported");
        }
        Ok(outcome)
    }

    /// Ends the export, removes the directory, then lets the object go. A published session is somebody's disk: it stays.
    async fn end_session(&self, session: VolumeSession, name: &str) -> Result<Outcome, NodeError> {
        if !session.spec.targets.is_empty() {
            let message = "the session is being deleted and still published; unpublish it first";
            tracing::warn!(session = name, message);
            let trouble = Trouble::waiting(IN_USE, message);
            // It is served as before; only after a restart there is something to do for that.
            let exported = self.export(&session.spec, name).await;
            self.write_session(&session, exported).await?;
            return Ok(trouble.outcome);
        }
        let export = name.to_owned();
        let ended = self.engine(move |engine| engine.unexport(&export)).await;
        if let Err(error) = ended {
            self.write_session(&session, Err(error.into())).await?;
            return Ok(Outcome::Retry);
        }
        crash_point!("session.ended");
        let (dirs, id) = (self.dirs().clone(), name.to_owned());
        let removed = blocking(move || dirs.remove(&id)).await;
        removed.map_err(|source| NodeError::SessionDir {
            id: name.to_owned(),
            dir: self.config().state_dir.clone(),
            source,
        })?;
        self.facts().forget_session(name);
        crash_point!("session.removed");
        self.let_go(session).await?;
        tracing::info!(session = name, "Session has ended");
        Ok(Outcome::Done)
    }

    /// A session that vanished without being deleted is not what somebody decided: a machine may depend on it.
    async fn warn_if_exported(&self, name: &str) {
        let there = self.find_export(name).await;
        if let Ok(Some(export)) = there {
            tracing::warn!(
                session = name,
                socket = %export.socket.display(),
                "A VolumeSession vanished without being deleted; its socket is served until the next start"
            );
        }
    }
}

/// What people should hear of a socket that was not there before this turn.
fn announcement(
    stored: &VolumeSession,
    exported: &Result<ExportInfo, Trouble>,
) -> Option<Announcement> {
    exported.as_ref().ok()?;
    let known = stored.status.as_ref().map(|status| &status.conditions);
    let was_exported = known.is_some_and(|known| is_true(known, conditions::EXPORTED));
    Some(match was_exported {
        true => Announcement::normal(events::RE_EXPORTED, "the socket listens again"),
        false => Announcement::normal(events::EXPORTED, "the socket listens"),
    })
}
