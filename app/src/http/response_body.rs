//! The JSON bodies of responses, in the shapes of the HTTP contract.

use std::time::Duration;

use keywright_adapters::json::EventData;
use keywright_domain::model::{
    Anomaly, EventId, FailureReason, KeyIndex, Lock, LockId, LockKey, LockVersion, RecordedEvent,
    Timestamp, Write,
};
use keywright_domain::policy::{self, Reach};
use keywright_domain::{FeedEvent, WriteReceipt};
use serde::Serialize;
use utoipa::ToSchema;

use super::{cursor, schemas};

/// An event as `{type, data}`. Its schema is written by hand, because the members of `data` depend on the type.
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

/// The body of a 200 to `WriteKey`.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(super) struct Success<'a> {
    /// Always true.
    success: bool,
    /// The id of the lock, as text.
    aggregate_id: String,
    /// The version of the lock after the event.
    version: u64,
    #[schema(schema_with = schemas::requested_or_null)]
    event: Option<Event<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(schema_with = schemas::outcome, required = false)]
    write: Option<Outcome>,
}

/// The write at the end of the wait that the client asked for.
#[derive(Serialize, ToSchema)]
pub(super) struct Outcome {
    /// The id of the write.
    #[schema(format = "uuid")]
    id: String,
    #[schema(schema_with = schemas::write_state)]
    state: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(schema_with = schemas::failure_reason, required = false)]
    reason: Option<String>,
}

impl<'a> Success<'a> {
    pub(super) fn new(lock: LockId, receipt: &'a WriteReceipt, outcome: Option<&Write>) -> Self {
        Self {
            success: true,
            aggregate_id: lock.to_string(),
            version: receipt.version.0,
            event: receipt.event.as_ref().map(Event::of),
            write: outcome.map(|write| Outcome {
                id: write.id.to_string(),
                state: write.state.name(),
                reason: write.reason().map(|r| r.name().to_owned()),
            }),
        }
    }
}

/// The status of a write.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(super) struct WriteStatus {
    /// The id of the write.
    #[schema(format = "uuid")]
    id: String,
    /// The id of the lock.
    lock_id: u64,
    /// The key, as requested.
    key_uuid: String,
    /// The key index, as requested. Absent if the lock chooses one.
    #[serde(skip_serializing_if = "Option::is_none")]
    key_index_number: Option<u64>,
    #[schema(schema_with = schemas::write_state)]
    state: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(schema_with = schemas::failure_reason, required = false)]
    reason: Option<&'static str>,
    /// The error code that the lock reported. Present if the reason is `DeviceError`.
    #[serde(skip_serializing_if = "Option::is_none")]
    code: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(schema_with = schemas::retry, required = false)]
    retry: Option<&'static str>,
    /// Whether the lock has not reported on the open write for an unusually long time.
    unconfirmed: bool,
    /// Whether the lock reported a result after the write had expired or had been superseded or withdrawn.
    late: bool,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schema(schema_with = schemas::anomalies, required = false)]
    anomalies: Vec<&'static str>,
    /// The key index that the lock reported. Present if it differs from the requested one.
    #[serde(skip_serializing_if = "Option::is_none")]
    reported_key_index_number: Option<u64>,
    /// Who requested the write: `user:ID`, `org:ID`, or `org:*` for a super key, with the name of the credential as in the events of the
    /// feed.
    requested_by: String,
    /// When the request was accepted.
    #[schema(value_type = String, format = DateTime)]
    requested_at: String,
    /// When the write ended.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>, format = DateTime)]
    settled_at: Option<String>,
    /// When the write expires if it has not ended.
    #[schema(value_type = String, format = DateTime)]
    expires_at: String,
    /// The version of the lock after the write's `KeyWriteRequested`. Absent if the shadow has not accepted the write.
    #[serde(skip_serializing_if = "Option::is_none")]
    version: Option<u64>,
    #[schema(schema_with = schemas::reach)]
    can_reach_lock: &'static str,
    /// Until when the key can reach the lock. Present if `canReachLock` is `until`.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>, format = DateTime)]
    can_reach_lock_until: Option<String>,
    /// Why, in a sentence for people.
    because: &'static str,
    /// The states that the write has been in, as far as they are recorded. A late result replaces the state before it.
    steps: Vec<Step>,
}

/// A state that a write has been in.
#[derive(Serialize, ToSchema)]
struct Step {
    #[schema(schema_with = schemas::write_state)]
    state: &'static str,
    /// Since when. Absent for IN_PROGRESS.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>, format = DateTime)]
    at: Option<String>,
}

