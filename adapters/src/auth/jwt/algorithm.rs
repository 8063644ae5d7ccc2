//! The supported algorithms.

use std::fmt;
use std::str::FromStr;

use jsonwebtoken::Algorithm as Signing;

/// An algorithm that tokens may be signed with (RFC 7518, RFC 8037, RFC 9864).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Algorithm {
    /// HMAC with SHA-256.
    Hs256,
    /// HMAC with SHA-384.
    Hs384,
    /// HMAC with SHA-512.
    Hs512,
    /// RSASSA-PKCS1-v1_5 with SHA-256.
    Rs256,
    /// RSASSA-PKCS1-v1_5 with SHA-384.
    Rs384,
    /// RSASSA-PKCS1-v1_5 with SHA-512.
    Rs512,
    /// RSASSA-PSS with SHA-256.
    Ps256,
    /// RSASSA-PSS with SHA-384.
    Ps384,
    /// RSASSA-PSS with SHA-512.
    Ps512,
    /// ECDSA on P-256 with SHA-256.
    Es256,
    /// ECDSA on P-384 with SHA-384.
    Es384,
    /// Ed25519.
    EdDsa,
}

/// The type of key that an algorithm needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Family {
    Secret,
    Rsa,
    Elliptic,
    Edwards,
}

/// The names of the algorithms. The first name of an algorithm is used in messages; the others are aliases that are accepted, too.
const NAMES: [(&str, Algorithm, Family); 13] = [
    ("HS256", Algorithm::Hs256, Family::Secret),
    ("HS384", Algorithm::Hs384, Family::Secret),
    ("HS512", Algorithm::Hs512, Family::Secret),
    ("RS256", Algorithm::Rs256, Family::Rsa),
    ("RS384", Algorithm::Rs384, Family::Rsa),
    ("RS512", Algorithm::Rs512, Family::Rsa),
    ("PS256", Algorithm::Ps256, Family::Rsa),
    ("PS384", Algorithm::Ps384, Family::Rsa),
    ("PS512", Algorithm::Ps512, Family::Rsa),
    ("ES256", Algorithm::Es256, Family::Elliptic),
    ("ES384", Algorithm::Es384, Family::Elliptic),
    ("EdDSA", Algorithm::EdDsa, Family::Edwards),
    // RFC 9864.
    ("Ed25519", Algorithm::EdDsa, Family::Edwards),
];

impl Algorithm {
    /// All names of algorithms, with aliases.
    pub fn names() -> impl Iterator<Item = &'static str> {
        NAMES.iter().map(|row| row.0)
    }

    fn row(self) -> (&'static str, Family) {
        let row = NAMES.iter().find(|row| row.1 == self);
        row.map_or(("HS256", Family::Secret), |row| (row.0, row.2))
    }

    /// The name in messages. A token may name an alias in its header.
    pub fn name(self) -> &'static str {
        self.row().0
    }

    pub(super) fn family(self) -> Family {
        self.row().1
    }

    /// The library's name of an algorithm of [`Family::Secret`].
    pub(super) const fn hmac(self) -> Signing {
        match self {
            Self::Hs384 => Signing::HS384,
            Self::Hs512 => Signing::HS512,
            _ => Signing::HS256,
        }
    }

    /// The minimum length of a secret in bytes: the length of the hash (RFC 7518, section 3.2).
    pub(super) const fn min_secret_bytes(self) -> usize {
        match self {
            Self::Hs384 => 48,
            Self::Hs512 => 64,
            _ => 32,
        }
    }
}

/// The name of an algorithm is unknown.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the algorithm is not supported")]
pub struct UnknownAlgorithm;

impl FromStr for Algorithm {
    type Err = UnknownAlgorithm;

    fn from_str(name: &str) -> Result<Self, UnknownAlgorithm> {
        let row = NAMES.iter().find(|row| row.0 == name);
        row.map(|row| row.1).ok_or(UnknownAlgorithm)
    }
}

impl fmt::Display for Algorithm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}
