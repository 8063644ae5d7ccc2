//! The OpenAPI 3.1 document: made from the types of response bodies, the operations, and the messages of errors.

use serde_json::{Map, Value, json};
use utoipa::OpenApi;

use super::api_error::{self, ApiError};
use super::operations::{self, Operation};
use super::response_body::{
    CauseItem, Details, EventPage, FeedPage, LockPage, Outcome, Success, WritePage,
};
use super::webhook_response::{
    DeliveryItem, DeliveryPage, WebhookBody, WebhookList, WebhookWithSecret,
};
use super::{schemas, webhook_operations};
use crate::settings::HttpLimits;

/// Which routes are served that depend on settings.
#[derive(Clone, Copy, Debug)]
pub(super) struct OptionalRoutes {
    /// `POST /device-reports`.
    pub(super) device_reports: bool,
    /// Those under `/webhooks`.
    pub(super) webhooks: bool,
}

/// The document, with `host` as the server.
pub(super) fn document(host: &str, http_limits: &HttpLimits, served: OptionalRoutes) -> Value {
    let mut paths = json!({});
    let mut operations = operations::operations(http_limits);
    if served.device_reports {
        operations.push(operations::device_reports_operation());
    }
    if served.webhooks {
        operations.extend(webhook_operations::operations(http_limits));
    }
    for operation in operations {
        paths[operation.path][operation.method] = describe(&operation);
    }
    let mut document = json!({
        "openapi": "3.1.0",
        "info": {
            "title": "Keywright",
            "version": env!("CARGO_PKG_VERSION"),
            "summary": "Writes keys to smart locks and records the outcome of each write.",
            "description": "A 200 of WriteKey means that the lock's device shadow has the command and the event is \
                durable. To learn the lock's result, read the path in `Location`, or wait for it with \
                `Prefer: wait=10`.\n\nA request needs a token (of a user, or of a service of an organization) in \
                `Authorization` or an API key (of an organization) in `X-API-Key`. One of the two is enough. If both are \
                sent, both must be valid, and the request may access what either of them may access. A client that fills \
                both from one value is refused.",
            "contact": { "name": "The operator of this service" },
            "license": { "name": "MIT OR Apache-2.0", "identifier": "MIT OR Apache-2.0" },
        },
        "servers": [{
            "url": "{server}",
            "description": "The server that this page sends requests to",
            "variables": { "server": { "default": format!("http://{host}") } },
        }],
        "security": [{ "BearerAuth": [] }, { "ApiKeyAuth": [] }],
        "tags": [
            { "name": "Keys", "description": "Writing keys, and the status of writes." },
            { "name": "Locks", "description": "Locks and their events." },
            { "name": "Service", "description": "The state of the service itself." },
        ],
        "paths": paths,
        "components": {
            "schemas": schemas(),
            "securitySchemes": security_schemes(served.device_reports),
        },
    });
    if served.webhooks {
        add_webhooks(&mut document);
    }
    document
}

/// Adds what the operations of webhooks refer to, and the deliveries.
fn add_webhooks(document: &mut Value) {
    let tag = json!({ "name": "Webhooks", "description": "Deliveries of events to a URL of the organization." });
    if let Some(tags) = document["tags"].as_array_mut() {
        tags.push(tag);
    }
    document["webhooks"] = webhook_operations::received();
    let schemas = &mut document["components"]["schemas"];
    let bodies = derived_schemas(WebhookBodies::openapi());
    for more in [bodies, webhook_operations::components()] {
        for (name, schema) in more.as_object().into_iter().flatten() {
            schemas[name] = schema.clone();
        }
    }
}

