use std::fmt;

use async_trait::async_trait;

use crate::model::Principal;

/// A credential as the client sent it. Its `Debug` output does not show it.
#[derive(Clone)]
pub struct Secret(String);

impl Secret {
    /// Wraps a credential. Any text is accepted; the adapter validates it.
    pub fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }

    /// The credential itself. Only the adapter that checks it may call this.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(…)")
    }
}

/// The credentials of a request.
#[derive(Clone, Debug, Default)]
pub struct Credentials {
    /// The JWT of `Authorization: Bearer`.
    pub bearer: Option<Secret>,
    /// The value of `X-API-Key`.
    pub api_key: Option<Secret>,
}

/// Why a request could not be authenticated.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AuthError {
    /// The request has no credential, or one of its credentials is malformed, unknown, expired or revoked. The text is for the log
    /// only: a client that guesses credentials must not learn the cause.
    #[error("credentials refused: {0}")]
    Refused(&'static str),
    /// The credentials could not be checked, for instance because the issuer's keys could not be fetched. The text is for the
    /// log. The request must be rejected; it may be repeated later.
    #[error("credentials could not be checked: {0}")]
    Unavailable(String),
}

/// Authenticates requests: turns credentials into a [`Principal`].
///
/// Authentication has no effect, so a call can be repeated at any time. An adapter compares secrets in constant time, which no test
/// case can show, and does not decide which locks the principal may access: the use cases do that.
///
/// # Contract
///
/// Each promise has the test case of its name in `keywright-testkit`.
///
/// 1. `missing_credentials_are_refused`: a request without a credential MUST be refused.
/// 2. `token_proves_its_identity`: a valid token MUST prove its identity.
/// 3. `api_key_proves_its_identity`: a valid API key MUST prove its identity.
/// 4. `both_credentials_prove_both_identities`: the principal MUST have one proof for each credential, the token's first.
/// 5. `invalid_token_is_refused`: a request with an invalid token MUST be refused, even if its API key is valid.
/// 6. `invalid_api_key_is_refused`: a request with an invalid API key MUST be refused, even if its token is valid.
/// 7. `refusal_does_not_reveal_secrets`: an error MUST NOT contain any part of a secret.
#[async_trait]
pub trait AuthPort: Send + Sync {
    /// Checks the credentials and returns the principal that they prove.
    ///
    /// # Errors
    /// See [`AuthError`].
    async fn authenticate(&self, credentials: &Credentials) -> Result<Principal, AuthError>;
}
