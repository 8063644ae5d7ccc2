//! Verification of tokens.

use std::sync::{PoisonError, RwLock, RwLockReadGuard};

use aws_lc_rs::digest::{SHA256, digest};
use keywright_domain::model::Timestamp;
use quick_cache::sync::Cache;

use super::claim_checks::{self, JwtSettings, VerifiedClaims};
use super::compact::ParsedToken;
use super::key::VerificationKey;
use super::key_error::InvalidKeys;
use super::key_set::KeySet;
use super::token_error::TokenError;

/// The maximum number of cached tokens.
const CACHED_TOKENS: usize = 16 * 1024;

/// Verifies tokens, and caches valid ones.
pub struct JwtVerifier {
    settings: JwtSettings,
    keys: RwLock<KeySet>,
    /// The claims of valid tokens by the hash of the token.
    cache: Cache<[u8; 32], VerifiedClaims>,
}

impl JwtVerifier {
    /// Verifies tokens with these keys.
    ///
    /// # Errors
    /// See [`InvalidKeys`].
    pub fn new(keys: Vec<VerificationKey>, settings: JwtSettings) -> Result<Self, InvalidKeys> {
        Ok(Self {
            settings,
            keys: RwLock::new(KeySet::new(keys)?),
            cache: Cache::new(CACHED_TOKENS),
        })
    }

    /// A verifier without keys, which rejects all tokens until [`JwtVerifier::replace_keys`] gives it keys.
    pub fn without_keys(settings: JwtSettings) -> Self {
        Self {
            settings,
            keys: RwLock::default(),
            cache: Cache::new(CACHED_TOKENS),
        }
    }

    /// Whether the verifier has a key.
    pub fn has_keys(&self) -> bool {
        !self.keys().is_empty()
    }

    /// Whether the set has a key without `kid`. Such a key can be replaced without a new `kid`, so an invalid signature may only
    /// mean that the set is outdated.
    pub fn has_unnamed_keys(&self) -> bool {
        self.keys().has_unnamed()
    }

    /// Replaces all keys.
    ///
    /// # Errors
    /// See [`InvalidKeys`]; the old keys are then kept.
    pub fn replace_keys(&self, keys: Vec<VerificationKey>) -> Result<(), InvalidKeys> {
        let keys = KeySet::new(keys)?;
        let mut current = self.keys.write().unwrap_or_else(PoisonError::into_inner);
        *current = keys;
        // Cleared while the write lock is held. `verify` inserts under the read lock, so no token of the old keys is cached
        // afterwards.
        self.cache.clear();
        Ok(())
    }

    /// Verifies a token at the time `now`.
    ///
    /// # Errors
    /// See [`TokenError`].
    pub fn verify(&self, token: &[u8], now: Timestamp) -> Result<VerifiedClaims, TokenError> {
        let mut hash = [0; 32];
        hash.copy_from_slice(digest(&SHA256, token).as_ref());
        if let Some(known) = self.cache.get(&hash) {
            return if now.as_secs() < known.expires_at {
                Ok(known)
            } else {
                Err(TokenError::Expired)
            };
        }
        let keys = self.keys();
        let verified = self.verify_with(&keys, token, now)?;
        self.cache.insert(hash, verified.clone());
        Ok(verified)
    }

    fn keys(&self) -> RwLockReadGuard<'_, KeySet> {
        self.keys.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn verify_with(
        &self,
        keys: &KeySet,
        token: &[u8],
        now: Timestamp,
    ) -> Result<VerifiedClaims, TokenError> {
        let parsed = ParsedToken::parse(token)?;
        if keys.is_empty() {
            return Err(TokenError::NoKeys);
        }
        let candidates = keys.candidates(parsed.key_id.as_deref());
        if candidates.is_empty() {
            return Err(TokenError::UnknownKey);
        }
        let algorithm = parsed.algorithm.parse();
        let of_algorithm = candidates.iter().filter(|k| algorithm == Ok(k.algorithm));
        let mut of_algorithm = of_algorithm.peekable();
        if of_algorithm.peek().is_none() {
            return Err(TokenError::WrongAlgorithm);
        }
        if !of_algorithm.any(|key| key.has_signed(&parsed)) {
            return Err(TokenError::InvalidSignature);
        }
        claim_checks::read(&parsed.claims, &self.settings, now.as_secs())
    }
}
