//! What the engine tells of exports, passed on to people: as an event of the session, and of the pod where it is known.

use super::Agent;
use holdfast_api::{PublishedTarget, VolumeSession, check_object_name, events};
use holdfast_dataplane::{ExportChange, ExportEvent};
use holdfast_store::{Announcement, EventKind, Store};
use k8s_openapi::api::core::v1::ObjectReference;
use tokio::sync::mpsc::{Receiver, Sender, channel};

/// Most events that wait for a store that is slow; more are dropped. Nobody misses them: the conditions tell how it is now.
const WAITING_MAX: usize = 1024;

/// Both ends of the line from the engine to the store.
pub(super) fn line() -> (Sender<ExportEvent>, Receiver<ExportEvent>) {
    channel(WAITING_MAX)
}

impl<S: Store> Agent<S> {
    /// Never returns.
    pub(super) async fn tell_of_exports(&self) {
        let mut told = self.shared.told.lock().await;
        while let Some(event) = told.recv().await {
            self.tell_of_export(&event).await;
        }
        std::future::pending::<()>().await;
    }

    async fn tell_of_export(&self, event: &ExportEvent) {
        let name: &str = &event.export;
        let Some(announcement) = announcement(event.change) else {
            return;
        };
        if check_object_name(name).is_err() {
            return; // An export that somebody made on the engine itself.
        }
        match self.store().get::<VolumeSession>(name).await {
            Ok(Some(session)) => self.announce_session(&session, announcement).await,
            Ok(None) => {}
            Err(error) => {
                let reason = announcement.reason;
                tracing::warn!(session = name, reason, %error, "Could not be told as an event");
            }
        }
    }

    /// Warnings concern the pod as well.
    pub(super) async fn announce_session(&self, session: &VolumeSession, said: Announcement) {
        let pod = session.spec.targets.iter().find_map(pod_of);
        let said = match (said.kind, pod) {
            (EventKind::Warning, Some(pod)) => said.about(pod),
            _ => said,
        };
        self.store().announce(session, said).await;
    }
}

fn announcement(change: ExportChange) -> Option<Announcement> {
    Some(match change {
        ExportChange::Connected => {
            Announcement::normal(events::GUEST_CONNECTED, "a machine is connected")
        }
        ExportChange::Disconnected => {
            Announcement::normal(events::GUEST_DISCONNECTED, "the machine has gone")
        }
        ExportChange::Replayed { requests } => Announcement::normal(
            events::INFLIGHT_REPLAYED,
            format!("{requests} requests that were in flight at a restart were submitted again"),
        ),
        ExportChange::IoError => Announcement::warning(
            events::IO_ERROR,
            "the machine was given an error by its disk; see the drive and the kernel's log",
        ),
        ExportChange::DeviceLost => Announcement::warning(
            events::DEVICE_LOST,
            "the drive behind the disk is lost; requests wait as onDeviceLoss says",
        ),
        ExportChange::DeviceReturned => {
            Announcement::normal(events::DEVICE_RETURNED, "the drive behind the disk is back")
        }
        ExportChange::StopWaits => Announcement::warning(
            events::STOP_WAITS_FOR_DEVICE,
            "the machine asked its disk to stop, and stands still until the drive has answered the requests it was given",
        ),
        _ => return None,
    })
}

fn pod_of(target: &PublishedTarget) -> Option<ObjectReference> {
    (!target.pod_name.is_empty()).then(|| ObjectReference {
        api_version: Some("v1".into()),
        kind: Some("Pod".into()),
        name: Some(target.pod_name.clone()),
        namespace: Some(target.pod_namespace.clone()),
        uid: Some(target.pod_uid.clone()).filter(|uid| !uid.is_empty()),
        ..Default::default()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_change_of_an_export_has_its_reason_and_trouble_is_a_warning() {
        let cases = [
            (ExportChange::Connected, events::GUEST_CONNECTED),
            (ExportChange::Disconnected, events::GUEST_DISCONNECTED),
            (
                ExportChange::Replayed { requests: 3 },
                events::INFLIGHT_REPLAYED,
            ),
            (ExportChange::IoError, events::IO_ERROR),
            (ExportChange::DeviceLost, events::DEVICE_LOST),
            (ExportChange::DeviceReturned, events::DEVICE_RETURNED),
            (ExportChange::StopWaits, events::STOP_WAITS_FOR_DEVICE),
        ];
        let trouble = [
            events::IO_ERROR,
            events::DEVICE_LOST,
            events::STOP_WAITS_FOR_DEVICE,
        ];
        for (change, reason) in cases {
            let said = announcement(change).unwrap();
            assert_eq!(said.reason, reason);
            let warns = said.kind == EventKind::Warning;
            assert_eq!(warns, trouble.contains(&reason), "{reason}");
        }
    }
}
