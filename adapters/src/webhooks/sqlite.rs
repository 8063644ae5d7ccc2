//! Webhooks in a SQLite file of their own.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use keywright_domain::model::{
    DeliveryOutcome, DeliveryRecord, ProgressSave, WaitingLock, Webhook, WebhookId, WebhookOwner,
    WebhookProgress, WorkerId,
};
use keywright_domain::ports::{RepoError, Timer, WebhookStore};
use keywright_sqlite::{CommitError, FileFormat, GroupCommit, OpenError};
use rusqlite::{Row, Transaction, params};

use super::process_leases::ProcessLeases;
use super::row::{
    COLUMNS, UnreadableRows, WebhookRow, integer, owner_text, progress_text, read_record,
    read_waiting, record_text, waiting_columns,
};
use super::secret_cipher::SecretCipher;

const FORMAT: FileFormat = FileFormat {
    description: "a store of webhooks",
    application_id: 0x4b57_7768, // "KWwh"
    migrations: &[V1],
    exclusive: false,
    cache_kib: 512,
};

/// Ids are 16 bytes, so that their order is that of their texts. Times are milliseconds since the epoch.
const V1: &str = "
CREATE TABLE webhooks (
    id BLOB PRIMARY KEY,
    owner TEXT NOT NULL,
    revision INTEGER NOT NULL,
    content TEXT NOT NULL,
    secrets BLOB NOT NULL,
    progress TEXT NOT NULL,
    disabled_at INTEGER,
    disabled_reason TEXT
) STRICT, WITHOUT ROWID;

CREATE INDEX webhooks_by_owner ON webhooks (owner);

CREATE TABLE webhook_waiting (
    webhook BLOB NOT NULL,
    lock INTEGER NOT NULL,
    next INTEGER NOT NULL,
    through INTEGER NOT NULL,
    attempts INTEGER NOT NULL,
    due INTEGER NOT NULL,
    PRIMARY KEY (webhook, lock)
) STRICT, WITHOUT ROWID;

CREATE TABLE webhook_records (
    number INTEGER PRIMARY KEY AUTOINCREMENT,
    webhook BLOB NOT NULL,
    outcome TEXT NOT NULL,
    content TEXT NOT NULL
) STRICT;

CREATE INDEX webhook_records_by_webhook ON webhook_records (webhook, number);
";

/// Stores webhooks in a file, with encrypted secrets. Only one process delivers from it. Clones share it.
#[derive(Clone)]
pub struct SqliteWebhookStore {
    writer: GroupCommit,
    cipher: Arc<SecretCipher>,
    leases: ProcessLeases,
    unreadable: UnreadableRows,
}

impl SqliteWebhookStore {
    /// Opens or creates the file. `timer` measures leases, which end with the process.
    ///
    /// # Errors
    /// The file is corrupt, belongs to another program, or has a newer schema.
    pub fn open(
        path: &Path,
        cipher: SecretCipher,
        timer: Arc<dyn Timer>,
    ) -> Result<Self, OpenError> {
        let conn = FORMAT.open(path)?;
        let writer =
            GroupCommit::start("webhooks", conn).map_err(|e| FORMAT.open_error(path, e))?;
        Ok(Self {
            writer,
            cipher: Arc::new(cipher),
            leases: ProcessLeases::new(timer),
            unreadable: UnreadableRows::default(),
        })
    }

    /// Waits until a commit has failed, after which the store cannot be written, and returns why.
    pub async fn ended(&self) -> String {
        self.writer.ended().await
    }

