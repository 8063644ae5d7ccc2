//! Authentication by tokens and API keys.

use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard};

use async_trait::async_trait;
use keywright_domain::model::{CredentialName, Principal, Proof, Timestamp};
use keywright_domain::ports::{AuthError, AuthPort, Clock, Credentials, Secret};

use super::api_key::{ApiKeys, LastUsed};
#[cfg(feature = "jwks-url")]
use super::jwks_refresher::JwksRefresher;
use super::jwt::{JwtVerifier, TokenError, VerifiedClaims};
use super::principal::principal;

/// Accepts tokens and API keys. A credential of a kind that is not configured is refused like an invalid one.
pub struct CredentialAuth {
    tokens: Option<Tokens>,
    api_keys: Option<RwLock<ApiKeys>>,
    clock: Arc<dyn Clock>,
}

/// The verifier of tokens.
#[derive(Clone)]
pub enum Tokens {
    /// Its keys are set by the embedding program.
    Known(Arc<JwtVerifier>),
    /// Its keys are those that an issuer publishes.
    #[cfg(feature = "jwks-url")]
    Published(Arc<JwksRefresher>),
}

impl Tokens {
    async fn verify(&self, token: &[u8], now: Timestamp) -> Result<VerifiedClaims, TokenError> {
        match self {
            Self::Known(verifier) => verifier.verify(token, now),
            #[cfg(feature = "jwks-url")]
            Self::Published(keys) => keys.verify(token, now).await,
        }
    }
}

impl CredentialAuth {
    /// Accepts tokens and API keys; `None`: not this kind.
    pub fn new(tokens: Option<Tokens>, api_keys: Option<ApiKeys>, clock: Arc<dyn Clock>) -> Self {
        Self {
            tokens,
            api_keys: api_keys.map(RwLock::new),
            clock,
        }
    }

    fn api_keys(&self) -> Option<RwLockReadGuard<'_, ApiKeys>> {
        let keys = self.api_keys.as_ref();
        keys.map(|keys| keys.read().unwrap_or_else(PoisonError::into_inner))
    }

    async fn bearer(&self, token: &Secret, now: Timestamp) -> Result<Proof, AuthError> {
        let refused = AuthError::Refused("tokens are not accepted here");
        let tokens = self.tokens.as_ref().ok_or(refused)?;
        let verified = tokens.verify(token.expose().as_bytes(), now).await?;
        Ok(Proof {
            identity: verified.identity,
            credential: Some(CredentialName::Subject(verified.subject)),
        })
    }

    /// When each API key was last used since it was read. Unused keys are left out.
    pub fn api_keys_last_used(&self) -> LastUsed {
        let keys = self.api_keys();
        keys.map(|keys| keys.last_used()).unwrap_or_default()
    }

    /// Replaces all API keys, if API keys are accepted.
    pub fn replace_api_keys(&self, keys: ApiKeys) {
        if let Some(current) = &self.api_keys {
            *current.write().unwrap_or_else(PoisonError::into_inner) = keys;
        }
    }
}

#[async_trait]
impl AuthPort for CredentialAuth {
    async fn authenticate(&self, credentials: &Credentials) -> Result<Principal, AuthError> {
        let now = self.clock.now();
        let token = match &credentials.bearer {
            None => None,
            Some(token) => Some(self.bearer(token, now).await),
        };
        let api_key = credentials.api_key.as_ref().map(|key| {
            let refused = AuthError::Refused("API keys are not accepted here");
            self.api_keys().ok_or(refused)?.verify(key, now)
        });
        principal(token, api_key)
    }
}
