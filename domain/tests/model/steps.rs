//! The steps of the write protocol in a process, and the messages between it and the shadow.

use keywright_domain::model::{
    Epoch, FailureReason, Intent, LockSnapshot, ShadowVersion, WorkerId, WriteId, WriteState,
};
use keywright_domain::policy::{OwnerAccess, WriteDecision, WriteKey};
use keywright_domain::{Attempt, Observation, Step, policy};
use keywright_testkit::samples::{LEASE, cause, lock_id, principal, slot, thing};

use crate::protocol_model::{Delivery, ProtocolModel};
use crate::state::{Answer, Execution, ExpiryState, Message, Process, State, Waiter};
use crate::store::limits;
use crate::variant::Variant;

impl ProtocolModel {
    pub(crate) fn command(id: WriteId) -> WriteKey {
        WriteKey {
            lock: lock_id(1),
            slot: slot(&format!("key-{}", id.as_u128()), Some(1)),
        }
    }

    /// Steps 0 and 1.
    pub(crate) fn request(state: &mut State, process: usize, id: WriteId) -> Option<()> {
        let (snapshot, command) = (state.store.snapshot(), Self::command(id));
        let decision = policy::decide_write(
            Some(&snapshot),
            &command,
            &principal(),
            &OwnerAccess,
            &limits(),
            state.now(),
        );
        let Ok(WriteDecision::Write(permitted)) = decision else {
            return None;
        };
        // A request waits while the lock has another intent.
        if snapshot.prepared().is_some() {
            return None;
        }
        state.processes[process] = Process::Decided {
            write: id,
            loaded: snapshot.revision,
            supersedes: permitted.supersedes,
        };
        Some(())
    }

    /// Step 2.
    pub(crate) fn prepare(&self, state: &mut State, process: usize) -> Option<()> {
        let Process::Decided {
            write,
            loaded,
            supersedes,
        } = state.processes[process].clone()
        else {
            return None;
        };
        state.processes[process] = Process::Idle;
        let snapshot = state.store.snapshot();
        if loaded != snapshot.revision && !self.is(Variant::DecideBeforePreparing) {
            // The save is stale: the process loads and decides again.
            return Some(());
        }
        let new = policy::NewWrite {
            id: write,
            thing: &thing(lock_id(1)),
            slot: &Self::command(write).slot,
            cause: cause(),
            intent: Intent {
                worker: WorkerId(7),
                epoch: Epoch(1),
                lease: LEASE,
            },
        };
        // A weakened variant prepares beside another intent, which `prepare` asserts against.
        let without_intents = LockSnapshot {
            unfinished: Vec::new(),
            ..snapshot.clone()
        };
        let (prepared, save) = policy::prepare(&without_intents, &new, &limits(), state.now());
        state.store.save(save);
        let version = snapshot
            .shadow_version
            .expect("the model starts with a version");
        let (attempt, step) = Attempt::for_request(version);
        state.processes[process] = Process::Executing(Box::new(Execution {
            write: prepared.id,
            epoch: Epoch(1),
            attempt,
            step,
            supersedes,
            cleared: snapshot.uncleared.iter().map(|w| w.id).collect(),
            waits: false,
            is_request: true,
        }));
        Some(())
    }

    /// The process executes the next step of its attempt.
    pub(crate) fn proceed(&self, state: &mut State, process: usize) -> Option<()> {
        let Process::Executing(mut execution) = state.processes[process].clone() else {
            return None;
        };
        if execution.waits {
            return None;
        }
        let id = execution.write;
        let owned = state.store.writes[&id].intent().map(|i| i.epoch) == Some(execution.epoch);
        let owned =
            owned || self.is(Variant::NoEpochCheck) && state.store.writes[&id].intent().is_some();
        let observation = match execution.step.clone() {
            Step::Send(version) => {
                let expected = match self.variant {
                    Variant::UnconditionalUpdate => None,
                    Variant::ReadVersionAfterOwnershipCheck => Some(state.shadow.version),
                    _ => Some(version),
                };
                return self.dispatch(state, process, execution, Some(id), expected);
            }
            Step::Fence(version) => {
                if self.is(Variant::NoFence) {
                    Observation::Accepted(version)
                } else {
                    return self.dispatch(state, process, execution, None, Some(version));
                }
            }
            Step::Read => {
                let present = state.shadow.has_write(id);
                let now = state.now();
                for result in state.shadow.results.clone() {
                    state.store.settle(result, now);
                }
                let version = state.shadow.version;
                Observation::ShadowRead { version, present }
            }
            Step::CheckOwnership if owned => Observation::Owned,
            Step::CheckOwnership => Observation::NotOwned,
            Step::Pause => Observation::Paused,
            // The model's shadow always exists.
            Step::Create => return None,
            Step::Commit(version) if owned => {
                let snapshot = state.store.snapshot();
                let prepared = state.store.writes[&id].clone();
                let (limits, now) = (limits(), state.now());
                let cleared = &execution.cleared;
                let (_, save) =
                    policy::commit(&snapshot, &prepared, version, cleared, &limits, now);
                state.store.save(save);
                return self.close(state, process, &execution);
            }
            Step::Abort(reason, version) if owned => {
                let snapshot = state.store.snapshot();
                let prepared = state.store.writes[&id].clone();
                let save = policy::abort(&snapshot, &prepared, &reason, version, state.now());
                state.store.save(save);
                return self.close(state, process, &execution);
            }
            Step::Commit(_) | Step::Abort(..) | Step::ReadOutcome => {
                return self.close(state, process, &execution);
            }
        };
        execution.step = execution.attempt.next(observation);
        state.processes[process] = Process::Executing(execution);
        Some(())
    }

