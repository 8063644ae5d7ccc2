//! The body of a request: reading it within bounds, JSON objects, and the JSON of `WriteKey`.

use bytes::Bytes;
use http_body_util::{BodyExt, Limited};
use hyper::body::{Body as _, Incoming};
use hyper::header::{CONTENT_ENCODING, CONTENT_TYPE, HeaderMap};
use keywright_domain::model::{KeyIndex, KeySlot, KeyUuid, MAX_JSON_INTEGER};
use serde::{Deserialize, Deserializer};
use serde_json::{Map, Value};

use super::api_error::ApiError;
use crate::app::App;

/// Reads the body of `WriteKey`: the key and, optionally, its index.
///
/// # Errors
/// 400, 408, 413, 415.
pub(super) async fn read_key_slot(
    app: &App,
    headers: &HeaderMap,
    body: Incoming,
) -> Result<KeySlot, ApiError> {
    // Read first, also if it is then refused, so that the connection can serve the next request.
    let body = read(app, body, app.http_limits.max_body).await;
    if is_encoded(headers) {
        return Err(ApiError::EncodedBody);
    }
    if !is_json(headers) {
        return Err(ApiError::NotJson);
    }
    parse_key_slot(&body?)
}

/// Reads a body that is a JSON object.
///
/// # Errors
/// 400, 408, 413, 415.
pub(super) async fn read_object(
    app: &App,
    headers: &HeaderMap,
    body: Incoming,
) -> Result<Map<String, Value>, ApiError> {
    // As in `read_key_slot`.
    let body = read(app, body, app.http_limits.max_body).await;
    if is_encoded(headers) {
        return Err(ApiError::EncodedBody);
    }
    if !is_json(headers) {
        return Err(ApiError::NotJson);
    }
    let body = body?;
    let body = body.strip_prefix(BYTE_ORDER_MARK).unwrap_or(&body);
    let object = serde_json::from_slice(body);
    object.map_err(|_| ApiError::BadRequest("The body must be a JSON object".into()))
}

/// It is ignored (RFC 8259, section 8.1).
const BYTE_ORDER_MARK: &[u8] = b"\xef\xbb\xbf";

fn is_json(headers: &HeaderMap) -> bool {
    let value = headers.get(CONTENT_TYPE).and_then(|v| v.to_str().ok());
    let media_type = value.unwrap_or_default().split(';').next();
    media_type.is_some_and(|m| m.trim().eq_ignore_ascii_case("application/json"))
}

/// Whether the body has a content coding other than `identity` (RFC 9110, section 8.4). The service does not decompress.
pub(super) fn is_encoded(headers: &HeaderMap) -> bool {
    let values = headers.get_all(CONTENT_ENCODING).iter();
    let mut codings = values.flat_map(|value| value.as_bytes().split(|b| *b == b','));
    codings.any(|coding| {
        let coding = coding.trim_ascii();
        !coding.is_empty() && !coding.eq_ignore_ascii_case(b"identity")
    })
}

/// Reads a body of at most `max` bytes.
///
/// # Errors
/// 400, 408, 413.
pub(super) async fn read(app: &App, body: Incoming, max: usize) -> Result<Bytes, ApiError> {
    let too_large = || ApiError::BodyTooLarge(max);
    if body.size_hint().lower() > max as u64 {
        return Err(too_large());
    }
    let collecting = Limited::new(body, max).collect();
    match tokio::time::timeout(app.http_limits.body_timeout, collecting).await {
        Ok(Ok(body)) => Ok(body.to_bytes()),
        Ok(Err(error)) if error.is::<http_body_util::LengthLimitError>() => Err(too_large()),
        // The connection was lost, or a chunk has no valid size or end: the end of the body is not known.
        Ok(Err(_)) => Err(ApiError::Malformed(
            "The body ended early or is not validly chunked".into(),
        )),
        Err(_) => Err(ApiError::BodyTooSlow),
    }
}

/// The members as they were sent. `None`: the member is missing, which is not the same as `null`.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Body {
    #[serde(default, deserialize_with = "present")]
    key_uuid: Option<Value>,
    #[serde(default, deserialize_with = "present")]
    key_index_number: Option<Value>,
}

fn present<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Value>, D::Error> {
    Value::deserialize(deserializer).map(Some)
}

