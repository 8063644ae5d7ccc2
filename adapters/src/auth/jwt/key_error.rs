//! Why keys are rejected. No text contains any part of a key.

use super::algorithm::Algorithm;

/// Shorter RSA keys can be broken (RFC 7518, section 3.3).
pub(super) const MIN_RSA_BITS: usize = 2048;

/// Longer RSA keys are not supported by aws-lc-rs.
pub(super) const MAX_RSA_BITS: usize = 8192;

/// The maximum number of keys without a `kid`: a token that may be signed by any of them is verified with each.
pub(super) const MAX_UNNAMED: usize = 8;

/// Why a key is rejected.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidKey {
    /// A secret is short enough to be guessed.
    #[error("a shared secret for {algorithm} must have at least {min_bytes} bytes")]
    ShortSecret {
        /// The algorithm.
        algorithm: Algorithm,
        /// The minimum length.
        min_bytes: usize,
    },
    /// A secret is in examples, or repeats a short text.
    #[error("the shared secret is one that attackers try first; make a random one")]
    WellKnownSecret,
    /// A secret is the text of a public key.
    #[error(
        "the shared secret is the text of a public key; set --token-algorithm to that key's algorithm"
    )]
    PublicKeyAsSecret,
    /// An RSA key is short enough to be broken.
    #[error("an RSA key must have at least {MIN_RSA_BITS} bits")]
    ShortRsa,
    /// An RSA key is longer than aws-lc-rs supports.
    #[error("an RSA key must have at most {MAX_RSA_BITS} bits")]
    LongRsa,
    /// The exponent of an RSA key is unsafe or not supported.
    #[error("the exponent of an RSA key must be an odd number from 3 to 2^33")]
    RsaExponent,
    /// The private half of an RSA key can be computed from the public one.
    #[error(
        "the RSA key has the fingerprint of ROCA (CVE-2017-15361): a faulty chip made it, and its private half can be \
         computed from its public one; make a new key by other means"
    )]
    Roca,
    /// It is not a public key for the algorithm.
    #[error("the key is not a public key for {0}")]
    NotPublicKey(Algorithm),
    /// The algorithm does not use a shared secret.
    #[error("{0} does not use a shared secret")]
    NotHmac(Algorithm),
    /// The text is not a public key for the algorithm in PEM.
    #[error("the key is not a public key for {0} in PEM")]
    Pem(Algorithm),
    /// The bytes are not an uncompressed point, or the point is not on the curve of the algorithm.
    #[error("the bytes are not an uncompressed point of the curve of {0}")]
    Point(Algorithm),
}

/// Why a set of keys is rejected.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidKeys {
    /// The set is empty.
    #[error("there is no key to verify tokens with")]
    Empty,
    /// The text is not a JSON Web Key Set.
    #[error("the text is not a JWKS: an object with a list `keys` is expected")]
    NotAJwks,
    /// A key of the set is rejected.
    #[error("key {index} of the JWKS: {problem}")]
    Jwk {
        /// Its position in the set, counted from 0.
        index: usize,
        /// What is wrong with it.
        problem: JwkProblem,
    },
    /// A `kid` does not identify one key.
    #[error("two keys have the kid `{0}` and the same algorithm")]
    DuplicateKeyId(String),
    /// Too many keys have no `kid`.
    #[error("at most {MAX_UNNAMED} keys may have no kid")]
    TooManyUnnamed,
    /// The set has shared secrets and public keys, so a public key could be used as a secret.
    #[error("shared secrets and public keys must not be in one set")]
    Mixed,
}

/// What is wrong with a JSON Web Key.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum JwkProblem {
    #[error("it is not an object")]
    NotAnObject,
    #[error("`{0}` is missing")]
    Missing(&'static str),
    #[error("`{0}` is not a string")]
    NotText(&'static str),
    /// The encoding is base64url without padding.
    #[error("`{0}` is not base64url")]
    NotBase64(&'static str),
    /// A coordinate does not fit the curve.
    #[error("`{0}` is too large")]
    TooLarge(&'static str),
    #[error("`x` must have 32 bytes")]
    Ed25519Size,
    /// It is a private key.
    #[error(
        "it is a private key: treat it as compromised, make a new key, and put only its public half here"
    )]
    Private,
    /// An issuer publishes a shared secret.
    #[error("it is a shared secret, which is no longer secret because it is published")]
    PublishedSecret,
    /// The key is not for signatures.
    #[error("`use` is not `sig`")]
    Use,
    /// The key is not for verification.
    #[error("`key_ops` has no `verify`")]
    Operations,
    #[error("`alg` {0} is not supported")]
    Algorithm(String),
    /// The algorithm is that of `alg`.
    #[error("`kty` or `crv` does not match {0}")]
    OtherAlgorithm(Algorithm),
    /// The key itself is rejected.
    #[error(transparent)]
    Key(#[from] InvalidKey),
}