/// The two credentials of clients and, if reports may be posted, the secret for that.
fn security_schemes(takes_reports: bool) -> Value {
    let mut schemes = json!({
        "BearerAuth": {
            "type": "http", "scheme": "bearer", "bearerFormat": "JWT",
            "description": "A JSON Web Token (it begins with `eyJ`) in `Authorization: Bearer TOKEN`. It identifies a user (`sub`) or a \
                service of an organization, and is signed with HS256, HS384, HS512, RS256, RS384, RS512, PS256, PS384, PS512, \
                ES256, ES384 or EdDSA (Ed25519). An API key is not a token: send it in `X-API-Key`.",
        },
        "ApiKeyAuth": {
            "type": "apiKey", "in": "header", "name": "X-API-Key",
            "description": "The API key of an organization (it begins with `kwk_`) in `X-API-Key: KEY`. A token is not an API key: send \
                it in `Authorization`. A client that has only a token leaves this header out.",
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

/// The types of response bodies. The derive adds the types of their members.
#[derive(OpenApi)]
#[openapi(components(schemas(Success<'_>, Outcome, WritePage, LockPage, Details, EventPage<'_>, FeedPage<'_>, CauseItem<'_>, api_error::Body<'_>)))]
struct ResponseBodies;

/// The types of response bodies about webhooks.
#[derive(OpenApi)]
#[openapi(components(schemas(
    WebhookBody,
    WebhookWithSecret,
    WebhookList,
    DeliveryItem,
    DeliveryPage
)))]
struct WebhookBodies;

fn schemas() -> Value {
    let mut all = derived_schemas(ResponseBodies::openapi());
    for (name, schema) in schemas::components().as_object().into_iter().flatten() {
        all[name] = schema.clone();
    }
    all
}

fn derived_schemas(derived: utoipa::openapi::OpenApi) -> Value {
    let bodies = derived.components.unwrap_or_default();
    let mut all = serde_json::to_value(bodies.schemas).unwrap_or_default();
    let schemas = all.as_object_mut().into_iter().flat_map(Map::values_mut);
    let members = schemas.filter_map(|schema| schema.get_mut("properties")?.as_object_mut());
    for member in members.flat_map(Map::values_mut) {
        // The derived schemas allow `null`, but members without a value are left out.
        if member["type"][1] == "null" {
            member["type"] = member["type"][0].take();
        }
    }
    all
}

const REQUEST_ID_DESCRIPTION: &str =
    "The id of this request in the log. It is the client's own if the client sent a valid one.";

fn header(description: &str) -> Value {
    json!({ "description": description, "schema": { "type": "string" } })
}

/// The description of a header of an error.
fn header_description(name: &str) -> &'static str {
    match name {
        "www-authenticate" => "How to authenticate.",
        "retry-after" => "The number of seconds after which to try again.",
        "location" => "The path of the status of the write whose outcome is not known.",
        "connection" => "The connection is closed after the response.",
        "accept-encoding" => "The content coding that is accepted.",
        _ => "The methods of the path.",
    }
}

fn describe(operation: &Operation) -> Value {
    let mut headers = json!({ "X-Request-Id": header(REQUEST_ID_DESCRIPTION) });
    for (name, text) in &operation.headers {
        headers[*name] = header(text);
    }
    let mut responses = errors(&operation.errors);
    responses[operation.status] = json!({
        "description": operation.result, "headers": headers, "content": operation.content,
    });
    let mut described = json!({
        "operationId": operation.id, "summary": operation.summary, "tags": [operation.tag],
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

/// The responses by status, each with its bodies as examples.
fn errors(errors: &[ApiError]) -> Value {
    let mut responses = json!({});
    for error in errors {
        let (status, body) = error.status_and_body();
        let body: Value = serde_json::from_slice(&body).unwrap_or_default();
        let response = &mut responses[status.as_str()];
        if response.is_null() {
            *response = json!({
                "description": status.canonical_reason().unwrap_or_default(),
                "headers": { "x-request-id": header(REQUEST_ID_DESCRIPTION) },
                "content": { "application/json": {
                    "schema": { "$ref": "#/components/schemas/Error" }, "examples": {}
                } },
            });
        }
        for (name, _) in error.headers() {
            response["headers"][name.as_str()] = header(header_description(name.as_str()));
        }
        let examples = &mut response["content"]["application/json"]["examples"];
        let count = examples.as_object().map_or(0, Map::len);
        examples[format!("{}-{}", status.as_str(), count + 1)] =
            json!({ "summary": body["message"], "value": body });
    }
    responses
}
