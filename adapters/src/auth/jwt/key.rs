//! Keys that verify tokens.

use std::sync::Arc;

use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_FIXED, ECDSA_P384_SHA384_FIXED, ED25519, ParsedPublicKey,
    VerificationAlgorithm,
};
use jsonwebtoken::DecodingKey;
use jsonwebtoken::crypto::verify;
use keywright_domain::ports::Secret;

use super::algorithm::{Algorithm, Family};
use super::compact::ParsedToken;
use super::key_error::InvalidKey;
use super::rsa;

/// Secrets of examples and tutorials.
const WELL_KNOWN: [&str; 5] = [
    "your-256-bit-secret",
    "your-384-bit-secret",
    "your-512-bit-secret",
    "a-string-secret-at-least-256-bits-long",
    "qwertyuiopasdfghjklzxcvbnm123456",
];

/// A key for one algorithm. Clones share it.
#[derive(Clone)]
pub struct VerificationKey {
    pub(super) id: Option<String>,
    pub(super) algorithm: Algorithm,
    key: Arc<Key>,
}

/// The key material.
enum Key {
    Secret(DecodingKey),
    /// Parsed once for all tokens.
    Public(ParsedPublicKey),
}

impl VerificationKey {
    /// A secret that issuer and verifier share.
    ///
    /// # Errors
    /// The secret is short, well known or a repeated short text, or looks like a public key; or the algorithm is not HMAC.
    pub fn secret(
        id: Option<String>,
        algorithm: Algorithm,
        secret: &Secret,
    ) -> Result<Self, InvalidKey> {
        if algorithm.family() != Family::Secret {
            return Err(InvalidKey::NotHmac(algorithm));
        }
        Self::secret_bytes(id, algorithm, secret.expose().as_bytes())
    }

    /// A public key in PEM.
    ///
    /// # Errors
    /// It is not a key for the algorithm, or is unsafe.
    pub fn pem(id: Option<String>, algorithm: Algorithm, pem: &[u8]) -> Result<Self, InvalidKey> {
        let invalid = || InvalidKey::Pem(algorithm);
        let key = match algorithm.family() {
            Family::Secret => return Err(invalid()),
            Family::Rsa => DecodingKey::from_rsa_pem(pem),
            Family::Elliptic => DecodingKey::from_ec_pem(pem),
            Family::Edwards => DecodingKey::from_ed_pem(pem),
        };
        let key = key.map_err(|_| invalid())?;
        let bytes = key.try_get_as_bytes().map_err(|_| invalid())?;
        if algorithm.family() == Family::Rsa {
            let (modulus, exponent) = rsa::components(bytes).ok_or_else(invalid)?;
            return Self::rsa(id, algorithm, modulus, exponent);
        }
        Self::point(id, algorithm, bytes).map_err(|_| invalid())
    }

    /// A key for ES256: an uncompressed point of the curve P-256.
    ///
    /// # Errors
    /// The bytes are not an uncompressed point of P-256 ([`InvalidKey::Point`]).
    pub fn es256_point(id: Option<String>, point: &[u8]) -> Result<Self, InvalidKey> {
        let algorithm = Algorithm::Es256;
        Self::point(id, algorithm, point).map_err(|_| InvalidKey::Point(algorithm))
    }

    pub(super) fn secret_bytes(
        id: Option<String>,
        algorithm: Algorithm,
        secret: &[u8],
    ) -> Result<Self, InvalidKey> {
        let key = Key::Secret(checked_secret(algorithm, secret)?);
        Ok(Self::new(id, algorithm, key))
    }

    pub(super) fn rsa(
        id: Option<String>,
        algorithm: Algorithm,
        modulus: &[u8],
        exponent: &[u8],
    ) -> Result<Self, InvalidKey> {
        let key = rsa::read(algorithm, modulus, exponent)?;
        Ok(Self::new(id, algorithm, Key::Public(key)))
    }

    /// A key that is a point of the algorithm's curve.
    pub(super) fn point(
        id: Option<String>,
        algorithm: Algorithm,
        point: &[u8],
    ) -> Result<Self, InvalidKey> {
        let verification: &'static dyn VerificationAlgorithm = match algorithm {
            Algorithm::Es384 => &ECDSA_P384_SHA384_FIXED,
            Algorithm::EdDsa => &ED25519,
            _ => &ECDSA_P256_SHA256_FIXED,
        };
        let key = ParsedPublicKey::new(verification, point);
        let key = key.map_err(|_| InvalidKey::NotPublicKey(algorithm))?;
        Ok(Self::new(id, algorithm, Key::Public(key)))
    }

    fn new(id: Option<String>, algorithm: Algorithm, key: Key) -> Self {
        Self {
            id,
            algorithm,
            key: Arc::new(key),
        }
    }

    /// Whether the signature of the token is valid for this key.
    pub(super) fn has_signed(&self, token: &ParsedToken<'_>) -> bool {
        match &*self.key {
            Key::Secret(key) => {
                let hmac = self.algorithm.hmac();
                let is_valid = verify(token.signature, token.signed, key, hmac);
                is_valid.unwrap_or(false)
            }
            Key::Public(key) => key.verify_sig(token.signed, &token.signature_bytes).is_ok(),
        }
    }
}

fn checked_secret(algorithm: Algorithm, secret: &[u8]) -> Result<DecodingKey, InvalidKey> {
    let starts_with_known = |known: &str| secret.starts_with(known.as_bytes());
    if WELL_KNOWN.into_iter().any(starts_with_known) || is_repeated(secret) {
        return Err(InvalidKey::WellKnownSecret);
    }
    // Public keys are known to attackers. As a shared secret, one would let anybody sign tokens.
    let text = secret.trim_ascii_start();
    if text.starts_with(b"-----BEGIN") || text.starts_with(b"{") {
        return Err(InvalidKey::PublicKeyAsSecret);
    }
    let min_bytes = algorithm.min_secret_bytes();
    if secret.len() < min_bytes {
        return Err(InvalidKey::ShortSecret {
            algorithm,
            min_bytes,
        });
    }
    Ok(DecodingKey::from_secret(secret))
}

/// Whether the secret repeats a shorter text: `changemechangeme…`, `1234567890123…`, `xxxx…`.
fn is_repeated(secret: &[u8]) -> bool {
    (1..=secret.len() / 2).any(|period| {
        let (head, tail) = secret.split_at(period);
        tail.chunks(period).all(|chunk| head.starts_with(chunk))
    })
}
