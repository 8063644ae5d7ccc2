//! Webhooks in the OpenAPI document: the operations that manage them, and the deliveries that they receive.

use keywright_domain::model::{DeliveryOutcome, EventSelection, LockEvent, Timestamp, WebhookUrl};
use serde_json::{Value, json};

use super::api_error::ApiError;
use super::operations::{Operation, errors, json_content, limit_parameter, parameter};
use super::schemas;
use crate::settings::HttpLimits;

fn id_parameter() -> Value {
    json!({
        "name": "id", "in": "path", "required": true, "description": "The id of the webhook.",
        "schema": { "type": "string", "format": "uuid" },
    })
}

fn body(description: &str, schema: &str) -> Option<Value> {
    Some(json!({ "required": true, "description": description, "content": json_content(schema) }))
}

/// The errors of a request with a body.
fn with_body(http_limits: &HttpLimits) -> Vec<ApiError> {
    errors([
        ApiError::BodyTooSlow,
        ApiError::BodyTooLarge(http_limits.max_body),
        ApiError::NotJson,
    ])
}

pub(super) fn operations(http_limits: &HttpLimits) -> Vec<Operation> {
    let operation = |method, path, id, summary, description, schema| Operation {
        tag: "Webhooks",
        method,
        path,
        id,
        summary,
        description,
        parameters: vec![id_parameter()],
        body: None,
        status: "200",
        result: "Done.",
        content: json_content(schema),
        headers: Vec::new(),
        errors: errors([]),
        security: None,
    };
    let mut register_errors = with_body(http_limits);
    register_errors.push(ApiError::TooManyWebhooks(20));
    vec![
        Operation {
            parameters: Vec::new(),
            ..operation(
                "get",
                "/webhooks",
                "listWebhooks",
                "List the webhooks",
                "The webhooks of the organization, in the order of their ids. Webhooks belong to organizations: a user gets 403.",
                "WebhookList",
            )
        },
        Operation {
            parameters: Vec::new(),
            body: body("The webhook.", "NewWebhook"),
            status: "201",
            result: "The webhook is registered.",
            headers: vec![("Location", "The path of the webhook.")],
            errors: register_errors,
            ..operation(
                "post",
                "/webhooks",
                "registerWebhook",
                "Register a webhook",
                "Registers a URL to which the events of the organization's locks are delivered from now on. The response has the secret \
                 that signs deliveries, which is not shown again.",
                "WebhookWithSecret",
            )
        },
        operation(
            "get",
            "/webhooks/{id}",
            "getWebhook",
            "Read a webhook",
            "The webhook, and how far its deliveries are.",
            "WebhookBody",
        ),
        Operation {
            body: body("What to change.", "WebhookChange"),
            errors: with_body(http_limits),
            ..operation(
                "patch",
                "/webhooks/{id}",
                "changeWebhook",
                "Change a webhook",
                "Changes the members that the body has. A webhook that is enabled continues at its cursor.",
                "WebhookBody",
            )
        },
        Operation {
            result: "The webhook as it was.",
            ..operation(
                "delete",
                "/webhooks/{id}",
                "removeWebhook",
                "Remove a webhook",
                "Removes the webhook and the records of its deliveries.",
                "WebhookBody",
            )
        },
        Operation {
            errors: errors([ApiError::RotatedRecently(Timestamp::from_millis(
                1_780_056_000_000,
            ))]),
            ..operation(
                "post",
                "/webhooks/{id}/rotate-secret",
                "rotateWebhookSecret",
                "Replace the secret of a webhook",
                "Makes a new secret. For 24 hours, deliveries are signed by the old one, too, and the secret cannot be replaced again.",
                "WebhookWithSecret",
            )
        },
        Operation {
            result: "What the endpoint answered.",
            ..operation(
                "post",
                "/webhooks/{id}/test",
                "testWebhook",
                "Test a webhook",
                "Delivers a `WebhookTest` now, also to a webhook that is disabled. It is not tried again.",
                "DeliveryItem",
            )
        },
        Operation {
            parameters: vec![
                id_parameter(),
                parameter(
                    "state",
                    "Only attempts with this outcome.",
                    json!({ "type": "string", "enum": DeliveryOutcome::NAMES }),
                ),
                parameter(
                    "after",
                    "A cursor: only attempts behind it.",
                    json!({ "type": "string", "pattern": "^[0-9]{1,19}$" }),
                ),
                limit_parameter(),
            ],
            result: "The page.",
            headers: vec![("Link", "The path of the next page, with `rel=\"next\"`.")],
            ..operation(
                "get",
                "/webhooks/{id}/deliveries",
                "listDeliveries",
                "List the deliveries of a webhook",
                "The recent attempts to deliver, the newest first: 250 that succeeded, and 250 others.",
                "DeliveryPage",
            )
        },
        Operation {
            body: body("What to deliver again.", "WebhookReplay"),
            errors: with_body(http_limits),
            result: "The webhook, or with `event` what the endpoint answered.",
            content: json!({ "application/json": { "schema": { "oneOf": [
                { "$ref": "#/components/schemas/WebhookBody" },
                { "$ref": "#/components/schemas/DeliveryItem" },
            ] } } }),
            ..operation(
                "post",
                "/webhooks/{id}/replay",
                "replayWebhook",
                "Deliver events again",
                "Delivers the events behind a cursor, or since a time, again, and continues from there; or delivers one event now. Events keep \
                 their ids.",
                "WebhookBody",
            )
        },
    ]
}

