//! The steps of the write protocol, and the messages between a process and the shadow.

use keywright_domain::model::{
    Epoch, FailureReason, Intent, LockSnapshot, ShadowVersion, WorkerId, WriteId, WriteState,
};
use keywright_domain::policy::{WriteDecision, WriteKey};
use keywright_domain::{Attempt, Observation, Step, policy};
use keywright_testkit::samples::{LEASE, lock_id, principal, slot, thing};

use crate::state::{Driving, Expiring, Message, Process, State, Told, Waiter};
use crate::store::limits;
use crate::variant::Variant;
use crate::world::{World, WriteOutcome};

impl World {
    pub(crate) fn command(id: WriteId) -> WriteKey {
        WriteKey {
            lock: lock_id(1),
            slot: slot(&format!("key-{}", id.as_u128()), Some(1)),
        }
    }

    /// Steps 0 and 1.
    pub(crate) fn ask(state: &mut State, process: usize, id: WriteId) -> Option<()> {
        let (snapshot, command) = (state.store.snapshot(), Self::command(id));
        let decision = policy::decide_write(
            Some(&snapshot),
            &command,
            &principal(),
            &limits(),
            state.now(),
        );
        let Ok(WriteDecision::Write(permitted)) = decision else {
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
    pub(crate) fn prepare(&self, state: &mut State, process: usize) -> Option<()> {
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
        let permitted = policy::Permitted {
            thing: thing(lock_id(1)),
            supersedes: supersedes.clone(),
        };
        let intent = Intent {
            worker: WorkerId(7),
            epoch: Epoch(1),
            lease: LEASE,
        };
        let blind = LockSnapshot {
            unfinished: Vec::new(),
            ..snapshot.clone()
        };
        let (prepared, save) = policy::prepare(
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
        let (attempt, step) = Attempt::for_request(version);
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
    pub(crate) fn go(&self, state: &mut State, process: usize) -> Option<()> {
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
        let observation = match driving.step.clone() {
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
                    Observation::Accepted(version)
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
                Observation::ShadowRead { version, present }
            }
            Step::CheckOwnership if owned => Observation::Owned,
            Step::CheckOwnership => Observation::NotOwned,
            Step::Pause => Observation::Paused,
            // A shadow is never missing here.
            Step::Create => return None,
            Step::Commit(version) if owned => {
                let snapshot = state.store.snapshot();
                let prepared = state.store.writes[&id].clone();
                let (limits, now) = (limits(), state.now());
                let cleared = &driving.cleared;
                let (_, save) =
                    policy::commit(&snapshot, &prepared, version, cleared, &limits, now);
                state.store.save(save);
                return self.close(state, process, &driving);
            }
            Step::Abort(reason, version) if owned => {
                let snapshot = state.store.snapshot();
                let prepared = state.store.writes[&id].clone();
                let save = policy::abort(&snapshot, &prepared, &reason, version, state.now());
                state.store.save(save);
                return self.close(state, process, &driving);
            }
            Step::Commit(_) | Step::Abort(..) | Step::ReadOutcome => {
                return self.close(state, process, &driving);
            }
        };
        driving.step = driving.attempt.next(observation);
        state.processes[process] = Process::Driving(driving);
        Some(())
    }

    pub(crate) fn dispatch(
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
    pub(crate) fn close(&self, state: &mut State, process: usize, driving: &Driving) -> Option<()> {
        let write = &state.store.writes[&driving.write];
        let told = match &write.state {
            WriteState::Prepared(_) => return None,
            WriteState::Aborted { .. } => Told::NotUpdated,
            _ => Told::WriteReceipt,
        };
        if driving.answers {
            state.told.insert(driving.write, told);
        }
        state.processes[process] = Process::Idle;
        Some(())
    }

    pub(crate) fn observe(&self, state: &mut State, process: usize, observation: Observation) {
        let Process::Driving(driving) = &mut state.processes[process] else {
            return;
        };
        driving.waits = false;
        let refused = matches!(observation, Observation::NotApplied(_));
        let unknown = observation == Observation::Unknown;
        let gives_up = self.is(Variant::RefusedAtOnceOnATimeout) && unknown
            || self.is(Variant::RefusalTrustedAfterAnUnknownAttempt) && refused;
        driving.step = match gives_up && matches!(driving.step, Step::Send(_)) {
            true => Step::Abort(FailureReason::Unavailable, None),
            false => driving.attempt.next(observation),
        };
    }

    pub(crate) fn time_out(&self, state: &mut State, process: usize) -> Option<()> {
        let Process::Driving(driving) = &state.processes[process] else {
            return None;
        };
        if !driving.waits {
            return None;
        }
        state.orphan(Waiter::Process(process));
        self.observe(state, process, Observation::Unknown);
        Some(())
    }

    /// A client's time is over, or a process dies; a take-over finds the intent.
    pub(crate) fn give_up(state: &mut State, process: usize) -> Option<()> {
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

    pub(crate) fn deliver(&self, state: &mut State, at: usize, fate: WriteOutcome) -> Option<()> {
        let message = state.messages.get(at)?.clone();
        // Equal messages have equal fates.
        if at > 0 && state.messages[at - 1] == message {
            return None;
        }
        state.messages.remove(at);
        let answer = match fate {
            WriteOutcome::Lost => return Some(()),
            WriteOutcome::Refused => Observation::NotApplied(FailureReason::Throttled),
            WriteOutcome::Answered | WriteOutcome::AnswerLost => {
                match state.shadow.take(&message) {
                    true => Observation::Accepted(state.shadow.version),
                    false => Observation::Conflict,
                }
            }
        };
        if fate == WriteOutcome::AnswerLost {
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
                        Observation::Accepted(version) => Expiring::Removed(id, seen, version),
                        _ => Self::load_for_expiry(state, id),
                    };
                }
            }
        }
        Some(())
    }

    pub(crate) fn who_waits(&self, state: &State, of: Option<WriteId>) -> Option<Waiter> {
        let waits = |process: &Process| matches!(process, Process::Driving(d) if d.waits && Some(d.write) == of);
        let at = state.processes.iter().position(waits)?;
        Some(Waiter::Process(at))
    }
}
