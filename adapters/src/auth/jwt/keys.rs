//! The keys that tokens are verified with, and why some are not taken.

use std::collections::{HashMap, HashSet};

use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_FIXED, ECDSA_P384_SHA384_FIXED, ED25519, ParsedPublicKey,
    VerificationAlgorithm,
};
use jsonwebtoken::DecodingKey;
use jsonwebtoken::crypto::verify;
use jsonwebtoken::jwk::Jwk;
use keywright_domain::ports::Secret;
use serde_json::Value;

use super::algorithm::{Algorithm, Family};
use super::compact::Compact;
use super::strict_json;

/// Shorter RSA keys can be broken (RFC 7518, section 3.3).
const SHORTEST_RSA: usize = 2048;

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
    #[error("an RSA key must have at least {SHORTEST_RSA} bits")]
    ShortRsa,
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
    #[error("two keys have the kid `{0}`")]
    DuplicateKeyId(String),
    /// With several keys, each needs a name.
    #[error("with more than one key, each must have a kid")]
    MissingKeyId,
    /// A public key could be taken for a secret.
    #[error("shared secrets and public keys must not stand in one set")]
    Mixed,
}

/// One key. It alone decides the algorithm.
pub struct VerificationKey {
    pub(super) id: Option<String>,
    pub(super) algorithm: Algorithm,
    key: Key,
}

/// What signatures are verified with.
enum Key {
    /// The library of tokens reads it for each of them.
    Token(DecodingKey),
    /// A point of a curve, which has been read once for all of them.
    Point(ParsedPublicKey),
}

impl Key {
    /// `None`: it is no key of that algorithm, such as a point beside its curve.
    fn of(algorithm: Algorithm, key: DecodingKey) -> Option<Self> {
        let verification: &'static dyn VerificationAlgorithm = match algorithm {
            Algorithm::Es256 => &ECDSA_P256_SHA256_FIXED,
            Algorithm::Es384 => &ECDSA_P384_SHA384_FIXED,
            Algorithm::EdDsa => &ED25519,
            _ => return Some(Self::Token(key)),
        };
        let bytes = key.try_get_as_bytes().ok()?;
        let point = ParsedPublicKey::new(verification, bytes).ok()?;
        Some(Self::Point(point))
    }
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
        let key = Key::Token(checked_secret(algorithm, secret.expose().as_bytes())?);
        Ok(Self { id, algorithm, key })
    }

    /// A public key in PEM.
    ///
    /// # Errors
    /// It is none for that algorithm, or too short.
    pub fn pem(id: Option<String>, algorithm: Algorithm, pem: &[u8]) -> Result<Self, InvalidKeys> {
        let key = match algorithm.family() {
            Family::Secret => return Err(InvalidKeys::Pem(algorithm)),
            Family::Rsa => DecodingKey::from_rsa_pem(pem),
            Family::Elliptic => DecodingKey::from_ec_pem(pem),
            Family::Edwards => DecodingKey::from_ed_pem(pem),
        };
        let key = key.map_err(|_| InvalidKeys::Pem(algorithm))?;
        let bytes = key.try_get_as_bytes().unwrap_or_default();
        if algorithm.family() == Family::Rsa && modulus_bits(bytes) < SHORTEST_RSA {
            return Err(InvalidKeys::ShortRsa);
        }
        let key = Key::of(algorithm, key).ok_or(InvalidKeys::Pem(algorithm))?;
        Ok(Self { id, algorithm, key })
    }

    /// ES256 by a point of the curve P-256 in its uncompressed form.
    ///
    /// # Errors
    /// It is none.
    pub fn es256_point(id: Option<String>, point: &[u8]) -> Result<Self, InvalidKeys> {
        let algorithm = Algorithm::Es256;
        let key = Key::of(algorithm, DecodingKey::from_ec_der(point));
        let key = key.ok_or(InvalidKeys::Point(algorithm))?;
        Ok(Self { id, algorithm, key })
    }

    /// Whether the token was signed with this key's other half.
    pub(super) fn has_signed(&self, token: &Compact<'_>) -> bool {
        match &self.key {
            Key::Token(key) => {
                let signing = self.algorithm.signing();
                let good = verify(token.signature, token.signed, key, signing);
                good.unwrap_or(false)
            }
            Key::Point(key) => key.verify_sig(token.signed, &token.signature_bytes).is_ok(),
        }
    }
}

