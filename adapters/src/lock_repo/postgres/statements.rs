//! The SQL statements.

use std::sync::LazyLock;

use crate::lock_repo::row_mapping::WRITE_COLUMNS;

/// The time by the database's clock, in milliseconds since the epoch.
const NOW: &str = "floor(extract(epoch FROM clock_timestamp()) * 1000)::bigint";

/// The columns of a write, each with a prefix. They are listed because a newer version of this program may add columns while
/// this one runs, and a prepared statement with `*` would then fail.
fn write_columns(prefix: &str) -> String {
    let columns = WRITE_COLUMNS.map(|column| format!("{prefix}{column}"));
    columns.join(", ")
}

/// A write by its id.
pub(super) static WRITE: LazyLock<String> =
    LazyLock::new(|| format!("SELECT {} FROM writes WHERE id = $1", write_columns("")));

/// A page of all writes.
pub(super) static WRITES: LazyLock<String> = LazyLock::new(|| {
    format!(
        "SELECT {} FROM writes WHERE id < $1 ORDER BY id DESC LIMIT $2",
        write_columns("")
    )
});

/// The newest writes.
pub(super) static NEWEST_WRITES: LazyLock<String> = LazyLock::new(|| {
    format!(
        "SELECT {} FROM writes ORDER BY id DESC LIMIT $1",
        write_columns("")
    )
});

/// A page of the due writes.
pub(super) static DUE: LazyLock<String> = LazyLock::new(|| {
    format!(
        "SELECT {} FROM writes WHERE attention <= $1 AND (attention, id) > ($2, $3) ORDER BY attention, id LIMIT $4",
        write_columns("")
    )
});

/// Locks with their live writes: one row for each live write of a lock, or one without a write. A statement sees one revision.
pub(super) static LOAD: LazyLock<String> = LazyLock::new(|| {
    format!(
        "
SELECT l.id AS of_lock, l.revision, l.shadow_version, l.state AS lock_state, {}
FROM locks l LEFT JOIN writes w
  ON w.lock = l.id AND (w.lease_until IS NOT NULL OR w.attention IS NOT NULL)
  AND w.state IN ('PREPARED', 'SENT', 'IN_PROGRESS', 'SUCCEEDED', 'FAILED')
WHERE l.id = ANY ($1) ORDER BY l.id, w.seq",
        write_columns("w.")
    )
});

/// Saves of one lock each. A save whose lock has another revision changes nothing. Returns the locks whose saves were applied.
fn save(locked: &str) -> String {
    let columns = write_columns("");
    let values = write_columns("w.").replace("w.lease_until", &format!("{NOW} + w.lease"));
    format!(
        "
WITH asked AS (
  SELECT l.id, s.shadow_version, s.state
  FROM unnest($1::bigint[], $2::bigint[], $3::bigint[], $4::text[]) AS s (lock, revision, shadow_version, state)
  JOIN locks l ON l.id = s.lock AND l.revision = s.revision
  FOR UPDATE OF l {locked}
), moved AS (
  UPDATE locks SET revision = revision + 1, shadow_version = coalesce(asked.shadow_version, locks.shadow_version),
    state = coalesce(asked.state, locks.state)
  FROM asked WHERE locks.id = asked.id RETURNING locks.id
), appended AS (
  INSERT INTO events (lock, version, write_id, type, data, cause)
  SELECT e.lock, e.version, e.write_id, e.type, e.data, e.cause
  FROM unnest($5::bigint[], $6::bigint[], $7::uuid[], $8::text[], $9::text[], $10::text[])
    AS e (lock, version, write_id, type, data, cause)
  JOIN moved ON moved.id = e.lock
), put AS (
  INSERT INTO writes ({columns})
  SELECT {values}
  FROM json_populate_recordset(NULL::writes, $11) AS w JOIN moved ON moved.id = w.lock
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
  FROM json_populate_recordset(NULL::kept_answers, $12) AS k JOIN moved ON moved.id = k.lock
  ON CONFLICT (lock, principal, idempotency_key) DO UPDATE SET
    key_uuid = excluded.key_uuid, key_index = excluded.key_index, write_id = excluded.write_id,
    without_event = excluded.without_event, answered_by = excluded.answered_by, until = excluded.until
)
SELECT id FROM moved"
    )
}

/// One save. It waits until no other transaction holds the lock's row, and then reads the row's new content.
pub(super) static SAVE: LazyLock<String> = LazyLock::new(|| save(""));

/// Saves of several locks. Locks whose rows another transaction holds are skipped, so that the other saves do not wait, and no
/// two statements wait for each other.
pub(super) static SAVE_BATCH: LazyLock<String> = LazyLock::new(|| save("SKIP LOCKED"));

/// Deletes at most `$3` idempotency records and at most `$3` writes, and skips rows that another replica holds. A record that is
/// replaced at the same time has a new expiry and is not deleted.
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

/// The open intents, ordered by the time of their last save or claim.
pub(super) const OPEN_INTENTS: &str =
    "SELECT id, owner, epoch, lease FROM writes WHERE lease_until IS NOT NULL
  ORDER BY lease_until, id LIMIT $1";

/// Takes over an intent, unless another transaction holds its rows or another process has taken it over. It locks both rows and
/// waits for neither, because a save locks the lock's row first. `lease_until` is for replicas of earlier versions, which
/// compare it with the database's clock.
pub(super) static CLAIM: LazyLock<String> = LazyLock::new(|| {
    format!(
        "
WITH overdue AS (
  SELECT w.id FROM writes w JOIN locks l ON l.id = w.lock
  WHERE w.id = $3 AND w.owner = $4 AND w.epoch = $5 AND w.lease_until IS NOT NULL
  FOR UPDATE OF l, w SKIP LOCKED
), taken AS (
  UPDATE writes SET owner = $1, epoch = epoch + 1, lease = $2, lease_until = {NOW} + $2
  FROM overdue WHERE writes.id = overdue.id RETURNING {}
), moved AS (
  UPDATE locks SET revision = revision + 1 FROM taken WHERE locks.id = taken.lock
)
SELECT * FROM taken",
        write_columns("writes.")
    )
});

/// Counts unfinished writes: one row with `intents`, `open` and `unconfirmed`. A write in `SENT` counts as unconfirmed if it was
/// requested outside `$1` to `$2`.
pub(super) const BACKLOG: &str = "
SELECT count(*) FILTER (WHERE lease_until IS NOT NULL) AS intents,
  count(*) FILTER (WHERE state IN ('SENT', 'IN_PROGRESS')) AS open,
  count(*) FILTER (WHERE state = 'SENT' AND requested_at NOT BETWEEN $1 AND $2) AS unconfirmed
FROM writes WHERE lease_until IS NOT NULL OR attention IS NOT NULL";