/// # Errors
/// 400 with a message that says what to change.
pub(super) fn parse_key_slot(body: &[u8]) -> Result<KeySlot, ApiError> {
    let bad = |text: &'static str| ApiError::BadRequest(text.into());
    let body = body.strip_prefix(BYTE_ORDER_MARK).unwrap_or(body);
    // Without this check, serde would accept an array of the members in their order.
    if body.trim_ascii_start().first() != Some(&b'{') {
        return Err(bad(
            "The body must be a JSON object such as {\"keyUuid\":\"…\"}",
        ));
    }
    let body: Body = serde_json::from_slice(body).map_err(|error| {
        let (line, column) = (error.line(), error.column());
        let problem = match error.classify() {
            serde_json::error::Category::Data => "names a member twice",
            _ => "is not valid JSON",
        };
        ApiError::BadRequest(format!("The body {problem} (line {line}, column {column})").into())
    })?;
    let key = match &body.key_uuid {
        Some(Value::String(key)) => KeyUuid::new(key)?,
        Some(_) => return Err(bad("keyUuid must be a string")),
        None => return Err(bad("keyUuid is required")),
    };
    let index = match &body.key_index_number {
        None => None,
        Some(index) => Some(KeyIndex::new(integer(index).ok_or_else(|| {
            bad(
                "keyIndexNumber must be an integer from 0 to 9007199254740991; \
                 leave it out to let the lock choose",
            )
        })?)?),
    };
    Ok(KeySlot { key, index })
}

/// A JSON number without a fraction: `2`, `2.0` and `2e0` are the same number (RFC 8259).
fn integer(value: &Value) -> Option<u64> {
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        clippy::cast_precision_loss,
        reason = "checked to be a whole number that a float holds exactly"
    )]
    let from_float = |float: f64| {
        (float.fract() == 0.0 && (0.0..=MAX_JSON_INTEGER as f64).contains(&float))
            .then_some(float as u64)
    };
    let integer = value.as_u64();
    integer.or_else(|| value.as_f64().and_then(from_float))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(body: &str) -> String {
        match parse_key_slot(body.as_bytes()) {
            Err(ApiError::BadRequest(text)) => text.into_owned(),
            other => panic!("{body}: {other:?}"),
        }
    }

    #[test]
    fn reads_a_key_and_an_optional_index() {
        for (body, index) in [
            (r#"{"keyUuid":"example_string"}"#, None),
            (
                r#" {"keyUuid":"example_string","keyIndexNumber":0} "#,
                Some(0),
            ),
            ("\u{feff}{\"keyUuid\":\"example_string\"}", None),
            (
                r#"{"keyIndexNumber":2.0,"keyUuid":"example_string"}"#,
                Some(2),
            ),
            (
                r#"{"keyUuid":"example_string","more":[{"x":null}],"keyIndexNumber":1e1}"#,
                Some(10),
            ),
            (
                r#"{"keyUuid":"example_string","keyIndexNumber":9007199254740991}"#,
                Some(MAX_JSON_INTEGER),
            ),
        ] {
            let slot = parse_key_slot(body.as_bytes()).expect(body);
            assert_eq!(slot.key.as_str(), "example_string");
            assert_eq!(slot.index.map(KeyIndex::get), index, "{body}");
        }
    }

    #[test]
    fn an_invalid_body_gets_a_message_that_says_what_to_change() {
        let long = format!(r#"{{"keyUuid":"{}"}}"#, "k".repeat(129));
        let deep = format!(r#"{{"keyUuid":{}1{}}}"#, "[".repeat(500), "]".repeat(500));
        for (body, part) in [
            ("", "JSON object"),
            ("[\"k\",1]", "JSON object"),
            ("null", "JSON object"),
            ("{", "not valid JSON"),
            (r#"{"keyUuid":"k"} x"#, "not valid JSON"),
            (r#"{"keyUuid":"k","keyUuid":"l"}"#, "twice"),
            ("{}", "keyUuid is required"),
            (r#"{"keyUuid":null}"#, "keyUuid must be a string"),
            (r#"{"keyUuid":7}"#, "keyUuid must be a string"),
            (r#"{"keyUuid":""}"#, "keyUuid must be 1 to 128 bytes"),
            (&long, "keyUuid must be 1 to 128 bytes"),
            (r#"{"keyUuid":"a\u0000"}"#, "without control characters"),
            (
                r#"{"keyUuid":"k","keyIndexNumber":-1}"#,
                "keyIndexNumber must be an integer",
            ),
            (
                r#"{"keyUuid":"k","keyIndexNumber":1.5}"#,
                "keyIndexNumber must be an integer",
            ),
            (
                r#"{"keyUuid":"k","keyIndexNumber":"1"}"#,
                "keyIndexNumber must be an integer",
            ),
            (
                r#"{"keyUuid":"k","keyIndexNumber":null}"#,
                "keyIndexNumber must be an integer",
            ),
            (
                r#"{"keyUuid":"k","keyIndexNumber":9007199254740992}"#,
                "keyIndexNumber must be an integer",
            ),
            (
                r#"{"keyUuid":"k","keyIndexNumber":1e400}"#,
                "not valid JSON",
            ),
            (&deep, "not valid JSON"),
        ] {
            assert!(message(body).contains(part), "{body}: {}", message(body));
        }
        assert!(matches!(
            parse_key_slot(b"{\"keyUuid\":\"\xff\"}"),
            Err(ApiError::BadRequest(_))
        ));
    }
}
