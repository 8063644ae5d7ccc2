//! Sets of keys in the forms in which issuers publish them.

use super::*;

struct Pairs {
    rsa: aws_lc_rs::rsa::KeyPair,
    elliptic: EcdsaKeyPair,
    edwards: Ed25519KeyPair,
}

impl Pairs {
    fn generate() -> Self {
        Self {
            rsa: aws_lc_rs::rsa::KeyPair::generate(KeySize::Rsa2048).expect("a key pair"),
            elliptic: EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING).expect("a key pair"),
            edwards: Ed25519KeyPair::generate().expect("a key pair"),
        }
    }

    /// A JWK with the members of `more`.
    fn rsa(&self, more: Value) -> Value {
        let key = RsaPublicKeyComponents::from(self.rsa.public_key());
        let (n, e) = (encoded(&key.n), encoded(&key.e));
        merged(json!({ "kty": "RSA", "n": n, "e": e }), more)
    }

    fn elliptic(&self, more: Value) -> Value {
        let point = self.elliptic.public_key().as_ref();
        let (x, y) = (encoded(&point[1..33]), encoded(&point[33..]));
        merged(json!({ "kty": "EC", "crv": "P-256", "x": x, "y": y }), more)
    }

    fn edwards(&self, more: Value) -> Value {
        let x = encoded(self.edwards.public_key().as_ref());
        merged(json!({ "kty": "OKP", "crv": "Ed25519", "x": x }), more)
    }

    fn token(&self, algorithm: &str, kid: Option<&str>) -> String {
        let signing: Signing = match algorithm {
            "Ed25519" => Signing::EdDSA,
            name => name.parse().expect("an algorithm"),
        };
        let key = match &algorithm[..2] {
            "ES" => EncodingKey::from_ec_der(self.elliptic.to_pkcs8v1().expect("DER").as_ref()),
            "Ed" => EncodingKey::from_ed_der(self.edwards.to_pkcs8().expect("DER").as_ref()),
            _ => {
                let der = self.rsa.as_der().expect("DER");
                let pem = pem("PRIVATE KEY", der.as_ref());
                EncodingKey::from_rsa_pem(pem.as_bytes()).expect("a key")
            }
        };
        let mut header = json!({ "alg": algorithm });
        if let Some(kid) = kid {
            header["kid"] = kid.into();
        }
        signed(&header.to_string(), &claims().to_string(), &key, signing)
    }
}

fn encoded(bytes: &[u8]) -> String {
    URL_SAFE_NO_PAD.encode(bytes)
}

fn merged(mut key: Value, more: Value) -> Value {
    for (member, value) in more.as_object().expect("an object") {
        key[member] = value.clone();
    }
    key
}

/// A verifier with the keys of a set, all of which are valid.
fn published(keys: Value) -> JwtVerifier {
    let set = json!({ "keys": keys }).to_string();
    let published = read_published_jwks(set.as_bytes()).expect("keys");
    assert_eq!(published.rejected, [], "{set}");
    JwtVerifier::new(published.keys, settings()).expect("a verifier")
}

fn identity(verifier: &JwtVerifier, token: &str) -> Result<Identity, TokenError> {
    let verified = verifier.verify(token.as_bytes(), NOW);
    verified.map(|verified| verified.identity)
}

#[test]
fn one_kid_may_have_a_key_of_each_algorithm() {
    let pairs = Pairs::generate();
    let verifier = published(json!([
        pairs.rsa(json!({ "kid": "2026", "alg": "RS256" })),
        pairs.rsa(json!({ "kid": "2026", "alg": "PS256" })),
        pairs.elliptic(json!({ "kid": "2026" })),
    ]));
    for algorithm in ["RS256", "PS256", "ES256"] {
        let token = pairs.token(algorithm, Some("2026"));
        assert_eq!(identity(&verifier, &token), Ok(alice()), "{algorithm}");
    }
    for (algorithm, kid, refusal) in [
        ("RS512", "2026", TokenError::WrongAlgorithm),
        ("RS256", "2027", TokenError::UnknownKey),
    ] {
        let token = pairs.token(algorithm, Some(kid));
        assert_eq!(identity(&verifier, &token), Err(refusal), "{algorithm}");
    }
    let other = Pairs::generate().token("RS256", Some("2026"));
    assert_eq!(
        identity(&verifier, &other),
        Err(TokenError::InvalidSignature)
    );
}

#[test]
fn skips_the_second_key_of_a_kid_and_algorithm() {
    let (pairs, other) = (Pairs::generate(), Pairs::generate());
    let set = json!({ "keys": [
        pairs.elliptic(json!({ "kid": "one" })),
        other.elliptic(json!({ "kid": "one" })),
    ] });
    let published = read_published_jwks(set.to_string().as_bytes()).expect("a key");
    let duplicate = InvalidKeys::DuplicateKeyId("one".into());
    assert_eq!(published.rejected, [duplicate]);
    let verifier = JwtVerifier::new(published.keys, settings()).expect("a verifier");
    let token = |pairs: &Pairs| pairs.token("ES256", Some("one"));
    assert_eq!(identity(&verifier, &token(&pairs)), Ok(alice()));
    assert_eq!(
        identity(&verifier, &token(&other)),
        Err(TokenError::InvalidSignature)
    );
}

