//! Who is let in, and who is not.
#![cfg(feature = "auth")]

use std::sync::Arc;
use std::time::Duration;

use aws_lc_rs::encoding::AsDer;
use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair};
use jsonwebtoken::{Algorithm, EncodingKey, Header, encode};
use keywright_adapters::auth::*;
use keywright_domain::ports::{AuthError, AuthPort, Credentials, Secret};
use keywright_domain::principal::{Identity, Principal};
use keywright_domain::values::{OrganizationId, UserId};
use keywright_testkit::ManualClock;
use keywright_testkit::samples::NOW;
use serde_json::{Value, json};

const SECRET: &str = "a shared secret of more than 32 bytes";

fn settings() -> JwtSettings {
    JwtSettings {
        issuer: "https://issuer.example".into(),
        audience: "keywright".into(),
        organization_claim: "org".into(),
    }
}

fn verifier() -> JwtVerifier {
    let key = VerificationKey::Hs256(Secret::new(SECRET));
    JwtVerifier::new(key, settings()).expect("a verifier")
}

fn claims() -> Value {
    json!({
        "iss": "https://issuer.example", "aud": "keywright", "sub": "alice", "exp": NOW.as_secs() + 60
    })
}

fn with(changes: Value) -> Value {
    let mut claims = claims();
    for (claim, value) in changes.as_object().expect("an object") {
        match value {
            Value::Null => drop(claims.as_object_mut().expect("an object").remove(claim)),
            value => claims[claim] = value.clone(),
        }
    }
    claims
}

fn sign(claims: &Value) -> Secret {
    let key = EncodingKey::from_secret(SECRET.as_bytes());
    Secret::new(encode(&Header::new(Algorithm::HS256), claims, &key).expect("a token"))
}

fn user(name: &str) -> Identity {
    Identity::User(UserId::new(name).expect("a user id"))
}

fn organization(name: &str) -> Identity {
    Identity::Organization(OrganizationId::new(name).expect("an organization id"))
}

#[test]
fn a_token_is_its_subject_or_its_organization() {
    let verify = |claims: &Value| verifier().verify(&sign(claims), NOW);
    assert_eq!(verify(&claims()), Ok(user("alice")));
    assert_eq!(
        verify(&with(json!({ "org": "acme" }))),
        Ok(organization("acme"))
    );
    assert_eq!(
        verify(&with(json!({ "aud": ["other", "keywright"] }))),
        Ok(user("alice"))
    );
}

#[test]
fn tokens_that_say_the_wrong_thing_are_refused() {
    let now = NOW.as_secs();
    for changes in [
        json!({ "iss": "https://other.example" }),
        json!({ "iss": null }),
        json!({ "aud": "other" }),
        json!({ "aud": null }),
        json!({ "sub": null }),
        json!({ "sub": "" }),
        json!({ "sub": 7 }),
        json!({ "sub": "a\nb" }),
        json!({ "exp": null }),
        json!({ "exp": now - 31 }),
        json!({ "exp": "soon" }),
        json!({ "nbf": now + 31 }),
        json!({ "nbf": "soon" }),
        json!({ "org": 7 }),
        json!({ "org": "" }),
    ] {
        let answer = verifier().verify(&sign(&with(changes.clone())), NOW);
        assert!(
            matches!(answer, Err(AuthError::Refused(_))),
            "{changes}: {answer:?}"
        );
    }
}

#[test]
fn the_clocks_may_differ_by_half_a_minute() {
    let now = NOW.as_secs();
    for changes in [json!({ "exp": now - 29 }), json!({ "nbf": now + 30 })] {
        let answer = verifier().verify(&sign(&with(changes.clone())), NOW);
        assert_eq!(answer, Ok(user("alice")), "{changes}");
    }
}

