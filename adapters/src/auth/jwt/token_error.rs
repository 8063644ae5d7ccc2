//! Why tokens are rejected.

use keywright_domain::ports::AuthError;

/// Why a token is rejected. The reason is for the log: clients receive the same answer for all of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{}", self.as_str())]
#[non_exhaustive]
pub enum TokenError {
    /// The token is longer than 8 KiB.
    TooLong,
    /// The token is not three parts separated by dots.
    NotThreeParts,
    /// A part is not base64url without padding.
    Malformed,
    /// The header is not an object with `alg`, or has a duplicate member or one of a wrong type.
    Header,
    /// The header has `crit`.
    CriticalHeader,
    /// The header has `b64`.
    UnencodedPayload,
    /// The header has `zip`.
    Compressed,
    /// The header contains a key or the place of one.
    KeyInToken,
    /// The signature is missing.
    Unsigned,
    /// The verifier has no keys yet.
    NoKeys,
    /// No key has this `kid`, and too many requests already wait for the issuer's keys.
    TooManyWaiting,
    /// No key has this `kid`, or the token has no `kid` and the set has more than one key.
    UnknownKey,
    /// The `alg` of the header is not the algorithm of the key.
    WrongAlgorithm,
    /// The signature is not valid for the key.
    InvalidSignature,
    /// The claims are not an object, or have a duplicate member.
    Claims,
    /// `iss` is missing, is not a string, or names another issuer.
    WrongIssuer,
    /// `aud` is missing, is not a string or a list of strings, or names another audience.
    WrongAudience,
    /// `sub` is missing or is not a valid user id.
    Subject,
    /// The claim of the organization is not a valid organization id.
    Organization,
    /// `exp` is missing or is not a time.
    NoExpiry,
    /// `exp` has passed.
    Expired,
    /// `nbf` is not a time or is in the future.
    NotYetValid,
    /// `iat` is not a time or is in the future.
    IssuedInTheFuture,
}

impl TokenError {
    /// The reason without any part of the token.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::TooLong => "token: longer than 8 KiB",
            Self::NotThreeParts => "token: not three parts",
            Self::Malformed => "token: not base64url",
            Self::Header => "token: header",
            Self::CriticalHeader => "token: crit in the header",
            Self::UnencodedPayload => "token: b64 in the header",
            Self::Compressed => "token: zip in the header",
            Self::KeyInToken => "token: a key in the header",
            Self::Unsigned => "token: no signature",
            Self::NoKeys => "token: there are no keys yet",
            Self::TooManyWaiting => "token: unknown kid, and too many wait for the issuer",
            Self::UnknownKey => "token: unknown kid",
            Self::WrongAlgorithm => "token: alg is not the key's",
            Self::InvalidSignature => "token: signature",
            Self::Claims => "token: claims",
            Self::WrongIssuer => "token: iss",
            Self::WrongAudience => "token: aud",
            Self::Subject => "token: sub",
            Self::Organization => "token: organization",
            Self::NoExpiry => "token: no exp",
            Self::Expired => "token: expired",
            Self::NotYetValid => "token: nbf",
            Self::IssuedInTheFuture => "token: iat",
        }
    }
}

impl From<TokenError> for AuthError {
    fn from(error: TokenError) -> Self {
        match error {
            TokenError::NoKeys | TokenError::TooManyWaiting => {
                Self::Unavailable(error.as_str().into())
            }
            _ => Self::Refused(error.as_str()),
        }
    }
}
