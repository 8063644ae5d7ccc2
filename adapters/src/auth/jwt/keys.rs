//! The keys that tokens are verified with, and why some are not taken.

use std::collections::HashMap;
use std::sync::Arc;

use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_FIXED, ECDSA_P384_SHA384_FIXED, ED25519, ParsedPublicKey,
    VerificationAlgorithm,
};
use jsonwebtoken::DecodingKey;
use jsonwebtoken::crypto::verify;
use keywright_domain::ports::Secret;

use super::algorithm::{Algorithm, Family};
use super::compact::Compact;
use super::rsa;

/// How many keys may have no `kid`: a token that could be of any of them is verified with each.
const MAX_UNNAMED: usize = 8;

/// Secrets of examples and tutorials, that everybody tries first.
const WELL_KNOWN: [&str; 5] = [
    "your-256-bit-secret",
    "your-384-bit-secret",
    "your-512-bit-secret",
    "a-string-secret-at-least-256-bits-long",
    "qwertyuiopasdfghjklzxcvbnm123456",
];

/// Keys that cannot be used. The texts hold no part of them.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidKeys {
    /// There is none.
    #[error("there is no key to verify tokens with")]
    None,
    /// Anyone could guess it.
    #[error("a shared secret for {algorithm} must have at least {shortest} bytes")]
    ShortSecret {
        /// The algorithm.
        algorithm: Algorithm,
        /// In bytes.
        shortest: usize,
    },
    /// Everyone knows it.
    #[error("the shared secret is one that everybody tries first; make a random one")]
    WellKnownSecret,
    /// A key that is not secret at all.
    #[error("the shared secret looks like the file of a public key; name its own algorithm")]
    PublicSecret,
    /// Too short to be safe.
    #[error("an RSA key must have at least {} bits", rsa::MIN_BITS)]
    ShortRsa,
    /// Too long to be verified with.
    #[error("an RSA key must have at most {} bits", rsa::MAX_BITS)]
    LongRsa,
    /// Anyone could forge signatures, or no signature could be verified.
    #[error("the exponent of an RSA key must be an odd number from 3 to 2^33")]
    RsaExponent,
    /// Its private half can be computed from it.
    #[error(
        "the RSA key has the fingerprint of ROCA (CVE-2017-15361): a faulty chip made it, and its private half can be \
         computed from its public one; make a new key by other means"
    )]
    Roca,
    /// It is not a public key of that algorithm.
    #[error("the key is none for {0}")]
    Key(Algorithm),
    /// It is none for that algorithm.
    #[error("the key is not a public key for {0} in PEM")]
    Pem(Algorithm),
    /// It lies beside its curve, or is written otherwise.
    #[error("the bytes are no uncompressed point of the curve of {0}")]
    Point(Algorithm),
    /// The file is no set of keys.
    #[error("the file is no JWKS: an object with a list `keys` is expected")]
    Jwks,
    /// A key of a set cannot be used.
    #[error("key {at} of the JWKS: {why}")]
    Jwk {
        /// Counted from 0.
        at: usize,
        /// What is wrong with it.
        why: String,
    },
    /// Which one is meant?
    #[error("two keys have the kid `{0}` and the same algorithm")]
    DuplicateKeyId(String),
    /// Each token that may be of any of them is verified with each.
    #[error("at most {MAX_UNNAMED} keys may have no kid")]
    TooManyUnnamed,
    /// A public key could be taken for a secret.
    #[error("shared secrets and public keys must not stand in one set")]
    Mixed,
}

/// One key. It alone decides the algorithm. Clones share it.
#[derive(Clone)]
pub struct VerificationKey {
    pub(super) id: Option<String>,
    pub(super) algorithm: Algorithm,
    key: Arc<Key>,
}

/// What signatures are verified with.
enum Key {
    Secret(DecodingKey),
    /// Parsed once for all tokens.
    Public(ParsedPublicKey),
}

impl VerificationKey {
    /// A secret that issuer and verifier share.
    ///
    /// # Errors
    /// It is short, well known, or the algorithm takes no secret.
    pub fn secret(
        id: Option<String>,
        algorithm: Algorithm,
        secret: &Secret,
    ) -> Result<Self, InvalidKeys> {
        if algorithm.family() != Family::Secret {
            return Err(InvalidKeys::Pem(algorithm));
        }
        Self::secret_bytes(id, algorithm, secret.expose().as_bytes())
    }

    /// A public key in PEM.
    ///
    /// # Errors
    /// It is none for that algorithm, or not a safe one.
    pub fn pem(id: Option<String>, algorithm: Algorithm, pem: &[u8]) -> Result<Self, InvalidKeys> {
        let none = || InvalidKeys::Pem(algorithm);
        let key = match algorithm.family() {
            Family::Secret => return Err(none()),
            Family::Rsa => DecodingKey::from_rsa_pem(pem),
            Family::Elliptic => DecodingKey::from_ec_pem(pem),
            Family::Edwards => DecodingKey::from_ed_pem(pem),
        };
        let key = key.map_err(|_| none())?;
        let bytes = key.try_get_as_bytes().map_err(|_| none())?;
        if algorithm.family() == Family::Rsa {
            let (modulus, exponent) = rsa::components(bytes).ok_or_else(none)?;
            return Self::rsa(id, algorithm, modulus, exponent);
        }
        Self::point(id, algorithm, bytes).map_err(|_| none())
    }

    /// ES256 by a point of the curve P-256 in its uncompressed form.
    ///
    /// # Errors
    /// It is none.
    pub fn es256_point(id: Option<String>, point: &[u8]) -> Result<Self, InvalidKeys> {
        let algorithm = Algorithm::Es256;
        Self::point(id, algorithm, point).map_err(|_| InvalidKeys::Point(algorithm))
    }

