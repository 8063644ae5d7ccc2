//! Keeps to the pace of a service that says it has too much to do.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

/// The pause after the first refusal; each further one is twice as long.
const FIRST: Duration = Duration::from_millis(100);
const LONGEST: Duration = Duration::from_secs(5);

/// Holds calls back for a while after each that was throttled. The pauses grow while that goes on, and shrink with
/// each call that was not.
pub(super) struct Brake(Mutex<State>);

struct State {
    until: Instant,
    pause: Duration,
}

impl Brake {
    pub(super) fn new() -> Self {
        Self(Mutex::new(State {
            until: Instant::now(),
            pause: FIRST,
        }))
    }

    /// Waits until calls are welcome; `false`: that will not be within `patience`.
    pub(super) async fn wait(&self, patience: Duration) -> bool {
        let until = self.0.lock().unwrap_or_else(PoisonError::into_inner).until;
        if until > Instant::now() + patience {
            return false;
        }
        tokio::time::sleep_until(until).await;
        true
    }

    /// A call was refused as one too many; the service may have said when to come again.
    pub(super) fn throttled(&self, again: Option<Duration>) {
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let pause = again.unwrap_or(state.pause).min(LONGEST);
        state.until = state.until.max(Instant::now() + pause);
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

    #[tokio::test(start_paused = true)]
    async fn pauses_grow_while_it_goes_on_and_shrink_afterwards() {
        let brake = Brake::new();
        let waited = async |brake: &Brake| {
            let start = Instant::now();
            assert!(brake.wait(LONGEST * 2).await);
            start.elapsed()
        };
        assert_eq!(waited(&brake).await, Duration::ZERO);
        for expected in [100, 200, 400, 800, 1600, 3200, 5000, 5000] {
            brake.throttled(None);
            assert_eq!(waited(&brake).await, Duration::from_millis(expected));
        }
        for _ in 0..10 {
            brake.taken();
        }
        brake.throttled(None);
        assert!(
            !brake.wait(Duration::from_millis(50)).await,
            "it would take longer"
        );
        assert_eq!(waited(&brake).await, Duration::from_millis(100));
        brake.throttled(Some(Duration::from_secs(2)));
        assert_eq!(
            waited(&brake).await,
            Duration::from_secs(2),
            "as the service says"
        );
    }
}
