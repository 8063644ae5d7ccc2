//! Databases and poolers that the store accepts, rejects, loses and returns to.

use super::*;

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
