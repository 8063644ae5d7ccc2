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
/// - An adapter MUST check every credential of the request. The principal MUST have one proof for each, the token's first.
/// - It MUST return [`AuthError::Refused`] if there is no credential or if any one of them is not valid, even if the other one is.
/// - It MUST compare secrets in constant time, and MUST NOT put any part of a secret into an error.
/// - It MUST NOT decide which locks the principal may access; the use cases do that.
///
/// Authentication has no effect, so a call can be repeated at any time.
#[async_trait]
pub trait AuthPort: Send + Sync {
    /// Checks the credentials and returns the principal that they prove.
    ///
    /// # Errors
    /// See [`AuthError`].
    async fn authenticate(&self, credentials: &Credentials) -> Result<Principal, AuthError>;
}
