//! What a request says, read within bounds.

use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Limited};
use hyper::body::{Body as _, Incoming};
use hyper::header::{AUTHORIZATION, CONTENT_ENCODING, CONTENT_TYPE, HeaderMap, HeaderName};
use keywright_domain::model::{
    IdempotencyKey, KeyIndex, KeySlot, KeyUuid, LockId, MAX_JSON_INTEGER, Principal, WriteId,
};
use keywright_domain::ports::{AuthError, Credentials, Secret};
use serde::{Deserialize, Deserializer};
use serde_json::Value;

use super::api_error::ApiError;
use crate::admission::{Permit, QuotaPermit};
use crate::app::App;

/// The longest time that `Prefer: wait` gets, in seconds.
const LONGEST_WAIT: u64 = 30;

/// Headers that only the vendor's own services may set.
const INTERNAL: [&str; 2] = ["X-Org-Id", "X-User-Id"];

/// Who asks, for which lock, and what the request has of all that is in progress.
pub(super) struct AuthorizedRequest {
    pub(super) principal: Principal,
    pub(super) lock: LockId,
    /// Held while work is done.
    pub(super) permit: Permit,
    /// Held until the answer is there, also while it only waits for the lock.
    pub(super) share: QuotaPermit,
}

/// # Errors
/// 503 where too much is in progress, which is found out before anything else is looked at; 400 for internal headers
/// and for a lock id that is none, 401 for everything that is wrong with the credentials, 429 where too much of what is
/// in progress is theirs.
pub(super) async fn asked(
    app: &App,
    headers: &HeaderMap,
    lock: &str,
) -> Result<AuthorizedRequest, ApiError> {
    let Some(permit) = app.admission.permit().await else {
        return Err(no_permit(app));
    };
    let principal = principal(app, headers).await?;
    let lock = lock_id(lock)?;
    let Some(share) = app.admission.share(&principal) else {
        app.metrics.shed("in_flight_each");
        return Err(ApiError::ShareTaken);
    };
    Ok(AuthorizedRequest {
        principal,
        lock,
        permit,
        share,
    })
}

/// More is in progress than may be.
pub(super) fn no_permit(app: &App) -> ApiError {
    app.metrics.shed("in_flight");
    ApiError::Busy
}

async fn principal(app: &App, headers: &HeaderMap) -> Result<Principal, ApiError> {
    if let Some(name) = INTERNAL.iter().find(|name| headers.contains_key(**name)) {
        let text = format!("{name} is an internal header; leave it out");
        return Err(ApiError::BadRequest(text.into()));
    }
    let credentials = credentials(headers)?;
    Ok(app.auth.authenticate(&credentials).await?)
}

fn credentials(headers: &HeaderMap) -> Result<Credentials, AuthError> {
    let bearer = match once(headers, &AUTHORIZATION)? {
        Some(value) => Some(bearer(value)?),
        None => None,
    };
    let api_key = once(headers, &HeaderName::from_static("x-api-key"))?.map(Secret::new);
    Ok(Credentials { bearer, api_key })
}

/// The value of a header that may be sent once.
fn once<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Result<Option<&'a str>, AuthError> {
    let mut values = headers.get_all(name).iter();
    match (values.next(), values.next()) {
        (None, _) => Ok(None),
        (Some(value), None) => {
            let text = value.to_str();
            text.map(Some)
                .map_err(|_| AuthError::Refused("a credential is no text"))
        }
        (Some(_), Some(_)) => Err(AuthError::Refused("a credential was sent twice")),
    }
}

fn bearer(value: &str) -> Result<Secret, AuthError> {
    let (scheme, token) = value.split_once(' ').unwrap_or((value, ""));
    if !scheme.eq_ignore_ascii_case("bearer") {
        return Err(AuthError::Refused("Authorization is not Bearer"));
    }
    Ok(Secret::new(token.trim()))
}

/// # Errors
/// 400 that says what a lock id is, and what this one looks like.
fn lock_id(text: &str) -> Result<LockId, ApiError> {
    text.parse().map_err(|invalid| {
        // In any case of letters, as people paste them.
        let uuid = text.to_ascii_lowercase().parse::<WriteId>().is_ok();
        let hint = match uuid {
            true => ". This looks like a UUID: users have UUIDs, locks have numbers",
            false => "",
        };
        ApiError::BadRequest(
            format!("A numeric lock id is expected in the path: {invalid}{hint}").into(),
        )
    })
}

/// # Errors
/// 404: no write has an id of another form. Upper-case digits are read, too (RFC 9562, section 4).
pub(super) fn write_id(text: &str) -> Result<WriteId, ApiError> {
    let id = text.to_ascii_lowercase().parse();
    id.map_err(|_| ApiError::NotFound)
}

