//! The tokens and API keys that are accepted. Their keys are read again when they change.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use anyhow::{Context, anyhow};
use keywright_adapters::auth::{
    self, Algorithm, ApiKeyRecord, ApiKeys, CredentialAuth, JwtVerifier, LastUsed, VerificationKey,
    read_jwks,
};
use keywright_domain::ports::{Clock, Secret};
use tokio::task::JoinSet;

use super::api_key_store::ApiKeyStore;
#[cfg(feature = "jwks-url")]
use super::published_key_copy;
use crate::settings::{KeyFile, Settings, TokenKeys, Tokens};

/// How often files of keys and the store of API keys are checked for changes.
const FOLLOW_EVERY: Duration = Duration::from_millis(500);

/// How often the times are saved at which API keys were last used. A crash loses at most this much; each save syncs a file.
const SAVE_LAST_USED_EVERY: Duration = Duration::from_secs(5);

/// Reads the keys, and adds the tasks to `workers` that follow changes of keys and that save when API keys were last used.
/// `demo_tokens`: the verifier of the sandbox's tokens. The sandbox accepts no others.
///
/// Returns the adapter that authenticates requests, and the verifier of the issuer's tokens.
///
/// # Errors
/// A file, a URL or the store cannot be used; the text names it.
pub(super) async fn start(
    settings: &Settings,
    clock: &Arc<dyn Clock>,
    store: ApiKeyStore,
    demo_tokens: Option<Arc<JwtVerifier>>,
    workers: &mut JoinSet<()>,
) -> anyhow::Result<(Arc<CredentialAuth>, Option<Arc<JwtVerifier>>)> {
    let (mut tokens, mut issuer) = (demo_tokens.map(auth::Tokens::Known), None);
    if let Some(accepted) = &settings.tokens {
        let verifier = match &accepted.keys {
            TokenKeys::File(file) => {
                let (file, stamp) = (file.clone(), FileStamp::of(file.path()));
                let verifier = Arc::new(verifier_of_file(accepted, &file)?);
                tokens = Some(auth::Tokens::Known(verifier.clone()));
                let (path, followed) = (file.path().to_owned(), verifier.clone());
                workers.spawn(follow("the keys of tokens", path, stamp, move || {
                    Ok(followed.replace_keys(read_token_keys(&file)?)?)
                }));
                verifier
            }
            #[cfg(feature = "jwks-url")]
            TokenKeys::Published(from) => {
                let (jwt, every) = (accepted.jwt.clone(), from.every);
                let opened = published_key_copy::open_published_keys(from, jwt, &settings.data);
                let (verifier, keys) = opened.await?;
                tokens = Some(auth::Tokens::Published(keys.clone()));
                workers.spawn(async move { keys.follow(every).await });
                verifier
            }
        };
        issuer = Some(verifier);
    }
    let records = store.read().await?;
    let api_keys = ApiKeys::new(records.clone());
    let auth = Arc::new(CredentialAuth::new(tokens, Some(api_keys), clock.clone()));
    workers.spawn(save_last_used(store.clone(), auth.clone()));
    workers.spawn(follow_api_keys(store, records, auth.clone()));
    Ok((auth, issuer))
}

/// Checks that the keys of tokens can be used. A URL is not fetched.
///
/// # Errors
/// A file cannot be read, a key in it cannot be used, or a URL is invalid; the text names it.
pub(super) fn check_tokens(tokens: &Tokens) -> anyhow::Result<()> {
    match &tokens.keys {
        TokenKeys::File(file) => drop(verifier_of_file(tokens, file)?),
        #[cfg(feature = "jwks-url")]
        TokenKeys::Published(from) => drop(published_key_copy::client(from)?),
    }
    Ok(())
}

fn verifier_of_file(tokens: &Tokens, file: &KeyFile) -> anyhow::Result<JwtVerifier> {
    let verifier = JwtVerifier::new(read_token_keys(file)?, tokens.jwt.clone());
    verifier.with_context(|| unusable(file))
}

fn unusable(keys: &KeyFile) -> String {
    format!("cannot use {} for tokens", keys.path().display())
}

fn read_token_keys(keys: &KeyFile) -> anyhow::Result<Vec<VerificationKey>> {
    try_read_token_keys(keys).with_context(|| unusable(keys))
}

