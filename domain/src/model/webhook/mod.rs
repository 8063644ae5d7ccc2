//! Webhooks: endpoints of an organization to which the events of its locks are delivered.

mod delivery;
mod endpoint;
mod network;
mod progress;
mod url;

pub use delivery::{
    DeliveryOutcome, DeliveryRecord, EndpointAnswer, NoAnswer, WebhookEvent, WebhookMessage,
    WebhookTest,
};
pub use endpoint::{
    DisabledReason, EventSelection, SigningSecret, SigningSecrets, Webhook, WebhookOwner,
    WebhookState,
};
pub use network::Network;
pub use progress::{FailureStreak, ProgressSave, ReplaySince, WaitingLock, WebhookProgress};
pub use url::{WebhookHost, WebhookUrl};
