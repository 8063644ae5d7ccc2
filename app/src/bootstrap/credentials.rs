//! Tokens and API keys that are accepted, from files that are read again when they change.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use keywright_adapters::auth::{
    self, Algorithm, ApiKeyRecord, ApiKeys, CredentialAuth, InvalidKey, JwtSettings, JwtVerifier,
    LastUsed, VerificationKey, read_jwks,
};
use keywright_domain::ports::{Clock, Secret};
use tokio::task::JoinSet;

#[cfg(feature = "jwks-url")]
use super::published_keys;
use super::{ApiKeyStore, Error};
use crate::settings::{KeyFile, Settings, TokenKeys, Tokens};

/// How often the files of keys are looked at.
const FOLLOW: Duration = Duration::from_millis(500);

/// How often it is noted when API keys were last used: what a crash may forget, against a synced file each time.
const NOTE_USE: Duration = Duration::from_secs(5);

/// Who is let in, and who follows the files that say so.
pub(super) struct AuthStack {
    pub(super) auth: Arc<CredentialAuth>,
    api_keys: (ApiKeyStore, Vec<ApiKeyRecord>),
    tokens: Option<OwnTokens>,
}

/// The verifier of tokens of one's own issuer, and where its keys are followed.
struct OwnTokens {
    verifier: Arc<JwtVerifier>,
    keys: FollowedKeys,
}

enum FollowedKeys {
    File(KeyFile, Stamp),
    #[cfg(feature = "jwks-url")]
    Published(Arc<auth::PublishedKeys>, Duration),
}

/// Reads the files. `demo_tokens`: what verifies the sandbox's tokens, which has no others.
///
/// # Errors
/// One cannot be used; the text names it.
pub(super) async fn auth_stack(
    settings: &Settings,
    clock: &Arc<dyn Clock>,
    api_keys: ApiKeyStore,
    demo_tokens: Option<Arc<JwtVerifier>>,
) -> Result<AuthStack, Error> {
    let data = settings.data.as_path();
    let (mut tokens, mut own) = (demo_tokens.map(auth::Tokens::Known), None);
    if let Some(settings) = &settings.tokens {
        let opened = OwnTokens::open(settings, data).await?;
        tokens = Some(opened.accepted());
        own = Some(opened);
    }
    let records = api_keys.read().await?;
    let auth = CredentialAuth::new(tokens, Some(ApiKeys::new(records.clone())), clock.clone());
    Ok(AuthStack {
        auth: Arc::new(auth),
        api_keys: (api_keys, records),
        tokens: own,
    })
}

impl AuthStack {
    /// Follows what says who is let in, and notes when API keys were used.
    pub(super) fn follow(self, workers: &mut JoinSet<()>) {
        let ((store, records), auth) = (self.api_keys, self.auth);
        workers.spawn(note_api_keys_used(store.clone(), auth.clone()));
        workers.spawn(follow_api_keys(store, records, auth));
        let Some(OwnTokens { verifier, keys }) = self.tokens else {
            return;
        };
        match keys {
            FollowedKeys::File(file, stamp) => {
                let path = file.path().to_owned();
                workers.spawn(follow("the keys of tokens", path, stamp, move || {
                    Ok(verifier.replace_keys(read_token_keys(&file)?)?)
                }));
            }
            #[cfg(feature = "jwks-url")]
            FollowedKeys::Published(published, every) => {
                workers.spawn(async move { published.follow(every).await });
            }
        }
    }

    /// The verifier of tokens of one's own issuer.
    pub(super) fn own_tokens(&self) -> Option<Arc<JwtVerifier>> {
        Some(self.tokens.as_ref()?.verifier.clone())
    }
}

impl OwnTokens {
    /// A URL that is down does not keep the server from starting: the keys that were last had from it serve, or tokens
    /// have to wait.
    ///
    /// # Errors
    /// A file or the URL cannot be used; the text names it.
    #[cfg_attr(
        not(feature = "jwks-url"),
        expect(clippy::unused_async, reason = "an issuer is waited for")
    )]
    async fn open(
        tokens: &Tokens,
        #[cfg_attr(
            not(feature = "jwks-url"),
            expect(unused_variables, reason = "files need no copy")
        )]
        data: &Path,
    ) -> Result<Self, Error> {
        let (verifier, keys) = match &tokens.keys {
            TokenKeys::File(file) => {
                let stamp = Stamp::of(file.path());
                let verifier = Arc::new(verifier_of_file(tokens, file)?);
                (verifier, FollowedKeys::File(file.clone(), stamp))
            }
            #[cfg(feature = "jwks-url")]
            TokenKeys::Published(from) => {
                let (verifier, keys) = published_keys::open(from, verified(tokens), data).await?;
                (verifier, FollowedKeys::Published(keys, from.every))
            }
        };
        Ok(Self { verifier, keys })
    }

    fn accepted(&self) -> auth::Tokens {
        match &self.keys {
            FollowedKeys::File(..) => auth::Tokens::Known(self.verifier.clone()),
            #[cfg(feature = "jwks-url")]
            FollowedKeys::Published(keys, ..) => auth::Tokens::Published(keys.clone()),
        }
    }
}

/// Whether the keys of tokens can be used. Nobody is asked for them.
///
/// # Errors
/// A file cannot be read, a key in it cannot be used, or a URL is none; the text names it.
pub(super) fn check_tokens(tokens: &Tokens) -> Result<(), Error> {
    match &tokens.keys {
        TokenKeys::File(file) => drop(verifier_of_file(tokens, file)?),
        #[cfg(feature = "jwks-url")]
        TokenKeys::Published(from) => drop(published_keys::source(from)?),
    }
    Ok(())
}

