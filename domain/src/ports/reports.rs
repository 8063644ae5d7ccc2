use async_trait::async_trait;

use crate::model::DeviceReport;

/// Acknowledges a report to its transport, for instance by an HTTP response. Call it after the report is settled durably. If it is
/// dropped without a call, the transport delivers the report again, provided that it can; otherwise maintenance finds the result
/// on the shadow.
pub type Acknowledge = Box<dyn FnOnce() + Send>;

/// An item of a stream of reports.
pub enum ReportStreamItem {
    /// A report, with its acknowledgement.
    Report(DeviceReport, Acknowledge),
    /// Reports may have been missed, for instance while a connection was down. Run
    /// [`KeyWrites::reconcile_all`](crate::KeyWrites::reconcile_all), which reads the shadows of unfinished writes.
    Resumed,
}

/// The stream has ended and will deliver no more reports.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("no more reports will come")]
pub struct ReportsClosed;

/// A stream of the reports of locks.
///
/// Reports are hints; the shadow has the results. A report MAY be delivered late, more than once, in any order, or not at all. A
/// transport that can deliver a report again MUST NOT be told that it is settled before [`Acknowledge`] is called. An adapter that
/// notices that reports may have been missed MUST deliver [`ReportStreamItem::Resumed`].
#[async_trait]
pub trait DeviceReports: Send + Sync {
    /// Waits for the next item. The caller MUST NOT call it concurrently. It may drop the future while it waits; no item is lost
    /// then.
    ///
    /// # Errors
    /// The stream has ended.
    async fn next(&self) -> Result<ReportStreamItem, ReportsClosed>;
}
