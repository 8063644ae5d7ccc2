//! Verification of a token by each algorithm: the signature alone, a new token, and a cached token.

use std::sync::atomic::{AtomicU64, Ordering};

use aws_lc_rs::encoding::AsDer;
use aws_lc_rs::rsa::KeySize;
use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_FIXED, ECDSA_P256_SHA256_FIXED_SIGNING, ECDSA_P384_SHA384_FIXED,
    ECDSA_P384_SHA384_FIXED_SIGNING, ED25519, EcdsaKeyPair, Ed25519KeyPair, KeyPair,
    ParsedPublicKey, RSA_PKCS1_2048_8192_SHA256, RSA_PKCS1_2048_8192_SHA384,
    RSA_PKCS1_2048_8192_SHA512, RSA_PSS_2048_8192_SHA256, RSA_PSS_2048_8192_SHA384,
    RSA_PSS_2048_8192_SHA512, RsaParameters, VerificationAlgorithm,
};
use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use criterion::{BatchSize, Criterion, criterion_group, criterion_main};
use jsonwebtoken::{Algorithm as Signing, DecodingKey, EncodingKey, Header, crypto, encode};
use keywright_adapters::auth::{Algorithm, JwtSettings, JwtVerifier, VerificationKey};
use keywright_domain::ports::Secret;
use keywright_testkit::samples::NOW;
use serde_json::json;

const SECRET: &str =
    "a secret of the benches, which has more than sixty-four bytes in all, as HS512 needs";

struct Case {
    algorithm: Algorithm,
    signing: Signing,
    signer: EncodingKey,
    public: Public,
}

enum Public {
    Secret,
    /// A SubjectPublicKeyInfo as PEM, and a verifier of signatures alone.
    Key(String, Bare),
}

enum Bare {
    Token(DecodingKey),
    Public(ParsedPublicKey),
}

impl Bare {
    fn public(algorithm: &'static dyn VerificationAlgorithm, key: &[u8]) -> Self {
        Self::Public(ParsedPublicKey::new(algorithm, key).expect("a key"))
    }

    fn has_signed(&self, signing: Signing, signed: &str, signature: &str) -> bool {
        match self {
            Self::Token(key) => {
                crypto::verify(signature, signed.as_bytes(), key, signing) == Ok(true)
            }
            Self::Public(key) => {
                let signature = URL_SAFE_NO_PAD.decode(signature).expect("base64");
                key.verify_sig(signed.as_bytes(), &signature).is_ok()
            }
        }
    }
}

fn pem(label: &str, der: &[u8]) -> String {
    let text = STANDARD.encode(der);
    format!("-----BEGIN {label}-----\n{text}\n-----END {label}-----\n")
}

