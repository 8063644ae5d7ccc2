//! API keys: 40 random characters, of which only a hash is stored.

use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};

use aws_lc_rs::constant_time::verify_slices_are_equal;
use aws_lc_rs::digest::{SHA256, digest};
use keywright_domain::model::{CredentialName, Identity, Proof, Timestamp};
use keywright_domain::ports::{AuthError, Secret};

const PREFIX: &str = "kwk_";
const RANDOM_CHARS: usize = 40;
const CHECKSUM_CHARS: usize = 6;
const ALPHABET: &[u8; 62] = b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";

/// The plaintext of an API key: `kwk_`, 40 random alphanumeric characters, and a checksum of 6 characters, so that a typing
/// error is detected without a lookup.
pub struct ApiKey(Secret);

impl ApiKey {
    /// Generates a random key.
    ///
    /// # Panics
    /// The system has no source of randomness.
    pub fn generate() -> Self {
        // 248 is the largest multiple of 62 in a byte. With larger bytes, some characters would be more likely.
        let mut text = String::from(PREFIX);
        while text.len() < PREFIX.len() + RANDOM_CHARS {
            let mut bytes = [0; RANDOM_CHARS];
            getrandom::fill(&mut bytes).expect("the system has a source of randomness");
            let missing = PREFIX.len() + RANDOM_CHARS - text.len();
            let uniform = bytes.iter().filter(|byte| **byte < 248).take(missing);
            text.extend(uniform.map(|byte| char::from(ALPHABET[usize::from(byte % 62)])));
        }
        let checksum = checksum(&text);
        text.push_str(&checksum);
        Self(Secret::new(text))
    }

    /// Checks the form and the checksum of a key.
    ///
    /// # Errors
    /// [`AuthError::Refused`]: one of them is wrong.
    pub fn parse(text: &str) -> Result<Self, AuthError> {
        let malformed = AuthError::Refused("API key: malformed");
        if text.len() != PREFIX.len() + RANDOM_CHARS + CHECKSUM_CHARS || !text.is_ascii() {
            return Err(malformed);
        }
        let (key, sum) = text.split_at(PREFIX.len() + RANDOM_CHARS);
        let random = key.strip_prefix(PREFIX);
        if random.is_some_and(|k| k.bytes().all(|b| b.is_ascii_alphanumeric()))
            && sum == checksum(key)
        {
            Ok(Self(Secret::new(text)))
        } else {
            Err(malformed)
        }
    }

    /// The key itself, to be shown once to its holder.
    pub fn expose(&self) -> &str {
        self.0.expose()
    }

    /// The record of the key for the store.
    pub fn record(&self, identity: Identity, expires_at: Option<Timestamp>) -> ApiKeyRecord {
        let text = self.expose();
        ApiKeyRecord {
            masked: format!("{}…{}", &text[..8], &text[text.len() - 4..]),
            sha256: self.sha256(),
            identity,
            expires_at,
        }
    }

    fn sha256(&self) -> [u8; 32] {
        let mut hash = [0; 32];
        hash.copy_from_slice(digest(&SHA256, self.expose().as_bytes()).as_ref());
        hash
    }
}

fn checksum(key: &str) -> String {
    let hash = digest(&SHA256, key.as_bytes());
    let bytes = hash.as_ref().iter().take(CHECKSUM_CHARS);
    bytes
        .map(|byte| char::from(ALPHABET[usize::from(byte % 62)]))
        .collect()
}

impl fmt::Debug for ApiKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ApiKey(…)")
    }
}

/// The stored record of an API key; it does not contain the key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ApiKeyRecord {
    /// Its first 8 and last 4 characters.
    pub masked: String,
    /// The SHA-256 hash of the key. The key has 238 random bits, so a slow hash would not make it safer.
    pub sha256: [u8; 32],
    /// The identity of its holder.
    pub identity: Identity,
    /// When it expires; `None`: never.
    pub expires_at: Option<Timestamp>,
}

/// When keys were last used successfully, by their hashes.
pub type LastUsed = BTreeMap<[u8; 32], Timestamp>;

/// The known keys, with the times of their last use.
#[derive(Debug, Default)]
pub struct ApiKeys {
    /// By the first bytes of the hash. Whole hashes are compared in constant time.
    records: HashMap<[u8; 8], Vec<KnownKey>>,
}

#[derive(Debug)]
struct KnownKey {
    record: ApiKeyRecord,
    /// In milliseconds since the epoch; 0: not used since the record was loaded.
    last_used: AtomicU64,
}

impl ApiKeys {
    /// The keys of these records.
    pub fn new(records: impl IntoIterator<Item = ApiKeyRecord>) -> Self {
        let mut keys = Self::default();
        for record in records {
            let bucket = keys.records.entry(bucket(&record.sha256));
            bucket.or_default().push(KnownKey {
                record,
                last_used: AtomicU64::new(0),
            });
        }
        keys
    }

    /// Verifies a key and returns its proof.
    ///
    /// # Errors
    /// [`AuthError::Refused`]: the key is malformed, unknown or expired.
    pub fn verify(&self, key: &Secret, now: Timestamp) -> Result<Proof, AuthError> {
        let hash = ApiKey::parse(key.expose())?.sha256();
        let mut candidates = self.records.get(&bucket(&hash)).into_iter().flatten();
        // A file of keys may have several records of one key: the last one counts.
        let known = candidates
            .rfind(|known| verify_slices_are_equal(&known.record.sha256, &hash).is_ok())
            .ok_or(AuthError::Refused("API key: unknown"))?;
        if known.record.expires_at.is_some_and(|end| end <= now) {
            return Err(AuthError::Refused("API key: expired"));
        }
        known
            .last_used
            .fetch_max(now.as_millis(), Ordering::Relaxed);
        Ok(Proof {
            identity: known.record.identity.clone(),
            credential: Some(CredentialName::ApiKey(known.record.masked.clone())),
        })
    }

    /// When each key was last used. Keys that were not used since their records were loaded are left out.
    pub fn last_used(&self) -> LastUsed {
        let known = self.records.values().flatten();
        let used = known.map(|known| {
            let at = known.last_used.load(Ordering::Relaxed);
            (known.record.sha256, Timestamp::from_millis(at))
        });
        used.filter(|(_, at)| at.as_millis() > 0).collect()
    }
}

fn bucket(hash: &[u8; 32]) -> [u8; 8] {
    let mut first = [0; 8];
    first.copy_from_slice(&hash[..8]);
    first
}
