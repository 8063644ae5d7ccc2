//! Rows as values of the domain. A row that is none is an error with its table, column and key.

use std::str::FromStr;
use std::time::Duration;

use keywright_domain::event::{KeySlot, RecordedEvent};
use keywright_domain::lock::Lock;
use keywright_domain::ports::RepoError;
use keywright_domain::reason::FailureReason;
use keywright_domain::values::{
    DeviceCode, Epoch, KeyIndex, LockId, LockVersion, Revision, Sequence, ShadowVersion, Timestamp,
    WriteId,
};
use keywright_domain::write::{Intent, Owner, Requested, Settled, Write, WriteState};
use rusqlite::types::FromSql;
use rusqlite::{CachedStatement, Connection, OptionalExtension, Row, ToSql, named_params, params};

use crate::json;

/// A lock's row.
pub(super) struct LockRow {
    pub(super) lock: Lock,
    pub(super) revision: Revision,
    pub(super) shadow_version: Option<ShadowVersion>,
}

/// A row that is being read.
struct Columns<'a> {
    row: &'a Row<'a>,
    table: &'static str,
    key: String,
}

impl Columns<'_> {
    fn corrupt(&self, column: &'static str) -> RepoError {
        RepoError::Corrupt {
            table: self.table,
            column,
            key: self.key.clone(),
        }
    }

    fn get<T: FromSql>(&self, column: &'static str) -> Result<T, RepoError> {
        self.row.get(column).map_err(|_| self.corrupt(column))
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

    fn bits(&self, column: &'static str) -> Result<u128, RepoError> {
        self.get(column).map(u128::from_be_bytes)
    }

    fn parse<T: FromStr>(&self, column: &'static str) -> Result<T, RepoError> {
        let text: String = self.get(column)?;
        text.parse().map_err(|_| self.corrupt(column))
    }
}

pub(super) fn unavailable(error: rusqlite::Error) -> RepoError {
    RepoError::Unavailable(error.to_string())
}

fn integer(value: u64) -> Result<i64, RepoError> {
    i64::try_from(value).map_err(|_| RepoError::Unavailable(format!("{value} is beyond 2^63 - 1")))
}

fn optional(value: Option<u64>) -> Result<Option<i64>, RepoError> {
    value.map(integer).transpose()
}

fn prepare<'a>(conn: &'a Connection, sql: &str) -> Result<CachedStatement<'a>, RepoError> {
    conn.prepare_cached(sql).map_err(unavailable)
}

