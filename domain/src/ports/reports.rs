use async_trait::async_trait;

use crate::reason::FailureReason;
use crate::values::{KeyIndex, ShadowVersion, ThingName, WriteId};

/// What a lock says of one write.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DeviceOutcome {
    /// It is at it.
    InProgress,
    /// The key is in its memory.
    Succeeded {
        /// The slot that it is in.
        slot: ReportedSlot,
    },
    /// It tried or refused.
    Failed(FailureReason),
    /// Something that is none of these.
    Unreadable,
}

/// The slot that a lock names for a key that it holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReportedSlot {
    /// It names none.
    Missing,
    /// This one.
    Index(KeyIndex),
    /// It names something that is no slot number.
    Unreadable,
}

/// A lock's word on one write.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeviceResult {
    /// The write.
    pub write: WriteId,
    /// What became of it.
    pub outcome: DeviceOutcome,
}

/// What one accepted update of a shadow reports.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeviceReport {
    /// The thing whose shadow it stands on.
    pub thing: ThingName,
    /// The shadow's version after it.
    pub shadow_version: Option<ShadowVersion>,
    /// The results, in no order.
    pub results: Vec<DeviceResult>,
    /// The entries that are known to stand on the shadow after the update.
    pub entries: Vec<WriteId>,
}

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
