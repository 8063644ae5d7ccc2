//! The keys that an issuer publishes at a URL (RFC 7517; `jwks_uri` of OpenID Connect Discovery), and a verifier that
//! follows them.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use aws_lc_rs::digest::{SHA256, digest};
use bytes::Bytes;
use http_body_util::{BodyExt, Empty, Limited};
use hyper::header::{ACCEPT, USER_AGENT};
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use keywright_domain::model::Timestamp;
use tokio::sync::{Mutex, Semaphore};
use tokio::time::Instant;

use super::jwt::{JwtVerifier, TokenError, Verified, read_published_jwks};
use crate::tls;

/// The time for the whole of one answer: a request with an unknown key waits for it.
const FETCH: Duration = Duration::from_secs(3);

/// The largest answer that is read, in bytes; sets of keys have a few thousand.
const LARGEST: usize = 256 * 1024;

/// How soon after the issuer was asked it is asked again for the sake of an unknown key.
const APART: Duration = Duration::from_secs(10);

/// How many requests may wait for the issuer at once: so many places at most are taken by who makes names of keys up.
const MOST_WAITING: usize = 64;

/// The first pause after the issuer was not reached; each further one is twice as long.
const FIRST_PAUSE: Duration = Duration::from_secs(1);

/// Some hosts refuse requests that do not name their program.
const PROGRAM: &str = concat!("keywright/", env!("CARGO_PKG_VERSION"));

/// The URL is none from which keys can be had safely.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct InvalidJwksUrl(String);

/// The keys are not to be had from there at the moment, or no longer.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the keys of tokens cannot be had from {url}: {why}")]
pub struct JwksUnavailable {
    url: String,
    why: String,
}

/// Where an issuer publishes its keys.
pub struct JwksUrl {
    url: hyper::Uri,
    client: Client<HttpsConnector<HttpConnector>, Empty<Bytes>>,
}

impl JwksUrl {
    /// `ca`: a PEM file of who may have issued the server's certificate, instead of the system's authorities.
    ///
    /// # Errors
    /// It is no URL, or one of http that leaves this machine: whoever changes the answer on its way lets himself in.
    pub fn new(url: &str, ca: Option<&Path>) -> Result<Self, InvalidJwksUrl> {
        let invalid = |why: &str| {
            let example = "an example is https://issuer.example/.well-known/jwks.json";
            InvalidJwksUrl(format!("{url}: {why}; {example}"))
        };
        let parsed: hyper::Uri = url.parse().map_err(|_| invalid("it is no URL"))?;
        let host = parsed.host().ok_or_else(|| invalid("it names no host"))?;
        let local = matches!(host, "localhost" | "127.0.0.1" | "[::1]");
        match parsed.scheme_str() {
            Some("https") => {}
            Some("http") if local => {}
            _ => return Err(invalid("it must begin with https://")),
        }
        if parsed.authority().is_some_and(|a| a.as_str().contains('@')) {
            return Err(invalid("it is no place for a password"));
        }
        let mut connector = HttpConnector::new();
        connector.enforce_http(false);
        connector.set_connect_timeout(Some(FETCH));
        let connector = HttpsConnectorBuilder::new()
            .with_tls_config(tls::client_config(ca).map_err(InvalidJwksUrl)?)
            .https_or_http()
            .enable_http1()
            .wrap_connector(connector);
        // It is asked every few minutes: no connection is worth keeping.
        let client = Client::builder(TokioExecutor::new())
            .pool_max_idle_per_host(0)
            .build(connector);
        Ok(Self {
            url: parsed,
            client,
        })
    }

    /// What is published there, within three seconds.
    ///
    /// # Errors
    /// There is no answer, another status than 200 (redirects are not followed), or it is too large.
    pub async fn fetch(&self) -> Result<Bytes, JwksUnavailable> {
        let fetched = tokio::time::timeout(FETCH, self.get()).await;
        let fetched = fetched.unwrap_or_else(|_| Err(format!("no answer within {FETCH:?}")));
        fetched.map_err(|why| self.unavailable(&why))
    }

    async fn get(&self) -> Result<Bytes, String> {
        let request = hyper::Request::get(self.url.clone())
            .header(USER_AGENT, PROGRAM)
            .header(ACCEPT, "application/jwk-set+json, application/json");
        let request = request.body(Empty::new()).map_err(|e| e.to_string())?;
        let answer = self.client.request(request).await;
        let answer = answer.map_err(|error| with_sources(&error))?;
        if answer.status() != hyper::StatusCode::OK {
            return Err(format!("it answers {}", answer.status()));
        }
        let body = Limited::new(answer.into_body(), LARGEST).collect().await;
        Ok(body.map_err(|error| with_sources(&*error))?.to_bytes())
    }

    fn unavailable(&self, why: &dyn std::fmt::Display) -> JwksUnavailable {
        JwksUnavailable {
            url: self.url.to_string(),
            why: why.to_string(),
        }
    }
}

