//! Counts the calls that are being answered, so that the end need not wait for connections on which nobody says anything: sidecars
//! keep theirs open for ever.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::sync::watch;
use tokio::time::{sleep, timeout};
use tower::{Layer, Service};

/// Calls under way when the end is asked for may take this long.
const FAREWELL: Duration = Duration::from_secs(10);
/// For answers on their way to their callers.
const LAST_WORDS: Duration = Duration::from_millis(300);

/// A layer around a server. Clones count together.
#[derive(Debug, Clone)]
pub struct Underway {
    calls: Arc<watch::Sender<usize>>,
}

impl Underway {
    /// Nothing is under way.
    #[must_use]
    pub fn new() -> Self {
        Self {
            calls: Arc::new(watch::channel(0).0),
        }
    }

    /// Returns when the end was `asked` for and the calls under way are answered, or have had 10 s for it. A server that is
    /// dropped then leaves nobody without an answer, and waits for no caller who is silent.
    pub async fn farewell(&self, asked: impl Future<Output = ()>) {
        asked.await;
        let answered = async {
            self.ended().await;
            sleep(LAST_WORDS).await;
            self.ended().await;
        };
        let _ = timeout(FAREWELL, answered).await; // Then without them.
    }

    async fn ended(&self) {
        let mut calls = self.calls.subscribe();
        // The sender lives as long as `self`, so waiting cannot fail.
        let _ = calls.wait_for(|calls| *calls == 0).await;
    }
}

impl Default for Underway {
    fn default() -> Self {
        Self::new()
    }
}

impl<S> Layer<S> for Underway {
    type Service = Counted<S>;

    fn layer(&self, inner: S) -> Counted<S> {
        Counted {
            inner,
            underway: self.clone(),
        }
    }
}

/// A server whose calls are counted. See [`Underway`].
#[derive(Debug, Clone)]
pub struct Counted<S> {
    inner: S,
    underway: Underway,
}

/// One call, until its answer is there or its caller has hung up.
struct Call(Underway);

impl Call {
    fn begin(underway: &Underway) -> Self {
        underway.calls.send_modify(|calls| *calls += 1);
        Self(underway.clone())
    }
}

impl Drop for Call {
    fn drop(&mut self) {
        self.0.calls.send_modify(|calls| *calls -= 1);
    }
}

impl<S, R> Service<R> for Counted<S>
where
    S: Service<R>,
    S::Future: Send + 'static,
{
    type Response = S::Response;
    type Error = S::Error;
    type Future = Pin<Box<dyn Future<Output = Result<S::Response, S::Error>> + Send>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, request: R) -> Self::Future {
        let call = Call::begin(&self.underway);
        let answer = self.inner.call(request);
        Box::pin(async move {
            let answer = answer.await;
            drop(call);
            answer
        })
    }
}
