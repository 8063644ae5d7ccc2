//! The store and the shadow of the model, which do what the contracts of the ports require.

use std::collections::{BTreeMap, BTreeSet};

use keywright_domain::model::{
    DeviceOutcome, DeviceResult, Lock, LockSnapshot, RecordedEvent, ReportedSlot, Revision, Save,
    ShadowSnapshot, ShadowVersion, Timestamp, Write, WriteId,
};
use keywright_domain::policy;
use keywright_domain::policy::{Limits, ReportDecision, ReportedResult};
use keywright_testkit::samples::{lock_id, thing};

use crate::state::Message;

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Store {
    pub(crate) lock: Lock,
    pub(crate) revision: Revision,
    pub(crate) shadow_version: Option<ShadowVersion>,
    pub(crate) writes: BTreeMap<WriteId, Write>,
    pub(crate) events: Vec<RecordedEvent>,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Shadow {
    pub(crate) version: ShadowVersion,
    pub(crate) entries: BTreeSet<WriteId>,
    pub(crate) results: BTreeSet<WriteId>,
}

pub(crate) fn limits() -> Limits {
    Limits::default()
}

impl Store {
    pub(crate) fn snapshot(&self) -> LockSnapshot {
        let mut unfinished: Vec<Write> = self
            .writes
            .values()
            .filter(|w| w.is_open() || w.intent().is_some())
            .cloned()
            .collect();
        unfinished.sort_by_key(|w| w.seq);
        let uncleared = self.writes.values().filter(|w| w.has_uncleared_result());
        LockSnapshot {
            lock: self.lock.clone(),
            revision: self.revision,
            shadow_version: self.shadow_version,
            unfinished,
            uncleared: uncleared.cloned().collect(),
        }
    }

    /// Applies a save. Returns whether it was applied; otherwise it was stale.
    pub(crate) fn save(&mut self, save: Save) -> bool {
        if save.revision != self.revision {
            return false;
        }
        self.revision = self.revision.next();
        if let Some(folded) = save.folded {
            self.lock = *folded;
        }
        self.shadow_version = save.shadow_version.or(self.shadow_version);
        self.events.extend(save.events);
        for write in save.writes {
            self.writes.insert(write.id, write);
        }
        true
    }

    /// Settles the success that the lock has reported for the write.
    pub(crate) fn settle(&mut self, id: WriteId, now: Timestamp) {
        let snapshot = self.snapshot();
        let outcome = succeeded();
        let write = self.writes.get(&id);
        let reported = ReportedResult {
            thing: &thing(lock_id(1)),
            shadow_version: None,
            outcome: &outcome,
            entry_remains: false,
        };
        let decision = policy::decide_report(&snapshot, write, &reported, &limits(), now);
        if let ReportDecision::Record(_, save) = decision {
            self.save(save);
        }
    }

    pub(crate) fn prepared(&self) -> Option<&Write> {
        self.writes.values().find(|w| w.intent().is_some())
    }
}

const fn succeeded() -> DeviceOutcome {
    DeviceOutcome::Succeeded {
        slot: ReportedSlot::Missing,
    }
}

impl Shadow {
    pub(crate) fn has_write(&self, id: WriteId) -> bool {
        self.entries.contains(&id) || self.results.contains(&id)
    }

    /// Applies an update. Returns whether it was applied; otherwise the version was another one.
    pub(crate) fn update(&mut self, message: &Message) -> bool {
        if message.expected.is_some_and(|v| v != self.version) {
            return false;
        }
        self.version = self.version.next();
        self.entries.extend(message.put);
        self.entries.retain(|id| !message.remove.contains(id));
        self.results.retain(|id| !message.clear.contains(id));
        true
    }

    pub(crate) fn snapshot(&self) -> ShadowSnapshot {
        let result = |write: &WriteId| DeviceResult {
            write: *write,
            outcome: succeeded(),
        };
        ShadowSnapshot {
            version: self.version,
            entries: self.entries.iter().copied().collect(),
            results: self.results.iter().map(result).collect(),
        }
    }
}
