//! Strict verification of JWTs: which tokens and keys are accepted, and one test for each attack.
#![cfg(feature = "auth")]

use std::time::Duration;

use aws_lc_rs::encoding::AsDer;
use aws_lc_rs::rsa::KeySize;
use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_FIXED_SIGNING, ECDSA_P384_SHA384_FIXED_SIGNING, EcdsaKeyPair, Ed25519KeyPair,
    KeyPair, RsaPublicKeyComponents,
};
use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use jsonwebtoken::{Algorithm as Signing, EncodingKey, crypto};
use keywright_adapters::auth::*;
use keywright_domain::model::{Identity, OrganizationId, Timestamp, UserId};
use keywright_domain::ports::{Clock, Secret};
use keywright_testkit::ManualClock;
use keywright_testkit::samples::NOW;
use proptest::prelude::*;
use serde_json::{Value, json};

mod accepted;
mod attacks;
mod keys;
mod sets;

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

/// Claims with some changed, and without those that are null.
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

/// A token with exactly this header and these claims and a valid signature.
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

fn valid() -> String {
    hs256(r#"{"alg":"HS256"}"#, &claims().to_string())
}

fn verify(token: &str) -> Result<Identity, TokenError> {
    let verified = verifier().verify(token.as_bytes(), NOW);
    verified.map(|verified| verified.identity)
}

/// The result for a token with this header.
fn with_header(header: &str) -> Result<Identity, TokenError> {
    verify(&hs256(header, &claims().to_string()))
}

/// The result for a token with these claims changed.
fn with_claims(changes: Value) -> Result<Identity, TokenError> {
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
