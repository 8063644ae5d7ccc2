//! The compact form of a signed token (RFC 7515, section 7.1), read without mercy.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

use super::strict_json;
use super::token_error::TokenError;

/// The longest token that is looked at, in bytes.
const LONGEST: usize = 8 * 1024;

/// Header members that ask the verifier to trust the token's own word, or to do something that we do not do.
const FORBIDDEN: [(&str, TokenError); 7] = [
    ("crit", TokenError::CriticalHeader),
    ("b64", TokenError::UnencodedPayload),
    ("zip", TokenError::Compressed),
    ("jwk", TokenError::KeyInToken),
    ("jku", TokenError::KeyInToken),
    ("x5u", TokenError::KeyInToken),
    ("x5c", TokenError::KeyInToken),
];

/// A token that has the form of one. Nothing of it is verified yet.
pub(super) struct Compact<'a> {
    pub(super) algorithm: String,
    pub(super) key_id: Option<String>,
    /// What was signed.
    pub(super) signed: &'a [u8],
    pub(super) claims: Vec<u8>,
    /// As it was sent, in base64url.
    pub(super) signature: &'a str,
    pub(super) signature_bytes: Vec<u8>,
}

impl<'a> Compact<'a> {
    pub(super) fn parse(token: &'a [u8]) -> Result<Self, TokenError> {
        if token.len() > LONGEST {
            return Err(TokenError::TooLong);
        }
        let text = std::str::from_utf8(token).map_err(|_| TokenError::Malformed)?;
        let mut parts = text.split('.');
        let (Some(header), Some(claims), Some(signature), None) =
            (parts.next(), parts.next(), parts.next(), parts.next())
        else {
            return Err(TokenError::NotThreeParts);
        };
        // Padding, white space and stray bits are none of the alphabet's.
        let decode = |part: &str| {
            URL_SAFE_NO_PAD
                .decode(part)
                .map_err(|_| TokenError::Malformed)
        };
        let header = strict_json::object(&decode(header)?).ok_or(TokenError::Header)?;
        if let Some((_, refusal)) = FORBIDDEN
            .iter()
            .find(|(name, _)| header.contains_key(*name))
        {
            return Err(*refusal);
        }
        let text_of = |name: &str| match header.get(name) {
            None => Ok(None),
            Some(value) => value.as_str().map(Some).ok_or(TokenError::Header),
        };
        // A token of another kind of the same issuer is no access token (RFC 8725, section 3.11).
        if let Some(kind) = text_of("typ")?
            && !["jwt", "at+jwt", "application/at+jwt"].contains(&&*kind.to_ascii_lowercase())
        {
            return Err(TokenError::Header);
        }
        let signature_bytes = decode(signature)?;
        if signature.is_empty() {
            return Err(TokenError::Unsigned);
        }
        Ok(Self {
            algorithm: text_of("alg")?.ok_or(TokenError::Header)?.to_owned(),
            key_id: text_of("kid")?.map(str::to_owned),
            signed: &token[..token.len() - signature.len() - 1],
            claims: decode(claims)?,
            signature,
            signature_bytes,
        })
    }
}
