//! The service as OpenAPI 3.1: made from the shapes that are answered and from the table of failures.

use std::collections::BTreeMap;
use std::time::Duration;

use keywright_domain::reason::FailureReason;
use keywright_domain::values::{IdempotencyKey, KeyUuid, LockId, MAX_JSON_INTEGER, WriteId};
use serde_json::{Map, Value, json};
use utoipa::ToSchema;
use utoipa::openapi::{RefOr, Schema};

use super::answer::{Details, EventPage, Success, WriteStatus, Writes};
use super::failure::{Failure, Undecided};
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
    /// The name of the shape of its 200, and what its headers say.
    answer: &'static str,
    headers: Vec<(&'static str, &'static str)>,
    failures: Vec<Failure>,
    open: bool,
}

/// The document, for a reader who found it at `host`.
pub(super) fn document(host: &str, bounds: &Bounds) -> Value {
    let mut paths: BTreeMap<&str, Map<String, Value>> = BTreeMap::new();
    for operation in operations(bounds) {
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
                `Prefer: wait=10`.\n\nA token (a user's, or a service's of an organization) or an API key (an \
                organization's) lets you in; where both are sent, both must be valid, and access that either one \
                has is granted.",
            "license": { "name": "MIT OR Apache-2.0", "identifier": "MIT OR Apache-2.0" },
        },
        "servers": [{
            "url": "{server}",
            "description": "Where the requests of this page go",
            "variables": { "server": { "default": format!("http://{host}") } },
        }],
        "security": [{ "BearerAuth": [] }, { "ApiKeyAuth": [] }],
        "tags": [
            { "name": "Keys", "description": "Writing keys, and what became of them" },
            { "name": "Locks", "description": "What is known of a lock" },
            { "name": "Service", "description": "Whether the service is there" },
        ],
        "paths": paths,
        "components": {
            "schemas": schemas(),
            "securitySchemes": {
                "BearerAuth": {
                    "type": "http", "scheme": "bearer", "bearerFormat": "JWT",
                    "description": "Identifies a user (`sub`) or a service of an organization. Signed with HS256, HS384, HS512, RS256, \
                        RS384, RS512, PS256, PS384, PS512, ES256, ES384 or EdDSA (Ed25519)",
                },
                "ApiKeyAuth": {
                    "type": "apiKey", "in": "header", "name": "X-API-Key",
                    "description": "The API key of an organization",
                },
            },
        },
    })
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
    shape::<WriteStatus>(&mut all);
    shape::<Writes>(&mut all);
    shape::<Details>(&mut all);
    shape::<EventPage<'_>>(&mut all);
    shape::<super::failure::Body<'static>>(&mut all);
    let text = json!({ "type": "string" });
    let index = json!({ "type": "integer", "minimum": 0, "maximum": MAX_JSON_INTEGER });
    all.insert(
        "WriteKey".into(),
        json!({
            "type": "object", "required": ["keyUuid"],
            "properties": {
                "keyUuid": {
                    "type": "string", "minLength": 1, "maxLength": KeyUuid::MAX_BYTES,
                    "pattern": "^[^\\u0000-\\u001f\\u007f-\\u009f]+$",
                    "description": "The key, at most 128 bytes of text without control characters",
                },
                "keyIndexNumber": {
                    "type": "integer", "minimum": 0, "maximum": MAX_JSON_INTEGER,
                    "description": "The slot; without one, the lock chooses",
                },
            },
            "examples": [{ "keyUuid": "9b2e8f4a-1c3d-4e5f-8a9b-0c1d2e3f4a5b", "keyIndexNumber": 2 }],
        }),
    );
    all.insert(
        "KeyWriteRequested".into(),
        json!({
            "type": "object", "required": ["type", "data"], "additionalProperties": false,
            "properties": {
                "type": { "const": "KeyWriteRequested" },
                "data": {
                    "type": "object", "required": ["lockId", "uuid", "timestamp", "keyUuid"],
                    "additionalProperties": false,
                    "properties": {
                        "lockId": { "type": "integer", "minimum": 1 }, "uuid": text,
                        "timestamp": { "type": "string", "format": "date-time" },
                        "keyUuid": text, "keyIndexNumber": index,
                    },
                },
            },
        }),
    );
    if let Some(success) = all.get_mut("Success") {
        let requested = json!({ "$ref": "#/components/schemas/KeyWriteRequested" });
        success["required"] = json!(["success", "aggregateId", "version", "event"]);
        success["properties"]["event"] = json!({
            "oneOf": [requested, { "type": "null" }],
            "description": "What was recorded; null: the same write is open already, and nothing had to be",
        });
    }
    all
}

