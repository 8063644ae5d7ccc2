//! The tables and their migrations.

use std::time::Duration;

use tokio_postgres::{Client, Transaction};

use super::error::PostgresError;

/// The migrations from each version of the schema to the next. Replicas of the previous version keep working on the newer
/// schema: a migration only adds, and a later one drops what is no longer needed.
const MIGRATIONS: [&str; 5] = [V1, V2, V3, V4, V5];

/// The advisory lock that a migrating process holds.
const MIGRATION_LOCK: i64 = 0x4b57_6d69; // "KWmi"

/// Times are milliseconds since the epoch. `attention` is the time of a write's next check.
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

/// `anomalies`: their names, separated by commas. `reported_index`: the key index that the lock reported, if it is not the
/// requested one.
const V2: &str = "
ALTER TABLE writes ADD COLUMN anomalies text;
ALTER TABLE writes ADD COLUMN reported_index bigint;
";

/// The order of all events. `position` is set after the commit of an event, by a reading that comes to the end of the log.
const V3: &str = "
ALTER TABLE events ADD COLUMN position bigint;
";

/// Who asked for an event, and the id of the request. Events of earlier versions have none.
const V4: &str = "
ALTER TABLE events ADD COLUMN cause text;
ALTER TABLE writes ADD COLUMN request_id text;
";

/// Webhooks. `number` is below the maximum of an owner. `lease_until` is a time by the clock of the database.
const V5: &str = "
CREATE TABLE webhooks (
    id uuid PRIMARY KEY,
    owner text NOT NULL,
    number int NOT NULL,
    revision bigint NOT NULL,
    content text NOT NULL,
    secrets bytea NOT NULL,
    progress text NOT NULL,
    disabled_at bigint,
    disabled_reason text,
    worker uuid,
    lease_until bigint,
    UNIQUE (owner, number)
);

CREATE TABLE webhook_waiting (
    webhook uuid NOT NULL REFERENCES webhooks ON DELETE CASCADE,
    lock bigint NOT NULL,
    next bigint NOT NULL,
    through bigint NOT NULL,
    attempts bigint NOT NULL,
    due bigint NOT NULL,
    PRIMARY KEY (webhook, lock)
);

CREATE TABLE webhook_records (
    number bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    webhook uuid NOT NULL REFERENCES webhooks ON DELETE CASCADE,
    outcome text NOT NULL,
    content text NOT NULL
);

CREATE INDEX webhook_records_by_webhook ON webhook_records (webhook, number);
";

/// Indexes of tables that may be large, by their names. They are built beside the saves of other replicas, which a migration would stop.
const INDEXES: [(&str, &str); 2] = [
    (
        "events_by_position",
        "CREATE UNIQUE INDEX CONCURRENTLY events_by_position ON events (position) WHERE position IS NOT NULL",
    ),
    (
        "events_without_position",
        "CREATE INDEX CONCURRENTLY events_without_position ON events (lock, version) WHERE position IS NULL",
    ),
];

/// The advisory lock of the session that builds indexes.
const INDEX_LOCK: i64 = 0x4b57_6978; // "KWix"

/// How often a process looks whether another one has built the indexes.
const INDEX_POLL: Duration = Duration::from_millis(200);

/// Builds the indexes that are missing; one process at a time. It changes the session, which must be closed afterwards. Errors: the database
/// does not answer.
pub(super) async fn build_indexes(client: &Client) -> Result<(), PostgresError> {
    let lock = format!("SELECT pg_try_advisory_lock({INDEX_LOCK})");
    while !missing_indexes(client).await?.is_empty() {
        // To wait for the lock in the database would hold a snapshot, and building an index waits for all snapshots.
        if !client.query_one(&lock, &[]).await?.get::<_, bool>(0) {
            tokio::time::sleep(INDEX_POLL).await;
            continue;
        }
        client.batch_execute("SET statement_timeout = 0").await?;
        for (name, create) in missing_indexes(client).await? {
            tracing::info!(name, "building an index of the database");
            // What a process that was killed has left is invalid.
            let drop = format!("DROP INDEX IF EXISTS {name}");
            client.batch_execute(&drop).await?;
            client.batch_execute(create).await?;
        }
    }
    Ok(())
}

/// The indexes that do not exist or are not complete.
async fn missing_indexes(
    client: &Client,
) -> Result<Vec<(&'static str, &'static str)>, PostgresError> {
    let missing = "SELECT name FROM unnest($1::text[]) AS name
        WHERE NOT EXISTS (SELECT FROM pg_index WHERE indexrelid = to_regclass(name) AND indisvalid)";
    let names = INDEXES.map(|(name, _)| name).to_vec();
    let rows = client.query(missing, &[&names]).await?;
    let missing: Vec<String> = rows.iter().map(|row| row.get(0)).collect();
    let indexes = INDEXES.into_iter();
    Ok(indexes
        .filter(|(name, _)| missing.iter().any(|m| m == name))
        .collect())
}

/// Creates the tables or migrates them; one process at a time. Errors: the database does not answer, or its tables belong to
/// another program or a newer version.
pub(super) async fn migrate(client: &mut Client) -> Result<(), PostgresError> {
    let transaction = client.transaction().await?;
    // A migration, and waiting for that of another process, may take long.
    let setup =
        format!("SET LOCAL statement_timeout = 0; SELECT pg_advisory_xact_lock({MIGRATION_LOCK})");
    transaction.batch_execute(&setup).await?;
    let applied = applied_version(&transaction).await?;
    let newest = MIGRATIONS.len();
    let known = usize::try_from(applied).ok();
    let Some(missing) = known.and_then(|applied| MIGRATIONS.get(applied..)) else {
        return Err(PostgresError::Unfit(format!(
            "its schema is version {applied}, and this program knows 1 to {newest}; a newer program has used it"
        )));
    };
    for (migration, version) in missing.iter().zip(applied + 1..) {
        tracing::info!(version, "migrating the schema of the database");
        transaction.batch_execute(migration).await?;
        transaction
            .execute("INSERT INTO keywright_schema VALUES ($1)", &[&version])
            .await?;
    }
    Ok(transaction.commit().await?)
}

/// The version of the schema; 0: Keywright has no tables yet.
async fn applied_version(transaction: &Transaction<'_>) -> Result<i32, PostgresError> {
    let row = transaction
        .query_one(
            "SELECT to_regclass('keywright_schema') IS NOT NULL AS ours,
             coalesce(to_regclass('locks'), to_regclass('events'), to_regclass('writes'), to_regclass('api_keys'))::text AS other",
            &[],
        )
        .await?;
    if row.get("ours") {
        let newest = "SELECT coalesce(max(version), 0) FROM keywright_schema";
        let newest = transaction.query_one(newest, &[]).await;
        return Ok(newest?.get(0));
    }
    if let Some(table) = row.get::<_, Option<String>>("other") {
        return Err(PostgresError::Unfit(format!(
            "its table {table} belongs to another program; give Keywright a database of its own"
        )));
    }
    transaction
        .batch_execute("CREATE TABLE keywright_schema (version int PRIMARY KEY)")
        .await?;
    Ok(0)
}
