//! One atomic change of a lock in the store.

use crate::model::{
    Anomaly, IdempotencyRecord, Lock, LockId, RecordedEvent, Revision, ShadowVersion, Write,
    WriteId,
};

/// One atomic change of one lock, as a policy decided it: the events to append, and the lock and its writes afterwards.
///
/// An adapter stores it unchanged.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Save {
    /// The lock.
    pub lock: LockId,
    /// The revision that the decision was based on. The store applies the save only at exactly this revision.
    pub revision: Revision,
    /// Events to append, all of this lock. Their versions continue from the lock's version.
    pub events: Vec<RecordedEvent>,
    /// The lock with these events applied; `None`: there are no events, and the lock does not change.
    pub folded: Option<Box<Lock>>,
    /// Writes as they are afterwards: new ones are inserted, known ones replaced. The lease of a prepared write starts
    /// with the save that prepares it.
    pub writes: Vec<Write>,
    /// The shadow's new version, if it is known.
    pub shadow_version: Option<ShadowVersion>,
    /// The record to store for a repeated request. It replaces a record of the same scope.
    pub idempotency: Option<Box<IdempotencyRecord>>,
    /// Anomalies that this decision found and that the writes did not have before. They are also in `writes`; this list is for
    /// logs and metrics, and a store ignores it.
    pub new_anomalies: Vec<(WriteId, Anomaly)>,
}
