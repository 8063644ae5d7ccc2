//! The operations of the OpenAPI document: each route with its parameters, its result and its errors.

use std::time::Duration;

use keywright_domain::model::{
    FailureReason, IdempotencyKey, KeyUuid, LockEvent, LockId, MAX_JSON_INTEGER, OrganizationId,
    WriteId, WriteState,
};
use serde_json::{Value, json};

use super::api_error::{ApiError, UndecidedWrite};
use super::device_reports;
use super::list_handlers::states_of_lock;
use super::request_parameters::{DEFAULT_LIMIT, MAX_LIMIT};
use super::schemas;
use crate::settings::HttpLimits;

/// A method of a path.
pub(super) struct Operation {
    pub(super) tag: &'static str,
    pub(super) method: &'static str,
    pub(super) path: &'static str,
    pub(super) id: &'static str,
    pub(super) summary: &'static str,
    pub(super) description: &'static str,
    pub(super) parameters: Vec<Value>,
    pub(super) body: Option<Value>,
    /// The status of success.
    pub(super) status: &'static str,
    /// The description of the success.
    pub(super) result: &'static str,
    /// The content of the success, by media type.
    pub(super) content: Value,
    /// The headers of the success and their descriptions, besides those of every response.
    pub(super) headers: Vec<(&'static str, &'static str)>,
    pub(super) errors: Vec<ApiError>,
    /// `None`: the credentials that the document requires of all operations.
    pub(super) security: Option<Value>,
}

/// JSON with the schema of this name.
pub(super) fn json_content(schema: &str) -> Value {
    json!({ "application/json": { "schema": { "$ref": format!("#/components/schemas/{schema}") } } })
}

fn lock_parameter() -> Value {
    json!({
        "name": "id", "in": "path", "required": true, "description": "The id of the lock, a number.",
        "schema": { "type": "integer", "minimum": 1, "maximum": MAX_JSON_INTEGER }, "example": 123,
    })
}

fn write_parameter() -> Value {
    json!({
        "name": "writeId", "in": "path", "required": true, "description": "The id of the write.",
        "schema": { "type": "string", "format": "uuid" },
    })
}

/// The errors of every request about a lock, and these.
pub(super) fn errors<const N: usize>(more: [ApiError; N]) -> Vec<ApiError> {
    let mut all = vec![
        ApiError::BadRequest("A numeric lock id is expected in the path".into()),
        ApiError::Unauthorized,
        ApiError::TooManyFailures,
        ApiError::QuotaExceeded,
        ApiError::Busy,
        ApiError::Forbidden,
        ApiError::NotFound,
        ApiError::Internal,
        ApiError::Unavailable,
        ApiError::HeadTooLarge(HttpLimits::default().max_head),
    ];
    all.extend(more);
    all
}

pub(super) fn parameter(name: &str, description: &str, schema: Value) -> Value {
    json!({ "name": name, "in": "query", "required": false, "description": description, "schema": schema })
}

pub(super) fn limit_parameter() -> Value {
    let schema =
        json!({ "type": "integer", "minimum": 1, "maximum": MAX_LIMIT, "default": DEFAULT_LIMIT });
    parameter("limit", "The maximum number of elements of a page.", schema)
}

fn lock_filter() -> Value {
    let schema = json!({ "type": "integer", "minimum": 1, "maximum": MAX_JSON_INTEGER });
    parameter("lock", "Only those of the lock with this id.", schema)
}

fn organization_filter(description: &str) -> Value {
    let schema = schemas::printable_text(OrganizationId::MAX_BYTES);
    parameter("organization", description, schema)
}

fn key_filter(description: &str) -> Value {
    parameter(
        "key",
        description,
        schemas::printable_text(KeyUuid::MAX_BYTES),
    )
}

/// The parameters of lists of writes, without `lock` and `organization`.
fn write_parameters(states: &[&str]) -> Vec<Value> {
    let cursor = json!({ "type": "string", "format": "uuid" });
    let reasons = FailureReason::names().collect::<Vec<_>>();
    vec![
        parameter(
            "state",
            "Only writes in this state.",
            json!({ "type": "string", "enum": states }),
        ),
        parameter(
            "reason",
            "Only writes that failed or were aborted for this reason.",
            json!({ "type": "string", "enum": reasons }),
        ),
        parameter(
            "since",
            "Only writes that were requested then or later: a time in UTC since 1970.",
            json!({ "type": "string", "format": "date-time" }),
        ),
        parameter(
            "unconfirmed",
            "Only writes that are unconfirmed, or only those that are not.",
            json!({ "type": "boolean" }),
        ),
        key_filter("Only writes of this key."),
        parameter(
            "requestedBy",
            "Only writes that this principal requested: a whole `requestedBy`, or the part of it that names a user (`user:ID`), an \
             organization (`org:ID`) or a credential.",
            json!({ "type": "string" }),
        ),
        parameter("after", "A cursor: only writes after it.", cursor),
        limit_parameter(),
    ]
}

