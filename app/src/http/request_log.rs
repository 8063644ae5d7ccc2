//! The log line and the metrics of each request.

use std::net::IpAddr;

use hyper::Method;
use tokio::time::Instant;
use tracing::{Span, info};

use crate::metrics::Metrics;

/// Maximum number of characters of a path that are logged.
const MAX_LOGGED_PATH: usize = 128;

/// Logs and counts a request when this is dropped. If the request has no answer by then, the connection has ended.
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
    /// The status of the answer. `None`: there is no answer yet.
    pub(super) status: Option<u16>,
}

impl Drop for RequestLog<'_> {
    fn drop(&mut self) {
        let _entered = self.span.enter();
        let (method, route, client) = (&self.method, self.route, self.client);
        let end = self.path.char_indices().nth(MAX_LOGGED_PATH);
        let path = end.map_or(self.path, |(end, _)| &self.path[..end]);
        let duration_ms = self.start.elapsed().as_micros() as f64 / 1000.0;
        let Some(status) = self.status else {
            self.metrics.unanswered();
            info!(%method, path, route, duration_ms, %client, "the connection ended before the answer");
            return;
        };
        self.metrics.answered(route, status);
        if !self.is_quiet {
            info!(%method, path, route, status, duration_ms, %client, "answered");
        }
    }
}
