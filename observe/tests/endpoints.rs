//! Metrics, health and readiness as a scraper and a kubelet see them: over TCP.
#![allow(clippy::unwrap_used)]

use holdfast_observe::{CallMetrics, Observer, metric_names, new_registry};
use http::{Request, Response};
use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::oneshot;
use tower::{Layer, Service, ServiceExt, service_fn};

async fn get(address: SocketAddr, path: &str) -> String {
    let mut stream = TcpStream::connect(address).await.unwrap();
    let request = format!("GET {path} HTTP/1.1\r\nhost: test\r\nconnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    answer
}

#[tokio::test]
async fn process_that_is_not_ready_says_why_and_is_healthy_all_the_same() {
    let observer = Observer::bind("127.0.0.1:0").await.unwrap();
    let address = observer.address();
    let is_ready = Arc::new(AtomicBool::new(false));
    let ready = {
        let is_ready = is_ready.clone();
        move || {
            let is_ready = is_ready.load(Ordering::SeqCst);
            is_ready.then_some(()).ok_or("3 sessions to go".to_owned())
        }
    };
    let (end, ended) = oneshot::channel::<()>();
    let shutdown = async move { drop(ended.await) };
    let serving = tokio::spawn(observer.serve(new_registry("1.2.3"), ready, shutdown));

    let answer = get(address, "/readyz").await;
    assert!(answer.starts_with("HTTP/1.1 503"), "{answer}");
    assert!(answer.ends_with("3 sessions to go\n"), "{answer}");
    assert!(
        get(address, "/healthz")
            .await
            .starts_with("HTTP/1.1 200 OK")
    );

    is_ready.store(true, Ordering::SeqCst);
    assert!(get(address, "/readyz").await.starts_with("HTTP/1.1 200 OK"));
    let metrics = get(address, "/metrics").await;
    assert!(
        metrics.contains("application/openmetrics-text"),
        "{metrics}"
    );
    assert!(
        metrics.contains("holdfast_build_info{version=\"1.2.3\"} 1\n"),
        "{metrics}"
    );
    assert!(metrics.ends_with("# EOF\n"), "{metrics}");

    end.send(()).unwrap();
    serving.await.unwrap().unwrap();
}

#[tokio::test]
async fn address_in_use_is_an_error_with_the_address() {
    let first = Observer::bind("127.0.0.1:0").await.unwrap();
    let address = first.address().to_string();
    let error = Observer::bind(&address).await.unwrap_err().to_string();
    assert!(error.contains(&address), "{error}");
}

/// A server that answers each call with the gRPC status its last path part names.
async fn answer(request: Request<()>) -> Result<Response<()>, Infallible> {
    let code = request.uri().path().rsplit('/').next().unwrap();
    let mut response = Response::new(());
    if code != "0" {
        let value = code.parse().unwrap();
        response.headers_mut().insert("grpc-status", value);
    }
    Ok(response)
}

#[tokio::test]
async fn call_is_counted_by_method_and_code_and_one_nobody_serves_adds_no_series() {
    let mut registry = new_registry("1");
    let mut server = CallMetrics::register(&mut registry, "csi.test").layer(service_fn(answer));
    let paths = [
        "/csi.v1.A/0",
        "/csi.v1.A/0",
        "/csi.v1.A/8",
        "/a/12",
        "/b/12",
        "/c/99",
    ];
    for path in paths {
        let request = Request::builder().uri(path).body(()).unwrap();
        let ready = server.ready().await.unwrap();
        ready.call(request).await.unwrap();
    }
    assert!(metric_names(&registry).contains("csi_plugin_operations_seconds"));
    let observer = Observer::bind("127.0.0.1:0").await.unwrap();
    let address = observer.address();
    tokio::spawn(observer.serve(registry, || Ok(()), std::future::pending()));
    let text = get(address, "/metrics").await;
    let expected = [
        ("/csi.v1.A/0", "OK", 2),
        ("/csi.v1.A/8", "ResourceExhausted", 1),
        ("not served", "Unimplemented", 2),
        ("/c/99", "Unknown", 1),
    ];
    for (method, code, count) in expected {
        let line = format!(
            "csi_plugin_operations_seconds_count{{driver_name=\"csi.test\",method_name=\"{method}\",grpc_status_code=\"{code}\"}} {count}\n"
        );
        assert!(text.contains(&line), "{line} is not in {text}");
    }
    assert_eq!(
        text.matches("operations_seconds_count").count(),
        expected.len()
    );
}
