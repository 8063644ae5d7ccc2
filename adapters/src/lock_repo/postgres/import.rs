//! Import of the vendor's events.

use std::collections::BTreeMap;

use keywright_domain::model::{LockId, RecordedEvent};
use keywright_domain::ports::{ImportError, RepoError};
use tokio_postgres::Transaction;

use super::rows::EventColumns;
use crate::error_text::text_with_sources;
use crate::json;
use crate::lock_repo::lock_row::LockRow;
use crate::lock_repo::row_mapping::{read_lock_id, to_optional_sql_integer, to_sql_integer};
use crate::postgres::{PostgresPool, failed};

/// The key of the advisory lock that serializes imports: two imports that have locks in common could deadlock on their rows.
const IMPORT_LOCK: i64 = 0x4b57_696d; // "KWim"

/// The number of events in one statement.
const BATCH: usize = 1000;

pub(super) async fn import_all<E>(
    pool: &PostgresPool,
    mut events: impl Iterator<Item = Result<RecordedEvent, E>> + Send,
) -> Result<(), E>
where
    E: From<ImportError> + Send,
{
    let mut connection = pool
        .connection()
        .await
        .map_err(|e| ImportError::Store(RepoError::Unavailable(e.to_string())))?;
    let transaction = connection
        .client()
        .transaction()
        .await
        .map_err(not_applied)?;
    // An import may take longer than the pool's statement timeout.
    let setup =
        format!("SET LOCAL statement_timeout = 0; SELECT pg_advisory_xact_lock({IMPORT_LOCK})");
    transaction
        .batch_execute(&setup)
        .await
        .map_err(not_applied)?;
    loop {
        let batch: Result<Vec<RecordedEvent>, E> = events.by_ref().take(BATCH).collect();
        let batch = batch?;
        let is_last = batch.len() < BATCH;
        import_batch(&transaction, batch).await?;
        if is_last {
            break;
        }
    }
    let committed = transaction.commit().await;
    committed.map_err(|e| ImportError::Store(failed(&e, RepoError::Unknown)))?;
    connection.release();
    Ok(())
}

fn not_applied(error: tokio_postgres::Error) -> ImportError {
    ImportError::Store(RepoError::Unavailable(text_with_sources(&error)))
}

async fn import_batch(
    transaction: &Transaction<'_>,
    batch: Vec<RecordedEvent>,
) -> Result<(), ImportError> {
    let mut locks = lock_rows(transaction, &batch).await?;
    let (mut lock_ids, mut columns) = (Vec::new(), EventColumns::default());
    for mut event in batch {
        let known = locks.remove(&event.lock);
        let row = LockRow::import(known, &mut event)?;
        lock_ids.push(to_sql_integer(event.lock.get())?);
        columns.push(&event)?;
        locks.insert(event.lock, row);
    }
    let append = "INSERT INTO events (lock, version, write_id, type, data, cause)
        SELECT * FROM unnest($1::bigint[], $2::bigint[], $3::uuid[], $4::text[], $5::text[], $6::text[])";
    let EventColumns {
        versions,
        write_ids,
        types,
        data,
        causes,
    } = columns;
    transaction
        .execute(
            append,
            &[&lock_ids, &versions, &write_ids, &types, &data, &causes],
        )
        .await
        .map_err(not_applied)?;
    let (mut ids, mut revisions, mut shadow_versions, mut states) =
        (vec![], vec![], vec![], vec![]);
    for row in locks.into_values() {
        ids.push(to_sql_integer(row.lock.id.get())?);
        revisions.push(to_sql_integer(row.revision.next().0)?);
        shadow_versions.push(to_optional_sql_integer(row.shadow_version.map(|v| v.0))?);
        states.push(json::text(&json::LockState(&row.lock)));
    }
    let put = "INSERT INTO locks (id, revision, shadow_version, state)
        SELECT * FROM unnest($1::bigint[], $2::bigint[], $3::bigint[], $4::text[])
        ON CONFLICT (id) DO UPDATE SET revision = excluded.revision, state = excluded.state";
    let put = transaction
        .execute(put, &[&ids, &revisions, &shadow_versions, &states])
        .await;
    put.map(drop).map_err(not_applied)
}

/// Reads the rows of the locks that these events belong to, and holds row locks on them until the transaction ends. Locks without a
/// row are left out.
async fn lock_rows(
    transaction: &Transaction<'_>,
    batch: &[RecordedEvent],
) -> Result<BTreeMap<LockId, LockRow>, ImportError> {
    let ids: Result<Vec<i64>, RepoError> =
        batch.iter().map(|e| to_sql_integer(e.lock.get())).collect();
    let sql = "SELECT id, revision, shadow_version, state FROM locks WHERE id = ANY($1) ORDER BY id FOR UPDATE";
    let rows = transaction
        .query(sql, &[&ids?])
        .await
        .map_err(not_applied)?;
    let mut locks = BTreeMap::new();
    for row in &rows {
        let id = read_lock_id(row)?;
        locks.insert(id, LockRow::read(id, row, "state")?);
    }
    Ok(locks)
}
