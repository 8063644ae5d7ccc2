//! Attacks on tokens, one test each.

use super::*;

#[test]
fn attack_no_algorithm() {
    let unsigned = |header: &str| {
        let encoded = |text: &str| URL_SAFE_NO_PAD.encode(text);
        format!("{}.{}.", encoded(header), encoded(&claims().to_string()))
    };
    for none in ["none", "None", "NONE", "nOnE"] {
        let header = format!(r#"{{"alg":"{none}"}}"#);
        assert_eq!(verify(&unsigned(&header)), Err(TokenError::Unsigned));
        assert_eq!(with_header(&header), Err(TokenError::WrongAlgorithm));
    }
    assert_eq!(
        verify(&unsigned(r#"{"alg":"HS256"}"#)),
        Err(TokenError::Unsigned)
    );
    assert_eq!(with_header(r#"{"typ":"JWT"}"#), Err(TokenError::Header));
    assert_eq!(with_header(r#"{"alg":256}"#), Err(TokenError::Header));
    assert_eq!(with_header(r#"{"alg":null}"#), Err(TokenError::Header));
}

#[test]
fn attack_a_public_key_as_a_secret() {
    let pair = EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING).expect("a key pair");
    let point = pair.public_key().as_ref();
    let public = pem(
        "PUBLIC KEY",
        pair.public_key().as_der().expect("DER").as_ref(),
    );
    let key = VerificationKey::es256_point(None, point).expect("a key");
    let verifier = JwtVerifier::new(vec![key], settings()).expect("a verifier");
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
    assert_eq!(verify(&token), Err(TokenError::WrongAlgorithm));
}

#[test]
fn attack_a_forged_signature() {
    let token = valid();
    let other = EncodingKey::from_secret(b"another secret of more than 32 bytes, for sure");
    let forged = signed(
        r#"{"alg":"HS256"}"#,
        &claims().to_string(),
        &other,
        Signing::HS256,
    );
    assert_eq!(verify(&forged), Err(TokenError::InvalidSignature));
    let (message, signature) = token.rsplit_once('.').expect("three parts");
    for short in [&signature[..4], &signature[..40]] {
        assert_eq!(
            verify(&format!("{message}.{short}")),
            Err(TokenError::InvalidSignature)
        );
    }
    let (header, _) = token.split_once('.').expect("three parts");
    let others = URL_SAFE_NO_PAD.encode(with(&json!({ "sub": "mallory" })));
    assert_eq!(
        verify(&format!("{header}.{others}.{signature}")),
        Err(TokenError::InvalidSignature)
    );
}

#[test]
fn attack_an_all_zero_signature() {
    let pair = EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING).expect("a key pair");
    let key = VerificationKey::es256_point(None, pair.public_key().as_ref());
    let verifier = JwtVerifier::new(vec![key.expect("a key")], settings()).expect("a verifier");
    let encoded = |text: &str| URL_SAFE_NO_PAD.encode(text);
    let message = format!(
        "{}.{}",
        encoded(r#"{"alg":"ES256"}"#),
        encoded(&claims().to_string())
    );
    for zeros in [vec![0; 64], vec![0; 70], vec![0x30, 6, 2, 1, 0, 2, 1, 0]] {
        let token = format!("{message}.{}", URL_SAFE_NO_PAD.encode(zeros));
        assert_eq!(
            verifier.verify(token.as_bytes(), NOW),
            Err(TokenError::InvalidSignature)
        );
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
            Err(TokenError::CriticalHeader),
            "{header}"
        );
    }
}

#[test]
fn attack_an_unencoded_payload() {
    assert_eq!(
        with_header(r#"{"alg":"HS256","b64":false}"#),
        Err(TokenError::UnencodedPayload)
    );
    assert_eq!(
        with_header(r#"{"alg":"HS256","b64":true}"#),
        Err(TokenError::UnencodedPayload)
    );
}

#[test]
fn attack_a_compressed_payload() {
    assert_eq!(
        with_header(r#"{"alg":"HS256","zip":"DEF"}"#),
        Err(TokenError::Compressed)
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
        assert_eq!(with_header(header), Err(TokenError::KeyInToken), "{header}");
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
        assert_eq!(with_header(header), Err(TokenError::Header), "{header}");
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
            Err(TokenError::Claims),
            "{claims}"
        );
    }
}

#[test]
fn attack_padding_and_white_space() {
    let token = valid();
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
        assert_eq!(verify(&token), Err(TokenError::Malformed), "{token}");
    }
}

#[test]
fn attack_stray_bits_in_the_last_character() {
    // 32 bytes leave two unused bits in the last of 43 characters: four spellings of one signature.
    let token = valid();
    let last = token.bytes().last().expect("a character");
    let alphabet = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
    let at = alphabet
        .iter()
        .position(|c| *c == last)
        .expect("of the alphabet");
    let other = char::from(alphabet[at ^ 1]);
    let twin = format!("{}{other}", &token[..token.len() - 1]);
    assert_eq!(verify(&twin), Err(TokenError::Malformed));
}

#[test]
fn attack_a_wrong_number_of_parts() {
    let token = valid();
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
        assert_eq!(verify(token), Err(TokenError::NotThreeParts), "{token}");
    }
    assert_eq!(verify(".."), Err(TokenError::Header));
}

#[test]
fn attack_a_token_of_more_than_8_kib() {
    let long = json!({ "x": "a".repeat(7000) });
    assert_eq!(with_claims(long), Err(TokenError::TooLong));
    assert_eq!(verify(&"a".repeat(8193)), Err(TokenError::TooLong));
    assert_eq!(with_claims(json!({ "x": "a".repeat(5500) })), Ok(alice()));
}

#[test]
fn attack_bytes_that_are_not_utf8() {
    let mut token = valid().into_bytes();
    token[3] = 0xff;
    let verified = verifier().verify(&token, NOW);
    assert_eq!(verified, Err(TokenError::Malformed));
    let not_json = URL_SAFE_NO_PAD.encode([0xff, 0xfe]);
    assert_eq!(
        verify(&format!("{not_json}.e30.AAAA")),
        Err(TokenError::Header)
    );
}

#[test]
fn attack_a_token_of_another_kind() {
    for kind in ["dpop+jwt", "logout+jwt", "secevent+jwt", "JWE", ""] {
        let header = format!(r#"{{"alg":"HS256","typ":"{kind}"}}"#);
        assert_eq!(with_header(&header), Err(TokenError::Header), "{kind}");
    }
}

#[test]
fn attack_another_issuer_or_audience() {
    for issuer in [
        json!(null),
        json!("https://other.example"),
        json!("https://issuer.example/"),
        json!(7),
        json!(["https://issuer.example"]),
    ] {
        assert_eq!(
            with_claims(json!({ "iss": issuer })),
            Err(TokenError::WrongIssuer),
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
            Err(TokenError::WrongAudience),
            "{audience}"
        );
    }
}

#[test]
fn attack_invalid_subjects() {
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
            Err(TokenError::Subject),
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
            Err(TokenError::Organization),
            "{organization}"
        );
    }
}

#[test]
fn attack_invalid_times() {
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
            Err(TokenError::NoExpiry),
            "{exp}"
        );
    }
    assert_eq!(with_claims(json!({ "exp": 0 })), Err(TokenError::Expired));
    for time in [json!("soon"), json!([1]), json!(-1), json!(now + 3600)] {
        assert_eq!(
            with_claims(json!({ "nbf": time })),
            Err(TokenError::NotYetValid),
            "{time}"
        );
        assert_eq!(
            with_claims(json!({ "iat": time })),
            Err(TokenError::IssuedInTheFuture),
            "{time}"
        );
    }
    assert_eq!(with_claims(json!({ "exp": u64::MAX })), Ok(alice()));
}

#[test]
fn rejections_are_not_cached() {
    let verifier = verifier();
    let (token, mut other) = (valid(), valid());
    other.pop();
    assert!(verifier.verify(other.as_bytes(), NOW).is_err());
    assert!(verifier.verify(token.as_bytes(), NOW).is_ok());
    assert!(verifier.verify(other.as_bytes(), NOW).is_err());
}

proptest! {
    #[test]
    fn rejects_any_bytes(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
        prop_assert!(verifier().verify(&bytes, NOW).is_err());
    }

    #[test]
    fn rejects_a_token_with_one_changed_byte(at in any::<prop::sample::Index>(), byte in any::<u8>()) {
        let mut token = valid().into_bytes();
        let at = at.index(token.len());
        prop_assume!(token[at] != byte);
        token[at] = byte;
        prop_assert!(verifier().verify(&token, NOW).is_err());
    }

    #[test]
    fn rejects_any_header_and_any_claims(text in "\\PC{0,60}") {
        let refused = verify(&hs256(r#"{"alg":"HS256"}"#, &text)).is_err();
        prop_assert!(refused);
        let refused = verify(&hs256(&text, &claims().to_string())).is_err();
        prop_assert!(refused);
    }
}