fn lock_parameter() -> Value {
    json!({
        "name": "id", "in": "path", "required": true, "description": "The lock's number",
        "schema": { "type": "integer", "minimum": 1, "maximum": MAX_JSON_INTEGER }, "example": 123,
    })
}

fn write_parameter() -> Value {
    json!({
        "name": "writeId", "in": "path", "required": true, "description": "The write's id",
        "schema": { "type": "string", "format": "uuid" },
    })
}

/// What everyone can get who asks for something of a lock.
fn common() -> Vec<Failure> {
    vec![
        Failure::BadRequest("A numeric lock id is expected in the path".into()),
        Failure::Unauthorized,
        Failure::TooManyFailures,
        Failure::ShareTaken,
        Failure::Busy,
        Failure::Forbidden,
        Failure::NotFound,
        Failure::Internal,
        Failure::Unavailable,
        Failure::HeadTooLarge(Bounds::default().headers),
    ]
}

/// What follows while an outcome is not known: for the request itself, and for those after it.
fn undecided() -> [Failure; 2] {
    let lock = LockId::new(123).unwrap_or_else(|_| unreachable!("123 is a lock id"));
    let undecided = Undecided {
        lock,
        write: WriteId::from_u128(0),
        within: Duration::from_secs(15),
    };
    [
        Failure::Undecided(undecided),
        Failure::AfterUndecided(undecided),
    ]
}

fn operations(bounds: &Bounds) -> Vec<Operation> {
    let read = |path, id, summary, parameters, answer| Operation {
        method: "get",
        path,
        id,
        summary,
        description: "",
        parameters,
        body: None,
        answer,
        headers: Vec::new(),
        failures: common(),
        open: false,
    };
    let location = ("Location", "Where the write's status is read");
    let mut write_failures = common();
    write_failures.extend([
        Failure::BodyTooSlow,
        Failure::NotProvisioned,
        Failure::BodyTooLarge(bounds.body),
        Failure::NotJson,
        Failure::IndexBeyondCapacity(100),
        Failure::TooManyOpenWrites,
        Failure::NotUpdated(FailureReason::Throttled),
    ]);
    write_failures.extend([Failure::StillRunning, Failure::OtherCommand]);
    write_failures.extend(undecided());
    let mut withdraw_failures = common();
    withdraw_failures.extend([
        Failure::AlreadyEnded("SUCCEEDED"),
        Failure::NotUpdated(FailureReason::Throttled),
    ]);
    withdraw_failures.extend(undecided());
    let prefer = json!({
        "name": "Prefer", "in": "header", "required": false,
        "description": "`wait=N` (RFC 7240): the answer is held until the lock has settled the write, N seconds \
            at most, and 30 at most",
        "schema": { "type": "string" }, "example": "wait=10",
    });
    let name = json!({
        "name": "Idempotency-Key", "in": "header", "required": false,
        "description": "Names this request, so that it may be sent again: the same key and command get the same \
            answer for a day, or as long as --keep-answers says. What changed nothing is not kept, and runs again",
        "schema": { "type": "string", "minLength": 1, "maxLength": IdempotencyKey::MAX_BYTES, "pattern": "^[ -~]+$" },
        "example": "8e03978e-40d5-43dd-bc93-6894a57f9324",
    });
    let state = json!({
        "name": "state", "in": "query", "required": true, "description": "Only open writes are listed",
        "schema": { "type": "string", "enum": ["open"] },
    });
    let page = json!({
        "name": "page", "in": "query", "required": false,
        "description": "From 1; without it, the last page",
        "schema": { "type": "integer", "minimum": 1, "maximum": MAX_JSON_INTEGER },
    });
    let service = |path, id, summary| Operation {
        open: true,
        failures: if path == "/readyz" {
            vec![Failure::NotReady("The store of locks does not answer")]
        } else {
            Vec::new()
        },
        ..read(path, id, summary, Vec::new(), "")
    };
    vec![
        Operation {
            method: "post",
            id: "WriteKey",
            summary: "Write key to lock firmware",
            description: "Puts the command on the lock's device shadow and records it. A newer write for an index \
                takes the place of an open one; the same write while it is open is answered with `event: null`.",
            parameters: vec![lock_parameter(), prefer, name],
            body: Some(json!({
                "required": true,
                "content": { "application/json": { "schema": { "$ref": "#/components/schemas/WriteKey" } } },
            })),
            headers: vec![
                location,
                ("Preference-Applied", "The preference that was honoured"),
            ],
            failures: write_failures,
            ..read("/locks/{id}/WriteKey", "", "", Vec::new(), "Success")
        },
        read(
            "/locks/{id}/writes",
            "listWrites",
            "List the open writes of a lock",
            vec![lock_parameter(), state],
            "Writes",
        ),
        read(
            "/locks/{id}/writes/{writeId}",
            "getWrite",
            "See where a write stands",
            vec![lock_parameter(), write_parameter()],
            "WriteStatus",
        ),
        Operation {
            method: "delete",
            id: "withdrawWrite",
            summary: "Take an open write back",
            description: "Takes it off the shadow. A lock that is at it already may finish it all the same, which \
                is then recorded as late.",
            parameters: vec![lock_parameter(), write_parameter()],
            failures: withdraw_failures,
            ..read(
                "/locks/{id}/writes/{writeId}",
                "",
                "",
                Vec::new(),
                "WriteStatus",
            )
        },
        read(
            "/locks/{id}/details",
            "getLock",
            "See a lock",
            vec![lock_parameter()],
            "Details",
        ),
        read(
            "/locks/{id}/events",
            "listEvents",
            "Read the events of a lock",
            vec![lock_parameter(), page],
            "EventPage",
        ),
        service("/healthz", "health", "Whether the process is there"),
        service("/readyz", "ready", "Whether the service takes work"),
    ]
}

