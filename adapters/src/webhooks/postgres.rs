//! Webhooks in a PostgreSQL database that several replicas share.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use keywright_domain::model::{
    DeliveryOutcome, DeliveryRecord, ProgressSave, WaitingLock, Webhook, WebhookId, WebhookOwner,
    WebhookProgress, WorkerId,
};
use keywright_domain::ports::{RepoError, WebhookStore};
use tokio_postgres::Row;
use tokio_postgres::types::FromSql;
use uuid::Uuid;

use super::row::{
    COLUMNS, UnreadableRows, WEBHOOKS, WebhookRow, integer, owner_text, progress_text, read_record,
    read_waiting, record_text, waiting_columns,
};
use super::secret_cipher::SecretCipher;
use crate::postgres::PostgresPool;

/// How many times an insert looks for a free number of its owner.
const INSERT_TRIES: usize = 3;

/// The time by the clock of the database, in milliseconds. Leases are measured by it, so that no clock of a replica counts.
const NOW: &str = "(extract(epoch FROM clock_timestamp()) * 1000)::bigint";

/// Stores webhooks in a database, with encrypted secrets. Replicas share them.
#[derive(Clone)]
pub struct PostgresWebhookStore {
    pool: PostgresPool,
    cipher: Arc<SecretCipher>,
    unreadable: UnreadableRows,
}

impl PostgresWebhookStore {
    /// The webhooks in this database.
    pub fn new(pool: PostgresPool, cipher: SecretCipher) -> Self {
        Self {
            pool,
            cipher: Arc::new(cipher),
            unreadable: UnreadableRows::default(),
        }
    }

    fn read_all(&self, rows: &[Row]) -> Result<Vec<Webhook>, RepoError> {
        let rows = rows.iter().map(webhook_row);
        self.unreadable.read_others(rows, &self.cipher)
    }
}

fn uuid(id: WebhookId) -> Uuid {
    Uuid::from_u128(id.as_u128())
}

fn get<'a, T: FromSql<'a>>(row: &'a Row, column: &'static str) -> Result<T, RepoError> {
    row.try_get(column).map_err(|_| RepoError::Corrupt {
        table: WEBHOOKS,
        column,
        key: row
            .try_get("id")
            .map(|id: Uuid| id.to_string())
            .unwrap_or_default(),
    })
}

fn webhook_row(row: &Row) -> Result<WebhookRow, RepoError> {
    let id: Uuid = get(row, "id")?;
    Ok(WebhookRow {
        id: id.as_u128(),
        owner: get(row, "owner")?,
        revision: get(row, "revision")?,
        content: get(row, "content")?,
        secrets: get(row, "secrets")?,
        progress: get(row, "progress")?,
        disabled_at: get(row, "disabled_at")?,
        disabled_reason: get(row, "disabled_reason")?,
    })
}

#[async_trait]
impl WebhookStore for PostgresWebhookStore {
    async fn insert(&self, webhook: &Webhook, max: usize) -> Result<bool, RepoError> {
        let row = WebhookRow::of(webhook, &self.cipher);
        let last = i32::try_from(max).unwrap_or(i32::MAX) - 1;
        // Each webhook of an owner has a number below the maximum, so that concurrent inserts cannot exceed it.
        let sql = "INSERT INTO webhooks (id, owner, number, revision, content, secrets, progress, disabled_at, disabled_reason)
            SELECT $1::uuid, $2::text, free.number, $3::bigint, $4::text, $5::bytea, $6::text, $7::bigint, $8::text
            FROM (SELECT number FROM generate_series(0, $9::int) AS number
                WHERE NOT EXISTS (SELECT FROM webhooks AS w WHERE w.owner = $2 AND w.number = number.number)
                ORDER BY number LIMIT 1) AS free
            ON CONFLICT (owner, number) DO NOTHING
            RETURNING id";
        for _ in 0..INSERT_TRIES {
            let inserted = self
                .pool
                .change(
                    sql,
                    &[
                        &Uuid::from_u128(row.id),
                        &row.owner,
                        &row.revision,
                        &row.content,
                        &row.secrets,
                        &row.progress,
                        &row.disabled_at,
                        &row.disabled_reason,
                        &last,
                    ],
                )
                .await;
            if !inserted?.is_empty() {
                return Ok(true);
            }
        }
        Ok(false)
    }

