//! The PostgreSQL store: the contract of the port, and the databases that it accepts.
#![cfg(all(feature = "auth", feature = "postgres"))]

use std::sync::Arc;
use std::time::Duration;

use keywright_adapters::lock_repo::PostgresLockRepo;
use keywright_adapters::postgres::{PostgresError, PostgresPool, PostgresSettings};
use keywright_domain::model::{
    LockSnapshot, LockVersion, Save, ShadowVersion, WorkerId, Write, WriteId,
};
use keywright_domain::policy;
use keywright_domain::policy::Limits;
use keywright_domain::ports::{ImportError, LockHistory, LockRepo, RepoError};
use keywright_testkit::lock_repo::{ClockFuture, StoreFixture};
use keywright_testkit::postgres_server::{PgBouncer, PostgresServer};
use keywright_testkit::samples::{LEASE, NOW, created, lock_id, prepared, slot};
use keywright_testkit::tcp_proxy::{Forwarding, TcpProxy};
use keywright_testkit::{ManualTimer, lock_repo_cases};

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
    let set_wall_clock = move |millis: i64| -> ClockFuture {
        let database = database.clone();
        let moved = format!("UPDATE writes SET lease_until = lease_until - ({millis})");
        let moving = tokio::task::spawn_blocking(move || database.psql(&moved));
        Box::pin(async move { drop(moving.await.expect("moved")) })
    };
    StoreFixture::new(repo, move |span| timer.advance(span)).with_wall_clock(set_wall_clock)
}

lock_repo_cases!(fixture);

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
    let events = (1..=locks).map(|lock| Ok::<_, ImportError>(created(lock_id(lock))));
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
async fn rejects_unsuitable_databases_with_the_reason() {
    let newer = Fresh::shared().await;
    newer.open().await;
    newer.psql("INSERT INTO keywright_schema VALUES (99)");
    assert!(newer.refusal().await.contains("schema is version 99"));

    let foreign = Fresh::shared().await;
    foreign.psql("CREATE TABLE events (x int)");
    let text = foreign.refusal().await;
    assert!(
        text.contains("table events belongs to another program"),
        "{text}"
    );

    let not_durable = Fresh::shared().await;
    let set = "SET synchronous_commit = off";
    not_durable.psql(&format!("ALTER DATABASE {} {set}", not_durable.name()));
    let text = not_durable.refusal().await;
    assert!(text.contains("synchronous_commit is off"), "{text}");

    let missing = Fresh {
        timer: ManualTimer::default(),
        url: newer.url.replace(newer.name(), "no_such_database"),
        server: newer.server.clone(),
    };
    assert!(missing.refusal().await.contains("does not exist"));

    let unreachable = Fresh {
        timer: ManualTimer::default(),
        url: "postgres://keywright@127.0.0.1:1/none".into(),
        server: newer.server.clone(),
    };
    let refused = unreachable
        .try_open()
        .await
        .err()
        .expect("there is no server");
    assert!(
        matches!(refused, PostgresError::Unreachable(_)),
        "{refused:?}"
    );
}

