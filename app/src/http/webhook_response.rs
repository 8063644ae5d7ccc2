//! The JSON bodies of responses about webhooks.

use std::time::Duration;

use keywright_domain::TestDelivery;
use keywright_domain::model::{
    DeliveryRecord, EndpointAnswer, FailureStreak, NoAnswer, Position, Webhook, WebhookOwner,
    WebhookState,
};
use serde::Serialize;
use utoipa::ToSchema;

use super::cursor;

/// A webhook.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(super) struct WebhookBody {
    /// The id of the webhook.
    #[schema(format = "uuid")]
    id: String,
    /// Where events are delivered.
    url: String,
    /// The types of events that are delivered. `*` stands for all.
    events: Vec<&'static str>,
    /// What the webhook is for.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(required = false)]
    description: Option<String>,
    /// The organization whose webhook it is, or an empty string for a webhook of all organizations.
    org_id: String,
    /// `enabled` or `disabled`.
    status: &'static str,
    /// Why it is disabled: `requested`, `gone` (it answered 410), or `failing` (all deliveries failed for five days).
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(required = false)]
    disabled_reason: Option<&'static str>,
    /// Since when it is disabled.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>, format = DateTime, required = false)]
    disabled_at: Option<String>,
    /// Since when all deliveries fail. Absent while deliveries succeed.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>, format = DateTime, required = false)]
    failing_since: Option<String>,
    /// How far the deliveries are in the feed.
    cursor: String,
    /// How many positions of the feed the cursor is behind its end.
    lag: u64,
    /// When it was registered.
    #[schema(value_type = String, format = DateTime)]
    created_at: String,
}

impl WebhookBody {
    /// `end`: the end of the feed.
    pub(super) fn of(webhook: &Webhook, end: Position) -> Self {
        let (status, disabled) = match webhook.state {
            WebhookState::Enabled => ("enabled", None),
            WebhookState::Disabled { at, reason } => ("disabled", Some((at, reason))),
        };
        let failures = webhook.progress.failures.filter(FailureStreak::is_failing);
        Self {
            id: webhook.id.to_string(),
            url: webhook.url.to_string(),
            events: webhook.events.names(),
            description: webhook.description.as_ref().map(ToString::to_string),
            org_id: match &webhook.owner {
                WebhookOwner::Organization(organization) => organization.to_string(),
                WebhookOwner::EveryOrganization => String::new(),
            },
            status,
            disabled_reason: disabled.map(|(_, reason)| reason.name()),
            disabled_at: disabled.map(|(at, _)| at.to_string()),
            failing_since: failures.map(|failures| failures.since.to_string()),
            cursor: cursor::text(webhook.progress.cursor),
            lag: end.0.saturating_sub(webhook.progress.cursor.0),
            created_at: webhook.created_at.to_string(),
        }
    }
}

/// A webhook with its secret, which is shown once.
#[derive(Serialize, ToSchema)]
pub(super) struct WebhookWithSecret {
    #[serde(flatten)]
    webhook: WebhookBody,
    /// The secret that signs deliveries. It is not shown again.
    secret: String,
}

impl WebhookWithSecret {
    pub(super) fn of(webhook: &Webhook, end: Position, secret: String) -> Self {
        Self {
            webhook: WebhookBody::of(webhook, end),
            secret,
        }
    }
}

/// All webhooks of an organization.
#[derive(Serialize, ToSchema)]
pub(super) struct WebhookList {
    /// The webhooks, in the order of their ids.
    webhooks: Vec<WebhookBody>,
}

impl WebhookList {
    pub(super) fn of(webhooks: &[Webhook], end: Position) -> Self {
        let webhooks = webhooks.iter().map(|webhook| WebhookBody::of(webhook, end));
        Self {
            webhooks: webhooks.collect(),
        }
    }
}

/// An attempt to deliver something.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(super) struct DeliveryItem {
    /// What was delivered: the id of an event, or of a test.
    id: String,
    /// The type of the event, or `WebhookTest`.
    r#type: &'static str,
    /// What came of it: `delivered`, `failed` (it is tried again), `rejected` (the answer was 4xx), or `given-up`.
    state: &'static str,
    /// When the attempt began. Absent for a delivery that was just asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>, format = DateTime, required = false)]
    attempted_at: Option<String>,
    /// How long the attempt took, in milliseconds.
    duration_ms: u64,
    /// The HTTP status of the answer. Absent if there was none.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(required = false)]
    http_status: Option<u16>,
    /// The first KiB of the answer.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(required = false)]
    answer: Option<String>,
    /// Why there was no answer.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(required = false)]
    error: Option<String>,
    /// When it is tried again.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>, format = DateTime, required = false)]
    next_attempt_at: Option<String>,
}

impl DeliveryItem {
    fn of_record(record: &DeliveryRecord) -> Self {
        let item = Self::new(record.message.clone(), record.event_type, &record.answer);
        Self {
            state: record.outcome.name(),
            attempted_at: Some(record.at.to_string()),
            duration_ms: millis(record.took),
            next_attempt_at: record.next_attempt.map(|at| at.to_string()),
            ..item
        }
    }

    /// A delivery that was just asked for, and that took this time.
    pub(super) fn of_test(test: &TestDelivery, took: Duration) -> Self {
        let item = Self::new(test.message.id(), test.message.event_type(), &test.answer);
        Self {
            state: test.outcome.name(),
            duration_ms: millis(took),
            ..item
        }
    }

    fn new(
        id: String,
        event_type: &'static str,
        answer: &Result<EndpointAnswer, NoAnswer>,
    ) -> Self {
        let (answer, error) = (answer.as_ref().ok(), answer.as_ref().err());
        Self {
            id,
            r#type: event_type,
            state: "",
            attempted_at: None,
            duration_ms: 0,
            http_status: answer.map(|answer| answer.status),
            answer: answer.map(|answer| answer.body.clone()),
            error: error.map(ToString::to_string),
            next_attempt_at: None,
        }
    }
}

fn millis(span: Duration) -> u64 {
    u64::try_from(span.as_millis()).unwrap_or(u64::MAX)
}

/// A page of attempts.
#[derive(Serialize, ToSchema)]
pub(super) struct DeliveryPage {
    /// The attempts, the newest first.
    deliveries: Vec<DeliveryItem>,
    /// The cursor with which to continue. Absent on the last page.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(required = false)]
    next: Option<String>,
}

impl DeliveryPage {
    pub(super) fn of(records: &[DeliveryRecord], next: Option<String>) -> Self {
        Self {
            deliveries: records.iter().map(DeliveryItem::of_record).collect(),
            next,
        }
    }
}
