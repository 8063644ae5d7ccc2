//! JSON Web Key Sets (RFC 7517): those of a file, and those that an issuer publishes.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Map, Value};

use super::algorithm::{Algorithm, Family};
use super::big_endian::with_size;
use super::key::VerificationKey;
use super::key_error::{InvalidKeys, JwkProblem};
use super::key_set::KeySet;
use super::strict_json;

const BYTE_ORDER_MARK: &[u8] = b"\xef\xbb\xbf";

/// The first byte of an uncompressed point (SEC 1, section 2.3.3).
const UNCOMPRESSED: u8 = 4;

/// Reads the keys of a key set. Each must have `alg`, or be of a type that has only one algorithm.
///
/// # Errors
/// See [`InvalidKeys`]: one invalid key makes the set invalid.
pub fn read_jwks(text: &[u8]) -> Result<Vec<VerificationKey>, InvalidKeys> {
    let keys = read_set(text)?;
    let keys = keys.iter().enumerate();
    keys.map(|(index, key)| {
        let key = present_members(key).and_then(|key| read_jwk(&key));
        key.map_err(|problem| InvalidKeys::Jwk { index, problem })
    })
    .collect()
}

/// The keys of a published set.
pub struct PublishedJwks {
    /// The keys that can be used.
    pub keys: Vec<VerificationKey>,
    /// Why the other keys cannot be used.
    pub rejected: Vec<InvalidKeys>,
}

/// Reads the keys of a set that an issuer publishes. Keys for other purposes and of other algorithms may be in it and are
/// skipped (RFC 7517, section 5). An RSA key without `alg` is for RS256, as in OpenID Connect.
///
/// # Errors
/// The text is not a key set, or all of its keys are invalid.
pub fn read_published_jwks(text: &[u8]) -> Result<PublishedJwks, InvalidKeys> {
    let (mut keys, mut rejected) = (Vec::new(), Vec::new());
    // Finds keys that conflict with each other.
    let mut known = KeySet::default();
    for (index, key) in read_set(text)?.iter().enumerate() {
        match present_members(key).and_then(read_published_jwk) {
            Err(problem) => rejected.push(InvalidKeys::Jwk { index, problem }),
            Ok(key) => match known.add(key.clone()) {
                Err(error) => rejected.push(error),
                Ok(()) => keys.push(key),
            },
        }
    }
    match rejected.first() {
        Some(error) if keys.is_empty() => Err(error.clone()),
        _ => Ok(PublishedJwks { keys, rejected }),
    }
}

/// The list `keys`. A byte order mark before the set is ignored (RFC 8259, section 8.1).
fn read_set(text: &[u8]) -> Result<Vec<Value>, InvalidKeys> {
    let text = text.strip_prefix(BYTE_ORDER_MARK).unwrap_or(text);
    let mut set = strict_json::object(text).ok_or(InvalidKeys::NotAJwks)?;
    match set.remove("keys") {
        Some(Value::Array(keys)) => Ok(keys),
        _ => Err(InvalidKeys::NotAJwks),
    }
}

/// The members of a key that have a value. Some issuers write members without a value as `null`, an empty string or an empty
/// list.
fn present_members(key: &Value) -> Result<Map<String, Value>, JwkProblem> {
    let key = key.as_object().ok_or(JwkProblem::NotAnObject)?;
    let is_present = |value: &Value| match value {
        Value::Null => false,
        Value::String(text) => !text.is_empty(),
        Value::Array(list) => !list.is_empty(),
        _ => true,
    };
    let present = key.iter().filter(|(_, value)| is_present(value));
    Ok(present.map(|(n, v)| (n.clone(), v.clone())).collect())
}

fn read_published_jwk(mut key: Map<String, Value>) -> Result<VerificationKey, JwkProblem> {
    let kind = key.get("kty").and_then(Value::as_str);
    if kind == Some("oct") {
        return Err(JwkProblem::PublishedSecret);
    }
    if kind == Some("RSA") && !key.contains_key("alg") {
        key.insert("alg".into(), "RS256".into());
    }
    read_jwk(&key)
}

fn read_jwk(key: &Map<String, Value>) -> Result<VerificationKey, JwkProblem> {
    let text = |name| match key.get(name) {
        None => Ok(None),
        Some(Value::String(text)) => Ok(Some(text.as_str())),
        Some(_) => Err(JwkProblem::NotText(name)),
    };
    let bytes = |name| {
        let text = text(name)?.ok_or(JwkProblem::Missing(name))?;
        let bytes = URL_SAFE_NO_PAD.decode(text);
        bytes.map_err(|_| JwkProblem::NotBase64(name))
    };
    let id = text("kid")?.map(str::to_owned);
    if key.contains_key("d") {
        return Err(JwkProblem::Private);
    }
    if text("use")?.is_some_and(|it| it != "sig") {
        return Err(JwkProblem::Use);
    }
    if let Some(operations) = key.get("key_ops") {
        let operations = operations.as_array();
        if !operations.is_some_and(|o| o.iter().any(|o| o == "verify")) {
            return Err(JwkProblem::Operations);
        }
    }
    let (kind, curve) = (text("kty")?.unwrap_or_default(), text("crv")?);
    let algorithm = match (text("alg")?, kind, curve) {
        (Some(name), ..) => name
            .parse()
            .map_err(|_| JwkProblem::Algorithm(name.to_owned()))?,
        (None, "EC", Some("P-256")) => Algorithm::Es256,
        (None, "EC", Some("P-384")) => Algorithm::Es384,
        (None, "OKP", Some("Ed25519")) => Algorithm::EdDsa,
        _ => return Err(JwkProblem::Missing("alg")),
    };
    let (expected_kind, expected_curve) = match algorithm {
        Algorithm::Es256 => ("EC", Some("P-256")),
        Algorithm::Es384 => ("EC", Some("P-384")),
        Algorithm::EdDsa => ("OKP", Some("Ed25519")),
        _ if algorithm.family() == Family::Secret => ("oct", None),
        _ => ("RSA", None),
    };
    if kind != expected_kind || (expected_curve.is_some() && curve != expected_curve) {
        return Err(JwkProblem::OtherAlgorithm(algorithm));
    }
    let key = match algorithm.family() {
        Family::Secret => VerificationKey::secret_bytes(id, algorithm, &bytes("k")?),
        Family::Rsa => VerificationKey::rsa(id, algorithm, &bytes("n")?, &bytes("e")?),
        Family::Elliptic => {
            let size = if algorithm == Algorithm::Es256 {
                32
            } else {
                48
            };
            let mut point = vec![UNCOMPRESSED];
            for name in ["x", "y"] {
                let coordinate = with_size(&bytes(name)?, size);
                point.extend(coordinate.ok_or(JwkProblem::TooLarge(name))?);
            }
            VerificationKey::point(id, algorithm, &point)
        }
        Family::Edwards => match bytes("x")? {
            x if x.len() == 32 => VerificationKey::point(id, algorithm, &x),
            _ => return Err(JwkProblem::Ed25519Size),
        },
    };
    Ok(key?)
}