#[test]
fn forged_and_foreign_tokens_are_refused() {
    let good = sign(&claims()).expose().to_owned();
    let (head, signature) = good.rsplit_once('.').expect("three parts");
    let other = EncodingKey::from_secret(b"another secret of more than 32 bytes");
    let forged = encode(&Header::new(Algorithm::HS256), &claims(), &other).expect("a token");
    let other_algorithm = EncodingKey::from_secret(SECRET.as_bytes());
    let hs512 =
        encode(&Header::new(Algorithm::HS512), &claims(), &other_algorithm).expect("a token");
    let none = format!(
        "eyJhbGciOiJub25lIn0.{}.",
        head.split('.').nth(1).expect("claims")
    );
    let long = format!("{head}{}.{signature}", "A".repeat(9000));
    for token in [
        "",
        "a.b.c",
        head,
        &format!("{head}."),
        &forged,
        &hs512,
        &none,
        &long,
    ] {
        let answer = verifier().verify(&Secret::new(token), NOW);
        assert!(matches!(answer, Err(AuthError::Refused(_))), "{token}");
    }
}

#[test]
fn an_es256_key_verifies_es256_and_not_a_secret_made_of_it() {
    let pair = EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING).expect("a key pair");
    let point = pair.public_key().as_ref().to_vec();
    let private = pair.to_pkcs8v1().expect("a private key");
    let signer = EncodingKey::from_ec_der(private.as_ref());
    let der = pair.public_key().as_der().expect("a public key");
    let pem = pem("PUBLIC KEY", der.as_ref());
    let token = encode(&Header::new(Algorithm::ES256), &claims(), &signer).expect("a token");
    for key in [
        VerificationKey::Es256Point(point.clone()),
        VerificationKey::Es256Pem(pem.into_bytes()),
    ] {
        let verifier = JwtVerifier::new(key, settings()).expect("a verifier");
        assert_eq!(
            verifier.verify(&Secret::new(&*token), NOW),
            Ok(user("alice"))
        );
        let confused = EncodingKey::from_secret(&point);
        let token = encode(&Header::new(Algorithm::HS256), &claims(), &confused).expect("a token");
        assert!(verifier.verify(&Secret::new(token), NOW).is_err());
    }
}

fn pem(label: &str, der: &[u8]) -> String {
    use std::fmt::Write as _;
    const BASE64: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = format!("-----BEGIN {label}-----\n");
    for chunk in der.chunks(3) {
        let bits =
            chunk.iter().fold(0_u32, |b, c| b << 8 | u32::from(*c)) << (8 * (3 - chunk.len()));
        for at in 0..4 {
            let digit = (bits >> (18 - 6 * at) & 63) as usize;
            let c = if at > chunk.len() {
                '='
            } else {
                char::from(BASE64[digit])
            };
            write!(text, "{c}").expect("written");
        }
    }
    text + &format!("\n-----END {label}-----\n")
}

#[test]
fn keys_that_cannot_be_trusted_are_refused() {
    let short = VerificationKey::Hs256(Secret::new("31 bytes are one byte too short"));
    assert_eq!(
        JwtVerifier::new(short, settings()).err(),
        Some(InvalidVerifier::ShortSecret)
    );
    let none = VerificationKey::Es256Pem(b"no key".to_vec());
    assert_eq!(
        JwtVerifier::new(none, settings()).err(),
        Some(InvalidVerifier::Key)
    );
}

#[test]
fn an_api_key_is_known_by_its_hash_until_it_expires() {
    let (acme, expiring, unknown) = (ApiKey::generate(), ApiKey::generate(), ApiKey::generate());
    let keys = ApiKeys::new([
        acme.record(organization("acme"), None),
        expiring.record(Identity::EveryOrganization, Some(NOW)),
    ]);
    let verify = |key: &str, now| keys.verify(&Secret::new(key), now);
    assert_eq!(verify(acme.expose(), NOW), Ok(organization("acme")));
    let before = keywright_domain::values::Timestamp::from_millis(NOW.as_millis() - 1);
    assert_eq!(
        verify(expiring.expose(), before),
        Ok(Identity::EveryOrganization)
    );
    for key in [
        expiring.expose(),
        unknown.expose(),
        "",
        "kwk_",
        &acme.expose()[1..],
    ] {
        assert!(
            matches!(verify(key, NOW), Err(AuthError::Refused(_))),
            "{key}"
        );
    }
}

