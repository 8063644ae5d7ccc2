//! JSON Web Tokens (RFC 7519), verified strictly (RFC 8725): each configured key has one algorithm, the header of a token only selects among
//! these keys (`kid`, `alg`), keys in a token are rejected, and so are optional features.

mod algorithm;
mod big_endian;
mod claim_checks;
mod compact;
mod jwks;
mod key;
mod key_error;
mod key_set;
mod rsa;
mod strict_json;
mod token_error;
mod verifier;

pub use algorithm::{Algorithm, UnknownAlgorithm};
pub use claim_checks::{JwtSettings, VerifiedClaims};
pub use jwks::{PublishedJwks, read_jwks, read_published_jwks};
pub use key::VerificationKey;
pub use key_error::{InvalidKey, InvalidKeys, JwkProblem};
pub use token_error::TokenError;
pub use verifier::JwtVerifier;
