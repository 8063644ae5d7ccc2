use std::sync::{Arc, PoisonError, RwLock};

use async_trait::async_trait;
use keywright_domain::ports::{AuthError, AuthPort, Clock, Credentials};
use keywright_domain::principal::Principal;

use super::{ApiKeys, JwtVerifier, LastUsed, principal};

/// Tokens and API keys. A credential of a kind that is not configured is refused like a wrong one.
pub struct CredentialAuth {
    tokens: Option<Arc<JwtVerifier>>,
    api_keys: Option<RwLock<ApiKeys>>,
    clock: Arc<dyn Clock>,
}

impl CredentialAuth {
    /// Accepts what is given here.
    pub fn new(
        tokens: Option<Arc<JwtVerifier>>,
        api_keys: Option<ApiKeys>,
        clock: Arc<dyn Clock>,
    ) -> Self {
        Self {
            tokens,
            api_keys: api_keys.map(RwLock::new),
            clock,
        }
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
        let token = credentials.bearer.as_ref().map(|token| {
            let verifier = self.tokens.as_ref();
            verifier
                .ok_or(AuthError::Refused("tokens are not accepted here"))?
                .verify(token.expose().as_bytes(), now)
                .map(|verified| verified.identity)
                .map_err(AuthError::from)
        });
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
