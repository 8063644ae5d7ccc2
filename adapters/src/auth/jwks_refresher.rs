//! Refreshes the keys of a token verifier from the URL at which an issuer publishes them.

use std::sync::Arc;
use std::time::Duration;

use aws_lc_rs::digest::{SHA256, digest};
use bytes::Bytes;
use keywright_domain::model::Timestamp;
use tokio::sync::{Mutex, Semaphore};
use tokio::time::Instant;

use super::jwks_client::{JwksClient, JwksUnavailable};
use super::jwt::{InvalidKeys, JwtVerifier, TokenError, VerifiedClaims, read_published_jwks};

/// The minimum time between any request to the issuer and a next one that is caused by a token.
const MIN_REFRESH_INTERVAL: Duration = Duration::from_secs(10);

/// The maximum number of client requests that wait for an answer of the issuer. It limits what tokens with invented `kid`s can occupy.
const MAX_WAITING: usize = 64;

/// The pause after the first failed request to the issuer. It doubles with each further one.
const FIRST_PAUSE: Duration = Duration::from_secs(1);

/// Verifies tokens with the keys that an issuer publishes. While the issuer is unavailable, the last keys are used.
pub struct JwksRefresher {
    issuer: JwksClient,
    verifier: Arc<JwtVerifier>,
    /// Held during a request to the issuer: other requests wait for its answer.
    refreshes: Mutex<Refreshes>,
    /// Permits of requests that wait for the issuer because the key of their token is unknown.
    waiting: Semaphore,
    /// Is called with each new key set.
    store: Box<dyn Fn(&Bytes) + Send + Sync>,
}

#[derive(Default)]
struct Refreshes {
    last_request: Option<Instant>,
    last_answer: Option<Instant>,
    /// The hash of the last usable key set of the issuer. `None`: none was fetched yet.
    current: Option<[u8; 32]>,
}

impl JwksRefresher {
    /// Refreshes the keys of `verifier`, which may already have some, from `issuer`. `store` is called with each new key set, so that a
    /// later process can start with it while the issuer is down.
    pub fn new(
        issuer: JwksClient,
        verifier: Arc<JwtVerifier>,
        store: impl Fn(&Bytes) + Send + Sync + 'static,
    ) -> Self {
        Self {
            issuer,
            verifier,
            refreshes: Mutex::default(),
            waiting: Semaphore::new(MAX_WAITING),
            store: Box::new(store),
        }
    }

    /// Fetches the key set from the issuer, and returns whether it has changed. Invalid keys in it are logged and skipped.
    ///
    /// # Errors
    /// The issuer is unavailable, or its key set has no valid key; the current keys are then kept.
    pub async fn refresh(&self) -> Result<bool, JwksUnavailable> {
        self.request(&mut *self.refreshes.lock().await).await
    }

    async fn request(&self, refreshes: &mut Refreshes) -> Result<bool, JwksUnavailable> {
        refreshes.last_request = Some(Instant::now());
        let fetched = self.issuer.fetch().await;
        refreshes.last_answer = Some(Instant::now());
        let text = fetched?;
        let mut hash = [0; 32];
        hash.copy_from_slice(digest(&SHA256, &text).as_ref());
        if refreshes.current == Some(hash) {
            return Ok(false);
        }
        self.use_key_set(&text)
            .map_err(|error| self.issuer.error(error))?;
        refreshes.current = Some(hash);
        (self.store)(&text);
        Ok(true)
    }

    /// Replaces the keys of the verifier by those of a key set that the issuer has published.
    ///
    /// # Errors
    /// It is not a key set, or has no valid key.
    pub fn use_key_set(&self, text: &[u8]) -> Result<(), InvalidKeys> {
        let set = read_published_jwks(text)?;
        for error in set.rejected {
            tracing::warn!("{error}; it is skipped");
        }
        self.verifier.replace_keys(set.keys)
    }

    /// Verifies a token. If its key is unknown, the keys are refreshed, at most every ten seconds for all such tokens, and the
    /// token is verified again. If keys have no `kid`, a token with an invalid signature may be signed by a newer key, too.
    ///
    /// # Errors
    /// See [`TokenError`]; [`TokenError::TooManyWaiting`] if too many requests already wait for the issuer.
    pub async fn verify(
        self: &Arc<Self>,
        token: &[u8],
        now: Timestamp,
    ) -> Result<VerifiedClaims, TokenError> {
        let first = self.verifier.verify(token, now);
        let may_have_newer_key = match first {
            Err(TokenError::UnknownKey | TokenError::NoKeys) => true,
            Err(TokenError::InvalidSignature) => self.verifier.has_unnamed_keys(),
            _ => false,
        };
        if !may_have_newer_key {
            return first;
        }
        let permit = self.waiting.try_acquire();
        let _permit = permit.map_err(|_| TokenError::TooManyWaiting)?;
        // A separate task, so that the request to the issuer continues even if the client that sent this token disconnects.
        let (keys, since) = (self.clone(), Instant::now());
        let refresh = tokio::spawn(async move { keys.refresh_since(since).await });
        match refresh.await {
            Ok(true) => self.verifier.verify(token, now),
            _ => first,
        }
    }

    /// Refreshes the keys unless the issuer was asked, successfully or not, since `since` or less than ten seconds ago. Returns whether the
    /// keys may have changed since `since`.
    async fn refresh_since(&self, since: Instant) -> bool {
        let mut refreshes = self.refreshes.lock().await;
        if refreshes.last_answer.is_some_and(|at| at >= since) {
            return true;
        }
        let last_request = refreshes.last_request;
        if last_request.is_some_and(|at| at.elapsed() < MIN_REFRESH_INTERVAL) {
            return false;
        }
        let refreshed = self.request(&mut refreshes).await;
        if let Err(error) = &refreshed {
            tracing::warn!(%error, "an unknown key could not be looked up");
        }
        refreshed.is_ok()
    }

    /// Refreshes the keys at the interval `every`, and sooner after a failure. It never returns.
    pub async fn follow(&self, every: Duration) {
        let mut pause = FIRST_PAUSE;
        let mut reached = self.refreshes.lock().await.current.is_some();
        loop {
            tokio::time::sleep(if reached { every } else { pause }).await;
            match self.refresh().await {
                Ok(changed) => {
                    if changed {
                        tracing::info!("the keys of tokens have changed");
                    }
                    (reached, pause) = (true, FIRST_PAUSE);
                }
                Err(error) => {
                    tracing::error!(%error, "the keys of tokens stay as they were");
                    if !reached {
                        pause = (pause * 2).min(every);
                    }
                    reached = false;
                }
            }
        }
    }
}
