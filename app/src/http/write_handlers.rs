//! The handlers that write a key and that withdraw a write.

use std::future::poll_fn;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use hyper::Request;
use hyper::body::Incoming;
use hyper::header::{HeaderName, HeaderValue, LOCATION};
use keywright_domain::RequestOptions;
use keywright_domain::model::{LockId, Principal, Write, WriteId};
use keywright_domain::policy::WriteKey;
use tokio::sync::broadcast::error::RecvError;
use tokio::time::Instant;
use tracing::{Instrument, error, info};

use super::api_error::ApiError;
use super::authorization::{self, AuthorizedRequest, authorize};
use super::deadline::run_until;
use super::list_handlers::status;
use super::request_context::RequestContext;
use super::response::{self, HttpResponse, write_location};
use super::response_body::Success;
use super::{request_body, request_parameters};
use crate::app::App;
use crate::connection::ConnectionState;
use crate::request_admission::{Permit, QuotaPermit};

const PREFERENCE_APPLIED: HeaderName = HeaderName::from_static("preference-applied");

/// `POST /locks/{id}/WriteKey`.
pub(super) async fn write_key(
    app: &Arc<App>,
    connection: &ConnectionState,
    lock: &str,
    request: Request<Incoming>,
    context: RequestContext,
) -> Result<HttpResponse, ApiError> {
    let (start, deadline) = (Instant::now(), context.deadline);
    let (head, body) = request.into_parts();
    if app.admission.is_overloaded() {
        // The body is read nevertheless, so that the connection can serve the next request.
        let _ = request_body::read(app, body, app.http_limits.max_body).await;
        return Err(authorization::shed(app));
    }
    // The body is read before the permit is taken, so that a slow client holds none. Its errors are reported after those of the
    // credentials.
    let slot = request_body::read_key_slot(app, &head.headers, body).await;
    let AuthorizedRequest {
        principal,
        lock,
        permit,
        quota,
    } = run_until(app, deadline, authorize(app, &head.headers, lock)).await?;
    let wait = request_parameters::wait(&head.headers);
    let options = RequestOptions::default()
        .with_idempotency_key(request_parameters::idempotency_key(&head.headers)?)
        .with_request_id(context.id)
        .with_deadline(deadline);
    let command = WriteKey { lock, slot: slot? };
    let (writes, lease) = (app.writes.clone(), app.writes.settings().lease);
    let caller = principal.clone();
    let writing = async move { writes.write_key(&command, &caller, options).await };
    let receipt = run_to_completion(app, permit, Box::pin(writing)).await?;
    let receipt = receipt.map_err(|error| ApiError::of_write(error, lock, lease))?;

    if receipt.event.is_some() {
        app.metrics.accepted(start.elapsed());
    }

    // The write is recorded: no failure from here on changes the status.
    let outcome = match wait {
        // Boxed: most requests do not wait, and their futures stay small.
        Some(timeout) => {
            let ids = (lock, receipt.write);
            let waiting = wait_for_settlement(app, connection, &principal, ids, timeout, quota);
            Box::pin(waiting).await
        }
        None => None,
    };
    let mut response = response::ok(&Success::new(lock, &receipt, outcome.as_ref()));
    let headers = response.headers_mut();
    headers.insert(LOCATION, write_location(lock, receipt.write));
    if let Some(timeout) = wait {
        let applied = format!("wait={}", timeout.as_secs());
        headers.extend(HeaderValue::try_from(applied).map(|a| (PREFERENCE_APPLIED, a)));
    }
    Ok(response)
}

/// `DELETE /locks/{id}/writes/{writeId}`.
pub(super) async fn withdraw(
    app: &Arc<App>,
    lock: &str,
    write: &str,
    request: &Request<Incoming>,
    context: RequestContext,
) -> Result<HttpResponse, ApiError> {
    let AuthorizedRequest {
        principal,
        lock,
        permit,
        quota: _quota,
    } = run_until(
        app,
        context.deadline,
        authorize(app, request.headers(), lock),
    )
    .await?;
    let write = request_parameters::write_id(write)?;
    let (writes, lease) = (app.writes.clone(), app.writes.settings().lease);
    let options = RequestOptions::default()
        .with_request_id(context.id)
        .with_deadline(context.deadline);
    let by = principal.to_string();
    let withdrawing = async move { writes.withdraw(lock, write, &principal, options).await };
    let withdrawn = run_to_completion(app, permit, Box::pin(withdrawing)).await?;
    let withdrawn =
        withdrawn.map_err(|error| ApiError::of_withdrawal(error, lock, write, lease))?;
    // The write itself names only the principal who requested it.
    info!(%lock, %write, by, "withdrawn on request");
    Ok(response::ok(&status(app, &withdrawn)))
}

/// Runs a use case to its end, also if the client disconnects. It is polled once here; if it has to wait, it continues in a
/// task of its own and holds the permit until it ends.
///
/// # Errors
/// 500 if the use case panics.
async fn run_to_completion<T: Send + 'static>(
    app: &App,
    permit: Permit,
    mut use_case: Pin<Box<dyn Future<Output = T> + Send>>,
) -> Result<T, ApiError> {
    let first = poll_fn(|cx| Poll::Ready(catch_panic(|| use_case.as_mut().poll(cx)))).await?;
    if let Poll::Ready(outcome) = first {
        return Ok(outcome);
    }
    let task = async move {
        let outcome = use_case.await;
        drop(permit);
        outcome
    };
    let task = app.work.tasks.spawn(task.in_current_span());
    task.await.map_err(|error| {
        error!(%error, "a use case did not complete");
        ApiError::Internal
    })
}

/// Turns a panic into a 500. Nothing that the panic may have left inconsistent is used again. The panic hook has already
/// printed the message to standard error.
fn catch_panic<T>(work: impl FnOnce() -> T) -> Result<T, ApiError> {
    catch_unwind(AssertUnwindSafe(work)).map_err(|_| {
        error!("a use case did not complete: it panicked");
        ApiError::Internal
    })
}

/// The wait of a request with `Prefer: wait` after its write is recorded. Returns the write when it has ended, or as it is at the
/// timeout or when the service drains. `None`: the store failed.
///
/// A client that has closed its sending side may be gone. Its quota is released then, and its wait ends early when many
/// others are like it.
async fn wait_for_settlement(
    app: &App,
    connection: &ConnectionState,
    principal: &Principal,
    (lock, write): (LockId, WriteId),
    timeout: Duration,
    quota: QuotaPermit,
) -> Option<Write> {
    let until = app.timer.tick().after(timeout);
    let next_save = || next_save(app, write);
    let settled = app
        .writes
        .wait_for_write(lock, write, principal, until, next_save);
    let read = || app.writes.read_write(lock, write, principal);
    let too_many_half_closed = async {
        connection.half_closed().await;
        drop(quota);
        app.admission.end_of_half_closed_wait().await;
    };
    let outcome = tokio::select! {
        biased;
        outcome = settled => outcome,
        () = app.work.draining.cancelled() => read().await,
        () = too_many_half_closed => read().await,
    };
    outcome.ok()
}

/// Completes when this process saves the write after the call, which subscribes at once.
fn next_save(app: &App, id: WriteId) -> impl Future<Output = ()> + use<> {
    let mut saves = app.saved.subscribe();
    async move {
        loop {
            match saves.recv().await {
                Ok(write) if write.id != id => {}
                Ok(_) | Err(RecvError::Lagged(_)) => return,
                // The sender lives as long as the app.
                Err(RecvError::Closed) => std::future::pending().await,
            }
        }
    }
}
