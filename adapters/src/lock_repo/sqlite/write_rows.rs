//! Rows of writes.

use std::collections::{HashMap, HashSet};
use std::ops::RangeInclusive;
use std::time::Duration;

use keywright_domain::model::{Backlog, DueCursor, Intent, Timestamp, Write, WriteId};
use keywright_domain::ports::RepoError;
use rusqlite::types::FromSql;
use rusqlite::{Connection, Row, ToSql, named_params, params};
use uuid::Uuid;

use super::statement::{all, execute, prepare, unavailable};
use super::tail::ChangedWrites;
use crate::lock_repo::observed_leases::MAX_OBSERVED;
use crate::lock_repo::row_mapping::{
    self, HasColumns, StoredWrite, WRITE_COLUMNS, WrongType, row_limit, to_optional_sql_integer,
    to_sql_integer,
};

/// A row with all columns of `writes`. SQLite's own lookup by name takes longer than reading all columns.
struct WriteRow<'a>(&'a Row<'a>);

impl<T: FromSql> HasColumns<T> for WriteRow<'_> {
    fn column(&self, name: &'static str) -> Result<T, WrongType> {
        let index = WRITE_COLUMNS.iter().position(|known| *known == name);
        let value = self.0.get(index.ok_or(WrongType)?);
        value.map_err(|_| WrongType)
    }
}

pub(super) fn write(conn: &Connection, id: WriteId) -> Result<Option<Write>, RepoError> {
    let found = all(
        conn,
        "SELECT * FROM writes WHERE id = :id",
        named_params! { ":id": Uuid::from_u128(id.as_u128()) },
        |row| row_mapping::read_write(&WriteRow(row)),
    );
    found.map(|mut found| found.pop())
}

/// A page of all writes without the outdated ones, in descending order of their ids.
pub(super) fn writes(
    conn: &Connection,
    before: Option<WriteId>,
    limit: usize,
    outdated: &HashSet<WriteId>,
) -> Result<Vec<Write>, RepoError> {
    let before = before.map(|id| Uuid::from_u128(id.as_u128()));
    // Two statements: with a condition that allows NULL, SQLite would read all writes.
    let sql = match before {
        Some(_) => "SELECT * FROM writes WHERE id < :before ORDER BY id DESC",
        None => "SELECT * FROM writes WHERE :before IS NULL ORDER BY id DESC",
    };
    page(
        conn,
        sql,
        named_params! { ":before": before },
        limit,
        outdated,
    )
}

/// A page of the writes with a next check, without the outdated ones, in the order of these checks.
pub(super) fn due(
    conn: &Connection,
    until: Timestamp,
    after: Option<DueCursor>,
    limit: usize,
    outdated: &HashSet<WriteId>,
) -> Result<Vec<Write>, RepoError> {
    let (after, id) = match after {
        Some(due) => (to_sql_integer(due.at.as_millis())?, due.id.as_u128()),
        None => (-1, 0),
    };
    page(
        conn,
        "SELECT * FROM writes WHERE attention <= :until AND (attention, id) > (:after, :id)
         ORDER BY attention, id",
        named_params! {
            ":until": to_sql_integer(until.as_millis())?,
            ":after": after,
            ":id": Uuid::from_u128(id),
        },
        limit,
        outdated,
    )
}

/// Reads the first `limit` rows of a query that are not outdated.
fn page(
    conn: &Connection,
    sql: &str,
    params: &[(&str, &dyn ToSql)],
    limit: usize,
    outdated: &HashSet<WriteId>,
) -> Result<Vec<Write>, RepoError> {
    let mut statement = prepare(conn, sql)?;
    let mut rows = statement.query(params).map_err(unavailable)?;
    let mut writes = Vec::new();
    while writes.len() < limit
        && let Some(row) = rows.next().map_err(unavailable)?
    {
        let id: Option<Uuid> = row.get(0).ok();
        let id = id.map(|id| WriteId::from_u128(id.as_u128()));
        if id.is_none_or(|id| !outdated.contains(&id)) {
            writes.push(row_mapping::read_write(&WriteRow(row))?);
        }
    }
    Ok(writes)
}

