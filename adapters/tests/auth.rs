//! Authentication by API keys and tokens.
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
fn accepts_a_known_api_key_until_it_expires() {
    let (acme, expiring, unknown) = (ApiKey::generate(), ApiKey::generate(), ApiKey::generate());
    let keys = ApiKeys::new([
        acme.record(organization("acme"), None),
        expiring.record(Identity::EveryOrganization, Some(NOW)),
    ]);
    let verify = |key: &str, now| keys.verify(&Secret::new(key), now);
    let proof = |key: &ApiKey, identity| Proof {
        identity,
        credential: Some(CredentialName::ApiKey(
            key.record(organization("acme"), None).masked,
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
fn rejects_a_mistyped_api_key() {
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
fn records_and_debug_output_do_not_contain_the_key() {
    let key = ApiKey::generate();
    let record = key.record(organization("acme"), None);
    let secret = &key.expose()[8..46];
    assert!(!format!("{key:?} {record:?}").contains(secret));
    assert_eq!(record.masked.chars().count(), 8 + 1 + 4);
}

#[test]
fn reads_back_a_file_of_api_keys_and_names_an_invalid_one() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("api-keys.json");
    assert_eq!(
        read_api_keys(&path).expect("a missing file has no keys"),
        []
    );
    let records = [
        ApiKey::generate().record(organization("acme"), Some(NOW)),
        ApiKey::generate().record(Identity::EveryOrganization, None),
    ];
    write_api_keys(&path, &records).expect("written");
    assert_eq!(read_api_keys(&path).expect("read"), records);
    for invalid in [
        "{}",
        "[{}]",
        r#"[{"shown":"","sha256":"00","organization":"a"}]"#,
    ] {
        std::fs::write(&path, invalid).expect("written");
        let error = read_api_keys(&path).expect_err("refused").to_string();
        assert!(error.contains("api-keys.json"), "{error}");
    }
}

#[tokio::test]
async fn both_credentials_must_be_valid() {
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
    let authenticate = |bearer: &Option<Secret>, api_key: &Option<Secret>| {
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
            key.record(organization("acme"), None).masked,
        )),
    };
    assert_eq!(
        authenticate(&token, &None).await,
        Ok(Principal::of(alice.clone()))
    );
    assert_eq!(
        authenticate(&None, &api_key).await,
        Ok(Principal::of(acme.clone()))
    );
    assert_eq!(
        authenticate(&token, &api_key).await,
        Ok(Principal::of_both(alice, acme))
    );
    for (bearer, api_key) in [
        (&None, &None),
        (&bad, &api_key),
        (&token, &bad),
        (&None, &bad),
    ] {
        let answer = authenticate(bearer, api_key).await;
        assert!(matches!(answer, Err(AuthError::Refused(_))), "{answer:?}");
    }
    clock.advance(Duration::from_secs(91));
    assert!(
        authenticate(&token, &api_key).await.is_err(),
        "the token has expired"
    );
}

#[tokio::test]
async fn distinguishes_credentials_of_one_organization() {
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
    let authenticate = async |bearer: Option<Secret>, key: Option<&ApiKey>| {
        let api_key = key.map(|key| Secret::new(key.expose()));
        let principal = auth.authenticate(&Credentials { bearer, api_key }).await;
        principal.expect("authenticated")
    };
    let shown = |key: &ApiKey| {
        let text = key.expose();
        format!("org:acme,key:{}…{}", &text[..8], &text[46..])
    };
    let (reader, writer) = (
        authenticate(service("reader"), None).await,
        authenticate(service("writer"), None).await,
    );
    assert_eq!(reader.to_string(), "org:acme,sub:reader");
    assert_eq!(writer.to_string(), "org:acme,sub:writer");
    let by_key = [
        authenticate(None, Some(&first)).await,
        authenticate(None, Some(&second)).await,
    ];
    assert_eq!(by_key[0].to_string(), shown(&first));
    assert_eq!(by_key[1].to_string(), shown(&second));
    let both = authenticate(service("writer"), Some(&first)).await;
    assert_eq!(both.to_string(), format!("{writer}+{}", shown(&first)));
    let alice = authenticate(Some(sign(&claims())), None).await;
    assert_eq!(alice.to_string(), "user:alice");
    // Permissions and idempotency records belong to the organization, not to the credential.
    for principal in [&reader, &writer, &by_key[0], &by_key[1]] {
        assert_eq!(principal.scope(), "org:acme");
        assert!(principal.identities().eq([&acme]));
    }
    assert_eq!(both.scope(), "org:acme+org:acme");
}

#[tokio::test]
async fn rejects_a_kind_that_is_not_configured() {
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
async fn in_memory_auth_accepts_registered_credentials() {
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

    fn fixture() -> (Arc<CredentialAuth>, (Secret, Identity), (Secret, Identity)) {
        let key = ApiKey::generate();
        let keys = ApiKeys::new([key.record(organization("acme"), None)]);
        let clock = Arc::new(ManualClock::at(NOW));
        let auth =
            CredentialAuth::new(Some(Tokens::Known(Arc::new(verifier()))), Some(keys), clock);
        let api_key = (Secret::new(key.expose()), organization("acme"));
        (Arc::new(auth), (sign(&claims()), user("alice")), api_key)
    }

    keywright_testkit::auth_port_cases!(fixture);
}