    async fn get(&self, id: WebhookId) -> Result<Option<Webhook>, RepoError> {
        let sql = format!("SELECT {COLUMNS} FROM webhooks WHERE id = $1");
        let rows = self.pool.read(&sql, &[&uuid(id)]).await?;
        Ok(self.read_all(&rows)?.pop())
    }

    async fn list(&self, owner: Option<&WebhookOwner>) -> Result<Vec<Webhook>, RepoError> {
        let owner = owner.map(owner_text);
        let sql = format!(
            "SELECT {COLUMNS} FROM webhooks WHERE $1::text IS NULL OR owner = $1 ORDER BY id"
        );
        let rows = self.pool.read(&sql, &[&owner]).await?;
        self.read_all(&rows)
    }

    async fn update(
        &self,
        webhook: &Webhook,
        progress: Option<WebhookProgress>,
    ) -> Result<(), RepoError> {
        let row = WebhookRow::of(webhook, &self.cipher);
        let progress = progress.as_ref().map(progress_text);
        let sql = "WITH updated AS (
                UPDATE webhooks SET revision = $2::bigint + 1, content = $3, secrets = $4,
                    progress = coalesce($5::text, progress), disabled_at = $6, disabled_reason = $7
                WHERE id = $1 AND revision = $2 RETURNING id
            ), due AS (
                UPDATE webhook_waiting SET due = 0 FROM updated
                WHERE webhook = updated.id AND $5::text IS NOT NULL
            )
            SELECT id FROM updated";
        let updated = self
            .pool
            .change(
                sql,
                &[
                    &Uuid::from_u128(row.id),
                    &row.revision,
                    &row.content,
                    &row.secrets,
                    &progress,
                    &row.disabled_at,
                    &row.disabled_reason,
                ],
            )
            .await;
        stale_if_empty(&updated?)
    }

    async fn remove(&self, id: WebhookId) -> Result<bool, RepoError> {
        // The other tables refer to this one.
        let sql = "DELETE FROM webhooks WHERE id = $1 RETURNING id";
        let removed = self.pool.change(sql, &[&uuid(id)]).await?;
        Ok(!removed.is_empty())
    }

    async fn claim(&self, worker: WorkerId, lease: Duration) -> Result<Vec<Webhook>, RepoError> {
        let worker = Uuid::from_u128(worker.0);
        let lease = i64::try_from(lease.as_millis()).unwrap_or(i64::MAX);
        // A lease is renewed when half of it has passed, so that most claims change no row.
        let renew = format!(
            "UPDATE webhooks SET worker = $1, lease_until = {NOW} + $2::bigint
            WHERE disabled_at IS NULL AND (lease_until IS NULL OR lease_until <= {NOW}
                OR worker = $1 AND lease_until <= {NOW} + $2::bigint / 2)"
        );
        self.pool.change(&renew, &[&worker, &lease]).await?;
        let held = format!(
            "SELECT {COLUMNS} FROM webhooks
            WHERE disabled_at IS NULL AND worker = $1 AND lease_until > {NOW} ORDER BY id"
        );
        let rows = self.pool.read(&held, &[&worker]).await?;
        self.read_all(&rows)
    }

    async fn release(&self, worker: WorkerId) -> Result<(), RepoError> {
        let worker = Uuid::from_u128(worker.0);
        let sql = "UPDATE webhooks SET worker = NULL, lease_until = NULL WHERE worker = $1";
        self.pool.change(sql, &[&worker]).await.map(drop)
    }

    async fn waiting(&self, id: WebhookId) -> Result<Vec<WaitingLock>, RepoError> {
        let sql = "SELECT lock, next, through, attempts, due FROM webhook_waiting
            WHERE webhook = $1 ORDER BY lock";
        let rows = self.pool.read(sql, &[&uuid(id)]).await?;
        let read = rows.iter().map(|row| {
            let columns = ["lock", "next", "through", "attempts", "due"];
            let mut values = [0; 5];
            for (value, column) in values.iter_mut().zip(columns) {
                *value = get(row, column)?;
            }
            read_waiting(id, values)
        });
        read.collect()
    }

    async fn save_progress(&self, save: ProgressSave) -> Result<(), RepoError> {
        let sql = "WITH held AS (
                UPDATE webhooks SET progress = $4, disabled_at = coalesce($5::bigint, disabled_at),
                    disabled_reason = coalesce($6::text, disabled_reason),
                    revision = revision + CASE WHEN $5::bigint IS NULL THEN 0 ELSE 1 END
                WHERE id = $1 AND worker = $2 AND revision = $3 RETURNING id
            ), put AS (
                INSERT INTO webhook_waiting SELECT held.id, w.* FROM held,
                    unnest($7::bigint[], $8::bigint[], $9::bigint[], $10::bigint[], $11::bigint[]) AS w
                ON CONFLICT (webhook, lock) DO UPDATE SET next = excluded.next, through = excluded.through,
                    attempts = excluded.attempts, due = excluded.due
            ), removed AS (
                DELETE FROM webhook_waiting USING held WHERE webhook = held.id AND lock = ANY($12::bigint[])
            ), recorded AS (
                INSERT INTO webhook_records (webhook, outcome, content)
                SELECT held.id, r.outcome, r.content FROM held,
                    unnest($13::text[], $14::text[]) WITH ORDINALITY AS r (outcome, content, n) ORDER BY r.n
            )
            SELECT id FROM held";
        let columns: Vec<[i64; 5]> = save.put.iter().map(waiting_columns).collect();
        let column = |n: usize| columns.iter().map(|row| row[n]).collect::<Vec<i64>>();
        let remove: Vec<i64> = save.remove.iter().map(|lock| integer(lock.get())).collect();
        let outcomes: Vec<&str> = save.records.iter().map(|r| r.outcome.name()).collect();
        let contents: Vec<String> = save.records.iter().map(record_text).collect();
        let saved = self
            .pool
            .change(
                sql,
                &[
                    &uuid(save.webhook),
                    &Uuid::from_u128(save.worker.0),
                    &integer(save.revision.0),
                    &progress_text(&save.progress),
                    &save.disable.map(|(_, at)| integer(at.as_millis())),
                    &save.disable.map(|(reason, _)| reason.name()),
                    &column(0),
                    &column(1),
                    &column(2),
                    &column(3),
                    &column(4),
                    &remove,
                    &outcomes,
                    &contents,
                ],
            )
            .await;
        stale_if_empty(&saved?)?;
        if save.records.is_empty() {
            return Ok(());
        }
        let sql = "DELETE FROM webhook_records WHERE number IN (
                SELECT number FROM (
                    SELECT number, row_number() OVER (PARTITION BY outcome = 'delivered' ORDER BY number DESC) AS age
                    FROM webhook_records WHERE webhook = $1
                ) AS aged WHERE age > $2::bigint)";
        let kept = integer(DeliveryRecord::KEPT);
        let dropped = self.pool.change(sql, &[&uuid(save.webhook), &kept]).await;
        dropped.map(drop)
    }

    async fn records(
        &self,
        id: WebhookId,
        outcome: Option<DeliveryOutcome>,
        before: Option<u64>,
        limit: usize,
    ) -> Result<Vec<DeliveryRecord>, RepoError> {
        let sql = "SELECT number, content FROM webhook_records
            WHERE webhook = $1 AND number < $2 AND ($3::text IS NULL OR outcome = $3)
            ORDER BY number DESC LIMIT $4";
        let outcome = outcome.map(DeliveryOutcome::name);
        let before = before.map_or(i64::MAX, integer);
        let limit = i64::try_from(limit).unwrap_or(i64::MAX);
        let rows = self
            .pool
            .read(sql, &[&uuid(id), &before, &outcome, &limit])
            .await?;
        let read = rows.iter().map(|row| {
            let content: String = get(row, "content")?;
            read_record(get(row, "number")?, &content)
        });
        read.collect()
    }
}

fn stale_if_empty(rows: &[Row]) -> Result<(), RepoError> {
    match rows.is_empty() {
        true => Err(RepoError::Stale),
        false => Ok(()),
    }
}
