//! A replacement of reports where no transport delivers them: shadows are read periodically.

use std::time::Duration;

use async_trait::async_trait;
use keywright_domain::ports::{DeviceReports, ReportStreamItem, ReportsClosed};

/// Yields [`ReportStreamItem::Resumed`] periodically, so that the shadows of open writes are read. The next interval starts
/// when the item is requested, so a slow round of reads delays the next one.
pub struct PollingReports {
    interval: Duration,
}

impl PollingReports {
    /// The first item is `interval` after the first call, by tokio's clock.
    pub const fn new(interval: Duration) -> Self {
        Self { interval }
    }
}

#[async_trait]
impl DeviceReports for PollingReports {
    async fn next(&self) -> Result<ReportStreamItem, ReportsClosed> {
        tokio::time::sleep(self.interval).await;
        Ok(ReportStreamItem::Resumed)
    }
}
