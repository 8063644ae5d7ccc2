//! Published keys: they change without a restart, and the last ones are used while the issuer is down.
#![cfg(feature = "jwks-url")]

use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use keywright_adapters::auth::*;
use keywright_domain::ports::{AuthError, AuthPort, Credentials, Secret};
use keywright_testkit::ManualClock;
use keywright_testkit::issuer::{Issuer, IssuerResponse};
use keywright_testkit::samples::NOW;
use serde_json::{Value, json};
use tokio::task::JoinSet;
use tokio_rustls::rustls::ServerConfig;
use tokio_rustls::rustls::pki_types::PrivateKeyDer;

/// The minimum time between two requests to the issuer for unknown keys.
const MIN_REFRESH_INTERVAL: Duration = Duration::from_secs(10);

fn claims() -> Value {
    json!({ "iss": "issuer", "aud": "keywright", "sub": "alice", "exp": NOW.as_secs() + 60 })
}

struct Fixture {
    issuer: Issuer,
    verifier: Arc<JwtVerifier>,
    keys: Arc<JwksRefresher>,
    /// The sets that were stored.
    stored: Arc<Mutex<Vec<String>>>,
}

impl Fixture {
    /// An issuer that publishes one key, and a verifier that has it.
    async fn new() -> Self {
        let issuer = Issuer::start(None).await;
        issuer.publish(&["one"]);
        let verifier = Arc::new(JwtVerifier::without_keys(JwtSettings {
            issuer: "issuer".into(),
            audience: "keywright".into(),
            organization_claim: "org".into(),
        }));
        let url = JwksClient::new(&issuer.url(), None).expect("a URL");
        let stored: Arc<Mutex<Vec<String>>> = Arc::default();
        let sets = stored.clone();
        let store = move |set: &Bytes| {
            let set = String::from_utf8_lossy(set).into_owned();
            sets.lock().expect("no panic").push(set);
        };
        let keys = Arc::new(JwksRefresher::new(url, verifier.clone(), store));
        assert!(keys.refresh().await.expect("refreshed"));
        Self {
            issuer,
            verifier,
            keys,
            stored,
        }
    }

    async fn accepts(&self, key: &str) -> Result<(), TokenError> {
        let token = self.issuer.token(key, &claims());
        let verified = self.keys.verify(token.as_bytes(), NOW).await;
        verified.map(drop)
    }
}

impl Fixture {
    /// Verifies a token without a request to the issuer.
    fn verifier_accepts(&self, key: &str) -> Result<(), TokenError> {
        let token = self.issuer.token(key, &claims());
        self.verifier.verify(token.as_bytes(), NOW).map(drop)
    }
}

/// Advances the time without waiting.
async fn advance(span: Duration) {
    tokio::time::pause();
    tokio::time::advance(span).await;
    tokio::time::resume();
}

#[tokio::test]
async fn refreshes_the_keys_for_a_token_with_an_unknown_kid() {
    let fixture = Fixture::new().await;
    assert_eq!(fixture.accepts("one").await, Ok(()));
    fixture.issuer.publish(&["one", "two"]);
    advance(MIN_REFRESH_INTERVAL).await;
    assert_eq!(fixture.accepts("two").await, Ok(()));
    assert_eq!(fixture.accepts("one").await, Ok(()));
    assert_eq!(fixture.issuer.request_count(), 2);
    let stored = fixture.stored.lock().expect("no panic").clone();
    assert!(
        stored.len() == 2 && stored[1].contains("\"two\""),
        "{stored:?}"
    );
}

#[tokio::test]
async fn requests_have_user_agent_and_accept_headers() {
    let fixture = Fixture::new().await;
    let head = fixture.issuer.last_request().to_ascii_lowercase();
    let version = env!("CARGO_PKG_VERSION");
    for header in [
        format!("\r\nuser-agent: keywright/{version}\r\n"),
        "\r\naccept: application/jwk-set+json, application/json\r\n".into(),
    ] {
        assert!(head.contains(&header), "{head}");
    }
}

