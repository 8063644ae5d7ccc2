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
    /// Reports may have been missed, for instance while a connection was down. Maintain all
    /// [`KeyWrites::scheduled_writes`](crate::KeyWrites::scheduled_writes), which reads their shadows.
    Resumed,
}

/// The stream has ended and will deliver no more reports.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("no more reports will come")]
pub struct ReportsClosed;

/// A stream of the reports of locks.
///
/// Reports are hints; the shadow has the results. A report may be delivered late, more than once, in any order, or not at all.
///
/// # Contract
///
/// Each promise has the test case of its name in `keywright-testkit`.
///
/// 1. `report_is_delivered_with_its_results`: a report MUST be delivered with its thing and all its results.
/// 2. `report_is_settled_only_by_its_acknowledgement`: a transport that can deliver a report again MUST NOT learn that the report is
///    settled before [`Acknowledge`] is called.
/// 3. `interruption_is_followed_by_resumed`: an adapter that may have missed reports MUST deliver [`ReportStreamItem::Resumed`].
/// 4. `dropped_wait_loses_no_item`: a future of [`DeviceReports::next`] that is dropped MUST NOT lose an item.
#[async_trait]
pub trait DeviceReports: Send + Sync {
    /// Waits for the next item. The caller does not call it concurrently, and may drop the future while it waits.
    ///
    /// # Errors
    /// The stream has ended.
    async fn next(&self) -> Result<ReportStreamItem, ReportsClosed>;
}
