//! The pages about webhooks.

use hyper::StatusCode;
use keywright_domain::model::{DeliveryRecord, Webhook, WebhookId, WebhookState};
use maud::{Markup, html};

use super::layout;
use super::operator_request::OperatorRequest;
use super::page_error::PageError;
use crate::http::response::HttpResponse;
use crate::webhook_service::WebhookService;

/// How many records of deliveries a page has.
const RECORDS: usize = 100;

fn service<'a>(request: &OperatorRequest<'a>) -> Result<&'a WebhookService, PageError> {
    let text = "Webhooks are off. The setting webhook-key turns them on.";
    let off = || PageError::Refused(StatusCode::NOT_FOUND, text.into());
    request.app.webhooks.as_ref().ok_or_else(off)
}

/// `/admin/webhooks`.
pub(super) async fn list(request: &OperatorRequest<'_>) -> Result<HttpResponse, PageError> {
    let webhooks = &service(request)?.webhooks;
    let all = webhooks.list(&request.principal).await?;
    let mut webhooks_with_lag = Vec::new();
    for webhook in &all {
        let (events, age) = webhooks.lag(webhook).await?;
        webhooks_with_lag.push((webhook, events, age));
    }
    // Those that need attention first.
    webhooks_with_lag.sort_by_key(|(webhook, events, _)| {
        (!needs_attention(webhook), std::cmp::Reverse(*events))
    });
    let is_empty = webhooks_with_lag.is_empty();
    let rows = html! {
        @for (webhook, events, age) in webhooks_with_lag {
            tr {
                td { a href=(format!("/admin/webhooks/{}", webhook.id)) { (webhook.id) } }
                td { (webhook.owner) }
                td { (webhook.url) }
                td { (state(webhook)) }
                td { (events) }
                td { @if events > 0 { (layout::span(age)) } }
            }
        }
    };
    let content = html! {
        h1 { "Webhooks" }
        @if is_empty {
            p { "None." }
        } @else {
            (layout::table("Webhooks", &["Webhook", "Organization", "URL", "State", "Events behind", "Oldest of them"], rows))
        }
    };
    let session = Some(request.session);
    Ok(layout::page(StatusCode::OK, "Webhooks", session, content))
}

fn needs_attention(webhook: &Webhook) -> bool {
    let is_failing = { webhook.progress.failures }.is_some_and(|failures| failures.is_failing());
    is_failing || !webhook.is_enabled()
}

fn state(webhook: &Webhook) -> Markup {
    match (&webhook.state, webhook.progress.failures) {
        (WebhookState::Disabled { at, reason }, _) => html! {
            span class="warn" { "disabled" } " since " (layout::time(*at)) ": " (reason.name())
        },
        (WebhookState::Enabled, Some(failures)) if failures.is_failing() => html! {
            span class="bad" { "failing" } " since " (layout::time(failures.since)) ", " (failures.count) " failures in a row"
        },
        (WebhookState::Enabled, _) => html! { span class="good" { "enabled" } },
    }
}

/// `/admin/webhooks/{id}`.
pub(super) async fn webhook(
    request: &OperatorRequest<'_>,
    id: &str,
) -> Result<HttpResponse, PageError> {
    let id: WebhookId = id.parse().map_err(|_| PageError::NotFound)?;
    let (webhooks, principal) = (&service(request)?.webhooks, &request.principal);
    let webhook = webhooks.read(principal, id).await?;
    let (events, age) = webhooks.lag(&webhook).await?;
    let waiting = webhooks.waiting(principal, id).await?.len();
    let records = webhooks.records(principal, id, None, None, RECORDS).await?;
    let title = format!("Webhook {id}");
    let content = html! {
        h1 { (title) }
        dl class="panel" {
            dt { "Organization" } dd { (webhook.owner) }
            dt { "URL" } dd { (webhook.url) }
            @if let Some(description) = &webhook.description { dt { "Description" } dd { (description.as_str()) } }
            dt { "State" } dd { (state(&webhook)) }
            dt { "Events behind" } dd { (events) @if events > 0 { ", the oldest for " (layout::span(age)) } }
            dt { "Locks whose next event is tried again later" } dd { (waiting) }
            dt { "Registered" } dd { (layout::time(webhook.created_at)) }
        }
        h2 { "Deliveries, the newest first" }
        (deliveries(&records))
    };
    let session = Some(request.session);
    Ok(layout::page(StatusCode::OK, &title, session, content))
}

fn deliveries(records: &[DeliveryRecord]) -> Markup {
    if records.is_empty() {
        return html! { p class="muted" { "None yet." } };
    }
    let rows = html! {
        @for record in records {
            tr {
                td { (layout::time(record.at)) }
                td { (record.message) }
                td { (record.event_type) }
                td { (record.outcome.name()) }
                td {
                    @match &record.answer {
                        Ok(answer) => (answer.status),
                        Err(why) => (why),
                    }
                }
                td { (record.took.as_millis()) " ms" }
                td { @if let Some(at) = record.next_attempt { (layout::time(at)) } }
            }
        }
    };
    layout::table(
        "Deliveries",
        &[
            "Time",
            "Event",
            "Type",
            "Outcome",
            "Answer",
            "Took",
            "Next attempt",
        ],
        rows,
    )
}
