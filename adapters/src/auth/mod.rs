//! Who asks: JSON Web Tokens, API keys, and both together.

#[cfg(feature = "auth")]
mod api_key;
#[cfg(feature = "auth")]
mod api_key_file;
#[cfg(all(feature = "auth", feature = "postgres"))]
mod api_key_table;
#[cfg(feature = "auth")]
mod credentials;
#[cfg(feature = "auth")]
mod jwt;
mod memory;
#[cfg(feature = "jwks-url")]
mod published_keys;

#[cfg(feature = "auth")]
pub use api_key::{ApiKey, ApiKeyRecord, ApiKeys, LastUsed};
#[cfg(feature = "auth")]
pub use api_key_file::{
    ApiKeyFileError, read_api_keys, read_last_used, write_api_keys, write_last_used, write_private,
};
#[cfg(all(feature = "auth", feature = "postgres"))]
pub use api_key_table::PostgresApiKeys;
#[cfg(feature = "auth")]
pub use credentials::{CredentialAuth, Tokens};
#[cfg(feature = "auth")]
pub use jwt::{
    Algorithm, InvalidKeys, JwtSettings, JwtVerifier, TokenError, VerificationKey, Verified,
    read_jwks, read_published_jwks,
};
pub use memory::InMemoryAuth;
#[cfg(feature = "jwks-url")]
pub use published_keys::{InvalidJwksUrl, JwksUnavailable, JwksUrl, PublishedKeys};

use keywright_domain::model::{Principal, Proof};
use keywright_domain::ports::AuthError;

/// Who asks, by what each credential that was sent proves: all of them must be good.
fn principal(
    token: Option<Result<Proof, AuthError>>,
    api_key: Option<Result<Proof, AuthError>>,
) -> Result<Principal, AuthError> {
    match (token, api_key) {
        (None, None) => Err(AuthError::Refused("no credentials were sent")),
        (Some(one), None) | (None, Some(one)) => Ok(Principal::of(one?)),
        (Some(token), Some(api_key)) => Ok(Principal::of_both(token?, api_key?)),
    }
}
