//! The write protocol's machine, step by step, without any port.

use keywright_domain::model::{FailureReason, ShadowVersion};
use keywright_domain::{Attempt, Observation, Step};

const V1: ShadowVersion = ShadowVersion(1);
const V2: ShadowVersion = ShadowVersion(2);

fn seen(version: ShadowVersion, present: bool) -> Observation {
    Observation::ShadowRead { version, present }
}

/// Feeds the observations and expects the step after each.
fn runs((mut attempt, first): (Attempt, Step), expected: Step, rest: Vec<(Observation, Step)>) {
    assert_eq!(first, expected);
    for (n, (observation, step)) in rest.into_iter().enumerate() {
        assert_eq!(
            attempt.next(observation.clone()),
            step,
            "after observation {n}: {observation:?}"
        );
    }
}

#[test]
fn accepted_is_committed_at_the_new_version() {
    let steps = vec![(Observation::Accepted(V2), Step::Commit(V2))];
    runs(Attempt::for_request(V1), Step::Send(V1), steps);
}

#[test]
fn refused_at_once_is_aborted_without_a_fence() {
    let refused = Observation::NotApplied(FailureReason::Throttled);
    let steps = vec![(refused, Step::Abort(FailureReason::Throttled, None))];
    runs(Attempt::for_request(V1), Step::Send(V1), steps);
}

#[test]
fn an_unknown_update_that_is_found_is_committed() {
    let steps = vec![
        (Observation::Unknown, Step::Read),
        (seen(V2, true), Step::Commit(V2)),
    ];
    runs(Attempt::for_request(V1), Step::Send(V1), steps);
}

#[test]
fn a_refusal_after_an_unknown_attempt_is_not_trusted() {
    runs(
        Attempt::for_request(V1),
        Step::Send(V1),
        vec![
            (Observation::Unknown, Step::Read),
            (seen(V1, false), Step::CheckOwnership),
            (Observation::Owned, Step::Send(V1)),
            (
                Observation::NotApplied(FailureReason::Throttled),
                Step::Read,
            ),
            (seen(V1, false), Step::CheckOwnership),
            (Observation::Owned, Step::Fence(V1)),
            (
                Observation::Accepted(V2),
                Step::Abort(FailureReason::Throttled, Some(V2)),
            ),
        ],
    );
}

#[test]
fn after_two_resends_the_attempt_fences() {
    let round = |send| {
        vec![
            (seen(V1, false), Step::CheckOwnership),
            (Observation::Owned, send),
            (Observation::Unknown, Step::Read),
        ]
    };
    let mut steps = vec![(Observation::Unknown, Step::Read)];
    steps.extend(round(Step::Send(V1)));
    steps.extend(round(Step::Send(V1)));
    steps.push((seen(V1, false), Step::CheckOwnership));
    steps.push((Observation::Owned, Step::Fence(V1)));
    runs(Attempt::for_request(V1), Step::Send(V1), steps);
}

#[test]
fn a_fence_without_an_answer_proves_nothing() {
    let mut steps = vec![
        (seen(V1, false), Step::CheckOwnership),
        (Observation::Owned, Step::Fence(V1)),
    ];
    for lost in [
        Observation::Conflict,
        Observation::Unknown,
        Observation::NotApplied(FailureReason::Throttled),
    ] {
        steps.extend([
            (lost, Step::Pause),
            (Observation::Paused, Step::Read),
            (seen(V1, false), Step::CheckOwnership),
            (Observation::Owned, Step::Fence(V1)),
        ]);
    }
    runs(Attempt::for_recoverer(), Step::Read, steps);
}

#[test]
fn a_recoverer_never_sends_the_key_again() {
    let steps = vec![
        (Observation::ShadowMissing, Step::Create),
        (Observation::Accepted(V1), Step::CheckOwnership),
        (Observation::Owned, Step::Fence(V1)),
    ];
    runs(Attempt::for_recoverer(), Step::Read, steps);
}

#[test]
fn an_owner_that_was_taken_over_reads_the_fate() {
    let steps = vec![
        (Observation::Conflict, Step::Read),
        (seen(V2, false), Step::CheckOwnership),
        (Observation::NotOwned, Step::ReadOutcome),
    ];
    runs(Attempt::for_request(V1), Step::Send(V1), steps);
}
