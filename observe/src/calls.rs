//! How long CSI calls take, by method and outcome: a layer around a tonic server, with the labels of the sidecars' own
//! `csi_sidecar_operations_seconds`.

use http::{Request, Response};
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::family::{Family, MetricConstructor};
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::{Registry, Unit};
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Instant;
use tower::{Layer, Service};

/// Seconds. The upper end is the sidecars' own; calls that only read take milliseconds.
const BUCKETS: [f64; 19] = [
    0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 15.0, 25.0, 50.0,
    120.0, 300.0, 600.0,
];

/// Names of the gRPC codes as the sidecars write them, by number.
const CODES: [&str; 17] = [
    "OK",
    "Canceled",
    "Unknown",
    "InvalidArgument",
    "DeadlineExceeded",
    "NotFound",
    "AlreadyExists",
    "PermissionDenied",
    "ResourceExhausted",
    "FailedPrecondition",
    "Aborted",
    "OutOfRange",
    "Unimplemented",
    "Internal",
    "Unavailable",
    "DataLoss",
    "Unauthenticated",
];

/// Stands for every method that is not served: a caller chooses those names, and may choose many.
const NOT_SERVED: &str = "not served";

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Call {
    driver_name: &'static str,
    method_name: String,
    grpc_status_code: &'static str,
}

#[derive(Debug, Clone)]
struct Buckets;

impl MetricConstructor<Histogram> for Buckets {
    fn new_metric(&self) -> Histogram {
        Histogram::new(BUCKETS)
    }
}

/// `csi_plugin_operations_seconds`, as a layer for a tonic server. Clones count into the same histogram.
#[derive(Debug, Clone)]
pub struct CallMetrics {
    driver_name: &'static str,
    seconds: Family<Call, Histogram, Buckets>,
}

impl CallMetrics {
    /// Registers the histogram.
    pub fn register(registry: &mut Registry, driver_name: &'static str) -> Self {
        let seconds = Family::new_with_constructor(Buckets);
        registry.register_with_unit(
            "csi_plugin_operations",
            "Time CSI calls took, by method and gRPC status code",
            Unit::Seconds,
            seconds.clone(),
        );
        Self {
            driver_name,
            seconds,
        }
    }

    fn record(&self, method: &str, code: &'static str, since: Instant) {
        let method_name = if code == "Unimplemented" {
            NOT_SERVED
        } else {
            method
        };
        let call = Call {
            driver_name: self.driver_name,
            method_name: method_name.to_owned(),
            grpc_status_code: code,
        };
        self.seconds
            .get_or_create(&call)
            .observe(since.elapsed().as_secs_f64());
    }
}

impl<S> Layer<S> for CallMetrics {
    type Service = MeasuredCalls<S>;

    fn layer(&self, inner: S) -> Self::Service {
        MeasuredCalls {
            inner,
            metrics: self.clone(),
        }
    }
}

/// A server whose calls are measured. See [`CallMetrics`].
#[derive(Debug, Clone)]
pub struct MeasuredCalls<S> {
    inner: S,
    metrics: CallMetrics,
}

impl<S, B, R> Service<Request<B>> for MeasuredCalls<S>
where
    S: Service<Request<B>, Response = Response<R>>,
    S::Future: Send + 'static,
    S::Error: 'static,
{
    type Response = S::Response;
    type Error = S::Error;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Self::Error>> + Send>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        let since = Instant::now();
        let method = request.uri().path().to_owned();
        let metrics = self.metrics.clone();
        let answer = self.inner.call(request);
        Box::pin(async move {
            let answer = answer.await;
            let code = answer.as_ref().map_or("Internal", code);
            metrics.record(&method, code, since);
            answer
        })
    }
}

/// CSI has unary calls only: an error is told in the header, and an answer without one is a success.
fn code<R>(answer: &Response<R>) -> &'static str {
    let Some(number) = answer.headers().get("grpc-status") else {
        return CODES[0];
    };
    number
        .to_str()
        .ok()
        .and_then(|number| number.parse::<usize>().ok())
        .and_then(|number| CODES.get(number).copied())
        .unwrap_or("Unknown")
}
