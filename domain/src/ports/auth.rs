use std::fmt;

use async_trait::async_trait;

use crate::model::Principal;

/// A credential as it was sent. It is never shown.
#[derive(Clone)]
pub struct Secret(String);

impl Secret {
    /// Takes the credential over.
    pub fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }

    /// The credential itself, for the adapter that checks it and for nobody else.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(…)")
    }
}

/// What a request carries to say who asks.
#[derive(Clone, Debug, Default)]
pub struct Credentials {
    /// The JWT of `Authorization: Bearer`.
    pub bearer: Option<Secret>,
    /// The value of `X-API-Key`.
    pub api_key: Option<Secret>,
}

/// Why nobody was recognized.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AuthError {
    /// A credential is missing, malformed, unknown, expired or revoked. The text is for the log only:
    /// a client that guesses must not learn which.
    #[error("credentials refused: {0}")]
    Refused(&'static str),
    /// Credentials could not be checked at the moment. Nobody is let in.
    #[error("credentials could not be checked: {0}")]
    Unavailable(String),
}

/// Credentials in, [`Principal`] out.
///
/// An adapter MUST check each credential that was sent and MUST answer [`AuthError::Refused`] when any
/// one of them is not valid, also when the other one is. It MUST compare secrets in constant time and
/// MUST NOT put any part of one into an error. It decides who asks, never what they may do.
#[async_trait]
pub trait AuthPort: Send + Sync {
    /// # Errors
    /// See [`AuthError`].
    async fn authenticate(&self, credentials: &Credentials) -> Result<Principal, AuthError>;
}
