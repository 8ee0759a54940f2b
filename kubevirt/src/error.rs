//! Why the cluster could not be asked or told.

/// Why the cluster could not be asked or told. It is worth trying again.
#[derive(Debug, thiserror::Error)]
#[error("cannot {action} {object}: {source}")]
pub struct ClusterError {
    pub(crate) action: &'static str,
    pub(crate) object: String,
    pub(crate) source: kube::Error,
}

impl ClusterError {
    /// For `map_err`: what was tried, on which object.
    pub(crate) fn on(action: &'static str, object: String) -> impl FnOnce(kube::Error) -> Self {
        move |source| ClusterError {
            action,
            object,
            source,
        }
    }
}
