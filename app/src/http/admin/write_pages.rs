//! The pages about writes.

use std::borrow::Cow;

use hyper::StatusCode;
use keywright_domain::model::{LockId, Write, WriteId, WriteState};
use keywright_domain::policy::{self, Reach};
use keywright_domain::{ListPage, RequestOptions, WithdrawError};
use maud::{Markup, html};
use tracing::info;

use super::layout;
use super::operator_request::OperatorRequest;
use super::page_error::PageError;
use crate::http::list_handlers;
use crate::http::request_context::RequestContext;
use crate::http::request_parameters::{parameter, replaced};
use crate::http::response::HttpResponse;

/// How many writes a page of the list has.
const PAGE: usize = 50;

/// `/admin/writes`: the newest first, with the filters of `GET /writes`.
pub(super) async fn list(request: &OperatorRequest<'_>) -> Result<HttpResponse, PageError> {
    let query = request.query.map(without_empty);
    let query = query.as_deref();
    let filter = list_handlers::filter_of_all_writes(query)?;
    let before = parameter(query, "after").map(|text| text.parse());
    let before: Option<WriteId> = before.transpose().map_err(|_| PageError::NotFound)?;
    let writes = &request.app.writes;
    let page = writes.list_writes(&request.principal, &filter, before, PAGE);
    let ListPage { items, next, .. } = page.await?;
    let content = html! {
        h1 { "Writes" }
        (filters(query))
        @if items.is_empty() {
            p { "No write matches" @if next.is_some() { " in this part of the list" } "." }
        } @else {
            (table(request, "Writes", &items))
        }
        @if let Some(next) = next {
            p { a href=(format!("/admin/writes?{}", replaced(query, "after", &next.to_string()))) { "Older writes" } }
        }
    };
    let session = Some(request.session);
    Ok(layout::page(StatusCode::OK, "Writes", session, content))
}

/// A form sends also the fields that are empty.
fn without_empty(query: &str) -> String {
    let pairs = query.split('&').filter(|pair| !pair.ends_with('='));
    // Forms send spaces as plus signs.
    pairs.collect::<Vec<_>>().join("&").replace('+', "%20")
}

fn filters(query: Option<&str>) -> Markup {
    let value = |name: &str| parameter(query, name).unwrap_or_default();
    let text = |name: &'static str, label: &'static str, example: &'static str| {
        html! {
            label { (label) input name=(name) value=(value(name)) placeholder=(example); }
        }
    };
    let state = value("state");
    html! {
        form class="filters" action="/admin/writes" {
            label {
                "State"
                select name="state" {
                    option value="" { "all" }
                    @for name in WriteState::NAMES {
                        option value=(name) selected[state == name] { (name) }
                    }
                }
            }
            label {
                "Unconfirmed"
                select name="unconfirmed" {
                    option value="" { "all" }
                    @for name in ["true", "false"] {
                        option value=(name) selected[value("unconfirmed") == name] { (name) }
                    }
                }
            }
            (text("reason", "Reason", "DeviceError"))
            (text("lock", "Lock", "123"))
            (text("key", "Key", ""))
            (text("organization", "Organization", ""))
            (text("requestedBy", "Requested by", "user:ann"))
            (text("since", "Since", "2026-12-01T08:00:00Z"))
            button { "Filter" }
        }
    }
}

/// A table of writes. Screen readers call it by `label`, which no other table of the page has.
pub(super) fn table(request: &OperatorRequest<'_>, label: &str, writes: &[Write]) -> Markup {
    let rows = html! {
        @for write in writes {
            tr {
                td { (layout::time(write.prepared_at)) }
                td { (state(request, write)) }
                td { a href=(format!("/admin/locks/{}", write.lock)) { (write.lock) } }
                td { (write.slot.key.as_str()) }
                td { (index(write)) }
                td { (write.cause.requested_by) }
                td { a href=(path(write)) { (write.id) } }
            }
        }
    };
    layout::table(
        label,
        &[
            "Requested",
            "State",
            "Lock",
            "Key",
            "Index",
            "Requested by",
            "Write",
        ],
        rows,
    )
}

