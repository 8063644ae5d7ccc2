//! Which tokens are accepted, and each attack by its name.
#![cfg(feature = "auth")]

use std::time::Duration;

use aws_lc_rs::encoding::AsDer;
use aws_lc_rs::rsa::KeySize;
use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_FIXED_SIGNING, ECDSA_P384_SHA384_FIXED_SIGNING, EcdsaKeyPair, Ed25519KeyPair,
    KeyPair,
};
use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use jsonwebtoken::{Algorithm as Signing, EncodingKey, crypto};
use keywright_adapters::auth::*;
use keywright_domain::ports::{Clock, Secret};
use keywright_domain::principal::Identity;
use keywright_domain::values::{OrganizationId, Timestamp, UserId};
use keywright_testkit::ManualClock;
use keywright_testkit::samples::NOW;
use proptest::prelude::*;
use serde_json::{Value, json};

const SECRET: &[u8] =
    b"a secret of the tests, which has more than sixty-four bytes in all, as HS512 needs";

fn settings() -> JwtSettings {
    JwtSettings {
        issuer: "https://issuer.example".into(),
        audience: "keywright".into(),
        organization_claim: "org".into(),
    }
}

fn secret_key(id: Option<&str>, algorithm: Algorithm) -> VerificationKey {
    let secret = Secret::new(std::str::from_utf8(SECRET).expect("text"));
    VerificationKey::secret(id.map(str::to_owned), algorithm, &secret).expect("a key")
}

fn verifier() -> JwtVerifier {
    JwtVerifier::new(vec![secret_key(None, Algorithm::Hs256)], settings()).expect("a verifier")
}

fn claims() -> Value {
    json!({
        "iss": "https://issuer.example", "aud": "keywright", "sub": "alice", "exp": NOW.as_secs() + 60
    })
}

/// Claims with some changed, and those that are null taken away.
fn with(changes: &Value) -> String {
    let mut claims = claims();
    for (claim, value) in changes.as_object().expect("an object") {
        claims[claim] = value.clone();
    }
    claims
        .as_object_mut()
        .expect("an object")
        .retain(|_, value| !value.is_null());
    claims.to_string()
}

/// A token of exactly this header and these claims, signed well.
fn signed(header: &str, claims: &str, key: &EncodingKey, signing: Signing) -> String {
    let encoded = |text: &str| URL_SAFE_NO_PAD.encode(text);
    let message = format!("{}.{}", encoded(header), encoded(claims));
    let signature = crypto::sign(message.as_bytes(), key, signing).expect("a signature");
    format!("{message}.{signature}")
}

fn hs256(header: &str, claims: &str) -> String {
    signed(
        header,
        claims,
        &EncodingKey::from_secret(SECRET),
        Signing::HS256,
    )
}

