//! What stores of webhooks have in common: the texts of their columns.

use std::collections::HashSet;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use keywright_domain::model::{
    DeliveryOutcome, DeliveryRecord, EndpointAnswer, EventSelection, FailureStreak, LockEvent,
    NoAnswer, OrganizationId, Position, ReplaySince, Revision, Timestamp, Webhook,
    WebhookDescription, WebhookId, WebhookMessage, WebhookOwner, WebhookProgress, WebhookState,
    WebhookUrl,
};
use keywright_domain::model::{DisabledReason, LockId, LockVersion, WaitingLock};
use keywright_domain::ports::RepoError;
use serde::{Deserialize, Serialize};
use tracing::error;

use super::secret_cipher::SecretCipher;

pub(super) const COLUMNS: &str =
    "id, owner, revision, content, secrets, progress, disabled_at, disabled_reason";

pub(super) const WEBHOOKS: &str = "webhooks";
pub(super) const RECORDS: &str = "webhook_records";
pub(super) const WAITING: &str = "webhook_waiting";

/// A row of the table of webhooks.
pub(super) struct WebhookRow {
    pub(super) id: u128,
    pub(super) owner: String,
    pub(super) revision: i64,
    pub(super) content: String,
    pub(super) secrets: Vec<u8>,
    pub(super) progress: String,
    pub(super) disabled_at: Option<i64>,
    pub(super) disabled_reason: Option<String>,
}

/// Rows that cannot be read, which are reported once each.
#[derive(Clone, Default)]
pub(super) struct UnreadableRows(Arc<Mutex<HashSet<String>>>);

impl UnreadableRows {
    /// The webhooks of these rows. A row that cannot be read is left out, so that it does not stop the others, unless no row can be read:
    /// then the key is probably another one than that of the secrets.
    ///
    /// # Errors
    /// [`RepoError::Corrupt`]: there are rows, and none can be read.
    pub(super) fn read_others(
        &self,
        rows: impl Iterator<Item = Result<WebhookRow, RepoError>>,
        cipher: &SecretCipher,
    ) -> Result<Vec<Webhook>, RepoError> {
        let (mut webhooks, mut first) = (Vec::new(), None);
        for row in rows {
            match row.and_then(|row| row.read(cipher)) {
                Ok(webhook) => webhooks.push(webhook),
                Err(error) => {
                    self.report(&error);
                    first = first.or(Some(error));
                }
            }
        }
        match first {
            Some(error) if webhooks.is_empty() => Err(error),
            _ => Ok(webhooks),
        }
    }

    fn report(&self, error: &RepoError) {
        let text = error.to_string();
        let mut reported = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if reported.insert(text) {
            error!(%error, "a webhook cannot be read, and gets no deliveries");
        }
    }
}

