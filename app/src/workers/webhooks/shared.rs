//! What the deliveries of all webhooks share.

use std::sync::Arc;

use keywright_domain::{KeyWrites, Webhooks};
use tokio_util::sync::CancellationToken;

use crate::metrics::Metrics;
use crate::recent_events::RecentEvents;

#[derive(Clone)]
pub(crate) struct Shared {
    pub(crate) webhooks: Arc<Webhooks>,
    pub(crate) writes: Arc<KeyWrites>,
    pub(crate) recent_events: Arc<RecentEvents>,
    pub(crate) metrics: Arc<Metrics>,
    /// Cancelled when the service stops.
    pub(crate) stopping: CancellationToken,
}
