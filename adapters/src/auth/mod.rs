//! Authentication: JSON Web Tokens, API keys, and both together.

#[cfg(feature = "auth")]
mod api_key;
#[cfg(feature = "auth")]
mod api_key_file;
#[cfg(feature = "auth")]
mod credentials;
#[cfg(feature = "jwks-url")]
mod jwks_client;
#[cfg(feature = "jwks-url")]
mod jwks_refresher;
#[cfg(feature = "auth")]
mod jwt;
mod memory;
#[cfg(all(feature = "auth", feature = "postgres"))]
mod postgres_api_keys;
mod principal;

#[cfg(feature = "auth")]
pub use crate::private_file::write_private;
#[cfg(feature = "jwks-url")]
pub use crate::tls::InvalidCaFile;
#[cfg(feature = "auth")]
pub use api_key::{ApiKey, ApiKeyRecord, ApiKeys, LastUsed};
#[cfg(feature = "auth")]
pub use api_key_file::{
    ApiKeyFileError, ApiKeyFileProblem, read_api_keys, read_last_used, read_operators,
    write_api_keys, write_last_used,
};
#[cfg(feature = "auth")]
pub use credentials::{CredentialAuth, Tokens};
#[cfg(feature = "jwks-url")]
pub use jwks_client::{FetchProblem, InvalidJwksUrl, JwksClient, JwksUnavailable};
#[cfg(feature = "jwks-url")]
pub use jwks_refresher::JwksRefresher;
#[cfg(feature = "auth")]
pub use jwt::{
    Algorithm, InvalidKey, InvalidKeys, JwkProblem, JwtSettings, JwtVerifier, PublishedJwks,
    TokenError, UnknownAlgorithm, VerificationKey, VerifiedClaims, read_jwks, read_published_jwks,
};
pub use memory::InMemoryAuth;
#[cfg(all(feature = "auth", feature = "postgres"))]
pub use postgres_api_keys::PostgresApiKeys;