    async fn run<T, F>(&self, job: F) -> Result<T, RepoError>
    where
        T: Send + 'static,
        F: FnOnce(&Transaction<'_>) -> Result<T, RepoError> + Send + 'static,
    {
        self.writer.run(job).await.map_err(|error| match error {
            CommitError::NotApplied(why) => RepoError::Unavailable(why),
            CommitError::Unknown(why) => RepoError::Unknown(why),
        })?
    }

    /// The webhooks that a condition selects, in the order of their ids.
    async fn select(
        &self,
        condition: &'static str,
        value: Vec<u8>,
    ) -> Result<Vec<WebhookRow>, RepoError> {
        let sql = format!("SELECT {COLUMNS} FROM webhooks WHERE {condition} ORDER BY id");
        self.run(move |transaction| {
            let mut statement = transaction.prepare_cached(&sql).map_err(unavailable)?;
            let rows = statement.query_map(params![value], webhook_row);
            let rows = rows.map_err(unavailable)?;
            rows.map(|row| row.map_err(unavailable)).collect()
        })
        .await
    }
}

fn unavailable(error: rusqlite::Error) -> RepoError {
    RepoError::Unavailable(error.to_string())
}

fn blob(id: WebhookId) -> Vec<u8> {
    id.as_u128().to_be_bytes().to_vec()
}

fn webhook_row(row: &Row<'_>) -> rusqlite::Result<WebhookRow> {
    let id: [u8; 16] = row.get(0)?;
    Ok(WebhookRow {
        id: u128::from_be_bytes(id),
        owner: row.get(1)?,
        revision: row.get(2)?,
        content: row.get(3)?,
        secrets: row.get(4)?,
        progress: row.get(5)?,
        disabled_at: row.get(6)?,
        disabled_reason: row.get(7)?,
    })
}

#[async_trait]
impl WebhookStore for SqliteWebhookStore {
    async fn insert(&self, webhook: &Webhook, max: usize) -> Result<bool, RepoError> {
        let row = WebhookRow::of(webhook, &self.cipher);
        let max = i64::try_from(max).unwrap_or(i64::MAX);
        self.run(move |transaction| {
            let sql = "INSERT INTO webhooks
                SELECT ?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8
                WHERE (SELECT count(*) FROM webhooks WHERE owner = ?2) < ?9";
            let inserted = transaction.execute(
                sql,
                params![
                    row.id.to_be_bytes().to_vec(),
                    row.owner,
                    row.revision,
                    row.content,
                    row.secrets,
                    row.progress,
                    row.disabled_at,
                    row.disabled_reason,
                    max
                ],
            );
            inserted.map(|count| count > 0).map_err(unavailable)
        })
        .await
    }

    async fn get(&self, id: WebhookId) -> Result<Option<Webhook>, RepoError> {
        let mut found = self.select("id = ?1", blob(id)).await?;
        let row = found.pop();
        row.map(|row| row.read(&self.cipher)).transpose()
    }

    async fn list(&self, owner: Option<&WebhookOwner>) -> Result<Vec<Webhook>, RepoError> {
        let rows = match owner {
            Some(owner) => {
                let owner = owner_text(owner).into_bytes();
                self.select("owner = CAST(?1 AS TEXT)", owner).await?
            }
            None => self.select("?1 IS NOT NULL", Vec::new()).await?,
        };
        let rows = rows.into_iter().map(Ok);
        self.unreadable.read_others(rows, &self.cipher)
    }

    async fn update(
        &self,
        webhook: &Webhook,
        progress: Option<WebhookProgress>,
    ) -> Result<(), RepoError> {
        let row = WebhookRow::of(webhook, &self.cipher);
        let progress = progress.as_ref().map(progress_text);
        self.run(move |transaction| {
            let sql = "UPDATE webhooks SET revision = ?2 + 1, content = ?3, secrets = ?4,
                    progress = coalesce(?5, progress), disabled_at = ?6, disabled_reason = ?7
                WHERE id = ?1 AND revision = ?2";
            let id = row.id.to_be_bytes().to_vec();
            let updated = transaction.execute(
                sql,
                params![
                    id,
                    row.revision,
                    row.content,
                    row.secrets,
                    progress,
                    row.disabled_at,
                    row.disabled_reason
                ],
            );
            if updated.map_err(unavailable)? == 0 {
                return Err(RepoError::Stale);
            }
            if progress.is_some() {
                let due = "UPDATE webhook_waiting SET due = 0 WHERE webhook = ?1";
                transaction.execute(due, params![id]).map_err(unavailable)?;
            }
            Ok(())
        })
        .await
    }

    async fn remove(&self, id: WebhookId) -> Result<bool, RepoError> {
        let id = blob(id);
        self.run(move |transaction| {
            let delete = |sql| transaction.execute(sql, params![id]).map_err(unavailable);
            delete("DELETE FROM webhook_waiting WHERE webhook = ?1")?;
            delete("DELETE FROM webhook_records WHERE webhook = ?1")?;
            Ok(delete("DELETE FROM webhooks WHERE id = ?1")? > 0)
        })
        .await
    }

    async fn claim(&self, worker: WorkerId, lease: Duration) -> Result<Vec<Webhook>, RepoError> {
        let condition = "disabled_at IS NULL AND ?1 IS NOT NULL";
        let rows = self.select(condition, Vec::new()).await?;
        let rows = rows.into_iter().map(Ok);
        let mut webhooks = self.unreadable.read_others(rows, &self.cipher)?;
        webhooks.retain(|webhook| self.leases.claim(webhook.id, worker, lease));
        Ok(webhooks)
    }