    pub(super) fn secret_bytes(
        id: Option<String>,
        algorithm: Algorithm,
        secret: &[u8],
    ) -> Result<Self, InvalidKeys> {
        let key = Key::Secret(checked_secret(algorithm, secret)?);
        Ok(Self::new(id, algorithm, key))
    }

    pub(super) fn rsa(
        id: Option<String>,
        algorithm: Algorithm,
        modulus: &[u8],
        exponent: &[u8],
    ) -> Result<Self, InvalidKeys> {
        let key = rsa::read(algorithm, modulus, exponent)?;
        Ok(Self::new(id, algorithm, Key::Public(key)))
    }

    /// A point of the algorithm's curve.
    pub(super) fn point(
        id: Option<String>,
        algorithm: Algorithm,
        point: &[u8],
    ) -> Result<Self, InvalidKeys> {
        let verification: &'static dyn VerificationAlgorithm = match algorithm {
            Algorithm::Es384 => &ECDSA_P384_SHA384_FIXED,
            Algorithm::EdDsa => &ED25519,
            _ => &ECDSA_P256_SHA256_FIXED,
        };
        let key = ParsedPublicKey::new(verification, point);
        let key = key.map_err(|_| InvalidKeys::Key(algorithm))?;
        Ok(Self::new(id, algorithm, Key::Public(key)))
    }

    fn new(id: Option<String>, algorithm: Algorithm, key: Key) -> Self {
        Self {
            id,
            algorithm,
            key: Arc::new(key),
        }
    }

    /// Whether the token was signed with this key's other half.
    pub(super) fn has_signed(&self, token: &Compact<'_>) -> bool {
        match &*self.key {
            Key::Secret(key) => {
                let signing = self.algorithm.hmac();
                let good = verify(token.signature, token.signed, key, signing);
                good.unwrap_or(false)
            }
            Key::Public(key) => key.verify_sig(token.signed, &token.signature_bytes).is_ok(),
        }
    }
}

fn checked_secret(algorithm: Algorithm, secret: &[u8]) -> Result<DecodingKey, InvalidKeys> {
    let well_known = |known: &str| secret.starts_with(known.as_bytes());
    if WELL_KNOWN.into_iter().any(well_known) || is_repeated(secret) {
        return Err(InvalidKeys::WellKnownSecret);
    }
    // Everyone has a public key: who takes it for a secret takes everyone's tokens.
    let text = secret.trim_ascii_start();
    if text.starts_with(b"-----BEGIN") || text.starts_with(b"{") {
        return Err(InvalidKeys::PublicSecret);
    }
    let shortest = algorithm.shortest_secret();
    if secret.len() < shortest {
        return Err(InvalidKeys::ShortSecret {
            algorithm,
            shortest,
        });
    }
    Ok(DecodingKey::from_secret(secret))
}

/// One short text again and again: `changemechangeme…`, `1234567890123…`, `xxxx…`.
fn is_repeated(secret: &[u8]) -> bool {
    (1..=secret.len() / 2).any(|period| {
        let (head, tail) = secret.split_at(period);
        tail.chunks(period).all(|chunk| head.starts_with(chunk))
    })
}

/// Keys by `kid` and algorithm (RFC 7517, section 4.5).
#[derive(Default)]
pub(super) struct KeySet {
    named: HashMap<String, Vec<VerificationKey>>,
    /// Keys without a `kid`.
    unnamed: Vec<VerificationKey>,
}

impl KeySet {
    pub(super) fn new(keys: Vec<VerificationKey>) -> Result<Self, InvalidKeys> {
        let secrets = keys
            .iter()
            .filter(|k| k.algorithm.family() == Family::Secret)
            .count();
        if secrets != 0 && secrets != keys.len() {
            return Err(InvalidKeys::Mixed);
        }
        let mut set = Self::default();
        for key in keys {
            set.add(key)?;
        }
        if set.is_empty() {
            return Err(InvalidKeys::None);
        }
        Ok(set)
    }

    pub(super) fn add(&mut self, key: VerificationKey) -> Result<(), InvalidKeys> {
        let Some(id) = key.id.clone() else {
            if self.unnamed.len() == MAX_UNNAMED {
                return Err(InvalidKeys::TooManyUnnamed);
            }
            self.unnamed.push(key);
            return Ok(());
        };
        let of_that_name = self.named.entry(id.clone()).or_default();
        if of_that_name.iter().any(|k| k.algorithm == key.algorithm) {
            return Err(InvalidKeys::DuplicateKeyId(id));
        }
        of_that_name.push(key);
        Ok(())
    }

    pub(super) fn is_empty(&self) -> bool {
        self.named.is_empty() && self.unnamed.is_empty()
    }

    /// Whether there is a key without a `kid`.
    pub(super) fn has_unnamed(&self) -> bool {
        !self.unnamed.is_empty()
    }

    /// The keys that a token with this `kid` may have been signed with, of any algorithm: those of that name; where there
    /// is none, those without a name. A token without `kid` was signed with one without a name, or with the only key
    /// there is.
    pub(super) fn candidates(&self, id: Option<&str>) -> &[VerificationKey] {
        if let Some(named) = id.and_then(|id| self.named.get(id)) {
            return named;
        }
        let mut named = self.named.values();
        match (named.next(), named.next()) {
            (Some(only), None) if id.is_none() && only.len() == 1 && self.unnamed.is_empty() => {
                only
            }
            _ => &self.unnamed,
        }
    }
}
