//! Tells a machine's owner why a disk is not served. A lost event is a line in the log, never an error.

use crate::machine::{Machine, machine_resource};
use k8s_openapi::api::core::v1::ObjectReference;
use kube::runtime::events::{Event, EventType, Recorder, Reporter};
use kube::{Client, Resource, ResourceExt};

/// Reasons are part of the API: alerts and people look for them.
const NOT_SERVED: &str = "VolumeNotServed";
const BAD_ANNOTATION: &str = "BadVolumesAnnotation";
const ACTION: &str = "Mark";

pub(super) struct Herald {
    recorder: Recorder,
}

impl Herald {
    pub(super) fn new(client: Client) -> Herald {
        let reporter = Reporter::from("holdfast-controller");
        Herald {
            recorder: Recorder::new(client, reporter),
        }
    }

    /// On the machine and on the claim: one of them is where people look.
    pub(super) async fn refused(
        &self,
        machine: &Machine,
        namespace: &str,
        claim: &str,
        volume: &str,
        why: &str,
    ) {
        let text = format!("volume {volume} cannot be served to the machine: {why}");
        self.tell(NOT_SERVED, text, &reference(machine)).await;
        let claim = ObjectReference {
            api_version: Some("v1".to_owned()),
            kind: Some("PersistentVolumeClaim".to_owned()),
            name: Some(claim.to_owned()),
            namespace: Some(namespace.to_owned()),
            ..ObjectReference::default()
        };
        let text = format!("cannot be served to machine {}: {why}", machine.name_any());
        self.tell(NOT_SERVED, text, &claim).await;
    }

    pub(super) async fn bad_annotation(&self, machine: &Machine, text: &str) {
        self.tell(BAD_ANNOTATION, text.to_owned(), &reference(machine))
            .await;
    }

    async fn tell(&self, reason: &str, text: String, about: &ObjectReference) {
        let event = Event {
            type_: EventType::Warning,
            reason: reason.to_owned(),
            note: Some(text.clone()),
            action: ACTION.to_owned(),
            secondary: None,
        };
        if let Err(error) = self.recorder.publish(&event, about).await {
            tracing::warn!(%error, reason, text, "An event is lost");
        }
    }
}

fn reference(machine: &Machine) -> ObjectReference {
    machine.object_ref(&machine_resource())
}
