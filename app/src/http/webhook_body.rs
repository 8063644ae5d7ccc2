//! The JSON bodies of requests about webhooks.

use keywright_domain::model::{
    EventId, EventSelection, InvalidValue, Timestamp, WebhookDescription, WebhookUrl,
};
use keywright_domain::{ReplayFrom, WebhookChange};
use serde_json::{Map, Value};

use super::api_error::ApiError;
use super::cursor;

/// The members of a body.
pub(super) type Members = Map<String, Value>;

/// A webhook to register, without its secret.
pub(super) struct Registration {
    pub(super) url: WebhookUrl,
    pub(super) events: EventSelection,
    pub(super) description: Option<WebhookDescription>,
}

/// What a replay delivers.
pub(super) enum Replay {
    From(ReplayFrom),
    Event(EventId),
}

fn bad(text: &'static str) -> ApiError {
    ApiError::BadRequest(text.into())
}

/// # Errors
/// 400 with a message that says what to change.
pub(super) fn registration(members: &Members) -> Result<Registration, ApiError> {
    let url = members.get("url").ok_or(bad("url is required"))?;
    let events = members.get("events").map(events).transpose()?;
    let description = members.get("description").map(description).transpose()?;
    Ok(Registration {
        url: webhook_url(url)?,
        events: events.unwrap_or(EventSelection::All),
        description: description.flatten(),
    })
}

/// # Errors
/// 400 with a message that says what to change.
pub(super) fn change(members: &Members) -> Result<WebhookChange, ApiError> {
    let enabled = members.get("status").map(|status| match status.as_str() {
        Some("enabled") => Ok(true),
        Some("disabled") => Ok(false),
        _ => Err(bad("status must be enabled or disabled")),
    });
    let change = WebhookChange {
        url: members.get("url").map(webhook_url).transpose()?,
        events: members.get("events").map(events).transpose()?,
        description: members.get("description").map(description).transpose()?,
        enabled: enabled.transpose()?,
    };
    match change == WebhookChange::default() {
        true => Err(bad(
            "The body must have at least one of url, events, description, status",
        )),
        false => Ok(change),
    }
}

/// # Errors
/// 400 with a message that says what to change.
pub(super) fn replay(members: &Members) -> Result<Replay, ApiError> {
    let text = |name: &str| {
        let value = members.get(name)?;
        Some(value.as_str().unwrap_or_default())
    };
    match (text("after"), text("since"), text("event")) {
        (Some(after), None, None) => {
            let position = cursor::parse(after);
            let position = position.ok_or(bad("after must be a cursor of the feed"))?;
            Ok(Replay::From(ReplayFrom::After(position)))
        }
        (None, Some(since), None) => {
            let since: Option<Timestamp> = since.parse().ok();
            let text = "since must be a time in UTC since 1970, like 2026-05-29T12:00:00Z";
            Ok(Replay::From(ReplayFrom::Since(since.ok_or(bad(text))?)))
        }
        (None, None, Some(event)) => Ok(Replay::Event(event.parse()?)),
        _ => Err(bad(
            "The body must have exactly one of after, since and event",
        )),
    }
}

fn webhook_url(value: &Value) -> Result<WebhookUrl, ApiError> {
    let text = value.as_str().ok_or(bad("url must be a string"))?;
    Ok(WebhookUrl::new(text)?)
}

fn events(value: &Value) -> Result<EventSelection, ApiError> {
    let names: Option<Vec<&str>> = value
        .as_array()
        .map(|names| names.iter().map(Value::as_str).collect())
        .unwrap_or_default();
    let selection = EventSelection::new(names.unwrap_or_default());
    Ok(selection?)
}

/// `null` and an empty text are no description.
fn description(value: &Value) -> Result<Option<WebhookDescription>, ApiError> {
    let invalid = InvalidValue {
        what: "description",
        rule: "must be a string or null",
    };
    match value {
        Value::Null => Ok(None),
        Value::String(text) if text.is_empty() => Ok(None),
        Value::String(text) => Ok(Some(WebhookDescription::new(text)?)),
        _ => Err(invalid.into()),
    }
}

#[cfg(test)]
mod tests {
    use keywright_domain::model::Position;
    use serde_json::json;

    use super::*;

    fn members(value: Value) -> Members {
        value.as_object().cloned().expect("an object")
    }

    fn message<T>(result: Result<T, ApiError>) -> String {
        result.err().expect("refused").to_string()
    }

    #[test]
    fn reads_registrations_and_changes() {
        let read = registration(&members(json!({ "url": "https://app.example/" }))).expect("valid");
        assert_eq!((read.events, read.description), (EventSelection::All, None));
        for (wrong, part) in [
            (json!({}), "url is required"),
            (json!({ "url": 7 }), "url must be a string"),
            (json!({ "url": "https://me@app.example/" }), "user name"),
            (
                json!({ "url": "https://a.example/", "events": [] }),
                "events must be a list",
            ),
            (
                json!({ "url": "https://a.example/", "events": [7] }),
                "events must be a list",
            ),
            (
                json!({ "url": "https://a.example/", "events": "*" }),
                "events must be a list",
            ),
            (
                json!({ "url": "https://a.example/", "description": 7 }),
                "description must be",
            ),
        ] {
            let text = message(registration(&members(wrong)));
            assert!(text.contains(part), "{text}");
        }
        let changed = change(&members(
            json!({ "description": null, "status": "disabled" }),
        ));
        let expected = WebhookChange {
            description: Some(None),
            enabled: Some(false),
            ..WebhookChange::default()
        };
        assert_eq!(changed.expect("valid"), expected);
        assert!(message(change(&members(json!({})))).contains("at least one"));
        assert!(message(change(&members(json!({ "status": "off" })))).contains("status must be"));
    }

    #[test]
    fn reads_replays() {
        let read = |value| replay(&members(value));
        let after = read(json!({ "after": "000000000000000a" }));
        let is_position = |replay| matches!(replay, Replay::From(ReplayFrom::After(Position(10))));
        assert!(after.is_ok_and(is_position));
        assert!(matches!(
            read(json!({ "event": "123-7" })),
            Ok(Replay::Event(_))
        ));
        for wrong in [
            json!({}),
            json!({ "after": "1" }),
            json!({ "since": "yesterday" }),
            json!({ "event": "x" }),
            json!({ "event": 7 }),
            json!({ "event": "123-7", "after": "000000000000000a" }),
        ] {
            assert!(read(wrong.clone()).is_err(), "{wrong}");
        }
    }
}