/// The open intents: those of the rows with the fewest take-overs, and then those of `changed`, which replace their rows. `None`: the write
/// has no intent.
pub(super) fn open_intents(
    conn: &Connection,
    changed: &HashMap<WriteId, Option<Intent>>,
) -> Result<Vec<(WriteId, Intent)>, RepoError> {
    let mut intents = all(
        conn,
        "SELECT id, owner, epoch, lease FROM writes WHERE lease_until IS NOT NULL ORDER BY lease_until, id LIMIT :limit",
        named_params! { ":limit": MAX_OBSERVED + row_limit(changed.len()) },
        |row| row_mapping::read_open_intent(row),
    )?;
    intents.retain(|(id, _)| !changed.contains_key(id));
    let changed = changed.iter();
    intents.extend(changed.filter_map(|(id, intent)| Some((*id, (*intent)?))));
    Ok(intents)
}

/// Inserts or replaces a write. `lease_until` marks it as prepared and orders the open intents; it is not compared with any
/// clock. It grows with each take-over, so that an intent which cannot be resolved is ordered after the others.
pub(super) fn put_write(conn: &Connection, write: &Write) -> Result<(), RepoError> {
    let columns = StoredWrite::of(write)?;
    let lease_until = write.intent().map(|intent| {
        let epochs = u32::try_from(intent.epoch.0).unwrap_or(u32::MAX);
        let leases = intent.lease.saturating_mul(epochs);
        write.prepared_at.after(leases).as_millis()
    });
    // The columns that identify a write never change.
    let sql = "INSERT INTO writes VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14, ?15, ?16, ?17, ?18,
         ?19, ?20, ?21, ?22, ?23, ?24, ?25)
         ON CONFLICT (id) DO UPDATE SET requested_version = ?11, requested_at = ?12, state = ?13, ended_at = ?14,
         late = ?15, reason = ?16, device_code = ?17, owner = ?18, epoch = ?19, lease = ?20, lease_until = ?21,
         attention = ?22, anomalies = ?23, reported_index = ?24";
    let columns = params![
        columns.id,
        columns.lock,
        columns.uuid,
        columns.thing,
        columns.key_uuid,
        columns.key_index,
        columns.seq,
        columns.requested_by,
        columns.prepared_at,
        columns.expires_at,
        columns.requested_version,
        columns.requested_at,
        columns.state,
        columns.ended_at,
        columns.late,
        columns.reason,
        columns.device_code,
        columns.owner,
        columns.epoch,
        columns.lease,
        to_optional_sql_integer(lease_until)?,
        columns.attention,
        columns.anomalies,
        columns.reported_index,
        columns.request_id,
    ];
    execute(conn, sql, columns).map(drop)
}

/// Counts the unfinished writes. Those of `changed` replace their rows.
pub(super) fn backlog(
    conn: &Connection,
    recent_times: &RangeInclusive<Timestamp>,
    oldest: Option<Duration>,
    changed: &ChangedWrites,
) -> Result<Backlog, RepoError> {
    let mut backlog = Backlog::default();
    let mut count = |is_intent: bool, state: &str, requested_at: Option<Timestamp>| {
        backlog.intents += u64::from(is_intent);
        backlog.open += u64::from(matches!(state, "SENT" | "IN_PROGRESS"));
        let recent = requested_at.is_none_or(|at| recent_times.contains(&at));
        backlog.unconfirmed += u64::from(state == "SENT" && !recent);
    };
    let mut statement = prepare(
        conn,
        "SELECT id, lease_until IS NOT NULL, state, requested_at FROM writes
         WHERE lease_until IS NOT NULL OR attention IS NOT NULL",
    )?;
    let mut rows = statement.query([]).map_err(unavailable)?;
    while let Some(row) = rows.next().map_err(unavailable)? {
        let unreadable = |_| row_mapping::corrupt("writes", "id", "an unfinished write".into());
        let id: Uuid = row.get(0).map_err(unreadable)?;
        if changed.ids.contains(&WriteId::from_u128(id.as_u128())) {
            continue;
        }
        let corrupt = |column| move |_| row_mapping::corrupt("writes", column, id.to_string());
        let state = row.get_ref(2).map_err(unavailable)?;
        let state = state.as_str().map_err(|_| corrupt("state")(()))?;
        let requested_at: Option<i64> = row.get(3).map_err(|_| corrupt("requested_at")(()))?;
        let requested_at = requested_at.map(|at| u64::try_from(at).unwrap_or_default());
        let is_intent = row.get(1).map_err(unavailable)?;
        count(is_intent, state, requested_at.map(Timestamp::from_millis));
    }
    for write in &changed.selected {
        let requested_at = write.requested.map(|requested| requested.time);
        count(write.intent().is_some(), write.state.name(), requested_at);
    }
    backlog.oldest_intent = (backlog.intents > 0).then(|| oldest.unwrap_or_default());
    Ok(backlog)
}
