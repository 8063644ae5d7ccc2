//! The contract's table of credentials, crossed with locks of all kinds.

use std::path::Path;

use jsonwebtoken::{Algorithm, EncodingKey, Header, encode};
use keywright_adapters::auth::ApiKey;
use keywright_adapters::time::SystemClock;
use keywright_domain::model::{Identity, OrganizationId, RecordedEvent, Timestamp};
use keywright_domain::ports::Clock;
use serde_json::{Value, json};

use crate::harness::{FOREIGN, LOCK, World, eventually};

/// Owned by alice, and by the organization acme.
const BOTH: u64 = 201;
/// Alice holds a key on it; it is somebody else's.
const HELD: u64 = 202;
/// Acme's, and bob's.
const ACMES: u64 = 203;
const MISSING: u64 = 999;

const LOCKS: [u64; 5] = [BOTH, HELD, ACMES, FOREIGN, MISSING];

/// Signs with the sandbox's own key.
struct Issuer(EncodingKey);

impl Issuer {
    fn of(data: &Path) -> Self {
        let key = std::fs::read(data.join("token-key.pk8")).expect("the sandbox's key");
        Self(EncodingKey::from_ec_der(&key))
    }

    /// A token with these claims besides the usual ones.
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

/// A program with the locks above, and API keys of acme, of every organization, and one that has expired.
struct Office {
    world: World,
    issuer: Issuer,
    acme: ApiKey,
    every: ApiKey,
    expired: ApiKey,
}

async fn office() -> Office {
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
        lock(ACMES, "bob", json!([]), "acme"),
    ];
    let (acme, every, expired) = (ApiKey::generate(), ApiKey::generate(), ApiKey::generate());
    let organization = Identity::Organization(OrganizationId::new("acme").expect("an id"));
    let records = [
        acme.record(organization.clone(), None),
        every.record(Identity::EveryOrganization, None),
        expired.record(organization, Some(Timestamp::from_millis(1))),
    ];
    let world = World::where_many_guess()
        .with(&locks.concat(), &records)
        .await;
    let issuer = Issuer::of(world.folder.path());
    Office {
        world,
        issuer,
        acme,
        every,
        expired,
    }
}

