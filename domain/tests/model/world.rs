use std::collections::{BTreeMap, BTreeSet};

use keywright_domain::event::{LockEvent, RecordedEvent};
use keywright_domain::invariants as holds;
use keywright_domain::lock::{Lock, LockSnapshot};
use keywright_domain::ports::{DeviceOutcome, DeviceResult, Save, ShadowSnapshot};
use keywright_domain::reason::FailureReason;
use keywright_domain::rules::{self, Decision, Ending, Finding, Limits, ReportDecision, WriteKey};
use keywright_domain::values::{Epoch, Revision, ShadowVersion, Timestamp, WriteId};
use keywright_domain::write::{Intent, Owner, Write, WriteState};
use keywright_domain::{Attempt, Observed, Step};
use keywright_testkit::samples::{LEASE, NOW, created, lock_id, principal, slot, thing};
use stateright::{Model, Property};

use crate::variant::Variant;

/// How far the search goes.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Bounds {
    /// Writes that clients ask for, at one index.
    writes: u8,
    /// Messages under way at once.
    messages: usize,
    /// Owners of one intent, one after the other.
    epochs: u64,
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
    variant: Variant,
    bounds: Bounds,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct State {
    store: Store,
    shadow: Shadow,
    messages: Vec<Message>,
    processes: [Process; 2],
    expiring: Expiring,
    auditing: Auditing,
    /// What clients were told, by the write.
    told: BTreeMap<WriteId, Told>,
    /// What the lock did.
    done: BTreeSet<WriteId>,
    expired: bool,
    strangers: u8,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Store {
    lock: Lock,
    revision: Revision,
    shadow_version: Option<ShadowVersion>,
    writes: BTreeMap<WriteId, Write>,
    events: Vec<RecordedEvent>,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Shadow {
    version: ShadowVersion,
    entries: BTreeSet<WriteId>,
    results: BTreeSet<WriteId>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
enum Told {
    Written,
    NotUpdated,
    Undecided,
}

/// An update on its way to the shadow, and who waits for its answer; nobody: it is late.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
struct Message {
    put: Option<WriteId>,
    remove: Vec<WriteId>,
    clear: Vec<WriteId>,
    expected: Option<ShadowVersion>,
    to: Option<Waiter>,
    /// Whose it is, by the write: what a token would say that is the same for a write's update and its fence.
    of: Option<WriteId>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
enum Waiter {
    Process(usize),
    Expiry,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Process {
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
struct Driving {
    write: WriteId,
    epoch: Epoch,
    attempt: Attempt,
    step: Step,
    supersedes: Vec<WriteId>,
    cleared: Vec<WriteId>,
    /// An update or fence is sent, and its answer has not come.
    waits: bool,
    /// The request's own attempt answers a client.
    answers: bool,
}

/// Somebody ends the open write whose time is over, and goes on until that is recorded.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Expiring {
    Not,
    Loaded(WriteId, Revision),
    Read(WriteId, Revision, ShadowVersion),
    Waits(WriteId, Revision),
    Removed(WriteId, Revision, ShadowVersion),
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Auditing {
    Not,
    ShadowRead(Box<Shadow>),
    StoreRead(Box<Store>),
    Done,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Action {
    Ask(usize, WriteId),
    Prepare(usize),
    Go(usize),
    TimeOut(usize),
    GiveUp(usize),
    TakeOver(usize),
    Deliver(usize, Fate),
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
pub(crate) enum Fate {
    Answered,
    AnswerLost,
    Refused,
    Lost,
}

fn limits() -> Limits {
    Limits::default()
}

impl Store {
    fn snapshot(&self) -> LockSnapshot {
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

    /// The contract of a save.
    fn save(&mut self, save: Save) -> bool {
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

    fn settle(&mut self, id: WriteId, now: Timestamp) {
        let snapshot = self.snapshot();
        let outcome = DeviceOutcome::Succeeded { index: None };
        let write = self.writes.get(&id);
        let from = thing(lock_id(1));
        let decision =
            rules::decide_report(&snapshot, write, &from, None, &outcome, &limits(), now);
        if let ReportDecision::Record(_, save) = decision {
            self.save(save);
        }
    }

    fn prepared(&self) -> Option<&Write> {
        self.writes.values().find(|w| w.intent().is_some())
    }
}

impl Shadow {
    fn knows(&self, id: WriteId) -> bool {
        self.entries.contains(&id) || self.results.contains(&id)
    }

    /// Whether the update is taken.
    fn take(&mut self, message: &Message) -> bool {
        if message.expected.is_some_and(|v| v != self.version) {
            return false;
        }
        self.version = self.version.next();
        self.entries.extend(message.put);
        self.entries.retain(|id| !message.remove.contains(id));
        self.results.retain(|id| !message.clear.contains(id));
        true
    }

    fn snapshot(&self) -> ShadowSnapshot {
        let result = |write: &WriteId| DeviceResult {
            write: *write,
            outcome: DeviceOutcome::Succeeded { index: None },
        };
        ShadowSnapshot {
            version: self.version,
            entries: self.entries.iter().copied().collect(),
            results: self.results.iter().map(result).collect(),
        }
    }
}

impl State {
    fn now(&self) -> Timestamp {
        match self.expired {
            true => NOW.after(limits().time_to_live),
            false => NOW,
        }
    }

    fn send(&mut self, message: Message) {
        self.messages.push(message);
        self.messages.sort_unstable();
    }

    /// Whoever waited does so no longer; what is under way is late.
    fn orphan(&mut self, waiter: Waiter) {
        for message in &mut self.messages {
            if message.to == Some(waiter) {
                message.to = None;
            }
        }
        self.messages.sort_unstable();
    }

    /// Nothing is under way, and all that the lock has said was heard.
    fn is_at_rest(&self) -> bool {
        let idle = self.processes.iter().all(|p| *p == Process::Idle);
        let audits = matches!(self.auditing, Auditing::Not | Auditing::Done);
        let calm = self.messages.is_empty() && audits && self.expiring == Expiring::Not;
        idle && calm
            && self.store.prepared().is_none()
            && self.done.iter().all(|id| self.is_heard(id))
    }

    fn is_heard(&self, id: &WriteId) -> bool {
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
                Some(Told::Written) if requested == 0 => {
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

impl World {
    pub(crate) const HOLDS: &'static str = "the invariants hold";

    pub(crate) const fn new(variant: Variant, bounds: Bounds) -> Self {
        Self { variant, bounds }
    }

    fn is(&self, variant: Variant) -> bool {
        self.variant == variant
    }

    fn ids(&self) -> impl Iterator<Item = WriteId> {
        (1..=u128::from(self.bounds.writes)).map(WriteId::from_u128)
    }

    fn command(id: WriteId) -> WriteKey {
        WriteKey {
            lock: lock_id(1),
            slot: slot(&format!("key-{}", id.as_u128()), Some(1)),
        }
    }

    /// Steps 0 and 1.
    fn ask(state: &mut State, process: usize, id: WriteId) -> Option<()> {
        let (snapshot, command) = (state.store.snapshot(), Self::command(id));
        let decision = rules::decide(
            Some(&snapshot),
            &command,
            &principal(),
            &limits(),
            state.now(),
        );
        let Ok(Decision::Write(permitted)) = decision else {
            return None;
        };
        // Another's intent is waited for.
        if snapshot.prepared().is_some() {
            return None;
        }
        state.processes[process] = Process::Decided {
            write: id,
            seen: snapshot.revision,
            supersedes: permitted.supersedes,
        };
        Some(())
    }

    /// Step 2.
    fn prepare(&self, state: &mut State, process: usize) -> Option<()> {
        let Process::Decided {
            write,
            seen,
            supersedes,
        } = state.processes[process].clone()
        else {
            return None;
        };
        state.processes[process] = Process::Idle;
        let snapshot = state.store.snapshot();
        if seen != snapshot.revision && !self.is(Variant::DecideBeforeTheTurn) {
            // Load and decide again.
            return Some(());
        }
        let permitted = rules::Permitted {
            thing: thing(lock_id(1)),
            supersedes: supersedes.clone(),
        };
        let intent = Intent {
            owner: Owner(7),
            epoch: Epoch(1),
            lease: LEASE,
        };
        let blind = LockSnapshot {
            unfinished: Vec::new(),
            ..snapshot.clone()
        };
        let (prepared, save) = rules::prepare(
            &blind,
            &Self::command(write),
            &permitted,
            &principal(),
            (write, intent),
            &limits(),
            state.now(),
        );
        state.store.save(save);
        let version = snapshot.shadow_version.expect("it was seen");
        let (attempt, step) = Attempt::of_request(version);
        state.processes[process] = Process::Driving(Box::new(Driving {
            write: prepared.id,
            epoch: Epoch(1),
            attempt,
            step,
            supersedes,
            cleared: snapshot.uncleared.iter().map(|w| w.id).collect(),
            waits: false,
            answers: true,
        }));
        Some(())
    }

    /// The next step of whoever drives an intent.
    fn go(&self, state: &mut State, process: usize) -> Option<()> {
        let Process::Driving(mut driving) = state.processes[process].clone() else {
            return None;
        };
        if driving.waits {
            return None;
        }
        let id = driving.write;
        let owned = state.store.writes[&id].intent().map(|i| i.epoch) == Some(driving.epoch);
        let owned =
            owned || self.is(Variant::NoEpochCheck) && state.store.writes[&id].intent().is_some();
        let observed = match driving.step.clone() {
            Step::Send(version) => {
                let expected = match self.variant {
                    Variant::NoVersionInTheUpdate => None,
                    Variant::VersionReadAfterTheOwnershipCheck => Some(state.shadow.version),
                    _ => Some(version),
                };
                return self.dispatch(state, process, driving, Some(id), expected);
            }
            Step::Fence(version) => {
                if self.is(Variant::NoFence) {
                    Observed::Accepted(version)
                } else {
                    return self.dispatch(state, process, driving, None, Some(version));
                }
            }
            Step::Read => {
                let present = state.shadow.knows(id);
                let now = state.now();
                for result in state.shadow.results.clone() {
                    state.store.settle(result, now);
                }
                let version = state.shadow.version;
                Observed::Seen { version, present }
            }
            Step::CheckOwnership if owned => Observed::Ours,
            Step::CheckOwnership => Observed::NotOurs,
            Step::Pause => Observed::Rested,
            // A shadow is never missing here.
            Step::Create => return None,
            Step::Commit(version) if owned => {
                let snapshot = state.store.snapshot();
                let prepared = state.store.writes[&id].clone();
                let (limits, now) = (limits(), state.now());
                let cleared = &driving.cleared;
                let (_, save) = rules::commit(&snapshot, &prepared, version, cleared, &limits, now);
                state.store.save(save);
                return self.close(state, process, &driving);
            }
            Step::Abort(reason, version) if owned => {
                let snapshot = state.store.snapshot();
                let prepared = state.store.writes[&id].clone();
                let save = rules::abort(&snapshot, &prepared, &reason, version, state.now());
                state.store.save(save);
                return self.close(state, process, &driving);
            }
            Step::Commit(_) | Step::Abort(..) | Step::ReadFate => {
                return self.close(state, process, &driving);
            }
        };
        driving.step = driving.attempt.next(observed);
        state.processes[process] = Process::Driving(driving);
        Some(())
    }

    fn dispatch(
        &self,
        state: &mut State,
        process: usize,
        mut driving: Box<Driving>,
        put: Option<WriteId>,
        expected: Option<ShadowVersion>,
    ) -> Option<()> {
        if state.messages.len() >= self.bounds.messages {
            return None;
        }
        let (remove, clear) = match put {
            Some(_) => (driving.supersedes.clone(), driving.cleared.clone()),
            None => (Vec::new(), Vec::new()),
        };
        state.send(Message {
            put,
            remove,
            clear,
            expected,
            to: Some(Waiter::Process(process)),
            of: Some(driving.write),
        });
        driving.waits = true;
        state.processes[process] = Process::Driving(driving);
        Some(())
    }

    /// The intent is closed, by whomever: the client is told what became of it. `None`: it is somebody else's and open.
    fn close(&self, state: &mut State, process: usize, driving: &Driving) -> Option<()> {
        let write = &state.store.writes[&driving.write];
        let told = match &write.state {
            WriteState::Prepared(_) => return None,
            WriteState::Aborted { .. } => Told::NotUpdated,
            _ => Told::Written,
        };
        if driving.answers {
            state.told.insert(driving.write, told);
        }
        state.processes[process] = Process::Idle;
        Some(())
    }

    fn observe(&self, state: &mut State, process: usize, observed: Observed) {
        let Process::Driving(driving) = &mut state.processes[process] else {
            return;
        };
        driving.waits = false;
        let refused = matches!(observed, Observed::NotApplied(_));
        let unknown = observed == Observed::Unknown;
        let gives_up = self.is(Variant::RefusedAtOnceOnATimeout) && unknown
            || self.is(Variant::RefusalTrustedAfterAnUnknownAttempt) && refused;
        driving.step = match gives_up && matches!(driving.step, Step::Send(_)) {
            true => Step::Abort(FailureReason::Unavailable, None),
            false => driving.attempt.next(observed),
        };
    }

    fn time_out(&self, state: &mut State, process: usize) -> Option<()> {
        let Process::Driving(driving) = &state.processes[process] else {
            return None;
        };
        if !driving.waits {
            return None;
        }
        state.orphan(Waiter::Process(process));
        self.observe(state, process, Observed::Unknown);
        Some(())
    }

    /// A client's time is over, or a process dies; a take-over finds the intent.
    fn give_up(state: &mut State, process: usize) -> Option<()> {
        let Process::Driving(driving) = &state.processes[process] else {
            return None;
        };
        if driving.answers {
            state.told.insert(driving.write, Told::Undecided);
        }
        state.orphan(Waiter::Process(process));
        state.processes[process] = Process::Idle;
        Some(())
    }

    /// Step 8. A lease may end at any moment: whoever has it may have stopped, and goes on later.
    fn take_over(&self, state: &mut State, process: usize) -> Option<()> {
        if state.processes[process] != Process::Idle {
            return None;
        }
        let mut write = state.store.prepared()?.clone();
        let intent = *write.intent()?;
        if intent.epoch.0 >= self.bounds.epochs {
            return None;
        }
        let epoch = intent.epoch.next();
        write.state = WriteState::Prepared(Intent { epoch, ..intent });
        let id = write.id;
        state.store.writes.insert(id, write);
        state.store.revision = state.store.revision.next();
        let (attempt, step) = Attempt::of_recoverer();
        state.processes[process] = Process::Driving(Box::new(Driving {
            write: id,
            epoch,
            attempt,
            step,
            supersedes: Vec::new(),
            cleared: Vec::new(),
            waits: false,
            answers: false,
        }));
        Some(())
    }

    fn deliver(&self, state: &mut State, at: usize, fate: Fate) -> Option<()> {
        let message = state.messages.get(at)?.clone();
        // Equal messages have equal fates.
        if at > 0 && state.messages[at - 1] == message {
            return None;
        }
        state.messages.remove(at);
        let answer = match fate {
            Fate::Lost => return Some(()),
            Fate::Refused => Observed::NotApplied(FailureReason::Throttled),
            Fate::Answered | Fate::AnswerLost => match state.shadow.take(&message) {
                true => Observed::Accepted(state.shadow.version),
                false => Observed::Conflict,
            },
        };
        if fate == Fate::AnswerLost {
            return Some(());
        }
        let to = match message.to {
            // A late answer passes for that of whoever waits with the same token.
            None if self.is(Variant::OneTokenForUpdateAndFence) => {
                self.who_waits(state, message.of)
            }
            to => to,
        };
        match to? {
            Waiter::Process(process) => {
                if message.to.is_none() {
                    state.orphan(Waiter::Process(process));
                }
                self.observe(state, process, answer);
            }
            Waiter::Expiry => {
                if let Expiring::Waits(id, seen) = state.expiring {
                    state.expiring = match answer {
                        Observed::Accepted(version) => Expiring::Removed(id, seen, version),
                        _ => Self::load_for_expiry(state, id),
                    };
                }
            }
        }
        Some(())
    }

    fn who_waits(&self, state: &State, of: Option<WriteId>) -> Option<Waiter> {
        let waits = |process: &Process| matches!(process, Process::Driving(d) if d.waits && Some(d.write) == of);
        let at = state.processes.iter().position(waits)?;
        Some(Waiter::Process(at))
    }

    /// The lock does what it finds, by `seq`, and says so in the same update that takes the entry off.
    fn lock_does(state: &mut State, id: WriteId) -> Option<()> {
        let seq = |id: &WriteId| state.store.writes[id].seq;
        let first = state
            .shadow
            .entries
            .iter()
            .min_by_key(|id| seq(id))
            .copied();
        if first != Some(id) || state.expired {
            return None;
        }
        state.shadow.entries.remove(&id);
        state.shadow.results.insert(id);
        state.shadow.version = state.shadow.version.next();
        state.done.insert(id);
        Some(())
    }

    fn load_for_expiry(state: &State, id: WriteId) -> Expiring {
        match state.store.writes[&id].is_open() {
            true => Expiring::Loaded(id, state.store.revision),
            false => Expiring::Not,
        }
    }

    /// Reads first; removes conditionally on what was read; and only an accepted removal is recorded.
    fn go_on_expiring(&self, state: &mut State) -> Option<()> {
        let removal = |id, expected| Message {
            put: None,
            remove: vec![id],
            clear: Vec::new(),
            expected,
            to: Some(Waiter::Expiry),
            of: None,
        };
        match state.expiring.clone() {
            Expiring::Loaded(id, seen) if self.is(Variant::ExpireWithoutReading) => {
                state.send(removal(id, None));
                state.expiring = Expiring::Waits(id, seen);
            }
            Expiring::Loaded(id, seen) => {
                let now = state.now();
                if state.shadow.results.contains(&id) {
                    state.store.settle(id, now);
                    state.expiring = Self::load_for_expiry(state, id);
                } else {
                    state.expiring = Expiring::Read(id, seen, state.shadow.version);
                }
            }
            Expiring::Read(id, seen, version) => {
                if state.messages.len() >= self.bounds.messages {
                    return None;
                }
                state.send(removal(id, Some(version)));
                state.expiring = Expiring::Waits(id, seen);
            }
            Expiring::Removed(id, seen, version) => {
                let open = state.store.writes[&id].clone();
                if seen == state.store.revision && open.is_open() {
                    let (snapshot, now) = (state.store.snapshot(), state.now());
                    let (limits, ending) = (limits(), Ending::Expired);
                    let (_, save) = rules::end(&snapshot, &open, ending, version, &limits, now);
                    state.store.save(save);
                }
                state.expiring = Self::load_for_expiry(state, id);
            }
            Expiring::Not | Expiring::Waits(..) => return None,
        }
        Some(())
    }

    /// The shadow first, the store second; unknown entries are taken off on the version that was read.
    fn go_on_auditing(&self, state: &mut State) -> Option<()> {
        let (shadow, store) = match state.auditing.clone() {
            Auditing::ShadowRead(shadow) => (*shadow, state.store.clone()),
            Auditing::StoreRead(store) => (state.shadow.clone(), *store),
            Auditing::Not | Auditing::Done => return None,
        };
        state.auditing = Auditing::Done;
        let others: Vec<Write> = store.writes.values().cloned().collect();
        let findings = rules::audit(Some(&shadow.snapshot()), &store.snapshot(), &others);
        let unknown = findings.iter().filter_map(|finding| match finding {
            Finding::UnknownEntry(id) => Some(*id),
            _ => None,
        });
        let remove: Vec<WriteId> = unknown.collect();
        if !remove.is_empty() {
            state.shadow.take(&Message {
                put: None,
                remove,
                clear: Vec::new(),
                expected: Some(shadow.version),
                to: None,
                of: None,
            });
        }
        Some(())
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
            actions.push(Action::Deliver(at, Fate::AnswerLost));
            actions.push(Action::Deliver(at, Fate::Lost));
            if message.to.is_some() || self.is(Variant::OneTokenForUpdateAndFence) {
                actions.push(Action::Deliver(at, Fate::Answered));
            }
            if message.to.is_some() {
                actions.push(Action::Deliver(at, Fate::Refused));
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
