//! The actions of the model, and the bounds of a search.

use std::collections::{BTreeMap, BTreeSet};

use keywright_domain::model::{Lock, Revision, ShadowVersion, WriteId};
use keywright_testkit::samples::{created, lock_id};
use stateright::{Model, Property};

use crate::state::{AuditState, ExpiryState, Process, State, Waiter};
use crate::store::{Shadow, Store};
use crate::variant::Variant;

/// The bounds of a search.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Bounds {
    /// The number of writes that clients request, all for the same key index.
    writes: u8,
    /// The maximum number of messages in flight.
    pub(crate) messages: usize,
    /// The highest epoch of an intent.
    pub(crate) epochs: u64,
    /// Whether the time to live can end.
    expiry: bool,
    /// Whether an audit runs.
    audit: bool,
    /// The maximum number of updates of the shadow by another client.
    foreign_updates: u8,
    /// The highest version of the shadow.
    version: u64,
}

impl Bounds {
    pub(crate) const PROTOCOL: Self = Self {
        writes: 2,
        messages: 2,
        epochs: 3,
        expiry: true,
        audit: true,
        foreign_updates: 1,
        version: 7,
    };
    pub(crate) const MAINTENANCE: Self = Self {
        writes: 1,
        epochs: 2,
        foreign_updates: 0,
        version: 5,
        ..Self::PROTOCOL
    };
}

/// The model of one variant of the protocol, within bounds.
pub(crate) struct ProtocolModel {
    pub(crate) variant: Variant,
    pub(crate) bounds: Bounds,
}

/// What can happen next. The numbers are those of processes and of messages.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Action {
    Request(usize, WriteId),
    Prepare(usize),
    Proceed(usize),
    TimeOut(usize),
    GiveUp(usize),
    TakeOver(usize),
    Deliver(usize, Delivery),
    LockExecutes(WriteId),
    Report(WriteId),
    TimeToLiveEnds,
    Expire(WriteId),
    ContinueExpiry,
    ExpiryTimeout,
    Audit,
    ContinueAudit,
    ForeignUpdate,
}

/// What happens to a message and its answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Delivery {
    /// The shadow receives the message, and its answer arrives.
    Answered,
    /// The shadow receives the message, and its answer is lost.
    AnswerLost,
    /// The shadow service refuses the message.
    Refused,
    /// The message is lost.
    Lost,
}

impl ProtocolModel {
    pub(crate) const HOLDS: &'static str = "the invariants hold";

    pub(crate) const fn new(variant: Variant, bounds: Bounds) -> Self {
        Self { variant, bounds }
    }

    pub(crate) fn is(&self, variant: Variant) -> bool {
        self.variant == variant
    }

    fn ids(&self) -> impl Iterator<Item = WriteId> {
        (1..=u128::from(self.bounds.writes)).map(WriteId::from_u128)
    }

    fn act(&self, state: &mut State, action: Action) -> Option<()> {
        match action {
            Action::Request(process, id) => Self::request(state, process, id),
            Action::Prepare(process) => self.prepare(state, process),
            Action::Proceed(process) => self.proceed(state, process),
            Action::TimeOut(process) => self.time_out(state, process),
            Action::GiveUp(process) => Self::give_up(state, process),
            Action::TakeOver(process) => self.take_over(state, process),
            Action::Deliver(at, delivery) => self.deliver(state, at, delivery),
            Action::LockExecutes(id) => Self::lock_executes(state, id),
            Action::Report(id) => {
                let now = state.now();
                state.store.settle(id, now);
                Some(())
            }
            Action::TimeToLiveEnds => {
                state.expired = true;
                Some(())
            }
            Action::Expire(id) => {
                state.expiry = Self::load_for_expiry(state, id);
                Some(())
            }
            Action::ContinueExpiry => self.continue_expiry(state),
            Action::ExpiryTimeout => {
                let ExpiryState::Waits(id, _) = state.expiry else {
                    return None;
                };
                state.detach(Waiter::Expiry);
                state.expiry = Self::load_for_expiry(state, id);
                Some(())
            }
            Action::Audit => {
                state.audit = match self.variant {
                    Variant::AuditReadsStoreFirst => {
                        AuditState::StoreRead(Box::new(state.store.clone()))
                    }
                    _ => AuditState::ShadowRead(Box::new(state.shadow.clone())),
                };
                Some(())
            }
            Action::ContinueAudit => self.continue_audit(state),
            Action::ForeignUpdate => {
                state.shadow.version = state.shadow.version.next();
                state.foreign_updates += 1;
                Some(())
            }
        }
    }
}