fn path(write: &Write) -> String {
    format!("/admin/locks/{}/writes/{}", write.lock, write.id)
}

fn index(write: &Write) -> Cow<'static, str> {
    match write.slot.index {
        Some(index) => index.get().to_string().into(),
        None => "chosen by the lock".into(),
    }
}

fn state(request: &OperatorRequest<'_>, write: &Write) -> Markup {
    let class = match write.state {
        WriteState::Succeeded(_) => "good",
        WriteState::Failed(..) | WriteState::Aborted { .. } | WriteState::Expired { .. } => "bad",
        WriteState::Prepared(_) | WriteState::Sent | WriteState::InProgress => "warn",
        WriteState::Superseded { .. } | WriteState::Withdrawn { .. } => "muted",
    };
    html! {
        span class=(class) { (write.state.name()) }
        @if let Some(reason) = write.reason() { ": " (reason.name()) }
        @if is_unconfirmed(request, write) { " (unconfirmed)" }
        @if write.is_late() { " (late)" }
    }
}

fn is_unconfirmed(request: &OperatorRequest<'_>, write: &Write) -> bool {
    let app = request.app;
    let confirm_within = app.writes.settings().limits.confirm_within;
    write.is_unconfirmed(app.clock.now(), confirm_within)
}

/// `/admin/writes/{id}`: leads to the write, whose lock the operator may not know.
pub(super) async fn find(
    request: &OperatorRequest<'_>,
    id: &str,
) -> Result<HttpResponse, PageError> {
    let id: WriteId = id.parse().map_err(|_| PageError::NotFound)?;
    let found = request.app.writes.find_write(id, &request.principal).await;
    Ok(layout::redirect(&path(&found?)))
}

/// `/admin/locks/{lock}/writes/{id}`: the whole life of a write.
pub(super) async fn write(
    request: &OperatorRequest<'_>,
    lock: &str,
    id: &str,
) -> Result<HttpResponse, PageError> {
    let (lock, id) = ids(lock, id)?;
    let reading = request.app.writes.read_write(lock, id, &request.principal);
    let write = reading.await?;
    let title = format!("Write {}", write.id);
    let content = html! {
        h1 { (title) }
        (certainty(request, &write))
        h2 { "Steps" }
        (steps(&write))
        h2 { "Request" }
        (facts(&write))
        @if write.is_open() && request.may_act() {
            h2 { "Withdraw" }
            form method="post" action=(format!("{}/withdraw", path(&write))) {
                (layout::form_token(request.session))
                p {
                    label {
                        input type="checkbox" name="confirmed" value="yes" required;
                        " Remove the write from the shadow. A lock that has read it already can still execute it."
                    }
                }
                button class="danger" { "Withdraw the write" }
            }
        }
    };
    let session = Some(request.session);
    Ok(layout::page(StatusCode::OK, &title, session, content))
}

fn ids(lock: &str, id: &str) -> Result<(LockId, WriteId), PageError> {
    let lock = lock.parse().map_err(|_| PageError::NotFound)?;
    let id = id.parse().map_err(|_| PageError::NotFound)?;
    Ok((lock, id))
}

/// What is certain now, in words.
fn certainty(request: &OperatorRequest<'_>, write: &Write) -> Markup {
    let (reach, because) = policy::reach(write, request.app.clock.now());
    html! {
        div class="panel" {
            p { "The write is " strong { (state(request, write)) } "." }
            p {
                "Can its key reach the lock? "
                strong {
                    @match reach {
                        Reach::Yes => "Yes.",
                        Reach::No => "No.",
                        Reach::Until(end) => { "Until " (layout::time(end)) "." }
                    }
                }
                " " (because)
            }
            @if let Some(reason) = write.reason() {
                p { "Reason: " (reason.name()) @if let Some(code) = reason.device_code() { ", code " (code.as_str()) } "." }
            }
            @for anomaly in &write.anomalies.iter().copied().collect::<Vec<_>>() {
                p class="warn" { "The lock's report deviates from the device contract: " (anomaly.name()) "." }
            }
        }
    }
}

