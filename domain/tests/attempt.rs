//! `Attempt`, the state machine of the write protocol, step by step.

use keywright_domain::model::{FailureReason, ShadowVersion};
use keywright_domain::{Attempt, Observation, Step};

const V1: ShadowVersion = ShadowVersion(1);
const V2: ShadowVersion = ShadowVersion(2);

fn read(version: ShadowVersion, present: bool) -> Observation {
    Observation::ShadowRead { version, present }
}

/// Asserts the first step, and for each pair that the observation leads to the step.
fn assert_steps(
    (mut attempt, first): (Attempt, Step),
    first_expected: Step,
    rest: Vec<(Observation, Step)>,
) {
    assert_eq!(first, first_expected);
    for (n, (observation, step)) in rest.into_iter().enumerate() {
        assert_eq!(
            attempt.next(observation.clone()),
            step,
            "after observation {n}: {observation:?}"
        );
    }
}

#[test]
fn an_accepted_update_is_committed_at_the_new_version() {
    let steps = vec![(Observation::Accepted(V2), Step::Commit(V2))];
    assert_steps(Attempt::for_request(V1), Step::Send(V1), steps);
}

#[test]
fn a_refusal_of_the_first_update_aborts_without_a_fence() {
    let refused = Observation::NotApplied(FailureReason::Throttled);
    let steps = vec![(refused, Step::Abort(FailureReason::Throttled, None))];
    assert_steps(Attempt::for_request(V1), Step::Send(V1), steps);
}

#[test]
fn an_unknown_update_that_is_on_the_shadow_is_committed() {
    let steps = vec![
        (Observation::Unknown, Step::Read),
        (read(V2, true), Step::Commit(V2)),
    ];
    assert_steps(Attempt::for_request(V1), Step::Send(V1), steps);
}

#[test]
fn a_refusal_after_an_unknown_attempt_is_not_trusted() {
    assert_steps(
        Attempt::for_request(V1),
        Step::Send(V1),
        vec![
            (Observation::Unknown, Step::Read),
            (read(V1, false), Step::CheckOwnership),
            (Observation::Owned, Step::Send(V1)),
            (
                Observation::NotApplied(FailureReason::Throttled),
                Step::Read,
            ),
            (read(V1, false), Step::CheckOwnership),
            (Observation::Owned, Step::Fence(V1)),
            (
                Observation::Accepted(V2),
                Step::Abort(FailureReason::Throttled, Some(V2)),
            ),
        ],
    );
}

#[test]
fn fences_after_two_resends() {
    let round = |send| {
        vec![
            (read(V1, false), Step::CheckOwnership),
            (Observation::Owned, send),
            (Observation::Unknown, Step::Read),
        ]
    };
    let mut steps = vec![(Observation::Unknown, Step::Read)];
    steps.extend(round(Step::Send(V1)));
    steps.extend(round(Step::Send(V1)));
    steps.push((read(V1, false), Step::CheckOwnership));
    steps.push((Observation::Owned, Step::Fence(V1)));
    assert_steps(Attempt::for_request(V1), Step::Send(V1), steps);
}

#[test]
fn a_fence_that_is_not_accepted_is_repeated() {
    let mut steps = vec![
        (read(V1, false), Step::CheckOwnership),
        (Observation::Owned, Step::Fence(V1)),
    ];
    for not_accepted in [
        Observation::Conflict,
        Observation::Unknown,
        Observation::NotApplied(FailureReason::Throttled),
    ] {
        steps.extend([
            (not_accepted, Step::Pause),
            (Observation::Paused, Step::Read),
            (read(V1, false), Step::CheckOwnership),
            (Observation::Owned, Step::Fence(V1)),
        ]);
    }
    assert_steps(Attempt::for_recoverer(), Step::Read, steps);
}

#[test]
fn the_attempt_ends_when_its_write_is_settled_during_a_pause() {
    let steps = vec![
        (Observation::Unknown, Step::Read),
        (Observation::ReadFailed, Step::Pause),
        (Observation::NotOwned, Step::ReadOutcome),
    ];
    assert_steps(Attempt::for_request(V1), Step::Send(V1), steps);
}

#[test]
fn a_recoverer_never_sends_the_update() {
    let steps = vec![
        (Observation::ShadowMissing, Step::Create),
        (Observation::Accepted(V1), Step::CheckOwnership),
        (Observation::Owned, Step::Fence(V1)),
    ];
    assert_steps(Attempt::for_recoverer(), Step::Read, steps);
}

#[test]
fn after_a_take_over_the_earlier_process_reads_the_outcome() {
    let steps = vec![
        (Observation::Conflict, Step::Read),
        (read(V2, false), Step::CheckOwnership),
        (Observation::NotOwned, Step::ReadOutcome),
    ];
    assert_steps(Attempt::for_request(V1), Step::Send(V1), steps);
}
