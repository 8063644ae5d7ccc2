use serde_json::{Value, json};

use super::{Object, Times};

/// What a shadow document may be at most.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Nested keys below `desired` or `reported`. AWS has named 5, 6 and 8; 6 is its error text's.
    pub max_levels: usize,
    /// Bytes of `desired` and `reported` together, as compact JSON.
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

/// A request that the service does not do, with what it answers.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{code} {message}")]
pub struct Rejected {
    /// As an HTTP status.
    pub code: u16,
    /// The text. Clients should go by the code.
    pub message: String,
    /// Of the request, where it could be read.
    pub client_token: Option<String>,
}

impl Rejected {
    /// A rejection.
    pub fn new(code: u16, message: impl Into<String>, client_token: Option<String>) -> Self {
        Self {
            code,
            message: message.into(),
            client_token,
        }
    }

    /// The body of a rejected message over MQTT.
    pub fn body(&self) -> Value {
        let mut body = json!({ "code": self.code, "message": self.message });
        if let Some(token) = &self.client_token {
            body["clientToken"] = json!(token);
        }
        body
    }

    /// The error's type over REST (`x-amzn-ErrorType`).
    pub fn rest_error(&self) -> &'static str {
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

/// What an update does to one section.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Patch<'a> {
    /// Nothing.
    Keep,
    /// Removes it.
    Remove,
    /// Merges these members into it.
    Merge(&'a Object),
}

/// A valid update request.
#[derive(Clone, Debug, PartialEq)]
pub struct Request {
    /// The version that the shadow must have.
    pub version: Option<u64>,
    /// Comes back with the answer; at most 64 bytes.
    pub client_token: Option<String>,
    /// The request's `state` as it came, which the answer repeats.
    state: Value,
}

impl Request {
    /// Reads an update request.
    ///
    /// # Errors
    /// 400 or 415. The token is echoed from where it is known.
    pub fn parse(body: &[u8], limits: &Limits) -> Result<Self, Rejected> {
        Self::of(parse_root(body)?, limits)
    }

    /// An update request that was not sent as text.
    ///
    /// # Errors
    /// 400. The token is echoed from where it is known.
    pub fn of(mut root: Object, limits: &Limits) -> Result<Self, Rejected> {
        let client_token = take_token(&mut root)?;
        let reject = |text: String| Rejected::new(400, text, client_token.clone());
        let invalid = |text: &str| reject(text.to_owned());
        let state = root.remove("state");
        let state = state.ok_or_else(|| invalid("Missing required node: state"))?;
        match &state {
            Value::Null => {}
            Value::Object(state) => {
                let foreign = state.keys().find(|k| *k != "desired" && *k != "reported");
                if let Some(node) = foreign {
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
            let Patch::Merge(members) = patch(&state, name) else {
                continue;
            };
            if members
                .values()
                .map(levels)
                .max()
                .is_some_and(|l| l + 1 > limits.max_levels)
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

    /// For `desired`.
    pub fn desired(&self) -> Patch<'_> {
        patch(&self.state, "desired")
    }

    /// For `reported`.
    pub fn reported(&self) -> Patch<'_> {
        patch(&self.state, "reported")
    }

    /// The body of the answer to the accepted request.
    pub fn accepted_body(&self, version: u64, now: u64) -> Value {
        let metadata = Times::of(&self.state, now);
        let mut body = json!({
            "state": self.state, "metadata": metadata, "version": version, "timestamp": now,
        });
        put_token(&mut body, self.client_token.as_deref());
        body
    }
}

/// The `clientToken` of a get or delete request, whose body is empty or an object.
///
/// # Errors
/// 400: neither, or a token that is none.
pub fn client_token(body: &[u8]) -> Result<Option<String>, Rejected> {
    if body.is_empty() {
        Ok(None)
    } else {
        take_token(&mut parse_root(body)?)
    }
}

/// Adds the request's token to an answer.
pub(crate) fn put_token(body: &mut Value, token: Option<&str>) {
    if let Some(token) = token {
        body["clientToken"] = json!(token);
    }
}

fn parse_root(body: &[u8]) -> Result<Object, Rejected> {
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
        Some(Value::String(token)) if token.len() <= 64 => Ok(Some(token)),
        Some(_) => Err(Rejected::new(400, "Invalid clientToken", None)),
    }
}

/// What a valid state does to a section.
fn patch<'a>(state: &'a Value, section: &str) -> Patch<'a> {
    match state {
        Value::Null => Patch::Remove,
        _ => match state.get(section) {
            Some(Value::Object(members)) => Patch::Merge(members),
            Some(_) => Patch::Remove,
            None => Patch::Keep,
        },
    }
}

/// The keys on the longest path below a value; an element that is no leaf counts as one.
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
