//! Sets of keys in JSON (RFC 7517): those of a file, and those that an issuer publishes.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Map, Value};

use super::algorithm::{Algorithm, Family};
use super::keys::{InvalidKeys, KeySet, VerificationKey};
use super::strict_json;

const BYTE_ORDER_MARK: &[u8] = b"\xef\xbb\xbf";

/// The keys of a JSON Web Key Set (RFC 7517). Each must have `alg`, or be of a kind that has only one.
///
/// # Errors
/// See [`InvalidKeys`]: a set with one bad key is not used at all.
pub fn read_jwks(text: &[u8]) -> Result<Vec<VerificationKey>, InvalidKeys> {
    let keys = read_set(text)?;
    let keys = keys.iter().enumerate();
    keys.map(|(at, key)| {
        let key = present_members(key).and_then(|key| read_jwk(&key));
        key.map_err(|why| InvalidKeys::Jwk { at, why })
    })
    .collect()
}

/// The keys of a set that an issuer publishes for everybody, and why others of it are left out: keys for other purposes
/// and of other algorithms may stand beside them (RFC 7517, section 5). An RSA key without `alg` is one for RS256, as
/// OpenID Connect has it.
///
/// # Errors
/// It is no set, or holds no key that can be used.
pub fn read_published_jwks(
    text: &[u8],
) -> Result<(Vec<VerificationKey>, Vec<InvalidKeys>), InvalidKeys> {
    let (mut used, mut left_out) = (Vec::new(), Vec::new());
    // Finds keys that stand in each other's way.
    let mut known = KeySet::default();
    for (at, key) in read_set(text)?.iter().enumerate() {
        match present_members(key).and_then(read_published_jwk) {
            Err(why) => left_out.push(InvalidKeys::Jwk { at, why }),
            Ok(key) => match known.add(key.clone()) {
                Err(why) => left_out.push(why),
                Ok(()) => used.push(key),
            },
        }
    }
    match left_out.first() {
        Some(why) if used.is_empty() => Err(why.clone()),
        _ => Ok((used, left_out)),
    }
}

/// The list `keys`. A byte order mark before the set is ignored (RFC 8259, section 8.1).
fn read_set(text: &[u8]) -> Result<Vec<Value>, InvalidKeys> {
    let text = text.strip_prefix(BYTE_ORDER_MARK).unwrap_or(text);
    let mut set = strict_json::object(text).ok_or(InvalidKeys::Jwks)?;
    match set.remove("keys") {
        Some(Value::Array(keys)) => Ok(keys),
        _ => Err(InvalidKeys::Jwks),
    }
}

/// The members of a key that have a value. Issuers whose libraries write every member leave `null`, an empty text or an
/// empty list where there is nothing to say.
fn present_members(key: &Value) -> Result<Map<String, Value>, String> {
    let key = key.as_object().ok_or("it is no object")?;
    let is_present = |value: &Value| match value {
        Value::Null => false,
        Value::String(text) => !text.is_empty(),
        Value::Array(list) => !list.is_empty(),
        _ => true,
    };
    let present = key.iter().filter(|(_, value)| is_present(value));
    Ok(present.map(|(n, v)| (n.clone(), v.clone())).collect())
}

fn read_published_jwk(mut key: Map<String, Value>) -> Result<VerificationKey, String> {
    let kind = key.get("kty").and_then(Value::as_str);
    if kind == Some("oct") {
        return Err("it is a shared secret, which everybody has seen now".into());
    }
    if kind == Some("RSA") && !key.contains_key("alg") {
        key.insert("alg".into(), "RS256".into());
    }
    read_jwk(&key)
}

fn read_jwk(key: &Map<String, Value>) -> Result<VerificationKey, String> {
    let text = |name: &str| match key.get(name) {
        None => Ok(None),
        Some(found) => found
            .as_str()
            .map(Some)
            .ok_or(format!("`{name}` is no text")),
    };
    let id = text("kid")?.map(str::to_owned);
    if key.contains_key("d") {
        return Err("it is a private key, which is known to others now; make a new one, and put its public half here".into());
    }
    if text("use")?.is_some_and(|it| it != "sig") {
        return Err("`use` is not `sig`".into());
    }
    if let Some(operations) = key.get("key_ops") {
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
    let (expected_kind, expected_curve) = match algorithm {
        Algorithm::Es256 => ("EC", Some("P-256")),
        Algorithm::Es384 => ("EC", Some("P-384")),
        Algorithm::EdDsa => ("OKP", Some("Ed25519")),
        _ if algorithm.family() == Family::Secret => ("oct", None),
        _ => ("RSA", None),
    };
    if kind != expected_kind || (expected_curve.is_some() && curve != expected_curve) {
        return Err(format!("the key is none for {algorithm}"));
    }
    let bytes = |name: &str| {
        let text = text(name)?.ok_or(format!("`{name}` is missing"))?;
        let bytes = URL_SAFE_NO_PAD.decode(text);
        bytes.map_err(|_| format!("`{name}` is not base64url"))
    };
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
                point.extend(coordinate.ok_or(format!("`{name}` is too large"))?);
            }
            VerificationKey::point(id, algorithm, &point)
        }
        Family::Edwards => match bytes("x")? {
            x if x.len() == 32 => VerificationKey::point(id, algorithm, &x),
            _ => return Err("`x` must have 32 bytes".into()),
        },
    };
    key.map_err(|why| why.to_string())
}

/// The first byte of a point that stands with both of its coordinates (SEC 1, section 2.3.3).
const UNCOMPRESSED: u8 = 4;

/// A number in so many bytes: some issuers write coordinates like other numbers, with a leading zero octet for the sign or
/// without those that RFC 7518, section 6.2.1.2, asks for. `None`: it needs more.
fn with_size(number: &[u8], size: usize) -> Option<Vec<u8>> {
    let digits = significant(number);
    let mut padded = vec![0; size.checked_sub(digits.len())?];
    padded.extend_from_slice(digits);
    Some(padded)
}

/// Without leading zero octets.
pub(super) fn significant(number: &[u8]) -> &[u8] {
    let zeros = number.iter().take_while(|byte| **byte == 0).count();
    &number[zeros..]
}
