//! Encryption of the secrets of webhooks in stores.

use std::fmt;
use std::path::{Path, PathBuf};

use aws_lc_rs::aead::{AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use keywright_domain::model::{SigningSecret, SigningSecrets, Timestamp, WebhookId};

use crate::private_file::create_private;

/// The first byte of an encrypted text: AES-256-GCM, nonce, ciphertext.
const FORMAT: u8 = 1;

const KEY_BYTES: usize = 32;

/// Encrypts and decrypts secrets with keys from a file. The first key encrypts; all of them decrypt, so that a key can be replaced.
pub struct SecretCipher {
    keys: Vec<LessSafeKey>,
}

/// A file of keys cannot be used.
#[derive(Debug, thiserror::Error)]
#[error("{} cannot be used as the key of webhooks: {problem}", path.display())]
pub struct InvalidKeyFile {
    path: PathBuf,
    problem: String,
}

impl SecretCipher {
    /// Reads the keys, one a line: 32 random bytes in Base64.
    ///
    /// # Errors
    /// The file cannot be read, or has no valid key.
    pub fn read(path: &Path) -> Result<Self, InvalidKeyFile> {
        let invalid = |problem: String| InvalidKeyFile {
            path: path.to_owned(),
            problem,
        };
        let text = std::fs::read_to_string(path).map_err(|e| invalid(e.to_string()))?;
        let lines = text.lines().map(str::trim).filter(|line| !line.is_empty());
        let keys: Option<Vec<LessSafeKey>> = lines.map(key).collect();
        match keys {
            Some(keys) if !keys.is_empty() => Ok(Self { keys }),
            _ => Err(invalid(
                "each line must be 32 random bytes in Base64, as `openssl rand -base64 32` prints them".into(),
            )),
        }
    }

    /// As [`SecretCipher::read`]; a file that is missing is made, with a random key, for its owner only.
    ///
    /// # Errors
    /// The file cannot be read or written, or has no valid key.
    pub fn read_or_create(path: &Path) -> Result<Self, InvalidKeyFile> {
        if !path.exists() {
            // Another replica may create it at the same time.
            let created = create_private(path, format!("{}\n", Self::generate_key()).as_bytes());
            created.map_err(|e| InvalidKeyFile {
                path: path.to_owned(),
                problem: e.to_string(),
            })?;
        }
        Self::read(path)
    }

    /// A random key, as a line of the file.
    fn generate_key() -> String {
        let mut bytes = [0; KEY_BYTES];
        getrandom::fill(&mut bytes).expect("the system has a source of randomness");
        STANDARD.encode(bytes)
    }

    /// Encrypts the secrets of a webhook.
    pub(super) fn encrypt(&self, id: WebhookId, secrets: &SigningSecrets) -> Vec<u8> {
        let mut text = plain_text(secrets);
        let mut nonce = [0; NONCE_LEN];
        getrandom::fill(&mut nonce).expect("the system has a source of randomness");
        let aad = Aad::from(id.as_u128().to_be_bytes());
        let sealing = Nonce::assume_unique_for_key(nonce);
        self.keys[0]
            .seal_in_place_append_tag(sealing, aad, &mut text)
            .expect("the text is short");
        let mut encrypted = vec![FORMAT];
        encrypted.extend(nonce);
        encrypted.extend(text);
        encrypted
    }

    /// Decrypts the secrets of a webhook. `None`: they were encrypted with another key, for another webhook, or are damaged.
    pub(super) fn decrypt(&self, id: WebhookId, encrypted: &[u8]) -> Option<SigningSecrets> {
        let rest = encrypted.strip_prefix(&[FORMAT])?;
        let (nonce, text) = rest.split_first_chunk::<NONCE_LEN>()?;
        let mut plain = self.keys.iter().filter_map(|key| {
            let mut text = text.to_vec();
            let aad = Aad::from(id.as_u128().to_be_bytes());
            let opening = Nonce::assume_unique_for_key(*nonce);
            let opened = key.open_in_place(opening, aad, &mut text).ok()?;
            Some(opened.to_vec())
        });
        read_plain_text(&plain.next()?)
    }
}

impl fmt::Debug for SecretCipher {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SecretCipher(…)")
    }
}

fn key(line: &str) -> Option<LessSafeKey> {
    let bytes = STANDARD.decode(line).ok()?;
    let key = UnboundKey::new(&AES_256_GCM, &bytes).ok()?;
    Some(LessSafeKey::new(key))
}

/// The secrets in one text: when the previous one ends, in milliseconds, the length of the current one, and the bytes of both.
fn plain_text(secrets: &SigningSecrets) -> Vec<u8> {
    let current = secrets.current.expose();
    let previous = secrets.previous.as_ref();
    let until = previous.map_or(0, |(_, until)| until.as_millis());
    let mut text = until.to_be_bytes().to_vec();
    text.push(u8::try_from(current.len()).expect("a secret has at most 64 bytes"));
    text.extend(current);
    if let Some((secret, _)) = previous {
        text.extend(secret.expose());
    }
    text
}

fn read_plain_text(text: &[u8]) -> Option<SigningSecrets> {
    let (until, rest) = text.split_first_chunk::<8>()?;
    let (length, rest) = rest.split_first()?;
    let (current, previous) = rest.split_at_checked(usize::from(*length))?;
    let until = Timestamp::from_millis(u64::from_be_bytes(*until));
    Some(SigningSecrets {
        current: SigningSecret::new(current.to_vec()).ok()?,
        previous: match previous {
            [] => None,
            previous => Some((SigningSecret::new(previous.to_vec()).ok()?, until)),
        },
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn secrets(byte: u8) -> SigningSecrets {
        let secret = |byte| SigningSecret::new(vec![byte; 32]).expect("a secret");
        SigningSecrets {
            current: secret(byte),
            previous: Some((secret(byte + 1), Timestamp::from_millis(7))),
        }
    }

    #[test]
    fn secrets_are_decrypted_with_their_key_for_their_webhook_only() {
        use std::os::unix::fs::PermissionsExt;
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("webhook-key");
        let cipher = SecretCipher::read_or_create(&path).expect("a key");
        let mode = path.metadata().expect("a file").permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        let id = WebhookId::from_u128(1);
        let encrypted = cipher.encrypt(id, &secrets(1));
        assert_ne!(
            encrypted,
            cipher.encrypt(id, &secrets(1)),
            "a nonce is used once"
        );
        let part: &[u8] = &[1; 16];
        assert!(!encrypted.windows(16).any(|window| window == part));
        let again = SecretCipher::read_or_create(&path).expect("the same key");
        assert_eq!(again.decrypt(id, &encrypted), Some(secrets(1)));
        assert_eq!(again.decrypt(WebhookId::from_u128(2), &encrypted), None);
        let mut damaged = encrypted.clone();
        damaged[20] ^= 1;
        assert_eq!(again.decrypt(id, &damaged), None);
        // A new first key encrypts, and the old one still decrypts.
        let old = std::fs::read_to_string(&path).expect("text");
        std::fs::write(&path, format!("{}\n{old}", SecretCipher::generate_key())).expect("written");
        let rotated = SecretCipher::read(&path).expect("two keys");
        assert_eq!(rotated.decrypt(id, &encrypted), Some(secrets(1)));
        assert_eq!(again.decrypt(id, &rotated.encrypt(id, &secrets(1))), None);
        for wrong in ["", "short", "AAAA"] {
            std::fs::write(&path, wrong).expect("written");
            let refused = SecretCipher::read(&path).expect_err("no key").to_string();
            assert!(refused.contains("openssl rand"), "{refused}");
        }
    }
}
