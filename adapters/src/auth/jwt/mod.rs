//! JSON Web Tokens (RFC 7519), verified strictly (RFC 8725): the key decides the algorithm, a token brings
//! nothing along but its claims, and what is not needed is not accepted.

mod algorithm;
mod claims;
mod compact;
mod jwks;
mod keys;
mod rsa;
mod strict_json;
mod token_error;

use std::sync::{PoisonError, RwLock};

use aws_lc_rs::digest::{SHA256, digest};
use keywright_domain::model::{Identity, Timestamp, UserId};
use quick_cache::sync::Cache;

pub use algorithm::Algorithm;
use compact::Compact;
pub use jwks::{read_jwks, read_published_jwks};
use keys::KeySet;
pub use keys::{InvalidKeys, VerificationKey};
pub use token_error::TokenError;

/// How many verified tokens are remembered.
const REMEMBERED: usize = 16 * 1024;

/// What a token must say.
#[derive(Clone, Debug)]
pub struct JwtSettings {
    /// `iss`.
    pub issuer: String,
    /// `aud`, or one of it.
    pub audience: String,
    /// The claim that makes the bearer a service of the organization that it names.
    pub organization_claim: String,
}

/// What a token proves.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Verified {
    /// Who its bearer is.
    pub identity: Identity,
    /// `sub`: of an organization's tokens, what tells one bearer from another.
    pub subject: UserId,
    /// In epoch seconds, with the leeway: from then on it proves nothing.
    pub expires_at: u64,
}

/// Verifies tokens, and remembers for a while those that were good.
pub struct JwtVerifier {
    settings: JwtSettings,
    keys: RwLock<KeySet>,
    /// By the hash of the whole token.
    verified: Cache<[u8; 32], Verified>,
}

impl JwtVerifier {
    /// # Errors
    /// See [`InvalidKeys`].
    pub fn new(keys: Vec<VerificationKey>, settings: JwtSettings) -> Result<Self, InvalidKeys> {
        Ok(Self {
            settings,
            keys: RwLock::new(KeySet::new(keys)?),
            verified: Cache::new(REMEMBERED),
        })
    }

    /// One that has no keys yet.
    pub fn without_keys(settings: JwtSettings) -> Self {
        Self {
            settings,
            keys: RwLock::default(),
            verified: Cache::new(REMEMBERED),
        }
    }

    /// Whether there is any key to verify tokens with.
    pub fn has_keys(&self) -> bool {
        let keys = self.keys.read().unwrap_or_else(PoisonError::into_inner);
        !keys.is_empty()
    }

    /// Whether there is a key without a `kid`: a forged token may then be one of a newer such key.
    pub fn has_unnamed_keys(&self) -> bool {
        let keys = self.keys.read().unwrap_or_else(PoisonError::into_inner);
        keys.has_unnamed()
    }

    /// From now on only tokens of these keys are good.
    ///
    /// # Errors
    /// See [`InvalidKeys`]; the old keys then stay.
    pub fn replace_keys(&self, keys: Vec<VerificationKey>) -> Result<(), InvalidKeys> {
        let keys = KeySet::new(keys)?;
        let mut current = self.keys.write().unwrap_or_else(PoisonError::into_inner);
        *current = keys;
        // Still under the lock, which everyone holds who remembers a token.
        self.verified.clear();
        Ok(())
    }

    /// Whose token this is.
    ///
    /// # Errors
    /// See [`TokenError`].
    pub fn verify(&self, token: &[u8], now: Timestamp) -> Result<Verified, TokenError> {
        let mut hash = [0; 32];
        hash.copy_from_slice(digest(&SHA256, token).as_ref());
        if let Some(known) = self.verified.get(&hash) {
            return if now.as_secs() < known.expires_at {
                Ok(known)
            } else {
                Err(TokenError::Expired)
            };
        }
        let keys = self.keys.read().unwrap_or_else(PoisonError::into_inner);
        let verified = self.verify_with(&keys, token, now)?;
        self.verified.insert(hash, verified.clone());
        Ok(verified)
    }

    fn verify_with(
        &self,
        keys: &KeySet,
        token: &[u8],
        now: Timestamp,
    ) -> Result<Verified, TokenError> {
        let compact = Compact::parse(token)?;
        if keys.is_empty() {
            return Err(TokenError::NoKeys);
        }
        let candidates = keys.candidates(compact.key_id.as_deref());
        if candidates.is_empty() {
            return Err(TokenError::UnknownKey);
        }
        let algorithm = compact.algorithm.parse();
        let of_algorithm = candidates.iter().filter(|k| algorithm == Ok(k.algorithm));
        let mut of_algorithm = of_algorithm.peekable();
        if of_algorithm.peek().is_none() {
            return Err(TokenError::WrongAlgorithm);
        }
        if !of_algorithm.any(|key| key.has_signed(&compact)) {
            return Err(TokenError::Forged);
        }
        claims::read(&compact.claims, &self.settings, now.as_secs())
    }
}
