//! The keys of tokens from where their issuer publishes them, and the copy of them that serves a start while that is down.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use aws_lc_rs::digest::{SHA256, digest};
use keywright_adapters::auth::{self, JwtSettings, JwtVerifier, PublishedKeys, write_private};

use super::Error;
use crate::settings::JwksUrl;

/// A verifier, and what follows its keys. A URL that is down does not keep the server from starting: the keys that were
/// last had from it serve, or tokens have to wait.
///
/// # Errors
/// The URL or its file of authorities cannot be used; the text names it.
pub(super) async fn open(
    from: &JwksUrl,
    verified: JwtSettings,
    data: &Path,
) -> Result<(Arc<JwtVerifier>, Arc<PublishedKeys>), Error> {
    let verifier = Arc::new(JwtVerifier::without_keys(verified));
    let copy = KeptCopy::of(&from.url, data);
    let last = copy.read();
    let keep = move |set: &_| copy.keep(set);
    let keys = Arc::new(PublishedKeys::new(source(from)?, verifier.clone(), keep));
    if let Err(error) = keys.refresh().await {
        let serves = last.is_some_and(|set| keys.load(&set).is_ok());
        let (old, none) = ("the last ones serve", "tokens wait for them");
        tracing::error!(%error, "{}", if serves { old } else { none });
    }
    Ok((verifier, keys))
}

/// # Errors
/// The URL or its file of authorities cannot be used; the text names it.
pub(super) fn source(from: &JwksUrl) -> Result<auth::JwksUrl, Error> {
    Ok(auth::JwksUrl::new(&from.url, from.ca.as_deref())?)
}

/// The set of keys that was last had from a URL, in the folder of data.
struct KeptCopy(PathBuf);

impl KeptCopy {
    /// Another URL's keys are never taken for this one's.
    fn of(url: &str, data: &Path) -> Self {
        let hash = digest(&SHA256, url.as_bytes());
        let start = hash.as_ref().iter().take(8);
        let name: String = start.map(|b| format!("{b:02x}")).collect();
        Self(data.join(format!("jwks-{name}.json")))
    }

    fn read(&self) -> Option<Vec<u8>> {
        fs::read(&self.0).ok()
    }

    /// Without it the service runs as well, until it is started while the URL is down.
    fn keep(&self, set: &impl AsRef<[u8]>) {
        if let Err(error) = write_private(&self.0, set.as_ref()) {
            let path = self.0.display();
            tracing::warn!(%error, "the keys of tokens are not kept in {path}");
        }
    }
}