/// The members of a webhook that no statement reads.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Content {
    url: String,
    events: Vec<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    description: Option<String>,
    created_at: u64,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Progress {
    cursor: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    replay_since: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    replay_until: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    failing_since: Option<u64>,
    #[serde(default)]
    failures: u32,
    restarts: u64,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Record {
    message: String,
    event_type: String,
    at: u64,
    took: u64,
    outcome: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    status: Option<u16>,
    #[serde(skip_serializing_if = "Option::is_none")]
    retry_after: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    body: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    error_kind: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    next_attempt: Option<u64>,
}

fn text(value: &impl Serialize) -> String {
    serde_json::to_string(value).expect("all values are texts and numbers, and all names are texts")
}

pub(super) fn integer(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

/// The owner as a column.
pub(super) fn owner_text(owner: &WebhookOwner) -> String {
    match owner {
        WebhookOwner::Organization(organization) => format!("org:{organization}"),
        WebhookOwner::EveryOrganization => "*".to_owned(),
    }
}

fn read_owner(text: &str) -> Option<WebhookOwner> {
    match text.strip_prefix("org:") {
        Some(organization) => {
            let organization = OrganizationId::new(organization).ok()?;
            Some(WebhookOwner::Organization(organization))
        }
        None => (text == "*").then_some(WebhookOwner::EveryOrganization),
    }
}

impl WebhookRow {
    pub(super) fn of(webhook: &Webhook, cipher: &SecretCipher) -> Self {
        let (disabled_at, disabled_reason) = match webhook.state {
            WebhookState::Enabled => (None, None),
            WebhookState::Disabled { at, reason } => {
                (Some(integer(at.as_millis())), Some(reason.name().into()))
            }
        };
        let names = webhook.events.names();
        Self {
            id: webhook.id.as_u128(),
            owner: owner_text(&webhook.owner),
            revision: integer(webhook.revision.0),
            content: text(&Content {
                url: webhook.url.as_str().into(),
                events: names.into_iter().map(str::to_owned).collect(),
                description: webhook.description.as_ref().map(ToString::to_string),
                created_at: webhook.created_at.as_millis(),
            }),
            secrets: cipher.encrypt(webhook.id, &webhook.secrets),
            progress: progress_text(&webhook.progress),
            disabled_at,
            disabled_reason,
        }
    }

    pub(super) fn read(self, cipher: &SecretCipher) -> Result<Webhook, RepoError> {
        let id = WebhookId::from_u128(self.id);
        let corrupt = |column| RepoError::Corrupt {
            table: WEBHOOKS,
            column,
            key: id.to_string(),
        };
        let content: Content =
            serde_json::from_str(&self.content).map_err(|_| corrupt("content"))?;
        let events = EventSelection::new(content.events.iter().map(String::as_str));
        let description = content.description.as_deref().map(WebhookDescription::new);
        let state = match (self.disabled_at, self.disabled_reason.as_deref()) {
            (None, None) => WebhookState::Enabled,
            (Some(at), Some(reason)) => WebhookState::Disabled {
                at: time(at).ok_or_else(|| corrupt("disabled_at"))?,
                reason: DisabledReason::of_name(reason)
                    .ok_or_else(|| corrupt("disabled_reason"))?,
            },
            _ => return Err(corrupt("disabled_at")),
        };
        Ok(Webhook {
            id,
            owner: read_owner(&self.owner).ok_or_else(|| corrupt("owner"))?,
            url: WebhookUrl::new(&content.url).map_err(|_| corrupt("content"))?,
            events: events.map_err(|_| corrupt("content"))?,
            description: description.transpose().map_err(|_| corrupt("content"))?,
            secrets: cipher
                .decrypt(id, &self.secrets)
                .ok_or_else(|| corrupt("secrets"))?,
            created_at: Timestamp::from_millis(content.created_at),
            state,
            revision: Revision(u64::try_from(self.revision).map_err(|_| corrupt("revision"))?),
            progress: read_progress(&self.progress).ok_or_else(|| corrupt("progress"))?,
        })
    }
}

fn time(millis: i64) -> Option<Timestamp> {
    u64::try_from(millis).ok().map(Timestamp::from_millis)
}

pub(super) fn progress_text(progress: &WebhookProgress) -> String {
    text(&Progress {
        cursor: progress.cursor.0,
        replay_since: progress.replay.map(|replay| replay.since.as_millis()),
        replay_until: progress.replay.map(|replay| replay.until.0),
        failing_since: progress.failures.map(|failures| failures.since.as_millis()),
        failures: progress.failures.map_or(0, |failures| failures.count),
        restarts: progress.restarts,
    })
}

fn read_progress(text: &str) -> Option<WebhookProgress> {
    let read: Progress = serde_json::from_str(text).ok()?;
    let replay = match (read.replay_since, read.replay_until) {
        (Some(since), Some(until)) => Some(ReplaySince {
            since: Timestamp::from_millis(since),
            until: Position(until),
        }),
        (None, None) => None,
        _ => return None,
    };
    Some(WebhookProgress {
        cursor: Position(read.cursor),
        replay,
        failures: read.failing_since.map(|since| FailureStreak {
            since: Timestamp::from_millis(since),
            count: read.failures,
        }),
        restarts: read.restarts,
    })
}

/// The columns of a waiting lock, in this order: `lock`, `next`, `through`, `attempts`, `due`.
pub(super) fn waiting_columns(waiting: &WaitingLock) -> [i64; 5] {
    [
        integer(waiting.lock.get()),
        integer(waiting.next.0),
        integer(waiting.through.0),
        i64::from(waiting.attempts),
        integer(waiting.due.as_millis()),
    ]
}

pub(super) fn read_waiting(id: WebhookId, columns: [i64; 5]) -> Result<WaitingLock, RepoError> {
    let [lock, next, through, attempts, due] = columns.map(u64::try_from);
    let read = || {
        Some(WaitingLock {
            lock: LockId::new(lock.ok()?).ok()?,
            next: LockVersion(next.ok()?),
            through: LockVersion(through.ok()?),
            attempts: u32::try_from(attempts.ok()?).ok()?,
            due: Timestamp::from_millis(due.ok()?),
        })
    };
    read().ok_or_else(|| RepoError::Corrupt {
        table: WAITING,
        column: "lock",
        key: id.to_string(),
    })
}

const TIMEOUT: &str = "timeout";
const FORBIDDEN: &str = "forbidden-address";
const UNRESOLVED: &str = "unresolved";
const CONNECTION: &str = "connection";

pub(super) fn record_text(record: &DeliveryRecord) -> String {
    let answer = record.answer.as_ref();
    let error = record.answer.as_ref().err();
    let millis = |span: Duration| u64::try_from(span.as_millis()).unwrap_or(u64::MAX);
    text(&Record {
        message: record.message.clone(),
        event_type: record.event_type.to_owned(),
        at: record.at.as_millis(),
        took: millis(record.took),
        outcome: record.outcome.name().to_owned(),
        status: answer.ok().map(|answer| answer.status),
        retry_after: answer
            .ok()
            .and_then(|answer| answer.retry_after)
            .map(|span| span.as_secs()),
        body: answer.ok().map(|answer| answer.body.clone()),
        error: error.map(|error| match error {
            NoAnswer::Timeout => String::new(),
            NoAnswer::ForbiddenAddress(text)
            | NoAnswer::Unresolved(text)
            | NoAnswer::Connection(text) => text.clone(),
        }),
        error_kind: error.map(|error| {
            let kind = match error {
                NoAnswer::Timeout => TIMEOUT,
                NoAnswer::ForbiddenAddress(_) => FORBIDDEN,
                NoAnswer::Unresolved(_) => UNRESOLVED,
                NoAnswer::Connection(_) => CONNECTION,
            };
            kind.to_owned()
        }),
        next_attempt: record.next_attempt.map(|at| at.as_millis()),
    })
}

pub(super) fn read_record(number: i64, text: &str) -> Result<DeliveryRecord, RepoError> {
    let read = || {
        let record: Record = serde_json::from_str(text).ok()?;
        let types = LockEvent::NAMES.into_iter().chain([WebhookMessage::TEST]);
        let mut known = types.filter(|name| *name == record.event_type);
        let error = record.error.unwrap_or_default();
        let answer = match (record.status, record.error_kind.as_deref()) {
            (Some(status), None) => Ok(EndpointAnswer {
                status,
                retry_after: record.retry_after.map(Duration::from_secs),
                body: record.body?,
            }),
            (None, Some(TIMEOUT)) => Err(NoAnswer::Timeout),
            (None, Some(FORBIDDEN)) => Err(NoAnswer::ForbiddenAddress(error)),
            (None, Some(UNRESOLVED)) => Err(NoAnswer::Unresolved(error)),
            (None, Some(CONNECTION)) => Err(NoAnswer::Connection(error)),
            _ => return None,
        };
        Some(DeliveryRecord {
            number: u64::try_from(number).ok()?,
            message: record.message,
            event_type: known.next()?,
            at: Timestamp::from_millis(record.at),
            took: Duration::from_millis(record.took),
            outcome: DeliveryOutcome::of_name(&record.outcome)?,
            answer,
            next_attempt: record.next_attempt.map(Timestamp::from_millis),
        })
    };
    read().ok_or_else(|| RepoError::Corrupt {
        table: RECORDS,
        column: "content",
        key: number.to_string(),
    })
}
