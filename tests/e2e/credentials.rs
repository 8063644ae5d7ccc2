//! The contract's table of credentials: each kind of credential on each kind of lock.

use std::path::Path;

use jsonwebtoken::{Algorithm, EncodingKey, Header, encode};
use keywright_adapters::auth::ApiKey;
use keywright_adapters::time::SystemClock;
use keywright_domain::model::{Identity, OrganizationId, RecordedEvent, Timestamp};
use keywright_domain::ports::Clock;
use serde_json::{Value, json};

use crate::harness::{FOREIGN, Harness, LOCK, eventually};

/// Belongs to alice and to the organization acme.
const BOTH: u64 = 201;
/// Belongs to bob and another organization; alice has a key on it.
const HELD: u64 = 202;
/// Belongs to bob and acme.
const ACME_AND_BOB: u64 = 203;
const MISSING: u64 = 999;

const LOCKS: [u64; 5] = [BOTH, HELD, ACME_AND_BOB, FOREIGN, MISSING];

/// Signs tokens with the sandbox's key.
struct Issuer(EncodingKey);

impl Issuer {
    fn open(data: &Path) -> Self {
        let key = std::fs::read(data.join("token-key.pk8")).expect("the sandbox's key");
        Self(EncodingKey::from_ec_der(&key))
    }

    /// A token with the default claims, changed by `changes`.
    fn token(&self, changes: &Value) -> String {
        let mut claims = json!({
            "iss": "https://sandbox.keywright.invalid", "aud": "keywright-sandbox",
            "exp": SystemClock.now().as_secs() + 600,
        });
        for (claim, value) in changes.as_object().expect("an object") {
            claims[claim] = value.clone();
        }
        encode(&Header::new(Algorithm::ES256), &claims, &self.0).expect("a token")
    }
}

/// A server with the locks above and three API keys: of acme, of every organization, and an expired one of acme.
struct Fixture {
    harness: Harness,
    issuer: Issuer,
    acme: ApiKey,
    every: ApiKey,
    expired: ApiKey,
}

async fn fixture() -> Fixture {
    let lock = |id: u64, owner: &str, keys: Value, organization: &str| {
        let time = "2026-05-29T12:00:00.000Z";
        let created = json!({
            "lockId": id, "uuid": format!("u-{id}"), "timestamp": time, "ownerId": owner,
            "thingName": format!("demo-lock-{id}"), "keys": keys
        });
        let owned = json!({
            "lockId": id, "uuid": format!("u-{id}"), "timestamp": time, "orgId": organization
        });
        [("LockCreated", created), ("OrganizationSet", owned)]
    };
    let held = json!([{ "uuid": "front", "indexNumber": 0, "userId": "alice" }]);
    let locks = [
        lock(BOTH, "alice", json!([]), "acme"),
        lock(HELD, "bob", held, "another-org"),
        lock(ACME_AND_BOB, "bob", json!([]), "acme"),
    ];
    let (acme, every, expired) = (ApiKey::generate(), ApiKey::generate(), ApiKey::generate());
    let organization = Identity::Organization(OrganizationId::new("acme").expect("an id"));
    let records = [
        acme.record(organization.clone(), None),
        every.record(Identity::EveryOrganization, None),
        expired.record(organization, Some(Timestamp::from_millis(1))),
    ];
    let harness = Harness::with_many_failures()
        .with(&locks.concat(), &records)
        .await;
    let issuer = Issuer::open(harness.folder.path());
    Fixture {
        harness,
        issuer,
        acme,
        every,
        expired,
    }
}

/// The token with one character of its signature changed; it is still base64url.
fn forged(token: &str) -> String {
    let at = token.len() - 20;
    let other = if token.as_bytes()[at] == b'A' {
        "B"
    } else {
        "A"
    };
    format!("{}{other}{}", &token[..at], &token[at + 1..])
}

