//! Which keys are taken.

use super::*;

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
    let public = |id: &str| {
        let key = VerificationKey::es256_point(Some(id.into()), pair.public_key().as_ref());
        key.expect("a key")
    };
    let mut beside = pair.public_key().as_ref().to_vec();
    beside[64] ^= 1;
    let beside = VerificationKey::es256_point(None, &beside).err();
    assert_eq!(beside, Some(InvalidKeys::Point(Algorithm::Es256)));
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
    assert_eq!(refused(vec![secret(Some("a")), secret(None)]), None);
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
            json!({ "kty": "RSA", "alg": "RSA-OAEP", "n": n(256), "e": "AQAB" }),
            "RSA-OAEP",
        ),
        (
            json!({ "kty": "RSA", "alg": "RS512", "n": n(1025), "e": "AQAB" }),
            "8192 bits",
        ),
        (
            json!({ "kty": "RSA", "alg": "RS256", "n": n(256), "e": "AQ" }),
            "exponent",
        ),
        (
            json!({ "kty": "RSA", "alg": "RS256", "n": n(256), "e": "AQAA" }),
            "exponent",
        ),
        (
            json!({ "kty": "RSA", "alg": "RS256", "n": n(256), "e": "AAAA" }),
            "exponent",
        ),
        (
            json!({ "kty": "RSA", "alg": "RS256", "n": n(256), "e": "A___AAAB" }),
            "exponent",
        ),
        (json!({ "x": 7 }), "`x` is no text"),
        (json!({ "x": n(33) }), "`x` is too large"),
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

/// The fixture was made as the faulty chips made theirs: two primes `k * M + 65537^a mod M`, `M` the product of the first 126
/// primes.
#[test]
fn rsa_keys_with_the_roca_fingerprint_are_refused() {
    let vulnerable = include_bytes!("fixtures/roca-2048.pem");
    let refused = VerificationKey::pem(None, Algorithm::Ps384, vulnerable).err();
    assert_eq!(refused, Some(InvalidKeys::Roca));
    let n = {
        let lines = std::str::from_utf8(vulnerable).expect("text").lines();
        let text: String = lines.filter(|line| !line.starts_with('-')).collect();
        let der = STANDARD.decode(text).expect("base64");
        // The modulus stands before the exponent, 65537 in five bytes.
        URL_SAFE_NO_PAD.encode(&der[der.len() - 5 - 256..der.len() - 5])
    };
    let vulnerable = json!({ "kid": "roca", "kty": "RSA", "alg": "RS256", "n": n, "e": "AQAB" });
    let set = json!({ "keys": [vulnerable] }).to_string();
    let pair = EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING).expect("a key pair");
    let (x, y) = coordinates(pair.public_key().as_ref());
    let good = json!({ "kty": "EC", "crv": "P-256", "kid": "good", "x": x, "y": y });
    let beside = json!({ "keys": [vulnerable, good] }).to_string();
    let (used, left_out) = read_published_jwks(beside.as_bytes()).expect("one is good");
    assert_eq!((used.len(), left_out.len()), (1, 1));
    for error in [
        read_jwks(set.as_bytes()).err().expect("refused"),
        read_published_jwks(set.as_bytes()).err().expect("refused"),
        left_out[0].clone(),
    ] {
        let text = error.to_string();
        assert!(
            text.contains("key 0") && text.contains("CVE-2017-15361"),
            "{text}"
        );
    }
}
