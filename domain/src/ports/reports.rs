use async_trait::async_trait;

use crate::model::DeviceReport;

/// To be called once the report is settled durably; the transport then forgets it (MQTT's PUBACK,
/// the HTTP answer). Dropped uncalled, the report comes again.
pub type Acknowledge = Box<dyn FnOnce() + Send>;

/// What a stream of reports says next.
pub enum ReportStreamItem {
    /// A report, and its acknowledgement.
    Report(DeviceReport, Acknowledge),
    /// Reports may have been missed: the shadows of open writes are to be read.
    Resumed,
}

/// The stream has ended for good.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("no more reports will come")]
pub struct ReportsClosed;

/// What locks report, as hints: the shadow is the record. A report may come twice, late or never; it
/// MUST NOT be acknowledged by the adapter itself.
#[async_trait]
pub trait DeviceReports: Send + Sync {
    /// Waits for the next item. One caller at a time.
    ///
    /// # Errors
    /// The stream has ended.
    async fn next(&self) -> Result<ReportStreamItem, ReportsClosed>;
}
