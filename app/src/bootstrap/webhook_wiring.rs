//! The webhooks of the service, as the settings choose them.

use std::path::Path;
use std::sync::Arc;

use anyhow::Context;
#[cfg(feature = "webhooks")]
use keywright_adapters::webhooks::{HttpWebhookSender, SystemResolver};
use keywright_adapters::webhooks::{SecretCipher, SqliteWebhookStore};
use keywright_domain::ports::WebhookSender;
use keywright_domain::{KeyWrites, Webhooks};

use super::webhook_place::{OpenWebhooks, WebhookPlace};
use crate::settings::WebhookSettings;

/// The file of the sandbox's key, in the data folder.
const KEY: &str = "webhook-key";

/// Opens the store, and connects it to the domain. The second value is the store, if it is a file.
///
/// # Errors
/// A file or the store cannot be used, or its secrets were encrypted with another key.
pub(super) async fn open(
    settings: &WebhookSettings,
    data: &Path,
    place: WebhookPlace,
    writes: &Arc<KeyWrites>,
) -> anyhow::Result<(Webhooks, Option<SqliteWebhookStore>)> {
    let cipher = match &settings.key {
        Some(key) => SecretCipher::read(key)?,
        None => SecretCipher::read_or_create(&data.join(KEY))?,
    };
    let OpenWebhooks { store, file } = place.open(cipher).await?;
    let readable = store.list(None).await;
    readable.context("the webhooks cannot be read; was --webhook-key changed?")?;
    let sender = sender(settings)?;
    let limits = settings.limits.clone();
    Ok((Webhooks::new(writes.clone(), store, sender, limits), file))
}

/// Checks that the files of the settings can be used.
///
/// # Errors
/// One cannot; the text names it.
pub(super) fn check(settings: &WebhookSettings) -> anyhow::Result<()> {
    if let Some(key) = &settings.key {
        SecretCipher::read(key)?;
    }
    sender(settings).map(drop)
}

#[cfg(feature = "webhooks")]
fn sender(settings: &WebhookSettings) -> anyhow::Result<Arc<dyn WebhookSender>> {
    Ok(Arc::new(HttpWebhookSender::new(
        settings.rules.clone(),
        settings.envelope.clone(),
        Arc::new(SystemResolver::default()),
        settings.ca.as_deref(),
    )?))
}

/// Settings without the feature turn webhooks off.
#[cfg(not(feature = "webhooks"))]
fn sender(_: &WebhookSettings) -> anyhow::Result<Arc<dyn WebhookSender>> {
    anyhow::bail!("this program was built without the feature webhooks")
}
