//! Counts the calls that are being answered, so that the end need not wait for connections on which nobody says anything.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use tokio::sync::watch;
use tower::{Layer, Service};

/// A layer around a server. Clones count together.
#[derive(Debug, Clone)]
pub(crate) struct Underway {
    calls: Arc<watch::Sender<usize>>,
}

impl Underway {
    pub(crate) fn new() -> Self {
        Self {
            calls: Arc::new(watch::channel(0).0),
        }
    }

    /// Returns when no call is being answered.
    pub(crate) async fn ended(&self) {
        let mut calls = self.calls.subscribe();
        // The sender lives as long as `self`, so waiting cannot fail.
        let _ = calls.wait_for(|calls| *calls == 0).await;
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
pub(crate) struct Counted<S> {
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
