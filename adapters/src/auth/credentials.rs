use std::sync::{Arc, PoisonError, RwLock};

use async_trait::async_trait;
use keywright_domain::model::{CredentialName, Principal, Proof, Timestamp};
use keywright_domain::ports::{AuthError, AuthPort, Clock, Credentials, Secret};

#[cfg(feature = "jwks-url")]
use super::PublishedKeys;
use super::{ApiKeys, JwtVerifier, LastUsed, TokenError, Verified, principal};

/// Tokens and API keys. A credential of a kind that is not configured is refused like a wrong one.
pub struct CredentialAuth {
    tokens: Option<Tokens>,
    api_keys: Option<RwLock<ApiKeys>>,
    clock: Arc<dyn Clock>,
}

/// Tokens, by how their keys are known.
#[derive(Clone)]
pub enum Tokens {
    /// Somebody else sees to the keys.
    Known(Arc<JwtVerifier>),
    /// The issuer is asked for the keys.
    #[cfg(feature = "jwks-url")]
    Published(Arc<PublishedKeys>),
}

impl Tokens {
    async fn verify(&self, token: &[u8], now: Timestamp) -> Result<Verified, TokenError> {
        match self {
            Self::Known(verifier) => verifier.verify(token, now),
            #[cfg(feature = "jwks-url")]
            Self::Published(keys) => keys.verify(token, now).await,
        }
    }
}

impl CredentialAuth {
    /// Accepts what is given here.
    pub fn new(tokens: Option<Tokens>, api_keys: Option<ApiKeys>, clock: Arc<dyn Clock>) -> Self {
        Self {
            tokens,
            api_keys: api_keys.map(RwLock::new),
            clock,
        }
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

    /// When each API key was last good since it was read.
    pub fn api_keys_last_used(&self) -> LastUsed {
        let keys = self.api_keys.as_ref();
        keys.map(|keys| {
            keys.read()
                .unwrap_or_else(PoisonError::into_inner)
                .last_used()
        })
        .unwrap_or_default()
    }

    /// From now on these API keys are good and no others, where API keys are accepted at all.
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
            let keys = self.api_keys.as_ref();
            keys.ok_or(AuthError::Refused("API keys are not accepted here"))?
                .read()
                .unwrap_or_else(PoisonError::into_inner)
                .verify(key, now)
        });
        principal(token, api_key)
    }
}