fn feed_parameters() -> Vec<Value> {
    vec![
        parameter(
            "after",
            "A cursor: only events after it. `end`: only events from now on. Without it, the feed begins with the first event.",
            json!({ "type": "string", "pattern": "^([0-9a-f]{16}|end)$" }),
        ),
        limit_parameter(),
        lock_filter(),
        parameter(
            "type",
            "Only events of this type.",
            json!({ "type": "string", "enum": LockEvent::NAMES }),
        ),
    ]
}

pub(super) fn operations(http_limits: &HttpLimits) -> Vec<Operation> {
    let read = |path, id, summary, description, parameters, schema| Operation {
        tag: "Keys",
        method: "get",
        path,
        id,
        summary,
        description,
        parameters,
        body: None,
        status: "200",
        result: "Done.",
        content: json_content(schema),
        headers: Vec::new(),
        errors: errors([]),
        security: None,
    };
    let location = ("Location", "The path of the write's status.");
    let undecided = UndecidedWrite {
        lock: LockId::new(123).unwrap_or_else(|_| unreachable!("123 is a lock id")),
        write: WriteId::from_u128(0),
        lease: Duration::from_secs(15),
    };
    // Optional headers have no `example`, because the reference page would send it by default.
    let prefer = json!({
        "name": "Prefer", "in": "header", "required": false,
        "description": "`wait=N` (RFC 7240), for instance `wait=10`: the response is sent when the lock has settled the write, or after N \
            seconds, at most 30.",
        "schema": { "type": "string" },
    });
    let idempotency_key = json!({
        "name": "Idempotency-Key", "in": "header", "required": false,
        "description": "A key that the client chooses for this request, for instance a new random UUID for each command, so that the request can \
            be repeated: the same key and command get the same response for a day, or as long as the setting `keep-answers` says. \
            The same key with another command is refused (422). A request that changed nothing is not kept and runs again.",
        "schema": { "type": "string", "minLength": 1, "maxLength": IdempotencyKey::MAX_BYTES, "pattern": "^[ -~]+$" },
    });
    let next_page = ("Link", "The path of the next page, with `rel=\"next\"`.");
    let mut writes_of_lock = vec![lock_parameter()];
    writes_of_lock.extend(write_parameters(&states_of_lock()));
    let mut all_writes = write_parameters(&WriteState::NAMES);
    all_writes.push(lock_filter());
    all_writes.push(organization_filter(
        "Only writes of locks that belong to this organization now.",
    ));
    let page = json!({
        "name": "page", "in": "query", "required": false,
        "description": "The page, from 1. Without it, the last page.",
        "schema": { "type": "integer", "minimum": 1, "maximum": MAX_JSON_INTEGER },
    });
    let service = |path, id, summary, description, result| Operation {
        tag: "Service",
        security: Some(json!([])),
        result,
        content: json!({ "application/json": { "schema": {
            "type": "object", "required": ["status"], "description": "The state of the service.",
            "properties": { "status": { "type": "string", "description": "The state, as one word." } },
        } } }),
        errors: vec![ApiError::HeadTooLarge(http_limits.max_head)],
        ..read(path, id, summary, description, Vec::new(), "")
    };
    let text = json!({ "schema": { "type": "string", "description": "One sample in each line." } });
    vec![
        Operation {
            method: "post",
            body: Some(json!({
                "required": true, "description": "The key and, optionally, its index.",
                "content": { "application/json": { "schema": { "$ref": "#/components/schemas/WriteKey" } } },
            })),
            result: "The shadow has accepted the write, or the same write is already open.",
            headers: vec![
                location,
                ("Preference-Applied", "The preference that was applied."),
            ],
            errors: errors([
                ApiError::BodyTooSlow,
                ApiError::NotProvisioned,
                ApiError::BodyTooLarge(http_limits.max_body),
                ApiError::NotJson,
                ApiError::IndexBeyondCapacity(100),
                ApiError::TooManyOpenWrites,
                ApiError::NotUpdated(FailureReason::Throttled),
                ApiError::StillRunning,
                ApiError::OtherCommand,
                ApiError::Undecided(undecided),
                ApiError::AfterUndecided(undecided),
            ]),
            ..read(
                "/locks/{id}/WriteKey",
                "writeKey",
                "Write key to lock firmware",
                "Puts the command on the lock's device shadow and records it. A newer write for a key index replaces \
                 an open one. If the same write is already open, the response has `event: null`.",
                vec![lock_parameter(), prefer, idempotency_key],
                "Success",
            )
        },
        Operation {
            result: "The page.",
            headers: vec![next_page],
            ..read(
                "/locks/{id}/writes",
                "listWrites",
                "List the writes of a lock",
                "The writes of the lock, the newest first. `state=open` lists those that have not ended, the oldest first, without pages.",
                writes_of_lock,
                "WritePage",
            )
        },
        Operation {
            result: "The page.",
            headers: vec![next_page],
            ..read(
                "/writes",
                "listAllWrites",
                "List the writes of all locks",
                "The writes of the locks that the caller may access, the newest first.",
                all_writes,
                "WritePage",
            )
        },
        Operation {
            tag: "Locks",
            result: "The page.",
            headers: vec![next_page],
            ..read(
                "/locks",
                "listLocks",
                "List the locks",
                "The locks that the caller may access, in the order of their ids.",
                vec![
                    organization_filter("Only locks of this organization."),
                    key_filter("Only locks that hold this key."),
                    parameter(
                        "after",
                        "A cursor: only locks after it.",
                        json!({ "type": "string", "pattern": "^[1-9][0-9]{0,15}$" }),
                    ),
                    limit_parameter(),
                ],
                "LockPage",
            )
        },
        Operation {
            result: "The status of the write.",
            ..read(
                "/locks/{id}/writes/{writeId}",
                "getWrite",
                "Read the status of a write",
                "The status of one write, open or ended.",
                vec![lock_parameter(), write_parameter()],
                "WriteStatus",
            )
        },
        Operation {
            method: "delete",
            result: "The write is withdrawn.",
            errors: errors([
                ApiError::AlreadyEnded("SUCCEEDED"),
                ApiError::NotUpdated(FailureReason::Throttled),
                ApiError::Undecided(undecided),
                ApiError::AfterUndecided(undecided),
            ]),
            ..read(
                "/locks/{id}/writes/{writeId}",
                "withdrawWrite",
                "Withdraw an open write",
                "Removes the write from the shadow. A lock that has begun may still finish it; its result is then recorded \
                 as late.",
                vec![lock_parameter(), write_parameter()],
                "WriteStatus",
            )
        },
        Operation {
            tag: "Locks",
            result: "The lock.",
            ..read(
                "/locks/{id}/details",
                "getLock",
                "Read a lock",
                "The recorded facts about the lock and the keys that it holds.",
                vec![lock_parameter()],
                "Details",
            )
        },
        Operation {
            tag: "Locks",
            result: "The page.",
            ..read(
                "/locks/{id}/events",
                "listEvents",
                "Read the events of a lock",
                "A page of the lock's events, oldest first.",
                vec![lock_parameter(), page],
                "EventPage",
            )
        },
        Operation {
            tag: "Locks",
            result: "The page, or the stream.",
            content: json!({
                "application/json": { "schema": { "$ref": "#/components/schemas/FeedPage" } },
                "text/event-stream": { "schema": {
                    "type": "string", "description": "Server-sent events: `id` is the cursor, `data` an event as in a page.",
                } },
            }),
            headers: vec![next_page],
            errors: errors([ApiError::TooManyStreams]),
            ..read(
                "/events",
                "readFeed",
                "Read the events of all locks",
                "The events of the locks that the caller may access, in the order in which they were recorded. With \
                 `Accept: text/event-stream` the response does not end: it has the events after `after`, and then each event when it \
                 is recorded. A client that was disconnected continues with `Last-Event-ID`. Events may be repeated; they \
                 have the same `id` then.",
                feed_parameters(),
                "FeedPage",
            )
        },
        service(
            "/healthz",
            "getHealth",
            "Check whether the process runs",
            "It also responds while the store or the broker is unavailable.",
            "The process runs.",
        ),
        Operation {
            errors: vec![
                ApiError::HeadTooLarge(http_limits.max_head),
                ApiError::NotReady("The store of locks does not answer"),
            ],
            ..service(
                "/readyz",
                "getReadiness",
                "Check whether the service accepts work",
                "The service accepts work while its store answers and, if shadows are behind a broker, the broker is connected.",
                "The service accepts work.",
            )
        },
        Operation {
            content: json!({ "text/plain": text, "application/openmetrics-text": text }),
            ..service(
                "/metrics",
                "getMetrics",
                "Read the metrics",
                "Counts and latencies for Prometheus, in its text format or, if the client accepts it, in OpenMetrics.",
                "The metrics.",
            )
        },
    ]
}

