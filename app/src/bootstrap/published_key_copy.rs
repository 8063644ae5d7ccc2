//! Token keys that an issuer publishes, with a copy in the data folder for starts while the issuer does not answer.

use std::fs;
use std::path::Path;
use std::sync::Arc;

use aws_lc_rs::digest::{SHA256, digest};
use bytes::Bytes;
use keywright_adapters::auth::{
    JwksClient, JwksRefresher, JwtSettings, JwtVerifier, write_private,
};

use crate::settings::JwksUrl;

/// Fetches the key set from a URL. If that fails, the copy of the last key set is used; without a usable copy, tokens cannot be
/// verified until a later fetch succeeds.
///
/// # Errors
/// The URL or its file of certificate authorities cannot be used; the text names it.
pub(super) async fn open_published_keys(
    from: &JwksUrl,
    jwt: JwtSettings,
    data: &Path,
) -> anyhow::Result<(Arc<JwtVerifier>, Arc<JwksRefresher>)> {
    let verifier = Arc::new(JwtVerifier::without_keys(jwt));
    // The name of the copy depends on the URL, so that the keys of one URL are never used for another.
    let hash = digest(&SHA256, from.url.as_bytes());
    let start = hash.as_ref().iter().take(8);
    let name: String = start.map(|b| format!("{b:02x}")).collect();
    let path = data.join(format!("jwks-{name}.json"));
    let last = fs::read(&path).ok();
    // A failure is only logged: the copy is needed only for a start while the URL does not answer.
    let keep = move |set: &Bytes| {
        if let Err(error) = write_private(&path, set) {
            let path = path.display();
            tracing::warn!(%error, "the token keys could not be copied to {path}");
        }
    };
    let issuer = client(from)?;
    let keys = Arc::new(JwksRefresher::new(issuer, verifier.clone(), keep));
    if let Err(error) = keys.refresh().await {
        let message = match last.is_some_and(|set| keys.use_key_set(&set).is_ok()) {
            true => "the token keys of the last fetch are used",
            false => {
                "no token keys are available: tokens cannot be verified until the issuer answers"
            }
        };
        tracing::error!(%error, "{message}");
    }
    Ok((verifier, keys))
}

/// An HTTP client for the URL.
///
/// # Errors
/// The URL or its file of certificate authorities cannot be used; the text names it.
pub(super) fn client(from: &JwksUrl) -> anyhow::Result<JwksClient> {
    Ok(JwksClient::new(&from.url, from.ca.as_deref())?)
}
