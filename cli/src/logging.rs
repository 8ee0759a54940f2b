//! Where log lines go: standard error, as text for people or JSON for collectors.

use clap::ValueEnum;
use std::io::IsTerminal;
use tracing_subscriber::EnvFilter;

/// What is logged unless HOLDFAST_LOG says otherwise. Kube's client calls every request that fails an error, and its watcher warns
/// of each that is forbidden: many a second while an API server restarts. Whoever made the request says what it means.
const USUAL: &str = "info,kube_client::client::builder=off,kube_runtime::watcher=error";

/// How log lines look.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub(crate) enum LogFormat {
    /// One line of text.
    #[default]
    Text,
    /// One JSON object a line.
    Json,
}

/// Logs from now on: level `info`, unless HOLDFAST_LOG says otherwise.
pub(crate) fn start(format: LogFormat) {
    let asked = std::env::var("HOLDFAST_LOG").unwrap_or_default();
    let builder = tracing_subscriber::fmt()
        .with_env_filter(filter(&asked))
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal())
        .with_target(false);
    match format {
        LogFormat::Text => builder.init(),
        LogFormat::Json => builder.json().init(),
    }
}

/// The usual, with what was asked for on top; what cannot be understood is left out.
fn filter(asked: &str) -> EnvFilter {
    EnvFilter::builder().parse_lossy(format!("{USUAL},{asked}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{self, Write};
    use std::sync::{Arc, Mutex};

    #[derive(Clone, Default)]
    struct Page(Arc<Mutex<Vec<u8>>>);

    impl Write for Page {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().write(bytes)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    /// What is logged of one line of ours and one of kube's client.
    fn logged(asked: &str) -> String {
        let page = Page::default();
        let writer = page.clone();
        let log = tracing_subscriber::fmt()
            .with_env_filter(filter(asked))
            .with_writer(move || writer.clone())
            .with_ansi(false)
            .finish();
        tracing::subscriber::with_default(log, || {
            tracing::info!("ours");
            tracing::debug!("details");
            tracing::error!(target: "kube_client::client::builder", "theirs");
            tracing::warn!(target: "kube_client::client::tls", "certificate");
        });
        let bytes = page.0.lock().unwrap().clone();
        String::from_utf8(bytes).unwrap()
    }

    #[test]
    fn requests_of_the_client_that_fail_are_logged_by_whoever_made_them() {
        let text = logged("");
        assert!(
            text.contains("ours") && text.contains("certificate"),
            "{text}"
        );
        assert!(
            !text.contains("theirs") && !text.contains("details"),
            "{text}"
        );
    }

    #[test]
    fn whoever_asks_for_more_gets_it() {
        assert!(logged("debug").contains("details"));
        assert!(logged("kube_client::client::builder=error").contains("theirs"));
        assert!(!logged("warn").contains("ours"));
    }
}
