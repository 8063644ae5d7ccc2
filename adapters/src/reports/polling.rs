//! Reports by looking: for where nothing brings them.

use std::time::Duration;

use async_trait::async_trait;
use keywright_domain::ports::{DeviceReports, ReportStreamItem, ReportsClosed};

/// Says every so often that reports may have been missed, so that the shadows of open writes are read, at the pace
/// of that reading. A reading that takes longer than the time between two is not begun twice.
pub struct PollingReports {
    every: Duration,
}

impl PollingReports {
    /// The first reading is `every` from now.
    pub const fn new(every: Duration) -> Self {
        Self { every }
    }
}

#[async_trait]
impl DeviceReports for PollingReports {
    async fn next(&self) -> Result<ReportStreamItem, ReportsClosed> {
        tokio::time::sleep(self.every).await;
        Ok(ReportStreamItem::Resumed)
    }
}