/// The schemas of request bodies, and of deliveries.
pub(super) fn components() -> Value {
    let url = json!({
        "type": "string", "format": "uri", "maxLength": WebhookUrl::MAX_BYTES, "pattern": "^[hH][tT][tT][pP][sS]?://",
        "description": "Where events are delivered: an `https` URL without a user name, whose host has public addresses only.",
    });
    let mut names = vec![EventSelection::ALL];
    names.extend(LockEvent::NAMES);
    let events = json!({
        "type": "array", "minItems": 1, "items": { "type": "string", "enum": names },
        "description": "The types of events to deliver. `*` stands for all.",
    });
    let description = json!({
        "type": ["string", "null"], "maxLength": 64, "pattern": "^[^\\u0000-\\u001f\\u007f-\\u009f]*$",
        "description": "What the webhook is for: text of at most 256 bytes.",
    });
    let mut all = json!({
        "NewWebhook": {
            "type": "object", "description": "A webhook to register. Other members are ignored.", "required": ["url"],
            "properties": { "url": url, "events": events, "description": description },
            "examples": [{ "url": "https://app.example/hook", "events": ["*"] }],
        },
        "WebhookChange": {
            "type": "object", "description": "What to change of a webhook. Other members are ignored.", "minProperties": 1,
            "properties": {
                "url": url, "events": events, "description": description,
                "status": { "type": "string", "enum": ["enabled", "disabled"], "description": "Whether events are delivered." },
            },
            "examples": [{ "status": "enabled" }],
        },
        "WebhookReplay": {
            "type": "object", "description": "What to deliver again: exactly one of these members.",
            "oneOf": [{ "required": ["after"] }, { "required": ["since"] }, { "required": ["event"] }],
            "properties": {
                "after": {
                    "type": "string", "pattern": "^[0-9a-f]{16}$", "description": "A cursor of the feed: events behind it.",
                },
                "since": {
                    "type": "string", "format": "date-time", "description": "A time in UTC: events recorded then or later.",
                },
                "event": { "type": "string", "pattern": "^[1-9][0-9]*-[1-9][0-9]*$", "description": "The id of one event." },
            },
            "examples": [{ "since": "2026-05-29T12:00:00Z" }],
        },
    });
    for (name, schema) in schemas::deliveries() {
        all[name] = schema;
    }
    all
}

/// The section `webhooks`: what a receiver gets, by type.
pub(super) fn received() -> Value {
    let mut received = json!({});
    let header = |name: &str, description: &str| {
        json!({
            "name": name, "in": "header", "required": true, "description": description, "schema": { "type": "string" },
        })
    };
    for name in LockEvent::NAMES {
        received[name] = json!({ "post": {
            "operationId": format!("receive{name}"), "tags": ["Webhooks"], "summary": format!("Receive {name}"),
            "description": "A delivery, signed as Standard Webhooks specifies. It may be repeated, and has the same id then.",
            "security": [],
            "parameters": [
                header("webhook-id", "The id of the event, also in the body."),
                header("webhook-timestamp", "When it was sent, in seconds since 1970."),
                header("webhook-signature", "Signatures, separated by spaces: `v1,` and HMAC-SHA256 in Base64."),
            ],
            "requestBody": {
                "required": true, "description": "The envelope of the event.",
                "content": json_content(&format!("{name}Delivery")),
            },
            "responses": {
                "2XX": { "description": "The event is accepted." },
                "410": { "description": "The webhook is disabled." },
                "4XX": { "description": "The event is refused, and not delivered again. After 408, 425 and 429 it is tried again." },
                "5XX": { "description": "The event is tried again." },
            },
        } });
    }
    received
}
