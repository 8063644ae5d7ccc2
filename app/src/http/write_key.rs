//! Writing a key, and taking a write back.

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
use keywright_domain::model::{LockId, Principal, Tick, Write, WriteId};
use keywright_domain::policy::WriteKey;
use tokio::sync::broadcast::error::RecvError;
use tokio::time::Instant;
use tracing::{Instrument, error, info};

use super::answer::{self, Success, WriteStatus, location};
use super::api_error::ApiError;
use super::request::{self, AuthorizedRequest};
use super::{Answer, by};
use crate::admission::{Permit, QuotaPermit};
use crate::app::App;
use crate::connection::ConnectionState;

const PREFERENCE_APPLIED: HeaderName = HeaderName::from_static("preference-applied");

/// How often a request that waits for a lock looks whether the service is being stopped.
const DRAIN_POLL: Duration = Duration::from_millis(200);

/// `POST /locks/{id}/WriteKey`.
pub(super) async fn write_key(
    app: &Arc<App>,
    connection: &ConnectionState,
    lock: &str,
    request: Request<Incoming>,
    deadline: Tick,
) -> Result<Answer, ApiError> {
    let start = Instant::now();
    let (head, body) = request.into_parts();
    if app.admission.is_overloaded() {
        // Nothing else is done for it, but that it is read to its end, so that the connection goes on.
        let _ = request::body_of(app, body, app.bounds.body).await;
        return Err(request::no_permit(app));
    }
    // A body that is slow to come holds no place, and what is wrong with it is said last.
    let slot = request::key_slot(app, &head.headers, body).await;
    let AuthorizedRequest {
        principal,
        lock,
        permit,
        share,
    } = by(app, deadline, request::asked(app, &head.headers, lock)).await?;
    let wait = request::wait(&head.headers);
    let options = RequestOptions {
        idempotency_key: request::idempotency_key(&head.headers)?,
        deadline: Some(deadline),
    };
    let command = WriteKey { lock, slot: slot? };
    let (writes, lease) = (app.writes.clone(), app.writes.settings().lease);
    let caller = principal.clone();
    let writing = async move { writes.write_key(&command, &caller, options).await };
    let written = run(app, permit, Box::pin(writing)).await?;
    let written = written.map_err(|error| ApiError::of_write(error, lock, lease))?;

    if written.event.is_some() {
        app.metrics.accepted(start.elapsed());
    }

    // What is recorded is recorded: nothing that goes wrong from here on changes the answer.
    let outcome = match wait {
        // Boxed: most requests do not wait, and need no room for it.
        Some(span) => {
            let client = (connection, share);
            Box::pin(settled(
                app,
                (lock, written.write),
                &principal,
                span,
                client,
            ))
            .await
        }
        None => None,
    };
    let mut answer = answer::ok(&Success::new(lock, &written, outcome.as_ref()));
    let headers = answer.headers_mut();
    headers.insert(LOCATION, location(lock, written.write));
    if let Some(span) = wait {
        let applied = format!("wait={}", span.as_secs());
        headers.extend(HeaderValue::try_from(applied).map(|a| (PREFERENCE_APPLIED, a)));
    }
    Ok(answer)
}

/// `DELETE /locks/{id}/writes/{writeId}`.
pub(super) async fn withdraw(
    app: &Arc<App>,
    lock: &str,
    write: &str,
    request: &Request<Incoming>,
    deadline: Tick,
) -> Result<Answer, ApiError> {
    let AuthorizedRequest {
        principal,
        lock,
        permit,
        share: _share,
    } = by(app, deadline, request::asked(app, request.headers(), lock)).await?;
    let write = request::write_id(write)?;
    let (writes, lease) = (app.writes.clone(), app.writes.settings().lease);
    let by = principal.to_string();
    let withdrawing = async move {
        writes
            .withdraw(lock, write, &principal, Some(deadline))
            .await
    };
    let withdrawn = run(app, permit, Box::pin(withdrawing)).await?;
    let withdrawn =
        withdrawn.map_err(|error| ApiError::of_withdrawal(error, lock, write, lease))?;
    // The write itself names who requested it, who may be somebody else.
    info!(%lock, %write, by, "withdrawn on request");
    Ok(answer::ok(&WriteStatus::of(&withdrawn, false)))
}

/// Runs a use case that goes on when its client hangs up, and which has the place until it is over: what has to wait for
/// something does so in a task of its own.
///
/// # Errors
/// 500 where it panicked.
async fn run<T: Send + 'static>(
    app: &App,
    permit: Permit,
    mut use_case: Pin<Box<dyn Future<Output = T> + Send>>,
) -> Result<T, ApiError> {
    let first = poll_fn(|cx| Poll::Ready(unless_it_panics(|| use_case.as_mut().poll(cx)))).await?;
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
        error!(%error, "a use case did not come to its end");
        ApiError::Internal
    })
}

/// What panicked is not looked at again. Its words are on standard error, as those of every panic.
fn unless_it_panics<T>(work: impl FnOnce() -> T) -> Result<T, ApiError> {
    catch_unwind(AssertUnwindSafe(work)).map_err(|_| {
        error!("a use case did not come to its end: it panicked");
        ApiError::Internal
    })
}

/// The write once it has come to its end, or as it is after `span` or when the service is being stopped; `None` where the
/// store does not say.
///
/// A client that has ended what it sends may be gone. It holds no share from then on, and its wait ends early when many
/// others are like that.
async fn settled(
    app: &App,
    (lock, id): (LockId, WriteId),
    principal: &Principal,
    span: Duration,
    (connection, share): (&ConnectionState, QuotaPermit),
) -> Option<Write> {
    let until = app.timer.tick().after(span);
    let changed = || saved(app, id);
    let waiting = app
        .writes
        .wait_for_write(lock, id, principal, until, changed);
    let draining = async {
        while !app.work.is_draining() {
            tokio::time::sleep(DRAIN_POLL).await;
        }
    };
    let too_many_half_closed = async {
        connection.half_closed().await;
        drop(share);
        app.admission.end_of_half_closed_wait().await;
    };
    let write = tokio::select! {
        biased;
        write = waiting => write,
        () = draining => app.writes.read_write(lock, id, principal).await,
        () = too_many_half_closed => app.writes.read_write(lock, id, principal).await,
    };
    write.ok()
}

/// Completes when this process saves that write. It listens from the moment when it is made.
fn saved(app: &App, id: WriteId) -> impl Future<Output = ()> + use<> {
    let mut saved = app.saved.subscribe();
    async move {
        loop {
            match saved.recv().await {
                Ok(write) if write.id != id => {}
                Ok(_) | Err(RecvError::Lagged(_)) => return,
                // The sender lives as long as the app.
                Err(RecvError::Closed) => std::future::pending().await,
            }
        }
    }
}