fn good() -> String {
    hs256(r#"{"alg":"HS256"}"#, &claims().to_string())
}

fn verify(token: &str) -> Result<Identity, Refusal> {
    let verified = verifier().verify(token.as_bytes(), NOW);
    verified.map(|verified| verified.identity)
}

/// What becomes of a token with this header.
fn with_header(header: &str) -> Result<Identity, Refusal> {
    verify(&hs256(header, &claims().to_string()))
}

/// What becomes of a token with these claims changed.
fn with_claims(changes: Value) -> Result<Identity, Refusal> {
    verify(&hs256(r#"{"alg":"HS256"}"#, &with(&changes)))
}

fn alice() -> Identity {
    Identity::User(UserId::new("alice").expect("a user id"))
}

fn pem(label: &str, der: &[u8]) -> String {
    format!(
        "-----BEGIN {label}-----\n{}\n-----END {label}-----\n",
        STANDARD.encode(der)
    )
}

#[test]
fn a_token_is_its_subject_or_its_organization() {
    let acme = Identity::Organization(OrganizationId::new("acme").expect("an id"));
    assert_eq!(with_claims(json!({})), Ok(alice()));
    assert_eq!(with_claims(json!({ "org": "acme" })), Ok(acme));
    assert_eq!(
        with_claims(json!({ "aud": ["other", "keywright"] })),
        Ok(alice())
    );
    assert_eq!(
        with_claims(json!({ "exp": NOW.as_secs() as f64 + 0.5 })),
        Ok(alice())
    );
    assert_eq!(with_header(r#"{"alg":"HS256","typ":"JWT"}"#), Ok(alice()));
    assert_eq!(
        with_header(r#"{"alg":"HS256","typ":"at+jwt","x5t":"ignored"}"#),
        Ok(alice())
    );
}

#[test]
fn the_clocks_may_differ_by_half_a_minute_and_no_more() {
    let now = NOW.as_secs();
    for (claim, at, ahead) in [
        ("exp", now - 29, now - 30),
        ("nbf", now + 30, now + 31),
        ("iat", now + 30, now + 31),
    ] {
        assert_eq!(
            with_claims(json!({ claim: at })),
            Ok(alice()),
            "{claim} {at}"
        );
        assert!(
            with_claims(json!({ claim: ahead })).is_err(),
            "{claim} {ahead}"
        );
    }
}

/// Each algorithm with a key of its own, as a PEM and as a JWK.
#[test]
fn every_algorithm_verifies_its_own_key() {
    let es256 = EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING).expect("a key pair");
    let es384 = EcdsaKeyPair::generate(&ECDSA_P384_SHA384_FIXED_SIGNING).expect("a key pair");
    let ed = Ed25519KeyPair::generate().expect("a key pair");
    let rsa = aws_lc_rs::rsa::KeyPair::generate(KeySize::Rsa2048).expect("a key pair");
    let public = |der: &[u8]| pem("PUBLIC KEY", der).into_bytes();
    let private = |der: &[u8]| pem("PRIVATE KEY", der).into_bytes();
    let rsa_pem = public(rsa.public_key().as_der().expect("DER").as_ref());
    let rsa_private = rsa.as_der().expect("DER");
    let rsa_signer = EncodingKey::from_rsa_pem(&private(rsa_private.as_ref())).expect("a key");
    let es256_der = es256.to_pkcs8v1().expect("DER");
    let es384_der = es384.to_pkcs8v1().expect("DER");
    let ed_der = ed.to_pkcs8().expect("DER");
    let cases = [
        (
            Algorithm::Rs256,
            Signing::RS256,
            rsa_pem.clone(),
            rsa_signer.clone(),
        ),
        (Algorithm::Ps256, Signing::PS256, rsa_pem, rsa_signer),
        (
            Algorithm::Es256,
            Signing::ES256,
            public(es256.public_key().as_der().expect("DER").as_ref()),
            EncodingKey::from_ec_der(es256_der.as_ref()),
        ),
        (
            Algorithm::Es384,
            Signing::ES384,
            public(es384.public_key().as_der().expect("DER").as_ref()),
            EncodingKey::from_ec_der(es384_der.as_ref()),
        ),
        (
            Algorithm::EdDsa,
            Signing::EdDSA,
            public(ed.public_key().as_der().expect("DER").as_ref()),
            EncodingKey::from_ed_der(ed_der.as_ref()),
        ),
    ];
    for (algorithm, signing, pem, signer) in &cases {
        let key = VerificationKey::pem(None, *algorithm, pem).expect("a key");
        let verifier = JwtVerifier::new(vec![key], settings()).expect("a verifier");
        let header = format!(r#"{{"alg":"{algorithm}"}}"#);
        let token = signed(&header, &claims().to_string(), signer, *signing);
        let verified = verifier.verify(token.as_bytes(), NOW).map(|v| v.identity);
        assert_eq!(verified, Ok(alice()), "{algorithm}");
        // The same signature under another name.
        for (other, ..) in cases.iter().filter(|(other, ..)| other != algorithm) {
            let header = format!(r#"{{"alg":"{other}"}}"#);
            let token = signed(&header, &claims().to_string(), signer, *signing);
            assert_eq!(
                verifier.verify(token.as_bytes(), NOW),
                Err(Refusal::WrongAlgorithm)
            );
        }
        // A key for another curve, or none at all.
        for (other, ..) in cases.iter().filter(|(other, ..)| other != algorithm) {
            let same_kind = [*algorithm, *other]
                .iter()
                .all(|a| matches!(a, Algorithm::Rs256 | Algorithm::Ps256));
            let taken = VerificationKey::pem(None, *other, pem).is_ok();
            assert_eq!(taken, same_kind, "{algorithm} key for {other}");
        }
    }
    for (algorithm, signing) in [
        (Algorithm::Hs256, Signing::HS256),
        (Algorithm::Hs384, Signing::HS384),
        (Algorithm::Hs512, Signing::HS512),
    ] {
        let verifier = JwtVerifier::new(vec![secret_key(None, algorithm)], settings());
        let header = format!(r#"{{"alg":"{algorithm}"}}"#);
        let key = EncodingKey::from_secret(SECRET);
        let token = signed(&header, &claims().to_string(), &key, signing);
        let verified = verifier.expect("a verifier").verify(token.as_bytes(), NOW);
        assert_eq!(verified.map(|v| v.identity), Ok(alice()), "{algorithm}");
    }
}

#[test]
fn attack_no_algorithm() {
    let unsigned = |header: &str| {
        let encoded = |text: &str| URL_SAFE_NO_PAD.encode(text);
        format!("{}.{}.", encoded(header), encoded(&claims().to_string()))
    };
    for none in ["none", "None", "NONE", "nOnE"] {
        let header = format!(r#"{{"alg":"{none}"}}"#);
        assert_eq!(verify(&unsigned(&header)), Err(Refusal::Unsigned));
        assert_eq!(with_header(&header), Err(Refusal::WrongAlgorithm));
    }
    assert_eq!(
        verify(&unsigned(r#"{"alg":"HS256"}"#)),
        Err(Refusal::Unsigned)
    );
    assert_eq!(with_header(r#"{"typ":"JWT"}"#), Err(Refusal::Header));
    assert_eq!(with_header(r#"{"alg":256}"#), Err(Refusal::Header));
    assert_eq!(with_header(r#"{"alg":null}"#), Err(Refusal::Header));
}

#[test]
fn attack_a_public_key_for_a_secret() {
    let pair = EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING).expect("a key pair");
    let point = pair.public_key().as_ref();
    let public = pem(
        "PUBLIC KEY",
        pair.public_key().as_der().expect("DER").as_ref(),
    );
    let verifier = JwtVerifier::new(vec![VerificationKey::es256_point(None, point)], settings());
    let verifier = verifier.expect("a verifier");
    for secret in [point, public.as_bytes()] {
        let key = EncodingKey::from_secret(secret);
        for header in [r#"{"alg":"HS256"}"#, r#"{"alg":"ES256"}"#] {
            let token = signed(header, &claims().to_string(), &key, Signing::HS256);
            assert!(verifier.verify(token.as_bytes(), NOW).is_err(), "{header}");
        }
    }
}

#[test]
fn attack_another_algorithm_of_the_family() {
    let key = EncodingKey::from_secret(SECRET);
    let token = signed(
        r#"{"alg":"HS512"}"#,
        &claims().to_string(),
        &key,
        Signing::HS512,
    );
    assert_eq!(verify(&token), Err(Refusal::WrongAlgorithm));
}

#[test]
fn attack_a_forged_signature() {
    let token = good();
    let other = EncodingKey::from_secret(b"another secret of more than 32 bytes, for sure");
    let forged = signed(
        r#"{"alg":"HS256"}"#,
        &claims().to_string(),
        &other,
        Signing::HS256,
    );
    assert_eq!(verify(&forged), Err(Refusal::Forged));
    let (message, signature) = token.rsplit_once('.').expect("three parts");
    for short in [&signature[..4], &signature[..40]] {
        assert_eq!(verify(&format!("{message}.{short}")), Err(Refusal::Forged));
    }
    let (header, _) = token.split_once('.').expect("three parts");
    let others = URL_SAFE_NO_PAD.encode(with(&json!({ "sub": "mallory" })));
    assert_eq!(
        verify(&format!("{header}.{others}.{signature}")),
        Err(Refusal::Forged)
    );
}

#[test]
fn attack_an_all_zero_signature() {
    let pair = EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING).expect("a key pair");
    let key = VerificationKey::es256_point(None, pair.public_key().as_ref());
    let verifier = JwtVerifier::new(vec![key], settings()).expect("a verifier");
    let encoded = |text: &str| URL_SAFE_NO_PAD.encode(text);
    let message = format!(
        "{}.{}",
        encoded(r#"{"alg":"ES256"}"#),
        encoded(&claims().to_string())
    );
    for zeros in [vec![0; 64], vec![0; 70], vec![0x30, 6, 2, 1, 0, 2, 1, 0]] {
        let token = format!("{message}.{}", URL_SAFE_NO_PAD.encode(zeros));
        assert_eq!(verifier.verify(token.as_bytes(), NOW), Err(Refusal::Forged));
    }
}

#[test]
fn attack_critical_headers() {
    for header in [
        r#"{"alg":"HS256","crit":["exp"]}"#,
        r#"{"alg":"HS256","crit":[]}"#,
        r#"{"alg":"HS256","crit":null}"#,
        r#"{"alg":"HS256","crit":["b64"],"b64":false}"#,
    ] {
        assert_eq!(
            with_header(header),
            Err(Refusal::CriticalHeader),
            "{header}"
        );
    }
}

#[test]
fn attack_an_unencoded_payload() {
    assert_eq!(
        with_header(r#"{"alg":"HS256","b64":false}"#),
        Err(Refusal::UnencodedPayload)
    );
    assert_eq!(
        with_header(r#"{"alg":"HS256","b64":true}"#),
        Err(Refusal::UnencodedPayload)
    );
}

#[test]
fn attack_a_compressed_payload() {
    assert_eq!(
        with_header(r#"{"alg":"HS256","zip":"DEF"}"#),
        Err(Refusal::Compressed)
    );
}

#[test]
fn attack_a_key_in_the_token() {
    for header in [
        r#"{"alg":"HS256","jwk":{"kty":"oct","k":"AAAA"}}"#,
        r#"{"alg":"HS256","jku":"https://attacker.example/jwks.json"}"#,
        r#"{"alg":"HS256","x5u":"https://attacker.example/cert.pem"}"#,
        r#"{"alg":"HS256","x5c":["MIIB"]}"#,
    ] {
        assert_eq!(with_header(header), Err(Refusal::KeyInToken), "{header}");
    }
}

#[test]
fn attack_duplicate_members_in_the_header() {
    for header in [
        r#"{"alg":"HS256","alg":"none"}"#,
        r#"{"alg":"none","alg":"HS256"}"#,
        r#"{"alg":"HS256","kid":"a","kid":"b"}"#,
        r#"{"alg":"HS256","\u0061lg":"none"}"#,
        r#"{"alg":"HS256","x":{"y":1,"y":2}}"#,
    ] {
        assert_eq!(with_header(header), Err(Refusal::Header), "{header}");
    }
}

#[test]
fn attack_duplicate_members_in_the_claims() {
    let exp = NOW.as_secs() + 60;
    for claims in [
        format!(
            r#"{{"iss":"https://issuer.example","aud":"keywright","sub":"alice","sub":"bob","exp":{exp}}}"#
        ),
        format!(
            r#"{{"iss":"https://issuer.example","aud":"keywright","sub":"alice","exp":1,"exp":{exp}}}"#
        ),
        format!(
            r#"{{"iss":"https://issuer.example","aud":"keywright","sub":"alice","exp":{exp},"org":"a","org":"b"}}"#
        ),
        format!(
            r#"{{"iss":"https://issuer.example","aud":"keywright","sub":"alice","exp":{exp},"x":[{{"y":1,"y":1}}]}}"#
        ),
    ] {
        assert_eq!(
            verify(&hs256(r#"{"alg":"HS256"}"#, &claims)),
            Err(Refusal::Claims),
            "{claims}"
        );
    }
}

#[test]
fn attack_padding_and_white_space() {
    let token = good();
    let (header, rest) = token.split_once('.').expect("three parts");
    let (claims, signature) = rest.split_once('.').expect("three parts");
    for token in [
        format!("{header}=.{claims}.{signature}"),
        format!("{header}.{claims}==.{signature}"),
        format!("{header}.{claims}.{signature}="),
        format!(" {token}"),
        format!("{token}\n"),
        format!("{header}.{claims} .{signature}"),
        format!("{header}.\t{claims}.{signature}"),
        format!("{header}.{claims}.{}+", &signature[1..]),
        format!("{header}.{claims}.{}/", &signature[1..]),
        token.replacen('e', "%65", 1),
    ] {
        assert_eq!(verify(&token), Err(Refusal::Malformed), "{token}");
    }
}

#[test]
fn attack_stray_bits_in_the_last_character() {
    // 32 bytes leave two unused bits in the last of 43 characters: four spellings of one signature.
    let token = good();
    let last = token.bytes().last().expect("a character");
    let alphabet = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
    let at = alphabet
        .iter()
        .position(|c| *c == last)
        .expect("of the alphabet");
    let other = char::from(alphabet[at ^ 1]);
    let twin = format!("{}{other}", &token[..token.len() - 1]);
    assert_eq!(verify(&twin), Err(Refusal::Malformed));
}

#[test]
fn attack_a_wrong_number_of_parts() {
    let token = good();
    for token in [
        "",
        ".",
        "a",
        "a.b",
        &token[..token.rfind('.').expect("a dot")],
        &format!("{token}.x"),
        &format!("{token}."),
        &format!(".{token}"),
    ] {
        assert_eq!(verify(token), Err(Refusal::NotThreeParts), "{token}");
    }
    assert_eq!(verify(".."), Err(Refusal::Header));
}

#[test]
fn attack_a_token_of_more_than_8_kib() {
    let long = json!({ "x": "a".repeat(7000) });
    assert_eq!(with_claims(long), Err(Refusal::TooLong));
    assert_eq!(verify(&"a".repeat(8193)), Err(Refusal::TooLong));
    assert_eq!(with_claims(json!({ "x": "a".repeat(5500) })), Ok(alice()));
}

#[test]
fn attack_bytes_that_are_no_text() {
    let mut token = good().into_bytes();
    token[3] = 0xff;
    let verified = verifier().verify(&token, NOW);
    assert_eq!(verified, Err(Refusal::Malformed));
    let not_json = URL_SAFE_NO_PAD.encode([0xff, 0xfe]);
    assert_eq!(
        verify(&format!("{not_json}.e30.AAAA")),
        Err(Refusal::Header)
    );
}

#[test]
fn attack_a_token_of_another_kind() {
    for kind in ["dpop+jwt", "logout+jwt", "secevent+jwt", "JWE", ""] {
        let header = format!(r#"{{"alg":"HS256","typ":"{kind}"}}"#);
        assert_eq!(with_header(&header), Err(Refusal::Header), "{kind}");
    }
}

#[test]
fn attack_a_token_for_or_of_somebody_else() {
    for issuer in [
        json!(null),
        json!("https://other.example"),
        json!("https://issuer.example/"),
        json!(7),
        json!(["https://issuer.example"]),
    ] {
        assert_eq!(
            with_claims(json!({ "iss": issuer })),
            Err(Refusal::WrongIssuer),
            "{issuer}"
        );
    }
    for audience in [
        json!(null),
        json!("other"),
        json!([]),
        json!(["other"]),
        json!(7),
        json!(["keywright", 7]),
        json!({ "keywright": 1 }),
    ] {
        assert_eq!(
            with_claims(json!({ "aud": audience })),
            Err(Refusal::WrongAudience),
            "{audience}"
        );
    }
}

#[test]
fn attack_a_subject_that_is_none() {
    for subject in [
        json!(null),
        json!(""),
        json!(7),
        json!(["alice"]),
        json!("a\u{0}b"),
        json!("a\nb"),
        json!("a".repeat(129)),
    ] {
        assert_eq!(
            with_claims(json!({ "sub": subject })),
            Err(Refusal::Subject),
            "{subject}"
        );
    }
    for organization in [
        json!(""),
        json!(7),
        json!(["acme"]),
        json!("a\u{0}"),
        json!(false),
    ] {
        assert_eq!(
            with_claims(json!({ "org": organization })),
            Err(Refusal::Organization),
            "{organization}"
        );
    }
}

#[test]
fn attack_times_that_are_none() {
    let now = NOW.as_secs();
    for exp in [
        json!(null),
        json!("soon"),
        json!(format!("{}", now + 60)),
        json!([now + 60]),
        json!(-1),
        json!(true),
    ] {
        assert_eq!(
            with_claims(json!({ "exp": exp })),
            Err(Refusal::NoExpiry),
            "{exp}"
        );
    }
    assert_eq!(with_claims(json!({ "exp": 0 })), Err(Refusal::Expired));
    for time in [json!("soon"), json!([1]), json!(-1), json!(now + 3600)] {
        assert_eq!(
            with_claims(json!({ "nbf": time })),
            Err(Refusal::NotYetValid),
            "{time}"
        );
        assert_eq!(
            with_claims(json!({ "iat": time })),
            Err(Refusal::IssuedInTheFuture),
            "{time}"
        );
    }
    assert_eq!(with_claims(json!({ "exp": u64::MAX })), Ok(alice()));
}

#[test]
fn a_kid_is_a_name_and_nothing_else() {
    let keys = || {
        vec![
            secret_key(Some("one"), Algorithm::Hs256),
            secret_key(Some("two"), Algorithm::Hs512),
        ]
    };
    let verifier = JwtVerifier::new(keys(), settings()).expect("a verifier");
    let key = EncodingKey::from_secret(SECRET);
    let token = |header: &str, signing| signed(header, &claims().to_string(), &key, signing);
    let verify = |token: String| verifier.verify(token.as_bytes(), NOW).map(|v| v.identity);
    assert_eq!(
        verify(token(r#"{"alg":"HS256","kid":"one"}"#, Signing::HS256)),
        Ok(alice())
    );
    assert_eq!(
        verify(token(r#"{"alg":"HS512","kid":"two"}"#, Signing::HS512)),
        Ok(alice())
    );
    assert_eq!(
        verify(token(r#"{"alg":"HS256","kid":"two"}"#, Signing::HS256)),
        Err(Refusal::WrongAlgorithm)
    );
    for kid in ["three", "", "../../dev/null", "one' OR '1'='1", "ONE"] {
        let header = format!(r#"{{"alg":"HS256","kid":"{kid}"}}"#);
        assert_eq!(
            verify(token(&header, Signing::HS256)),
            Err(Refusal::UnknownKey),
            "{kid}"
        );
    }
    assert_eq!(
        verify(token(r#"{"alg":"HS256"}"#, Signing::HS256)),
        Err(Refusal::UnknownKey)
    );
    assert_eq!(
        verify(token(r#"{"alg":"HS256","kid":1}"#, Signing::HS256)),
        Err(Refusal::Header)
    );
    // A single key without a name is meant, whatever a token calls it; a single key with one is not.
    assert_eq!(with_header(r#"{"alg":"HS256","kid":"any"}"#), Ok(alice()));
    let named = JwtVerifier::new(vec![secret_key(Some("one"), Algorithm::Hs256)], settings());
    let other = token(r#"{"alg":"HS256","kid":"two"}"#, Signing::HS256);
    assert_eq!(
        named.expect("a verifier").verify(other.as_bytes(), NOW),
        Err(Refusal::UnknownKey)
    );
}

#[test]
fn keys_that_anyone_could_guess_are_not_taken() {
    let secret =
        |algorithm, text: &str| VerificationKey::secret(None, algorithm, &Secret::new(text)).err();
    let short = |algorithm, shortest| {
        Some(InvalidKeys::ShortSecret {
            algorithm,
            shortest,
        })
    };
    let text = std::str::from_utf8(SECRET).expect("text");
    assert_eq!(secret(Algorithm::Hs256, ""), short(Algorithm::Hs256, 32));
    assert_eq!(
        secret(Algorithm::Hs256, &text[..31]),
        short(Algorithm::Hs256, 32)
    );
    assert_eq!(
        secret(Algorithm::Hs384, &text[..47]),
        short(Algorithm::Hs384, 48)
    );
    assert_eq!(
        secret(Algorithm::Hs512, &text[..63]),
        short(Algorithm::Hs512, 64)
    );
    assert_eq!(secret(Algorithm::Hs256, &text[..32]), None);
    for known in [
        "your-256-bit-secret",
        "your-256-bit-secret-your-256-bit-secret",
        "a-string-secret-at-least-256-bits-long",
        &"x".repeat(40),
        &"changeme".repeat(4),
        "12345678901234567890123456789012",
    ] {
        assert_eq!(
            secret(Algorithm::Hs256, known),
            Some(InvalidKeys::WellKnownSecret),
            "{known}"
        );
    }
    assert_eq!(
        secret(Algorithm::Es256, text),
        Some(InvalidKeys::Pem(Algorithm::Es256))
    );
    let jwks = r#"{"keys":[{"kty":"EC","crv":"P-256","x":"AAAA","y":"BBBB"}]}"#;
    for public in [include_str!("fixtures/rsa-1024.pem"), jwks] {
        assert_eq!(
            secret(Algorithm::Hs256, public),
            Some(InvalidKeys::PublicSecret)
        );
    }
    let rsa = include_bytes!("fixtures/rsa-1024.pem");
    let short = VerificationKey::pem(None, Algorithm::Rs256, rsa).err();
    assert_eq!(short, Some(InvalidKeys::ShortRsa));
    for (algorithm, pem) in [
        (Algorithm::Rs256, &b""[..]),
        (Algorithm::Es256, b"no key"),
        (Algorithm::Hs256, rsa),
    ] {
        let refused = VerificationKey::pem(None, algorithm, pem).err();
        assert_eq!(refused, Some(InvalidKeys::Pem(algorithm)));
    }
}

#[test]
fn sets_of_keys_that_can_be_confused_are_not_taken() {
    let pair = EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING).expect("a key pair");
    let public =
        |id: &str| VerificationKey::es256_point(Some(id.into()), pair.public_key().as_ref());
    let secret = |id| secret_key(id, Algorithm::Hs256);
    let refused = |keys| JwtVerifier::new(keys, settings()).err();
    assert_eq!(refused(vec![]), Some(InvalidKeys::None));
    assert_eq!(
        refused(vec![public("a"), secret(Some("b"))]),
        Some(InvalidKeys::Mixed)
    );
    assert_eq!(
        refused(vec![public("a"), public("a")]),
        Some(InvalidKeys::DuplicateKeyId("a".into()))
    );
    assert_eq!(
        refused(vec![secret(Some("a")), secret(None)]),
        Some(InvalidKeys::MissingKeyId)
    );
    assert_eq!(refused(vec![public("a"), public("b")]), None);
}

fn coordinates(point: &[u8]) -> (String, String) {
    let half = (point.len() - 1) / 2;
    let encoded = |bytes: &[u8]| URL_SAFE_NO_PAD.encode(bytes);
    (encoded(&point[1..=half]), encoded(&point[1 + half..]))
}

#[test]
fn a_jwks_is_read_and_each_bad_key_is_named() {
    let pair = EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING).expect("a key pair");
    let (x, y) = coordinates(pair.public_key().as_ref());
    let good = json!({ "kty": "EC", "crv": "P-256", "kid": "k1", "x": x, "y": y, "use": "sig" });
    let changed = |changes: Value| {
        let mut key = good.clone();
        for (member, value) in changes.as_object().expect("an object") {
            key[member] = value.clone();
        }
        json!({ "keys": [good, key] }).to_string()
    };
    let keys = read_jwks(json!({ "keys": [good] }).to_string().as_bytes()).expect("keys");
    let verifier = JwtVerifier::new(keys, settings()).expect("a verifier");
    let private = pair.to_pkcs8v1().expect("DER");
    let signer = EncodingKey::from_ec_der(private.as_ref());
    let token = signed(
        r#"{"alg":"ES256","kid":"k1"}"#,
        &claims().to_string(),
        &signer,
        Signing::ES256,
    );
    assert_eq!(
        verifier.verify(token.as_bytes(), NOW).map(|v| v.identity),
        Ok(alice())
    );

    let n = |bytes| URL_SAFE_NO_PAD.encode(vec![0xff_u8; bytes]);
    let long = std::str::from_utf8(SECRET).expect("text");
    for (changes, part) in [
        (json!({ "use": "enc" }), "`use`"),
        (json!({ "use": 7 }), "`use`"),
        (json!({ "key_ops": ["sign"] }), "`key_ops`"),
        (json!({ "key_ops": "verify" }), "`key_ops`"),
        (json!({ "alg": "ES512" }), "ES512"),
        (json!({ "alg": "none" }), "none"),
        (json!({ "alg": "HS256" }), "HS256"),
        (json!({ "alg": "ES384" }), "ES384"),
        (json!({ "crv": "P-521" }), "`alg` is missing"),
        (
            json!({ "kty": "oct", "k": URL_SAFE_NO_PAD.encode(long) }),
            "`alg` is missing",
        ),
        (
            json!({ "kty": "oct", "alg": "HS256", "k": "AAEC" }),
            "32 bytes",
        ),
        (
            json!({ "kty": "oct", "alg": "HS256", "k": "not base64!" }),
            "`k` is not base64url",
        ),
        (json!({ "kty": "oct", "alg": "HS256" }), "`k` is missing"),
        (
            json!({ "kty": "RSA", "n": n(256), "e": "AQAB" }),
            "`alg` is missing",
        ),
        (
            json!({ "kty": "RSA", "alg": "RS256", "n": n(128), "e": "AQAB" }),
            "2048 bits",
        ),
        (
            json!({ "kty": "RSA", "alg": "RS512", "n": n(256), "e": "AQAB" }),
            "RS512",
        ),
        (json!({ "x": 7 }), "none for ES256"),
        (
            json!({ "x": URL_SAFE_NO_PAD.encode([1; 32]), "y": URL_SAFE_NO_PAD.encode([2; 32]) }),
            "none for ES256",
        ),
        (json!({ "d": "AAAA" }), "private key"),
        (json!({ "kid": 7 }), "`kid`"),
    ] {
        let error = read_jwks(changed(changes.clone()).as_bytes())
            .err()
            .expect("refused");
        let text = error.to_string();
        assert!(
            text.contains("key 1 of the JWKS") && text.contains(part),
            "{changes}: {text}"
        );
    }
    let twice = read_jwks(changed(json!({})).as_bytes()).expect("read");
    assert_eq!(
        JwtVerifier::new(twice, settings()).err(),
        Some(InvalidKeys::DuplicateKeyId("k1".into()))
    );
    for text in ["", "[]", "{}", r#"{"keys":{}}"#, r#"{"keys":[],"keys":[]}"#] {
        assert_eq!(
            read_jwks(text.as_bytes()).err(),
            Some(InvalidKeys::Jwks),
            "{text}"
        );
    }
}

#[test]
fn a_remembered_token_expires_and_goes_with_its_key() {
    let verifier = verifier();
    let (token, clock) = (good(), ManualClock::at(NOW));
    let verify = |now: Timestamp| verifier.verify(token.as_bytes(), now).map(|v| v.identity);
    assert_eq!(verify(clock.now()), Ok(alice()));
    clock.advance(Duration::from_secs(89));
    assert_eq!(verify(clock.now()), Ok(alice()), "59 s and the leeway");
    clock.advance(Duration::from_secs(1));
    assert_eq!(verify(clock.now()), Err(Refusal::Expired));
    assert_eq!(verify(NOW), Ok(alice()));
    let other = Secret::new("another secret of more than 32 bytes, for sure");
    let key = VerificationKey::secret(None, Algorithm::Hs256, &other).expect("a key");
    verifier.replace_keys(vec![key]).expect("taken");
    assert_eq!(verify(NOW), Err(Refusal::Forged));
    assert!(
        verifier.replace_keys(vec![]).is_err(),
        "the keys stay as they were"
    );
    assert_eq!(verify(NOW), Err(Refusal::Forged));
}

#[test]
fn a_refusal_is_not_remembered_for_another_token() {
    let verifier = verifier();
    let (token, mut other) = (good(), good());
    other.pop();
    assert!(verifier.verify(other.as_bytes(), NOW).is_err());
    assert!(verifier.verify(token.as_bytes(), NOW).is_ok());
    assert!(verifier.verify(other.as_bytes(), NOW).is_err());
}

proptest! {
    /// Whatever comes, it is refused, and never with a panic.
    #[test]
    fn bytes_of_any_kind_are_refused(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
        prop_assert!(verifier().verify(&bytes, NOW).is_err());
    }

    /// A token in which any one byte is another is refused.
    #[test]
    fn a_changed_token_is_refused(at in any::<prop::sample::Index>(), byte in any::<u8>()) {
        let mut token = good().into_bytes();
        let at = at.index(token.len());
        prop_assume!(token[at] != byte);
        token[at] = byte;
        prop_assert!(verifier().verify(&token, NOW).is_err());
    }

    /// Headers and claims of any shape are refused, or are alice's.
    #[test]
    fn claims_of_any_shape_do_not_make_it_panic(text in "\\PC{0,60}") {
        let refused = verify(&hs256(r#"{"alg":"HS256"}"#, &text)).is_err();
        prop_assert!(refused);
        let refused = verify(&hs256(&text, &claims().to_string())).is_err();
        prop_assert!(refused);
    }
}
