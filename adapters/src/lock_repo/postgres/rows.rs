//! The statements, and what they bind and read.

use keywright_domain::event::RecordedEvent;
use keywright_domain::ports::RepoError;
use keywright_domain::values::WriteId;
use keywright_domain::write::Write;
use serde::{Serialize, Serializer};
use tokio_postgres::Row;
use tokio_postgres::types::private::BytesMut;
use tokio_postgres::types::{FromSql, IsNull, ToSql, Type, to_sql_checked};

use crate::json;
use crate::lock_repo::columns::{self, Bits, WriteColumns, WrongType, integer};

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
            "attention"
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

/// The lock, once for each live write; one statement sees one revision.
pub(super) const LOAD: &str = concat!(
    "SELECT l.revision, l.shadow_version, l.state AS fold, ",
    write_columns!("w."),
    "
FROM locks l LEFT JOIN writes w
  ON w.lock = l.id AND (w.lease_until IS NOT NULL OR w.attention IS NOT NULL)
  AND w.state IN ('PREPARED', 'SENT', 'IN_PROGRESS', 'SUCCEEDED', 'FAILED')
WHERE l.id = $1 ORDER BY w.seq"
);

/// Nothing is appended or put unless the lock's row has moved. Who waits for that row sees it as it is afterwards.
pub(super) const SAVE: &str = concat!(
    "
WITH moved AS (
  UPDATE locks SET revision = revision + 1, shadow_version = coalesce($3, shadow_version), state = coalesce($4, state)
  WHERE id = $1 AND revision = $2 RETURNING id
), appended AS (
  INSERT INTO events (lock, version, write_id, type, data)
  SELECT moved.id, e.version, e.write_id, e.type, e.data
  FROM moved, unnest($5::bigint[], $6::uuid[], $7::text[], $8::text[]) AS e (version, write_id, type, data)
), put AS (
  INSERT INTO writes (",
    write_columns!(""),
    ")
  SELECT w.id, w.lock, w.uuid, w.thing, w.key_uuid, w.key_index, w.seq, w.requested_by, w.prepared_at, w.expires_at,
    w.requested_version, w.requested_at, w.state, w.ended_at, w.late, w.reason, w.device_code, w.owner, w.epoch,
    w.lease, ",
    now!(),
    " + w.lease, w.attention
  FROM moved, json_populate_recordset(NULL::writes, $9) AS w
  ON CONFLICT (id) DO UPDATE SET
    requested_version = excluded.requested_version, requested_at = excluded.requested_at, state = excluded.state,
    ended_at = excluded.ended_at, late = excluded.late, reason = excluded.reason,
    device_code = excluded.device_code, owner = excluded.owner, epoch = excluded.epoch, lease = excluded.lease,
    lease_until = excluded.lease_until, attention = excluded.attention
), kept AS (
  INSERT INTO kept_answers (lock, principal, idempotency_key, key_uuid, key_index, write_id, without_event, answered_by,
    until)
  SELECT moved.id, $10::text, $11::text, $12::text, $13::bigint, $14::uuid, $15::bigint, $16::bigint,
    $17::bigint
  FROM moved WHERE $11::text IS NOT NULL
  ON CONFLICT (lock, principal, idempotency_key) DO UPDATE SET
    key_uuid = excluded.key_uuid, key_index = excluded.key_index, write_id = excluded.write_id,
    without_event = excluded.without_event, answered_by = excluded.answered_by, until = excluded.until
)
SELECT count(*) FROM moved"
);

/// Deletes at most `$3` of each, and none that another replica is at. An answer that is kept anew meanwhile has another end, and stays.
pub(super) const FORGET: &str = "
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

/// Takes the longest overdue intent that nobody else is at. Both rows are locked, and neither is waited for; a
/// save takes the lock's row first.
pub(super) const CLAIM: &str = concat!(
    "
WITH overdue AS (
  SELECT w.id FROM writes w JOIN locks l ON l.id = w.lock
  WHERE w.lease_until <= ",
    now!(),
    " ORDER BY w.lease_until, w.id LIMIT 1
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
    pub(super) fn of(events: &[RecordedEvent]) -> Result<Self, RepoError> {
        let mut columns = Self::default();
        for event in events {
            columns.push(event)?;
        }
        Ok(columns)
    }

    pub(super) fn push(&mut self, event: &RecordedEvent) -> Result<(), RepoError> {
        self.versions.push(integer(event.version.0)?);
        self.writes.push(event.write.map(|id| Bits(id.as_u128())));
        self.types.push(event.event.name());
        self.data.push(json::text(&json::EventData(event)));
        Ok(())
    }
}

/// Writes as one parameter: a JSON array of rows.
pub(super) fn writes_json(writes: &[Write]) -> Result<Json, RepoError> {
    let rows: Result<Vec<WriteColumns<'_>>, _> = writes.iter().map(WriteColumns::of).collect();
    let text = serde_json::to_string(&rows?);
    text.map(Json)
        .map_err(|e| RepoError::Unavailable(e.to_string()))
}

/// A text that goes as `json`.
#[derive(Debug)]
pub(super) struct Json(String);

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
