//! The URL at which an issuer publishes its keys (RFC 7517; `jwks_uri` of OpenID Connect Discovery).

use std::error::Error;
use std::path::Path;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Empty, Limited};
use hyper::header::{ACCEPT, USER_AGENT};
use hyper::{Request, StatusCode, Uri};
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;

use super::jwt::InvalidKeys;
use crate::error_text::text_with_sources;
use crate::tls::{self, InvalidCaFile};

/// The timeout of a whole fetch. A client whose token has an unknown key waits this long at most.
const TIMEOUT: Duration = Duration::from_secs(3);

/// The maximum size of an answer in bytes. Usual key sets have a few thousand bytes.
const MAX_ANSWER_BYTES: usize = 256 * 1024;

/// Some hosts refuse requests without a user agent.
const USER_AGENT_VALUE: &str = concat!("keywright/", env!("CARGO_PKG_VERSION"));

/// Why the URL of a key set cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum InvalidJwksUrl {
    /// The URL is invalid or unsafe.
    #[error("{url}: {problem}; an example is https://issuer.example/.well-known/jwks.json")]
    Url {
        /// The URL as it was given.
        url: String,
        /// What is wrong with it.
        problem: &'static str,
    },
    /// The URL has a user name or a password. The text does not contain the URL, because errors are logged.
    #[error(
        "the URL of the token keys must not contain a user name or a password; an example is https://issuer.example/.well-known/jwks.json"
    )]
    Credentials,
    /// The file of trusted authorities cannot be used.
    #[error(transparent)]
    Ca(#[from] InvalidCaFile),
}

/// The keys could not be fetched, or cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("no usable token keys from {url}: {problem}")]
pub struct JwksUnavailable {
    url: String,
    problem: FetchProblem,
}

/// Why keys could not be fetched, or cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FetchProblem {
    /// There is no answer in time.
    #[error("no answer within {TIMEOUT:?}")]
    Timeout,
    /// The request or the answer failed, or the answer is too large.
    #[error("{0}")]
    Http(String),
    /// The answer has another status than 200. Redirects are not followed.
    #[error("the answer has the status {0}")]
    Status(StatusCode),
    /// The answer is not a key set, or has no valid key.
    #[error(transparent)]
    Keys(#[from] InvalidKeys),
}

/// An HTTP client for the URL at which an issuer publishes its keys.
pub struct JwksClient {
    url: Uri,
    client: Client<HttpsConnector<HttpConnector>, Empty<Bytes>>,
}

impl JwksClient {
    /// `ca`: a PEM file of authorities to trust instead of the system's.
    ///
    /// # Errors
    /// See [`InvalidJwksUrl`].
    pub fn new(url: &str, ca: Option<&Path>) -> Result<Self, InvalidJwksUrl> {
        if has_credentials(url) {
            return Err(InvalidJwksUrl::Credentials);
        }
        let parsed = parse(url).map_err(|problem| InvalidJwksUrl::Url {
            url: url.to_owned(),
            problem,
        })?;
        let mut connector = HttpConnector::new();
        // Needed for https URLs.
        connector.enforce_http(false);
        connector.set_connect_timeout(Some(TIMEOUT));
        let connector = HttpsConnectorBuilder::new()
            .with_tls_config(tls::client_config(ca)?)
            .https_or_http()
            .enable_http1()
            .wrap_connector(connector);
        // Requests are minutes apart, so idle connections are not kept.
        let client = Client::builder(TokioExecutor::new())
            .pool_max_idle_per_host(0)
            .build(connector);
        Ok(Self {
            url: parsed,
            client,
        })
    }

    /// Fetches the key set within three seconds.
    ///
    /// # Errors
    /// See [`JwksUnavailable`].
    pub async fn fetch(&self) -> Result<Bytes, JwksUnavailable> {
        let fetched = tokio::time::timeout(TIMEOUT, self.get()).await;
        let fetched = fetched.unwrap_or(Err(FetchProblem::Timeout));
        fetched.map_err(|problem| self.error(problem))
    }

    async fn get(&self) -> Result<Bytes, FetchProblem> {
        let request = Request::get(self.url.clone())
            .header(USER_AGENT, USER_AGENT_VALUE)
            .header(ACCEPT, "application/jwk-set+json, application/json")
            .body(Empty::new())
            .map_err(|error| http_problem(&error))?;
        let answer = self.client.request(request).await;
        let answer = answer.map_err(|error| http_problem(&error))?;
        if answer.status() != StatusCode::OK {
            return Err(FetchProblem::Status(answer.status()));
        }
        let body = Limited::new(answer.into_body(), MAX_ANSWER_BYTES);
        let body = body.collect().await;
        Ok(body.map_err(|error| http_problem(&*error))?.to_bytes())
    }

    pub(super) fn error(&self, problem: impl Into<FetchProblem>) -> JwksUnavailable {
        JwksUnavailable {
            url: self.url.to_string(),
            problem: problem.into(),
        }
    }
}

/// Whether the URL has a user name or a password before its host. It need not be a valid URL.
fn has_credentials(url: &str) -> bool {
    let after_scheme = url.split_once("://").map_or(url, |(_, rest)| rest);
    let authority = after_scheme.split(['/', '?', '#']).next();
    authority.is_some_and(|authority| authority.contains('@'))
}

fn parse(url: &str) -> Result<Uri, &'static str> {
    let parsed: Uri = url.parse().map_err(|_| "it is not a URL")?;
    let host = parsed.host().ok_or("it has no host")?;
    let is_local = matches!(host, "localhost" | "127.0.0.1" | "[::1]");
    match parsed.scheme_str() {
        Some("https") => {}
        Some("http") if is_local => {}
        // Over plain HTTP, an attacker on the network could replace the keys. It is accepted on the loopback interface only.
        _ => return Err("it must begin with https://"),
    }
    Ok(parsed)
}

fn http_problem(error: &dyn Error) -> FetchProblem {
    FetchProblem::Http(text_with_sources(error))
}
