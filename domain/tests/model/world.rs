//! What may happen next, and within which bounds.

use std::collections::{BTreeMap, BTreeSet};

use keywright_domain::model::{Lock, Revision, ShadowVersion, WriteId};
use keywright_testkit::samples::{created, lock_id};
use stateright::{Model, Property};

use crate::state::{Auditing, Expiring, Process, State, Waiter};
use crate::store::{Shadow, Store};
use crate::variant::Variant;

/// How far the search goes.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Bounds {
    /// Writes that clients ask for, at one index.
    writes: u8,
    /// Messages under way at once.
    pub(crate) messages: usize,
    /// Owners of one intent, one after the other.
    pub(crate) epochs: u64,
    /// Whether the time to live may end.
    expiry: bool,
    /// Whether somebody audits.
    audit: bool,
    /// How often a stranger moves the shadow's version.
    strangers: u8,
    /// The shadow's version at the end.
    version: u64,
}

impl Bounds {
    pub(crate) const FOR_THE_PROTOCOL: Self = Self {
        writes: 2,
        messages: 2,
        epochs: 3,
        expiry: true,
        audit: true,
        strangers: 1,
        version: 7,
    };
    pub(crate) const FOR_MAINTENANCE: Self = Self {
        writes: 1,
        epochs: 2,
        strangers: 0,
        version: 5,
        ..Self::FOR_THE_PROTOCOL
    };
}

pub(crate) struct World {
    pub(crate) variant: Variant,
    pub(crate) bounds: Bounds,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Action {
    Ask(usize, WriteId),
    Prepare(usize),
    Go(usize),
    TimeOut(usize),
    GiveUp(usize),
    TakeOver(usize),
    Deliver(usize, WriteOutcome),
    LockDoes(WriteId),
    Report(WriteId),
    TimeIsOver,
    Expire(WriteId),
    GoOnExpiring,
    ExpiryTimesOut,
    Audit,
    GoOnAuditing,
    StrangerComes,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum WriteOutcome {
    Answered,
    AnswerLost,
    Refused,
    Lost,
}

impl World {
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
            Action::Ask(process, id) => Self::ask(state, process, id),
            Action::Prepare(process) => self.prepare(state, process),
            Action::Go(process) => self.go(state, process),
            Action::TimeOut(process) => self.time_out(state, process),
            Action::GiveUp(process) => Self::give_up(state, process),
            Action::TakeOver(process) => self.take_over(state, process),
            Action::Deliver(at, fate) => self.deliver(state, at, fate),
            Action::LockDoes(id) => Self::lock_does(state, id),
            Action::Report(id) => {
                let now = state.now();
                state.store.settle(id, now);
                Some(())
            }
            Action::TimeIsOver => {
                state.expired = true;
                Some(())
            }
            Action::Expire(id) => {
                state.expiring = Self::load_for_expiry(state, id);
                Some(())
            }
            Action::GoOnExpiring => self.go_on_expiring(state),
            Action::ExpiryTimesOut => {
                let Expiring::Waits(id, _) = state.expiring else {
                    return None;
                };
                state.orphan(Waiter::Expiry);
                state.expiring = Self::load_for_expiry(state, id);
                Some(())
            }
            Action::Audit => {
                state.auditing = match self.variant {
                    Variant::AuditReadsTheStoreFirst => {
                        Auditing::StoreRead(Box::new(state.store.clone()))
                    }
                    _ => Auditing::ShadowRead(Box::new(state.shadow.clone())),
                };
                Some(())
            }
            Action::GoOnAuditing => self.go_on_auditing(state),
            Action::StrangerComes => {
                state.shadow.version = state.shadow.version.next();
                state.strangers += 1;
                Some(())
            }
        }
    }
}

impl Model for World {
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
            expiring: Expiring::Not,
            auditing: Auditing::Not,
            told: BTreeMap::new(),
            done: BTreeSet::new(),
            expired: false,
            strangers: 0,
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
                    actions.extend(next.map(|id| Action::Ask(process, id)));
                    actions.push(Action::TakeOver(process));
                }
                Process::Decided { .. } => actions.push(Action::Prepare(process)),
                Process::Driving(driving) if driving.waits => {
                    actions.extend([Action::TimeOut(process), Action::GiveUp(process)]);
                }
                Process::Driving(_) => {
                    actions.extend([Action::Go(process), Action::GiveUp(process)]);
                }
            }
        }
        for (at, message) in state.messages.iter().enumerate() {
            actions.push(Action::Deliver(at, WriteOutcome::AnswerLost));
            actions.push(Action::Deliver(at, WriteOutcome::Lost));
            if message.to.is_some() || self.is(Variant::OneTokenForUpdateAndFence) {
                actions.push(Action::Deliver(at, WriteOutcome::Answered));
            }
            if message.to.is_some() {
                actions.push(Action::Deliver(at, WriteOutcome::Refused));
            }
        }
        actions.extend(state.shadow.entries.iter().map(|id| Action::LockDoes(*id)));
        actions.extend(state.shadow.results.iter().map(|id| Action::Report(*id)));
        if self.bounds.expiry && !state.expired {
            actions.push(Action::TimeIsOver);
        }
        if state.expired && state.expiring == Expiring::Not {
            let open = state.store.writes.values().filter(|w| w.is_open());
            actions.extend(open.map(|w| Action::Expire(w.id)));
        }
        match state.expiring {
            Expiring::Not => {}
            Expiring::Waits(..) => actions.push(Action::ExpiryTimesOut),
            _ => actions.push(Action::GoOnExpiring),
        }
        match state.auditing {
            Auditing::Not if self.bounds.audit => actions.push(Action::Audit),
            Auditing::Not | Auditing::Done => {}
            _ => actions.push(Action::GoOnAuditing),
        }
        if state.strangers < self.bounds.strangers {
            actions.push(Action::StrangerComes);
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
