//! The stores of webhooks fulfil the contract of their port.
#![cfg(all(
    feature = "memory",
    feature = "postgres",
    feature = "sqlite",
    feature = "webhooks"
))]

use std::sync::Arc;

use keywright_adapters::webhooks::{InMemoryWebhookStore, SecretCipher};
use keywright_domain::ports::WebhookStore;
use keywright_testkit::ManualTimer;
use keywright_testkit::webhook_store::WebhookStoreFixture;

fn with_timer(make: impl FnOnce(Arc<ManualTimer>) -> Arc<dyn WebhookStore>) -> WebhookStoreFixture {
    let timer = ManualTimer::default();
    WebhookStoreFixture {
        store: make(Arc::new(timer.clone())),
        advance: Arc::new(move |span| {
            timer.advance(span);
            Box::pin(async {})
        }),
    }
}

fn cipher() -> SecretCipher {
    let folder = tempfile::tempdir().expect("a folder");
    SecretCipher::read_or_create(&folder.path().join("key")).expect("a key")
}

mod memory {
    use super::*;

    async fn fixture() -> WebhookStoreFixture {
        with_timer(|timer| Arc::new(InMemoryWebhookStore::new(timer)))
    }

    keywright_testkit::webhook_store_cases!(fixture);
}

mod sqlite {
    use keywright_adapters::webhooks::SqliteWebhookStore;
    use keywright_domain::model::*;
    use keywright_domain::ports::RepoError;
    use keywright_testkit::samples::NOW;

    use super::*;

    async fn fixture() -> WebhookStoreFixture {
        with_timer(|timer| {
            let path = std::path::Path::new(":memory:");
            let store = SqliteWebhookStore::open(path, cipher(), timer);
            Arc::new(store.expect("a store"))
        })
    }

    keywright_testkit::webhook_store_cases!(fixture);

    #[tokio::test]
    async fn webhooks_survive_the_process_and_their_secrets_are_not_in_the_file() {
        let folder = tempfile::tempdir().expect("a folder");
        let (file, key) = (
            folder.path().join("webhooks.sqlite"),
            folder.path().join("key"),
        );
        let open = |key: &std::path::Path| {
            let cipher = SecretCipher::read_or_create(key).expect("a key");
            let timer = Arc::new(ManualTimer::default());
            SqliteWebhookStore::open(&file, cipher, timer).expect("a store")
        };
        let secret = SigningSecret::new(b"a secret of more than 24 bytes".to_vec()).expect("one");
        let webhook = Webhook {
            id: WebhookId::from_u128(7),
            owner: WebhookOwner::EveryOrganization,
            url: WebhookUrl::new("https://app.example/").expect("a URL"),
            events: EventSelection::All,
            description: None,
            secrets: SigningSecrets::of(secret.clone()),
            created_at: NOW,
            state: WebhookState::Enabled,
            revision: Revision(1),
            progress: WebhookProgress::default(),
        };
        let store = open(&key);
        assert_eq!(store.insert(&webhook, 20).await, Ok(true));
        let worker = WorkerId(1);
        let lease = std::time::Duration::from_secs(15);
        assert_eq!(store.claim(worker, lease).await.map(|all| all.len()), Ok(1));
        drop(store);
        let store = open(&key);
        assert_eq!(store.get(webhook.id).await, Ok(Some(webhook.clone())));
        let other = store.claim(WorkerId(2), lease).await;
        assert_eq!(
            other.map(|all| all.len()),
            Ok(1),
            "leases end with the process"
        );
        // A row that cannot be read does not stop the others.
        let mut bad = webhook.clone();
        bad.id = WebhookId::from_u128(8);
        assert_eq!(store.insert(&bad, 20).await, Ok(true));
        let conn = rusqlite::Connection::open(&file).expect("the file");
        let damage = "UPDATE webhooks SET content = '{' WHERE id = ?1";
        let id = 8_u128.to_be_bytes().to_vec();
        assert_eq!(conn.execute(damage, [id]), Ok(1));
        drop(conn);
        assert_eq!(store.list(None).await, Ok(vec![webhook.clone()]));
        let claimed = store.claim(WorkerId(2), lease).await;
        assert_eq!(claimed, Ok(vec![webhook.clone()]));
        let read = store.get(bad.id).await;
        assert!(
            matches!(
                read,
                Err(RepoError::Corrupt {
                    column: "content",
                    ..
                })
            ),
            "{read:?}"
        );
        drop(store);
        for file in std::fs::read_dir(folder.path()).expect("the folder") {
            let bytes = std::fs::read(file.expect("a file").path()).expect("bytes");
            let has_secret = bytes.windows(30).any(|window| window == secret.expose());
            assert!(!has_secret);
        }
        let with_other_key = open(&folder.path().join("other-key"));
        let refused = with_other_key.list(None).await;
        let is_of_secrets = matches!(
            refused,
            Err(RepoError::Corrupt {
                column: "secrets",
                ..
            })
        );
        assert!(is_of_secrets, "{refused:?}");
    }
}

mod postgres {
    use std::time::Duration;

    use keywright_adapters::postgres::{PostgresPool, PostgresSettings};
    use keywright_adapters::webhooks::PostgresWebhookStore;
    use keywright_testkit::postgres_server::PostgresServer;

    use super::*;

    async fn fixture() -> WebhookStoreFixture {
        let made = tokio::task::spawn_blocking(|| {
            let server = PostgresServer::shared();
            let url = server.database();
            (server, url)
        });
        let (server, url) = made.await.expect("a database");
        let settings = PostgresSettings::new(&url).expect("a URL");
        let pool = PostgresPool::connect(&settings, Duration::from_secs(10)).await;
        let name = url.rsplit('/').next().unwrap_or_default().to_owned();
        WebhookStoreFixture {
            store: Arc::new(PostgresWebhookStore::new(
                pool.expect("connected"),
                cipher(),
            )),
            advance: Arc::new(move |span| {
                let (server, name) = (server.clone(), name.clone());
                Box::pin(async move {
                    let sql = format!(
                        "UPDATE webhooks SET lease_until = lease_until - {}",
                        span.as_millis()
                    );
                    let shifted = tokio::task::spawn_blocking(move || server.psql(&name, &sql));
                    shifted.await.expect("no panic").expect("executed");
                })
            }),
        }
    }

    keywright_testkit::webhook_store_cases!(fixture);
}
