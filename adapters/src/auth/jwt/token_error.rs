use keywright_domain::ports::AuthError;

/// Why a token is not accepted. For the log and for tests: clients get one answer for all of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum TokenError {
    /// More than 8 KiB.
    TooLong,
    /// Not three parts with dots between them.
    NotThreeParts,
    /// A part is not base64url without padding.
    Malformed,
    /// The header is no object with `alg`, has a member twice, or one of another type.
    Header,
    /// The header has `crit`.
    CriticalHeader,
    /// The header has `b64`.
    UnencodedPayload,
    /// The header has `zip`.
    Compressed,
    /// The header brings a key along, or says where there is one.
    KeyInToken,
    /// There is no signature.
    Unsigned,
    /// There is no key yet, so that nothing can be said of any token.
    NoKeys,
    /// No key has that `kid`, and too many wait already for its issuer to be asked.
    NotAsked,
    /// No key has that `kid`, or there is no `kid` and more than one key.
    UnknownKey,
    /// The header's `alg` is not the key's.
    WrongAlgorithm,
    /// The signature is not the key's.
    Forged,
    /// The claims are no object, or have a member twice.
    Claims,
    /// `iss` is missing, no text, or another one.
    WrongIssuer,
    /// `aud` is missing, no text or list of texts, or another one.
    WrongAudience,
    /// `sub` is missing or is no user id.
    Subject,
    /// The organization's claim is no organization id.
    Organization,
    /// `exp` is missing or no time.
    NoExpiry,
    /// `exp` has passed.
    Expired,
    /// `nbf` is no time or is yet to come.
    NotYetValid,
    /// `iat` is no time or is yet to come.
    IssuedInTheFuture,
}

impl TokenError {
    /// The reason in a few words, without any part of the token.
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
            Self::NotAsked => "token: unknown kid, and too many wait for the issuer",
            Self::UnknownKey => "token: unknown kid",
            Self::WrongAlgorithm => "token: alg is not the key's",
            Self::Forged => "token: signature",
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
    fn from(refusal: TokenError) -> Self {
        match refusal {
            TokenError::NoKeys | TokenError::NotAsked => Self::Unavailable(refusal.as_str().into()),
            _ => Self::Refused(refusal.as_str()),
        }
    }
}
