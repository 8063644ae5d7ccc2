//! The state of the model, and the invariants that hold in each state.

use std::collections::{BTreeMap, BTreeSet};

use keywright_domain::model::{
    Epoch, LockEvent, Revision, ShadowVersion, Timestamp, WriteId, WriteState,
};
use keywright_domain::{Attempt, Step, invariants};
use keywright_testkit::samples::NOW;

use crate::store::{Shadow, Store, limits};

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct State {
    pub(crate) store: Store,
    pub(crate) shadow: Shadow,
    pub(crate) messages: Vec<Message>,
    pub(crate) processes: [Process; 2],
    pub(crate) expiry: ExpiryState,
    pub(crate) audit: AuditState,
    /// The answers that clients got, by write.
    pub(crate) answers: BTreeMap<WriteId, Answer>,
    /// The writes that the lock has executed.
    pub(crate) executed: BTreeSet<WriteId>,
    /// Whether the time to live of all writes is over.
    pub(crate) expired: bool,
    pub(crate) foreign_updates: u8,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) enum Answer {
    /// 200.
    Ok,
    /// 502.
    NotUpdated,
    /// 504.
    Undecided,
}

/// An update in flight to the shadow.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct Message {
    pub(crate) put: Option<WriteId>,
    pub(crate) remove: Vec<WriteId>,
    pub(crate) clear: Vec<WriteId>,
    pub(crate) expected: Option<ShadowVersion>,
    /// Where the answer is expected. `None`: nothing waits for it any more, so the message is late.
    pub(crate) waiter: Option<Waiter>,
    /// The write that the message belongs to: a token that would be the same for the update of a write and its fence.
    pub(crate) write: Option<WriteId>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) enum Waiter {
    Process(usize),
    Expiry,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Process {
    Idle,
    /// The process has loaded the lock and decided, and prepares the write next.
    Decided {
        write: WriteId,
        loaded: Revision,
        supersedes: Vec<WriteId>,
    },
    Executing(Box<Execution>),
}

/// A process that executes the attempt of an intent.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Execution {
    pub(crate) write: WriteId,
    pub(crate) epoch: Epoch,
    pub(crate) attempt: Attempt,
    pub(crate) step: Step,
    pub(crate) supersedes: Vec<WriteId>,
    pub(crate) cleared: Vec<WriteId>,
    /// Whether an update or fence is sent and its answer has not arrived.
    pub(crate) waits: bool,
    /// Whether it is the attempt of a request, which answers a client, and not that of a recoverer.
    pub(crate) is_request: bool,
}

/// The expiry of an open write, which continues until the end is recorded.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) enum ExpiryState {
    Not,
    Loaded(WriteId, Revision),
    Read(WriteId, Revision, ShadowVersion),
    Waits(WriteId, Revision),
    Removed(WriteId, Revision, ShadowVersion),
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) enum AuditState {
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

    /// Messages are sorted, so that states that differ only in their order are one state.
    pub(crate) fn send(&mut self, message: Message) {
        self.messages.push(message);
        self.messages.sort_unstable();
    }

    /// The waiter no longer waits for an answer. Its messages in flight become late.
    pub(crate) fn detach(&mut self, waiter: Waiter) {
        for message in &mut self.messages {
            if message.waiter == Some(waiter) {
                message.waiter = None;
            }
        }
        self.messages.sort_unstable();
    }

    /// Whether nothing is in progress, and every result of the lock is recorded.
    pub(crate) fn is_at_rest(&self) -> bool {
        let idle = self.processes.iter().all(|p| *p == Process::Idle);
        let no_audit = matches!(self.audit, AuditState::Not | AuditState::Done);
        idle && no_audit
            && self.expiry == ExpiryState::Not
            && self.messages.is_empty()
            && self.store.prepared().is_none()
            && self.executed.iter().all(|id| self.is_settled(id))
    }

    pub(crate) fn is_settled(&self, id: &WriteId) -> bool {
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
            return Some("I1: a version is missing or repeated".into());
        }
        let count = |id: WriteId, counts: fn(&LockEvent) -> bool| {
            let own = store.events.iter().filter(|e| e.write == Some(id));
            own.filter(|e| counts(&e.event)).count()
        };
        for (id, write) in &store.writes {
            let requested = count(*id, |e| matches!(e, LockEvent::KeyWriteRequested(_)));
            let settled = count(*id, |e| matches!(e, LockEvent::KeyWriteConfirmed { .. }));
            if requested > 1 || settled > 1 {
                return Some(format!("I1, I6: {id} was requested or settled twice"));
            }
            if settled > requested {
                return Some(format!("I6: {id} is settled and was not requested"));
            }
            let executed = self.executed.contains(id);
            let sent = self.shadow.has_write(*id) || executed;
            if matches!(write.state, WriteState::Aborted { .. }) && (requested > 0 || sent) {
                return Some(format!(
                    "I2: {id} was aborted, and has an event or reached the shadow"
                ));
            }
            if executed && !self.is_settled(id) && !self.shadow.results.contains(id) {
                return Some(format!(
                    "I6: the lock executed {id}, and its result is lost"
                ));
            }
            if executed && matches!(write.state, WriteState::Expired { .. }) {
                return Some(format!("{id} expired after the lock had executed it"));
            }
            match self.answers.get(id) {
                Some(Answer::Ok) if requested == 0 => {
                    return Some(format!("I1: the 200 of {id} has no event"));
                }
                Some(Answer::NotUpdated) if requested > 0 || sent => {
                    return Some(format!("I2: {id} was answered 502 and reached the shadow"));
                }
                _ => {}
            }
        }
        if self.is_at_rest() {
            let (shadow, snapshot) = (self.shadow.snapshot(), store.snapshot());
            if let Err(violation) = invariants::i5_shadow(Some(&shadow), &snapshot) {
                return Some(violation.to_string());
            }
        }
        None
    }
}
