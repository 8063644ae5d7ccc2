//! The HTTP API of AWS IoT's data plane, as far as the AWS SDKs and the AWS CLI need it.
//!
//! Request signatures are not checked: every client that reaches the address may read and write every shadow.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use http_body_util::{BodyExt, Full, Limited};
use hyper::body::{Bytes, Incoming};
use hyper::header::{CONTENT_TYPE, HeaderValue};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::graceful::GracefulShutdown;
use percent_encoding::percent_decode_str;
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::sync::Semaphore;
use tracing::{debug, warn};

use crate::engine::Rejected;
use crate::name::{ShadowName, check_thing_name};
use crate::service::ShadowService;

/// Connections that are served at the same time; further ones wait in the accept queue of the operating system.
const MAX_CONNECTIONS: usize = 1024;

/// The size limit of a request body, in bytes: AWS IoT's limit of a payload.
const MAX_BODY_BYTES: usize = 128 * 1024;

/// How long a client may take to send the head of a request, and to send its body.
const READ_TIMEOUT: Duration = Duration::from_secs(10);

/// How long requests in progress may take after the service was stopped.
const DRAIN_TIMEOUT: Duration = Duration::from_secs(5);

/// The number of names on a page of a list: by default, and at most.
const DEFAULT_PAGE_SIZE: usize = 25;
const MAX_PAGE_SIZE: usize = 100;

/// Serves until `stop` completes, and then finishes the requests in progress.
pub async fn serve(listener: TcpListener, service: ShadowService, stop: impl Future<Output = ()>) {
    let mut connection = http1::Builder::new();
    connection
        .timer(TokioTimer::new())
        .header_read_timeout(READ_TIMEOUT);
    let permits = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    let graceful = GracefulShutdown::new();
    let accept_all = async {
        loop {
            // The semaphore is never closed.
            let Ok(permit) = permits.clone().acquire_owned().await else {
                return;
            };
            let stream = match listener.accept().await {
                Ok((stream, _)) => stream,
                Err(error) => {
                    warn!(%error, "a connection for shadows could not be accepted");
                    tokio::time::sleep(Duration::from_millis(100)).await;
                    continue;
                }
            };
            let _ = stream.set_nodelay(true);
            let service = service.clone();
            let serve = service_fn(move |request| {
                let service = service.clone();
                async move { Ok::<_, Infallible>(respond(&service, request).await) }
            });
            let served = graceful.watch(connection.serve_connection(TokioIo::new(stream), serve));
            tokio::spawn(async move {
                let _permit = permit;
                if let Err(error) = served.await {
                    debug!(%error, "a connection for shadows ended early");
                }
            });
        }
    };
    tokio::select! {
        () = stop => {}
        () = accept_all => {}
    }
    let _ = tokio::time::timeout(DRAIN_TIMEOUT, graceful.shutdown()).await;
}

async fn respond(service: &ShadowService, request: Request<Incoming>) -> Response<Full<Bytes>> {
    let id = format!("{:032x}", fastrand::u128(..));
    let mut response = match answer(service, request).await {
        Ok(body) => json_response(StatusCode::OK, &body),
        Err(rejected) => {
            let status = StatusCode::from_u16(rejected.code);
            let status = status.unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
            let body = json!({ "message": rejected.message, "traceId": id });
            let mut response = json_response(status, &body);
            let kind = HeaderValue::from_static(rejected.rest_error_type());
            response.headers_mut().insert("x-amzn-errortype", kind);
            response
        }
    };
    if let Ok(id) = HeaderValue::from_str(&id) {
        response.headers_mut().insert("x-amzn-requestid", id);
    }
    response
}

fn json_response(status: StatusCode, body: &Value) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::from(body.to_string()));
    *response.status_mut() = status;
    let json = HeaderValue::from_static("application/json");
    response.headers_mut().insert(CONTENT_TYPE, json);
    response
}

async fn answer(service: &ShadowService, request: Request<Incoming>) -> Result<Value, Rejected> {
    let (uri, method) = (request.uri().clone(), request.method().clone());
    // Clients percent-encode names: boto3 writes `:` as `%3A`.
    let decode = |part: &str| {
        let decoded = percent_decode_str(part).decode_utf8();
        let decoded = decoded.map(String::from);
        decoded.map_err(|_| invalid("Invalid URL"))
    };
    let query = uri.query().unwrap_or_default().as_bytes();
    let parameter = |name: &str| {
        let found = form_urlencoded::parse(query).find(|(key, _)| key == name);
        found.map(|(_, value)| value.into_owned())
    };
    let parts: Vec<&str> = uri.path().split('/').collect();
    match parts[..] {
        ["", "things", thing, "shadow"] => {
            let shadow = parameter("name").map_or(ShadowName::Classic, ShadowName::Named);
            let thing = decode(thing)?;
            let answered = match method {
                Method::GET => service.get(&thing, &shadow, b"").await,
                Method::DELETE => service.delete(&thing, &shadow, b"").await,
                Method::POST => {
                    let body = read_body(request).await?;
                    service.update(&thing, &shadow, &body).await
                }
                _ => Err(method_not_allowed()),
            };
            answered.map(|answer| answer.body())
        }
        [
            "",
            "api",
            "things",
            "shadow",
            "ListNamedShadowsForThing",
            thing,
        ] => {
            let page_size = match parameter("pageSize") {
                None => DEFAULT_PAGE_SIZE,
                Some(size) => {
                    let size = size.parse().ok();
                    let size = size.filter(|n| (1..=MAX_PAGE_SIZE).contains(n));
                    size.ok_or_else(|| invalid("pageSize must be a number from 1 to 100"))?
                }
            };
            let thing = decode(thing)?;
            if method != Method::GET {
                return Err(method_not_allowed());
            }
            list(service, &thing, parameter("nextToken"), page_size)
        }
        _ => Err(Rejected::new(404, "No such resource", None)),
    }
}

/// A page of the names of a thing's named shadows, those after `after`.
fn list(
    service: &ShadowService,
    thing: &str,
    after: Option<String>,
    page_size: usize,
) -> Result<Value, Rejected> {
    check_thing_name(thing).map_err(|e| invalid(e.to_string()))?;
    let mut names = service.named_shadows(thing);
    names.retain(|name| after.as_ref().is_none_or(|after| name > after));
    let has_more = names.len() > page_size;
    names.truncate(page_size);
    let mut body = json!({ "results": names, "timestamp": service.now() });
    if has_more && let Some(last) = names.last() {
        body["nextToken"] = json!(last);
    }
    Ok(body)
}

fn method_not_allowed() -> Rejected {
    Rejected::new(
        405,
        "The specified method is not allowed against this resource",
        None,
    )
}

fn invalid(reason: impl Into<String>) -> Rejected {
    Rejected::new(400, reason, None)
}

async fn read_body(request: Request<Incoming>) -> Result<Bytes, Rejected> {
    let reading = Limited::new(request.into_body(), MAX_BODY_BYTES).collect();
    match tokio::time::timeout(READ_TIMEOUT, reading).await {
        Ok(Ok(body)) => Ok(body.to_bytes()),
        Ok(Err(error)) if error.is::<http_body_util::LengthLimitError>() => {
            let text = "The payload exceeds the maximum size allowed";
            Err(Rejected::new(413, text, None))
        }
        _ => Err(invalid("The body of the request did not arrive")),
    }
}