#[test]
fn rejects_unusable_urls_with_what_to_change() {
    for (url, part) in [
        (
            "postgres://me:secret@db/keywright",
            "no place for a password",
        ),
        ("postgres://", "names no host"),
        ("mysql://db/keywright", "an example is postgres://"),
        ("postgres://db:none/keywright", "an example is postgres://"),
    ] {
        let text = PostgresSettings::new(url).expect_err(url).to_string();
        assert!(text.contains(part), "{url}: {text}");
        assert!(!text.contains("secret"), "{text}");
    }
    let settings = PostgresSettings::new("postgres://me@db.example/locks").expect("a URL");
    assert_eq!(settings.place(), "db.example:5432/locks");
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

#[tokio::test(flavor = "multi_thread")]
async fn reconnects_to_a_database_after_a_crash() {
    let server = tokio::task::spawn_blocking(PostgresServer::start).await;
    let database = Fresh::new(Arc::new(server.expect("a server"))).await;
    let repo = database.open().await;
    let sent = fill(&repo).await;
    let before = load(&repo).await;
    database.server.stop("immediate");
    let away = repo.load(lock_id(1)).await;
    assert!(matches!(away, Err(RepoError::Unavailable(_))), "{away:?}");
    let (_, save) = prepared(
        &LockSnapshot {
            unfinished: vec![],
            ..before.clone()
        },
        12,
        slot("k", None),
    );
    let saved = repo.save(save).await;
    assert!(
        matches!(
            saved,
            Err(RepoError::Unavailable(_) | RepoError::Unknown(_))
        ),
        "{saved:?}"
    );
    database.server.restart();
    // A dead connection may be detected only when it is used.
    let mut tries = 0;
    let after = loop {
        match repo.load(lock_id(1)).await {
            Ok(found) => break found,
            Err(error) => assert!(tries < 20, "{error}"),
        }
        tries += 1;
    };
    assert_eq!(after, Some(before));
    assert_eq!(repo.write(sent.id).await, Ok(Some(sent)));
}

/// A statement may have been executed if its connection is lost meanwhile.
#[tokio::test(flavor = "multi_thread")]
async fn a_save_whose_connection_is_lost_is_unknown() {
    let database = Fresh::shared().await;
    let repo = database.open().await;
    fill(&repo).await;
    let snapshot = load(&repo).await;
    // Another transaction holds the lock's row, so the save waits for it.
    let server = database.server.clone();
    let name = database.name().to_owned();
    let hold = "BEGIN; SELECT * FROM locks FOR UPDATE; SELECT pg_sleep(5); COMMIT";
    let holder = std::thread::spawn(move || server.psql(&name, hold));
    let until = async |what: &str, found: &str| {
        for _ in 0..500 {
            if database.psql(what) == found {
                return;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        panic!("{what} is never {found}");
    };
    let sleeping = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event = 'PgSleep'";
    until(sleeping, "1").await;
    let prepared = snapshot.prepared().expect("an intent").clone();
    let (limits, known) = (Limits::default(), snapshot.clone());
    let (_, save) = policy::commit(&known, &prepared, ShadowVersion(9), &[], &limits, NOW);
    let saver = repo.clone();
    let saving = tokio::spawn(async move { saver.save(save).await });
    let waiting = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'";
    until(waiting, "1").await;
    database.psql(
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity
         WHERE application_name = 'keywright' AND datname = current_database() AND wait_event_type = 'Lock'",
    );
    let saved = saving.await.expect("no panic");
    assert!(matches!(saved, Err(RepoError::Unknown(_))), "{saved:?}");
    holder.join().expect("no panic").expect("executed");
    assert_eq!(load(&repo).await, snapshot);
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

async fn pooler(database: &Fresh, mode: &'static str) -> PgBouncer {
    let server = database.server.clone();
    let started = tokio::task::spawn_blocking(move || PgBouncer::start(&server, mode));
    started.await.expect("it starts")
}

/// Concurrent saves of the locks 1 to `locks`.
async fn save_concurrently(repo: &PostgresLockRepo, locks: u64) -> Vec<Result<(), RepoError>> {
    let mut saving = tokio::task::JoinSet::new();
    for lock in 1..=locks {
        let save = first_save(repo, lock, 100 + u128::from(lock)).await;
        let repo = repo.clone();
        saving.spawn(async move { repo.save(save).await });
    }
    saving.join_all().await
}

#[tokio::test(flavor = "multi_thread")]
async fn rejects_a_pooler_that_shares_sessions() {
    let database = Fresh::shared().await;
    // The first two assign the session that was used last, the third one each in turn.
    let in_turn = "transaction\nserver_round_robin = 1\nmin_pool_size = 3";
    for mode in ["transaction", "statement", in_turn] {
        let pooler = pooler(&database, mode).await;
        let url = pooler.url(database.name());
        // One replica, and several that start concurrently.
        for replicas in [1, 6] {
            let starting = (0..replicas).map(|_| {
                let url = url.clone();
                tokio::spawn(async move { open_at(&url).await.err() })
            });
            for refused in starting.collect::<Vec<_>>() {
                let refused = refused.await.expect("no panic").expect("refused");
                let text = refused.to_string();
                assert!(matches!(refused, PostgresError::Unfit(_)), "{text}");
                assert!(
                    text.contains("PgBouncer with pool_mode=transaction")
                        && text.contains("set pool_mode=session"),
                    "{mode}: {text}"
                );
            }
        }
    }
    let tables = database.psql("SELECT count(*) FROM pg_tables WHERE schemaname = 'public'");
    assert_eq!(tables, "0", "nothing was created");
}

#[tokio::test(flavor = "multi_thread")]
async fn accepts_a_pooler_of_sessions() {
    let database = Fresh::shared().await;
    let pooler = pooler(&database, "session").await;
    let repo = open_at(&pooler.url(database.name()))
        .await
        .expect("a store");
    with_locks(&repo, 50).await;
    for saved in save_concurrently(&repo, 50).await {
        assert_eq!(saved, Ok(()));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn saves_succeed_with_a_stricter_default_isolation() {
    let database = Fresh::shared().await;
    for level in ["serializable", "repeatable read"] {
        let name = database.name();
        database.psql(&format!(
            "ALTER DATABASE {name} SET default_transaction_isolation = '{level}'"
        ));
        let repo = database.open().await;
        with_locks(&repo, 21).await;
        let saved = save_concurrently(&repo, 20).await;
        assert!(saved.iter().all(Result::is_ok), "{level}: {saved:?}");
        // Another transaction changes the lock: the save waits for it and is then stale.
        let save = first_save(&repo, 21, 500).await;
        let (server, name) = (database.server.clone(), name.to_owned());
        let moving = tokio::task::spawn_blocking(move || {
            server.psql(
                &name,
                "UPDATE locks SET revision = revision + 1 WHERE id = 21; SELECT pg_sleep(1)",
            )
        });
        let sleeping = "SELECT count(*) FROM pg_stat_activity \
                        WHERE wait_event = 'PgSleep' AND datname = current_database()";
        while database.psql(sleeping) != "1" {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        assert_eq!(repo.save(save).await, Err(RepoError::Stale), "{level}");
        moving.await.expect("no panic").expect("changed");
        database.psql("TRUNCATE locks, events, writes");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn rejects_a_standby_and_returns_to_the_primary() {
    let (primary, standby) = tokio::task::spawn_blocking(|| {
        let primary = PostgresServer::start();
        let standby = primary.standby();
        (Arc::new(primary), Arc::new(standby))
    })
    .await
    .expect("servers");
    let database = Fresh::new(primary.clone()).await;
    let failed_over = Arc::new(std::sync::atomic::AtomicBool::new(false));
    let (switch, addresses) = (failed_over.clone(), [primary.address(), standby.address()]);
    let choose = move || addresses[usize::from(switch.load(std::sync::atomic::Ordering::SeqCst))];
    let name = TcpProxy::start_to(choose, |_, _| Forwarding::Pass).await;
    let url = format!("postgres://keywright@{}/{}", name.address, database.name());
    let repo = open_at(&url).await.expect("a store");
    with_locks(&repo, 3).await;
    repo.save(first_save(&repo, 1, 1).await)
        .await
        .expect("it is the primary");
    let unsaved = first_save(&repo, 2, 2).await;

    failed_over.store(true, std::sync::atomic::Ordering::SeqCst);
    let stopping = primary.clone();
    let stopped = tokio::task::spawn_blocking(move || stopping.stop("fast"));
    stopped.await.expect("it stops");
    for _ in 0..3 {
        let refused = repo.save(unsaved.clone()).await;
        assert!(
            matches!(
                refused,
                Err(RepoError::Unavailable(_) | RepoError::Unknown(_))
            ),
            "{refused:?}"
        );
    }
    let read = repo.load(lock_id(1)).await;
    let text = read.expect_err("the standby is rejected").to_string();
    assert!(text.contains("takes no writes"), "{text}");
    assert_eq!(open_at(&url).await.err(), Some(PostgresError::ReadOnly));

    failed_over.store(false, std::sync::atomic::Ordering::SeqCst);
    let starting = primary.clone();
    let started = tokio::task::spawn_blocking(move || starting.restart());
    started.await.expect("it starts");
    repo.save(unsaved).await.expect("the primary is back");
}

#[tokio::test(flavor = "multi_thread")]
async fn closes_connections_to_a_server_that_became_read_only() {
    let server = tokio::task::spawn_blocking(PostgresServer::start).await;
    let database = Fresh::new(Arc::new(server.expect("a server"))).await;
    // This setting accepts a read-only server, which is then detected only by its errors.
    let repo = open_at(&format!("{}?target_session_attrs=any", database.url))
        .await
        .expect("a store");
    with_locks(&repo, 3).await;
    let save = first_save(&repo, 1, 1).await;
    let sessions = || {
        database.psql(
            "SELECT string_agg(pid::text, ',' ORDER BY pid) FROM pg_stat_activity \
             WHERE application_name = 'keywright' AND datname = current_database()",
        )
    };
    let before = sessions();
    let read_only = |on: &str| {
        let server = &database.server;
        let set = format!("ALTER SYSTEM SET default_transaction_read_only = {on}");
        server.psql("postgres", &set).expect("set");
        server
            .psql("postgres", "SELECT pg_reload_conf()")
            .expect("reloaded");
    };
    read_only("on");
    // The server applies the setting a little later.
    while database.psql("SHOW default_transaction_read_only") != "on" {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    let refused = repo.save(save.clone()).await;
    let refused = refused.expect_err("it is read-only").to_string();
    assert!(refused.contains("read-only"), "{refused}");
    while sessions()
        .split(',')
        .any(|pid| before.split(',').any(|b| b == pid && !pid.is_empty()))
    {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    read_only("off");
    while repo.save(save.clone()).await.is_err() {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}
