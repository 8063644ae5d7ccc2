//! The PostgreSQL store: the contract of the port, and the databases that it accepts.
#![cfg(all(feature = "auth", feature = "postgres"))]

mod databases;

use std::sync::Arc;
use std::time::Duration;

use keywright_adapters::lock_repo::PostgresLockRepo;
use keywright_adapters::postgres::{PostgresError, PostgresPool, PostgresSettings};
use keywright_domain::model::{
    LockSnapshot, LockVersion, Position, Save, ShadowVersion, WorkerId, Write, WriteId,
};
use keywright_domain::policy;
use keywright_domain::policy::Limits;
use keywright_domain::ports::{ImportError, LockHistory, LockRepo, RepoError};
use keywright_testkit::ManualTimer;
use keywright_testkit::lock_repo::{ClockFuture, StoreFixture};
use keywright_testkit::postgres_server::{PgBouncer, PostgresServer};
use keywright_testkit::samples::{LEASE, NOW, created, lock_id, prepared, slot};
use keywright_testkit::tcp_proxy::{Forwarding, TcpProxy};

/// The timeout of a statement.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(10);

struct Fresh {
    server: Arc<PostgresServer>,
    url: String,
    /// Measures leases.
    timer: ManualTimer,
}

impl Fresh {
    async fn new(server: Arc<PostgresServer>) -> Self {
        let maker = server.clone();
        let url = tokio::task::spawn_blocking(move || maker.database()).await;
        let url = url.expect("a database");
        Self {
            server,
            url,
            timer: ManualTimer::default(),
        }
    }

    async fn shared() -> Self {
        let server = tokio::task::spawn_blocking(PostgresServer::shared).await;
        Self::new(server.expect("a server")).await
    }

    fn name(&self) -> &str {
        self.url.rsplit('/').next().unwrap_or_default()
    }

    fn psql(&self, statements: &str) -> String {
        self.server.psql(self.name(), statements).expect("executed")
    }

    async fn open(&self) -> PostgresLockRepo {
        self.try_open().await.expect("a store")
    }

    async fn try_open(&self) -> Result<PostgresLockRepo, PostgresError> {
        open_with(&self.url, self.timer.clone()).await
    }

    async fn refusal(&self) -> String {
        let refused = self.try_open().await.err().expect("refused");
        assert!(matches!(refused, PostgresError::Unfit(_)), "{refused:?}");
        refused.to_string()
    }
}

async fn open_at(url: &str) -> Result<PostgresLockRepo, PostgresError> {
    open_with(url, ManualTimer::default()).await
}

async fn open_with(url: &str, timer: ManualTimer) -> Result<PostgresLockRepo, PostgresError> {
    let settings = PostgresSettings::new(url).expect("a URL");
    let database = PostgresPool::connect(&settings, ANSWER_TIMEOUT).await?;
    Ok(PostgresLockRepo::new(database, Arc::new(timer)))
}

/// The tests cannot set the database's clock. They move the stored times instead.
async fn fixture() -> StoreFixture {
    let database = Arc::new(Fresh::shared().await);
    let (repo, timer) = (Arc::new(database.open().await), database.timer.clone());
    let reopened = database.clone();
    let reopen = move |_| {
        let database = reopened.clone();
        async move { Arc::new(database.open().await) }
    };
    let set_wall_clock = move |millis: i64| -> ClockFuture {
        let database = database.clone();
        let moved = format!("UPDATE writes SET lease_until = lease_until - ({millis})");
        let moving = tokio::task::spawn_blocking(move || database.psql(&moved));
        Box::pin(async move { drop(moving.await.expect("moved")) })
    };
    let advance = move |span| timer.advance(span);
    StoreFixture::new(repo, advance, reopen).with_wall_clock(set_wall_clock)
}

mod contract {
    keywright_testkit::lock_repo_cases!(super::fixture);
}

async fn load(repo: &PostgresLockRepo) -> LockSnapshot {
    let known = repo.load(lock_id(1)).await.expect("the store answers");
    known.expect("the lock exists")
}

/// A lock with a sent write and a prepared one.
async fn fill(repo: &PostgresLockRepo) -> Write {
    repo.import(vec![created(lock_id(1))])
        .await
        .expect("imported");
    let (first, save) = prepared(&load(repo).await, 10, slot("k", Some(2)));
    repo.save(save).await.expect("prepared");
    let (snapshot, limits) = (load(repo).await, Limits::default());
    let (sent, save) = policy::commit(&snapshot, &first, ShadowVersion(5), &[], &limits, NOW);
    repo.save(save).await.expect("committed");
    let (_, save) = prepared(&load(repo).await, 11, slot("other", None));
    repo.save(save).await.expect("prepared");
    sent
}

