//! The HTTP contract: what is asked, of whom, and what is answered.

mod answer;
mod device_reports;
mod docs;
mod failure;
mod head;
mod openapi;
mod parser_answers;
mod reads;
mod request;
mod route;
pub mod wire;
mod write_key;

use std::net::IpAddr;
use std::sync::Arc;

use bytes::Bytes;
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::header::{AUTHORIZATION, HeaderName, HeaderValue};
use hyper::{Request, Response};
use keywright_domain::values::Tick;
use tracing::{Instrument, error, info, info_span};

use crate::app::App;
use failure::Failure;
pub(crate) use parser_answers::ParserAnswers;
use route::Route;

pub(crate) type Answer = Response<Full<Bytes>>;

const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// How much of a request's path is logged, in characters.
const LOGGED_PATH: usize = 128;

/// Answers one request, whatever it is. Its id stands in each log line and in the answer.
pub(crate) async fn answer(app: &Arc<App>, source: IpAddr, request: Request<Incoming>) -> Answer {
    let id = request_id(app, &request);
    let span = info_span!("request", id);
    let (method, path) = (request.method().clone(), request.uri().path().to_owned());
    let found = route::find(&method, &path);
    // Whoever asks for what is not served chooses no label.
    let name = found.as_ref().map_or("other", Route::name);
    let quiet = matches!(found, Ok(Route::Health | Route::Ready | Route::Metrics));
    // Who sends none at all is guessing none.
    let headers = request.headers();
    let guesses = headers.contains_key(AUTHORIZATION) || headers.contains_key("x-api-key");
    let deadline = app.deadline();
    let mut answer = dispatch(app, found, request, deadline)
        .instrument(span.clone())
        .await
        .unwrap_or_else(|failure| match failure {
            Failure::Unauthorized if guesses && app.admission.failed(source) => {
                app.metrics.shed("failed_credentials");
                Failure::TooManyFailures.into_answer()
            }
            failure => failure.into_answer(),
        });
    let status = answer.status().as_u16();
    app.metrics.answered(name, status);
    if !quiet {
        span.in_scope(|| info!(status, "{method} {}", start_of(&path)));
    }
    if let Ok(id) = HeaderValue::from_str(&id) {
        answer.headers_mut().insert(REQUEST_ID, id);
    }
    answer
}

/// The client's own id where it is harmless, else a new one.
fn request_id(app: &App, request: &Request<Incoming>) -> String {
    let harmless = |id: &&str| {
        (1..=64).contains(&id.len())
            && id
                .bytes()
                .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.'))
    };
    let own = request.headers().get(REQUEST_ID);
    match own.and_then(|id| id.to_str().ok()).filter(harmless) {
        Some(id) => id.to_owned(),
        None => new_request_id(app),
    }
}

fn new_request_id(app: &App) -> String {
    format!("{:016x}", app.ids.next_id() & u128::from(u64::MAX))
}

fn start_of(path: &str) -> &str {
    let end = path.char_indices().nth(LOGGED_PATH);
    end.map_or(path, |(end, _)| &path[..end])
}

/// What comes of work that changes nothing.
///
/// # Errors
/// 503 where nothing has come of it by the request's deadline.
async fn by<T>(
    app: &App,
    deadline: Tick,
    work: impl Future<Output = Result<T, Failure>>,
) -> Result<T, Failure> {
    app.by(deadline, work).await.unwrap_or_else(|| {
        error!("the request's time is over");
        Err(Failure::Unavailable)
    })
}

async fn dispatch(
    app: &Arc<App>,
    found: Result<Route<'_>, Failure>,
    request: Request<Incoming>,
    deadline: Tick,
) -> Result<Answer, Failure> {
    head::check(&request)?;
    match found? {
        Route::Health => Ok(answer::ok(&serde_json::json!({ "status": "ok" }))),
        Route::Ready => reads::ready(app),
        Route::OpenApi => Ok(docs::openapi(app, request.headers())),
        Route::Docs => Ok(docs::page()),
        Route::Metrics => Ok(answer::metrics(app.metrics.text(app.clock.now()))),
        Route::DocsScript => docs::script(request.headers()).await,
        Route::DeviceReports => device_reports::deliver(app, request).await,
        Route::WriteKey(lock) => write_key::write_key(app, lock, request, deadline).await,
        Route::Details(lock) => by(app, deadline, reads::details(app, lock, &request)).await,
        Route::Events(lock) => by(app, deadline, reads::events(app, lock, &request)).await,
        Route::Writes(lock) => by(app, deadline, reads::writes(app, lock, &request)).await,
        Route::Write(lock, write) => {
            by(app, deadline, reads::write(app, lock, write, &request)).await
        }
        Route::Withdraw(lock, write) => {
            write_key::withdraw(app, lock, write, &request, deadline).await
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_answers_a_request_is_small_because_it_is_allocated_for_each() {
        fn size<A, B, C, F>(_: impl Fn(A, B, C) -> F) -> usize {
            std::mem::size_of::<F>()
        }
        let size = size(|app: &'static Arc<App>, source, request| answer(app, source, request));
        assert!(size < 4 * 1024, "{size} bytes");
    }
}