/// The keys of a JSON Web Key Set (RFC 7517). Each must have `alg`, or be of a kind that has only one.
///
/// # Errors
/// See [`InvalidKeys`]: a set with one bad key is not used at all.
pub fn read_jwks(text: &[u8]) -> Result<Vec<VerificationKey>, InvalidKeys> {
    let set = strict_json::object(text).ok_or(InvalidKeys::Jwks)?;
    let keys = set.get("keys").and_then(Value::as_array);
    let keys = keys.ok_or(InvalidKeys::Jwks)?.iter().enumerate();
    keys.map(|(at, key)| read_jwk(key).map_err(|why| InvalidKeys::Jwk { at, why }))
        .collect()
}

/// The keys of a set that an issuer publishes for everybody, and what is to be said of those that are left out: keys for
/// other purposes and of other algorithms may stand beside them (RFC 7517, section 5). An RSA key without `alg` is one
/// for RS256, as OpenID Connect has it.
///
/// # Errors
/// It is no set, or holds no key that can be used.
pub fn read_published_jwks(
    text: &[u8],
) -> Result<(Vec<VerificationKey>, Vec<InvalidKeys>), InvalidKeys> {
    let set = strict_json::object(text).ok_or(InvalidKeys::Jwks)?;
    let keys = set.get("keys").and_then(Value::as_array);
    let (mut used, mut left_out) = (Vec::new(), Vec::new());
    for (at, key) in keys.ok_or(InvalidKeys::Jwks)?.iter().enumerate() {
        let mut key = key.clone();
        if key["kty"] == "RSA" && key.get("alg").is_none() {
            key["alg"] = "RS256".into();
        }
        let read = match key["kty"] == "oct" {
            true => Err("it is a shared secret, which everybody has seen now".into()),
            false => read_jwk(&key),
        };
        match read {
            Ok(key) => used.push(key),
            Err(why) => left_out.push(InvalidKeys::Jwk { at, why }),
        }
    }
    // A token must say which of several is meant, and a name stand for one.
    let several = used.len() > 1;
    let mut names = HashSet::new();
    used.retain(|key| {
        let named = key.id.is_some() || !several;
        let first = key.id.is_none() || names.insert(key.id.clone());
        match (named, first) {
            (false, _) => left_out.push(InvalidKeys::MissingKeyId),
            (_, false) => left_out.push(InvalidKeys::DuplicateKeyId(
                key.id.clone().unwrap_or_default(),
            )),
            _ => {}
        }
        named && first
    });
    match left_out.first() {
        Some(why) if used.is_empty() => Err(why.clone()),
        _ => Ok((used, left_out)),
    }
}