/// One parameter of the query, as it was sent.
pub(super) fn parameter<'a>(query: Option<&'a str>, name: &str) -> Option<&'a str> {
    let pairs = query.unwrap_or_default().split('&');
    pairs
        .filter_map(|pair| pair.split_once('='))
        .find_map(|(key, value)| (key == name).then_some(value))
}

/// How long the client wants to wait for the lock (RFC 7240). A preference that is none is ignored.
pub(super) fn wait(headers: &HeaderMap) -> Option<Duration> {
    let values = headers.get_all("prefer").iter();
    let preferences = values
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','));
    let mut waits = preferences.filter_map(|preference| {
        let (name, value) = preference.split_once('=')?;
        let wanted = name.trim().eq_ignore_ascii_case("wait");
        let seconds = value.split(';').next()?.trim().trim_matches('"');
        wanted.then(|| seconds.parse::<u64>().ok()).flatten()
    });
    let seconds = waits.next()?.min(LONGEST_WAIT);
    Some(Duration::from_secs(seconds))
}

/// What the client calls this request, if it has named it: a text in quotation marks, or without them.
///
/// # Errors
/// 400 that says what to change.
pub(super) fn idempotency_key(headers: &HeaderMap) -> Result<Option<IdempotencyKey>, ApiError> {
    let mut values = headers.get_all("idempotency-key").iter();
    let value = match (values.next(), values.next()) {
        (None, _) => return Ok(None),
        (Some(value), None) => value.to_str().unwrap_or_default().trim(),
        (Some(_), Some(_)) => {
            return Err(ApiError::BadRequest(
                "Idempotency-Key must be sent once".into(),
            ));
        }
    };
    let quoted = value
        .strip_prefix('"')
        .and_then(|rest| rest.strip_suffix('"'));
    Ok(Some(IdempotencyKey::new(quoted.unwrap_or(value))?))
}

/// The key and slot that the body names.
///
/// # Errors
/// 400, 408, 413, 415.
pub(super) async fn key_slot(
    app: &App,
    headers: &HeaderMap,
    body: Incoming,
) -> Result<KeySlot, ApiError> {
    // Read in any case, so that the connection can go on.
    let body = body_of(app, body, app.bounds.body).await;
    if is_encoded(headers) {
        return Err(ApiError::EncodedBody);
    }
    if !is_json(headers) {
        return Err(ApiError::NotJson);
    }
    let body = body?;
    slot_of(&body)
}

fn is_json(headers: &HeaderMap) -> bool {
    let value = headers.get(CONTENT_TYPE).and_then(|v| v.to_str().ok());
    let media_type = value.unwrap_or_default().split(';').next();
    media_type.is_some_and(|m| m.trim().eq_ignore_ascii_case("application/json"))
}

/// Whether the body has a content coding other than `identity` (RFC 9110, section 8.4). Nothing is decompressed here.
pub(super) fn is_encoded(headers: &HeaderMap) -> bool {
    let values = headers.get_all(CONTENT_ENCODING).iter();
    let mut codings = values.flat_map(|value| value.as_bytes().split(|b| *b == b','));
    codings.any(|coding| {
        let coding = coding.trim_ascii();
        !coding.is_empty() && !coding.eq_ignore_ascii_case(b"identity")
    })
}

/// A body of `most` bytes at most.
///
/// # Errors
/// 400, 408, 413.
pub(super) async fn body_of(app: &App, body: Incoming, most: usize) -> Result<Bytes, ApiError> {
    let too_large = || ApiError::BodyTooLarge(most);
    if body.size_hint().lower() > most as u64 {
        return Err(too_large());
    }
    let collecting = Limited::new(body, most).collect();
    match tokio::time::timeout(app.bounds.body_time, collecting).await {
        Ok(Ok(body)) => Ok(body.to_bytes()),
        Ok(Err(error)) if error.is::<http_body_util::LengthLimitError>() => Err(too_large()),
        // The connection was lost, or a chunk has no valid size or end: where the body ends is not known.
        Ok(Err(_)) => Err(ApiError::Unframed(
            "The body ended early or is not validly chunked".into(),
        )),
        Err(_) => Err(ApiError::BodyTooSlow),
    }
}

/// The body as it was sent: a member that is `null` is not a member that is missing.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Body {
    #[serde(default, deserialize_with = "sent")]
    key_uuid: Option<Value>,
    #[serde(default, deserialize_with = "sent")]
    key_index_number: Option<Value>,
}