#[tokio::test]
async fn credentials_crossed_with_locks() {
    let fixture = fixture().await;
    let token = |claims: Value| fixture.issuer.token(&claims);
    let (alice, stranger) = (
        token(json!({ "sub": "alice" })),
        token(json!({ "sub": "eve" })),
    );
    let service = token(json!({ "sub": "svc", "org": "acme" }));
    let other_service = token(json!({ "sub": "svc", "org": "another-org" }));
    // A token of an organization does not act for its subject.
    let alices_service = token(json!({ "sub": "alice", "org": "nobodys-org" }));
    let now = SystemClock.now().as_secs();
    let expired = token(json!({ "sub": "alice", "exp": now - 60 }));
    let foreign = token(json!({ "sub": "alice", "aud": "somebody-else" }));
    let (acme, every) = (fixture.acme.expose(), fixture.every.expose());
    let (unknown, old) = (ApiKey::generate(), fixture.expired.expose());
    let unknown = unknown.expose();

    let both = |token: &str, key: &str| (Some(token.to_owned()), Some(key.to_owned()));
    let bearer = |token: &str| (Some(token.to_owned()), None);
    let key = |key: &str| (None, Some(key.to_owned()));
    // For each: BOTH, HELD, ACME_AND_BOB, FOREIGN, MISSING.
    let rows = [
        ("no credentials", (None, None), [401; 5]),
        ("alice", bearer(&alice), [200, 200, 403, 403, 404]),
        ("a stranger", bearer(&stranger), [403, 403, 403, 403, 404]),
        (
            "acme's service",
            bearer(&service),
            [200, 403, 200, 403, 404],
        ),
        (
            "another org's service",
            bearer(&other_service),
            [403, 200, 403, 200, 404],
        ),
        (
            "a service named alice",
            bearer(&alices_service),
            [403, 403, 403, 403, 404],
        ),
        ("acme's key", key(acme), [200, 403, 200, 403, 404]),
        ("the super key", key(every), [200, 200, 200, 200, 404]),
        (
            "alice with acme's key",
            both(&alice, acme),
            [200, 200, 200, 403, 404],
        ),
        (
            "a stranger with acme's key",
            both(&stranger, acme),
            [200, 403, 200, 403, 404],
        ),
        (
            "alice with the super key",
            both(&alice, every),
            [200, 200, 200, 200, 404],
        ),
        ("an expired token", bearer(&expired), [401; 5]),
        ("a forged token", bearer(&forged(&alice)), [401; 5]),
        ("a token for somebody else", bearer(&foreign), [401; 5]),
        ("an unknown key", key(unknown), [401; 5]),
        ("an expired key", key(old), [401; 5]),
        ("half a key", key(&acme[..30]), [401; 5]),
        ("alice with an unknown key", both(&alice, unknown), [401; 5]),
        ("alice with an expired key", both(&alice, old), [401; 5]),
        ("alice with an empty key", both(&alice, ""), [401; 5]),
        (
            "an expired token with acme's key",
            both(&expired, acme),
            [401; 5],
        ),
        (
            "a forged token with the super key",
            both(&forged(&alice), every),
            [401; 5],
        ),
        ("an empty token with acme's key", both("", acme), [401; 5]),
        ("a key for a token", bearer(acme), [401; 5]),
        ("a token for a key", key(&alice), [401; 5]),
    ];
    let before = fixture.harness.store().await.dump();
    for (who, (token, key), expected) in &rows {
        for (lock, expected) in LOCKS.into_iter().zip(*expected) {
            for (method, path) in [("GET", "details"), ("GET", "events"), ("POST", "WriteKey")] {
                if method == "POST" && expected == 200 {
                    continue;
                }
                let path = format!("/locks/{lock}/{path}");
                let mut request = fixture.harness.program.request(method, &path);
                if let Some(token) = token {
                    request = request.bearer(token);
                }
                if let Some(key) = key {
                    request = request.header("X-API-Key", key);
                }
                let answer = request.json(&json!({ "keyUuid": "k" })).send().await;
                assert_eq!(
                    answer.status, expected,
                    "{who}, {method} {path}: {answer:?}"
                );
            }
        }
    }
    assert_eq!(
        fixture.harness.store().await.dump(),
        before,
        "refusals record nothing"
    );
    // Credentials that may read may write. All writes have one key index, so that the limit of open writes is not reached.
    for (who, (token, key), expected) in &rows {
        for (lock, _) in LOCKS
            .into_iter()
            .zip(expected)
            .filter(|(_, expected)| **expected == 200)
        {
            let mut request = fixture
                .harness
                .program
                .request("POST", &format!("/locks/{lock}/WriteKey"));
            if let Some(token) = token {
                request = request.bearer(token);
            }
            if let Some(key) = key {
                request = request.header("X-API-Key", key);
            }
            let body = json!({ "keyUuid": format!("{who} {lock}"), "keyIndexNumber": 0 });
            let answer = request.json(&body).send().await;
            assert_eq!(answer.status, 200, "{who}, lock {lock}: {answer:?}");
            assert_eq!(answer.body["event"]["type"], "KeyWriteRequested");
        }
    }
}