fn verified(tokens: &Tokens) -> JwtSettings {
    JwtSettings {
        issuer: tokens.issuer.clone(),
        audience: tokens.audience.clone(),
        organization_claim: tokens.organization_claim.clone(),
    }
}

fn verifier_of_file(tokens: &Tokens, file: &KeyFile) -> Result<JwtVerifier, Error> {
    let verifier = JwtVerifier::new(read_token_keys(file)?, verified(tokens));
    Ok(verifier.map_err(|e| unusable(file, &e))?)
}

fn unusable(keys: &KeyFile, why: &dyn std::fmt::Display) -> String {
    format!("cannot use {} for tokens: {why}", keys.path().display())
}

fn read_token_keys(keys: &KeyFile) -> Result<Vec<VerificationKey>, Error> {
    let content = fs::read(keys.path()).map_err(|e| unusable(keys, &e))?;
    let invalid = |error: InvalidKey| unusable(keys, &error);
    Ok(match keys {
        KeyFile::Jwks(_) => read_jwks(&content).map_err(|e| unusable(keys, &e))?,
        KeyFile::One(_, algorithm @ (Algorithm::Hs256 | Algorithm::Hs384 | Algorithm::Hs512)) => {
            let text = String::from_utf8(content);
            let text = text.map_err(|_| unusable(keys, &"a secret must be text"))?;
            let secret = Secret::new(text.trim_end_matches(['\r', '\n']));
            let key = VerificationKey::secret(None, *algorithm, &secret);
            vec![key.map_err(invalid)?]
        }
        KeyFile::One(_, algorithm) => {
            let key = VerificationKey::pem(None, *algorithm, &content);
            vec![key.map_err(invalid)?]
        }
    })
}

/// What tells one content of a file from the next without reading it.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Stamp(Option<(SystemTime, u64)>);

impl Stamp {
    fn of(path: &Path) -> Self {
        let metadata = fs::metadata(path).ok();
        Self(metadata.and_then(|file| Some((file.modified().ok()?, file.len()))))
    }
}

/// Takes over a file of keys that was changed since `taken`, within a second. One that cannot be used leaves the
/// keys as they were, and is tried again: it may be that only the reading failed.
async fn follow(what: &str, path: PathBuf, mut taken: Stamp, take: impl Fn() -> Result<(), Error>) {
    let mut complained = None;
    loop {
        tokio::time::sleep(FOLLOW).await;
        let now = Stamp::of(&path);
        if now == taken {
            continue;
        }
        match take() {
            Ok(()) => {
                tracing::info!("{what} have changed");
                taken = now;
            }
            Err(error) if complained != Some(now) => {
                tracing::error!(%error, "{what} stay as they were");
                complained = Some(now);
            }
            Err(_) => {}
        }
    }
}

/// Takes over API keys that were issued or ended since they were read, within [`FOLLOW`] where they stand in a file or
/// a database answers. Keys that cannot be read stay as they were.
async fn follow_api_keys(
    store: ApiKeyStore,
    mut taken: Vec<ApiKeyRecord>,
    auth: Arc<CredentialAuth>,
) {
    let mut complained = false;
    loop {
        tokio::time::sleep(FOLLOW).await;
        match store.read().await {
            Ok(records) if records == taken => complained = false,
            Ok(records) => {
                // The uses that are not noted yet go with the keys that were used.
                let used = auth.api_keys_last_used();
                auth.replace_api_keys(ApiKeys::new(records.clone()));
                note_last_used(&store, used).await;
                tracing::info!("the API keys have changed");
                (taken, complained) = (records, false);
            }
            Err(error) => {
                if !complained {
                    tracing::error!(%error, "the API keys stay as they were");
                }
                complained = true;
            }
        }
    }
}

/// Notes when API keys were last used. A write that fails is tried again.
async fn note_api_keys_used(store: ApiKeyStore, auth: Arc<CredentialAuth>) {
    let mut noted = LastUsed::new();
    loop {
        tokio::time::sleep(NOTE_USE).await;
        let used = auth.api_keys_last_used();
        if used != noted && note_last_used(&store, used.clone()).await {
            noted = used;
        }
    }
}

/// Whether it could be written.
async fn note_last_used(store: &ApiKeyStore, used: LastUsed) -> bool {
    let written = store.note_used(used).await;
    if let Err(error) = &written {
        tracing::warn!(%error, "when API keys were last used is not noted");
    }
    written.is_ok()
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    #[tokio::test]
    async fn a_file_that_changed_before_it_was_followed_is_taken_over_even_at_the_second_try() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("keys");
        fs::write(&path, "old").expect("written");
        let taken = Stamp::of(&path);
        fs::write(&path, "revoked").expect("written");
        let tries = Arc::new(AtomicUsize::new(0));
        let counted = tries.clone();
        let take = move || match counted.fetch_add(1, Ordering::Relaxed) {
            0 => Err("it could not be read".into()),
            _ => Ok(()),
        };
        let following = follow("the keys", path, taken, take);
        let over = tokio::time::timeout(FOLLOW * 5, following).await;
        assert!(over.is_err(), "it follows on and on");
        assert_eq!(tries.load(Ordering::Relaxed), 2);
    }
}