#[tokio::test]
async fn refreshes_keys_without_a_kid_for_a_token_that_no_key_has_signed() {
    let fixture = Fixture::new().await;
    let publish_without_kid = |name: &str| {
        let mut key = fixture.issuer.key(name);
        key["kid"] = Value::Null;
        fixture.issuer.publish_set(json!({ "keys": [key] }));
    };
    publish_without_kid("one");
    assert!(fixture.keys.refresh().await.expect("refreshed"));
    assert_eq!(fixture.accepts("one").await, Ok(()));
    publish_without_kid("two");
    advance(MIN_REFRESH_INTERVAL).await;
    assert_eq!(fixture.accepts("two").await, Ok(()));
    assert_eq!(fixture.issuer.request_count(), 3);
    assert_eq!(
        fixture.accepts("three").await,
        Err(TokenError::InvalidSignature)
    );
    assert_eq!(fixture.issuer.request_count(), 3, "once per interval");
}

#[tokio::test]
async fn concurrent_requests_share_one_refresh() {
    let fixture = Arc::new(Fixture::new().await);
    fixture.issuer.publish(&["one", "two"]);
    fixture
        .issuer
        .respond_with(IssuerResponse::Delayed(Duration::from_millis(300)));
    advance(MIN_REFRESH_INTERVAL).await;
    let mut requests = JoinSet::new();
    for _ in 0..20 {
        let fixture = fixture.clone();
        requests.spawn(async move { fixture.accepts("two").await });
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    for answer in requests.join_all().await {
        assert_eq!(answer, Ok(()));
    }
    assert_eq!(fixture.issuer.request_count(), 2);
}

#[tokio::test]
async fn a_refresh_continues_after_its_client_disconnects() {
    let fixture = Fixture::new().await;
    fixture.issuer.publish(&["one", "two"]);
    fixture
        .issuer
        .respond_with(IssuerResponse::Delayed(Duration::from_millis(200)));
    advance(MIN_REFRESH_INTERVAL).await;
    let impatient = tokio::time::timeout(Duration::from_millis(20), fixture.accepts("two"));
    assert!(impatient.await.is_err(), "the client has disconnected");
    tokio::time::sleep(Duration::from_millis(400)).await;
    assert_eq!(fixture.accepts("two").await, Ok(()));
    assert_eq!(fixture.issuer.request_count(), 2);
}

#[tokio::test]
async fn bounds_the_requests_that_wait_for_the_issuer() {
    let fixture = Arc::new(Fixture::new().await);
    fixture.issuer.respond_with(IssuerResponse::Silent);
    advance(MIN_REFRESH_INTERVAL).await;
    let mut requests = JoinSet::new();
    for n in 0..80 {
        let fixture = fixture.clone();
        requests.spawn(async move { fixture.accepts(&format!("guessed-{n}")).await });
    }
    let answers = requests.join_all().await;
    let too_many_waiting = answers
        .iter()
        .filter(|a| **a == Err(TokenError::TooManyWaiting));
    assert_eq!(too_many_waiting.count(), 16);
    assert_eq!(
        fixture.accepts("one").await,
        Ok(()),
        "tokens with known keys do not wait"
    );
}

#[tokio::test]
async fn rejects_a_withdrawn_key_after_the_next_refresh() {
    let fixture = Fixture::new().await;
    assert_eq!(fixture.accepts("one").await, Ok(()));
    fixture.issuer.publish(&["two"]);
    assert!(fixture.keys.refresh().await.expect("refreshed"));
    assert_eq!(fixture.accepts("one").await, Err(TokenError::UnknownKey));
    let unchanged = fixture.keys.refresh().await;
    assert_eq!(unchanged, Ok(false));
}

#[tokio::test]
async fn tokens_with_unknown_keys_cause_one_refresh_per_interval() {
    let fixture = Fixture::new().await;
    for round in 2..4 {
        advance(MIN_REFRESH_INTERVAL).await;
        let mut tasks = JoinSet::new();
        for n in 0..50 {
            let token = fixture.issuer.token(&format!("guessed-{n}"), &claims());
            let keys = fixture.keys.clone();
            tasks.spawn(async move { keys.verify(token.as_bytes(), NOW).await });
        }
        for answer in tasks.join_all().await {
            assert_eq!(answer, Err(TokenError::UnknownKey));
        }
        assert_eq!(
            fixture.accepts("another").await,
            Err(TokenError::UnknownKey)
        );
        assert_eq!(fixture.issuer.request_count(), round);
    }
}

#[tokio::test]
async fn uses_the_old_keys_while_the_issuer_is_down() {
    let fixture = Fixture::new().await;
    let large = format!("{{\"keys\":[],\"more\":\"{}\"}}", "x".repeat(300_000));
    let elsewhere = "302 Found\r\nLocation: http://127.0.0.1:1/\r\n";
    for (answering, why) in [
        (IssuerResponse::Disconnect, "connection"),
        (
            IssuerResponse::Custom("500 Broken\r\n", String::new()),
            "500",
        ),
        (IssuerResponse::Custom(elsewhere, String::new()), "302"),
        (
            IssuerResponse::Custom("200 OK\r\n", "<html>".into()),
            "not a JWKS",
        ),
        (
            IssuerResponse::Custom("200 OK\r\n", "{\"keys\":[]}".into()),
            "no key",
        ),
        (IssuerResponse::Custom("200 OK\r\n", large), "length limit"),
        (IssuerResponse::Silent, "no answer within 3s"),
    ] {
        fixture.issuer.respond_with(answering.clone());
        advance(MIN_REFRESH_INTERVAL).await;
        assert_eq!(fixture.accepts("two").await, Err(TokenError::UnknownKey));
        assert_eq!(fixture.accepts("one").await, Ok(()), "{answering:?}");
        let error = fixture.keys.refresh().await.expect_err("it is down");
        let text = error.to_string();
        assert!(text.contains(why) && text.contains("/jwks.json"), "{text}");
    }
    fixture.issuer.respond_with(IssuerResponse::Keys);
    fixture.issuer.publish(&["two"]);
    advance(MIN_REFRESH_INTERVAL).await;
    assert_eq!(fixture.accepts("two").await, Ok(()), "it is back");
}

#[tokio::test]
async fn skips_keys_of_other_kinds() {
    let fixture = Fixture::new().await;
    let issuer = &fixture.issuer;
    let (mut encryption, mut no_kind) = (issuer.key("encryption"), issuer.key("nameless"));
    encryption["use"] = "enc".into();
    no_kind["kty"] = "unheard of".into();
    let secret =
        json!({ "kid": "secret", "kty": "oct", "alg": "HS256", "k": "c2VjcmV0".repeat(8) });
    let keys = json!([
        encryption,
        issuer.key("one"),
        no_kind,
        secret,
        7,
        issuer.key("two")
    ]);
    issuer.publish_set(json!({ "keys": keys }));
    fixture.keys.refresh().await.expect("two keys are valid");
    for (key, answer) in [
        ("one", Ok(())),
        ("two", Ok(())),
        ("encryption", Err(TokenError::UnknownKey)),
        ("secret", Err(TokenError::UnknownKey)),
    ] {
        assert_eq!(fixture.accepts(key).await, answer, "{key}");
    }
    issuer.publish_set(json!({ "keys": [encryption] }));
    fixture.keys.refresh().await.expect_err("none of them is");
    assert_eq!(
        fixture.accepts("one").await,
        Ok(()),
        "the old keys are used"
    );
}

#[tokio::test]
async fn an_rsa_key_without_alg_is_for_rs256() {
    // The key of RFC 7515, appendix A.2, as some issuers publish theirs.
    let n = "ofgWCuLjybRlzo0tZWJjNiuSfb4p4fAkd_wWJcyQoTbji9k0l8W26mPddxHmfHQp-Vaw-4qPCJrcS2mJPMEzP1Pt0Bm4d4QlL-yRT\
             -SFd2lZS-pCgNMsD1W_YpRPEwOWvG6b32690r2jZ47soMZo9wGzjb_7OMg0LOL-bSf63kpaSHSXndS5z5rexMdbBYUsLA9e-KXBdQOS\
             -UTo7WTBEMa2R2CapHg665xsmtdVMTBQY4uDZlxvb3qCo5ZwKh9kG4LT6_I5IhlJH7aGhyxXFvUK-DWNmoudF8NAco9_h9iaGNj8q2e\
             thFkMLs91kzk2PAcDTW9gb54h4FRWyuXpoQ";
    let set = |key: Value| json!({ "keys": [key] }).to_string();
    let key = json!({ "kid": "rsa", "kty": "RSA", "n": n.replace(' ', ""), "e": "AQAB" });
    let published = read_published_jwks(set(key.clone()).as_bytes()).expect("a key");
    assert_eq!((published.keys.len(), published.rejected.len()), (1, 0));
    assert!(
        read_jwks(set(key).as_bytes()).is_err(),
        "a file needs `alg`"
    );
}

#[tokio::test]
async fn authentication_is_unavailable_without_keys() {
    let fixture = Fixture::new().await;
    fixture.issuer.respond_with(IssuerResponse::Disconnect);
    let settings = JwtSettings {
        issuer: "issuer".into(),
        audience: "keywright".into(),
        organization_claim: "org".into(),
    };
    let verifier = Arc::new(JwtVerifier::without_keys(settings));
    let url = JwksClient::new(&fixture.issuer.url(), None).expect("a URL");
    let keys = Arc::new(JwksRefresher::new(url, verifier.clone(), |_| {}));
    keys.refresh().await.expect_err("it is down");
    let clock = Arc::new(ManualClock::at(NOW));
    let auth = CredentialAuth::new(Some(Tokens::Published(keys.clone())), None, clock);
    let token = fixture.issuer.token("one", &claims());
    let credentials = Credentials {
        bearer: Some(Secret::new(token)),
        api_key: None,
    };
    let answer = auth.authenticate(&credentials).await;
    assert!(
        matches!(answer, Err(AuthError::Unavailable(_))),
        "{answer:?}"
    );
    fixture.issuer.respond_with(IssuerResponse::Keys);
    advance(MIN_REFRESH_INTERVAL).await;
    auth.authenticate(&credentials).await.expect("alice");
    assert!(fixture.verifier.has_keys() && verifier.has_keys());
}

#[tokio::test]
async fn follows_the_keys_after_the_issuer_was_down() {
    let fixture = Fixture::new().await;
    let (keys, every) = (fixture.keys.clone(), Duration::from_millis(50));
    let following = tokio::spawn(async move { keys.follow(every).await });
    let becomes = async |key: &str| {
        while fixture.verifier_accepts(key).is_err() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    fixture.issuer.publish(&["two"]);
    becomes("two").await;
    fixture.issuer.respond_with(IssuerResponse::Disconnect);
    let asked = fixture.issuer.request_count();
    while fixture.issuer.request_count() < asked + 2 {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    fixture.issuer.respond_with(IssuerResponse::Keys);
    fixture.issuer.publish(&["three"]);
    becomes("three").await;
    following.abort();
}

#[tokio::test]
async fn checks_the_certificate_of_the_server() {
    let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).expect("a certificate");
    let key = PrivateKeyDer::try_from(made.signing_key.serialize_der()).expect("a key");
    let provider = Arc::new(tokio_rustls::rustls::crypto::aws_lc_rs::default_provider());
    let config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .expect("versions")
        .with_no_client_auth()
        .with_single_cert(vec![made.cert.der().clone()], key)
        .expect("a server");
    let issuer = Issuer::start(Some(config)).await;
    issuer.publish(&["one"]);
    let folder = tempfile::tempdir().expect("a folder");
    let ca = folder.path().join("ca.pem");
    std::fs::write(&ca, made.cert.pem()).expect("written");
    let fetch = async |host: &str, ca: Option<&std::path::Path>| {
        let url = JwksClient::new(&issuer.url_at(host), ca).expect("a URL");
        url.fetch().await
    };
    fetch("localhost", Some(&ca)).await.expect("it is trusted");
    for (host, ca) in [("localhost", None), ("127.0.0.1", Some(&*ca))] {
        let error = fetch(host, ca).await.expect_err("it is not");
        assert!(error.to_string().contains("certificate"), "{error}");
    }
    let missing = JwksClient::new(
        "https://issuer.example/",
        Some(&folder.path().join("no.pem")),
    );
    let error = missing.err().expect("there is no such file").to_string();
    assert!(error.contains("no.pem"), "{error}");
}

#[test]
fn rejects_unsafe_urls() {
    for (url, why) in [
        ("no url at all", "not a URL"),
        ("/jwks.json", "has no host"),
        ("http://issuer.example/jwks.json", "https://"),
        ("ftp://issuer.example/jwks.json", "https://"),
        ("https://user:secret@issuer.example/", "a password"),
        ("http://user:secret@issuer.example/", "a password"),
        ("https://user:sec ret@issuer.example/", "a password"),
        ("user:secret@issuer.example/jwks.json", "a password"),
    ] {
        let error = JwksClient::new(url, None).err().expect(url).to_string();
        assert!(error.contains(why), "{error}");
        assert!(
            !error.contains("secret") && !error.contains("ret@"),
            "{error}"
        );
    }
    for url in [
        "https://issuer.example/jwks.json",
        "https://issuer.example/realms/@home/jwks.json",
        "http://localhost:1/",
        "http://[::1]:1/",
    ] {
        assert!(JwksClient::new(url, None).is_ok(), "{url}");
    }
}
