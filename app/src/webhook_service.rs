//! Webhooks for the HTTP API and for the tasks that deliver events.

use std::sync::Arc;

use keywright_adapters::webhooks::{generate_secret, secret_text};
use keywright_domain::Webhooks;
use keywright_domain::model::SigningSecret;
use tokio::sync::Notify;

#[derive(Clone)]
pub(crate) struct WebhookService {
    pub(crate) webhooks: Arc<Webhooks>,
    /// Notified when a webhook is changed by this process, so that its deliveries follow at once.
    pub(crate) changed: Arc<Notify>,
}

impl WebhookService {
    pub(crate) fn new(webhooks: Webhooks) -> Self {
        Self {
            webhooks: Arc::new(webhooks),
            changed: Arc::default(),
        }
    }

    /// A random secret, with its text to be shown once.
    pub(crate) fn new_secret() -> (SigningSecret, String) {
        let secret = generate_secret();
        let text = secret_text(&secret);
        (secret, text)
    }
}
