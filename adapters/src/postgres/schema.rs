//! The tables, and how a database gets them.

use tokio_postgres::{Client, Transaction};

use super::{PostgresError, text};

/// What brings a database from each version of the schema to the next. Replicas of the version before go on working
/// on the newer schema: a migration adds, and what it makes superfluous goes with a later one.
const MIGRATIONS: [&str; 2] = [V1, V2];

/// Whoever brings the schema up to date holds this lock.
const MIGRATING: i64 = 0x4b57_6d69; // "KWmi"

/// Times are milliseconds since the epoch. A lease is counted by the database's clock.
const V1: &str = "
CREATE TABLE locks (
    id bigint PRIMARY KEY,
    revision bigint NOT NULL,
    shadow_version bigint,
    state text NOT NULL
);

CREATE TABLE events (
    lock bigint NOT NULL,
    version bigint NOT NULL,
    write_id uuid,
    type text NOT NULL,
    data text NOT NULL,
    PRIMARY KEY (lock, version)
);

CREATE TABLE writes (
    id uuid PRIMARY KEY,
    lock bigint NOT NULL,
    uuid text NOT NULL,
    thing text NOT NULL,
    key_uuid text NOT NULL,
    key_index bigint,
    seq bigint NOT NULL,
    requested_by text NOT NULL,
    prepared_at bigint NOT NULL,
    expires_at bigint NOT NULL,
    requested_version bigint,
    requested_at bigint,
    state text NOT NULL,
    ended_at bigint,
    late boolean NOT NULL,
    reason text,
    device_code text,
    owner uuid,
    epoch bigint,
    lease bigint,
    lease_until bigint,
    attention bigint
);

CREATE TABLE kept_answers (
    lock bigint NOT NULL,
    principal text NOT NULL,
    idempotency_key text NOT NULL,
    key_uuid text NOT NULL,
    key_index bigint,
    write_id uuid NOT NULL,
    without_event bigint,
    answered_by bigint NOT NULL,
    until bigint NOT NULL,
    PRIMARY KEY (lock, principal, idempotency_key)
);

CREATE TABLE api_keys (
    sha256 bytea PRIMARY KEY,
    number bigint GENERATED ALWAYS AS IDENTITY,
    shown text NOT NULL,
    organization text,
    expires_at bigint,
    last_used bigint
);
COMMENT ON COLUMN api_keys.organization IS 'NULL: every organization';

CREATE INDEX writes_of_a_lock ON writes (lock)
    WHERE lease_until IS NOT NULL OR attention IS NOT NULL;
CREATE UNIQUE INDEX one_intent_a_lock ON writes (lock) WHERE lease_until IS NOT NULL;
CREATE INDEX writes_by_lease ON writes (lease_until, id) WHERE lease_until IS NOT NULL;
CREATE INDEX writes_by_attention ON writes (attention, id) WHERE attention IS NOT NULL;
CREATE INDEX writes_by_end ON writes (ended_at) WHERE lease_until IS NULL AND attention IS NULL;
CREATE INDEX kept_answers_by_end ON kept_answers (until);
";

/// What was odd about the lock's answers to a write: names separated by commas. The slot that it named, where that is another
/// one than was asked for.
const V2: &str = "
ALTER TABLE writes ADD COLUMN anomalies text;
ALTER TABLE writes ADD COLUMN reported_index bigint;
";

/// Makes the tables where there are none, and brings older ones up to date. One process at a time does it.
///
/// # Errors
/// The database does not answer, or what it holds is not ours or newer.
pub(super) async fn migrate(client: &mut Client) -> Result<(), PostgresError> {
    let transaction = client.transaction().await.map_err(PostgresError::of)?;
    // It takes as long as it takes, and so may that of another process.
    let setup =
        format!("SET LOCAL statement_timeout = 0; SELECT pg_advisory_xact_lock({MIGRATING})");
    transaction
        .batch_execute(&setup)
        .await
        .map_err(PostgresError::of)?;
    let applied = applied(&transaction).await?;
    let newest = MIGRATIONS.len();
    let known = usize::try_from(applied).ok();
    let Some(missing) = known.and_then(|applied| MIGRATIONS.get(applied..)) else {
        return Err(PostgresError::Unfit(format!(
            "its schema is version {applied}, and this program knows 1 to {newest}; a newer program has used it"
        )));
    };
    for (migration, version) in missing.iter().zip(applied + 1..) {
        tracing::info!(version, "bringing the database's schema up to date");
        transaction
            .batch_execute(migration)
            .await
            .map_err(PostgresError::of)?;
        transaction
            .execute("INSERT INTO keywright_schema VALUES ($1)", &[&version])
            .await
            .map_err(PostgresError::of)?;
    }
    transaction.commit().await.map_err(PostgresError::of)
}

/// The version of the schema; 0: there are no tables of ours yet.
async fn applied(transaction: &Transaction<'_>) -> Result<i32, PostgresError> {
    let row = transaction
        .query_one(
            "SELECT to_regclass('keywright_schema') IS NOT NULL AS ours,
             coalesce(to_regclass('locks'), to_regclass('events'), to_regclass('writes'), to_regclass('api_keys'))::text AS other",
            &[],
        )
        .await
        .map_err(PostgresError::of)?;
    if row.get("ours") {
        let newest = "SELECT coalesce(max(version), 0) FROM keywright_schema";
        let newest = transaction.query_one(newest, &[]).await;
        return Ok(newest.map_err(PostgresError::of)?.get(0));
    }
    if let Some(table) = text(&row, "other") {
        return Err(PostgresError::Unfit(format!(
            "its table {table} belongs to another program; give Keywright a database of its own"
        )));
    }
    transaction
        .batch_execute("CREATE TABLE keywright_schema (version int PRIMARY KEY)")
        .await
        .map_err(PostgresError::of)?;
    Ok(0)
}
