//! What is answered, in the shapes of the contract.

use std::cmp::Ordering;

use bytes::Bytes;
use http_body_util::Full;
use hyper::header::{ACCEPT, ALLOW, CONTENT_TYPE, HeaderMap, HeaderValue, VARY};
use hyper::{Response, StatusCode};
use keywright_adapters::json::EventData;
use keywright_domain::WriteReceipt;
use keywright_domain::model::{
    Anomaly, FailureReason, KeyIndex, Lock, LockId, LockKey, LockVersion, RecordedEvent, Timestamp,
    Write, WriteId, WriteState,
};
use serde::Serialize;
use utoipa::ToSchema;

use crate::metrics::MetricsFormat;

use super::{Answer, schemas};

pub(super) fn json(status: StatusCode, body: Vec<u8>) -> Answer {
    let mut answer = Response::new(Full::new(Bytes::from(body)));
    *answer.status_mut() = status;
    let content_type = HeaderValue::from_static("application/json");
    answer.headers_mut().insert(CONTENT_TYPE, content_type);
    answer
}

/// Our own shapes have text for keys and nothing else that could not be written.
pub(super) fn to_json(body: &impl Serialize) -> Vec<u8> {
    serde_json::to_vec(body).unwrap_or_default()
}

pub(super) fn ok(body: &impl Serialize) -> Answer {
    json(StatusCode::OK, to_json(body))
}

/// The answer to `OPTIONS` of a path with these methods.
pub(super) fn options(methods: &'static str) -> Answer {
    let mut answer = Response::new(Full::default());
    *answer.status_mut() = StatusCode::NO_CONTENT;
    answer
        .headers_mut()
        .insert(ALLOW, HeaderValue::from_static(methods));
    answer
}

/// What Prometheus reads.
pub(super) fn metrics(text: String, format: MetricsFormat) -> Answer {
    let mut answer = json(StatusCode::OK, text.into_bytes());
    let content_type = HeaderValue::from_static(match format {
        MetricsFormat::OpenMetrics => "application/openmetrics-text; version=1.0.0; charset=utf-8",
        MetricsFormat::Text => "text/plain; version=0.0.4; charset=utf-8",
    });
    let headers = answer.headers_mut();
    headers.insert(CONTENT_TYPE, content_type);
    headers.append(VARY, HeaderValue::from_static("Accept"));
    answer
}

/// OpenMetrics for a client that names it and does not like the text format better (RFC 9110, section 12.5.1), as
/// Prometheus does; else the text format, which all tools read.
pub(super) fn metrics_format(headers: &HeaderMap) -> MetricsFormat {
    let accepted = headers.get_all(ACCEPT).iter();
    let accepted = accepted.filter_map(|value| value.to_str().ok());
    let ranges = accepted
        .flat_map(|value| value.split(','))
        .filter_map(MediaRange::read);
    let (mut open_metrics, mut text) = (0.0_f32, (0, 0.0_f32));
    for range in ranges {
        if range.is("application/openmetrics-text", "1.0.0") {
            open_metrics = open_metrics.max(range.quality);
        }
        // The most specific range counts, whatever comes first.
        let specificity = [("*/*", 1), ("text/*", 2), ("text/plain", 3)];
        let specificity = specificity.iter().find(|(name, _)| range.is(name, "0.0.4"));
        if let Some((_, specificity)) = specificity {
            text = match specificity.cmp(&text.0) {
                Ordering::Less => text,
                Ordering::Equal => (text.0, text.1.max(range.quality)),
                Ordering::Greater => (*specificity, range.quality),
            };
        }
    }
    match open_metrics > 0.0 && open_metrics >= text.1 {
        true => MetricsFormat::OpenMetrics,
        false => MetricsFormat::Text,
    }
}

/// One element of `Accept`.
struct MediaRange<'a> {
    name: &'a str,
    version: Option<&'a str>,
    /// From 0, which refuses it, to 1.
    quality: f32,
}

impl<'a> MediaRange<'a> {
    /// `None`: its quality is no number from 0 to 1.
    fn read(text: &'a str) -> Option<Self> {
        let mut parts = text.split(';').map(str::trim);
        let (name, mut version, mut quality) = (parts.next()?, None, 1.0);
        for (parameter, value) in parts.filter_map(|part| part.split_once('=')) {
            if parameter.eq_ignore_ascii_case("version") {
                version = Some(value.trim_matches('"'));
            } else if parameter.eq_ignore_ascii_case("q") {
                quality = value.parse().ok()?;
            }
        }
        (0.0..=1.0).contains(&quality).then_some(Self {
            name,
            version,
            quality,
        })
    }

