use serde_json::{Value, json};

use super::{Metadata, Object};

/// The limits of a shadow document.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Levels of nested keys below `desired` or `reported`. AWS has documented 5, 6 and 8; its error message says 6.
    pub max_levels: usize,
    /// The size of `desired` and `reported` together as compact JSON, in bytes.
    pub max_bytes: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            max_levels: 6,
            max_bytes: 8192,
        }
    }
}

/// The answer to a request that the service rejects.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{code} {message}")]
pub struct Rejected {
    /// An HTTP status code.
    pub code: u16,
    /// The reason. Clients should rely on the code.
    pub message: String,
    /// The `clientToken` of the request, if it could be read.
    pub client_token: Option<String>,
}

impl Rejected {
    /// A rejection with this code and reason.
    pub fn new(code: u16, message: impl Into<String>, client_token: Option<String>) -> Self {
        Self {
            code,
            message: message.into(),
            client_token,
        }
    }

    /// The body of a `rejected` message over MQTT.
    pub fn body(&self) -> Value {
        let mut body = json!({ "code": self.code, "message": self.message });
        put_token(&mut body, self.client_token.as_deref());
        body
    }

    /// The error type over REST (the header `x-amzn-ErrorType`).
    pub const fn rest_error_type(&self) -> &'static str {
        match self.code {
            400 => "InvalidRequestException",
            401 => "UnauthorizedException",
            403 => "ForbiddenException",
            404 => "ResourceNotFoundException",
            405 => "MethodNotAllowedException",
            409 => "ConflictException",
            413 => "RequestEntityTooLargeException",
            415 => "UnsupportedDocumentEncodingException",
            429 => "ThrottlingException",
            503 => "ServiceUnavailableException",
            _ => "InternalFailureException",
        }
    }
}

/// The effect of an update on one section.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Patch<'a> {
    /// Does not change it.
    Keep,
    /// Removes it.
    Remove,
    /// Merges these members into it.
    Merge(&'a Object),
}

/// The size limit of a client token, in bytes.
const MAX_TOKEN_BYTES: usize = 64;

/// A valid update request.
#[derive(Clone, Debug, PartialEq)]
pub struct Request {
    /// The version that the shadow must have; `None`: any.
    pub version: Option<u64>,
    /// Is repeated in the answer; at most 64 bytes.
    pub client_token: Option<String>,
    /// The `state` of the request, which the answer repeats.
    state: Value,
}

impl Request {
    /// Parses the body of an update request.
    ///
    /// # Errors
    /// The body is invalid (400) or not UTF-8 (415). The rejection has the client token if that could be read.
    pub fn parse(body: &[u8], limits: &Limits) -> Result<Self, Rejected> {
        Self::from_object(parse_object(body)?, limits)
    }

    /// Validates a parsed body of an update request.
    ///
    /// # Errors
    /// The body is invalid (400). The rejection has the client token if that could be read.
    pub fn from_object(mut root: Object, limits: &Limits) -> Result<Self, Rejected> {
        let client_token = take_token(&mut root)?;
        let reject = |text: String| Rejected::new(400, text, client_token.clone());
        let invalid = |text: &str| reject(text.to_owned());
        let state = root.remove("state");
        let state = state.ok_or_else(|| invalid("Missing required node: state"))?;
        match &state {
            Value::Null => {}
            Value::Object(state) => {
                let unknown = state.keys().find(|k| *k != "desired" && *k != "reported");
                if let Some(node) = unknown {
                    return Err(reject(format!("State contains an invalid node: '{node}'")));
                }
                for (name, text) in [
                    ("desired", "Desired node must be an object"),
                    ("reported", "Reported node must be an object"),
                ] {
                    if !matches!(state.get(name), None | Some(Value::Null | Value::Object(_))) {
                        return Err(invalid(text));
                    }
                }
            }
            _ => return Err(invalid("State node must be an object")),
        }
        let version = match root.get("version") {
            None | Some(Value::Null) => None,
            Some(version) => Some(version.as_u64().ok_or_else(|| invalid("Invalid version"))?),
        };
        for name in ["desired", "reported"] {
            let Patch::Merge(members) = section_patch(&state, name) else {
                continue;
            };
            if members
                .values()
                .map(levels)
                .max()
                .is_some_and(|levels| levels + 1 > limits.max_levels)
            {
                let max = limits.max_levels;
                let text = format!("JSON contains too many levels of nesting; maximum is {max}");
                return Err(reject(text));
            }
            if members.values().any(has_null_in_array) {
                return Err(invalid("Invalid JSON"));
            }
        }
        Ok(Self {
            version,
            client_token,
            state,
        })
    }

