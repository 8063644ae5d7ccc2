//! The service as OpenAPI 3.1: made from the shapes that are answered and from the table of failures.

use std::collections::BTreeMap;
use std::time::Duration;

use keywright_domain::model::{FailureReason, IdempotencyKey, LockId, MAX_JSON_INTEGER, WriteId};
use serde_json::{Map, Value, json};
use utoipa::ToSchema;
use utoipa::openapi::{RefOr, Schema};

use super::answer::{Details, EventPage, Outcome, Success, WriteStatus, Writes};
use super::api_error::{ApiError, Undecided};
use super::schemas;
use crate::settings::Bounds;

/// One request that is served, as a reader needs it.
struct Operation {
    method: &'static str,
    path: &'static str,
    id: &'static str,
    summary: &'static str,
    description: &'static str,
    parameters: Vec<Value>,
    body: Option<Value>,
    /// What its 200 says, and the content of that by media type.
    outcome: &'static str,
    answer: Value,
    headers: Vec<(&'static str, &'static str)>,
    failures: Vec<ApiError>,
    /// `None`: the credentials that the document names for all operations.
    security: Option<Value>,
}

/// The content of an answer with the schema of this name.
fn json_of(schema: &str) -> Value {
    json!({ "application/json": { "schema": { "$ref": format!("#/components/schemas/{schema}") } } })
}

/// The document, for a reader who found it at `host`. `takes_reports`: whether locks' reports may be posted.
pub(super) fn document(host: &str, bounds: &Bounds, takes_reports: bool) -> Value {
    let mut paths: BTreeMap<&str, Map<String, Value>> = BTreeMap::new();
    let reports = takes_reports.then(device_reports);
    for operation in operations(bounds).into_iter().chain(reports) {
        let described = describe(&operation);
        let path = paths.entry(operation.path).or_default();
        path.insert(operation.method.to_owned(), described);
    }
    json!({
        "openapi": "3.1.0",
        "info": {
            "title": "Keywright",
            "version": env!("CARGO_PKG_VERSION"),
            "summary": "Writes keys to smart locks, and proves what became of each one.",
            "description": "A 200 of WriteKey says that the lock's device shadow has the command and the event is \
                durable. What the lock makes of it is read at the address in `Location`, or waited for with \
                `Prefer: wait=10`.\n\nA token (of a user, or of a service of an organization) in `Authorization` or an \
                API key (of an organization) in `X-API-Key` gives access: one of the two is enough. Where both are sent, \
                both must be valid, and access that either one has is granted. A client that fills both from one value is \
                refused.",
            "contact": { "name": "Whoever operates this service" },
            "license": { "name": "MIT OR Apache-2.0", "identifier": "MIT OR Apache-2.0" },
        },
        "servers": [{
            "url": "{server}",
            "description": "Where the requests of this page go",
            "variables": { "server": { "default": format!("http://{host}") } },
        }],
        "security": [{ "BearerAuth": [] }, { "ApiKeyAuth": [] }],
        "tags": [
            { "name": "Keys", "description": "Writing keys, and what became of them." },
            { "name": "Locks", "description": "What is known of a lock." },
            { "name": "Service", "description": "The state of the service itself." },
        ],
        "paths": paths,
        "components": {
            "schemas": schemas(),
            "securitySchemes": security_schemes(takes_reports),
        },
    })
}

/// The two credentials of clients and, where locks' reports may be posted, the secret of whoever posts them.
fn security_schemes(takes_reports: bool) -> Value {
    let mut schemes = json!({
        "BearerAuth": {
            "type": "http", "scheme": "bearer", "bearerFormat": "JWT",
            "description": "A JSON Web Token (it begins with `eyJ`) in `Authorization: Bearer TOKEN`. It identifies a user (`sub`) or a \
                service of an organization, and is signed with HS256, HS384, HS512, RS256, RS384, RS512, PS256, PS384, PS512, \
                ES256, ES384 or EdDSA (Ed25519). An API key is no token: it goes into `X-API-Key`.",
        },
        "ApiKeyAuth": {
            "type": "apiKey", "in": "header", "name": "X-API-Key",
            "description": "The API key of an organization (it begins with `kwk_`) in `X-API-Key: KEY`. A token is no API key: it goes \
                into `Authorization`. A client that has only a token leaves this header out.",
        },
    });
    if takes_reports {
        schemes["ReportsSecret"] = json!({
            "type": "http", "scheme": "bearer",
            "description": "The secret of the setting `reports-secret` in `Authorization: Bearer SECRET`.",
        });
    }
    schemes
}