fn try_read_token_keys(keys: &KeyFile) -> anyhow::Result<Vec<VerificationKey>> {
    let content = fs::read(keys.path())?;
    let key = match keys {
        KeyFile::Jwks(_) => return Ok(read_jwks(&content)?),
        KeyFile::Single(
            _,
            algorithm @ (Algorithm::Hs256 | Algorithm::Hs384 | Algorithm::Hs512),
        ) => {
            let text = String::from_utf8(content).map_err(|_| anyhow!("a secret must be text"))?;
            let secret = Secret::new(text.trim_end_matches(['\r', '\n']));
            VerificationKey::secret(None, *algorithm, &secret)?
        }
        KeyFile::Single(_, algorithm) => VerificationKey::pem(None, *algorithm, &content)?,
    };
    Ok(vec![key])
}

/// The modification time and length of a file: they differ after a change, and need no reading. `None`: there is no file.
#[derive(Clone, Copy, PartialEq, Eq)]
struct FileStamp(Option<(SystemTime, u64)>);

impl FileStamp {
    fn of(path: &Path) -> Self {
        let metadata = fs::metadata(path).ok();
        Self(metadata.and_then(|file| Some((file.modified().ok()?, file.len()))))
    }
}

/// Calls `apply` within a second after the file has changed since `applied`. If it fails, the keys stay as they were, and it is
/// called again at the next check: maybe only the reading failed.
async fn follow(
    what: &str,
    path: PathBuf,
    mut applied: FileStamp,
    apply: impl Fn() -> anyhow::Result<()>,
) {
    let mut reported = None;
    loop {
        tokio::time::sleep(FOLLOW_EVERY).await;
        let now = FileStamp::of(&path);
        if now == applied {
            continue;
        }
        match apply() {
            Ok(()) => {
                tracing::info!("{what} have changed");
                applied = now;
            }
            Err(error) if reported != Some(now) => {
                tracing::error!(error = %format_args!("{error:#}"), "{what} stay as they were");
                reported = Some(now);
            }
            Err(_) => {}
        }
    }
}

/// Applies changes of the API keys in the store within [`FOLLOW_EVERY`]. If they cannot be read, they stay as they were.
async fn follow_api_keys(
    store: ApiKeyStore,
    mut applied: Vec<ApiKeyRecord>,
    auth: Arc<CredentialAuth>,
) {
    let mut is_reported = false;
    loop {
        tokio::time::sleep(FOLLOW_EVERY).await;
        match store.read().await {
            Ok(records) if records == applied => is_reported = false,
            Ok(records) => {
                // The replaced keys have times of use that are not saved yet.
                let used = auth.api_keys_last_used();
                auth.replace_api_keys(ApiKeys::new(records.clone()));
                try_save_last_used(&store, used).await;
                tracing::info!("the API keys have changed");
                (applied, is_reported) = (records, false);
            }
            Err(error) => {
                if !is_reported {
                    let error = format_args!("{error:#}");
                    tracing::error!(%error, "the API keys stay as they were");
                }
                is_reported = true;
            }
        }
    }
}

/// Saves when API keys were last used. A save that fails is repeated.
async fn save_last_used(store: ApiKeyStore, auth: Arc<CredentialAuth>) {
    let mut saved = LastUsed::new();
    loop {
        tokio::time::sleep(SAVE_LAST_USED_EVERY).await;
        let used = auth.api_keys_last_used();
        if used != saved && try_save_last_used(&store, used.clone()).await {
            saved = used;
        }
    }
}

/// Returns whether the times are saved.
async fn try_save_last_used(store: &ApiKeyStore, used: LastUsed) -> bool {
    let saved = store.record_last_used(used).await;
    if let Err(error) = &saved {
        let error = format_args!("{error:#}");
        tracing::warn!(%error, "the times at which API keys were last used could not be saved");
    }
    saved.is_ok()
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use anyhow::bail;

    use super::*;

    #[tokio::test]
    async fn a_change_before_following_is_applied_even_if_the_first_attempt_fails() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("keys");
        fs::write(&path, "old").expect("written");
        let read = FileStamp::of(&path);
        fs::write(&path, "revoked").expect("written");
        let attempts = Arc::new(AtomicUsize::new(0));
        let counter = attempts.clone();
        let apply = move || match counter.fetch_add(1, Ordering::Relaxed) {
            0 => bail!("it could not be read"),
            _ => Ok(()),
        };
        let following = follow("the keys", path, read, apply);
        let ended = tokio::time::timeout(FOLLOW_EVERY * 5, following).await;
        assert!(ended.is_err(), "it never ends");
        assert_eq!(attempts.load(Ordering::Relaxed), 2);
    }
}
