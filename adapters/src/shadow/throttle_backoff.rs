//! Keeps to the pace of a service that says it has too much to do.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

/// The pause after the first refusal; each further one is twice as long.
const FIRST: Duration = Duration::from_millis(100);
const LONGEST: Duration = Duration::from_secs(5);

/// Refusals of calls for two things that are so close to each other mean that the service has too much to do.
const REFUSED_TOGETHER: Duration = Duration::from_secs(2 * LONGEST.as_secs());

/// The longest pause that a service may ask for.
const LONGEST_ASKED: Duration = Duration::from_secs(300);

/// Holds calls back for a while after each that was throttled. The pauses grow while that goes on, and shrink with
/// each call that was not.
pub(super) struct ThrottleBackoff(Mutex<State>);

struct State {
    until: Instant,
    /// The thing whose call was refused last, and when.
    refused: Option<(String, Instant)>,
    pause: Duration,
}

impl ThrottleBackoff {
    pub(super) fn new() -> Self {
        Self(Mutex::new(State {
            until: Instant::now(),
            refused: None,
            pause: FIRST,
        }))
    }

    /// Waits until calls are welcome; `false`: that will not be within `timeout`. Those that wait do not all go on
    /// at the same moment.
    pub(super) async fn wait(&self, timeout: Duration) -> bool {
        let until = self.0.lock().unwrap_or_else(PoisonError::into_inner).until;
        let now = Instant::now();
        if until <= now {
            return true;
        }
        let last = now + timeout;
        if until > last {
            return false;
        }
        let spread = (last - until).min(FIRST);
        tokio::time::sleep_until(until + spread.mul_f64(fastrand::f64())).await;
        true
    }

    /// A call for this thing was refused as one too many; the service may have said when to come again. Of calls that
    /// were under way together, only the first makes the pause longer.
    ///
    /// A service also refuses calls for one thing alone, because of what that thing's own lock sends. So where the
    /// service does not say when to come again, calls are held back only once those for two things were refused.
    pub(super) fn throttled(&self, thing: &str, again: Option<Duration>) {
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let now = Instant::now();
        let before = state.refused.replace((thing.to_owned(), now));
        let several =
            before.is_some_and(|(other, at)| other != thing && now - at <= REFUSED_TOGETHER);
        if again.is_none() && !several {
            return;
        }
        let asked = again.map(|again| again.min(LONGEST_ASKED));
        if now < state.until {
            state.until = state.until.max(now + asked.unwrap_or_default());
            return;
        }
        state.until = now + asked.unwrap_or(state.pause);
        state.pause = (state.pause * 2).min(LONGEST);
    }

    /// A call was taken.
    pub(super) fn taken(&self) {
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        state.pause = (state.pause / 2).max(FIRST);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// How long a call waits, up to its share of the spread.
    async fn waited(throttle_backoff: &ThrottleBackoff) -> Duration {
        let start = Instant::now();
        assert!(throttle_backoff.wait(LONGEST_ASKED * 2).await);
        start.elapsed()
    }

    fn about(millis: u64) -> std::ops::RangeInclusive<Duration> {
        let least = Duration::from_millis(millis);
        least..=least + FIRST + Duration::from_millis(1)
    }

    #[tokio::test(start_paused = true)]
    async fn pauses_grow_while_it_goes_on_and_shrink_afterwards() {
        let throttle_backoff = ThrottleBackoff::new();
        assert_eq!(waited(&throttle_backoff).await, Duration::ZERO);
        for expected in [100, 200, 400, 800, 1600, 3200, 5000, 5000] {
            // Those that were under way together are one.
            for thing in ["a", "b", "c", "d", "e"] {
                throttle_backoff.throttled(thing, None);
            }
            let waited = waited(&throttle_backoff).await;
            assert!(
                about(expected).contains(&waited),
                "{waited:?} is not {expected} ms"
            );
        }
        for _ in 0..10 {
            throttle_backoff.taken();
        }
        throttle_backoff.throttled("a", None);
        assert!(
            !throttle_backoff.wait(Duration::from_millis(50)).await,
            "it would take longer"
        );
        assert!(about(100).contains(&waited(&throttle_backoff).await));
    }

    #[tokio::test(start_paused = true)]
    async fn refusals_for_one_thing_hold_back_no_other() {
        let throttle_backoff = ThrottleBackoff::new();
        for _ in 0..100 {
            throttle_backoff.throttled("loud", None);
        }
        assert_eq!(waited(&throttle_backoff).await, Duration::ZERO);
        tokio::time::advance(REFUSED_TOGETHER * 2).await;
        throttle_backoff.throttled("another", None);
        assert_eq!(
            waited(&throttle_backoff).await,
            Duration::ZERO,
            "that was long ago"
        );
        throttle_backoff.throttled("loud", None);
        assert!(about(100).contains(&waited(&throttle_backoff).await));
    }

    #[tokio::test(start_paused = true)]
    async fn a_service_that_says_when_to_come_again_is_believed() {
        let throttle_backoff = ThrottleBackoff::new();
        throttle_backoff.throttled("a", Some(Duration::from_secs(60)));
        assert!(about(60_000).contains(&waited(&throttle_backoff).await));
        throttle_backoff.throttled("a", None);
        throttle_backoff.throttled("a", Some(Duration::from_secs(9)));
        assert!(
            about(9_000).contains(&waited(&throttle_backoff).await),
            "also by a later one of several"
        );
        throttle_backoff.throttled("a", Some(Duration::MAX));
        assert!(
            about(300_000).contains(&waited(&throttle_backoff).await),
            "within bounds"
        );
    }
}