/// The name of a shape, with it and the shapes that it is made of.
fn shape<T: ToSchema>(all: &mut BTreeMap<String, Value>) {
    let mut parts: Vec<(String, RefOr<Schema>)> = vec![(T::name().into_owned(), T::schema())];
    T::schemas(&mut parts);
    all.extend(parts.into_iter().map(|(name, schema)| {
        let schema = serde_json::to_value(schema).unwrap_or_default();
        (name, schema)
    }));
}

fn schemas() -> BTreeMap<String, Value> {
    let mut all = BTreeMap::new();
    shape::<Success<'_>>(&mut all);
    shape::<Outcome>(&mut all);
    shape::<WriteStatus>(&mut all);
    shape::<Writes>(&mut all);
    shape::<Details>(&mut all);
    shape::<EventPage<'_>>(&mut all);
    shape::<super::api_error::Body<'static>>(&mut all);
    all.values_mut().for_each(without_null);
    all.extend(schemas::components());
    all
}

/// A member that has no value is left out, and never null: the derived schemas would also allow null.
fn without_null(schema: &mut Value) {
    let Some(members) = schema.get_mut("properties").and_then(Value::as_object_mut) else {
        return;
    };
    for (_, member) in members {
        if let Some([kind, null]) = member["type"].as_array().map(Vec::as_slice)
            && null == "null"
        {
            member["type"] = kind.clone();
        }
    }
}

fn lock_parameter() -> Value {
    json!({
        "name": "id", "in": "path", "required": true, "description": "The number of the lock.",
        "schema": { "type": "integer", "minimum": 1, "maximum": MAX_JSON_INTEGER }, "example": 123,
    })
}

fn write_parameter() -> Value {
    json!({
        "name": "writeId", "in": "path", "required": true, "description": "The id of the write.",
        "schema": { "type": "string", "format": "uuid" },
    })
}

/// What everyone can get who asks for something of a lock.
fn common() -> Vec<ApiError> {
    vec![
        ApiError::BadRequest("A numeric lock id is expected in the path".into()),
        ApiError::Unauthorized,
        ApiError::TooManyFailures,
        ApiError::ShareTaken,
        ApiError::Busy,
        ApiError::Forbidden,
        ApiError::NotFound,
        ApiError::Internal,
        ApiError::Unavailable,
        ApiError::HeadTooLarge(Bounds::default().headers),
    ]
}

/// What follows while an outcome is not known: for the request itself, and for those after it.
fn undecided() -> [ApiError; 2] {
    let lock = LockId::new(123).unwrap_or_else(|_| unreachable!("123 is a lock id"));
    let undecided = Undecided {
        lock,
        write: WriteId::from_u128(0),
        within: Duration::from_secs(15),
    };
    [
        ApiError::Undecided(undecided),
        ApiError::AfterUndecided(undecided),
    ]
}