    /// Whether the media type in this version is in the range.
    fn is(&self, name: &str, version: &str) -> bool {
        self.name.eq_ignore_ascii_case(name) && self.version.is_none_or(|asked| asked == version)
    }
}

/// Where the status of a write is read.
pub(super) fn location(lock: LockId, write: WriteId) -> HeaderValue {
    HeaderValue::from_str(&format!("/locks/{lock}/writes/{write}"))
        .unwrap_or(HeaderValue::from_static("/"))
}

/// `{type, data}`. Its schema is written by hand, because each type has members of its own.
#[derive(Serialize)]
pub(super) struct Event<'a> {
    r#type: &'static str,
    data: EventData<'a>,
}

impl<'a> Event<'a> {
    fn of(recorded: &'a RecordedEvent) -> Self {
        Self {
            r#type: recorded.event.name(),
            data: EventData(recorded),
        }
    }
}

/// The answer to a write that was accepted.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(super) struct Success<'a> {
    /// Always true.
    success: bool,
    /// The number of the lock, as text.
    aggregate_id: String,
    /// The version of the lock after the event.
    version: u64,
    #[schema(schema_with = schemas::requested_or_null)]
    event: Option<Event<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(schema_with = schemas::outcome, required = false)]
    write: Option<Outcome>,
}

/// What became of the write while the client waited.
#[derive(Serialize, ToSchema)]
pub(super) struct Outcome {
    #[schema(schema_with = schemas::uuid)]
    id: String,
    #[schema(schema_with = schemas::write_state)]
    state: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(schema_with = schemas::failure_reason, required = false)]
    reason: Option<String>,
}

impl<'a> Success<'a> {
    pub(super) fn new(lock: LockId, written: &'a WriteReceipt, outcome: Option<&Write>) -> Self {
        Self {
            success: true,
            aggregate_id: lock.to_string(),
            version: written.version.0,
            event: written.event.as_ref().map(Event::of),
            write: outcome.map(|write| Outcome {
                id: write.id.to_string(),
                state: write.state.name(),
                reason: reason(write).map(|r| r.name().to_owned()),
            }),
        }
    }
}

fn reason(write: &Write) -> Option<&FailureReason> {
    match &write.state {
        WriteState::Failed(reason, _) | WriteState::Aborted { reason, .. } => Some(reason),
        _ => None,
    }
}

/// Where a write stands.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(super) struct WriteStatus {
    #[schema(schema_with = schemas::uuid)]
    id: String,
    /// The number of the lock.
    lock_id: u64,
    /// The key, as requested.
    key_uuid: String,
    /// The slot, as requested. Absent where the lock chooses one.
    #[serde(skip_serializing_if = "Option::is_none")]
    key_index_number: Option<u64>,
    #[schema(schema_with = schemas::write_state)]
    state: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(schema_with = schemas::failure_reason, required = false)]
    reason: Option<&'static str>,
    /// The lock's own code, where the reason is `DeviceError`.
    #[serde(skip_serializing_if = "Option::is_none")]
    code: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(schema_with = schemas::retry, required = false)]
    retry: Option<&'static str>,
    /// Whether the lock has said nothing about the open write for an unusually long time.
    unconfirmed: bool,
    /// Whether the lock reported after the write had expired, or had been superseded or withdrawn.
    late: bool,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schema(schema_with = schemas::anomalies, required = false)]
    anomalies: Vec<&'static str>,
    /// The slot that the lock named, where it is another one than was asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    reported_key_index_number: Option<u64>,
    /// When the request was accepted.
    #[schema(value_type = String, format = DateTime)]
    requested_at: String,
    /// When the write ended.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>, format = DateTime)]
    settled_at: Option<String>,
    /// When the write ends at the latest.
    #[schema(value_type = String, format = DateTime)]
    expires_at: String,
    /// The version of the write's `KeyWriteRequested`. Absent where the shadow has not accepted the write.
    #[serde(skip_serializing_if = "Option::is_none")]
    version: Option<u64>,
}

