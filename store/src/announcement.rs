//! Something that happened to an object, told to people beside the object: a Kubernetes event, or a line in the log.

use k8s_openapi::api::core::v1::ObjectReference;

/// Whether people should look.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EventKind {
    /// It went as wished.
    Normal,
    /// Something may need a hand.
    Warning,
}

/// Something that happened to an object. See [`Store::announce`](crate::Store::announce).
#[derive(Debug, Clone, PartialEq)]
pub struct Announcement {
    /// Whether people should look.
    pub kind: EventKind,
    /// One of [`holdfast_api::events`].
    pub reason: &'static str,
    /// A sentence for people.
    pub message: String,
    /// Another object that it concerns, such as a pod.
    pub related: Option<ObjectReference>,
}

impl Announcement {
    /// It went as wished.
    #[must_use]
    pub fn normal(reason: &'static str, message: impl Into<String>) -> Self {
        Self::new(EventKind::Normal, reason, message.into())
    }

    /// Something may need a hand.
    #[must_use]
    pub fn warning(reason: &'static str, message: impl Into<String>) -> Self {
        Self::new(EventKind::Warning, reason, message.into())
    }

    /// The same, concerning another object too.
    #[must_use]
    pub fn about(self, related: ObjectReference) -> Self {
        Self {
            related: Some(related),
            ..self
        }
    }

    fn new(kind: EventKind, reason: &'static str, message: String) -> Self {
        Self {
            kind,
            reason,
            message,
            related: None,
        }
    }

    /// A line in the log, for a place that keeps no events.
    pub(crate) fn log(&self, kind: &str, name: &str) {
        let (reason, message) = (self.reason, &self.message);
        match self.kind {
            EventKind::Normal => tracing::info!(kind, name, reason, "{message}"),
            EventKind::Warning => tracing::warn!(kind, name, reason, "{message}"),
        }
    }
}
