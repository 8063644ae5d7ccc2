-- The tables of the peers. A competent first version: one row for each lock, write and event.
CREATE TABLE locks (
  id INTEGER PRIMARY KEY,
  uuid TEXT NOT NULL,
  owner TEXT NOT NULL,
  organization TEXT NOT NULL,
  capacity INTEGER NOT NULL,
  version INTEGER NOT NULL
);
CREATE TABLE writes (
  id TEXT PRIMARY KEY,
  lock INTEGER NOT NULL REFERENCES locks (id),
  key_uuid TEXT NOT NULL,
  key_index INTEGER,
  state TEXT NOT NULL,
  requested_by TEXT NOT NULL,
  requested_at INTEGER NOT NULL,
  expires_at INTEGER NOT NULL,
  version INTEGER
) WITHOUT ROWID;
CREATE TABLE events (
  lock INTEGER NOT NULL REFERENCES locks (id),
  version INTEGER NOT NULL,
  type TEXT NOT NULL,
  time INTEGER NOT NULL,
  data TEXT NOT NULL,
  PRIMARY KEY (lock, version)
) WITHOUT ROWID;
