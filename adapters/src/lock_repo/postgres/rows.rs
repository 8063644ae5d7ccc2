//! The statements, and what they bind and read.

use std::sync::Arc;

use keywright_domain::model::{IdempotencyRecord, KeyIndex, RecordedEvent, Save, WriteId};
use keywright_domain::ports::RepoError;
use serde::{Serialize, Serializer};
use tokio_postgres::Row;
use tokio_postgres::types::private::BytesMut;
use tokio_postgres::types::{FromSql, IsNull, ToSql, Type, to_sql_checked};

use crate::json;
use crate::lock_repo::columns::{self, Bits, WriteColumns, WrongType, integer, optional};

/// The moment by the database's clock, in milliseconds.
macro_rules! now {
    () => {
        "floor(extract(epoch FROM clock_timestamp()) * 1000)::bigint"
    };
}

/// The columns of a write, each behind a prefix. A newer version of this program may add some to the table while this one
/// runs, and a statement that asks for all there are would fail then.
macro_rules! write_columns {
    ($of:literal) => {
        concat!(
            $of,
            "id, ",
            $of,
            "lock, ",
            $of,
            "uuid, ",
            $of,
            "thing, ",
            $of,
            "key_uuid, ",
            $of,
            "key_index, ",
            $of,
            "seq, ",
            $of,
            "requested_by, ",
            $of,
            "prepared_at, ",
            $of,
            "expires_at, ",
            $of,
            "requested_version, ",
            $of,
            "requested_at, ",
            $of,
            "state, ",
            $of,
            "ended_at, ",
            $of,
            "late, ",
            $of,
            "reason, ",
            $of,
            "device_code, ",
            $of,
            "owner, ",
            $of,
            "epoch, ",
            $of,
            "lease, ",
            $of,
            "lease_until, ",
            $of,
            "attention, ",
            $of,
            "anomalies, ",
            $of,
            "reported_index"
        )
    };
}

/// One write by its id.
pub(super) const WRITE: &str = concat!("SELECT ", write_columns!(""), " FROM writes WHERE id = $1");

/// What is due, page by page.
pub(super) const DUE: &str = concat!(
    "SELECT ",
    write_columns!(""),
    " FROM writes WHERE attention <= $1 AND (attention, id) > ($2, $3) ORDER BY attention, id LIMIT $4"
);

/// The locks, each once for each live write; one statement sees one revision.
pub(super) const LOAD: &str = concat!(
    "SELECT l.id AS of_lock, l.revision, l.shadow_version, l.state AS fold, ",
    write_columns!("w."),
    "
FROM locks l LEFT JOIN writes w
  ON w.lock = l.id AND (w.lease_until IS NOT NULL OR w.attention IS NOT NULL)
  AND w.state IN ('PREPARED', 'SENT', 'IN_PROGRESS', 'SUCCEEDED', 'FAILED')
WHERE l.id = ANY ($1) ORDER BY l.id, w.seq"
);

