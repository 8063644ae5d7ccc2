//! Which requests the service accepts of each thing, so that one device that sends without end holds up no other.
//!
//! Some devices answer each delta with an update that causes the next delta. Without a bound, such a device takes as
//! much of the service and of the broker's connection as there is.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;
use tracing::warn;

/// Requests of one thing that may wait to be done, or be in progress.
const MAX_WAITING: usize = 100;

/// Requests of one thing: 50 a second, and 250 at once after a quiet time. AWS IoT accepts 20 a second of one shadow.
const REQUESTS: Rate = Rate {
    interval: Duration::from_millis(20),
    burst: Duration::from_secs(5),
};

/// Rejections that one thing is told of: 5 a second. A device may answer each with another request.
const REJECTIONS: Rate = Rate {
    interval: Duration::from_millis(200),
    burst: Duration::from_secs(1),
};

/// How often the log names a thing that sends too much.
const WARN_EVERY: Duration = Duration::from_secs(60);

/// Things that are remembered before those that are idle are forgotten.
const MIN_REMEMBERED: usize = 1024;

/// What becomes of a request.
#[derive(Debug)]
pub(super) enum Decision {
    /// It is done. The request counts as waiting until this is dropped.
    Accept(Waiting),
    /// It is not done, and whoever sent it is told.
    Reject,
    /// It is not done, and nobody is told, because the thing was told often enough.
    Ignore,
}

/// One request that waits or is in progress.
#[derive(Debug)]
pub(super) struct Waiting(#[expect(dead_code, reason = "it is counted, not read")] Arc<()>);

/// The requests of all things, counted by thing.
pub(super) struct Intake {
    things: HashMap<String, Thing>,
    forget_above: usize,
}

struct Thing {
    /// Each request that waits holds a clone.
    waiting: Arc<()>,
    requests: Bucket,
    rejections: Bucket,
    warned: Option<Instant>,
}

impl Intake {
    pub(super) fn new() -> Self {
        Self {
            things: HashMap::new(),
            forget_above: MIN_REMEMBERED,
        }
    }

    /// Counts a request of the thing, and decides about it.
    pub(super) fn decide(&mut self, thing: &str) -> Decision {
        let now = Instant::now();
        let Some(known) = self.things.get_mut(thing) else {
            self.forget_idle(now);
            let known = self.things.entry(thing.to_owned());
            return known.or_insert_with(|| Thing::new(now)).decide(thing, now);
        };
        known.decide(thing, now)
    }

    /// Decides about a request that was accepted, and for which there is no room after all.
    pub(super) fn refuse(&mut self, thing: &str) -> Decision {
        match self.things.get_mut(thing) {
            Some(known) => known.refuse(Instant::now()),
            None => Decision::Ignore,
        }
    }

    fn forget_idle(&mut self, now: Instant) {
        if self.things.len() < self.forget_above {
            return;
        }
        self.things.retain(|_, thing| !thing.is_idle(now));
        self.forget_above = MIN_REMEMBERED.max(2 * self.things.len());
    }
}

impl Thing {
    fn new(now: Instant) -> Self {
        Self {
            waiting: Arc::new(()),
            requests: Bucket::new(now),
            rejections: Bucket::new(now),
            warned: None,
        }
    }

    fn decide(&mut self, name: &str, now: Instant) -> Decision {
        let waiting = Arc::strong_count(&self.waiting) - 1;
        if waiting < MAX_WAITING && self.requests.take(&REQUESTS, now) {
            return Decision::Accept(Waiting(self.waiting.clone()));
        }
        if self.warned.is_none_or(|at| now - at >= WARN_EVERY) {
            self.warned = Some(now);
            warn!(
                thing = name,
                "too many requests for the shadows of this thing: some are rejected with 429"
            );
        }
        self.refuse(now)
    }

    fn refuse(&mut self, now: Instant) -> Decision {
        match self.rejections.take(&REJECTIONS, now) {
            true => Decision::Reject,
            false => Decision::Ignore,
        }
    }

    /// Whether a new entry would decide in the same way.
    fn is_idle(&self, now: Instant) -> bool {
        let warned = self.warned.is_some_and(|at| now - at < WARN_EVERY);
        Arc::strong_count(&self.waiting) == 1
            && self.requests.0 <= now
            && self.rejections.0 <= now
            && !warned
    }
}

/// One event every `interval`, and as many more at once as fit into `burst`.
struct Rate {
    interval: Duration,
    burst: Duration,
}

/// When all that was taken would have been taken at the steady rate (the generic cell rate algorithm).
struct Bucket(Instant);

impl Bucket {
    const fn new(now: Instant) -> Self {
        Self(now)
    }

    fn take(&mut self, rate: &Rate, now: Instant) -> bool {
        let next = self.0.max(now) + rate.interval;
        let allowed = next - now <= rate.burst;
        if allowed {
            self.0 = next;
        }
        allowed
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Sends so many requests, each of which is done at once: how many are accepted, rejected and ignored.
    fn send(intake: &mut Intake, thing: &str, count: usize) -> [usize; 3] {
        let mut counts = [0; 3];
        for _ in 0..count {
            match intake.decide(thing) {
                Decision::Accept(_) => counts[0] += 1,
                Decision::Reject => counts[1] += 1,
                Decision::Ignore => counts[2] += 1,
            }
        }
        counts
    }

    #[tokio::test(start_paused = true)]
    async fn a_thing_that_sends_too_much_is_bounded_and_no_other_is() {
        let mut intake = Intake::new();
        assert_eq!(send(&mut intake, "loud", 10_000), [250, 5, 9745]);
        assert_eq!(send(&mut intake, "quiet", 1), [1, 0, 0]);
        tokio::time::advance(Duration::from_secs(1)).await;
        assert_eq!(send(&mut intake, "loud", 10_000), [50, 5, 9945]);
        tokio::time::advance(Duration::from_secs(60)).await;
        assert_eq!(send(&mut intake, "loud", 250), [250, 0, 0]);
    }

    #[tokio::test(start_paused = true)]
    async fn requests_that_are_not_done_yet_are_bounded() {
        let mut intake = Intake::new();
        let mut waiting = Vec::new();
        while let Decision::Accept(one) = intake.decide("slow") {
            waiting.push(one);
        }
        assert_eq!(waiting.len(), 100);
        drop(waiting);
        assert_eq!(send(&mut intake, "slow", 1), [1, 0, 0]);
    }

    #[tokio::test(start_paused = true)]
    async fn things_that_are_idle_are_forgotten() {
        let mut intake = Intake::new();
        let busy = intake.decide("busy");
        for n in 0..100_000 {
            send(&mut intake, &format!("door-{n}"), 1);
            tokio::time::advance(Duration::from_millis(1)).await;
        }
        assert!(intake.things.len() <= 2 * MIN_REMEMBERED);
        assert!(intake.things.contains_key("busy"), "its request waits");
        drop(busy);
    }
}