impl WriteStatus {
    pub(super) fn of(write: &Write, unconfirmed: bool) -> Self {
        let reason = reason(write);
        Self {
            id: write.id.to_string(),
            lock_id: write.lock.get(),
            key_uuid: write.slot.key.to_string(),
            key_index_number: write.slot.index.map(KeyIndex::get),
            state: write.state.name(),
            reason: reason.map(FailureReason::name),
            code: reason.and_then(|r| r.device_code()).map(|c| c.to_string()),
            retry: reason.map(|r| r.retry().as_str()),
            unconfirmed,
            late: write.is_late(),
            anomalies: write.anomalies.iter().map(Anomaly::name).collect(),
            reported_key_index_number: write.reported_index.map(KeyIndex::get),
            requested_at: write.prepared_at.to_string(),
            settled_at: write.ended_at().map(|at| at.to_string()),
            expires_at: write.expires_at.to_string(),
            version: write.requested.map(|r| r.version.0),
        }
    }
}

/// The writes that are not over, oldest first.
#[derive(Serialize, ToSchema)]
pub(super) struct Writes {
    /// The writes.
    pub(super) writes: Vec<WriteStatus>,
}

/// A key that the lock holds.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
struct DetailsKey {
    /// The key.
    uuid: String,
    /// The slot that it is in, where known.
    #[serde(skip_serializing_if = "Option::is_none")]
    index_number: Option<u64>,
    /// The user whose key it is, where known.
    #[serde(skip_serializing_if = "Option::is_none")]
    user_id: Option<String>,
}

/// A lock, as the vendor shows it.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(super) struct Details {
    /// The number of the lock, as text.
    id: String,
    /// The number of the lock.
    lock_id: u64,
    /// The UUID of the lock.
    uuid: String,
    /// The serial number printed on the lock.
    #[serde(skip_serializing_if = "Option::is_none")]
    serial_number: Option<String>,
    /// The keys that the lock holds.
    keys: Vec<DetailsKey>,
    /// The user who owns the lock.
    #[serde(skip_serializing_if = "Option::is_none")]
    owner_id: Option<String>,
    /// The organization that owns the lock.
    #[serde(skip_serializing_if = "Option::is_none")]
    organization_id: Option<String>,
    /// Always empty: residents are not known here.
    #[schema(value_type = Vec<String>)]
    residents: [(); 0],
    /// The organization that owns the lock, or an empty text.
    org_id: String,
    /// The version of the lock: how many events it has.
    version: u64,
    /// When the last event was recorded.
    #[schema(value_type = String, format = DateTime)]
    timestamp: String,
}

impl Details {
    pub(super) fn of(lock: &Lock) -> Self {
        Self {
            id: lock.id.to_string(),
            lock_id: lock.id.get(),
            uuid: lock.uuid.to_string(),
            serial_number: lock.serial_number.as_ref().map(ToString::to_string),
            keys: lock.keys.iter().map(DetailsKey::of).collect(),
            owner_id: lock.owner.as_ref().map(ToString::to_string),
            organization_id: lock.organization.as_ref().map(ToString::to_string),
            residents: [],
            org_id: org_id(lock),
            version: lock.version.0,
            timestamp: lock.time.to_string(),
        }
    }
}

impl DetailsKey {
    fn of(key: &LockKey) -> Self {
        Self {
            uuid: key.held.key.to_string(),
            index_number: key.held.index.map(KeyIndex::get),
            user_id: key.held.user.as_ref().map(ToString::to_string),
        }
    }
}

fn org_id(lock: &Lock) -> String {
    let organization = lock.organization.as_ref();
    organization.map(ToString::to_string).unwrap_or_default()
}

/// One event with its place in the stream.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
struct EventItem<'a> {
    /// Always `lock`.
    aggregate_type: &'static str,
    /// The number of the lock, as text.
    aggregate_id: String,
    /// The place in the stream of the lock, from 1.
    version: u64,
    #[schema(schema_with = schemas::event_type)]
    r#type: &'static str,
    /// When the event was recorded.
    #[schema(value_type = String, format = DateTime)]
    timestamp: String,
    /// The organization that owns the lock, or an empty text.
    org_id: String,
    #[schema(schema_with = schemas::lock_event)]
    event: Event<'a>,
}

