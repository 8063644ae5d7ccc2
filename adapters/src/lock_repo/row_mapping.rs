//! Rows of locks, events, writes and idempotency records, independent of the database driver. Reading an invalid value fails with an
//! error that names the table, the column and the key of the row.

use std::str::FromStr;
use std::time::Duration;

use keywright_domain::model::{
    Anomalies, Anomaly, Cause, DeviceCode, Epoch, FailureReason, IdempotencyRecord,
    IdempotencyScope, Intent, KeyIndex, KeySlot, LockId, LockVersion, LoggedEvent, Position,
    RecordedEvent, RequestId, Requested, Revision, Sequence, Settled, ShadowVersion, Timestamp,
    WorkerId, Write, WriteId, WriteState,
};
use keywright_domain::ports::RepoError;
use uuid::Uuid;

use super::lock_row::LockRow;
use crate::json;

/// A row of a driver with columns of type `T`. The error: the column has a value of another type.
pub(super) trait HasColumns<T> {
    fn column(&self, name: &'static str) -> Result<T, WrongType>;
}

/// A row of a driver.
pub(super) trait Row:
    HasColumns<Option<i64>> + HasColumns<Option<String>> + HasColumns<Option<Uuid>> + HasColumns<bool>
{
}

impl<R> Row for R where
    R: HasColumns<Option<i64>>
        + HasColumns<Option<String>>
        + HasColumns<Option<Uuid>>
        + HasColumns<bool>
{
}

pub(super) struct WrongType;

/// Reads the columns of a row.
struct ColumnReader<'a, R> {
    row: &'a R,
    table: &'static str,
    key: String,
}

impl<'a, R: Row> ColumnReader<'a, R> {
    fn new(row: &'a R, table: &'static str, key: String) -> Self {
        Self { row, table, key }
    }

    fn corrupt(&self, column: &'static str) -> RepoError {
        corrupt(self.table, column, self.key.clone())
    }

