//! Backoff for a service that throttles.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

/// The pause after the first throttled call. It doubles with each further one.
const FIRST_PAUSE: Duration = Duration::from_millis(100);
const MAX_PAUSE: Duration = Duration::from_secs(5);

/// If calls for two things are throttled within this time, the service itself is overloaded.
const OVERLOAD_WINDOW: Duration = Duration::from_secs(2 * MAX_PAUSE.as_secs());

/// The maximum pause that a service may request.
const MAX_REQUESTED_PAUSE: Duration = Duration::from_secs(300);

/// Delays calls after throttled ones. The pause grows with throttled calls and shrinks with accepted ones.
pub(super) struct ThrottleBackoff(Mutex<State>);

struct State {
    paused_until: Instant,
    /// The thing and the time of the last throttled call.
    last_throttled: Option<(String, Instant)>,
    pause: Duration,
}

impl ThrottleBackoff {
    pub(super) fn new() -> Self {
        Self(Mutex::new(State {
            paused_until: Instant::now(),
            last_throttled: None,
            pause: FIRST_PAUSE,
        }))
    }

    /// Waits until the pause ends. `false`: that is later than `timeout` from now. The waiting calls continue at random times
    /// within 100 ms, not all at once.
    pub(super) async fn wait(&self, timeout: Duration) -> bool {
        let until = self.state().paused_until;
        let now = Instant::now();
        if until <= now {
            return true;
        }
        let deadline = now + timeout;
        if until > deadline {
            return false;
        }
        let spread = (deadline - until).min(FIRST_PAUSE);
        tokio::time::sleep_until(until + spread.mul_f64(fastrand::f64())).await;
        true
    }

    /// Records a throttled call for `thing`. `requested`: the pause that the service requests. Of concurrent calls, only the
    /// first one makes the pause longer.
    ///
    /// A service also throttles a single thing, because of the requests of that thing's lock. Without a requested pause, calls
    /// are therefore delayed only after those for two things were throttled.
    pub(super) fn throttled(&self, thing: &str, requested: Option<Duration>) {
        let mut state = self.state();
        let now = Instant::now();
        let before = state.last_throttled.replace((thing.to_owned(), now));
        let is_overload =
            before.is_some_and(|(other, at)| other != thing && now - at <= OVERLOAD_WINDOW);
        if requested.is_none() && !is_overload {
            return;
        }
        let requested = requested.map(|pause| pause.min(MAX_REQUESTED_PAUSE));
        if now < state.paused_until {
            state.paused_until = state.paused_until.max(now + requested.unwrap_or_default());
            return;
        }
        state.paused_until = now + requested.unwrap_or(state.pause);
        state.pause = (state.pause * 2).min(MAX_PAUSE);
    }

    /// Records an accepted call.
    pub(super) fn accepted(&self) {
        let mut state = self.state();
        state.pause = (state.pause / 2).max(FIRST_PAUSE);
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// How long a call waits.
    async fn waited(backoff: &ThrottleBackoff) -> Duration {
        let start = Instant::now();
        assert!(backoff.wait(MAX_REQUESTED_PAUSE * 2).await);
        start.elapsed()
    }

    fn about(millis: u64) -> std::ops::RangeInclusive<Duration> {
        let least = Duration::from_millis(millis);
        least..=least + FIRST_PAUSE + Duration::from_millis(1)
    }

    #[tokio::test(start_paused = true)]
    async fn pauses_grow_with_throttled_calls_and_shrink_with_accepted_ones() {
        let backoff = ThrottleBackoff::new();
        assert_eq!(waited(&backoff).await, Duration::ZERO);
        for expected in [100, 200, 400, 800, 1600, 3200, 5000, 5000] {
            // Concurrent calls count as one.
            for thing in ["a", "b", "c", "d", "e"] {
                backoff.throttled(thing, None);
            }
            let waited = waited(&backoff).await;
            assert!(
                about(expected).contains(&waited),
                "{waited:?} is not {expected} ms"
            );
        }
        for _ in 0..10 {
            backoff.accepted();
        }
        backoff.throttled("a", None);
        assert!(
            !backoff.wait(Duration::from_millis(50)).await,
            "the pause is longer"
        );
        assert!(about(100).contains(&waited(&backoff).await));
    }

    #[tokio::test(start_paused = true)]
    async fn throttling_of_one_thing_delays_no_other() {
        let backoff = ThrottleBackoff::new();
        for _ in 0..100 {
            backoff.throttled("first", None);
        }
        assert_eq!(waited(&backoff).await, Duration::ZERO);
        tokio::time::advance(OVERLOAD_WINDOW * 2).await;
        backoff.throttled("second", None);
        assert_eq!(
            waited(&backoff).await,
            Duration::ZERO,
            "it was throttled too long ago"
        );
        backoff.throttled("first", None);
        assert!(about(100).contains(&waited(&backoff).await));
    }

    #[tokio::test(start_paused = true)]
    async fn a_requested_pause_is_kept() {
        let backoff = ThrottleBackoff::new();
        backoff.throttled("a", Some(Duration::from_secs(60)));
        assert!(about(60_000).contains(&waited(&backoff).await));
        backoff.throttled("a", None);
        backoff.throttled("a", Some(Duration::from_secs(9)));
        assert!(
            about(9_000).contains(&waited(&backoff).await),
            "also that of a later concurrent call"
        );
        backoff.throttled("a", Some(Duration::MAX));
        assert!(about(300_000).contains(&waited(&backoff).await), "bounded");
    }
}
