//! Accepted tokens: by which key, and for how long.

use super::*;

#[test]
fn a_token_proves_its_subject_or_its_organization() {
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
fn tolerates_a_clock_difference_of_30_seconds() {
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

#[test]
fn each_algorithm_verifies_with_its_own_key_only() {
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
        (
            Algorithm::Rs384,
            Signing::RS384,
            rsa_pem.clone(),
            rsa_signer.clone(),
        ),
        (
            Algorithm::Rs512,
            Signing::RS512,
            rsa_pem.clone(),
            rsa_signer.clone(),
        ),
        (
            Algorithm::Ps256,
            Signing::PS256,
            rsa_pem.clone(),
            rsa_signer.clone(),
        ),
        (
            Algorithm::Ps384,
            Signing::PS384,
            rsa_pem.clone(),
            rsa_signer.clone(),
        ),
        (Algorithm::Ps512, Signing::PS512, rsa_pem, rsa_signer),
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
        // The same signature with another `alg`.
        for (other, ..) in cases.iter().filter(|(other, ..)| other != algorithm) {
            let header = format!(r#"{{"alg":"{other}"}}"#);
            let token = signed(&header, &claims().to_string(), signer, *signing);
            assert_eq!(
                verifier.verify(token.as_bytes(), NOW),
                Err(TokenError::WrongAlgorithm)
            );
        }
        // The same key for another algorithm.
        for (other, ..) in cases.iter().filter(|(other, ..)| other != algorithm) {
            let is_rsa = |a: &Algorithm| matches!(&a.name()[..2], "RS" | "PS");
            let same_kind = is_rsa(algorithm) && is_rsa(other);
            let accepted = VerificationKey::pem(None, *other, pem).is_ok();
            assert_eq!(accepted, same_kind, "{algorithm} key for {other}");
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
fn a_kid_only_selects_a_key() {
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
        Err(TokenError::WrongAlgorithm)
    );
    for kid in ["three", "", "../../dev/null", "one' OR '1'='1", "ONE"] {
        let header = format!(r#"{{"alg":"HS256","kid":"{kid}"}}"#);
        assert_eq!(
            verify(token(&header, Signing::HS256)),
            Err(TokenError::UnknownKey),
            "{kid}"
        );
    }
    assert_eq!(
        verify(token(r#"{"alg":"HS256"}"#, Signing::HS256)),
        Err(TokenError::UnknownKey)
    );
    assert_eq!(
        verify(token(r#"{"alg":"HS256","kid":1}"#, Signing::HS256)),
        Err(TokenError::Header)
    );
    // A single key without a `kid` is used for any `kid` of a token; a single key with a `kid` is not.
    assert_eq!(with_header(r#"{"alg":"HS256","kid":"any"}"#), Ok(alice()));
    let named = JwtVerifier::new(vec![secret_key(Some("one"), Algorithm::Hs256)], settings());
    let other = token(r#"{"alg":"HS256","kid":"two"}"#, Signing::HS256);
    assert_eq!(
        named.expect("a verifier").verify(other.as_bytes(), NOW),
        Err(TokenError::UnknownKey)
    );
}

#[test]
fn a_cached_token_expires_and_is_removed_with_its_key() {
    let verifier = verifier();
    let (token, clock) = (valid(), ManualClock::at(NOW));
    let verify = |now: Timestamp| verifier.verify(token.as_bytes(), now).map(|v| v.identity);
    assert_eq!(verify(clock.now()), Ok(alice()));
    clock.advance(Duration::from_secs(89));
    assert_eq!(verify(clock.now()), Ok(alice()), "59 s and the leeway");
    clock.advance(Duration::from_secs(1));
    assert_eq!(verify(clock.now()), Err(TokenError::Expired));
    assert_eq!(verify(NOW), Ok(alice()));
    let other = Secret::new("another secret of more than 32 bytes, for sure");
    let key = VerificationKey::secret(None, Algorithm::Hs256, &other).expect("a key");
    verifier.replace_keys(vec![key]).expect("replaced");
    assert_eq!(verify(NOW), Err(TokenError::InvalidSignature));
    assert!(
        verifier.replace_keys(vec![]).is_err(),
        "the keys are unchanged"
    );
    assert_eq!(verify(NOW), Err(TokenError::InvalidSignature));
}
