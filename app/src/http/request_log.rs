//! The log line and the metrics of each request.

use std::net::IpAddr;

use hyper::Method;
use tokio::time::Instant;
use tracing::{Span, info};

use crate::metrics::Metrics;

/// Maximum number of characters of a path that are logged.
const MAX_LOGGED_PATH: usize = 128;

/// Logs and counts a request when it is answered. If it is dropped before that, the connection has ended, which is logged and
/// counted instead.
pub(super) struct RequestLog<'a> {
    pub(super) metrics: &'a Metrics,
    pub(super) span: Span,
    pub(super) method: Method,
    pub(super) path: &'a str,
    pub(super) route: &'static str,
    pub(super) client: IpAddr,
    pub(super) start: Instant,
    /// The request is not logged when it is answered: it is a health check or a scrape of metrics.
    pub(super) is_quiet: bool,
    pub(super) is_answered: bool,
}

impl RequestLog<'_> {
    pub(super) fn answered(mut self, status: u16) {
        self.is_answered = true;
        self.metrics.answered(self.route, status);
        if self.is_quiet {
            return;
        }
        let (method, path, route, client) =
            (&self.method, self.short_path(), self.route, self.client);
        let duration_ms = self.duration_ms();
        self.span
            .in_scope(|| info!(%method, path, route, status, duration_ms, %client, "answered"));
    }

    fn short_path(&self) -> &str {
        let end = self.path.char_indices().nth(MAX_LOGGED_PATH);
        end.map_or(self.path, |(end, _)| &self.path[..end])
    }

    fn duration_ms(&self) -> f64 {
        self.start.elapsed().as_micros() as f64 / 1000.0
    }
}

impl Drop for RequestLog<'_> {
    fn drop(&mut self) {
        if self.is_answered {
            return;
        }
        self.metrics.unanswered();
        let (method, path, route, client) =
            (&self.method, self.short_path(), self.route, self.client);
        let duration_ms = self.duration_ms();
        self.span.in_scope(|| {
            info!(%method, path, route, duration_ms, %client, "the connection ended before the answer");
        });
    }
}
