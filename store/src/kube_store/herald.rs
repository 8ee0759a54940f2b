//! Writes what happened as events, beside the work: a queue and one task, so that nobody waits for an event.

use super::KubeStoreConfig;
use super::failure::REQUEST_TIMEOUT;
use crate::object::{self, Object};
use crate::{Announcement, EventKind};
use k8s_openapi::api::core::v1::ObjectReference;
use kube::Client;
use kube::runtime::events::{Event, EventType, Recorder, Reporter};
use tokio::sync::mpsc;
use tokio::time::timeout;

/// Events that wait for a slow API server. When there are more, the news is no longer news.
const QUEUE: usize = 256;
/// The API takes notes of 1 KiB.
const NOTE_BYTES_MAX: usize = 1024;

struct Notice {
    about: ObjectReference,
    event: Event,
}

/// Takes announcements; the task that writes them ends when this is dropped.
pub(super) struct Herald {
    queue: mpsc::Sender<Notice>,
}

impl Herald {
    pub(super) fn new(client: Client, config: &KubeStoreConfig) -> Self {
        let (queue, notices) = mpsc::channel(QUEUE);
        let reporter = match &config.node {
            Some(node) => Reporter {
                controller: config.field_manager.to_owned(),
                instance: Some(node.clone()),
            },
            None => Reporter::from(config.field_manager),
        };
        tokio::spawn(write(Recorder::new(client, reporter), notices));
        Self { queue }
    }

    pub(super) fn tell<K: Object>(&self, object: &K, announcement: Announcement) {
        let notice = Notice {
            about: object.object_ref(&()),
            event: event_of(&announcement),
        };
        if self.queue.try_send(notice).is_err() {
            announcement.log(&K::kind(&()), object::name(object));
        }
    }
}

async fn write(recorder: Recorder, mut notices: mpsc::Receiver<Notice>) {
    while let Some(Notice { about, event }) = notices.recv().await {
        let lost = match timeout(REQUEST_TIMEOUT, recorder.publish(&event, &about)).await {
            Ok(Ok(())) => continue,
            Ok(Err(error)) => error.to_string(),
            Err(_) => "no answer in time".to_owned(),
        };
        let (kind, name) = (
            about.kind.unwrap_or_default(),
            about.name.unwrap_or_default(),
        );
        let (reason, note) = (event.reason, event.note.unwrap_or_default());
        tracing::warn!(
            kind,
            name,
            reason,
            note,
            error = lost,
            "An event could not be written"
        );
    }
}

fn event_of(announcement: &Announcement) -> Event {
    Event {
        type_: match announcement.kind {
            EventKind::Normal => EventType::Normal,
            EventKind::Warning => EventType::Warning,
        },
        reason: announcement.reason.to_owned(),
        note: Some(clipped(&announcement.message).to_owned()),
        action: announcement.reason.to_owned(),
        secondary: announcement.related.clone(),
    }
}

fn clipped(text: &str) -> &str {
    let end = (0..=text.len().min(NOTE_BYTES_MAX)).rev();
    let end = end.into_iter().find(|at| text.is_char_boundary(*at));
    &text[..end.unwrap_or(0)]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_note_is_cut_between_characters() {
        let long = format!("{}ü", "x".repeat(NOTE_BYTES_MAX - 1));
        assert_eq!(clipped(&long), "x".repeat(NOTE_BYTES_MAX - 1));
        assert_eq!(clipped("short ü"), "short ü");
    }
}
