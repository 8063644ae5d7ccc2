//! What `POST /device-reports` needs: the secret of its clients and the receiver of the reports.

use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use anyhow::{Context, ensure};
use aws_lc_rs::constant_time::verify_slices_are_equal;
use aws_lc_rs::digest::{Digest, SHA256, digest};
use keywright_adapters::reports::HttpReports;
use tokio::time::Instant;

use crate::mutex::lock_mutex;

/// The shortest pause between two log lines that show a confirmation of AWS.
const CONFIRMATION_PAUSE: Duration = Duration::from_secs(5);

/// The shortest secret that is accepted: 128 bits in hexadecimal.
const MIN_SECRET_LENGTH: usize = 32;

/// The receiver of the reports at `POST /device-reports`, and the secret that its clients must send.
pub(crate) struct DeviceReportEndpoint {
    pub(crate) reports: Arc<HttpReports>,
    secret: Digest,
    confirmed_at: Mutex<Option<Instant>>,
}

impl DeviceReportEndpoint {
    /// Reads the secret from a file.
    ///
    /// # Errors
    /// The file cannot be read, or the secret is too short.
    pub(crate) fn read(secret: &Path, reports: HttpReports) -> anyhow::Result<Self> {
        let read = || {
            let text = std::fs::read_to_string(secret)?;
            let text = text.trim();
            ensure!(
                text.len() >= MIN_SECRET_LENGTH,
                "it must hold {MIN_SECRET_LENGTH} characters at least"
            );
            Ok(digest(&SHA256, text.as_bytes()))
        };
        let digest =
            read().with_context(|| format!("cannot use {} for --reports-secret", secret.display()));
        Ok(Self {
            reports: Arc::new(reports),
            secret: digest?,
            confirmed_at: Mutex::new(None),
        })
    }

    /// Whether another confirmation of AWS may be logged now.
    pub(crate) fn may_log_confirmation(&self) -> bool {
        let mut last = lock_mutex(&self.confirmed_at);
        let is_due = last.is_none_or(|at| at.elapsed() >= CONFIRMATION_PAUSE);
        if is_due {
            *last = Some(Instant::now());
        }
        is_due
    }

    /// Whether this is the secret. The comparison takes constant time.
    pub(crate) fn accepts_secret(&self, secret: &str) -> bool {
        let offered = digest(&SHA256, secret.as_bytes());
        verify_slices_are_equal(self.secret.as_ref(), offered.as_ref()).is_ok()
    }
}
