//! Steps 3 to 6 of the write protocol as a machine without I/O: what was observed goes in, what to do
//! next comes out. The use case and the recoverer drive the same machine, and so can a model.

use crate::model::{FailureReason, ShadowVersion};

/// What to do next.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Step {
    /// Update the shadow with the write, conditional on this version.
    Send(ShadowVersion),
    /// Read the shadow.
    Read,
    /// Make the shadow, unconditionally.
    Create,
    /// Ask the store whether the intent is still open and of our epoch.
    CheckOwnership,
    /// Move the shadow's version, conditional on this one, so that late copies of the update fail.
    Fence(ShadowVersion),
    /// Wait a little, longer each time.
    Pause,
    /// Record that the shadow has the write, at this version.
    Commit(ShadowVersion),
    /// Record that the shadow does not have the write and never will.
    Abort(FailureReason, Option<ShadowVersion>),
    /// Someone else ended or took over the intent: read its fate.
    ReadOutcome,
}

/// What came of a step.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Observation {
    /// The update or fence was accepted; the shadow has this version now.
    Accepted(ShadowVersion),
    /// It was certainly not applied: never sent, or refused.
    NotApplied(FailureReason),
    /// The shadow has another version.
    Conflict,
    /// It may have been applied, or may still be.
    Unknown,
    /// The shadow has this version, and the write's entry or result is on it or not.
    Seen {
        /// The version.
        version: ShadowVersion,
        /// The write is there.
        present: bool,
    },
    /// There is no shadow.
    Missing,
    /// The shadow or the store could not be read.
    Unreadable,
    /// The intent is open and ours.
    Ours,
    /// The intent is closed, or of a later epoch.
    NotOurs,
    /// The pause is over.
    Rested,
}

/// One owner's attempt to bring an intent to its end.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Attempt {
    phase: Phase,
    resends_left: u8,
    /// A copy of the update may still be on its way or already applied.
    unknown_copy: bool,
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
    /// How often an update is sent again after an unknown or conflicting outcome.
    pub const RESENDS: u8 = 2;

    /// The request's own attempt: the update goes out on the version kept by the store.
    pub const fn of_request(version: ShadowVersion) -> (Self, Step) {
        let attempt = Self {
            phase: Phase::Sending,
            resends_left: Self::RESENDS,
            unknown_copy: false,
            reason: FailureReason::OutcomeUnknown,
        };
        (attempt, Step::Send(version))
    }

    /// A take-over. What the earlier owner sent is unknown, and nothing is sent again: a key must not
    /// appear on a door minutes after the caller gave up.
    pub const fn of_recoverer() -> (Self, Step) {
        let attempt = Self {
            phase: Phase::Reading,
            resends_left: 0,
            unknown_copy: true,
            reason: FailureReason::OutcomeUnknown,
        };
        (attempt, Step::Read)
    }

    /// Takes in what came of the last step. What does not fit it is treated as unreadable: the
    /// attempt then reads again, which is always safe.
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
            (
                Phase::Reading,
                Observation::Seen {
                    version,
                    present: true,
                },
            ) => self.end(Step::Commit(version)),
            (
                Phase::Reading,
                Observation::Seen {
                    version,
                    present: false,
                },
            )
            | (Phase::Creating, Observation::Accepted(version)) => {
                self.phase = Phase::Checking(version);
                Step::CheckOwnership
            }
            (Phase::Reading, Observation::Missing) => {
                self.phase = Phase::Creating;
                Step::Create
            }
            (Phase::Checking(_), Observation::NotOurs) => self.end(Step::ReadOutcome),
            (Phase::Checking(version), Observation::Ours) => self.resend_or_fence(version),
            (Phase::Fencing, Observation::Accepted(version)) => {
                let reason = self.reason.clone();
                self.end(Step::Abort(reason, Some(version)))
            }
            (Phase::Pausing, _) => self.read(),
            (Phase::Ended, _) => Step::ReadOutcome,
            _ => {
                self.phase = Phase::Pausing;
                Step::Pause
            }
        }
    }

    /// A refusal ends the attempt only where no earlier copy is unaccounted for: it says nothing of
    /// that one. Else the attempt fences, without a further resend.
    fn after_refusal(&mut self, reason: FailureReason) -> Step {
        if !self.unknown_copy {
            return self.end(Step::Abort(reason, None));
        }
        self.resends_left = 0;
        self.reason = reason;
        self.read()
    }

    /// The version was read before ownership was checked, so whoever takes over later moves past it.
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

    fn end(&mut self, last: Step) -> Step {
        self.phase = Phase::Ended;
        last
    }
}