impl Model for ProtocolModel {
    type State = State;
    type Action = Action;

    fn init_states(&self) -> Vec<State> {
        let first = created(lock_id(1));
        let version = ShadowVersion(1);
        let store = Store {
            lock: Lock::create(&first).expect("a lock"),
            revision: Revision(1),
            shadow_version: Some(version),
            writes: BTreeMap::new(),
            events: vec![first],
        };
        vec![State {
            store,
            shadow: Shadow {
                version,
                entries: BTreeSet::new(),
                results: BTreeSet::new(),
            },
            messages: Vec::new(),
            processes: [Process::Idle, Process::Idle],
            expiry: ExpiryState::Not,
            audit: AuditState::Not,
            answers: BTreeMap::new(),
            executed: BTreeSet::new(),
            expired: false,
            foreign_updates: 0,
        }]
    }

    fn actions(&self, state: &State, actions: &mut Vec<Action>) {
        for process in 0..state.processes.len() {
            match &state.processes[process] {
                Process::Idle => {
                    let asked = |id: &WriteId| {
                        let decided = |p: &Process| matches!(p, Process::Decided { write, .. } if write == id);
                        state.store.writes.contains_key(id) || state.processes.iter().any(decided)
                    };
                    let next = self.ids().filter(|id| !asked(id) && !state.expired);
                    actions.extend(next.map(|id| Action::Request(process, id)));
                    actions.push(Action::TakeOver(process));
                }
                Process::Decided { .. } => actions.push(Action::Prepare(process)),
                Process::Executing(execution) if execution.waits => {
                    actions.extend([Action::TimeOut(process), Action::GiveUp(process)]);
                }
                Process::Executing(_) => {
                    actions.extend([Action::Proceed(process), Action::GiveUp(process)]);
                }
            }
        }
        for (at, message) in state.messages.iter().enumerate() {
            actions.push(Action::Deliver(at, Delivery::AnswerLost));
            actions.push(Action::Deliver(at, Delivery::Lost));
            if message.waiter.is_some() || self.is(Variant::SameTokenForUpdateAndFence) {
                actions.push(Action::Deliver(at, Delivery::Answered));
            }
            if message.waiter.is_some() {
                actions.push(Action::Deliver(at, Delivery::Refused));
            }
        }
        actions.extend(
            state
                .shadow
                .entries
                .iter()
                .map(|id| Action::LockExecutes(*id)),
        );
        actions.extend(state.shadow.results.iter().map(|id| Action::Report(*id)));
        if self.bounds.expiry && !state.expired {
            actions.push(Action::TimeToLiveEnds);
        }
        if state.expired && state.expiry == ExpiryState::Not {
            let open = state.store.writes.values().filter(|w| w.is_open());
            actions.extend(open.map(|w| Action::Expire(w.id)));
        }
        match state.expiry {
            ExpiryState::Not => {}
            ExpiryState::Waits(..) => actions.push(Action::ExpiryTimeout),
            _ => actions.push(Action::ContinueExpiry),
        }
        match state.audit {
            AuditState::Not if self.bounds.audit => actions.push(Action::Audit),
            AuditState::Not | AuditState::Done => {}
            _ => actions.push(Action::ContinueAudit),
        }
        if state.foreign_updates < self.bounds.foreign_updates {
            actions.push(Action::ForeignUpdate);
        }
    }

    fn next_state(&self, last: &State, action: Action) -> Option<State> {
        let mut next = last.clone();
        self.act(&mut next, action)?;
        (next != *last).then_some(next)
    }

    fn within_boundary(&self, state: &State) -> bool {
        state.shadow.version.0 <= self.bounds.version
    }

    fn properties(&self) -> Vec<Property<Self>> {
        vec![Property::always(Self::HOLDS, |_, state: &State| {
            state.violation().is_none()
        })]
    }
}