fn read_jwk(value: &Value) -> Result<VerificationKey, String> {
    let text = |name: &str| match value.get(name) {
        None => Ok(None),
        Some(found) => found
            .as_str()
            .map(Some)
            .ok_or(format!("`{name}` is no text")),
    };
    let id = text("kid")?.map(str::to_owned);
    if value.get("d").is_some() {
        return Err("it is a private key, which is known to others now; make a new one, and put its public half here".into());
    }
    if text("use")?.is_some_and(|it| it != "sig") {
        return Err("`use` is not `sig`".into());
    }
    if let Some(operations) = value.get("key_ops") {
        let verifies = operations
            .as_array()
            .is_some_and(|o| o.iter().any(|o| o == "verify"));
        if !verifies {
            return Err("`key_ops` has no `verify`".into());
        }
    }
    let (kind, curve) = (text("kty")?.unwrap_or_default(), text("crv")?);
    let algorithm = match (text("alg")?, kind, curve) {
        (Some(name), ..) => name
            .parse()
            .map_err(|()| format!("`alg` {name} is not one that is verified here"))?,
        (None, "EC", Some("P-256")) => Algorithm::Es256,
        (None, "EC", Some("P-384")) => Algorithm::Es384,
        (None, "OKP", Some("Ed25519")) => Algorithm::EdDsa,
        _ => return Err("`alg` is missing".into()),
    };
    let fits = match algorithm.family() {
        Family::Secret => kind == "oct",
        Family::Rsa => kind == "RSA",
        Family::Elliptic => {
            let expected = if algorithm == Algorithm::Es256 {
                "P-256"
            } else {
                "P-384"
            };
            kind == "EC" && curve == Some(expected)
        }
        Family::Edwards => kind == "OKP" && curve == Some("Ed25519"),
    };
    if !fits {
        return Err(format!("the key is none for {algorithm}"));
    }
    let bytes = |name: &str| {
        use base64::Engine as _;
        let engine = base64::engine::general_purpose::URL_SAFE_NO_PAD;
        let text = text(name)?.ok_or(format!("`{name}` is missing"))?;
        engine
            .decode(text)
            .map_err(|_| format!("`{name}` is not base64url"))
    };
    let key = match algorithm.family() {
        Family::Secret => {
            let secret = checked_secret(algorithm, &bytes("k")?);
            Key::Token(secret.map_err(|e| e.to_string())?)
        }
        Family::Rsa if significant_bits(&bytes("n")?) < SHORTEST_RSA => {
            return Err(InvalidKeys::ShortRsa.to_string());
        }
        _ => {
            let none = || format!("the key is none for {algorithm}");
            let jwk: Jwk = serde_json::from_value(value.clone()).map_err(|_| none())?;
            let key = DecodingKey::from_jwk(&jwk).map_err(|_| none())?;
            Key::of(algorithm, key).ok_or_else(none)?
        }
    };
    Ok(VerificationKey { id, algorithm, key })
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

/// The size of an RSA key in PKCS#1: a sequence whose first integer is the modulus.
fn modulus_bits(der: &[u8]) -> usize {
    let modulus = der_value(der, 0x30).and_then(|sequence| der_value(sequence, 0x02));
    modulus.map_or(0, significant_bits)
}

/// What stands in the DER element that `bytes` start with, if it has this tag.
fn der_value(bytes: &[u8], tag: u8) -> Option<&[u8]> {
    let (&found, rest) = bytes.split_first()?;
    let (&length, rest) = rest.split_first()?;
    let (length, rest) = match length {
        0..=0x7f => (usize::from(length), rest),
        0x81..=0x84 => {
            let (digits, rest) = rest.split_at_checked(usize::from(length & 0x7f))?;
            let length = digits
                .iter()
                .fold(0, |n, digit| n << 8 | usize::from(*digit));
            (length, rest)
        }
        _ => return None,
    };
    (found == tag).then(|| rest.get(..length)).flatten()
}

fn significant_bits(number: &[u8]) -> usize {
    let zeros = number.iter().take_while(|byte| **byte == 0).count();
    let rest = &number[zeros..];
    rest.first()
        .map_or(0, |first| rest.len() * 8 - first.leading_zeros() as usize)
}

/// Keys by their names.
#[derive(Default)]
pub(super) struct KeySet {
    keys: HashMap<Option<String>, VerificationKey>,
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
        if keys.len() > 1 && keys.iter().any(|k| k.id.is_none()) {
            return Err(InvalidKeys::MissingKeyId);
        }
        let mut named = HashMap::new();
        for key in keys {
            let id = key.id.clone();
            if named.insert(id.clone(), key).is_some() {
                return Err(InvalidKeys::DuplicateKeyId(id.unwrap_or_default()));
            }
        }
        if named.is_empty() {
            return Err(InvalidKeys::None);
        }
        Ok(Self { keys: named })
    }

    pub(super) fn is_empty(&self) -> bool {
        self.keys.is_empty()
    }

    /// The key that a token names. Without a name, or where the only key has none, it is the only one.
    pub(super) fn find(&self, id: Option<String>) -> Option<&VerificationKey> {
        let only = || self.keys.values().next().filter(|_| self.keys.len() == 1);
        match id {
            None => only(),
            Some(id) => match self.keys.get(&Some(id)) {
                Some(key) => Some(key),
                None => only().filter(|key| key.id.is_none()),
            },
        }
    }
}
