//! Authentication against a map in memory.

use std::collections::HashMap;
use std::sync::{Arc, RwLock};

use async_trait::async_trait;
use keywright_domain::model::{Identity, Principal, Proof};
use keywright_domain::ports::{AuthError, AuthPort, Credentials, Secret};

use super::principal::principal;

/// Accepts registered credentials, for tests and for embedding without an issuer. It is not for production, because it stores
/// them as they are and does not compare them in constant time. Clones share the credentials.
#[derive(Clone, Default)]
pub struct InMemoryAuth {
    known: Arc<RwLock<HashMap<String, Identity>>>,
}

impl InMemoryAuth {
    /// Registers a token or an API key.
    pub fn allow(&self, credential: &str, identity: Identity) {
        let mut known = self.known.write().unwrap_or_else(|e| e.into_inner());
        known.insert(credential.to_owned(), identity);
    }

    /// Removes a token or an API key.
    pub fn revoke(&self, credential: &str) {
        let mut known = self.known.write().unwrap_or_else(|e| e.into_inner());
        known.remove(credential);
    }

    fn proof(&self, credential: &Secret) -> Result<Proof, AuthError> {
        let known = self.known.read().unwrap_or_else(|e| e.into_inner());
        let identity = known.get(credential.expose()).cloned();
        let identity = identity.ok_or(AuthError::Refused("unknown credential"));
        identity.map(Proof::from)
    }
}

#[async_trait]
impl AuthPort for InMemoryAuth {
    async fn authenticate(&self, credentials: &Credentials) -> Result<Principal, AuthError> {
        let token = credentials.bearer.as_ref().map(|c| self.proof(c));
        let api_key = credentials.api_key.as_ref().map(|c| self.proof(c));
        principal(token, api_key)
    }
}
