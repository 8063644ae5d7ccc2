//! The store on PostgreSQL, compared with two statements that write the same rows, over the same driver and the same number of
//! connections. The database runs on core 0.

use std::sync::Arc;
use std::time::Duration;

use keywright_adapters::lock_repo::PostgresLockRepo;
use keywright_adapters::postgres::{PostgresPool, PostgresSettings};
use keywright_adapters::time::TokioTimer;
use keywright_testkit::postgres_server::PostgresServer;
use tokio::sync::Mutex;
use tokio_postgres::{Client, NoTls, Statement};

use super::workload::{EVENT_DATA, LOCKS, add_locks, writes_per_second};
use crate::concurrent::{medians, per_second};
use crate::programs::move_to_server_core;
use crate::table::{Row, Target};

const WRITES: u64 = 6_000;

/// The store's default.
const CONNECTIONS: u64 = 16;

const TIMEOUT: Duration = Duration::from_secs(5);

/// Inserts a prepared write.
const PREPARE: &str = "
WITH moved AS (UPDATE locks SET revision = revision + 1 WHERE id = $2 RETURNING id)
INSERT INTO writes SELECT $1, id, 'uuid', 'thing', 'key', 0, 1, 'alice', 1, 2, NULL, NULL, 'PREPARED', NULL, false, NULL,
  NULL, $1, 1, 15000, (extract(epoch FROM clock_timestamp()) * 1000)::bigint + 15000, NULL FROM moved";

/// Commits it with its event.
const COMMIT: &str = "
WITH moved AS (UPDATE locks SET revision = revision + 1, state = $4 WHERE id = $2 RETURNING id),
appended AS (INSERT INTO events SELECT id, $3, $1, 'KeyWriteRequested', $5 FROM moved)
UPDATE writes SET state = 'SENT', owner = NULL, epoch = NULL, lease = NULL, lease_until = NULL, attention = 60000,
  requested_version = $3, requested_at = 1 WHERE id = $1";

struct Connection {
    client: Client,
    prepare: Statement,
    commit: Statement,
}

async fn connect(url: &str) -> Connection {
    use tokio_postgres::types::Type;
    let (client, connection) = tokio_postgres::connect(url, NoTls).await.expect("a client");
    tokio::spawn(connection);
    let types = [Type::BYTEA, Type::INT8, Type::INT8, Type::TEXT, Type::TEXT];
    let cast = |sql: &str| sql.replace("$1", "encode($1, 'hex')::uuid");
    let (prepare, commit) = (cast(PREPARE), cast(COMMIT));
    let prepare = client.prepare_typed(&prepare, &types[..2]).await;
    let commit = client.prepare_typed(&commit, &types).await;
    Connection {
        client,
        prepare: prepare.expect("a statement"),
        commit: commit.expect("a statement"),
    }
}

async fn bare(url: &str) -> f64 {
    let first = connect(url).await;
    let row = first
        .client
        .query_one("SELECT state FROM locks WHERE id = 1", &[]);
    let state: Arc<str> = row.await.expect("a lock").get::<_, String>(0).into();
    let mut connections = vec![Arc::new(Mutex::new(first))];
    for _ in 1..CONNECTIONS {
        connections.push(Arc::new(Mutex::new(connect(url).await)));
    }
    let connections: Arc<[_]> = connections.into();
    per_second(WRITES, move |number| {
        let (connections, state) = (connections.clone(), state.clone());
        async move {
            // A connection is locked for one statement, as in the store.
            let index = usize::try_from(number % CONNECTIONS).expect("small");
            let id = (u128::from(number) + (1 << 64)).to_be_bytes();
            let number = i64::try_from(number).expect("small");
            let locks = i64::try_from(LOCKS).expect("small");
            let (lock, version) = (number % locks + 1, number / locks + 1_000);
            let connection = connections[index].lock().await;
            let prepared = connection
                .client
                .execute(&connection.prepare, &[&&id[..], &lock])
                .await;
            assert_eq!(prepared.ok(), Some(1));
            drop(connection);
            let connection = connections[index].lock().await;
            let parameters: [&(dyn tokio_postgres::types::ToSql + Sync); 5] =
                [&&id[..], &lock, &version, &&*state, &EVENT_DATA];
            let committed = connection
                .client
                .execute(&connection.commit, &parameters)
                .await;
            assert_eq!(committed.ok(), Some(1));
        }
    })
    .await
}

async fn run() -> (f64, f64) {
    let server = PostgresServer::start_durable();
    move_to_server_core(server.process_id());
    // Each uses its own database.
    let (with_store, without_store) = (server.database(), server.database());
    let mut repos = Vec::new();
    for url in [&with_store, &without_store] {
        let settings = PostgresSettings::new(url).expect("a URL");
        let database = PostgresPool::connect(&settings, TIMEOUT).await;
        let repo = PostgresLockRepo::new(
            database.expect("a database"),
            Arc::new(TokioTimer::default()),
        );
        add_locks(&repo).await;
        repos.push(repo);
    }
    let own = writes_per_second(repos.swap_remove(0), WRITES).await;
    (own, bare(&without_store).await)
}

pub(crate) async fn row() -> Row {
    let (own, alone) = medians(run).await;
    Row {
        what: "`LockRepo` on PostgreSQL: load, prepare and commit, 64 at once".into(),
        measured: format!("{own:.0} a second"),
        reference: format!("two bare transactions of the same rows: {alone:.0}"),
        figure: own / alone,
        target: Target::AtLeast(0.80),
    }
}
