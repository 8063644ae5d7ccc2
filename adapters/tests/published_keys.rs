//! The keys of tokens at a URL: they change without a restart, and while they cannot be had, the last ones serve.
#![cfg(feature = "jwks-url")]

use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use keywright_adapters::auth::*;
use keywright_domain::ports::{AuthError, AuthPort, Credentials, Secret};
use keywright_testkit::ManualClock;
use keywright_testkit::issuer::{Answering, Issuer};
use keywright_testkit::samples::NOW;
use serde_json::{Value, json};
use tokio::task::JoinSet;
use tokio_rustls::rustls::ServerConfig;
use tokio_rustls::rustls::pki_types::PrivateKeyDer;

/// How soon the issuer is asked again for an unknown key.
const APART: Duration = Duration::from_secs(10);

fn claims() -> Value {
    json!({ "iss": "issuer", "aud": "keywright", "sub": "alice", "exp": NOW.as_secs() + 60 })
}

struct Followed {
    issuer: Issuer,
    verifier: Arc<JwtVerifier>,
    keys: Arc<PublishedKeys>,
    /// What was given away to be kept.
    kept: Arc<Mutex<Vec<String>>>,
}

impl Followed {
    /// An issuer that publishes one key, and a verifier that has it.
    async fn new() -> Self {
        let issuer = Issuer::start(None).await;
        issuer.publish(&["one"]);
        let verifier = Arc::new(JwtVerifier::without_keys(JwtSettings {
            issuer: "issuer".into(),
            audience: "keywright".into(),
            organization_claim: "org".into(),
        }));
        let url = JwksUrl::new(&issuer.url(), None).expect("a URL");
        let kept: Arc<Mutex<Vec<String>>> = Arc::default();
        let keeping = kept.clone();
        let keep = move |set: &Bytes| {
            let set = String::from_utf8_lossy(set).into_owned();
            keeping.lock().expect("no panic").push(set);
        };
        let keys = Arc::new(PublishedKeys::new(url, verifier.clone(), keep));
        assert!(keys.refresh().await.expect("it is asked"));
        Self {
            issuer,
            verifier,
            keys,
            kept,
        }
    }

    async fn accepts(&self, key: &str) -> Result<(), TokenError> {
        let token = self.issuer.token(key, &claims());
        let verified = self.keys.verify(token.as_bytes(), NOW).await;
        verified.map(drop)
    }
}

impl Followed {
    /// Without asking the issuer.
    fn verifier_knows(&self, key: &str) -> Result<(), TokenError> {
        let token = self.issuer.token(key, &claims());
        self.verifier.verify(token.as_bytes(), NOW).map(drop)
    }
}

/// Lets time pass without waiting for it.
async fn pass(span: Duration) {
    tokio::time::pause();
    tokio::time::advance(span).await;
    tokio::time::resume();
}

#[tokio::test]
async fn a_new_key_is_looked_for_when_a_token_names_it() {
    let followed = Followed::new().await;
    assert_eq!(followed.accepts("one").await, Ok(()));
    followed.issuer.publish(&["one", "two"]);
    pass(APART).await;
    assert_eq!(followed.accepts("two").await, Ok(()));
    assert_eq!(followed.accepts("one").await, Ok(()));
    assert_eq!(followed.issuer.asked(), 2);
    let kept = followed.kept.lock().expect("no panic").clone();
    assert!(kept.len() == 2 && kept[1].contains("\"two\""), "{kept:?}");
}

#[tokio::test]
async fn requests_name_their_program_and_what_they_accept() {
    let followed = Followed::new().await;
    let head = followed.issuer.last_request().to_ascii_lowercase();
    let version = env!("CARGO_PKG_VERSION");
    for header in [
        format!("\r\nuser-agent: keywright/{version}\r\n"),
        "\r\naccept: application/jwk-set+json, application/json\r\n".into(),
    ] {
        assert!(head.contains(&header), "{head}");
    }
}

