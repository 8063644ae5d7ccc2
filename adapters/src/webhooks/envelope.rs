//! The body of a delivery: the lock vendor's envelope, which is that of AWS EventBridge.

use keywright_domain::model::{Timestamp, WebhookMessage};
use serde::Serialize;
use serde_json::{Value, json};

use crate::json::EventData;

/// The members of the envelope that the operator chooses.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EnvelopeSettings {
    /// `source`.
    pub source: String,
    /// `region`.
    pub region: String,
    /// `account`.
    pub account: String,
}

impl Default for EnvelopeSettings {
    fn default() -> Self {
        Self {
            source: "spk.api".into(),
            region: "local".into(),
            account: "000000000000".into(),
        }
    }
}

/// An event of a lock, as any program that has it can fill in the envelope.
#[derive(Clone, Copy, Debug)]
pub struct EnvelopeEvent<'a> {
    /// Identifies the event.
    pub id: &'a str,
    /// The name of its type.
    pub event_type: &'a str,
    /// When it was recorded.
    pub time: Timestamp,
    /// The organization that owns the lock, or an empty text.
    pub organization: &'a str,
    /// The UUID of the lock.
    pub lock_uuid: &'a str,
    /// The version of the lock after the event.
    pub version: u64,
}

#[derive(Serialize)]
struct Envelope<'a> {
    id: &'a str,
    source: &'a str,
    #[serde(rename = "detail-type")]
    detail_type: &'a str,
    time: String,
    region: &'a str,
    account: &'a str,
    version: &'static str,
    resources: [(); 0],
    detail: Value,
}

impl EnvelopeSettings {
    /// The body of a delivery of this message.
    pub fn body(&self, message: &WebhookMessage) -> Vec<u8> {
        match message {
            WebhookMessage::Event(event) => {
                let recorded = &event.recorded;
                let data = serde_json::to_value(EventData(recorded)).unwrap_or_default();
                let organization = event.organization.as_ref();
                let event = EnvelopeEvent {
                    id: &message.id(),
                    event_type: recorded.event.name(),
                    time: recorded.time,
                    organization: organization.map_or("", |organization| organization.as_str()),
                    lock_uuid: recorded.uuid.as_str(),
                    version: recorded.version.0,
                };
                self.event_body(&event, &data)
            }
            WebhookMessage::Test(test) => {
                let organization = test.organization.as_ref();
                let partner = organization.map_or("", |organization| organization.as_str());
                let detail = json!({
                    "partnerId": partner,
                    "timestamp": test.time.as_millis(),
                    "data": { "type": WebhookMessage::TEST, "timestamp": test.time.to_string() },
                });
                self.envelope(&test.id, WebhookMessage::TEST, test.time, detail)
            }
        }
    }

    /// The body of a delivery of an event with this `data`.
    pub fn event_body(&self, event: &EnvelopeEvent<'_>, data: &Value) -> Vec<u8> {
        let mut typed = json!({ "type": event.event_type });
        for (member, value) in data.as_object().into_iter().flatten() {
            typed[member] = value.clone();
        }
        let detail = json!({
            "partnerId": event.organization,
            "aggregateType": "lock",
            "aggregateId": event.lock_uuid,
            "version": event.version,
            "timestamp": event.time.as_millis(),
            "data": typed,
        });
        self.envelope(event.id, event.event_type, event.time, detail)
    }

    fn envelope(&self, id: &str, detail_type: &str, time: Timestamp, detail: Value) -> Vec<u8> {
        let envelope = Envelope {
            id,
            source: &self.source,
            detail_type,
            time: in_seconds(time),
            region: &self.region,
            account: &self.account,
            version: "0",
            resources: [],
            detail,
        };
        serde_json::to_vec(&envelope).unwrap_or_default()
    }
}

/// The time in the form of EventBridge: without fractions of a second.
fn in_seconds(time: Timestamp) -> String {
    let text = time.to_string();
    match text.split_once('.') {
        Some((seconds, _)) => format!("{seconds}Z"),
        None => text,
    }
}