fn steps(write: &Write) -> Markup {
    html! {
        ol class="steps panel" {
            @for (state, at) in write.steps() {
                li {
                    (state)
                    @if let Some(at) = at { " – " (layout::time(at)) }
                }
            }
            @if write.ended_at().is_none() {
                li { "Expires – " (layout::time(write.expires_at)) }
            }
        }
    }
}

fn facts(write: &Write) -> Markup {
    html! {
        dl class="panel" {
            dt { "Lock" } dd { a href=(format!("/admin/locks/{}", write.lock)) { (write.lock) } }
            dt { "Thing" } dd { (write.thing.as_str()) }
            dt { "Key" } dd { (write.slot.key.as_str()) }
            dt { "Index" } dd { (index(write)) }
            @if let Some(reported) = write.reported_index {
                dt { "Index that the lock reported" } dd { (reported.get()) }
            }
            dt { "Requested by" } dd { (write.cause.requested_by) }
            @if let Some(request) = &write.cause.request {
                dt { "Request id" } dd { (request.as_str()) }
            }
            @if let Some(requested) = write.requested {
                dt { "Version of the lock" } dd { (requested.version.0) }
            }
            @if let Some(check) = write.next_check_at {
                dt { "Next check" } dd { (layout::time(check)) }
            }
        }
    }
}

/// The form to withdraw a write.
pub(super) async fn withdraw(
    request: &OperatorRequest<'_>,
    lock: &str,
    id: &str,
    context: RequestContext,
) -> Result<HttpResponse, PageError> {
    let (lock, id) = ids(lock, id)?;
    let options = RequestOptions::default()
        .with_request_id(context.id)
        .with_deadline(context.deadline);
    let (writes, principal) = (request.app.writes.clone(), request.principal.clone());
    // It is completed also if the browser goes away.
    let withdrawing = async move { writes.withdraw(lock, id, &principal, options).await };
    let withdrawing = request.app.work.tasks.spawn(withdrawing);
    let withdrawn = withdrawing.await;
    let withdrawn = withdrawn.unwrap_or(Err(WithdrawError::Undecided));
    let outcome = match &withdrawn {
        Ok(_) => "done".to_owned(),
        Err(error) => error.to_string(),
    };
    let (write, lock_id) = (Some(id), Some(lock));
    request.record("withdraw", lock_id, write, &outcome).await;
    let refused = |status, text: String| Err(PageError::Refused(status, text));
    match withdrawn {
        Ok(_) => {
            let by = request.principal.to_string();
            info!(%lock, write = %id, by, "withdrawn on request");
            Ok(layout::redirect(&format!("/admin/locks/{lock}/writes/{id}")))
        }
        Err(WithdrawError::Rejected(rejection)) => Err(rejection.into()),
        Err(WithdrawError::NotFound) => Err(PageError::NotFound),
        Err(error @ (WithdrawError::Busy | WithdrawError::Prepared | WithdrawError::AlreadyEnded(_))) => {
            refused(StatusCode::CONFLICT, format!("Nothing was changed: {error}."))
        }
        Err(error @ WithdrawError::NotUpdated(_)) => refused(StatusCode::BAD_GATEWAY, format!("Nothing was changed: {error}.")),
        Err(WithdrawError::Undecided) => refused(
            StatusCode::GATEWAY_TIMEOUT,
            "It is not known yet whether the write was withdrawn. The request can safely be repeated.".into(),
        ),
        Err(WithdrawError::Store(error)) => Err(error.into()),
    }
}
