use std::error::Error;
use std::fmt;

use keywright_domain::model::{DeviceReport, LockId, WriteId};
use keywright_domain::ports::RepoError;
use keywright_domain::{AuditReport, SettleError, Settlement};

/// What a task has done, or why it failed. Failed work is tried again.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub enum RunnerEvent<'a> {
    /// An intent was taken over, because its lease had ended.
    Recovered(WriteId),
    /// The store could not be asked for intents whose lease has ended.
    RecoveryFailed(&'a RepoError),
    /// The wall clock was set back. All open writes are reconciled.
    ClockSetBack,
    /// The store could not list the writes that are due.
    DueWritesUnlisted(&'a RepoError),
    /// The store could not list all open writes, which are to be reconciled.
    OpenWritesUnlisted(&'a RepoError),
    /// So many open writes are not reconciled yet: their shadows could not be read, or their locks were being maintained. They are tried again
    /// after a pause.
    NotYetReconciled(usize),
    /// The shadow of a lock differed from its writes, and was repaired.
    Repaired(LockId, &'a AuditReport),
    /// Events could not be published, or their position is unknown.
    PublishFailed(&'a (dyn Error + Send + Sync)),
    /// Old records could not be deleted.
    PurgeFailed(&'a RepoError),
    /// A report was settled: one settlement for each of its results.
    Settled(&'a DeviceReport, &'a [Settlement]),
    /// A report could not be settled.
    SettlingFailed(&'a DeviceReport, &'a SettleError),
    /// A stream has ended and delivers no more reports. [`RunningTasks::failure`](crate::RunningTasks::failure) returns.
    ReportsEnded,
    /// A task of this name has panicked. A report that it was settling is not acknowledged, and writes that it was maintaining stay due.
    Panicked(&'static str),
}

impl fmt::Display for RunnerEvent<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Recovered(write) => write!(f, "write {write}: unfinished, and recovered"),
            Self::RecoveryFailed(e) => write!(f, "unfinished writes could not be recovered: {e}"),
            Self::ClockSetBack => {
                f.write_str("the clock was set back; all open writes are reconciled")
            }
            Self::DueWritesUnlisted(e) => write!(f, "due writes could not be listed: {e}"),
            Self::OpenWritesUnlisted(e) => write!(f, "open writes could not be listed: {e}"),
            Self::NotYetReconciled(writes) => {
                write!(f, "open writes are not reconciled yet: {writes}")
            }
            Self::Repaired(lock, report) => {
                let findings = report.findings.len();
                write!(
                    f,
                    "lock {lock}: its shadow was repaired ({findings} findings)"
                )
            }
            Self::PublishFailed(e) => write!(f, "events could not be published: {e}"),
            Self::PurgeFailed(e) => write!(f, "old records could not be deleted: {e}"),
            Self::Settled(report, settlements) => {
                let results = settlements.len();
                write!(
                    f,
                    "thing {}: a report was settled ({results} results)",
                    report.thing
                )
            }
            Self::SettlingFailed(report, e) => {
                write!(
                    f,
                    "thing {}: a report could not be settled: {e}",
                    report.thing
                )
            }
            Self::ReportsEnded => f.write_str("a stream of reports has ended"),
            Self::Panicked(task) => write!(f, "{task} has panicked"),
        }
    }
}