fn operations(bounds: &Bounds) -> Vec<Operation> {
    let read = |path, id, summary, description, parameters, schema| Operation {
        method: "get",
        path,
        id,
        summary,
        description,
        parameters,
        body: None,
        outcome: "Done.",
        answer: json_of(schema),
        headers: Vec::new(),
        failures: common(),
        security: None,
    };
    let location = ("Location", "The address of the write's status.");
    let mut write_failures = common();
    write_failures.extend([
        ApiError::BodyTooSlow,
        ApiError::NotProvisioned,
        ApiError::BodyTooLarge(bounds.body),
        ApiError::NotJson,
        ApiError::IndexBeyondCapacity(100),
        ApiError::TooManyOpenWrites,
        ApiError::NotUpdated(FailureReason::Throttled),
    ]);
    write_failures.extend([ApiError::StillRunning, ApiError::OtherCommand]);
    write_failures.extend(undecided());
    let mut withdraw_failures = common();
    withdraw_failures.extend([
        ApiError::AlreadyEnded("SUCCEEDED"),
        ApiError::NotUpdated(FailureReason::Throttled),
    ]);
    withdraw_failures.extend(undecided());
    // Optional headers have no `example`: the reference page would send it by default.
    let prefer = json!({
        "name": "Prefer", "in": "header", "required": false,
        "description": "`wait=N` (RFC 7240), for instance `wait=10`: the answer is sent when the lock has settled the write, or after N \
            seconds, which are at most 30.",
        "schema": { "type": "string" },
    });
    let name = json!({
        "name": "Idempotency-Key", "in": "header", "required": false,
        "description": "The client's own name for this request, for instance a new random UUID for each command, so that the request may be \
            repeated: the same key and command get the same answer for a day, or as long as the setting `keep-answers` says. The \
            same key with another command is refused (422). What changed nothing is not kept, and runs again.",
        "schema": { "type": "string", "minLength": 1, "maxLength": IdempotencyKey::MAX_BYTES, "pattern": "^[ -~]+$" },
    });
    let state = json!({
        "name": "state", "in": "query", "required": true, "description": "The state of the writes to list: only `open`.",
        "schema": { "type": "string", "enum": ["open"] },
    });
    let page = json!({
        "name": "page", "in": "query", "required": false,
        "description": "The page, from 1. Without it, the last page.",
        "schema": { "type": "integer", "minimum": 1, "maximum": MAX_JSON_INTEGER },
    });
    let service = |path, id, summary, description, outcome| Operation {
        security: Some(json!([])),
        outcome,
        answer: json!({ "application/json": { "schema": {
            "type": "object", "required": ["status"], "description": "The state of the service.",
            "properties": { "status": { "type": "string", "description": "The state, in a word." } },
        } } }),
        failures: vec![ApiError::HeadTooLarge(bounds.headers)],
        ..read(path, id, summary, description, Vec::new(), "")
    };
    let mut ready = service(
        "/readyz",
        "getReadiness",
        "Ask whether the service takes work",
        "It takes work while its store answers and, where shadows are behind a broker, the broker is connected.",
        "It takes work.",
    );
    ready
        .failures
        .push(ApiError::NotReady("The store of locks does not answer"));
    let text = json!({ "schema": { "type": "string", "description": "One sample a line." } });
    let metrics = Operation {
        answer: json!({ "text/plain": text, "application/openmetrics-text": text }),
        ..service(
            "/metrics",
            "getMetrics",
            "Read the metrics",
            "Counts and latencies for Prometheus, in its text format or, for a client that accepts it, in the format of OpenMetrics.",
            "The metrics.",
        )
    };
    vec![
        Operation {
            method: "post",
            body: Some(json!({
                "required": true, "description": "The key, and its slot.",
                "content": { "application/json": { "schema": { "$ref": "#/components/schemas/WriteKey" } } },
            })),
            outcome: "The shadow has accepted the write, or the same write is open already.",
            headers: vec![
                location,
                ("Preference-Applied", "The preference that was applied."),
            ],
            failures: write_failures,
            ..read(
                "/locks/{id}/WriteKey",
                "writeKey",
                "Write key to lock firmware",
                "Puts the command on the lock's device shadow and records it. A newer write for an index \
                 takes the place of an open one; the same write while it is open is answered with `event: null`.",
                vec![lock_parameter(), prefer, name],
                "Success",
            )
        },
        Operation {
            outcome: "The open writes.",
            ..read(
                "/locks/{id}/writes",
                "listWrites",
                "List the open writes of a lock",
                "The writes of the lock that have not ended, oldest first.",
                vec![lock_parameter(), state],
                "Writes",
            )
        },
        Operation {
            outcome: "Where the write stands.",
            ..read(
                "/locks/{id}/writes/{writeId}",
                "getWrite",
                "Read the status of a write",
                "The state of one write, whether it is open or has ended.",
                vec![lock_parameter(), write_parameter()],
                "WriteStatus",
            )
        },
        Operation {
            method: "delete",
            outcome: "The write is withdrawn.",
            failures: withdraw_failures,
            ..read(
                "/locks/{id}/writes/{writeId}",
                "withdrawWrite",
                "Withdraw an open write",
                "Takes the write off the shadow. A lock that has begun may finish it all the same, which is then recorded \
                 as late.",
                vec![lock_parameter(), write_parameter()],
                "WriteStatus",
            )
        },
        Operation {
            outcome: "The lock.",
            ..read(
                "/locks/{id}/details",
                "getLock",
                "Read a lock",
                "What is known of the lock, and the keys that it holds.",
                vec![lock_parameter()],
                "Details",
            )
        },
        Operation {
            outcome: "The page.",
            ..read(
                "/locks/{id}/events",
                "listEvents",
                "Read the events of a lock",
                "A page of the events that the lock's state is made of, oldest first.",
                vec![lock_parameter(), page],
                "EventPage",
            )
        },
        service(
            "/healthz",
            "getHealth",
            "Ask whether the process runs",
            "It answers also while the store or the broker does not.",
            "The process runs.",
        ),
        ready,
        metrics,
    ]
}

