//! Sets of keys, and the choice of the keys for a token.

use std::collections::HashMap;

use super::algorithm::Family;
use super::key::VerificationKey;
use super::key_error::{InvalidKeys, MAX_UNNAMED};

/// The keys of a verifier by `kid` and algorithm (RFC 7517, section 4.5).
#[derive(Default)]
pub(super) struct KeySet {
    named: HashMap<String, Vec<VerificationKey>>,
    /// Keys without a `kid`.
    unnamed: Vec<VerificationKey>,
}

impl KeySet {
    pub(super) fn new(keys: Vec<VerificationKey>) -> Result<Self, InvalidKeys> {
        let secrets = keys
            .iter()
            .filter(|k| k.algorithm.family() == Family::Secret)
            .count();
        if secrets != 0 && secrets != keys.len() {
            return Err(InvalidKeys::Mixed);
        }
        let mut set = Self::default();
        for key in keys {
            set.add(key)?;
        }
        if set.is_empty() {
            return Err(InvalidKeys::Empty);
        }
        Ok(set)
    }

    pub(super) fn add(&mut self, key: VerificationKey) -> Result<(), InvalidKeys> {
        let Some(id) = key.id.clone() else {
            if self.unnamed.len() == MAX_UNNAMED {
                return Err(InvalidKeys::TooManyUnnamed);
            }
            self.unnamed.push(key);
            return Ok(());
        };
        let same_id = self.named.entry(id.clone()).or_default();
        if same_id.iter().any(|k| k.algorithm == key.algorithm) {
            return Err(InvalidKeys::DuplicateKeyId(id));
        }
        same_id.push(key);
        Ok(())
    }

    pub(super) fn is_empty(&self) -> bool {
        self.named.is_empty() && self.unnamed.is_empty()
    }

    /// Whether the set has keys without a `kid`.
    pub(super) fn has_unnamed(&self) -> bool {
        !self.unnamed.is_empty()
    }

    /// The keys of any algorithm that may have signed a token with this `kid`: those with the same `kid`, or else those without
    /// one. A token without a `kid` may be signed by a key without one, or by the only key of the set.
    pub(super) fn candidates(&self, id: Option<&str>) -> &[VerificationKey] {
        if let Some(named) = id.and_then(|id| self.named.get(id)) {
            return named;
        }
        let mut named = self.named.values();
        match (named.next(), named.next()) {
            (Some(only), None) if id.is_none() && only.len() == 1 && self.unnamed.is_empty() => {
                only
            }
            _ => &self.unnamed,
        }
    }
}