fn cases() -> Vec<Case> {
    let rsa = aws_lc_rs::rsa::KeyPair::generate(KeySize::Rsa2048).expect("a key pair");
    let es256 = EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING).expect("a key pair");
    let es384 = EcdsaKeyPair::generate(&ECDSA_P384_SHA384_FIXED_SIGNING).expect("a key pair");
    let ed = Ed25519KeyPair::generate().expect("a key pair");
    let secret = |algorithm, signing| Case {
        algorithm,
        signing,
        signer: EncodingKey::from_secret(SECRET.as_bytes()),
        public: Public::Secret,
    };
    let key = |algorithm, signing, signer, der: &[u8], public| Case {
        algorithm,
        signing,
        signer,
        public: Public::Key(pem("PUBLIC KEY", der), public),
    };
    let rsa_der = rsa.public_key().as_der().expect("DER");
    let rsa_private = pem("PRIVATE KEY", rsa.as_der().expect("DER").as_ref());
    let rsa_signer = EncodingKey::from_rsa_pem(rsa_private.as_bytes()).expect("a key");
    let rsa_case = |algorithm, signing, verification: &'static RsaParameters| {
        let bare = Bare::public(verification, rsa_der.as_ref());
        key(
            algorithm,
            signing,
            rsa_signer.clone(),
            rsa_der.as_ref(),
            bare,
        )
    };
    let es256_signer = EncodingKey::from_ec_der(es256.to_pkcs8v1().expect("DER").as_ref());
    let es384_signer = EncodingKey::from_ec_der(es384.to_pkcs8v1().expect("DER").as_ref());
    let ed_signer = EncodingKey::from_ed_der(ed.to_pkcs8().expect("DER").as_ref());
    vec![
        secret(Algorithm::Hs256, Signing::HS256),
        secret(Algorithm::Hs384, Signing::HS384),
        secret(Algorithm::Hs512, Signing::HS512),
        rsa_case(
            Algorithm::Rs256,
            Signing::RS256,
            &RSA_PKCS1_2048_8192_SHA256,
        ),
        rsa_case(
            Algorithm::Rs384,
            Signing::RS384,
            &RSA_PKCS1_2048_8192_SHA384,
        ),
        rsa_case(
            Algorithm::Rs512,
            Signing::RS512,
            &RSA_PKCS1_2048_8192_SHA512,
        ),
        rsa_case(Algorithm::Ps256, Signing::PS256, &RSA_PSS_2048_8192_SHA256),
        rsa_case(Algorithm::Ps384, Signing::PS384, &RSA_PSS_2048_8192_SHA384),
        rsa_case(Algorithm::Ps512, Signing::PS512, &RSA_PSS_2048_8192_SHA512),
        key(
            Algorithm::Es256,
            Signing::ES256,
            es256_signer,
            es256.public_key().as_der().expect("DER").as_ref(),
            Bare::public(&ECDSA_P256_SHA256_FIXED, es256.public_key().as_ref()),
        ),
        key(
            Algorithm::Es384,
            Signing::ES384,
            es384_signer,
            es384.public_key().as_der().expect("DER").as_ref(),
            Bare::public(&ECDSA_P384_SHA384_FIXED, es384.public_key().as_ref()),
        ),
        key(
            Algorithm::EdDsa,
            Signing::EdDSA,
            ed_signer,
            ed.public_key().as_der().expect("DER").as_ref(),
            Bare::public(&ED25519, ed.public_key().as_ref()),
        ),
    ]
}

fn verify(criterion: &mut Criterion) {
    for case in cases() {
        let number = AtomicU64::new(0);
        let fresh = || {
            let claims = json!({
                "iss": "https://issuer.example", "aud": "keywright", "sub": "alice",
                "exp": NOW.as_secs() + 60, "jti": number.fetch_add(1, Ordering::Relaxed),
            });
            encode(&Header::new(case.signing), &claims, &case.signer).expect("a token")
        };
        let token = fresh();
        let (key, bare) = match case.public {
            Public::Secret => (
                VerificationKey::secret(None, case.algorithm, &Secret::new(SECRET)),
                Bare::Token(DecodingKey::from_secret(SECRET.as_bytes())),
            ),
            Public::Key(pem, bare) => (
                VerificationKey::pem(None, case.algorithm, pem.as_bytes()),
                bare,
            ),
        };
        let settings = JwtSettings {
            issuer: "https://issuer.example".into(),
            audience: "keywright".into(),
            organization_claim: "org".into(),
        };
        let verifier = JwtVerifier::new(vec![key.expect("a key")], settings).expect("a verifier");
        let mut group = criterion.benchmark_group(case.algorithm.name());
        let (signed, signature) = token.rsplit_once('.').expect("a token");
        group.bench_function("the signature alone", |b| {
            b.iter(|| {
                assert!(bare.has_signed(case.signing, signed, signature));
            });
        });
        group.bench_function("never seen", |b| {
            let verify = |token: String| verifier.verify(token.as_bytes(), NOW).expect("good");
            b.iter_batched(fresh, verify, BatchSize::SmallInput);
        });
        verifier.verify(token.as_bytes(), NOW).expect("good");
        group.bench_function("remembered", |b| {
            b.iter(|| verifier.verify(token.as_bytes(), NOW).expect("good"));
        });
        group.finish();
    }
}

criterion_group!(benches, verify);
criterion_main!(benches);
