//! The pages about locks.

use hyper::StatusCode;
use keywright_domain::model::{
    KeyUuid, LockId, LockSnapshot, LockVersion, OrganizationId, RecordedEvent,
};
use keywright_domain::{LockFilter, WriteFilter};
use maud::{Markup, html};

use super::operator_request::OperatorRequest;
use super::page_error::PageError;
use super::{layout, write_pages};
use crate::http::api_error::ApiError;
use crate::http::request_parameters::{parameter, replaced};
use crate::http::response::HttpResponse;

/// How many locks, events and writes a page has.
const LOCKS: usize = 50;
const EVENTS: u64 = 30;
const WRITES: usize = 20;

/// `/admin/locks`: all locks, or one by its number.
pub(super) async fn list(request: &OperatorRequest<'_>) -> Result<HttpResponse, PageError> {
    let query = request.query;
    let value = |name| parameter(query, name).filter(|text| !text.is_empty());
    if let Some(number) = value("number") {
        let lock: LockId = { number.trim().parse() }.map_err(ApiError::from)?;
        return Ok(layout::redirect(&format!("/admin/locks/{lock}")));
    }
    let organization = value("organization").map(|text| OrganizationId::new(&text));
    let key = value("key").map(|text| KeyUuid::new(&text));
    let mut filter = LockFilter::default();
    filter.organization = organization.transpose().map_err(ApiError::from)?;
    filter.key = key.transpose().map_err(ApiError::from)?;
    let after = value("after").map(|text| text.parse());
    let after: Option<LockId> = after.transpose().map_err(ApiError::from)?;
    let writes = &request.app.writes;
    let page = writes.list_locks(&request.principal, &filter, after, LOCKS);
    let page = page.await?;
    let field = |name: &'static str, label: &'static str| {
        html! { label { (label) input name=(name) value=(value(name).unwrap_or_default()); } }
    };
    let rows = html! {
        @for lock in &page.items {
            tr {
                td { a href=(format!("/admin/locks/{}", lock.id)) { (lock.id) } }
                td { (text(lock.serial_number.as_ref())) }
                td { (text(lock.organization.as_ref())) }
                td { (text(lock.owner.as_ref())) }
                td { (text(lock.thing.as_ref())) }
                td { (layout::time(lock.time)) }
                td { (lock.version.0) }
            }
        }
    };
    let content = html! {
        h1 { "Locks" }
        form class="filters" action="/admin/locks" {
            (field("number", "Number of a lock"))
            (field("organization", "Organization"))
            (field("key", "Holds the key"))
            button { "Find" }
        }
        @if page.items.is_empty() {
            p { "No lock matches" @if page.next.is_some() { " in this part of the list" } "." }
        } @else {
            (layout::table("Locks", &["Lock", "Serial number", "Organization", "Owner", "Thing", "Last event", "Version"], rows))
        }
        @if let Some(next) = page.next {
            p { a href=(format!("/admin/locks?{}", replaced(query, "after", &next.to_string()))) { "Further locks" } }
        }
    };
    let session = Some(request.session);
    Ok(layout::page(StatusCode::OK, "Locks", session, content))
}

fn text(value: Option<&impl ToString>) -> String {
    value.map_or_else(|| "–".to_owned(), ToString::to_string)
}

/// `/admin/locks/{id}`.
pub(super) async fn lock(
    request: &OperatorRequest<'_>,
    lock: &str,
) -> Result<HttpResponse, PageError> {
    let lock: LockId = lock.parse().map_err(|_| PageError::NotFound)?;
    let (writes, principal) = (&request.app.writes, &request.principal);
    let newest = |known: &LockSnapshot| {
        let version = known.lock.version.0;
        LockVersion(version.saturating_sub(EVENTS - 1).max(1))
    };
    let limit = usize::try_from(EVENTS).unwrap_or(usize::MAX);
    let (snapshot, mut events) = writes.read_events(lock, principal, newest, limit).await?;
    events.reverse();
    let mut filter = WriteFilter::default();
    filter.lock = Some(lock);
    let recent = writes.list_writes(principal, &filter, None, WRITES).await?;
    let title = format!("Lock {lock}");
    let content = html! {
        h1 { (title) }
        (facts(&snapshot))
        p { a href=(format!("/admin/locks/{lock}/audit")) { "Compare its shadow with its writes now" } }
        h2 { "Open writes" }
        @match snapshot.unfinished.is_empty() {
            true => p class="muted" { "None." },
            false => (write_pages::table(request, "Open writes", &snapshot.unfinished)),
        }
        h2 { "Recent writes" }
        @match recent.items.is_empty() {
            true => p class="muted" { "None among the newest writes of all locks." },
            false => (write_pages::table(request, "Recent writes", &recent.items)),
        }
        p { a href=(format!("/admin/writes?lock={lock}")) { "All writes of the lock" } }
        h2 { "Keys" }
        (keys(&snapshot))
        h2 { "Events, the newest first" }
        (event_table(&events))
    };
    let session = Some(request.session);
    Ok(layout::page(StatusCode::OK, &title, session, content))
}

fn facts(snapshot: &LockSnapshot) -> Markup {
    let lock = &snapshot.lock;
    html! {
        dl class="panel" {
            dt { "UUID" } dd { (lock.uuid.as_str()) }
            dt { "Serial number" } dd { (text(lock.serial_number.as_ref())) }
            dt { "Organization" } dd { (text(lock.organization.as_ref())) }
            dt { "Owner" } dd { (text(lock.owner.as_ref())) }
            dt { "Thing" } dd { (text(lock.thing.as_ref())) }
            dt { "Key slots" } dd { (text(lock.key_capacity.as_ref())) }
            dt { "Version of the stream" } dd { (lock.version.0) }
            dt { "Version of the shadow" } dd { (text(snapshot.shadow_version.map(|version| version.0).as_ref())) }
            dt { "Last event" } dd { (layout::time(lock.time)) }
        }
    }
}

fn keys(snapshot: &LockSnapshot) -> Markup {
    let keys = &snapshot.lock.keys;
    if keys.is_empty() {
        return html! { p class="muted" { "The lock holds no key that is known." } };
    }
    let rows = html! {
        @for key in keys {
            tr {
                td { (key.held.key.as_str()) }
                td { (text(key.held.index.map(|index| index.get()).as_ref())) }
                td { (text(key.held.user.as_ref())) }
            }
        }
    };
    layout::table("Keys", &["Key", "Index", "User"], rows)
}

fn event_table(events: &[RecordedEvent]) -> Markup {
    let rows = html! {
        @for event in events {
            tr {
                td { (event.version.0) }
                td { (layout::time(event.time)) }
                td { (event.event.name()) }
                td { (event.cause.as_ref().map_or("–", |cause| cause.requested_by.as_str())) }
                td {
                    @if let Some(id) = event.write {
                        a href=(format!("/admin/locks/{}/writes/{id}", event.lock)) { (id) }
                    }
                }
            }
        }
    };
    layout::table(
        "Events",
        &["Version", "Time", "Event", "Caused by", "Write"],
        rows,
    )
}