#[tokio::test(flavor = "multi_thread")]
async fn replicas_that_start_concurrently_share_one_store() {
    let database = Arc::new(Fresh::shared().await);
    let mut starting = Vec::new();
    for _ in 0..8 {
        let database = database.clone();
        starting.push(tokio::spawn(async move { database.open().await }));
    }
    let mut replicas = Vec::new();
    for replica in starting {
        replicas.push(replica.await.expect("it starts"));
    }
    let sent = fill(&replicas[0]).await;
    for replica in &replicas {
        assert_eq!(replica.write(sent.id).await, Ok(Some(sent.clone())));
    }
}

/// Each replica measures a lease from its own first read, so a replica that has just started does not claim early.
#[tokio::test(flavor = "multi_thread")]
async fn each_replica_measures_a_lease_from_its_first_read() {
    let database = Fresh::shared().await;
    let (early, early_timer) = (database.open().await, database.timer.clone());
    let settings = PostgresSettings::new(&database.url).expect("a URL");
    let connected = PostgresPool::connect(&settings, ANSWER_TIMEOUT).await;
    let late_timer = ManualTimer::default();
    let late = PostgresLockRepo::new(
        connected.expect("the database"),
        Arc::new(late_timer.clone()),
    );
    fill(&early).await;
    assert_eq!(early.claim(WorkerId(8), LEASE).await, Ok(None));
    early_timer.advance(LEASE);
    late_timer.advance(LEASE);
    let first_claim = late.claim(WorkerId(9), LEASE).await;
    assert_eq!(first_claim, Ok(None), "it has not measured a whole lease");
    let claimed = early.claim(WorkerId(8), LEASE).await.expect("it answers");
    let claimed = claimed.expect("the lease has ended").id;
    late_timer.advance(LEASE);
    let second_claim = late.claim(WorkerId(9), LEASE).await;
    assert_eq!(second_claim, Ok(None), "another worker has it now");
    late_timer.advance(LEASE);
    let claimed_late = late.claim(WorkerId(9), LEASE).await.expect("it answers");
    assert_eq!(claimed_late.map(|write| write.id), Some(claimed));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_database_rejects_a_second_intent_of_a_lock() {
    let database = Fresh::shared().await;
    let repo = database.open().await;
    fill(&repo).await;
    let snapshot = load(&repo).await;
    let unaware = LockSnapshot {
        unfinished: Vec::new(),
        ..snapshot.clone()
    };
    let (_, save) = prepared(&unaware, 12, slot("k", None));
    let saved = repo.save(save).await;
    assert!(matches!(saved, Err(RepoError::Unavailable(_))), "{saved:?}");
    assert_eq!(load(&repo).await, snapshot);
}

/// The first intent of a lock.
async fn first_save(repo: &PostgresLockRepo, lock: u64, write: u128) -> Save {
    let known = repo.load(lock_id(lock)).await.expect("the store answers");
    prepared(&known.expect("the lock exists"), write, slot("k", None)).1
}

async fn with_locks(repo: &PostgresLockRepo, locks: u64) {
    with_locks_from(repo, 1, locks).await;
}

async fn with_locks_from(repo: &PostgresLockRepo, first: u64, last: u64) {
    let events = (first..=last).map(|lock| Ok::<_, ImportError>(created(lock_id(lock))));
    repo.import_all(events).await.expect("imported");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_invalid_save_does_not_fail_others_of_its_batch() {
    let database = Fresh::shared().await;
    let repo = database.open().await;
    with_locks(&repo, 100).await;
    // This save does not know of an intent of lock 50.
    let first = first_save(&repo, 50, 1).await;
    let invalid = Save {
        revision: first.revision.next(),
        ..first_save(&repo, 50, 2).await
    };
    repo.save(first).await.expect("prepared");
    let mut saves = Vec::new();
    for lock in 1..=100 {
        saves.push(match lock {
            50 => invalid.clone(),
            _ => first_save(&repo, lock, 100 + u128::from(lock)).await,
        });
    }
    let mut saving = tokio::task::JoinSet::new();
    for save in saves {
        let repo = repo.clone();
        saving.spawn(async move { (save.lock.get(), repo.save(save).await) });
    }
    for (lock, saved) in saving.join_all().await {
        match lock {
            50 => assert!(matches!(saved, Err(RepoError::Unavailable(_))), "{saved:?}"),
            _ => assert_eq!(saved, Ok(()), "lock {lock}"),
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn locked_rows_do_not_delay_saves_of_other_locks() {
    let database = Fresh::shared().await;
    let repo = database.open().await;
    with_locks(&repo, 100).await;
    let connected = tokio_postgres::connect(&database.url, tokio_postgres::NoTls).await;
    let (other, connection) = connected.expect("connected");
    let connection = tokio::spawn(connection);
    let hold = "BEGIN; SELECT FROM locks WHERE id <= 50 FOR UPDATE";
    other.batch_execute(hold).await.expect("held");
    let mut waiting = tokio::task::JoinSet::new();
    for lock in 1..=8 {
        let save = first_save(&repo, lock, u128::from(lock)).await;
        let repo = repo.clone();
        waiting.spawn(async move { repo.save(save).await });
    }
    for lock in 51..=100 {
        let save = first_save(&repo, lock, u128::from(lock)).await;
        assert_eq!(repo.save(save).await, Ok(()), "lock {lock}");
    }
    assert!(waiting.try_join_next().is_none(), "they wait");
    other.batch_execute("COMMIT").await.expect("released");
    assert!(waiting.join_all().await.iter().all(Result::is_ok));
    drop(other);
    connection.await.expect("no panic").expect("closed");
}

/// An index that a killed process has left incomplete is built again, by one of several replicas that start at once.
#[tokio::test(flavor = "multi_thread")]
async fn incomplete_indexes_are_built_again() {
    let database = Fresh::shared().await;
    drop(database.open().await);
    database.psql(
        "UPDATE pg_index SET indisvalid = false WHERE indexrelid = 'events_by_position'::regclass;
         DROP INDEX events_without_position",
    );
    let replicas = tokio::join!(database.open(), database.open(), database.open());
    let names = "'events_by_position'::regclass, 'events_without_position'::regclass";
    let valid =
        format!("SELECT count(*) FROM pg_index WHERE indexrelid IN ({names}) AND indisvalid");
    assert_eq!(database.psql(&valid), "2");
    with_locks(&replicas.0, 2).await;
    let log = replicas.1.events_after(Position::START, 9).await;
    assert_eq!(log.expect("read").len(), 2);
    let held = database.psql(
        "SELECT count(*) FROM pg_locks JOIN pg_database d ON d.oid = pg_locks.database
         WHERE locktype = 'advisory' AND datname = current_database()",
    );
    assert_eq!(held, "0", "the lock is released");
}

/// A transaction that began before others commits after them, and a reader is past them already.
#[tokio::test(flavor = "multi_thread")]
async fn an_event_of_a_long_transaction_appears_behind_no_reader() {
    let database = Fresh::shared().await;
    let repo = database.open().await;
    with_locks(&repo, 2).await;
    let connected = tokio_postgres::connect(&database.url, tokio_postgres::NoTls).await;
    let (long, connection) = connected.expect("connected");
    tokio::spawn(connection);
    let insert = "BEGIN; INSERT INTO events (lock, version, write_id, type, data)
        SELECT lock, 2, write_id, type, data FROM events WHERE lock = 1";
    long.batch_execute(insert).await.expect("inserted");
    with_locks_from(&repo, 3, 5).await;
    let read = async |after| {
        let page = repo.events_after(after, 100).await.expect("read");
        let last = page.last().map_or(after, |logged| logged.position);
        let events = page.iter().map(|l| (l.event.lock.get(), l.event.version.0));
        (events.collect::<Vec<_>>(), last)
    };
    let (events, last) = read(Position::START).await;
    assert_eq!(events, [(1, 1), (2, 1), (3, 1), (4, 1), (5, 1)]);
    long.batch_execute("COMMIT").await.expect("committed");
    with_locks_from(&repo, 6, 6).await;
    assert_eq!(read(last).await.0, [(1, 2), (6, 1)]);
}

/// The results of a hundred concurrent saves, of which that of lock 50 is stale.
async fn save_a_hundred(repo: &PostgresLockRepo) -> Vec<(u64, Result<(), RepoError>)> {
    with_locks(repo, 100).await;
    let mut saves = Vec::new();
    for lock in 1..=100 {
        saves.push(first_save(repo, lock, u128::from(lock)).await);
    }
    saves[49].revision = saves[49].revision.next();
    let mut saving = tokio::task::JoinSet::new();
    for save in saves {
        let repo = repo.clone();
        saving.spawn(async move { (save.lock.get(), repo.save(save).await) });
    }
    saving.join_all().await
}

#[tokio::test]
async fn concurrent_saves_share_a_statement() {
    let database = Fresh::shared().await;
    let saved = save_a_hundred(&database.open().await).await;
    for (lock, saved) in saved {
        let expected = if lock == 50 {
            Err(RepoError::Stale)
        } else {
            Ok(())
        };
        assert_eq!(saved, expected, "lock {lock}");
    }
    // On one thread, all saves are queued before the first is sent: 64 in one transaction and the others in a second one.
    let transactions = database.psql("SELECT count(DISTINCT xmin::text) FROM writes");
    assert_eq!(transactions.trim(), "2");
}

#[tokio::test]
async fn all_saves_of_a_batch_are_unknown_if_its_connection_breaks() {
    let database = Arc::new(Fresh::shared().await);
    let repo = database.open().await;
    database.psql(
        "CREATE FUNCTION slow() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN PERFORM pg_sleep(60); RETURN NEW; END';
         CREATE TRIGGER slow BEFORE INSERT ON writes FOR EACH ROW EXECUTE FUNCTION slow()",
    );
    let breaking = tokio::task::spawn_blocking(move || {
        let terminate = "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity
            WHERE datname = current_database() AND wait_event = 'PgSleep'";
        let mut broken = 0;
        while broken < 2 {
            broken += database
                .psql(terminate)
                .trim()
                .parse::<u32>()
                .expect("a number");
        }
    });
    let saved = save_a_hundred(&repo).await;
    breaking.await.expect("both were broken");
    let unknown =
        |saved: &&(u64, Result<(), RepoError>)| matches!(saved.1, Err(RepoError::Unknown(_)));
    assert_eq!(saved.iter().filter(unknown).count(), 100, "{saved:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_failed_import_changes_nothing_and_closes_its_connection() {
    let database = Fresh::shared().await;
    let repo = database.open().await;
    for _ in 0..20 {
        let mut gap = created(lock_id(2));
        gap.version = LockVersion(3);
        let imported = repo.import(vec![created(lock_id(1)), gap]).await;
        assert!(matches!(imported, Err(ImportError::NotAStream { .. })));
    }
    assert_eq!(repo.load(lock_id(1)).await, Ok(None));
    fill(&repo).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn imports_more_events_than_fit_in_a_statement() {
    let database = Fresh::shared().await;
    let repo = database.open().await;
    let events = (1..=2500).map(|lock| Ok::<_, ImportError>(created(lock_id(lock))));
    repo.import_all(events).await.expect("imported");
    let last = repo.locks(Some(lock_id(2499)), 9).await.expect("locks");
    assert_eq!(last.len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_invalid_row_is_an_error_with_table_column_and_key() {
    let database = Fresh::shared().await;
    let repo = database.open().await;
    fill(&repo).await;
    let corrupt = |table, column, key: &str| {
        Err(RepoError::Corrupt {
            table,
            column,
            key: key.to_owned(),
        })
    };
    database.psql("UPDATE writes SET state = 'LOST'");
    let id = WriteId::from_u128(10);
    assert_eq!(
        repo.write(id).await,
        corrupt("writes", "state", &id.to_string())
    );
    database.psql("UPDATE locks SET state = '{}'");
    let loaded = repo.load(lock_id(1)).await.map(|_| None);
    assert_eq!(loaded, corrupt("locks", "state", "1"));
}

/// Two processes read the keys before either writes: the second write does not restore a key that the first one revoked.
#[tokio::test(flavor = "multi_thread")]
async fn a_revoked_api_key_stays_revoked() {
    use keywright_adapters::auth::{ApiKey, PostgresApiKeys};
    use keywright_domain::model::{Identity, OrganizationId, Timestamp, UserId};

    let fresh = Fresh::shared().await;
    let settings = PostgresSettings::new(&fresh.url).expect("a URL");
    let database = PostgresPool::connect(&settings, ANSWER_TIMEOUT).await;
    let keys = PostgresApiKeys::new(database.expect("the database"));
    let of = |name: &str| Identity::Organization(OrganizationId::new(name).expect("an id"));
    let acme = ApiKey::generate().record(of("acme"), None);
    keys.put(std::slice::from_ref(&acme)).await.expect("put");

    let mut first = keys.read().await.expect("read");
    let mut second = keys.read().await.expect("read");
    first[0].expires_at = Some(Timestamp::from_millis(0));
    keys.put(&first).await.expect("revoked");
    second.push(ApiKey::generate().record(of("beta"), Some(NOW)));
    keys.put(&second).await.expect("issued");
    let stored = keys.read().await.expect("read");
    assert_eq!(stored, [first[0].clone(), second[1].clone()]);

    let user = Identity::User(UserId::new("alice").expect("a user"));
    let of_user = ApiKey::generate().record(user, None);
    keys.put(&[of_user]).await.expect("skipped");
    assert_eq!(keys.read().await.expect("read").len(), 2);

    let used = [(acme.sha256, NOW)].into();
    keys.note_used(&used).await.expect("recorded");
    let earlier = [(acme.sha256, Timestamp::from_millis(1))].into();
    keys.note_used(&earlier).await.expect("recorded");
    assert_eq!(keys.last_used().await, Ok(used));
}