impl WriteStatus {
    /// The status at this time. `confirm_within` is that of the service's limits.
    pub(super) fn of(write: &Write, now: Timestamp, confirm_within: Duration) -> Self {
        let reason = write.reason();
        let (reach, because) = policy::reach(write, now);
        let steps = write.steps().into_iter().map(|(state, at)| Step {
            state,
            at: at.map(|at| at.to_string()),
        });
        Self {
            id: write.id.to_string(),
            lock_id: write.lock.get(),
            key_uuid: write.slot.key.to_string(),
            key_index_number: write.slot.index.map(KeyIndex::get),
            state: write.state.name(),
            reason: reason.map(FailureReason::name),
            code: reason.and_then(|r| r.device_code()).map(|c| c.to_string()),
            retry: reason.map(|r| r.retry().as_str()),
            unconfirmed: write.is_unconfirmed(now, confirm_within),
            late: write.is_late(),
            anomalies: write.anomalies.iter().copied().map(Anomaly::name).collect(),
            reported_key_index_number: write.reported_index.map(KeyIndex::get),
            requested_by: write.cause.requested_by.clone(),
            requested_at: write.prepared_at.to_string(),
            settled_at: write.ended_at().map(|at| at.to_string()),
            expires_at: write.expires_at.to_string(),
            version: write.requested.map(|r| r.version.0),
            can_reach_lock: reach.name(),
            can_reach_lock_until: match reach {
                Reach::Until(end) => Some(end.to_string()),
                Reach::Yes | Reach::No => None,
            },
            because,
            steps: steps.collect(),
        }
    }
}

/// A page of writes.
#[derive(Serialize, ToSchema)]
pub(super) struct WritePage {
    /// The writes, the newest first; with `state=open`, the oldest first. There may be none although there is a `next`: the page then has
    /// passed writes that the caller may not read or does not want.
    writes: Vec<WriteStatus>,
    /// The cursor with which to continue. Absent on the last page.
    #[serde(skip_serializing_if = "Option::is_none")]
    next: Option<String>,
}

impl WritePage {
    pub(super) const fn new(writes: Vec<WriteStatus>, next: Option<String>) -> Self {
        Self { writes, next }
    }
}

/// A lock in a list: its details without its keys.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
struct LockItem {
    /// The id of the lock, as text.
    id: String,
    /// The id of the lock.
    lock_id: u64,
    /// The UUID of the lock.
    uuid: String,
    /// The serial number printed on the lock.
    #[serde(skip_serializing_if = "Option::is_none")]
    serial_number: Option<String>,
    /// The user who owns the lock.
    #[serde(skip_serializing_if = "Option::is_none")]
    owner_id: Option<String>,
    /// The organization that owns the lock, or an empty string.
    org_id: String,
    /// The version of the lock, which is the number of its events.
    version: u64,
    /// When the last event was recorded.
    #[schema(value_type = String, format = DateTime)]
    timestamp: String,
}

/// A page of locks.
#[derive(Serialize, ToSchema)]
pub(super) struct LockPage {
    /// The locks, in the order of their ids. There may be none although there is a `next`: the page then has passed locks that the caller
    /// may not access.
    locks: Vec<LockItem>,
    /// The cursor with which to continue. Absent on the last page.
    #[serde(skip_serializing_if = "Option::is_none")]
    next: Option<String>,
}

impl LockPage {
    pub(super) fn new(locks: &[Lock], next: Option<String>) -> Self {
        let locks = locks.iter().map(|lock| LockItem {
            id: lock.id.to_string(),
            lock_id: lock.id.get(),
            uuid: lock.uuid.to_string(),
            serial_number: lock.serial_number.as_ref().map(ToString::to_string),
            owner_id: lock.owner.as_ref().map(ToString::to_string),
            org_id: org_id(lock),
            version: lock.version.0,
            timestamp: lock.time.to_string(),
        });
        Self {
            locks: locks.collect(),
            next,
        }
    }
}

/// A key that the lock holds.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
struct DetailsKey {
    /// The key.
    uuid: String,
    /// The key index, if known.
    #[serde(skip_serializing_if = "Option::is_none")]
    index_number: Option<u64>,
    /// The user whose key it is, if known.
    #[serde(skip_serializing_if = "Option::is_none")]
    user_id: Option<String>,
}

/// A lock, in the vendor's shape.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(super) struct Details {
    /// The id of the lock, as text.
    id: String,
    /// The id of the lock.
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
    /// Always empty: the service does not know residents.
    #[schema(value_type = Vec<String>)]
    residents: [(); 0],
    /// The organization that owns the lock, or an empty string.
    org_id: String,
    /// The version of the lock, which is the number of its events.
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

/// One event of a page.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
struct EventItem<'a> {
    /// Always `lock`.
    aggregate_type: &'static str,
    /// The id of the lock, as text.
    aggregate_id: String,
    /// The version of the lock after the event, from 1.
    version: u64,
    #[schema(schema_with = schemas::event_type)]
    r#type: &'static str,
    /// When the event was recorded.
    #[schema(value_type = String, format = DateTime)]
    timestamp: String,
    /// The organization that owns the lock, or an empty string.
    org_id: String,
    #[schema(schema_with = schemas::lock_event)]
    event: Event<'a>,
}