/// One page of a lock's stream.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(super) struct EventPage<'a> {
    /// The number of the lock, as text.
    aggregate_id: String,
    /// How many events the lock has.
    total_events: u64,
    /// The page, from 1.
    page: u64,
    /// How many events a page has.
    page_size: u64,
    /// How many pages there are.
    total_pages: u64,
    /// The events, oldest first.
    events: Vec<EventItem<'a>>,
}

impl<'a> EventPage<'a> {
    pub(super) const SIZE: u64 = 10;

    /// The page that is meant: the last one, where none is named.
    pub(super) fn number(asked: Option<u64>, lock: &Lock) -> u64 {
        asked.unwrap_or_else(|| lock.version.0.div_ceil(Self::SIZE))
    }

    /// The version of a page's first event.
    pub(super) fn first(page: u64) -> LockVersion {
        LockVersion((page - 1).saturating_mul(Self::SIZE).saturating_add(1))
    }

    pub(super) fn new(lock: &Lock, page: u64, events: &'a [RecordedEvent]) -> Self {
        // Events that came since the lock was read are on the page of a later request.
        let events = events.iter().filter(|e| e.version <= lock.version);
        Self {
            aggregate_id: lock.id.to_string(),
            total_events: lock.version.0,
            page,
            page_size: Self::SIZE,
            total_pages: lock.version.0.div_ceil(Self::SIZE),
            events: events
                .map(|recorded| EventItem {
                    aggregate_type: "lock",
                    aggregate_id: lock.id.to_string(),
                    version: recorded.version.0,
                    r#type: recorded.event.name(),
                    timestamp: Timestamp::to_string(&recorded.time),
                    org_id: org_id(lock),
                    event: Event::of(recorded),
                })
                .collect(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_format_of_metrics_is_the_one_that_the_client_likes_best() {
        use MetricsFormat::{OpenMetrics, Text};
        let prometheus = "application/openmetrics-text;version=1.0.0;q=0.5,\
            application/openmetrics-text;version=0.0.1;q=0.4,text/plain;version=0.0.4;q=0.3,*/*;q=0.1";
        let prometheus_3 = "application/openmetrics-text;version=1.0.0;escaping=allow-utf-8;q=0.6,\
            application/openmetrics-text;version=0.0.1;q=0.5,\
            text/plain;version=1.0.0;escaping=allow-utf-8;q=0.4,text/plain;version=0.0.4;q=0.3,*/*;q=0.2";
        for (accept, format) in [
            (prometheus, OpenMetrics),
            (prometheus_3, OpenMetrics),
            ("application/openmetrics-text", OpenMetrics),
            (
                "Application/OpenMetrics-Text; Version=\"1.0.0\"; Q=0.1",
                OpenMetrics,
            ),
            ("text/plain, application/openmetrics-text", OpenMetrics),
            (
                "*/*, text/plain;q=0.2, application/openmetrics-text;q=0.3",
                OpenMetrics,
            ),
            (
                "text/plain;version=1.0.0, application/openmetrics-text;q=0.3",
                OpenMetrics,
            ),
            ("text/plain, application/openmetrics-text;q=0.9", Text),
            ("*/*, application/openmetrics-text;q=0.9", Text),
            (
                "text/*;q=0.5, */*;q=0.1, application/openmetrics-text;q=0.4",
                Text,
            ),
            ("application/openmetrics-text;q=0", Text),
            ("application/openmetrics-text;q=0.000, text/plain;q=0", Text),
            ("application/openmetrics-text;q=2", Text),
            ("application/openmetrics-text;q=x", Text),
            ("application/openmetrics-text;version=0.0.1", Text),
            ("application/*", Text),
            ("text/html, */*;q=0.8", Text),
            ("", Text),
        ] {
            let mut headers = HeaderMap::new();
            headers.insert(ACCEPT, HeaderValue::from_static(accept));
            assert_eq!(metrics_format(&headers), format, "{accept}");
        }
        assert_eq!(metrics_format(&HeaderMap::new()), Text);
        let mut headers = HeaderMap::new();
        headers.append(ACCEPT, HeaderValue::from_static("text/plain;q=0.5"));
        let named = HeaderValue::from_static("application/openmetrics-text;q=0.6");
        headers.append(ACCEPT, named);
        assert_eq!(metrics_format(&headers), OpenMetrics, "two header lines");
    }
}
