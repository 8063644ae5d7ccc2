//! The state that all requests share.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use keywright_adapters::auth::JwtVerifier;
use keywright_domain::KeyWrites;
use keywright_domain::model::{Tick, Write};
use keywright_domain::ports::{AuthPort, Clock, IdGenerator, Timer};
use tokio::sync::{broadcast, watch};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::admin::AdminService;
use crate::device_report_endpoint::DeviceReportEndpoint;
use crate::metrics::Metrics;
use crate::recent_events::RecentEvents;
use crate::request_admission::RequestAdmission;
use crate::settings::{CorsOrigins, HttpLimits};
use crate::webhook_service::WebhookService;

pub(crate) struct App {
    pub(crate) writes: Arc<KeyWrites>,
    pub(crate) auth: Arc<dyn AuthPort>,
    /// The verifier of the issuer's tokens. `None`: only the sandbox's tokens, or none, are accepted.
    pub(crate) tokens: Option<Arc<JwtVerifier>>,
    /// Sends each write that this process saves.
    pub(crate) saved: broadcast::Sender<Arc<Write>>,
    pub(crate) recent_events: Arc<RecentEvents>,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) timer: Arc<dyn Timer>,
    pub(crate) ids: Arc<dyn IdGenerator>,
    pub(crate) http_limits: HttpLimits,
    pub(crate) cors: CorsOrigins,
    pub(crate) metrics: Arc<Metrics>,
    pub(crate) admission: RequestAdmission,
    pub(crate) work: Work,
    /// Whether each connection that the shadows need is up.
    pub(crate) connected: Vec<watch::Receiver<bool>>,
    /// Whether the store has answered its last probe.
    pub(crate) store_answers: watch::Receiver<bool>,
    /// Set if reports over HTTP are accepted.
    pub(crate) device_reports: Option<DeviceReportEndpoint>,
    /// `None`: webhooks are off.
    pub(crate) webhooks: Option<WebhookService>,
    /// `None`: the operators' page is off.
    pub(crate) admin: Option<AdminService>,
}

impl App {
    /// The deadline of a request that arrives now.
    pub(crate) fn deadline(&self) -> Tick {
        self.timer
            .tick()
            .after(self.writes.settings().request_timeout)
    }
}

/// The writes and withdrawals in progress, and how far the service has stopped.
#[derive(Default)]
pub(crate) struct Work {
    /// Tasks of writes and withdrawals. They continue when their clients disconnect, and a shutdown waits for them.
    pub(crate) tasks: TaskTracker,
    /// Read by each request, so it is no token, which has a mutex.
    stopping: AtomicBool,
    /// Cancelled when the service is closed for new work, which ends all waiting for locks.
    pub(crate) draining: CancellationToken,
}

impl Work {
    pub(crate) fn is_stopping(&self) -> bool {
        self.stopping.load(Ordering::Relaxed)
    }

    /// From now on the service is not ready, so that load balancers send new requests elsewhere. Requests are still accepted.
    pub(crate) fn announce_stop(&self) {
        self.stopping.store(true, Ordering::Relaxed);
    }

    /// From now on the service is closed for new work.
    pub(crate) fn drain(&self) {
        self.announce_stop();
        self.draining.cancel();
        self.tasks.close();
    }
}
