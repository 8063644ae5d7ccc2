//! The parameters of a request: in its path, its query, and the headers `Prefer` and `Idempotency-Key`.

use std::borrow::Cow;
use std::time::Duration;

use hyper::header::HeaderMap;
use keywright_domain::model::{IdempotencyKey, LockId, WriteId};
use percent_encoding::percent_decode_str;

use super::api_error::ApiError;

/// The maximum of `Prefer: wait`, in seconds.
const MAX_WAIT: u64 = 30;

/// # Errors
/// 400 with a message that says what a lock id is.
pub(super) fn lock_id(text: &str) -> Result<LockId, ApiError> {
    text.parse().map_err(|invalid| {
        // `WriteId` reads lower-case UUIDs only.
        let is_uuid = text.to_ascii_lowercase().parse::<WriteId>().is_ok();
        let hint = match is_uuid {
            true => ". This looks like a UUID: users have UUIDs, locks have numbers",
            false => "",
        };
        ApiError::BadRequest(
            format!("A numeric lock id is expected in the path: {invalid}{hint}").into(),
        )
    })
}

/// Reads the id of a write, also in upper case (RFC 9562, section 4).
///
/// # Errors
/// 404: no write has an id of another form.
pub(super) fn write_id(text: &str) -> Result<WriteId, ApiError> {
    let id = text.to_ascii_lowercase().parse();
    id.map_err(|_| ApiError::NotFound)
}

/// The maximum number of elements of a page, and the number without `limit`.
pub(super) const MAX_LIMIT: usize = 500;
pub(super) const DEFAULT_LIMIT: usize = 100;

/// One parameter of the query, decoded.
pub(super) fn parameter<'a>(query: Option<&'a str>, name: &str) -> Option<Cow<'a, str>> {
    let pairs = query.unwrap_or_default().split('&');
    let mut pairs = pairs.filter_map(|pair| pair.split_once('='));
    let (_, value) = pairs.find(|(key, _)| *key == name)?;
    Some(percent_decode_str(value).decode_utf8_lossy())
}

/// The query with another value of this parameter.
pub(super) fn replaced(query: Option<&str>, name: &str, value: &str) -> String {
    let pairs = query.unwrap_or_default().split('&');
    let is_other = |pair: &&str| !pair.is_empty() && pair.split('=').next() != Some(name);
    let mut pairs: Vec<&str> = pairs.filter(is_other).collect();
    let replaced = format!("{name}={value}");
    pairs.push(&replaced);
    pairs.join("&")
}

/// A parameter that has one of these values.
///
/// # Errors
/// 400 with a message that lists them.
pub(super) fn choice(
    query: Option<&str>,
    name: &str,
    values: &[&'static str],
) -> Result<Option<String>, ApiError> {
    let Some(value) = parameter(query, name) else {
        return Ok(None);
    };
    match values.contains(&&*value) {
        true => Ok(Some(value.into_owned())),
        false => {
            let text = format!("{name} must be one of {}", values.join(", "));
            Err(ApiError::BadRequest(text.into()))
        }
    }
}

/// The parameter `limit`: how many elements a page has at most.
///
/// # Errors
/// 400 with a message that says what a limit is.
pub(super) fn page_limit(query: Option<&str>) -> Result<usize, ApiError> {
    let Some(limit) = parameter(query, "limit") else {
        return Ok(DEFAULT_LIMIT);
    };
    let limit = limit.parse().ok();
    let limit = limit.filter(|limit| (1..=MAX_LIMIT).contains(limit));
    limit.ok_or_else(|| {
        let text = format!("limit must be an integer from 1 to {MAX_LIMIT}");
        ApiError::BadRequest(text.into())
    })
}

/// How long the client wants to wait for the lock: `Prefer: wait=SECONDS` (RFC 7240). Invalid preferences are ignored.
pub(super) fn wait(headers: &HeaderMap) -> Option<Duration> {
    let values = headers.get_all("prefer").iter();
    let preferences = values
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','));
    let mut waits = preferences.filter_map(|preference| {
        let (name, value) = preference.split_once('=')?;
        let is_wait = name.trim().eq_ignore_ascii_case("wait");
        let seconds = value.split(';').next()?.trim().trim_matches('"');
        is_wait.then(|| seconds.parse::<u64>().ok()).flatten()
    });
    let seconds = waits.next()?.min(MAX_WAIT);
    Some(Duration::from_secs(seconds))
}

/// The value of `Idempotency-Key`, with or without quotation marks.
///
/// # Errors
/// 400 if the key is invalid or sent twice.
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
    let unquoted = value
        .strip_prefix('"')
        .and_then(|rest| rest.strip_suffix('"'));
    Ok(Some(IdempotencyKey::new(unquoted.unwrap_or(value))?))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn header(name: &'static str, values: &[&str]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for value in values {
            headers.append(name, value.parse().expect("a header value"));
        }
        headers
    }

    #[test]
    fn a_lock_id_is_a_number() {
        assert_eq!(lock_id("123").expect("a lock id").get(), 123);
        let message = |text| match lock_id(text) {
            Err(ApiError::BadRequest(message)) => message,
            _ => panic!("{text} was accepted"),
        };
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
            let message = message(text);
            assert!(message.contains("numeric lock id"), "{message}");
            assert!(!message.contains("UUID"), "{message}");
        }
        let message = message("6F0C2A9E-0d5e-4e0b-9a55-0f6f3c0c7a11");
        assert!(message.contains("looks like a UUID"), "{message}");
    }

    #[test]
    fn reads_an_idempotency_key_with_or_without_quotation_marks() {
        let read = |values: &[&str]| {
            let key = idempotency_key(&header("idempotency-key", values));
            key.map(|key| key.map(|key| key.to_string()))
        };
        let key = Some("8e03978e-40d5-43dd".to_owned());
        assert_eq!(read(&[]).expect("none"), None);
        assert_eq!(read(&["8e03978e-40d5-43dd"]).expect("a key"), key);
        assert_eq!(read(&["\"8e03978e-40d5-43dd\""]).expect("a key"), key);
        let long = "n".repeat(256);
        for values in [&[""][..], &["\"\""], &["a", "b"], &[&long]] {
            assert!(
                matches!(read(values), Err(ApiError::BadRequest(_))),
                "{values:?}"
            );
        }
    }

    #[test]
    fn reads_the_preference_to_wait_and_ignores_others() {
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
            let headers = header("prefer", &[value]);
            assert_eq!(wait(&headers), seconds.map(Duration::from_secs), "{value}");
        }
    }

    #[test]
    fn finds_a_query_parameter_by_its_name() {
        let read = |query, name| parameter(query, name).map(Cow::into_owned);
        assert_eq!(read(Some("a=1&page=2&b="), "page"), Some("2".into()));
        assert_eq!(read(Some("a=1&b="), "b"), Some(String::new()));
        let time = read(Some("since=2026-05-29T12%3A00%3A00Z"), "since");
        assert_eq!(time, Some("2026-05-29T12:00:00Z".into()));
        assert_eq!(read(Some("pages=2"), "page"), None);
        assert_eq!(read(None, "page"), None);
    }
}