fn with_sources(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(inner) = source {
        text = format!("{text}: {inner}");
        source = inner.source();
    }
    text
}

/// A verifier whose keys are those that an issuer publishes. While they cannot be had, the last ones serve.
pub struct PublishedKeys {
    url: JwksUrl,
    verifier: Arc<JwtVerifier>,
    /// Whoever asks the issuer holds this: all others wait for that answer.
    last: Mutex<Last>,
    /// Places for requests that wait for the issuer because their token's key is unknown.
    waiting: Semaphore,
    /// Is given each new set that is used.
    keep: Box<dyn Fn(&Bytes) + Send + Sync>,
}

#[derive(Default)]
struct Last {
    asked: Option<Instant>,
    answered: Option<Instant>,
    /// The hash of the set that is in use.
    taken: Option<[u8; 32]>,
}

impl PublishedKeys {
    /// Follows the keys at this URL for this verifier, which may have some already. `keep` is given each new set that is
    /// used, so that it serves a start while the issuer is down.
    pub fn new(
        url: JwksUrl,
        verifier: Arc<JwtVerifier>,
        keep: impl Fn(&Bytes) + Send + Sync + 'static,
    ) -> Self {
        Self {
            url,
            verifier,
            last: Mutex::default(),
            waiting: Semaphore::new(MOST_WAITING),
            keep: Box::new(keep),
        }
    }

    /// Asks the issuer. Answers whether the set is another than before; keys of it that cannot be used are left out, and
    /// logged.
    ///
    /// # Errors
    /// It is not to be had, or has no key that can be used; the keys then stay as they were.
    pub async fn refresh(&self) -> Result<bool, JwksUnavailable> {
        self.ask(&mut *self.last.lock().await).await
    }

    async fn ask(&self, last: &mut Last) -> Result<bool, JwksUnavailable> {
        last.asked = Some(Instant::now());
        let fetched = self.url.fetch().await;
        last.answered = Some(Instant::now());
        let text = fetched?;
        let mut hash = [0; 32];
        hash.copy_from_slice(digest(&SHA256, &text).as_ref());
        if last.taken == Some(hash) {
            return Ok(false);
        }
        self.take(&text).map_err(|why| self.url.unavailable(&why))?;
        last.taken = Some(hash);
        (self.keep)(&text);
        Ok(true)
    }

    /// Uses a set of keys as it was published.
    ///
    /// # Errors
    /// It is none, or has no key that can be used.
    pub fn take(&self, text: &[u8]) -> Result<(), super::InvalidKeys> {
        let (keys, left_out) = read_published_jwks(text)?;
        for why in left_out {
            tracing::warn!("{why}; it is left out");
        }
        self.verifier.replace_keys(keys)
    }

    /// Verifies a token. One of an unknown key, which a forged one may be where keys have no `kid`, is looked at again once the issuer has been asked, which happens once in
    /// ten seconds for all of them together.
    ///
    /// # Errors
    /// See [`TokenError`]; [`TokenError::NotAsked`] where too many wait for the issuer already.
    pub async fn verify(
        self: &Arc<Self>,
        token: &[u8],
        now: Timestamp,
    ) -> Result<Verified, TokenError> {
        let first = self.verifier.verify(token, now);
        let of_a_newer_key = match first {
            Err(TokenError::UnknownKey | TokenError::NoKeys) => true,
            Err(TokenError::Forged) => self.verifier.has_unnamed_keys(),
            _ => false,
        };
        if !of_a_newer_key {
            return first;
        }
        let place = self.waiting.try_acquire();
        let _place = place.map_err(|_| TokenError::NotAsked)?;
        // The issuer is asked to the end also when this request's client hangs up.
        let (keys, wanted) = (self.clone(), Instant::now());
        let looking = tokio::spawn(async move { keys.has_news_since(wanted).await });
        match looking.await {
            Ok(true) => self.verifier.verify(token, now),
            _ => first,
        }
    }

    /// Whether the keys may be others than at that moment.
    async fn has_news_since(&self, wanted: Instant) -> bool {
        let mut last = self.last.lock().await;
        if last.answered.is_some_and(|answered| answered >= wanted) {
            return true;
        }
        if last.asked.is_some_and(|asked| asked.elapsed() < APART) {
            return false;
        }
        let asked = self.ask(&mut last).await;
        if let Err(error) = &asked {
            tracing::warn!(%error, "an unknown key was looked for");
        }
        asked.is_ok()
    }

    /// Asks the issuer after each `every`, sooner where it was not reached. It goes on and on.
    pub async fn follow(&self, every: Duration) {
        let mut pause = FIRST_PAUSE;
        let mut reached = self.last.lock().await.taken.is_some();
        loop {
            tokio::time::sleep(if reached { every } else { pause }).await;
            match self.refresh().await {
                Ok(news) => {
                    if news {
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