#[test]
fn ignores_null_and_empty_members_of_a_key() {
    let pairs = Pairs::generate();
    let token = pairs.token("RS256", None);
    for member in ["use", "key_ops", "alg", "kid", "d", "crv", "x5c"] {
        for nothing in [Value::Null, json!(""), json!([])] {
            let key = pairs.rsa(json!({ member: nothing }));
            let verifier = published(json!([key]));
            assert_eq!(identity(&verifier, &token), Ok(alice()), "{key}");
        }
        // The same holds for a file, which needs `alg`.
        if member != "alg" {
            let key = pairs.rsa(json!({ "alg": "RS256", member: null }));
            let keys = read_jwks(json!({ "keys": [key] }).to_string().as_bytes());
            let verifier = JwtVerifier::new(keys.expect("a key"), settings()).expect("a verifier");
            assert_eq!(identity(&verifier, &token), Ok(alice()), "{key}");
        }
    }
    let private = json!({ "keys": [pairs.rsa(json!({ "d": "AAAA" }))] }).to_string();
    let error = read_published_jwks(private.as_bytes()).err();
    let text = error.expect("refused").to_string();
    assert!(text.contains("private key"), "{text}");
}

#[test]
fn ignores_leading_zero_octets() {
    let pairs = Pairs::generate();
    let rsa = RsaPublicKeyComponents::from(pairs.rsa.public_key());
    let point = pairs.elliptic.public_key().as_ref();
    let padded = |number: &[u8]| encoded(&[&[0], number].concat());
    let verifier = published(json!([
        pairs.rsa(json!({ "n": padded(&rsa.n), "e": padded(&rsa.e) })),
        pairs.elliptic(json!({ "x": padded(&point[1..33]), "y": padded(&point[33..]) })),
    ]));
    for algorithm in ["RS256", "ES256"] {
        let token = pairs.token(algorithm, None);
        assert_eq!(identity(&verifier, &token), Ok(alice()), "{algorithm}");
    }
}

/// One of 256 coordinates has fewer than 32 significant bytes. Some issuers write only those.
#[test]
fn pads_a_coordinate_without_leading_zero_octets() {
    let pairs = std::iter::repeat_with(Pairs::generate_elliptic);
    let short = |pair: &EcdsaKeyPair| pair.public_key().as_ref()[1] == 0;
    let pair = { pairs }.find(short).expect("one of them");
    let point = pair.public_key().as_ref();
    let (x, y) = (encoded(&point[2..33]), encoded(&point[33..]));
    let verifier = published(json!([{ "kty": "EC", "crv": "P-256", "x": x, "y": y }]));
    let key = EncodingKey::from_ec_der(pair.to_pkcs8v1().expect("DER").as_ref());
    let token = signed(
        r#"{"alg":"ES256"}"#,
        &claims().to_string(),
        &key,
        Signing::ES256,
    );
    assert_eq!(identity(&verifier, &token), Ok(alice()));
}

impl Pairs {
    fn generate_elliptic() -> EcdsaKeyPair {
        EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING).expect("a key pair")
    }
}

#[test]
fn finds_keys_without_a_kid_by_algorithm() {
    let (pairs, newer) = (Pairs::generate(), Pairs::generate());
    let verifier = published(json!([
        pairs.rsa(json!({})),
        pairs.elliptic(json!({})),
        newer.elliptic(json!({})),
        newer.rsa(json!({ "kid": "named" })),
    ]));
    for (token, accepted) in [
        (pairs.token("RS256", None), Ok(alice())),
        (pairs.token("ES256", None), Ok(alice())),
        (newer.token("ES256", None), Ok(alice())),
        // The issuer may set a `kid` although it publishes the key without one.
        (pairs.token("RS256", Some("unknown")), Ok(alice())),
        (newer.token("RS256", Some("named")), Ok(alice())),
        (
            newer.token("RS256", None),
            Err(TokenError::InvalidSignature),
        ),
        (
            pairs.token("RS256", Some("named")),
            Err(TokenError::InvalidSignature),
        ),
        (pairs.token("EdDSA", None), Err(TokenError::WrongAlgorithm)),
    ] {
        assert_eq!(identity(&verifier, &token), accepted);
    }
}

#[test]
fn bounds_the_keys_without_a_kid() {
    let pairs: Vec<Pairs> = (0..9).map(|_| Pairs::generate()).collect();
    let keys: Vec<Value> = pairs.iter().map(|p| p.elliptic(json!({}))).collect();
    let set = json!({ "keys": keys }).to_string();
    let published = read_published_jwks(set.as_bytes()).expect("keys");
    assert_eq!(
        (published.keys.len(), published.rejected),
        (8, vec![InvalidKeys::TooManyUnnamed])
    );
    let all = read_jwks(set.as_bytes()).expect("each is valid");
    let refused = JwtVerifier::new(all, settings()).err();
    assert_eq!(refused, Some(InvalidKeys::TooManyUnnamed));
}

#[test]
fn ignores_a_byte_order_mark() {
    let pairs = Pairs::generate();
    let set = json!({ "keys": [pairs.elliptic(json!({ "kid": "one" }))] });
    let text = format!("\u{feff}{set}");
    assert_eq!(read_jwks(text.as_bytes()).expect("keys").len(), 1);
    let published = read_published_jwks(text.as_bytes()).expect("keys");
    assert_eq!(published.keys.len(), 1);
    let twice = format!("\u{feff}{text}");
    assert_eq!(
        read_jwks(twice.as_bytes()).err(),
        Some(InvalidKeys::NotAJwks)
    );
}

#[test]
fn ed25519_is_an_alias_of_eddsa() {
    let pairs = Pairs::generate();
    for more in [
        json!({}),
        json!({ "alg": "EdDSA" }),
        json!({ "alg": "Ed25519" }),
    ] {
        let verifier = published(json!([pairs.edwards(more)]));
        for algorithm in ["EdDSA", "Ed25519"] {
            let token = pairs.token(algorithm, None);
            assert_eq!(identity(&verifier, &token), Ok(alice()), "{algorithm}");
        }
    }
    assert_eq!("Ed25519".parse(), Ok(Algorithm::EdDsa));
}
