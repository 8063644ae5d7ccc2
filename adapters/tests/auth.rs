//! Who is let in, and who is not.
#![cfg(feature = "auth")]

use std::sync::Arc;
use std::time::Duration;

use jsonwebtoken::{EncodingKey, Header, encode};
use keywright_adapters::auth::*;
use keywright_domain::model::{CredentialName, Identity, OrganizationId, Principal, Proof, UserId};
use keywright_domain::ports::{AuthError, AuthPort, Credentials, Secret};
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
    let key = VerificationKey::secret(None, Algorithm::Hs256, &Secret::new(SECRET));
    JwtVerifier::new(vec![key.expect("a key")], settings()).expect("a verifier")
}

fn claims() -> Value {
    json!({
        "iss": "https://issuer.example", "aud": "keywright", "sub": "alice", "exp": NOW.as_secs() + 60
    })
}

fn sign(claims: &Value) -> Secret {
    let key = EncodingKey::from_secret(SECRET.as_bytes());
    Secret::new(
        encode(&Header::new(jsonwebtoken::Algorithm::HS256), claims, &key).expect("a token"),
    )
}

fn user(name: &str) -> Identity {
    Identity::User(UserId::new(name).expect("a user id"))
}

fn organization(name: &str) -> Identity {
    Identity::Organization(OrganizationId::new(name).expect("an organization id"))
}

#[test]
fn an_api_key_is_known_by_its_hash_until_it_expires() {
    let (acme, expiring, unknown) = (ApiKey::generate(), ApiKey::generate(), ApiKey::generate());
    let keys = ApiKeys::new([
        acme.record(organization("acme"), None),
        expiring.record(Identity::EveryOrganization, Some(NOW)),
    ]);
    let verify = |key: &str, now| keys.verify(&Secret::new(key), now);
    let proof = |key: &ApiKey, identity| Proof {
        identity,
        credential: Some(CredentialName::ApiKey(
            key.record(organization("acme"), None).shown,
        )),
    };
    assert_eq!(
        verify(acme.expose(), NOW),
        Ok(proof(&acme, organization("acme")))
    );
    let before = keywright_domain::model::Timestamp::from_millis(NOW.as_millis() - 1);
    assert_eq!(
        verify(expiring.expose(), before),
        Ok(proof(&expiring, Identity::EveryOrganization))
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
    let auth = CredentialAuth::new(
        Some(Tokens::Known(Arc::new(verifier()))),
        Some(keys),
        Arc::new(clock.clone()),
    );
    let (token, bad) = (Some(sign(&claims())), Some(Secret::new("x")));
    let api_key = Some(Secret::new(key.expose()));
    let ask = |bearer: &Option<Secret>, api_key: &Option<Secret>| {
        let (bearer, api_key) = (bearer.clone(), api_key.clone());
        let auth = &auth;
        async move { auth.authenticate(&Credentials { bearer, api_key }).await }
    };
    let alice = Proof {
        identity: user("alice"),
        credential: Some(CredentialName::Subject(
            UserId::new("alice").expect("an id"),
        )),
    };
    let acme = Proof {
        identity: organization("acme"),
        credential: Some(CredentialName::ApiKey(
            key.record(organization("acme"), None).shown,
        )),
    };
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
async fn credentials_of_one_organization_are_told_apart_without_a_secret() {
    let (first, second) = (ApiKey::generate(), ApiKey::generate());
    let acme = organization("acme");
    let keys = [&first, &second].map(|key| key.record(acme.clone(), None));
    let tokens = Some(Tokens::Known(Arc::new(verifier())));
    let clock = Arc::new(ManualClock::at(NOW));
    let auth = CredentialAuth::new(tokens, Some(ApiKeys::new(keys)), clock);
    let service = |subject: &str| {
        let mut claims = claims();
        claims["org"] = "acme".into();
        claims["sub"] = subject.into();
        Some(sign(&claims))
    };
    let ask = async |bearer: Option<Secret>, key: Option<&ApiKey>| {
        let api_key = key.map(|key| Secret::new(key.expose()));
        let asked = auth.authenticate(&Credentials { bearer, api_key }).await;
        asked.expect("let in")
    };
    let shown = |key: &ApiKey| {
        let text = key.expose();
        format!("org:acme,key:{}…{}", &text[..8], &text[46..])
    };
    let (reader, writer) = (
        ask(service("reader"), None).await,
        ask(service("writer"), None).await,
    );
    assert_eq!(reader.to_string(), "org:acme,sub:reader");
    assert_eq!(writer.to_string(), "org:acme,sub:writer");
    let by_key = [
        ask(None, Some(&first)).await,
        ask(None, Some(&second)).await,
    ];
    assert_eq!(by_key[0].to_string(), shown(&first));
    assert_eq!(by_key[1].to_string(), shown(&second));
    let both = ask(service("writer"), Some(&first)).await;
    assert_eq!(both.to_string(), format!("{writer}+{}", shown(&first)));
    let alice = ask(Some(sign(&claims())), None).await;
    assert_eq!(alice.to_string(), "user:alice");
    // What is allowed to an organization, and kept for it, is so for all of its credentials.
    for principal in [&reader, &writer, &by_key[0], &by_key[1]] {
        assert_eq!(principal.scope(), "org:acme");
        assert!(principal.identities().eq([&acme]));
    }
    assert_eq!(both.scope(), "org:acme+org:acme");
}

#[tokio::test]
async fn a_kind_that_is_not_configured_is_refused() {
    let auth = CredentialAuth::new(
        Some(Tokens::Known(Arc::new(verifier()))),
        None,
        Arc::new(ManualClock::at(NOW)),
    );
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

mod contract {
    use super::*;

    fn fresh() -> (Arc<CredentialAuth>, (Secret, Identity), (Secret, Identity)) {
        let key = ApiKey::generate();
        let keys = ApiKeys::new([key.record(organization("acme"), None)]);
        let clock = Arc::new(ManualClock::at(NOW));
        let auth =
            CredentialAuth::new(Some(Tokens::Known(Arc::new(verifier()))), Some(keys), clock);
        let api_key = (Secret::new(key.expose()), organization("acme"));
        (Arc::new(auth), (sign(&claims()), user("alice")), api_key)
    }

    keywright_testkit::auth_port_cases!(fresh);
}