/// Every row of a query, read by `read`; the first that cannot be read is the error.
fn all<T>(
    conn: &Connection,
    sql: &str,
    params: &[(&str, &dyn ToSql)],
    read: impl Fn(&Row<'_>) -> Result<T, RepoError>,
) -> Result<Vec<T>, RepoError> {
    let mut statement = prepare(conn, sql)?;
    let rows = statement
        .query_map(params, |row| Ok(read(row)))
        .map_err(unavailable)?;
    rows.map(|row| row.map_err(unavailable)?).collect()
}

pub(super) fn lock(conn: &Connection, id: LockId) -> Result<Option<LockRow>, RepoError> {
    let mut statement = prepare(
        conn,
        "SELECT revision, shadow_version, state FROM locks WHERE id = ?1",
    )?;
    let row = statement
        .query_row([integer(id.get())?], |row| Ok(read_lock(id, row)))
        .optional();
    row.map_err(unavailable)?.transpose()
}

/// Locks by their ids.
pub(super) fn locks(
    conn: &Connection,
    after: Option<LockId>,
    limit: usize,
) -> Result<Vec<Lock>, RepoError> {
    let limit = i64::try_from(limit).unwrap_or(i64::MAX);
    let after = after.map_or(Ok(0), |id| integer(id.get()))?;
    all(
        conn,
        "SELECT id, revision, shadow_version, state FROM locks WHERE id > :after ORDER BY id LIMIT :limit",
        named_params! { ":after": after, ":limit": limit },
        |row| {
            let columns = Columns {
                row,
                table: "locks",
                key: "a row without a readable id".into(),
            };
            let id = LockId::new(columns.required("id")?).map_err(|_| columns.corrupt("id"))?;
            read_lock(id, row).map(|row| row.lock)
        },
    )
}

fn read_lock(id: LockId, row: &Row<'_>) -> Result<LockRow, RepoError> {
    let columns = Columns {
        row,
        table: "locks",
        key: id.to_string(),
    };
    let state: String = columns.get("state")?;
    let state = serde_json::from_str(&state).map_err(|_| columns.corrupt("state"))?;
    Ok(LockRow {
        lock: json::read_lock_state(id, &state).map_err(|_| columns.corrupt("state"))?,
        revision: Revision(columns.required("revision")?),
        shadow_version: columns.number("shadow_version")?.map(ShadowVersion),
    })
}

/// Puts a lock's row in its place.
pub(super) fn put_lock(conn: &Connection, row: &LockRow) -> Result<(), RepoError> {
    let state = json::lock_state(&row.lock).to_string();
    let shadow_version = optional(row.shadow_version.map(|v| v.0))?;
    prepare(conn, "INSERT OR REPLACE INTO locks VALUES (?1, ?2, ?3, ?4)")?
        .execute(params![
            integer(row.lock.id.get())?,
            integer(row.revision.0)?,
            shadow_version,
            state
        ])
        .map(drop)
        .map_err(unavailable)
}

/// Moves a lock's row on from `revision`, or from whichever it has; what is not given stays as it is. Whether there
/// was such a row.
pub(super) fn move_lock(
    conn: &Connection,
    lock: LockId,
    revision: Option<Revision>,
    folded: Option<&Lock>,
    shadow_version: Option<ShadowVersion>,
) -> Result<bool, RepoError> {
    let moved = prepare(
        conn,
        "UPDATE locks SET revision = revision + 1, shadow_version = coalesce(?3, shadow_version),
         state = coalesce(?4, state)
         WHERE id = ?1 AND revision = coalesce(?2, revision)",
    )?
    .execute(params![
        integer(lock.get())?,
        optional(revision.map(|r| r.0))?,
        optional(shadow_version.map(|v| v.0))?,
        folded.map(|lock| json::lock_state(lock).to_string()),
    ])
    .map_err(unavailable)?;
    Ok(moved > 0)
}

pub(super) fn append(conn: &Connection, event: &RecordedEvent) -> Result<(), RepoError> {
    prepare(conn, "INSERT INTO events VALUES (?1, ?2, ?3, ?4, ?5)")?
        .execute(params![
            integer(event.lock.get())?,
            integer(event.version.0)?,
            event.write.map(|id| id.as_u128().to_be_bytes()),
            event.event.name(),
            json::event_data(event).to_string()
        ])
        .map(drop)
        .map_err(unavailable)
}

pub(super) fn events(
    conn: &Connection,
    lock: LockId,
    first: LockVersion,
    limit: usize,
) -> Result<Vec<RecordedEvent>, RepoError> {
    let Ok(first) = i64::try_from(first.0) else {
        // No stream is that long.
        return Ok(Vec::new());
    };
    let lock_id = integer(lock.get())?;
    let limit = i64::try_from(limit).unwrap_or(i64::MAX);
    all(
        conn,
        "SELECT version, write_id, type, data FROM events
         WHERE lock = :lock AND version >= :first ORDER BY version LIMIT :limit",
        named_params! { ":lock": lock_id, ":first": first, ":limit": limit },
        |row| read_event(lock, row),
    )
}

fn read_event(lock: LockId, row: &Row<'_>) -> Result<RecordedEvent, RepoError> {
    let mut columns = Columns {
        row,
        table: "events",
        key: lock.to_string(),
    };
    let version = LockVersion(columns.required("version")?);
    columns.key = format!("{lock}/{version}");
    let write: Option<[u8; 16]> = columns.get("write_id")?;
    let write = write.map(|bytes| WriteId::from_u128(u128::from_be_bytes(bytes)));
    let (name, data): (String, String) = (columns.get("type")?, columns.get("data")?);
    let data = serde_json::from_str(&data).map_err(|_| columns.corrupt("data"))?;
    json::read_event(&name, version, write, &data)
        .ok()
        .filter(|event| event.lock == lock)
        .ok_or_else(|| columns.corrupt("data"))
}

pub(super) fn write(conn: &Connection, id: WriteId) -> Result<Option<Write>, RepoError> {
    let id = id.as_u128().to_be_bytes();
    let found = all(
        conn,
        "SELECT * FROM writes WHERE id = :id",
        named_params! { ":id": id },
        read_write,
    );
    found.map(|mut found| found.pop())
}

/// The writes of a lock that somebody still has to act on, in the order of their `seq`.
pub(super) fn live_writes(conn: &Connection, lock: LockId) -> Result<Vec<Write>, RepoError> {
    all(
        conn,
        "SELECT * FROM writes WHERE lock = :lock
         AND (lease_until IS NOT NULL OR attention IS NOT NULL) ORDER BY seq",
        named_params! { ":lock": integer(lock.get())? },
        read_write,
    )
}

pub(super) fn due_writes(
    conn: &Connection,
    until: Timestamp,
    (after, after_id): (Option<Timestamp>, WriteId),
    limit: usize,
) -> Result<Vec<Write>, RepoError> {
    let limit = i64::try_from(limit).unwrap_or(i64::MAX);
    let after = after.map_or(Ok(-1), |at| integer(at.as_millis()))?;
    all(
        conn,
        "SELECT * FROM writes WHERE attention <= :until AND (attention, id) > (:after, :id)
         ORDER BY attention, id LIMIT :limit",
        named_params! {
            ":until": integer(until.as_millis())?,
            ":after": after,
            ":id": after_id.as_u128().to_be_bytes(),
            ":limit": limit,
        },
        read_write,
    )
}

/// The prepared write whose lease has been over the longest.
pub(super) fn overdue_write(conn: &Connection, now: Timestamp) -> Result<Option<Write>, RepoError> {
    let found = all(
        conn,
        "SELECT * FROM writes WHERE lease_until <= :now ORDER BY lease_until, id LIMIT 1",
        named_params! { ":now": integer(now.as_millis())? },
        read_write,
    );
    found.map(|mut found| found.pop())
}

/// Puts a write's row in its place; the lease of a prepared one starts now.
pub(super) fn put_write(conn: &Connection, write: &Write, now: Timestamp) -> Result<(), RepoError> {
    let (requested, intent) = (write.requested, write.intent());
    let reason = match &write.state {
        WriteState::Failed(reason, _) | WriteState::Aborted { reason, .. } => Some(reason),
        _ => None,
    };
    let lease = intent.map(|i| u64::try_from(i.lease.as_millis()).unwrap_or(u64::MAX));
    let lease_until = intent.map(|i| now.after(i.lease).as_millis());
    let index = write.slot.index.map(KeyIndex::get);
    prepare(
        conn,
        "INSERT OR REPLACE INTO writes VALUES (:id, :lock, :uuid, :thing, :key_uuid, :key_index, :seq,
         :requested_by, :prepared_at, :expires_at, :requested_version, :requested_at, :state, :ended_at,
         :late, :reason, :device_code, :owner, :epoch, :lease, :lease_until, :attention)",
    )?
    .execute(named_params! {
        ":id": write.id.as_u128().to_be_bytes(),
        ":lock": integer(write.lock.get())?,
        ":uuid": write.uuid.as_str(),
        ":thing": write.thing.as_str(),
        ":key_uuid": write.slot.key.as_str(),
        ":key_index": optional(index)?,
        ":seq": integer(write.seq.0)?,
        ":requested_by": write.requested_by,
        ":prepared_at": integer(write.prepared_at.as_millis())?,
        ":expires_at": integer(write.expires_at.as_millis())?,
        ":requested_version": optional(requested.map(|r| r.version.0))?,
        ":requested_at": optional(requested.map(|r| r.time.as_millis()))?,
        ":state": write.state.name(),
        ":ended_at": optional(write.settled_at().map(Timestamp::as_millis))?,
        ":late": write.is_late(),
        ":reason": reason.map(FailureReason::name),
        ":device_code": reason.and_then(|r| r.device_code()).map(DeviceCode::as_str),
        ":owner": intent.map(|i| i.owner.0.to_be_bytes()),
        ":epoch": optional(intent.map(|i| i.epoch.0))?,
        ":lease": optional(lease)?,
        ":lease_until": optional(lease_until)?,
        ":attention": optional(write.attention.map(Timestamp::as_millis))?,
    })
    .map(drop)
    .map_err(unavailable)
}