    /// The effect on `desired`.
    pub fn desired(&self) -> Patch<'_> {
        section_patch(&self.state, "desired")
    }

    /// The effect on `reported`.
    pub fn reported(&self) -> Patch<'_> {
        section_patch(&self.state, "reported")
    }

    /// The body of the answer if the request was accepted at `now` (epoch seconds).
    pub fn accepted_body(&self, version: u64, now: u64) -> Value {
        let metadata = Metadata::of(&self.state, now);
        let mut body = json!({
            "state": self.state, "metadata": metadata, "version": version, "timestamp": now,
        });
        put_token(&mut body, self.client_token.as_deref());
        body
    }
}

/// Reads the `clientToken` of a get or delete request, whose body is empty or an object.
///
/// # Errors
/// The body or the token is invalid (400), or the body is not UTF-8 (415).
pub fn client_token(body: &[u8]) -> Result<Option<String>, Rejected> {
    if body.is_empty() {
        Ok(None)
    } else {
        take_token(&mut parse_object(body)?)
    }
}

/// Adds the client token of the request to the body of an answer.
pub(crate) fn put_token(body: &mut Value, token: Option<&str>) {
    if let Some(token) = token {
        body["clientToken"] = json!(token);
    }
}

fn parse_object(body: &[u8]) -> Result<Object, Rejected> {
    let text = std::str::from_utf8(body).map_err(|_| {
        Rejected::new(
            415,
            "Unsupported documented encoding; supported encoding is UTF-8",
            None,
        )
    })?;
    match serde_json::from_str(text) {
        Ok(Value::Object(root)) => Ok(root),
        _ => Err(Rejected::new(400, "Invalid JSON", None)),
    }
}

fn take_token(root: &mut Object) -> Result<Option<String>, Rejected> {
    match root.remove("clientToken") {
        None => Ok(None),
        Some(Value::String(token)) if token.len() <= MAX_TOKEN_BYTES => Ok(Some(token)),
        Some(_) => Err(Rejected::new(400, "Invalid clientToken", None)),
    }
}

/// The effect of a valid `state` on a section.
fn section_patch<'a>(state: &'a Value, section: &str) -> Patch<'a> {
    match state {
        Value::Null => Patch::Remove,
        _ => match state.get(section) {
            Some(Value::Object(members)) => Patch::Merge(members),
            Some(_) => Patch::Remove,
            None => Patch::Keep,
        },
    }
}

/// The number of keys on the longest path below a value. An array element that is an object or array counts as a key.
fn levels(value: &Value) -> usize {
    match value {
        Value::Object(members) => members.values().map(|v| levels(v) + 1).max().unwrap_or(0),
        Value::Array(elements) => {
            let nested = elements.iter().filter(|e| e.is_object() || e.is_array());
            nested.map(|e| levels(e) + 1).max().unwrap_or(0)
        }
        _ => 0,
    }
}

fn has_null_in_array(value: &Value) -> bool {
    match value {
        Value::Object(members) => members.values().any(has_null_in_array),
        Value::Array(elements) => elements.iter().any(|e| e.is_null() || has_null_in_array(e)),
        _ => false,
    }
}
