//! What a request may use.

use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use aws_lc_rs::constant_time::verify_slices_are_equal;
use aws_lc_rs::digest::{Digest, SHA256, digest};
use keywright_domain::KeyWrites;
use keywright_domain::model::{Tick, Write};
use keywright_domain::ports::{AuthPort, Clock, IdGenerator, Timer};
use tokio::sync::{broadcast, watch};
use tokio::time::Instant;
use tokio_util::task::TaskTracker;

use crate::admission::Admission;
use crate::bootstrap::{Error, HttpReports, JwtVerifier};
use crate::metrics::Metrics;
use crate::settings::{Bounds, CorsOrigins};

pub(crate) struct App {
    pub(crate) writes: Arc<KeyWrites>,
    pub(crate) auth: Arc<dyn AuthPort>,
    /// What verifies the tokens of one's own issuer.
    pub(crate) tokens: Option<Arc<JwtVerifier>>,
    /// Tells of each write that this process saves.
    pub(crate) saved: broadcast::Sender<Arc<Write>>,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) timer: Arc<dyn Timer>,
    pub(crate) ids: Arc<dyn IdGenerator>,
    pub(crate) bounds: Bounds,
    pub(crate) cors: CorsOrigins,
    pub(crate) metrics: Arc<Metrics>,
    pub(crate) admission: Admission,
    pub(crate) work: Work,
    /// Whether each connection that the shadows need is there.
    pub(crate) connected: Vec<watch::Receiver<bool>>,
    /// Whether the store has answered lately.
    pub(crate) store_answers: watch::Receiver<bool>,
    /// Where reports over HTTP go, if they are taken.
    pub(crate) ingest: Option<Ingest>,
}

impl App {
    /// When a request that has just come is answered, whatever it waits for until then.
    pub(crate) fn deadline(&self) -> Tick {
        self.timer
            .tick()
            .after(self.writes.settings().request_timeout)
    }

    /// What comes of something before that moment; `None`: nothing, and it has been given up.
    pub(crate) async fn by<T>(&self, deadline: Tick, work: impl Future<Output = T>) -> Option<T> {
        // Lazily: what does not have to wait needs no timer.
        let over = async { self.timer.sleep_until(deadline).await };
        tokio::select! {
            biased;
            outcome = work => Some(outcome),
            () = over => None,
        }
    }
}

/// Reports that are brought over HTTP, by who knows a secret.
pub(crate) struct Ingest {
    pub(crate) reports: Arc<HttpReports>,
    secret: Digest,
    confirmed: Mutex<Option<Instant>>,
}

/// How often a confirmation of AWS is shown at most.
const CONFIRMATIONS_APART: Duration = Duration::from_secs(5);

/// The shortest secret that is taken: 128 bits in hexadecimal.
const MIN_SECRET_LENGTH: usize = 32;

impl Ingest {
    /// # Errors
    /// The file of the secret cannot be read, or what it holds is too short.
    pub(crate) fn read(secret: &Path, reports: HttpReports) -> Result<Self, Error> {
        let unusable = |why: &dyn std::fmt::Display| {
            format!(
                "cannot use {} for --reports-secret: {why}",
                secret.display()
            )
        };
        let text = std::fs::read_to_string(secret).map_err(|e| unusable(&e))?;
        let text = text.trim();
        if text.len() < MIN_SECRET_LENGTH {
            let why = format!("it must hold {MIN_SECRET_LENGTH} characters at least");
            return Err(unusable(&why).into());
        }
        Ok(Self {
            reports: Arc::new(reports),
            secret: digest(&SHA256, text.as_bytes()),
            confirmed: Mutex::new(None),
        })
    }

    /// Whether one more confirmation of AWS may be shown now.
    pub(crate) fn may_confirm(&self) -> bool {
        let mut last = self
            .confirmed
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        let welcome = last.is_none_or(|at| at.elapsed() >= CONFIRMATIONS_APART);
        if welcome {
            *last = Some(Instant::now());
        }
        welcome
    }

    /// Whether this is the secret, in a time that says nothing of it.
    pub(crate) fn knows(&self, secret: &str) -> bool {
        let offered = digest(&SHA256, secret.as_bytes());
        verify_slices_are_equal(self.secret.as_ref(), offered.as_ref()).is_ok()
    }
}

/// The writes and withdrawals that are in progress.
pub(crate) struct Work {
    /// Their tasks, which go on when their client has hung up, and are awaited at the end.
    pub(crate) tasks: TaskTracker,
    stopping: AtomicBool,
    draining: AtomicBool,
}

impl Work {
    pub(crate) fn new() -> Self {
        Self {
            tasks: TaskTracker::new(),
            stopping: AtomicBool::new(false),
            draining: AtomicBool::new(false),
        }
    }

    /// From now on the service is not ready for new work, so that balancers send it elsewhere; what comes is still done.
    pub(crate) fn announce_stop(&self) {
        self.stopping.store(true, Ordering::Relaxed);
    }

    pub(crate) fn is_stopping(&self) -> bool {
        self.stopping.load(Ordering::Relaxed)
    }

    /// From now on no new work comes, and nobody waits for a lock any more.
    pub(crate) fn drain(&self) {
        self.announce_stop();
        self.draining.store(true, Ordering::Relaxed);
        self.tasks.close();
    }

    pub(crate) fn is_draining(&self) -> bool {
        self.draining.load(Ordering::Relaxed)
    }
}