fn read_write(row: &Row<'_>) -> Result<Write, RepoError> {
    let mut columns = Columns {
        row,
        table: "writes",
        key: "a row without a readable id".into(),
    };
    let id = WriteId::from_u128(columns.bits("id")?);
    columns.key = id.to_string();
    let lock = LockId::new(columns.required("lock")?).map_err(|_| columns.corrupt("lock"))?;
    let index = columns.number("key_index")?.map(KeyIndex::new).transpose();
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
            index: index.map_err(|_| columns.corrupt("key_index"))?,
        },
        seq: Sequence(columns.required("seq")?),
        requested_by: columns.get("requested_by")?,
        prepared_at: columns.time("prepared_at")?,
        expires_at: columns.time("expires_at")?,
        requested,
        state: read_state(&columns)?,
        attention: columns.number("attention")?.map(Timestamp::from_millis),
    })
}

fn read_state(columns: &Columns<'_>) -> Result<WriteState, RepoError> {
    let ended = || columns.time("ended_at");
    let settled = || {
        Ok(Settled {
            at: ended()?,
            late: columns.get("late")?,
        })
    };
    let state: String = columns.get("state")?;
    Ok(match state.as_str() {
        "PREPARED" => WriteState::Prepared(Intent {
            owner: Owner(columns.bits("owner")?),
            epoch: Epoch(columns.required("epoch")?),
            lease: Duration::from_millis(columns.required("lease")?),
        }),
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

fn read_reason(columns: &Columns<'_>) -> Result<FailureReason, RepoError> {
    match columns.get::<Option<String>>("device_code")? {
        Some(code) => DeviceCode::new(&code)
            .map(FailureReason::DeviceError)
            .map_err(|_| columns.corrupt("device_code")),
        None => columns.parse("reason"),
    }
}
