//! Events of the vendor on their way in.

use std::collections::BTreeMap;

use keywright_domain::model::{LockId, RecordedEvent};
use keywright_domain::ports::{ImportError, RepoError};
use tokio_postgres::Transaction;

use super::rows::EventColumns;
use crate::json;
use crate::lock_repo::columns::{LockRow, integer, optional, read_lock_id};
use crate::lock_repo::follow;
use crate::postgres::{PostgresPool, describe, failed};

/// Whoever imports holds this lock, so that two who bring the same lock do not meet.
const IMPORTING: i64 = 0x4b57_696d; // "KWim"

/// How many events go in one statement.
const BATCH: usize = 1000;

pub(super) async fn import_all<E>(
    database: &PostgresPool,
    mut events: impl Iterator<Item = Result<RecordedEvent, E>> + Send,
) -> Result<(), E>
where
    E: From<ImportError> + Send,
{
    let mut lent = database
        .connection()
        .await
        .map_err(|e| ImportError::Store(RepoError::Unavailable(e.to_string())))?;
    let transaction = lent.client().transaction().await.map_err(not_done)?;
    // It takes as long as it takes.
    let setup =
        format!("SET LOCAL statement_timeout = 0; SELECT pg_advisory_xact_lock({IMPORTING})");
    transaction.batch_execute(&setup).await.map_err(not_done)?;
    loop {
        let batch: Result<Vec<RecordedEvent>, E> = events.by_ref().take(BATCH).collect();
        let batch = batch?;
        let last = batch.len() < BATCH;
        take_in(&transaction, batch).await?;
        if last {
            break;
        }
    }
    let committed = transaction.commit().await;
    committed.map_err(|e| ImportError::Store(failed(&e, RepoError::Unknown)))?;
    lent.release();
    Ok(())
}

fn not_done(error: tokio_postgres::Error) -> ImportError {
    ImportError::Store(RepoError::Unavailable(describe(&error)))
}

async fn take_in(
    transaction: &Transaction<'_>,
    batch: Vec<RecordedEvent>,
) -> Result<(), ImportError> {
    let mut locks = known(transaction, &batch).await?;
    let (mut owners, mut columns) = (Vec::new(), EventColumns::default());
    for mut event in batch {
        let known = locks.remove(&event.lock);
        let row = follow(known, &mut event)?;
        owners.push(integer(event.lock.get())?);
        columns.push(&event)?;
        locks.insert(event.lock, row);
    }
    let append = "INSERT INTO events (lock, version, write_id, type, data)
        SELECT * FROM unnest($1::bigint[], $2::bigint[], $3::uuid[], $4::text[], $5::text[])";
    let EventColumns {
        versions,
        writes,
        types,
        data,
    } = columns;
    transaction
        .execute(append, &[&owners, &versions, &writes, &types, &data])
        .await
        .map_err(not_done)?;
    let (mut ids, mut revisions, mut shadows, mut states) = (vec![], vec![], vec![], vec![]);
    for row in locks.into_values() {
        ids.push(integer(row.lock.id.get())?);
        revisions.push(integer(row.revision.next().0)?);
        shadows.push(optional(row.shadow_version.map(|v| v.0))?);
        states.push(json::text(&json::LockState(&row.lock)));
    }
    let put = "INSERT INTO locks (id, revision, shadow_version, state)
        SELECT * FROM unnest($1::bigint[], $2::bigint[], $3::bigint[], $4::text[])
        ON CONFLICT (id) DO UPDATE SET revision = excluded.revision, state = excluded.state";
    let put = transaction
        .execute(put, &[&ids, &revisions, &shadows, &states])
        .await;
    put.map(drop).map_err(not_done)
}

/// The locks of these events, as far as there are any, held until the import is done.
async fn known(
    transaction: &Transaction<'_>,
    batch: &[RecordedEvent],
) -> Result<BTreeMap<LockId, LockRow>, ImportError> {
    let ids: Result<Vec<i64>, RepoError> = batch.iter().map(|e| integer(e.lock.get())).collect();
    let sql = "SELECT id, revision, shadow_version, state FROM locks WHERE id = ANY($1) ORDER BY id FOR UPDATE";
    let rows = transaction.query(sql, &[&ids?]).await.map_err(not_done)?;
    let mut locks = BTreeMap::new();
    for row in &rows {
        let id = read_lock_id(row)?;
        locks.insert(id, LockRow::read(id, row, "state")?);
    }
    Ok(locks)
}
