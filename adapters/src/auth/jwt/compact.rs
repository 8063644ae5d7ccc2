//! Strict parsing of the compact form of a signed token (RFC 7515, section 7.1).

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

use super::strict_json;
use super::token_error::TokenError;

/// The maximum length of a token in bytes.
const MAX_LEN: usize = 8 * 1024;

/// Header members that name a key to trust, or require unsupported features.
const FORBIDDEN: [(&str, TokenError); 7] = [
    ("crit", TokenError::CriticalHeader),
    ("b64", TokenError::UnencodedPayload),
    ("zip", TokenError::Compressed),
    ("jwk", TokenError::KeyInToken),
    ("jku", TokenError::KeyInToken),
    ("x5u", TokenError::KeyInToken),
    ("x5c", TokenError::KeyInToken),
];

/// A parsed token. Nothing of it is verified yet.
pub(super) struct ParsedToken<'a> {
    pub(super) algorithm: String,
    pub(super) key_id: Option<String>,
    /// The bytes that were signed.
    pub(super) signed: &'a [u8],
    pub(super) claims: Vec<u8>,
    /// In base64url, as it was sent.
    pub(super) signature: &'a str,
    pub(super) signature_bytes: Vec<u8>,
}

impl<'a> ParsedToken<'a> {
    pub(super) fn parse(token: &'a [u8]) -> Result<Self, TokenError> {
        if token.len() > MAX_LEN {
            return Err(TokenError::TooLong);
        }
        let text = std::str::from_utf8(token).map_err(|_| TokenError::Malformed)?;
        let mut parts = text.split('.');
        let (Some(header), Some(claims), Some(signature), None) =
            (parts.next(), parts.next(), parts.next(), parts.next())
        else {
            return Err(TokenError::NotThreeParts);
        };
        // This engine rejects padding, white space and stray bits.
        let decode = |part: &str| {
            URL_SAFE_NO_PAD
                .decode(part)
                .map_err(|_| TokenError::Malformed)
        };
        let header = strict_json::object(&decode(header)?).ok_or(TokenError::Header)?;
        if let Some((_, error)) = FORBIDDEN
            .iter()
            .find(|(name, _)| header.contains_key(*name))
        {
            return Err(*error);
        }
        let text_of = |name: &str| match header.get(name) {
            None => Ok(None),
            Some(value) => value.as_str().map(Some).ok_or(TokenError::Header),
        };
        // The same issuer may sign tokens for other purposes (RFC 8725, section 3.11).
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