    pub(crate) fn dispatch(
        &self,
        state: &mut State,
        process: usize,
        mut execution: Box<Execution>,
        put: Option<WriteId>,
        expected: Option<ShadowVersion>,
    ) -> Option<()> {
        if state.messages.len() >= self.bounds.messages {
            return None;
        }
        let (remove, clear) = match put {
            Some(_) => (execution.supersedes.clone(), execution.cleared.clone()),
            None => (Vec::new(), Vec::new()),
        };
        state.send(Message {
            put,
            remove,
            clear,
            expected,
            waiter: Some(Waiter::Process(process)),
            write: Some(execution.write),
        });
        execution.waits = true;
        state.processes[process] = Process::Executing(execution);
        Some(())
    }

    /// The intent is closed, and the client gets its answer. `None`: another process has the intent, and it is open.
    pub(crate) fn close(
        &self,
        state: &mut State,
        process: usize,
        execution: &Execution,
    ) -> Option<()> {
        let write = &state.store.writes[&execution.write];
        let answer = match &write.state {
            WriteState::Prepared(_) => return None,
            WriteState::Aborted { .. } => Answer::NotUpdated,
            _ => Answer::Ok,
        };
        if execution.is_request {
            state.answers.insert(execution.write, answer);
        }
        state.processes[process] = Process::Idle;
        Some(())
    }

    pub(crate) fn observe(&self, state: &mut State, process: usize, observation: Observation) {
        let Process::Executing(execution) = &mut state.processes[process] else {
            return;
        };
        execution.waits = false;
        let refused = matches!(observation, Observation::NotApplied(_));
        let unknown = observation == Observation::Unknown;
        let gives_up = self.is(Variant::AbortOnTimeout) && unknown
            || self.is(Variant::TrustRefusalAfterUnknownOutcome) && refused;
        execution.step = match gives_up && matches!(execution.step, Step::Send(_)) {
            true => Step::Abort(FailureReason::Unavailable, None),
            false => execution.attempt.next(observation),
        };
    }

    /// The process no longer waits for the answer.
    pub(crate) fn time_out(&self, state: &mut State, process: usize) -> Option<()> {
        let Process::Executing(execution) = &state.processes[process] else {
            return None;
        };
        if !execution.waits {
            return None;
        }
        state.detach(Waiter::Process(process));
        self.observe(state, process, Observation::Unknown);
        Some(())
    }

    /// The deadline of a request passes, or the process crashes. The intent stays open for a take-over.
    pub(crate) fn give_up(state: &mut State, process: usize) -> Option<()> {
        let Process::Executing(execution) = &state.processes[process] else {
            return None;
        };
        if execution.is_request {
            state.answers.insert(execution.write, Answer::Undecided);
        }
        state.detach(Waiter::Process(process));
        state.processes[process] = Process::Idle;
        Some(())
    }

    /// Step 8. A lease can end at any time, because its process can stop and continue later.
    pub(crate) fn take_over(&self, state: &mut State, process: usize) -> Option<()> {
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
        let (attempt, step) = Attempt::for_recoverer();
        state.processes[process] = Process::Executing(Box::new(Execution {
            write: id,
            epoch,
            attempt,
            step,
            supersedes: Vec::new(),
            cleared: Vec::new(),
            waits: false,
            is_request: false,
        }));
        Some(())
    }

    pub(crate) fn deliver(&self, state: &mut State, at: usize, delivery: Delivery) -> Option<()> {
        let message = state.messages.get(at)?.clone();
        // Deliveries of equal messages lead to equal states.
        if at > 0 && state.messages[at - 1] == message {
            return None;
        }
        state.messages.remove(at);
        let answer = match delivery {
            Delivery::Lost => return Some(()),
            Delivery::Refused => Observation::NotApplied(FailureReason::Throttled),
            Delivery::Answered | Delivery::AnswerLost => match state.shadow.update(&message) {
                true => Observation::Accepted(state.shadow.version),
                false => Observation::Conflict,
            },
        };
        if delivery == Delivery::AnswerLost {
            return Some(());
        }
        let waiter = match message.waiter {
            // A late answer is taken as the answer to the request with the same token.
            None if self.is(Variant::SameTokenForUpdateAndFence) => {
                self.waiter_of(state, message.write)
            }
            waiter => waiter,
        };
        match waiter? {
            Waiter::Process(process) => {
                if message.waiter.is_none() {
                    state.detach(Waiter::Process(process));
                }
                self.observe(state, process, answer);
            }
            Waiter::Expiry => {
                if let ExpiryState::Waits(id, loaded) = state.expiry {
                    state.expiry = match answer {
                        Observation::Accepted(version) => ExpiryState::Removed(id, loaded, version),
                        _ => Self::load_for_expiry(state, id),
                    };
                }
            }
        }
        Some(())
    }

    /// The process that waits for an answer to a message of this write.
    pub(crate) fn waiter_of(&self, state: &State, write: Option<WriteId>) -> Option<Waiter> {
        let waits = |process: &Process| matches!(process, Process::Executing(d) if d.waits && Some(d.write) == write);
        let at = state.processes.iter().position(waits)?;
        Some(Waiter::Process(at))
    }
}