#[test]
fn a_typing_error_in_an_api_key_is_seen_without_a_look_up() {
    let key = ApiKey::generate().expose().to_owned();
    assert_eq!(key.len(), 50);
    for at in 0..key.len() {
        let mut typed = key.clone().into_bytes();
        typed[at] = if typed[at] == b'x' { b'y' } else { b'x' };
        let typed = String::from_utf8(typed).expect("text");
        assert!(ApiKey::parse(&typed).is_err(), "the character at {at}");
    }
}

#[test]
fn nothing_that_is_kept_or_shown_holds_the_key() {
    let key = ApiKey::generate();
    let record = key.record(organization("acme"), None);
    let secret = &key.expose()[8..46];
    assert!(!format!("{key:?} {record:?}").contains(secret));
    assert_eq!(record.shown.chars().count(), 8 + 1 + 4);
}

#[test]
fn a_file_of_api_keys_comes_back_and_a_broken_one_is_named() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("api-keys.json");
    assert_eq!(read_api_keys(&path).expect("no file is no key"), []);
    let records = [
        ApiKey::generate().record(organization("acme"), Some(NOW)),
        ApiKey::generate().record(Identity::EveryOrganization, None),
    ];
    write_api_keys(&path, &records).expect("written");
    assert_eq!(read_api_keys(&path).expect("read"), records);
    for broken in [
        "{}",
        "[{}]",
        r#"[{"shown":"","sha256":"00","organization":"a"}]"#,
    ] {
        std::fs::write(&path, broken).expect("written");
        let error = read_api_keys(&path).expect_err("refused").to_string();
        assert!(error.contains("api-keys.json"), "{error}");
    }
}

#[tokio::test]
async fn of_two_credentials_both_must_be_good() {
    let key = ApiKey::generate();
    let clock = ManualClock::at(NOW);
    let keys = ApiKeys::new([key.record(organization("acme"), None)]);
    let auth = CredentialAuth::new(Some(verifier()), Some(keys), Arc::new(clock.clone()));
    let (token, bad) = (Some(sign(&claims())), Some(Secret::new("x")));
    let api_key = Some(Secret::new(key.expose()));
    let ask = |bearer: &Option<Secret>, api_key: &Option<Secret>| {
        let (bearer, api_key) = (bearer.clone(), api_key.clone());
        let auth = &auth;
        async move { auth.authenticate(&Credentials { bearer, api_key }).await }
    };
    let (alice, acme) = (user("alice"), organization("acme"));
    assert_eq!(ask(&token, &None).await, Ok(Principal::of(alice.clone())));
    assert_eq!(ask(&None, &api_key).await, Ok(Principal::of(acme.clone())));
    assert_eq!(
        ask(&token, &api_key).await,
        Ok(Principal::of_both(alice, acme))
    );
    for (bearer, api_key) in [
        (&None, &None),
        (&bad, &api_key),
        (&token, &bad),
        (&None, &bad),
    ] {
        let answer = ask(bearer, api_key).await;
        assert!(matches!(answer, Err(AuthError::Refused(_))), "{answer:?}");
    }
    clock.advance(Duration::from_secs(91));
    assert!(
        ask(&token, &api_key).await.is_err(),
        "the token has expired"
    );
}

#[tokio::test]
async fn a_kind_that_is_not_configured_is_refused() {
    let auth = CredentialAuth::new(Some(verifier()), None, Arc::new(ManualClock::at(NOW)));
    let credentials = Credentials {
        bearer: Some(sign(&claims())),
        api_key: Some(Secret::new(ApiKey::generate().expose())),
    };
    assert!(auth.authenticate(&credentials).await.is_err());
}

#[tokio::test]
async fn the_fake_knows_what_it_was_told() {
    let auth = InMemoryAuth::default();
    auth.allow("token", user("alice"));
    let credentials = Credentials {
        bearer: Some(Secret::new("token")),
        api_key: None,
    };
    assert_eq!(
        auth.authenticate(&credentials).await,
        Ok(Principal::of(user("alice")))
    );
    auth.revoke("token");
    assert!(auth.authenticate(&credentials).await.is_err());
}
