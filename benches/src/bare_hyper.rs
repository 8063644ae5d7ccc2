//! A bare hyper server as a reference: it reads the body, sends an answer of the same size as Keywright's, and does nothing else.

use std::convert::Infallible;

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::TcpListener;

/// The body of a 200 of Keywright.
const BODY: &str = r#"{"success":true,"aggregateId":1001,"version":12345,"event":{"type":"KeyWriteRequested","data":{"lockId":1001,"uuid":"6f0c2a9e-0d5e-4e0b-9a55-0f6f3c0c7a11","timestamp":"2026-05-29T12:00:00.000Z","keyUuid":"load-1234567","keyIndexNumber":0}}}"#;

async fn answer(request: Request<Incoming>) -> Result<Response<Full<Bytes>>, Infallible> {
    let body = request.into_body().collect().await;
    let answer = match body.map(http_body_util::Collected::to_bytes) {
        Ok(body) if !body.is_empty() => Response::builder()
            .header("content-type", "application/json")
            .header(
                "location",
                "/locks/1001/writes/019a8b3c-0d5e-7e0b-9a55-0f6f3c0c7a11",
            )
            .header("x-request-id", "0123456789abcdef")
            .body(Full::from(BODY)),
        _ => Response::builder().status(400).body(Full::default()),
    };
    Ok(answer.expect("a valid answer"))
}

/// Serves forever.
pub async fn serve(listener: TcpListener) {
    let mut connection = http1::Builder::new();
    connection.timer(TokioTimer::new()).keep_alive(true);
    loop {
        let Ok((stream, _)) = listener.accept().await else {
            continue;
        };
        let _ = stream.set_nodelay(true);
        let served = connection.serve_connection(TokioIo::new(stream), service_fn(answer));
        tokio::spawn(served);
    }
}