/// Saves of one lock each. Nothing is appended or put of one whose lock's row has not moved; those that have are returned.
macro_rules! save {
    ($locked:literal) => {
        concat!(
            "
WITH asked AS (
  SELECT l.id, s.shadow_version, s.state
  FROM unnest($1::bigint[], $2::bigint[], $3::bigint[], $4::text[]) AS s (lock, revision, shadow_version, state)
  JOIN locks l ON l.id = s.lock AND l.revision = s.revision
  FOR UPDATE OF l ",
            $locked,
            "
), moved AS (
  UPDATE locks SET revision = revision + 1, shadow_version = coalesce(asked.shadow_version, locks.shadow_version),
    state = coalesce(asked.state, locks.state)
  FROM asked WHERE locks.id = asked.id RETURNING locks.id
), appended AS (
  INSERT INTO events (lock, version, write_id, type, data)
  SELECT e.lock, e.version, e.write_id, e.type, e.data
  FROM unnest($5::bigint[], $6::bigint[], $7::uuid[], $8::text[], $9::text[]) AS e (lock, version, write_id, type, data)
  JOIN moved ON moved.id = e.lock
), put AS (
  INSERT INTO writes (",
            write_columns!(""),
            ")
  SELECT w.id, w.lock, w.uuid, w.thing, w.key_uuid, w.key_index, w.seq, w.requested_by, w.prepared_at, w.expires_at,
    w.requested_version, w.requested_at, w.state, w.ended_at, w.late, w.reason, w.device_code, w.owner, w.epoch,
    w.lease, ",
            now!(),
            " + w.lease, w.attention, w.anomalies, w.reported_index
  FROM json_populate_recordset(NULL::writes, $10) AS w JOIN moved ON moved.id = w.lock
  ON CONFLICT (id) DO UPDATE SET
    requested_version = excluded.requested_version, requested_at = excluded.requested_at, state = excluded.state,
    ended_at = excluded.ended_at, late = excluded.late, reason = excluded.reason,
    device_code = excluded.device_code, owner = excluded.owner, epoch = excluded.epoch, lease = excluded.lease,
    lease_until = excluded.lease_until, attention = excluded.attention,
    anomalies = excluded.anomalies, reported_index = excluded.reported_index
), kept AS (
  INSERT INTO kept_answers (lock, principal, idempotency_key, key_uuid, key_index, write_id, without_event, answered_by,
    until)
  SELECT k.lock, k.principal, k.idempotency_key, k.key_uuid, k.key_index, k.write_id, k.without_event, k.answered_by,
    k.until
  FROM json_populate_recordset(NULL::kept_answers, $11) AS k JOIN moved ON moved.id = k.lock
  ON CONFLICT (lock, principal, idempotency_key) DO UPDATE SET
    key_uuid = excluded.key_uuid, key_index = excluded.key_index, write_id = excluded.write_id,
    without_event = excluded.without_event, answered_by = excluded.answered_by, until = excluded.until
)
SELECT id FROM moved"
        )
    };
}

/// One save. It waits for whoever is at the lock's row, and then sees it as it is afterwards.
pub(super) const SAVE: &str = save!("");

/// Saves of several locks. Those whose rows others are at are left out, so that none of the rest waits for a lock, and no two
/// statements wait for each other.
pub(super) const SAVE_BATCH: &str = save!("SKIP LOCKED");

/// Deletes at most `$3` of each, and none that another replica is at. An answer that is kept anew meanwhile has another end, and stays.
pub(super) const PURGE: &str = "
WITH over AS MATERIALIZED (
  SELECT lock, principal, idempotency_key FROM kept_answers WHERE until <= $1 LIMIT $3 FOR UPDATE SKIP LOCKED
), answers AS (
  DELETE FROM kept_answers k USING over
  WHERE (k.lock, k.principal, k.idempotency_key) = (over.lock, over.principal, over.idempotency_key)
  RETURNING 1
), old AS MATERIALIZED (
  SELECT id FROM writes WHERE ended_at < $2 AND lease_until IS NULL AND attention IS NULL LIMIT $3
  FOR UPDATE SKIP LOCKED
), ended AS (
  DELETE FROM writes w USING old WHERE w.id = old.id RETURNING 1
)
SELECT (SELECT count(*) FROM answers) + (SELECT count(*) FROM ended)";

/// The prepared writes, those that were saved or claimed first at the top.
pub(super) const OPEN_INTENTS: &str =
    "SELECT id, owner, epoch, lease FROM writes WHERE lease_until IS NOT NULL
  ORDER BY lease_until, id LIMIT $1";

/// Takes over an intent, unless somebody has it in hand or has taken it over. Both rows are locked, and neither is waited
/// for; a save takes the lock's row first. `lease_until` is written for replicas of earlier versions, which compare it with
/// the database's clock.
pub(super) const CLAIM: &str = concat!(
    "
WITH overdue AS (
  SELECT w.id FROM writes w JOIN locks l ON l.id = w.lock
  WHERE w.id = $3 AND w.owner = $4 AND w.epoch = $5 AND w.lease_until IS NOT NULL
  FOR UPDATE OF l, w SKIP LOCKED
), taken AS (
  UPDATE writes SET owner = $1, epoch = epoch + 1, lease = $2, lease_until = ",
    now!(),
    " + $2
  FROM overdue WHERE writes.id = overdue.id RETURNING ",
    write_columns!("writes."),
    "
), moved AS (
  UPDATE locks SET revision = revision + 1 FROM taken WHERE locks.id = taken.lock
)
SELECT * FROM taken"
);

/// Whether a row of [`LOAD`] has a write.
pub(super) fn has_write(row: &Row) -> bool {
    matches!(row.try_get::<_, Option<Bits>>("id"), Ok(Some(_)) | Err(_))
}

/// Events, column by column.
#[derive(Default)]
pub(super) struct EventColumns {
    pub(super) versions: Vec<i64>,
    pub(super) writes: Vec<Option<Bits>>,
    pub(super) types: Vec<&'static str>,
    pub(super) data: Vec<String>,
}

impl EventColumns {
    pub(super) fn push(&mut self, event: &RecordedEvent) -> Result<(), RepoError> {
        self.versions.push(integer(event.version.0)?);
        self.writes.push(event.write.map(|id| Bits(id.as_u128())));
        self.types.push(event.event.name());
        self.data.push(json::text(&json::EventData(event)));
        Ok(())
    }
}

/// Saves, column by column.
pub(super) struct SaveColumns {
    locks: Vec<i64>,
    revisions: Vec<i64>,
    shadow_versions: Vec<Option<i64>>,
    folds: Vec<Option<String>>,
    event_locks: Vec<i64>,
    events: EventColumns,
    writes: Json,
    records: Json,
}

impl SaveColumns {
    pub(super) fn of(saves: &[Arc<Save>]) -> Result<Self, RepoError> {
        let mut columns = Self {
            locks: Vec::with_capacity(saves.len()),
            revisions: Vec::with_capacity(saves.len()),
            shadow_versions: Vec::with_capacity(saves.len()),
            folds: Vec::with_capacity(saves.len()),
            event_locks: Vec::new(),
            events: EventColumns::default(),
            writes: Json::of(saves.iter().flat_map(|s| &s.writes).map(WriteColumns::of))?,
            records: Json::of(
                saves
                    .iter()
                    .flat_map(|s| &s.idempotency)
                    .map(|record| RecordColumns::of(record)),
            )?,
        };
        for save in saves {
            // Rows are joined to the lock that has moved.
            debug_assert!(save.events.iter().all(|event| event.lock == save.lock));
            debug_assert!(save.writes.iter().all(|write| write.lock == save.lock));
            let mut records = save.idempotency.iter();
            debug_assert!(records.all(|record| record.scope.lock == save.lock));
            let fold = save.folded.as_deref();
            columns.locks.push(integer(save.lock.get())?);
            columns.revisions.push(integer(save.revision.0)?);
            let shadow_version = optional(save.shadow_version.map(|v| v.0))?;
            columns.shadow_versions.push(shadow_version);
            let fold = fold.map(|lock| json::text(&json::LockState(lock)));
            columns.folds.push(fold);
            for event in &save.events {
                columns.event_locks.push(integer(event.lock.get())?);
                columns.events.push(event)?;
            }
        }
        Ok(columns)
    }

    /// What [`SAVE`] and [`SAVE_BATCH`] bind.
    pub(super) fn parameters(&self) -> [&(dyn ToSql + Sync); 11] {
        [
            &self.locks,
            &self.revisions,
            &self.shadow_versions,
            &self.folds,
            &self.event_locks,
            &self.events.versions,
            &self.events.writes,
            &self.events.types,
            &self.events.data,
            &self.writes,
            &self.records,
        ]
    }
}

/// An idempotency record as a row of `kept_answers`. The fields are named as the columns.
#[derive(Serialize)]
struct RecordColumns<'a> {
    lock: i64,
    principal: &'a str,
    idempotency_key: &'a str,
    key_uuid: &'a str,
    key_index: Option<i64>,
    write_id: Bits,
    without_event: Option<i64>,
    answered_by: i64,
    until: i64,
}

