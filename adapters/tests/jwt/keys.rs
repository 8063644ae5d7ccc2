//! Rejected keys and sets of keys.

use super::*;

#[test]
fn rejects_weak_keys() {
    let secret =
        |algorithm, text: &str| VerificationKey::secret(None, algorithm, &Secret::new(text)).err();
    let short = |algorithm, min_bytes| {
        Some(InvalidKey::ShortSecret {
            algorithm,
            min_bytes,
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
            Some(InvalidKey::WellKnownSecret),
            "{known}"
        );
    }
    assert_eq!(
        secret(Algorithm::Es256, text),
        Some(InvalidKey::NotHmac(Algorithm::Es256))
    );
    let jwks = r#"{"keys":[{"kty":"EC","crv":"P-256","x":"AAAA","y":"BBBB"}]}"#;
    for public in [include_str!("fixtures/rsa-1024.pem"), jwks] {
        assert_eq!(
            secret(Algorithm::Hs256, public),
            Some(InvalidKey::PublicKeyAsSecret)
        );
    }
    let rsa = include_bytes!("fixtures/rsa-1024.pem");
    let short = VerificationKey::pem(None, Algorithm::Rs256, rsa).err();
    assert_eq!(short, Some(InvalidKey::ShortRsa));
    for (algorithm, pem) in [
        (Algorithm::Rs256, &b""[..]),
        (Algorithm::Es256, b"no key"),
        (Algorithm::Hs256, rsa),
    ] {
        let refused = VerificationKey::pem(None, algorithm, pem).err();
        assert_eq!(refused, Some(InvalidKey::Pem(algorithm)));
    }
}

#[test]
fn rejects_ambiguous_sets() {
    let pair = EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING).expect("a key pair");
    let public = |id: &str| {
        let key = VerificationKey::es256_point(Some(id.into()), pair.public_key().as_ref());
        key.expect("a key")
    };
    let mut off_curve = pair.public_key().as_ref().to_vec();
    off_curve[64] ^= 1;
    let rejected = VerificationKey::es256_point(None, &off_curve).err();
    assert_eq!(rejected, Some(InvalidKey::Point(Algorithm::Es256)));
    let secret = |id| secret_key(id, Algorithm::Hs256);
    let rejected = |keys| JwtVerifier::new(keys, settings()).err();
    assert_eq!(rejected(vec![]), Some(InvalidKeys::Empty));
    assert_eq!(
        rejected(vec![public("a"), secret(Some("b"))]),
        Some(InvalidKeys::Mixed)
    );
    assert_eq!(
        rejected(vec![public("a"), public("a")]),
        Some(InvalidKeys::DuplicateKeyId("a".into()))
    );
    assert_eq!(rejected(vec![secret(Some("a")), secret(None)]), None);
    assert_eq!(rejected(vec![public("a"), public("b")]), None);
}

fn coordinates(point: &[u8]) -> (String, String) {
    let half = (point.len() - 1) / 2;
    let encoded = |bytes: &[u8]| URL_SAFE_NO_PAD.encode(bytes);
    (encoded(&point[1..=half]), encoded(&point[1 + half..]))
}

#[test]
fn reads_a_jwks_and_names_an_invalid_key() {
    let pair = EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING).expect("a key pair");
    let (x, y) = coordinates(pair.public_key().as_ref());
    let valid = json!({ "kty": "EC", "crv": "P-256", "kid": "k1", "x": x, "y": y, "use": "sig" });
    let changed = |changes: Value| {
        let mut key = valid.clone();
        for (member, value) in changes.as_object().expect("an object") {
            key[member] = value.clone();
        }
        json!({ "keys": [valid, key] }).to_string()
    };
    let keys = read_jwks(json!({ "keys": [valid] }).to_string().as_bytes()).expect("keys");
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
        (json!({ "x": 7 }), "`x` is not a string"),
        (json!({ "x": n(33) }), "`x` is too large"),
        (
            json!({ "x": URL_SAFE_NO_PAD.encode([1; 32]), "y": URL_SAFE_NO_PAD.encode([2; 32]) }),
            "not a public key for ES256",
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
            Some(InvalidKeys::NotAJwks),
            "{text}"
        );
    }
}

/// The fixture is generated like the keys of the faulty chips: two primes `k * M + 65537^a mod M`, `M` the product of the first
/// 126 primes.
#[test]
fn rejects_rsa_keys_with_the_roca_fingerprint() {
    let vulnerable = include_bytes!("fixtures/roca-2048.pem");
    let refused = VerificationKey::pem(None, Algorithm::Ps384, vulnerable).err();
    assert_eq!(refused, Some(InvalidKey::Roca));
    let n = {
        let lines = std::str::from_utf8(vulnerable).expect("text").lines();
        let text: String = lines.filter(|line| !line.starts_with('-')).collect();
        let der = STANDARD.decode(text).expect("base64");
        // The modulus precedes the exponent, which is 65537 in five bytes.
        URL_SAFE_NO_PAD.encode(&der[der.len() - 5 - 256..der.len() - 5])
    };
    let vulnerable = json!({ "kid": "roca", "kty": "RSA", "alg": "RS256", "n": n, "e": "AQAB" });
    let set = json!({ "keys": [vulnerable] }).to_string();
    let pair = EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING).expect("a key pair");
    let (x, y) = coordinates(pair.public_key().as_ref());
    let valid = json!({ "kty": "EC", "crv": "P-256", "kid": "good", "x": x, "y": y });
    let both = json!({ "keys": [vulnerable, valid] }).to_string();
    let published = read_published_jwks(both.as_bytes()).expect("one is valid");
    assert_eq!((published.keys.len(), published.rejected.len()), (1, 1));
    for error in [
        read_jwks(set.as_bytes()).err().expect("refused"),
        read_published_jwks(set.as_bytes()).err().expect("refused"),
        published.rejected[0].clone(),
    ] {
        let text = error.to_string();
        assert!(
            text.contains("key 0") && text.contains("CVE-2017-15361"),
            "{text}"
        );
    }
}