    async fn release(&self, worker: WorkerId) -> Result<(), RepoError> {
        self.leases.release(worker);
        Ok(())
    }

    async fn waiting(&self, id: WebhookId) -> Result<Vec<WaitingLock>, RepoError> {
        let webhook = blob(id);
        self.run(move |transaction| {
            let sql = "SELECT lock, next, through, attempts, due FROM webhook_waiting
                WHERE webhook = ?1 ORDER BY lock";
            let mut statement = transaction.prepare_cached(sql).map_err(unavailable)?;
            let rows = statement.query_map(params![webhook], |row| {
                Ok([
                    row.get(0)?,
                    row.get(1)?,
                    row.get(2)?,
                    row.get(3)?,
                    row.get(4)?,
                ])
            });
            let rows = rows.map_err(unavailable)?;
            rows.map(|columns| read_waiting(id, columns.map_err(unavailable)?))
                .collect()
        })
        .await
    }

    async fn save_progress(&self, save: ProgressSave) -> Result<(), RepoError> {
        if !self.leases.holds(save.webhook, save.worker) {
            return Err(RepoError::Stale);
        }
        self.run(move |transaction| apply(transaction, &save)).await
    }

    async fn records(
        &self,
        id: WebhookId,
        outcome: Option<DeliveryOutcome>,
        before: Option<u64>,
        limit: usize,
    ) -> Result<Vec<DeliveryRecord>, RepoError> {
        let outcome = outcome.map(DeliveryOutcome::name);
        let before = before.map_or(i64::MAX, integer);
        let limit = i64::try_from(limit).unwrap_or(i64::MAX);
        self.run(move |transaction| {
            let sql = "SELECT number, content FROM webhook_records
                WHERE webhook = ?1 AND number < ?2 AND (?3 IS NULL OR outcome = ?3)
                ORDER BY number DESC LIMIT ?4";
            let mut statement = transaction.prepare_cached(sql).map_err(unavailable)?;
            let rows = statement.query_map(params![blob(id), before, outcome, limit], |row| {
                Ok((row.get::<_, i64>(0)?, row.get::<_, String>(1)?))
            });
            let rows = rows.map_err(unavailable)?;
            rows.map(|row| {
                let (number, content) = row.map_err(unavailable)?;
                read_record(number, &content)
            })
            .collect()
        })
        .await
    }
}

fn apply(transaction: &Transaction<'_>, save: &ProgressSave) -> Result<(), RepoError> {
    let id = blob(save.webhook);
    let disabled_at = save.disable.map(|(_, at)| integer(at.as_millis()));
    let reason = save.disable.map(|(reason, _)| reason.name());
    let execute = |sql: &str, values: &[&dyn rusqlite::ToSql]| {
        let mut statement = transaction.prepare_cached(sql).map_err(unavailable)?;
        statement.execute(values).map_err(unavailable)
    };
    let sql = "UPDATE webhooks SET progress = ?3, disabled_at = coalesce(?4, disabled_at),
            disabled_reason = coalesce(?5, disabled_reason), revision = revision + (?4 IS NOT NULL)
        WHERE id = ?1 AND revision = ?2";
    let revision = integer(save.revision.0);
    let progress = progress_text(&save.progress);
    if execute(sql, &[&id, &revision, &progress, &disabled_at, &reason])? == 0 {
        return Err(RepoError::Stale);
    }
    for waiting in &save.put {
        let [lock, next, through, attempts, due] = waiting_columns(waiting);
        let sql = "INSERT OR REPLACE INTO webhook_waiting VALUES (?1, ?2, ?3, ?4, ?5, ?6)";
        execute(sql, &[&id, &lock, &next, &through, &attempts, &due])?;
    }
    for lock in &save.remove {
        let sql = "DELETE FROM webhook_waiting WHERE webhook = ?1 AND lock = ?2";
        execute(sql, &[&id, &integer(lock.get())])?;
    }
    for record in &save.records {
        let sql = "INSERT INTO webhook_records (webhook, outcome, content) VALUES (?1, ?2, ?3)";
        let outcome = record.outcome.name();
        execute(sql, &[&id, &outcome, &record_text(record)])?;
    }
    if save.records.is_empty() {
        return Ok(());
    }
    for is_delivered in [true, false] {
        let sql = "DELETE FROM webhook_records WHERE number IN (
            SELECT number FROM webhook_records WHERE webhook = ?1 AND (outcome = 'delivered') = ?2
            ORDER BY number DESC LIMIT -1 OFFSET ?3)";
        let kept = integer(DeliveryRecord::KEPT);
        execute(sql, &[&id, &is_delivered, &kept])?;
    }
    Ok(())
}
