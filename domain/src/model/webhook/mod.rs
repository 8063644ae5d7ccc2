//! Webhooks: endpoints of an organization to which the events of its locks are delivered.

mod delivery;
mod endpoint;
mod network;
mod progress;
mod state;
mod url;

pub use delivery::{
    DeliveryOutcome, DeliveryRecord, EndpointAnswer, NoAnswer, WebhookEvent, WebhookMessage,
    WebhookTest,
};
pub use endpoint::{EventSelection, SigningSecret, SigningSecrets, Webhook, WebhookOwner};
pub use network::Network;
pub use progress::{FailureStreak, ProgressSave, ReplaySince, WaitingLock, WebhookProgress};
pub use state::{DisabledReason, WebhookState};
pub use url::{WebhookHost, WebhookUrl};
