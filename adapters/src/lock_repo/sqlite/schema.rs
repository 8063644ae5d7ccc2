//! The schema and its migrations.

use keywright_sqlite::FileFormat;

/// The format of the file. It is not exclusive, because readers have connections of their own.
pub(super) const FORMAT: FileFormat = FileFormat {
    description: "a store of locks",
    application_id: 0x4b57_6c6b, // "KWlk"
    migrations: &[V1, V2, V3, V4, V5, V6, V7],
    exclusive: false,
    cache_kib: 2000,
};

/// `log`: saved changes that the other tables may not have yet, as JSON; see [`log_entry`](super::log_entry). A row has the changes of a
/// transaction, and `position` is that of the first one. `log_writer`: the process that has written last. `events` are in the order of
/// their positions, so that new ones are next to each other. A running server of an earlier version must not save without the log:
/// its saves fail because `saves` is renamed.
const V7: &str = "
CREATE TABLE log (position INTEGER PRIMARY KEY, entries TEXT NOT NULL) STRICT;
CREATE TABLE log_writer (process BLOB NOT NULL) STRICT;
INSERT INTO log_writer VALUES (x'');

ALTER TABLE events RENAME TO events_by_lock;
CREATE TABLE events (
    position INTEGER PRIMARY KEY,
    lock INTEGER NOT NULL,
    version INTEGER NOT NULL,
    write_id BLOB,
    type TEXT NOT NULL,
    data TEXT NOT NULL,
    cause TEXT
) STRICT;
INSERT INTO events SELECT position, lock, version, write_id, type, data, cause
    FROM event_positions CROSS JOIN events_by_lock USING (lock, version) ORDER BY position;
DROP TABLE events_by_lock;
DROP TABLE event_positions;
CREATE UNIQUE INDEX events_of_a_lock ON events (lock, version);

ALTER TABLE locks RENAME COLUMN saves TO applied_revision;
";

/// Who asked for an event, and the id of the request. Events of earlier versions have none.
const V6: &str = "
ALTER TABLE events ADD COLUMN cause TEXT;
ALTER TABLE writes ADD COLUMN request_id TEXT;
";

/// The order of all events. A trigger adds new events, so that those of a running server of an earlier version have positions, too.
/// Transactions that write follow one another, so positions are in the order of commits.
const V5: &str = "
CREATE TABLE event_positions (
    position INTEGER PRIMARY KEY,
    lock INTEGER NOT NULL,
    version INTEGER NOT NULL
) STRICT;

INSERT INTO event_positions (lock, version) SELECT lock, version FROM events ORDER BY lock, version;

CREATE TRIGGER event_gets_position AFTER INSERT ON events BEGIN
    INSERT INTO event_positions (lock, version) VALUES (new.lock, new.version);
END;
";

/// `anomalies`: their names, separated by commas. `reported_index`: the key index that the lock reported, if it is not the
/// requested one.
const V4: &str = "
ALTER TABLE writes ADD COLUMN anomalies TEXT;
ALTER TABLE writes ADD COLUMN reported_index INTEGER;
";

/// `live`: the ids of a lock's live writes, 16 bytes each in the order of their `seq`. With them, saving a write does not
/// change an index by locks, whose entries are on separate pages. A running server of an earlier version must not save without
/// updating `live`: its saves fail because `revision` is renamed.
const V3: &str = "
ALTER TABLE locks ADD COLUMN live BLOB NOT NULL DEFAULT x'';
ALTER TABLE locks RENAME COLUMN revision TO saves;

UPDATE locks SET live = found.live FROM (
    SELECT lock, unhex(group_concat(hex(id), '' ORDER BY seq)) AS live FROM writes
    WHERE lease_until IS NOT NULL
    OR attention IS NOT NULL AND state IN ('SENT', 'IN_PROGRESS', 'SUCCEEDED', 'FAILED')
    GROUP BY lock
) AS found WHERE found.lock = locks.id;

DROP INDEX writes_of_a_lock;
";

/// Idempotency records, and an index of ended writes by age.
const V2: &str = "
CREATE TABLE kept_answers (
    lock INTEGER NOT NULL,
    principal TEXT NOT NULL,
    idempotency_key TEXT NOT NULL,
    key_uuid TEXT NOT NULL,
    key_index INTEGER,
    write_id BLOB NOT NULL,
    without_event INTEGER,
    answered_by INTEGER NOT NULL,
    until INTEGER NOT NULL,
    PRIMARY KEY (lock, principal, idempotency_key)
) STRICT, WITHOUT ROWID;

CREATE INDEX kept_answers_by_end ON kept_answers (until);
CREATE INDEX writes_by_end ON writes (ended_at) WHERE lease_until IS NULL AND attention IS NULL;
";

/// Times are milliseconds since the epoch; ids of writes and workers are 16 bytes. `attention` is the time of a write's next
/// check.
const V1: &str = "
CREATE TABLE locks (
    id INTEGER PRIMARY KEY,
    revision INTEGER NOT NULL,
    shadow_version INTEGER,
    state TEXT NOT NULL
) STRICT;

CREATE TABLE events (
    lock INTEGER NOT NULL,
    version INTEGER NOT NULL,
    write_id BLOB,
    type TEXT NOT NULL,
    data TEXT NOT NULL,
    PRIMARY KEY (lock, version)
) STRICT, WITHOUT ROWID;

CREATE TABLE writes (
    id BLOB PRIMARY KEY,
    lock INTEGER NOT NULL,
    uuid TEXT NOT NULL,
    thing TEXT NOT NULL,
    key_uuid TEXT NOT NULL,
    key_index INTEGER,
    seq INTEGER NOT NULL,
    requested_by TEXT NOT NULL,
    prepared_at INTEGER NOT NULL,
    expires_at INTEGER NOT NULL,
    requested_version INTEGER,
    requested_at INTEGER,
    state TEXT NOT NULL,
    ended_at INTEGER,
    late INTEGER NOT NULL,
    reason TEXT,
    device_code TEXT,
    owner BLOB,
    epoch INTEGER,
    lease INTEGER,
    lease_until INTEGER,
    attention INTEGER
) STRICT, WITHOUT ROWID;

CREATE INDEX writes_of_a_lock ON writes (lock)
    WHERE lease_until IS NOT NULL OR attention IS NOT NULL;
CREATE INDEX writes_by_lease ON writes (lease_until, id) WHERE lease_until IS NOT NULL;
CREATE INDEX writes_by_attention ON writes (attention, id) WHERE attention IS NOT NULL;
";