    fn get<T>(&self, column: &'static str) -> Result<T, RepoError>
    where
        R: HasColumns<T>,
    {
        self.row.column(column).map_err(|_| self.corrupt(column))
    }

    fn number(&self, column: &'static str) -> Result<Option<u64>, RepoError> {
        let number: Option<i64> = self.get(column)?;
        let unsigned = number.map(u64::try_from).transpose();
        unsigned.map_err(|_| self.corrupt(column))
    }

    fn required(&self, column: &'static str) -> Result<u64, RepoError> {
        self.number(column)?.ok_or_else(|| self.corrupt(column))
    }

    fn time(&self, column: &'static str) -> Result<Timestamp, RepoError> {
        self.required(column).map(Timestamp::from_millis)
    }

    fn id(&self, column: &'static str) -> Result<u128, RepoError> {
        let id: Option<Uuid> = self.get(column)?;
        id.map(|id| id.as_u128())
            .ok_or_else(|| self.corrupt(column))
    }

    fn key_index(&self, column: &'static str) -> Result<Option<KeyIndex>, RepoError> {
        let index = self.number(column)?.map(KeyIndex::new).transpose();
        index.map_err(|_| self.corrupt(column))
    }

    fn text(&self, column: &'static str) -> Result<String, RepoError> {
        let text: Option<String> = self.get(column)?;
        text.ok_or_else(|| self.corrupt(column))
    }

    fn optional<T: FromStr>(&self, column: &'static str) -> Result<Option<T>, RepoError> {
        let text: Option<String> = self.get(column)?;
        let value = text.map(|text| text.parse()).transpose();
        value.map_err(|_| self.corrupt(column))
    }

    fn parse<T: FromStr>(&self, column: &'static str) -> Result<T, RepoError> {
        let text = self.text(column)?;
        text.parse().map_err(|_| self.corrupt(column))
    }
}

pub(super) fn corrupt(table: &'static str, column: &'static str, key: String) -> RepoError {
    RepoError::Corrupt { table, column, key }
}

/// Converts a number to the signed integer of a column. The error: it is above 2^63 - 1.
pub(super) fn to_sql_integer(value: u64) -> Result<i64, RepoError> {
    i64::try_from(value).map_err(|_| RepoError::Unavailable(format!("{value} is beyond 2^63 - 1")))
}

/// A `LIMIT`.
pub(super) fn row_limit(limit: usize) -> i64 {
    i64::try_from(limit).unwrap_or(i64::MAX)
}

/// As [`to_sql_integer`]; `None` is NULL.
pub(super) fn to_optional_sql_integer(value: Option<u64>) -> Result<Option<i64>, RepoError> {
    value.map(to_sql_integer).transpose()
}

impl LockRow {
    /// Reads the columns `revision` and `shadow_version`, and the lock's JSON. `state_column` is the name that the query gives to the JSON;
    /// errors in it name the column of the table, `state`.
    pub(super) fn read<R: Row>(
        id: LockId,
        row: &R,
        state_column: &'static str,
    ) -> Result<Self, RepoError> {
        let columns = ColumnReader::new(row, "locks", id.to_string());
        let unreadable = || corrupt("locks", "state", id.to_string());
        let text = columns.text(state_column).map_err(|_| unreadable())?;
        let lock_state = serde_json::from_str(&text).map_err(|_| unreadable())?;
        Ok(Self {
            lock: json::read_lock_state(id, &lock_state).map_err(|_| unreadable())?,
            revision: Revision(columns.required("revision")?),
            shadow_version: columns.number("shadow_version")?.map(ShadowVersion),
        })
    }
}

/// The column `id` of `locks`.
pub(super) fn read_lock_id<R: Row>(row: &R) -> Result<LockId, RepoError> {
    let columns = ColumnReader::new(row, "locks", "a row without a readable id".into());
    LockId::new(columns.required("id")?).map_err(|_| columns.corrupt("id"))
}

/// The columns `version`, `write_id`, `type`, `data` and `cause` of an event.
pub(super) fn read_event<R: Row>(lock: LockId, row: &R) -> Result<RecordedEvent, RepoError> {
    let mut columns = ColumnReader::new(row, "events", lock.to_string());
    let version = LockVersion(columns.required("version")?);
    columns.key = format!("{lock}/{version}");
    let write: Option<Uuid> = columns.get("write_id")?;
    let (name, data) = (columns.text("type")?, columns.text("data")?);
    let data = serde_json::from_str(&data).map_err(|_| columns.corrupt("data"))?;
    let write = write.map(|id| WriteId::from_u128(id.as_u128()));
    let mut event = json::read_event(&name, version, write, &data)
        .ok()
        .filter(|event| event.lock == lock)
        .ok_or_else(|| columns.corrupt("data"))?;
    let cause: Option<String> = columns.get("cause")?;
    let cause = cause.map(|text| {
        let cause = serde_json::from_str(&text).ok();
        let cause = cause.and_then(|cause| json::read_cause(&cause).ok());
        cause.ok_or_else(|| columns.corrupt("cause"))
    });
    event.cause = cause.transpose()?;
    Ok(event)
}

/// The column `cause` of an event.
pub(super) fn cause_column(event: &RecordedEvent) -> Option<String> {
    let cause = event.cause.as_ref();
    cause.map(|cause| json::text(&json::CauseData(cause)))
}

/// The columns `position` and `lock` of an event, and those of [`read_event`].
pub(super) fn read_logged_event<R: Row>(row: &R) -> Result<LoggedEvent, RepoError> {
    let columns = ColumnReader::new(row, "events", "a row without a readable position".into());
    let position = Position(columns.required("position")?);
    let lock = LockId::new(columns.required("lock")?).map_err(|_| columns.corrupt("lock"))?;
    let event = read_event(lock, row)?;
    Ok(LoggedEvent { position, event })
}

/// The columns of `writes`, in their order.
pub(super) const WRITE_COLUMNS: [&str; 25] = [
    "id",
    "lock",
    "uuid",
    "thing",
    "key_uuid",
    "key_index",
    "seq",
    "requested_by",
    "prepared_at",
    "expires_at",
    "requested_version",
    "requested_at",
    "state",
    "ended_at",
    "late",
    "reason",
    "device_code",
    "owner",
    "epoch",
    "lease",
    "lease_until",
    "attention",
    "anomalies",
    "reported_index",
    "request_id",
];

/// Reads a write. Of [`WRITE_COLUMNS`] it does not need `lease_until`.
pub(super) fn read_write<R: Row>(row: &R) -> Result<Write, RepoError> {
    let mut columns = ColumnReader::new(row, "writes", "a row without a readable id".into());
    let id = WriteId::from_u128(columns.id("id")?);
    columns.key = id.to_string();
    let lock = LockId::new(columns.required("lock")?).map_err(|_| columns.corrupt("lock"))?;
    let requested = match columns.number("requested_version")? {
        Some(version) => Some(Requested {
            version: LockVersion(version),
            time: columns.time("requested_at")?,
        }),
        None => None,
    };
    Ok(Write {
        id,
        lock,
        uuid: columns.parse("uuid")?,
        thing: columns.parse("thing")?,
        slot: KeySlot {
            key: columns.parse("key_uuid")?,
            index: columns.key_index("key_index")?,
        },
        seq: Sequence(columns.required("seq")?),
        cause: Cause {
            requested_by: columns.text("requested_by")?,
            request: columns.optional("request_id")?,
        },
        prepared_at: columns.time("prepared_at")?,
        expires_at: columns.time("expires_at")?,
        requested,
        state: read_state(&columns)?,
        anomalies: read_anomalies(&columns)?,
        reported_index: columns.key_index("reported_index")?,
        next_check_at: columns.number("attention")?.map(Timestamp::from_millis),
    })
}

/// The names of the anomalies, separated by commas; NULL: there are none.
fn read_anomalies<R: Row>(columns: &ColumnReader<'_, R>) -> Result<Anomalies, RepoError> {
    let names: Option<String> = columns.get("anomalies")?;
    let names = names.iter().flat_map(|names| names.split(','));
    let anomalies: Result<Anomalies, ()> = names.map(str::parse).collect();
    anomalies.map_err(|()| columns.corrupt("anomalies"))
}

fn write_anomalies(anomalies: &Anomalies) -> Option<String> {
    let names: Vec<&str> = anomalies.iter().copied().map(Anomaly::name).collect();
    (!names.is_empty()).then(|| names.join(","))
}

fn read_state<R: Row>(columns: &ColumnReader<'_, R>) -> Result<WriteState, RepoError> {
    let ended = || columns.time("ended_at");
    let settled = || {
        Ok(Settled {
            at: ended()?,
            late: columns.get("late")?,
        })
    };
    Ok(match columns.text("state")?.as_str() {
        "PREPARED" => WriteState::Prepared(read_intent(columns)?),
        "SENT" => WriteState::Sent,
        "IN_PROGRESS" => WriteState::InProgress,
        "SUCCEEDED" => WriteState::Succeeded(settled()?),
        "FAILED" => WriteState::Failed(read_reason(columns)?, settled()?),
        "EXPIRED" => WriteState::Expired { at: ended()? },
        "SUPERSEDED" => WriteState::Superseded { at: ended()? },
        "WITHDRAWN" => WriteState::Withdrawn { at: ended()? },
        "ABORTED" => WriteState::Aborted {
            at: ended()?,
            reason: read_reason(columns)?,
        },
        _ => return Err(columns.corrupt("state")),
    })
}

fn read_reason<R: Row>(columns: &ColumnReader<'_, R>) -> Result<FailureReason, RepoError> {
    match columns.get::<Option<String>>("device_code")? {
        Some(code) => code
            .parse()
            .map(FailureReason::DeviceError)
            .map_err(|_| columns.corrupt("device_code")),
        None => columns.parse("reason"),
    }
}

/// The columns `key_uuid`, `key_index`, `write_id`, `without_event`, `answered_by` and `until` of an idempotency record.
/// `without_event` is the version of an answer without an event, `answered_by` the deadline of the answer, and `until` the end of
/// the record.
pub(super) fn read_idempotency_record<R: Row>(
    scope: &IdempotencyScope,
    row: &R,
) -> Result<IdempotencyRecord, RepoError> {
    let columns = ColumnReader::new(
        row,
        "kept_answers",
        format!("{}/{}", scope.lock, scope.principal),
    );
    Ok(IdempotencyRecord {
        scope: scope.clone(),
        slot: KeySlot {
            key: columns.parse("key_uuid")?,
            index: columns.key_index("key_index")?,
        },
        write: WriteId::from_u128(columns.id("write_id")?),
        version_without_event: columns.number("without_event")?.map(LockVersion),
        answer_deadline: columns.time("answered_by")?,
        expires_at: columns.time("until")?,
    })
}

/// The columns `id`, `owner`, `epoch` and `lease` of a prepared write.
pub(super) fn read_open_intent<R: Row>(row: &R) -> Result<(WriteId, Intent), RepoError> {
    let mut columns = ColumnReader::new(row, "writes", "a row without a readable id".into());
    let write = WriteId::from_u128(columns.id("id")?);
    columns.key = write.to_string();
    Ok((write, read_intent(&columns)?))
}

fn read_intent<R: Row>(columns: &ColumnReader<'_, R>) -> Result<Intent, RepoError> {
    Ok(Intent {
        worker: WorkerId(columns.id("owner")?),
        epoch: Epoch(columns.required("epoch")?),
        lease: Duration::from_millis(columns.required("lease")?),
    })
}

/// A write as a row of `writes`, without the end of its lease, which the store computes. The fields have the names of the
/// columns: `owner` is the worker of the intent, `attention` the time of the next check.
#[cfg_attr(feature = "postgres", derive(Debug, serde::Serialize))]
pub(super) struct StoredWrite<'a> {
    pub(super) id: Uuid,
    pub(super) lock: i64,
    pub(super) uuid: &'a str,
    pub(super) thing: &'a str,
    pub(super) key_uuid: &'a str,
    pub(super) key_index: Option<i64>,
    pub(super) seq: i64,
    pub(super) requested_by: &'a str,
    pub(super) prepared_at: i64,
    pub(super) expires_at: i64,
    pub(super) requested_version: Option<i64>,
    pub(super) requested_at: Option<i64>,
    pub(super) state: &'static str,
    pub(super) ended_at: Option<i64>,
    pub(super) late: bool,
    pub(super) reason: Option<&'static str>,
    pub(super) device_code: Option<&'a str>,
    pub(super) owner: Option<Uuid>,
    pub(super) epoch: Option<i64>,
    pub(super) lease: Option<i64>,
    pub(super) attention: Option<i64>,
    pub(super) anomalies: Option<String>,
    pub(super) reported_index: Option<i64>,
    pub(super) request_id: Option<&'a str>,
}