impl<'a> EventItem<'a> {
    fn of(recorded: &'a RecordedEvent, lock: &Lock) -> Self {
        Self {
            aggregate_type: "lock",
            aggregate_id: lock.id.to_string(),
            version: recorded.version.0,
            r#type: recorded.event.name(),
            timestamp: recorded.time.to_string(),
            org_id: org_id(lock),
            event: Event::of(recorded),
        }
    }
}

/// An event of the feed.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(super) struct FeedItem<'a> {
    /// Where the event is in the feed. `after` with this text continues after it.
    cursor: String,
    /// Identifies the event, also if it is delivered again.
    id: String,
    #[serde(flatten)]
    item: EventItem<'a>,
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(schema_with = schemas::cause, required = false)]
    cause: Option<CauseItem<'a>>,
}

/// What led to an event.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(super) struct CauseItem<'a> {
    /// The id of the write that the event belongs to.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(format = "uuid")]
    write_id: Option<String>,
    /// The id of the request, as in the header `X-Request-Id` of its response.
    #[serde(skip_serializing_if = "Option::is_none")]
    request_id: Option<&'a str>,
    /// Who made the request: `user:ID`, `org:ID`, or `org:*` for a super key. A service's token adds `,sub:SUBJECT`, an API key adds
    /// `,key:` and the part of it that may be shown. A request with two credentials names both, joined by `+`.
    #[serde(skip_serializing_if = "Option::is_none")]
    requested_by: Option<&'a str>,
}

impl<'a> FeedItem<'a> {
    pub(super) fn of(event: &'a FeedEvent) -> Self {
        let recorded = &event.logged.event;
        let write_id = recorded.write.map(|id| id.to_string());
        let cause = recorded.cause.as_ref();
        let request = cause.and_then(|cause| cause.request.as_ref());
        Self {
            cursor: cursor::text(event.logged.position),
            id: EventId::of(recorded).to_string(),
            item: EventItem::of(recorded, &event.lock),
            cause: (write_id.is_some() || cause.is_some()).then(|| CauseItem {
                write_id,
                request_id: request.map(|id| id.as_str()),
                requested_by: cause.map(|cause| cause.requested_by.as_str()),
            }),
        }
    }

    pub(super) fn cursor(&self) -> &str {
        &self.cursor
    }
}

/// A page of the feed.
#[derive(Serialize, ToSchema)]
pub(super) struct FeedPage<'a> {
    /// The events, in the order in which they were recorded. There may be none although `next` differs from `after`: the page then
    /// has passed events that the caller may not read or does not want.
    events: Vec<FeedItem<'a>>,
    /// The cursor with which to continue. At the end of the feed it is the cursor to ask with later.
    next: String,
}

impl<'a> FeedPage<'a> {
    pub(super) fn of(page: &'a keywright_domain::FeedPage) -> Self {
        Self {
            events: page.events.iter().map(FeedItem::of).collect(),
            next: cursor::text(page.next),
        }
    }
}

/// One page of the events of a lock.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(super) struct EventPage<'a> {
    /// The id of the lock, as text.
    aggregate_id: String,
    /// The number of events of the lock.
    total_events: u64,
    /// The number of this page, from 1.
    page: u64,
    /// The maximum number of events on a page.
    page_size: u64,
    /// The number of pages.
    total_pages: u64,
    /// The events, oldest first.
    events: Vec<EventItem<'a>>,
}

impl<'a> EventPage<'a> {
    pub(super) const SIZE: u64 = 10;

    /// The requested page, or the last one if no page was requested.
    fn number(requested: Option<u64>, lock: &Lock) -> u64 {
        requested.unwrap_or_else(|| lock.version.0.div_ceil(Self::SIZE))
    }

    /// The version of the first event of the requested page.
    pub(super) fn first_version(requested: Option<u64>, lock: &Lock) -> LockVersion {
        let before = (Self::number(requested, lock) - 1).saturating_mul(Self::SIZE);
        LockVersion(before.saturating_add(1))
    }

    pub(super) fn new(requested: Option<u64>, lock: &Lock, events: &'a [RecordedEvent]) -> Self {
        // Events that were recorded after the lock was read are left out, as `total_events` does not count them.
        let events = events.iter().filter(|e| e.version <= lock.version);
        Self {
            aggregate_id: lock.id.to_string(),
            total_events: lock.version.0,
            page: Self::number(requested, lock),
            page_size: Self::SIZE,
            total_pages: lock.version.0.div_ceil(Self::SIZE),
            events: events
                .map(|recorded| EventItem::of(recorded, lock))
                .collect(),
        }
    }
}