/// `POST /device-reports`, which is served if the setting `reports` has `http`.
pub(super) fn device_reports_operation() -> Operation {
    let done = json!({
        "type": "object", "description": "The report is settled.", "required": ["success"],
        "properties": { "success": { "type": "boolean", "description": "Always true." } },
    });
    Operation {
        tag: "Service",
        method: "post",
        path: "/device-reports",
        id: "deliverDeviceReport",
        summary: "Deliver a report of a lock",
        description: "Delivers a message about the shadow of a lock, for instance from a rule of AWS IoT. The response is sent when \
            the report is settled durably.",
        parameters: Vec::new(),
        body: Some(json!({
            "required": true, "description": "The message.",
            "content": { "application/json": { "schema": {
                "type": "object", "description": "A message of the Device Shadow service, with the thing and the documents.",
            } } },
        })),
        status: "200",
        result: "The report is settled.",
        content: json!({ "application/json": { "schema": done } }),
        headers: Vec::new(),
        errors: vec![
            ApiError::BadRequest("the report cannot be read".into()),
            ApiError::Unauthorized,
            ApiError::BodyTooSlow,
            ApiError::EncodedBody,
            ApiError::BodyTooLarge(device_reports::MAX_BYTES),
            ApiError::HeadTooLarge(HttpLimits::default().max_head),
            ApiError::Unavailable,
        ],
        security: Some(json!([{ "ReportsSecret": [] }])),
    }
}
