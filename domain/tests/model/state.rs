//! All that there is at one moment, and what must not be.

use std::collections::{BTreeMap, BTreeSet};

use keywright_domain::model::{
    Epoch, LockEvent, Revision, ShadowVersion, Timestamp, WriteId, WriteState,
};
use keywright_domain::{Attempt, Step, invariants as holds};
use keywright_testkit::samples::NOW;

use crate::store::{Shadow, Store, limits};

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct State {
    pub(crate) store: Store,
    pub(crate) shadow: Shadow,
    pub(crate) messages: Vec<Message>,
    pub(crate) processes: [Process; 2],
    pub(crate) expiring: Expiring,
    pub(crate) auditing: Auditing,
    /// What clients were told, by the write.
    pub(crate) told: BTreeMap<WriteId, Told>,
    /// What the lock did.
    pub(crate) done: BTreeSet<WriteId>,
    pub(crate) expired: bool,
    pub(crate) strangers: u8,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) enum Told {
    WriteReceipt,
    NotUpdated,
    Undecided,
}

/// An update on its way to the shadow, and who waits for its answer; nobody: it is late.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct Message {
    pub(crate) put: Option<WriteId>,
    pub(crate) remove: Vec<WriteId>,
    pub(crate) clear: Vec<WriteId>,
    pub(crate) expected: Option<ShadowVersion>,
    pub(crate) to: Option<Waiter>,
    /// Whose it is, by the write: what a token would say that is the same for a write's update and its fence.
    pub(crate) of: Option<WriteId>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) enum Waiter {
    Process(usize),
    Expiry,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Process {
    Idle,
    /// Loaded and decided, and about to prepare.
    Decided {
        write: WriteId,
        seen: Revision,
        supersedes: Vec<WriteId>,
    },
    Driving(Box<Driving>),
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Driving {
    pub(crate) write: WriteId,
    pub(crate) epoch: Epoch,
    pub(crate) attempt: Attempt,
    pub(crate) step: Step,
    pub(crate) supersedes: Vec<WriteId>,
    pub(crate) cleared: Vec<WriteId>,
    /// An update or fence is sent, and its answer has not come.
    pub(crate) waits: bool,
    /// The request's own attempt answers a client.
    pub(crate) answers: bool,
}

/// Somebody ends the open write whose time is over, and goes on until that is recorded.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Expiring {
    Not,
    Loaded(WriteId, Revision),
    Read(WriteId, Revision, ShadowVersion),
    Waits(WriteId, Revision),
    Removed(WriteId, Revision, ShadowVersion),
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Auditing {
    Not,
    ShadowRead(Box<Shadow>),
    StoreRead(Box<Store>),
    Done,
}

impl State {
    pub(crate) fn now(&self) -> Timestamp {
        match self.expired {
            true => NOW.after(limits().time_to_live),
            false => NOW,
        }
    }

    pub(crate) fn send(&mut self, message: Message) {
        self.messages.push(message);
        self.messages.sort_unstable();
    }

    /// Whoever waited does so no longer; what is under way is late.
    pub(crate) fn orphan(&mut self, waiter: Waiter) {
        for message in &mut self.messages {
            if message.to == Some(waiter) {
                message.to = None;
            }
        }
        self.messages.sort_unstable();
    }

    /// Nothing is under way, and all that the lock has said was heard.
    pub(crate) fn is_at_rest(&self) -> bool {
        let idle = self.processes.iter().all(|p| *p == Process::Idle);
        let audits = matches!(self.auditing, Auditing::Not | Auditing::Done);
        let calm = self.messages.is_empty() && audits && self.expiring == Expiring::Not;
        idle && calm
            && self.store.prepared().is_none()
            && self.done.iter().all(|id| self.is_heard(id))
    }

    pub(crate) fn is_heard(&self, id: &WriteId) -> bool {
        self.store.writes[id].is_settled_by_lock()
    }

    pub(crate) fn violation(&self) -> Option<String> {
        let store = &self.store;
        let intents = store.writes.values().filter(|w| w.intent().is_some());
        if intents.count() > 1 {
            return Some("two intents are open".into());
        }
        let versions = store.events.iter().map(|e| e.version.0);
        if !versions.eq(1..=store.events.len() as u64) {
            return Some("I1: versions have a gap or a twin".into());
        }
        let counted = |id: WriteId, counts: fn(&LockEvent) -> bool| {
            let own = store.events.iter().filter(|e| e.write == Some(id));
            own.filter(|e| counts(&e.event)).count()
        };
        for (id, write) in &store.writes {
            let requested = counted(*id, |e| matches!(e, LockEvent::KeyWriteRequested(_)));
            let settled = counted(*id, |e| matches!(e, LockEvent::KeyWriteConfirmed { .. }));
            if requested > 1 || settled > 1 {
                return Some(format!("I1, I6: {id} was requested or settled twice"));
            }
            if settled > requested {
                return Some(format!("I6: {id} is settled and was not requested"));
            }
            let reached = self.shadow.knows(*id) || self.done.contains(id);
            if matches!(write.state, WriteState::Aborted { .. }) && (requested > 0 || reached) {
                return Some(format!(
                    "I2: {id} was aborted, and has an event or is there"
                ));
            }
            let done = self.done.contains(id);
            if done && !self.is_heard(id) && !self.shadow.results.contains(id) {
                return Some(format!("I6: the lock did {id}, and nobody will ever know"));
            }
            if done && matches!(write.state, WriteState::Expired { .. }) {
                return Some(format!(
                    "{id} is said to have expired, and the lock had done it"
                ));
            }
            match self.told.get(id) {
                Some(Told::WriteReceipt) if requested == 0 => {
                    return Some(format!("I1: the 200 of {id} has no event"));
                }
                Some(Told::NotUpdated) if requested > 0 || reached => {
                    return Some(format!("I2: the 502 of {id} is none"));
                }
                _ => {}
            }
        }
        if self.is_at_rest() {
            let (shadow, snapshot) = (self.shadow.snapshot(), store.snapshot());
            if let Err(violation) = holds::i5_shadow(Some(&shadow), &snapshot) {
                return Some(violation.to_string());
            }
        }
        None
    }
}
