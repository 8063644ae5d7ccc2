//! Steps 3 to 6 of the write protocol as a state machine without I/O: an observation goes in, the next step comes out.
//!
//! The use case, the recoverer and the model of the tests run the same machine. docs/protocol.md has its transition table.

use crate::model::{FailureReason, ShadowVersion};

/// What to do next.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Step {
    /// Update the shadow with the write, conditional on this version.
    Send(ShadowVersion),
    /// Read the shadow.
    Read,
    /// Create the shadow, with an unconditional update.
    Create,
    /// Read from the store whether the intent is still open and has our epoch.
    CheckOwnership,
    /// Increment the shadow's version, conditional on this version, so that late copies of the update fail.
    Fence(ShadowVersion),
    /// Wait, then ask the store whether the intent was closed meanwhile, for instance by a report. Each pause of an attempt is
    /// twice as long as the one before, up to a limit.
    Pause,
    /// Record that the shadow, at this version, has the write.
    Commit(ShadowVersion),
    /// Record that the shadow does not have the write and will never accept it. The version is that of the shadow, if it is
    /// known.
    Abort(FailureReason, Option<ShadowVersion>),
    /// Another process has taken over or closed the intent: read its outcome from the store.
    ReadOutcome,
}

/// The result of a step.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Observation {
    /// The shadow accepted the update, the creation or the fence, and has this version now.
    Accepted(ShadowVersion),
    /// The request was certainly not applied: it was not sent, or it was refused.
    NotApplied(FailureReason),
    /// The shadow has another version than the request expected.
    Conflict,
    /// The request may have been applied, or may still be.
    Unknown,
    /// The shadow was read.
    ShadowRead {
        /// The shadow's version.
        version: ShadowVersion,
        /// Whether the shadow has an entry or a result of the write.
        present: bool,
    },
    /// The shadow does not exist.
    ShadowMissing,
    /// The shadow or the store could not be read.
    ReadFailed,
    /// The intent is open and has our epoch.
    Owned,
    /// The intent is closed, or has a later epoch.
    NotOwned,
    /// The pause is over, and the intent is not known to be closed.
    Paused,
}

/// The attempt of one process to find out or bring about the outcome of an intent.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Attempt {
    phase: Phase,
    resends_left: u8,
    /// A copy of the update may still be on its way or already applied.
    unknown_copy: bool,
    /// The reason with which a fence aborts the write.
    reason: FailureReason,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Phase {
    Sending,
    Reading,
    Creating,
    Checking(ShadowVersion),
    Fencing,
    Pausing,
    Ended,
}

impl Attempt {
    /// How often a request sends its update again after a conflict or an unknown outcome.
    pub const MAX_RESENDS: u8 = 2;

    /// The attempt of the request itself, with its first step: it sends the update at the version that the store has.
    pub const fn for_request(version: ShadowVersion) -> (Self, Step) {
        let attempt = Self {
            phase: Phase::Sending,
            resends_left: Self::MAX_RESENDS,
            unknown_copy: false,
            reason: FailureReason::OutcomeUnknown,
        };
        (attempt, Step::Send(version))
    }

    /// The attempt of the recoverer, with its first step. It assumes that an update with an unknown outcome is on its way, and
    /// never sends the update again: a key must not appear in a lock minutes after the caller has given up.
    pub const fn for_recoverer() -> (Self, Step) {
        let attempt = Self {
            phase: Phase::Reading,
            resends_left: 0,
            unknown_copy: true,
            reason: FailureReason::OutcomeUnknown,
        };
        (attempt, Step::Read)
    }

    /// Returns the step that follows the observation of the last step. An observation that does not fit the last step leads to a
    /// pause and another read, which is always safe.
    pub fn next(&mut self, observation: Observation) -> Step {
        match (self.phase, observation) {
            (Phase::Sending, Observation::Accepted(version)) => self.end(Step::Commit(version)),
            (Phase::Sending, Observation::NotApplied(reason)) => self.after_refusal(reason),
            (Phase::Sending, Observation::Conflict) => {
                self.reason = FailureReason::ShadowConflict;
                self.read()
            }
            (Phase::Sending, _) => {
                self.unknown_copy = true;
                self.reason = FailureReason::OutcomeUnknown;
                self.read()
            }
            (Phase::Reading, Observation::ShadowRead { version, present }) => match present {
                true => self.end(Step::Commit(version)),
                false => self.check(version),
            },
            (Phase::Creating, Observation::Accepted(version)) => self.check(version),
            (Phase::Reading, Observation::ShadowMissing) => {
                self.phase = Phase::Creating;
                Step::Create
            }
            (Phase::Checking(_), Observation::NotOwned) => self.end(Step::ReadOutcome),
            (Phase::Checking(version), Observation::Owned) => self.resend_or_fence(version),
            (Phase::Fencing, Observation::Accepted(version)) => {
                let reason = self.reason.clone();
                self.end(Step::Abort(reason, Some(version)))
            }
            (Phase::Pausing, Observation::NotOwned) => self.end(Step::ReadOutcome),
            (Phase::Pausing, _) => self.read(),
            (Phase::Ended, _) => Step::ReadOutcome,
            _ => {
                self.phase = Phase::Pausing;
                Step::Pause
            }
        }
    }

    /// A refusal aborts the attempt only if no earlier copy of the update has an unknown outcome, because it proves nothing about
    /// that copy. Otherwise the attempt fences, without a further resend.
    fn after_refusal(&mut self, reason: FailureReason) -> Step {
        if !self.unknown_copy {
            return self.end(Step::Abort(reason, None));
        }
        self.resends_left = 0;
        self.reason = reason;
        self.read()
    }

    /// The version was read before ownership was checked, so a process that takes the intent over later moves the shadow past it.
    fn resend_or_fence(&mut self, version: ShadowVersion) -> Step {
        if let Some(left) = self.resends_left.checked_sub(1) {
            self.resends_left = left;
            self.phase = Phase::Sending;
            return Step::Send(version);
        }
        self.phase = Phase::Fencing;
        Step::Fence(version)
    }

    fn read(&mut self) -> Step {
        self.phase = Phase::Reading;
        Step::Read
    }

    fn check(&mut self, version: ShadowVersion) -> Step {
        self.phase = Phase::Checking(version);
        Step::CheckOwnership
    }

    fn end(&mut self, last: Step) -> Step {
        self.phase = Phase::Ended;
        last
    }
}