/// `POST /device-reports`, which is served where the setting `reports` has `http`.
fn device_reports() -> Operation {
    let done = json!({
        "type": "object", "description": "That the report was taken in.", "required": ["success"],
        "properties": { "success": { "type": "boolean", "description": "Always true." } },
    });
    Operation {
        method: "post",
        path: "/device-reports",
        id: "deliverDeviceReport",
        summary: "Deliver what a lock reported",
        description: "Takes in a message about the shadow of a lock, for instance from a rule of AWS IoT, and answers when it is \
            settled durably.",
        parameters: Vec::new(),
        body: Some(json!({
            "required": true, "description": "The message.",
            "content": { "application/json": { "schema": {
                "type": "object", "description": "A message of the Device Shadow service, with the thing and the documents.",
            } } },
        })),
        outcome: "The report is settled.",
        answer: json!({ "application/json": { "schema": done } }),
        headers: Vec::new(),
        failures: vec![
            ApiError::BadRequest("the report cannot be read".into()),
            ApiError::Unauthorized,
            ApiError::BodyTooSlow,
            ApiError::EncodedBody,
            ApiError::BodyTooLarge(super::device_reports::LARGEST),
            ApiError::HeadTooLarge(Bounds::default().headers),
            ApiError::Unavailable,
        ],
        security: Some(json!([{ "ReportsSecret": [] }])),
    }
}

const REQUEST_ID_TEXT: &str =
    "The name of this request in the log: the client's own, where it sent a plain one.";

/// What a header of an error says.
fn header_text(name: &str) -> &'static str {
    match name {
        "www-authenticate" => "How to authenticate.",
        "retry-after" => "After how many seconds to ask again.",
        "location" => "The address of the status of the write that is undecided.",
        "connection" => "The connection is closed after the answer.",
        "accept-encoding" => "The content coding that is accepted.",
        _ => "The methods of the path.",
    }
}

fn describe(operation: &Operation) -> Value {
    let tag = match operation.path {
        "/device-reports" => "Service",
        path if path.contains("rite") => "Keys",
        path if path.starts_with("/locks") => "Locks",
        _ => "Service",
    };
    let id_header = ("X-Request-Id", REQUEST_ID_TEXT);
    let headers: Map<String, Value> = std::iter::once(&id_header)
        .chain(&operation.headers)
        .map(|(name, text)| {
            let header = json!({ "description": text, "schema": { "type": "string" } });
            ((*name).to_owned(), header)
        })
        .collect();
    let mut responses = failures(&operation.failures);
    responses.insert(
        "200".to_owned(),
        json!({
            "description": operation.outcome, "headers": headers, "content": operation.answer,
        }),
    );
    let mut described = json!({
        "operationId": operation.id, "summary": operation.summary, "tags": [tag],
        "description": operation.description, "responses": responses,
    });
    if !operation.parameters.is_empty() {
        described["parameters"] = json!(operation.parameters);
    }
    if let Some(body) = &operation.body {
        described["requestBody"] = body.clone();
    }
    if let Some(security) = &operation.security {
        described["security"] = security.clone();
    }
    described
}

/// By their statuses; what is answered stands there as an example.
fn failures(failures: &[ApiError]) -> BTreeMap<String, Value> {
    let mut responses: BTreeMap<String, Value> = BTreeMap::new();
    for api_error in failures {
        let (status, body) = api_error.status_and_body();
        let body: Value = serde_json::from_slice(&body).unwrap_or_default();
        let message = body["message"].as_str().unwrap_or_default().to_owned();
        let response = responses
            .entry(status.as_u16().to_string())
            .or_insert_with(|| {
                json!({
                    "description": status.canonical_reason().unwrap_or_default(),
                    "headers": { "x-request-id": { "description": REQUEST_ID_TEXT, "schema": { "type": "string" } } },
                    "content": { "application/json": {
                        "schema": { "$ref": "#/components/schemas/Error" }, "examples": {}
                    } },
                })
            });
        for name in api_error.header_names() {
            let text = header_text(&name);
            response["headers"][name] =
                json!({ "description": text, "schema": { "type": "string" } });
        }
        let examples = &mut response["content"]["application/json"]["examples"];
        let count = examples.as_object().map_or(0, Map::len);
        examples[format!("{}-{}", status.as_u16(), count + 1)] =
            json!({ "summary": message, "value": body });
    }
    responses
}