impl<'a> RecordColumns<'a> {
    fn of(record: &'a IdempotencyRecord) -> Result<Self, RepoError> {
        Ok(Self {
            lock: integer(record.scope.lock.get())?,
            principal: &record.scope.principal,
            idempotency_key: record.scope.key.as_str(),
            key_uuid: record.slot.key.as_str(),
            key_index: optional(record.slot.index.map(KeyIndex::get))?,
            write_id: Bits(record.write.as_u128()),
            without_event: optional(record.version_without_event.map(|v| v.0))?,
            answered_by: integer(record.answer_deadline.as_millis())?,
            until: integer(record.expires_at.as_millis())?,
        })
    }
}

/// A text that goes as `json`.
#[derive(Debug)]
pub(super) struct Json(String);

impl Json {
    /// An array of rows.
    fn of<T: Serialize>(
        rows: impl Iterator<Item = Result<T, RepoError>>,
    ) -> Result<Self, RepoError> {
        let rows: Vec<T> = rows.collect::<Result<_, _>>()?;
        let text = serde_json::to_string(&rows);
        text.map(Self)
            .map_err(|e| RepoError::Unavailable(e.to_string()))
    }
}

impl ToSql for Json {
    fn to_sql(
        &self,
        _: &Type,
        out: &mut BytesMut,
    ) -> Result<IsNull, Box<dyn std::error::Error + Sync + Send>> {
        out.extend_from_slice(self.0.as_bytes());
        Ok(IsNull::No)
    }

    fn accepts(kind: &Type) -> bool {
        *kind == Type::JSON
    }

    to_sql_checked!();
}

impl ToSql for Bits {
    fn to_sql(
        &self,
        _: &Type,
        out: &mut BytesMut,
    ) -> Result<IsNull, Box<dyn std::error::Error + Sync + Send>> {
        out.extend_from_slice(&self.0.to_be_bytes());
        Ok(IsNull::No)
    }

    fn accepts(kind: &Type) -> bool {
        *kind == Type::UUID
    }

    to_sql_checked!();
}

impl<'a> FromSql<'a> for Bits {
    fn from_sql(_: &Type, raw: &'a [u8]) -> Result<Self, Box<dyn std::error::Error + Sync + Send>> {
        Ok(Self(u128::from_be_bytes(raw.try_into()?)))
    }

    fn accepts(kind: &Type) -> bool {
        *kind == Type::UUID
    }
}

/// As JSON, a UUID in its usual form.
impl Serialize for Bits {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(&WriteId::from_u128(self.0))
    }
}

impl columns::Row for Row {
    fn integer(&self, column: &'static str) -> Result<Option<i64>, WrongType> {
        self.try_get(column).map_err(|_| WrongType)
    }

    fn text(&self, column: &'static str) -> Result<Option<String>, WrongType> {
        self.try_get(column).map_err(|_| WrongType)
    }

    fn bits(&self, column: &'static str) -> Result<Option<u128>, WrongType> {
        let bits: Option<Bits> = self.try_get(column).map_err(|_| WrongType)?;
        Ok(bits.map(|bits| bits.0))
    }

    fn flag(&self, column: &'static str) -> Result<bool, WrongType> {
        self.try_get(column).map_err(|_| WrongType)
    }
}