fn describe(operation: &Operation) -> Value {
    let tag = match operation.path {
        path if path.contains("rite") => "Keys",
        path if path.starts_with("/locks") => "Locks",
        _ => "Service",
    };
    let id_header = (
        "X-Request-Id",
        "Names this request in the log; yours, if you sent a plain one",
    );
    let headers: Map<String, Value> = std::iter::once(&id_header)
        .chain(&operation.headers)
        .map(|(name, text)| {
            let header = json!({ "description": text, "schema": { "type": "string" } });
            ((*name).to_owned(), header)
        })
        .collect();
    let schema = match operation.answer {
        "" => {
            json!({ "type": "object", "required": ["status"], "properties": { "status": { "type": "string" } } })
        }
        name => json!({ "$ref": format!("#/components/schemas/{name}") }),
    };
    let mut responses = failures(&operation.failures);
    responses.insert(
        "200".to_owned(),
        json!({
            "description": "Done", "headers": headers,
            "content": { "application/json": { "schema": schema } },
        }),
    );
    let mut described = json!({
        "operationId": operation.id, "summary": operation.summary, "tags": [tag],
        "parameters": operation.parameters, "responses": responses,
    });
    if !operation.description.is_empty() {
        described["description"] = json!(operation.description);
    }
    if let Some(body) = &operation.body {
        described["requestBody"] = body.clone();
    }
    if operation.open {
        described["security"] = json!([]);
    }
    described
}

/// By their statuses; what is answered stands there as an example.
fn failures(failures: &[Failure]) -> BTreeMap<String, Value> {
    let mut responses: BTreeMap<String, Value> = BTreeMap::new();
    for failure in failures {
        let (status, body) = failure.status_and_body();
        let body: Value = serde_json::from_slice(&body).unwrap_or_default();
        let message = body["message"].as_str().unwrap_or_default().to_owned();
        let response = responses
            .entry(status.as_u16().to_string())
            .or_insert_with(|| {
                json!({
                    "description": status.canonical_reason().unwrap_or_default(),
                    "headers": { "x-request-id": { "schema": { "type": "string" } } },
                    "content": { "application/json": {
                        "schema": { "$ref": "#/components/schemas/Error" }, "examples": {}
                    } },
                })
            });
        for name in failure.header_names() {
            response["headers"][name] = json!({ "schema": { "type": "string" } });
        }
        let examples = &mut response["content"]["application/json"]["examples"];
        let count = examples.as_object().map_or(0, Map::len);
        examples[format!("{}-{}", status.as_u16(), count + 1)] =
            json!({ "summary": message, "value": body });
    }
    responses
}
