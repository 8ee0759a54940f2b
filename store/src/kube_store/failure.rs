//! What the API server's refusals mean to us, in one place.

use crate::StoreError;
use crate::object::Object;
use kube::core::Status;
use std::time::Duration;
use tokio::time::timeout;

/// More than an API server at work needs, less than sidecars and kubelet wait for an answer.
pub(super) const REQUEST_TIMEOUT: Duration = Duration::from_secs(10);

/// What is tried, for messages.
pub(super) fn what<K: Object>(verb: &str, name: &str) -> String {
    format!("{verb} {} {name:?}", K::kind(&()))
}

/// Makes a request, which ends in time whatever the server does.
pub(super) async fn call<T>(
    what: &str,
    request: impl Future<Output = Result<T, kube::Error>>,
) -> Result<Result<T, kube::Error>, StoreError> {
    timeout(REQUEST_TIMEOUT, request)
        .await
        .map_err(|_| StoreError::Unavailable {
            what: what.to_owned(),
            cause: format!("no answer within {} s", REQUEST_TIMEOUT.as_secs()),
        })
}

/// The server no longer knows the version that a list continues.
pub(super) fn is_expired(error: &kube::Error) -> bool {
    matches!(error, kube::Error::Api(status) if status.code == 410)
}

/// A failed request that names an object.
pub(super) fn of_object<K: Object>(what: &str, name: &str, error: kube::Error) -> StoreError {
    let (kind, owned) = (K::kind(&()).into_owned(), name.to_owned());
    match error {
        // A server that does not serve the kind (yet) answers 404 too, but names no object. That is no proof of absence.
        kube::Error::Api(status) if status.code == 404 && names(&status, name) => {
            StoreError::NotFound { kind, name: owned }
        }
        kube::Error::Api(status) if status.is_already_exists() => {
            StoreError::AlreadyExists { kind, name: owned }
        }
        kube::Error::Api(status) if status.code == 409 => {
            StoreError::Conflict { kind, name: owned }
        }
        kube::Error::SerdeError(problem) => StoreError::Unreadable {
            kind,
            name: owned,
            problem: problem.to_string(),
        },
        error => of_kind(what, error),
    }
}

/// A failed request that names a kind only.
pub(super) fn of_kind(what: &str, error: kube::Error) -> StoreError {
    let what = what.to_owned();
    match error {
        kube::Error::Api(status) => of_status(what, *status),
        error => StoreError::Unavailable {
            what,
            cause: with_causes(&error),
        },
    }
}

fn of_status(what: String, status: Status) -> StoreError {
    let message = status.message;
    match status.code {
        401 | 403 => StoreError::Denied { what, message },
        400 | 413 | 415 | 422 => StoreError::Rejected { what, message },
        404 => StoreError::Unavailable {
            what,
            cause: format!("{message} (is the kind installed? see `holdfast crds`)"),
        },
        code => StoreError::Unavailable {
            what,
            cause: format!("{message} ({code} {})", status.reason),
        },
    }
}

fn names(status: &Status, name: &str) -> bool {
    let details = status.details.as_ref();
    details.is_some_and(|details| details.name == name)
}

/// A connection's failure says why only in the sources of its error.
fn with_causes(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let inner = error.to_string();
        if !text.contains(&inner) {
            text = format!("{text}: {inner}");
        }
        cause = error.source();
    }
    text
}