/// The log and the stored write name the caller.
#[tokio::test]
async fn the_caller_is_recorded_by_subject_and_by_api_key() {
    let fixture = fixture().await;
    let service = |subject: &str| {
        fixture
            .issuer
            .token(&json!({ "sub": subject, "org": "acme" }))
    };
    let (acme, every) = (fixture.acme.expose(), fixture.every.expose());
    let shown = |key: &str| format!("{}…{}", &key[..8], &key[46..]);
    let mut written = Vec::new();
    for (index, (token, key, by)) in [
        (
            Some(service("reader")),
            None,
            "org:acme,sub:reader".to_owned(),
        ),
        (
            Some(service("writer")),
            None,
            "org:acme,sub:writer".to_owned(),
        ),
        (None, Some(acme), format!("org:acme,key:{}", shown(acme))),
        (None, Some(every), format!("org:*,key:{}", shown(every))),
        (
            Some(fixture.issuer.token(&json!({ "sub": "alice" }))),
            Some(acme),
            format!("user:alice+org:acme,key:{}", shown(acme)),
        ),
    ]
    .into_iter()
    .enumerate()
    {
        let body = json!({ "keyUuid": "key", "keyIndexNumber": index });
        let mut request = fixture.harness.program.write_key(BOTH, &body);
        request = request.without("Authorization").without("X-API-Key");
        if let Some(token) = token {
            request = request.bearer(&token);
        }
        if let Some(key) = key {
            request = request.header("X-API-Key", key);
        }
        let answer = request.send().await;
        assert_eq!(answer.status, 200, "{by}: {answer:?}");
        written.push((answer.write_id(), by));
    }
    let store = fixture.harness.store().await;
    let stream = store.events(BOTH).await;
    for (id, by) in written.iter() {
        let of_write = |line: &&str| line.contains("PREPARED") && line.contains(id.as_str());
        let logged = eventually("the write is logged", || async {
            let log = fixture.harness.program.log();
            log.lines().find(of_write).map(str::to_owned)
        });
        let logged = logged.await;
        assert!(logged.contains(&format!("by=\"{by}\"")), "{by}: {logged}");
        let id = id.parse().expect("a write's id");
        assert_eq!(store.write(id).await.cause.requested_by, *by);
        let cause = |event: &&RecordedEvent| event.write == Some(id);
        let event = stream.iter().find(cause).expect("an event");
        assert_eq!(event.event.name(), "KeyWriteRequested");
    }
    let first = &written[0].0;
    let path = format!("/locks/{BOTH}/writes/{first}");
    let request = fixture.harness.program.request("DELETE", &path);
    let withdrawn = request.header("X-API-Key", every).send().await;
    assert_eq!(withdrawn.status, 200, "{withdrawn:?}");
    let by = format!("by=\"org:*,key:{}\"", shown(every));
    eventually("the log names the caller of the withdrawal", || async {
        let log = fixture.harness.program.log();
        let line = log
            .lines()
            .find(|line| line.contains("withdrawn on request"));
        line.is_some_and(|line| line.contains(first) && line.contains(&by))
            .then_some(())
    })
    .await;
    let log = fixture.harness.program.log();
    for secret in [&acme[8..46], &every[8..46]] {
        assert!(!log.contains(secret) && !store.dump().contains(secret));
    }
}