impl<'a> StoredWrite<'a> {
    pub(super) fn of(write: &'a Write) -> Result<Self, RepoError> {
        let (requested, intent) = (write.requested, write.intent());
        let reason = match &write.state {
            WriteState::Failed(reason, _) | WriteState::Aborted { reason, .. } => Some(reason),
            _ => None,
        };
        let lease = intent.map(|i| u64::try_from(i.lease.as_millis()).unwrap_or(u64::MAX));
        Ok(Self {
            id: Uuid::from_u128(write.id.as_u128()),
            lock: to_sql_integer(write.lock.get())?,
            uuid: write.uuid.as_str(),
            thing: write.thing.as_str(),
            key_uuid: write.slot.key.as_str(),
            key_index: to_optional_sql_integer(write.slot.index.map(KeyIndex::get))?,
            seq: to_sql_integer(write.seq.0)?,
            requested_by: &write.cause.requested_by,
            prepared_at: to_sql_integer(write.prepared_at.as_millis())?,
            expires_at: to_sql_integer(write.expires_at.as_millis())?,
            requested_version: to_optional_sql_integer(requested.map(|r| r.version.0))?,
            requested_at: to_optional_sql_integer(requested.map(|r| r.time.as_millis()))?,
            state: write.state.name(),
            ended_at: to_optional_sql_integer(write.ended_at().map(Timestamp::as_millis))?,
            late: write.is_late(),
            reason: reason.map(FailureReason::name),
            device_code: reason.and_then(|r| r.device_code()).map(DeviceCode::as_str),
            owner: intent.map(|i| Uuid::from_u128(i.worker.0)),
            epoch: to_optional_sql_integer(intent.map(|i| i.epoch.0))?,
            lease: to_optional_sql_integer(lease)?,
            attention: to_optional_sql_integer(write.next_check_at.map(Timestamp::as_millis))?,
            anomalies: write_anomalies(&write.anomalies),
            reported_index: to_optional_sql_integer(write.reported_index.map(KeyIndex::get))?,
            request_id: write.cause.request.as_ref().map(RequestId::as_str),
        })
    }
}