fn sent<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Value>, D::Error> {
    Value::deserialize(deserializer).map(Some)
}

pub(super) fn slot_of(body: &[u8]) -> Result<KeySlot, ApiError> {
    let bad = |text: &'static str| ApiError::BadRequest(text.into());
    // A byte order mark is ignored (RFC 8259, section 8.1).
    let body = body.strip_prefix(b"\xef\xbb\xbf").unwrap_or(body);
    // serde would read a list as the members in their order.
    if body.trim_ascii_start().first() != Some(&b'{') {
        return Err(bad(
            "The body must be a JSON object such as {\"keyUuid\":\"…\"}",
        ));
    }
    let body: Body = serde_json::from_slice(body).map_err(|error| {
        let (line, column) = (error.line(), error.column());
        let what = match error.classify() {
            serde_json::error::Category::Data => "names a member twice",
            _ => "is not valid JSON",
        };
        ApiError::BadRequest(format!("The body {what} (line {line}, column {column})").into())
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

/// A JSON number without a fraction: `2`, `2.0` and `2e0` are one number (RFC 8259).
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
        match slot_of(body.as_bytes()) {
            Err(ApiError::BadRequest(text)) => text.into_owned(),
            other => panic!("{body}: {other:?}"),
        }
    }

    #[test]
    fn a_body_names_a_key_and_perhaps_a_slot() {
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
            let slot = slot_of(body.as_bytes()).expect(body);
            assert_eq!(slot.key.as_str(), "example_string");
            assert_eq!(slot.index.map(KeyIndex::get), index, "{body}");
        }
    }

    #[test]
    fn a_body_that_does_not_is_told_what_to_change() {
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
            slot_of(b"{\"keyUuid\":\"\xff\"}"),
            Err(ApiError::BadRequest(_))
        ));
    }

    #[test]
    fn a_lock_id_is_a_number() {
        assert_eq!(lock_id("123").expect("a lock id").get(), 123);
        for text in [
            "",
            "0",
            "-1",
            "01",
            "1.0",
            "abc",
            "9007199254740992",
            "1%20",
        ] {
            let Err(ApiError::BadRequest(message)) = lock_id(text) else {
                panic!("{text} was taken")
            };
            assert!(message.contains("numeric lock id"), "{message}");
            assert!(!message.contains("UUID"), "{message}");
        }
        let Err(ApiError::BadRequest(message)) = lock_id("6F0C2A9E-0d5e-4e0b-9a55-0f6f3c0c7a11")
        else {
            panic!("a UUID was taken")
        };
        assert!(message.contains("looks like a UUID"), "{message}");
    }

    #[test]
    fn a_request_may_have_a_name_with_or_without_quotation_marks() {
        let named = |values: &[&str]| {
            let mut headers = HeaderMap::new();
            for value in values {
                headers.append("idempotency-key", value.parse().expect("a header"));
            }
            let name = idempotency_key(&headers);
            name.map(|name| name.map(|name| name.to_string()))
        };
        let name = Some("8e03978e-40d5-43dd".to_owned());
        assert_eq!(named(&[]).expect("none"), None);
        assert_eq!(named(&["8e03978e-40d5-43dd"]).expect("a name"), name);
        assert_eq!(named(&["\"8e03978e-40d5-43dd\""]).expect("a name"), name);
        let long = "n".repeat(256);
        for values in [&[""][..], &["\"\""], &["a", "b"], &[&long]] {
            let refused = named(values);
            assert!(
                matches!(refused, Err(ApiError::BadRequest(_))),
                "{values:?}"
            );
        }
    }

    #[test]
    fn a_preference_to_wait_is_read_and_others_are_ignored() {
        for (value, seconds) in [
            ("wait=5", Some(5)),
            ("respond-async, wait=5", Some(5)),
            ("Wait = \"7\"; x=y", Some(7)),
            ("wait=100", Some(30)),
            ("wait=0", Some(0)),
            ("wait=soon", None),
            ("wait=-1", None),
            ("wait", None),
            ("return=minimal", None),
        ] {
            let mut headers = HeaderMap::new();
            headers.insert("prefer", value.parse().expect("a header"));
            assert_eq!(wait(&headers), seconds.map(Duration::from_secs), "{value}");
        }
    }

    #[test]
    fn a_parameter_is_found_by_its_name() {
        assert_eq!(parameter(Some("a=1&page=2&b="), "page"), Some("2"));
        assert_eq!(parameter(Some("a=1&b="), "b"), Some(""));
        assert_eq!(parameter(Some("pages=2"), "page"), None);
        assert_eq!(parameter(None, "page"), None);
    }
}