#[tokio::test]
async fn headers_that_are_no_credentials_are_refused() {
    let harness = Harness::silent();
    let (token, api_key) = (
        harness.program.token.clone(),
        harness.program.api_key.clone(),
    );
    let bearer = format!("Bearer {token}");
    let before = harness.store().await.dump();
    for (headers, why) in [
        (
            vec![("Authorization", token.as_str())],
            "Authorization is not Bearer",
        ),
        (
            vec![("Authorization", &format!("Basic {token}"))],
            "Authorization is not Bearer",
        ),
        (vec![("Authorization", "Bearer")], "token: not three parts"),
        (vec![("Authorization", "Bearer ")], "token: not three parts"),
        (vec![("X-API-Key", "")], "API key: malformed"),
        (
            vec![("Authorization", &bearer), ("Authorization", &bearer)],
            "sent twice",
        ),
        (
            vec![("X-API-Key", &api_key), ("X-API-Key", &api_key)],
            "sent twice",
        ),
        (vec![("Authorization", "Bearer ü")], "not ASCII text"),
    ] {
        let mut request = harness.program.write_key(LOCK, &json!({ "keyUuid": "k" }));
        request = request
            .without("Authorization")
            .header("X-Request-Id", "this-one");
        for (name, value) in &headers {
            request = request.header(name, value);
        }
        let answer = request.send().await;
        assert_eq!(answer.status, 401, "{why}: {answer:?}");
        assert_eq!(answer.header("www-authenticate"), Some("Bearer"));
        let log = harness.program.log();
        let line = log
            .lines()
            .rfind(|l| l.contains("credentials refused"))
            .expect("a line");
        assert!(line.contains(why), "{why}: {line}");
    }
    assert_eq!(harness.store().await.dump(), before);
    // The scheme is case-insensitive.
    let request = harness.program.request("GET", "/locks/123/details");
    let answer = request
        .header("authorization", &format!("bearer {token}"))
        .send()
        .await;
    assert_eq!(answer.status, 200);
}

#[tokio::test]
async fn all_routes_of_a_foreign_lock_are_403() {
    let harness = Harness::silent();
    let (token, api_key) = (&harness.program.token, &harness.program.api_key);
    for (method, path) in [
        ("POST", "WriteKey"),
        ("GET", "details"),
        ("GET", "events"),
        ("GET", "writes?state=open"),
        ("GET", "writes/01997c1e-6a2b-7c3d-8e4f-5a6b7c8d9e0f"),
        ("DELETE", "writes/01997c1e-6a2b-7c3d-8e4f-5a6b7c8d9e0f"),
    ] {
        let request = harness
            .program
            .request(method, &format!("/locks/{FOREIGN}/{path}"));
        let request = request.json(&json!({ "keyUuid": "k" }));
        for request in [
            request.clone().bearer(token),
            request.clone().header("X-API-Key", api_key),
            request.clone().bearer(token).header("X-API-Key", api_key),
        ] {
            assert_eq!(request.send().await.status, 403, "{method} {path}");
        }
    }
}

#[tokio::test]
async fn internal_headers_are_refused_by_name() {
    let harness = Harness::silent();
    let before = harness.store().await.dump();
    for name in ["X-Org-Id", "x-user-id"] {
        let answer = harness.program.write_key(LOCK, &json!({ "keyUuid": "k" }));
        let answer = answer.header(name, "demo-org").send().await;
        let message = answer.body["message"]
            .as_str()
            .expect("a message")
            .to_lowercase();
        assert_eq!(answer.status, 400);
        assert!(message.contains(&name.to_lowercase()), "{message}");
    }
    assert_eq!(harness.store().await.dump(), before);
}