#[tokio::test]
async fn a_new_key_without_a_kid_is_looked_for_when_no_old_one_fits() {
    let followed = Followed::new().await;
    let publish_without_kid = |name: &str| {
        let mut key = followed.issuer.key(name);
        key["kid"] = Value::Null;
        followed.issuer.publish_set(json!({ "keys": [key] }));
    };
    publish_without_kid("one");
    assert!(followed.keys.refresh().await.expect("asked"));
    assert_eq!(followed.accepts("one").await, Ok(()));
    publish_without_kid("two");
    pass(APART).await;
    assert_eq!(followed.accepts("two").await, Ok(()));
    assert_eq!(followed.issuer.asked(), 3);
    assert_eq!(followed.accepts("three").await, Err(TokenError::Forged));
    assert_eq!(followed.issuer.asked(), 3, "once in a while");
}

#[tokio::test]
async fn whoever_comes_while_the_issuer_is_asked_has_its_answer_too() {
    let followed = Arc::new(Followed::new().await);
    followed.issuer.publish(&["one", "two"]);
    followed
        .issuer
        .answer(Answering::Slow(Duration::from_millis(300)));
    pass(APART).await;
    let mut asking = JoinSet::new();
    for _ in 0..20 {
        let followed = followed.clone();
        asking.spawn(async move { followed.accepts("two").await });
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    for answer in asking.join_all().await {
        assert_eq!(answer, Ok(()));
    }
    assert_eq!(followed.issuer.asked(), 2);
}

#[tokio::test]
async fn who_hangs_up_leaves_the_issuer_s_answer_to_the_others() {
    let followed = Followed::new().await;
    followed.issuer.publish(&["one", "two"]);
    followed
        .issuer
        .answer(Answering::Slow(Duration::from_millis(200)));
    pass(APART).await;
    let hurried = tokio::time::timeout(Duration::from_millis(20), followed.accepts("two"));
    assert!(hurried.await.is_err(), "it hung up");
    tokio::time::sleep(Duration::from_millis(400)).await;
    assert_eq!(followed.accepts("two").await, Ok(()));
    assert_eq!(followed.issuer.asked(), 2);
}

#[tokio::test]
async fn so_many_wait_for_the_issuer_and_no_more() {
    let followed = Arc::new(Followed::new().await);
    followed.issuer.answer(Answering::Silent);
    pass(APART).await;
    let mut asking = JoinSet::new();
    for n in 0..80 {
        let followed = followed.clone();
        asking.spawn(async move { followed.accepts(&format!("guessed-{n}")).await });
    }
    let answers = asking.join_all().await;
    let not_asked = answers.iter().filter(|a| **a == Err(TokenError::NotAsked));
    assert_eq!(not_asked.count(), 16);
    assert_eq!(
        followed.accepts("one").await,
        Ok(()),
        "known keys wait for nobody"
    );
}

#[tokio::test]
async fn a_key_that_is_published_no_longer_is_refused_from_the_next_look_on() {
    let followed = Followed::new().await;
    assert_eq!(followed.accepts("one").await, Ok(()));
    followed.issuer.publish(&["two"]);
    assert!(followed.keys.refresh().await.expect("asked"));
    assert_eq!(followed.accepts("one").await, Err(TokenError::UnknownKey));
    let nothing_new = followed.keys.refresh().await;
    assert_eq!(nothing_new, Ok(false));
}

#[tokio::test]
async fn many_tokens_of_unknown_keys_ask_once_in_a_while() {
    let followed = Followed::new().await;
    for round in 2..4 {
        pass(APART).await;
        let mut tasks = JoinSet::new();
        for n in 0..50 {
            let token = followed.issuer.token(&format!("guessed-{n}"), &claims());
            let keys = followed.keys.clone();
            tasks.spawn(async move { keys.verify(token.as_bytes(), NOW).await });
        }
        for answer in tasks.join_all().await {
            assert_eq!(answer, Err(TokenError::UnknownKey));
        }
        assert_eq!(
            followed.accepts("another").await,
            Err(TokenError::UnknownKey)
        );
        assert_eq!(followed.issuer.asked(), round);
    }
}

#[tokio::test]
async fn while_the_issuer_is_down_the_old_keys_serve() {
    let followed = Followed::new().await;
    let large = format!("{{\"keys\":[],\"more\":\"{}\"}}", "x".repeat(300_000));
    let elsewhere = "302 Found\r\nLocation: http://127.0.0.1:1/\r\n";
    for (answering, why) in [
        (Answering::Down, "connection"),
        (Answering::Other("500 Broken\r\n", String::new()), "500"),
        (Answering::Other(elsewhere, String::new()), "302"),
        (Answering::Other("200 OK\r\n", "<html>".into()), "no JWKS"),
        (
            Answering::Other("200 OK\r\n", "{\"keys\":[]}".into()),
            "no key",
        ),
        (Answering::Other("200 OK\r\n", large), "length limit"),
        (Answering::Silent, "no answer within 3s"),
    ] {
        followed.issuer.answer(answering.clone());
        pass(APART).await;
        assert_eq!(followed.accepts("two").await, Err(TokenError::UnknownKey));
        assert_eq!(followed.accepts("one").await, Ok(()), "{answering:?}");
        let error = followed.keys.refresh().await.expect_err("it is down");
        let text = error.to_string();
        assert!(text.contains(why) && text.contains("/jwks.json"), "{text}");
    }
    followed.issuer.answer(Answering::Keys);
    followed.issuer.publish(&["two"]);
    pass(APART).await;
    assert_eq!(followed.accepts("two").await, Ok(()), "it is back");
}

#[tokio::test]
async fn keys_of_other_kinds_stand_beside_those_that_are_used() {
    let followed = Followed::new().await;
    let issuer = &followed.issuer;
    let (mut encryption, mut no_name) = (issuer.key("encryption"), issuer.key("nameless"));
    encryption["use"] = "enc".into();
    no_name["kty"] = "unheard of".into();
    let secret =
        json!({ "kid": "secret", "kty": "oct", "alg": "HS256", "k": "c2VjcmV0".repeat(8) });
    let keys = json!([
        encryption,
        issuer.key("one"),
        no_name,
        secret,
        7,
        issuer.key("two")
    ]);
    issuer.publish_set(json!({ "keys": keys }));
    followed.keys.refresh().await.expect("two of them are good");
    for (key, answer) in [
        ("one", Ok(())),
        ("two", Ok(())),
        ("encryption", Err(TokenError::UnknownKey)),
        ("secret", Err(TokenError::UnknownKey)),
    ] {
        assert_eq!(followed.accepts(key).await, answer, "{key}");
    }
    issuer.publish_set(json!({ "keys": [encryption] }));
    followed.keys.refresh().await.expect_err("none of them is");
    assert_eq!(followed.accepts("one").await, Ok(()), "the old ones serve");
}

#[tokio::test]
async fn an_rsa_key_that_does_not_say_for_what_is_one_for_rs256() {
    // The key of RFC 7515, appendix A.2, as some issuers publish theirs.
    let n = "ofgWCuLjybRlzo0tZWJjNiuSfb4p4fAkd_wWJcyQoTbji9k0l8W26mPddxHmfHQp-Vaw-4qPCJrcS2mJPMEzP1Pt0Bm4d4QlL-yRT\
             -SFd2lZS-pCgNMsD1W_YpRPEwOWvG6b32690r2jZ47soMZo9wGzjb_7OMg0LOL-bSf63kpaSHSXndS5z5rexMdbBYUsLA9e-KXBdQOS\
             -UTo7WTBEMa2R2CapHg665xsmtdVMTBQY4uDZlxvb3qCo5ZwKh9kG4LT6_I5IhlJH7aGhyxXFvUK-DWNmoudF8NAco9_h9iaGNj8q2e\
             thFkMLs91kzk2PAcDTW9gb54h4FRWyuXpoQ";
    let set = |key: Value| json!({ "keys": [key] }).to_string();
    let key = json!({ "kid": "rsa", "kty": "RSA", "n": n.replace(' ', ""), "e": "AQAB" });
    let (keys, left_out) = read_published_jwks(set(key.clone()).as_bytes()).expect("a key");
    assert_eq!((keys.len(), left_out.len()), (1, 0));
    assert!(
        read_jwks(set(key).as_bytes()).is_err(),
        "in a file, it must say so"
    );
}

#[tokio::test]
async fn before_there_are_any_keys_tokens_wait() {
    let followed = Followed::new().await;
    followed.issuer.answer(Answering::Down);
    let settings = JwtSettings {
        issuer: "issuer".into(),
        audience: "keywright".into(),
        organization_claim: "org".into(),
    };
    let verifier = Arc::new(JwtVerifier::without_keys(settings));
    let url = JwksUrl::new(&followed.issuer.url(), None).expect("a URL");
    let keys = Arc::new(PublishedKeys::new(url, verifier.clone(), |_| {}));
    keys.refresh().await.expect_err("it is down");
    let clock = Arc::new(ManualClock::at(NOW));
    let auth = CredentialAuth::new(Some(Tokens::Published(keys.clone())), None, clock);
    let token = followed.issuer.token("one", &claims());
    let credentials = Credentials {
        bearer: Some(Secret::new(token)),
        api_key: None,
    };
    let answer = auth.authenticate(&credentials).await;
    assert!(
        matches!(answer, Err(AuthError::Unavailable(_))),
        "{answer:?}"
    );
    followed.issuer.answer(Answering::Keys);
    pass(APART).await;
    auth.authenticate(&credentials).await.expect("alice");
    assert!(followed.verifier.has_keys() && verifier.has_keys());
}

#[tokio::test]
async fn keys_are_followed_also_after_the_issuer_was_down() {
    let followed = Followed::new().await;
    let (keys, every) = (followed.keys.clone(), Duration::from_millis(50));
    let following = tokio::spawn(async move { keys.follow(every).await });
    let becomes = async |key: &str| {
        while followed.verifier_knows(key).is_err() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    followed.issuer.publish(&["two"]);
    becomes("two").await;
    followed.issuer.answer(Answering::Down);
    let asked = followed.issuer.asked();
    while followed.issuer.asked() < asked + 2 {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    followed.issuer.answer(Answering::Keys);
    followed.issuer.publish(&["three"]);
    becomes("three").await;
    following.abort();
}

#[tokio::test]
async fn over_tls_the_server_s_certificate_is_checked() {
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
        let url = JwksUrl::new(&issuer.url_at(host), ca).expect("a URL");
        url.fetch().await
    };
    fetch("localhost", Some(&ca)).await.expect("it is trusted");
    for (host, ca) in [("localhost", None), ("127.0.0.1", Some(&*ca))] {
        let error = fetch(host, ca).await.expect_err("it is not");
        assert!(error.to_string().contains("certificate"), "{error}");
    }
    let missing = JwksUrl::new(
        "https://issuer.example/",
        Some(&folder.path().join("no.pem")),
    );
    let error = missing.err().expect("there is no such file").to_string();
    assert!(error.contains("no.pem"), "{error}");
}

#[test]
fn nobody_can_answer_in_the_issuer_s_place() {
    for (url, why) in [
        ("no url at all", "no URL"),
        ("/jwks.json", "no host"),
        ("http://issuer.example/jwks.json", "https://"),
        ("ftp://issuer.example/jwks.json", "https://"),
        ("https://user:password@issuer.example/", "password"),
    ] {
        let error = JwksUrl::new(url, None).err().expect(url).to_string();
        assert!(error.contains(why), "{error}");
    }
    for url in [
        "https://issuer.example/jwks.json",
        "http://localhost:1/",
        "http://[::1]:1/",
    ] {
        assert!(JwksUrl::new(url, None).is_ok(), "{url}");
    }
}