/// A middle character of the last part is another one, so that it is still base64url.
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
    let office = office().await;
    let token = |claims: Value| office.issuer.token(&claims);
    let (alice, stranger) = (
        token(json!({ "sub": "alice" })),
        token(json!({ "sub": "eve" })),
    );
    let service = token(json!({ "sub": "svc", "org": "acme" }));
    let other_service = token(json!({ "sub": "svc", "org": "another-org" }));
    // An organization's token is not its subject's.
    let alices_service = token(json!({ "sub": "alice", "org": "nobodys-org" }));
    let now = SystemClock.now().as_secs();
    let expired = token(json!({ "sub": "alice", "exp": now - 60 }));
    let foreign = token(json!({ "sub": "alice", "aud": "somebody-else" }));
    let (acme, every) = (office.acme.expose(), office.every.expose());
    let (unknown, old) = (ApiKey::generate(), office.expired.expose());
    let unknown = unknown.expose();

    let both = |token: &str, key: &str| (Some(token.to_owned()), Some(key.to_owned()));
    let bearer = |token: &str| (Some(token.to_owned()), None);
    let key = |key: &str| (None, Some(key.to_owned()));
    // For each: BOTH, HELD, ACMES, FOREIGN, MISSING.
    let rows = [
        ("nobody", (None, None), [401; 5]),
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
    let before = office.world.books().await.dump();
    for (who, (token, key), expected) in &rows {
        for (lock, expected) in LOCKS.into_iter().zip(*expected) {
            for (method, path) in [("GET", "details"), ("GET", "events"), ("POST", "WriteKey")] {
                if method == "POST" && expected == 200 {
                    continue;
                }
                let path = format!("/locks/{lock}/{path}");
                let mut request = office.world.program.request(method, &path);
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
        office.world.books().await.dump(),
        before,
        "a refusal left something"
    );
    // Who may look may write. All at one index, so that the lock is never full.
    for (who, (token, key), expected) in &rows {
        for (lock, _) in LOCKS
            .into_iter()
            .zip(expected)
            .filter(|(_, expected)| **expected == 200)
        {
            let mut request = office
                .world
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

/// In the log, and in the store beside the write that an event belongs to.
#[tokio::test]
async fn who_asked_is_recorded_by_subject_and_by_api_key() {
    let office = office().await;
    let service = |subject: &str| {
        office
            .issuer
            .token(&json!({ "sub": subject, "org": "acme" }))
    };
    let (acme, every) = (office.acme.expose(), office.every.expose());
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
            Some(office.issuer.token(&json!({ "sub": "alice" }))),
            Some(acme),
            format!("user:alice+org:acme,key:{}", shown(acme)),
        ),
    ]
    .into_iter()
    .enumerate()
    {
        let body = json!({ "keyUuid": "key", "keyIndexNumber": index });
        let mut request = office.world.program.write_key(BOTH, &body);
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
    let books = office.world.books().await;
    let stream = books.stream(BOTH).await;
    for (id, by) in written.iter() {
        let of_write = |line: &&str| line.contains("PREPARED") && line.contains(id.as_str());
        let said = eventually("it is logged", || async {
            let log = office.world.program.log();
            log.lines().find(of_write).map(str::to_owned)
        });
        let said = said.await;
        assert!(said.contains(&format!("by=\"{by}\"")), "{by}: {said}");
        let id = id.parse().expect("a write's id");
        assert_eq!(books.write(id).await.requested_by, *by);
        let cause = |event: &&RecordedEvent| event.write == Some(id);
        let event = stream.iter().find(cause).expect("an event");
        assert_eq!(event.event.name(), "KeyWriteRequested");
    }
    let first = &written[0].0;
    let path = format!("/locks/{BOTH}/writes/{first}");
    let request = office.world.program.request("DELETE", &path);
    let withdrawn = request.header("X-API-Key", every).send().await;
    assert_eq!(withdrawn.status, 200, "{withdrawn:?}");
    let by = format!("by=\"org:*,key:{}\"", shown(every));
    eventually("who withdrew it is logged", || async {
        let log = office.world.program.log();
        let line = log
            .lines()
            .find(|line| line.contains("withdrawn on request"));
        line.is_some_and(|line| line.contains(first) && line.contains(&by))
            .then_some(())
    })
    .await;
    let log = office.world.program.log();
    for secret in [&acme[8..46], &every[8..46]] {
        assert!(!log.contains(secret) && !books.dump().contains(secret));
    }
}

#[tokio::test]
async fn headers_that_are_no_credentials_are_refused() {
    let world = World::silent();
    let (token, api_key) = (world.program.token.clone(), world.program.api_key.clone());
    let bearer = format!("Bearer {token}");
    let before = world.books().await.dump();
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
        (vec![("Authorization", "Bearer ü")], "no text"),
    ] {
        let mut request = world.program.write_key(LOCK, &json!({ "keyUuid": "k" }));
        request = request
            .without("Authorization")
            .header("X-Request-Id", "this-one");
        for (name, value) in &headers {
            request = request.header(name, value);
        }
        let answer = request.send().await;
        assert_eq!(answer.status, 401, "{why}: {answer:?}");
        assert_eq!(answer.header("www-authenticate"), Some("Bearer"));
        let log = world.program.log();
        let line = log
            .lines()
            .rfind(|l| l.contains("credentials refused"))
            .expect("a line");
        assert!(line.contains(why), "{why}: {line}");
    }
    assert_eq!(world.books().await.dump(), before);
    // A scheme is written in any case of letters.
    let request = world.program.request("GET", "/locks/123/details");
    let answer = request
        .header("authorization", &format!("bearer {token}"))
        .send()
        .await;
    assert_eq!(answer.status, 200);
}

#[tokio::test]
async fn nobody_touches_somebody_elses_lock() {
    let world = World::silent();
    let (token, api_key) = (&world.program.token, &world.program.api_key);
    for (method, path) in [
        ("POST", "WriteKey"),
        ("GET", "details"),
        ("GET", "events"),
        ("GET", "writes?state=open"),
        ("GET", "writes/01997c1e-6a2b-7c3d-8e4f-5a6b7c8d9e0f"),
        ("DELETE", "writes/01997c1e-6a2b-7c3d-8e4f-5a6b7c8d9e0f"),
    ] {
        let request = world
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
    let world = World::silent();
    let before = world.books().await.dump();
    for name in ["X-Org-Id", "x-user-id"] {
        let answer = world.program.write_key(LOCK, &json!({ "keyUuid": "k" }));
        let answer = answer.header(name, "demo-org").send().await;
        let message = answer.body["message"]
            .as_str()
            .expect("a message")
            .to_lowercase();
        assert_eq!(answer.status, 400);
        assert!(message.contains(&name.to_lowercase()), "{message}");
    }
    assert_eq!(world.books().await.dump(), before);
}
