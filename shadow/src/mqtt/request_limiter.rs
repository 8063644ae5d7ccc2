//! Limits the requests of each thing, so that a device that sends without end does not delay others.
//!
//! Some devices answer each delta with an update that causes the next delta. Without a limit, such a device uses the whole capacity of
//! the service and of its connection to the broker.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;
use tracing::warn;

/// Requests of one thing that may be queued or in progress.
const MAX_PENDING: usize = 100;

/// Requests of one thing: 50 per second, and 250 at once after an idle time. AWS IoT accepts 20 per second for one shadow.
const REQUESTS: Rate = Rate {
    interval: Duration::from_millis(20),
    burst: Duration::from_secs(5),
};

/// Rejections that are sent to one thing: 5 per second. A device may answer each of them with another request.
const REJECTIONS: Rate = Rate {
    interval: Duration::from_millis(200),
    burst: Duration::from_secs(1),
};

/// The interval of warnings about one thing.
const WARN_INTERVAL: Duration = Duration::from_secs(60);

/// How many things are tracked before idle ones are removed.
const MIN_TRACKED: usize = 1024;

/// How a request is handled.
#[derive(Debug)]
pub(super) enum Decision {
    /// It is done. It counts as pending until the value is dropped.
    Accept(PendingRequest),
    /// It is rejected with an answer.
    Reject,
    /// It is dropped without an answer, because the thing got enough rejections already.
    Ignore,
}

/// A request that is queued or in progress.
#[derive(Debug)]
pub(super) struct PendingRequest(
    #[expect(dead_code, reason = "its clones are counted, it is not read")] Arc<()>,
);

/// Counts the requests of all things.
pub(super) struct RequestLimiter {
    things: HashMap<String, ThingRequests>,
    /// From this number of things on, idle ones are removed.
    cleanup_at: usize,
}

struct ThingRequests {
    /// Each pending request has a clone.
    pending: Arc<()>,
    requests: Bucket,
    rejections: Bucket,
    last_warning: Option<Instant>,
}

impl RequestLimiter {
    pub(super) fn new() -> Self {
        Self {
            things: HashMap::new(),
            cleanup_at: MIN_TRACKED,
        }
    }

    /// Counts a request of the thing and decides how it is handled.
    pub(super) fn decide(&mut self, thing: &str) -> Decision {
        let now = Instant::now();
        let Some(known) = self.things.get_mut(thing) else {
            self.remove_idle(now);
            let known = self.things.entry(thing.to_owned());
            return known
                .or_insert_with(|| ThingRequests::new(now))
                .decide(thing, now);
        };
        known.decide(thing, now)
    }

    /// Decides how to decline a request that was accepted and for which the queue has no room.
    pub(super) fn decline(&mut self, thing: &str) -> Decision {
        match self.things.get_mut(thing) {
            Some(known) => known.decline(Instant::now()),
            None => Decision::Ignore,
        }
    }

    fn remove_idle(&mut self, now: Instant) {
        if self.things.len() < self.cleanup_at {
            return;
        }
        self.things.retain(|_, thing| !thing.is_idle(now));
        self.cleanup_at = MIN_TRACKED.max(2 * self.things.len());
    }
}

impl ThingRequests {
    fn new(now: Instant) -> Self {
        Self {
            pending: Arc::new(()),
            requests: Bucket::new(now),
            rejections: Bucket::new(now),
            last_warning: None,
        }
    }

    fn decide(&mut self, name: &str, now: Instant) -> Decision {
        let pending = Arc::strong_count(&self.pending) - 1;
        if pending < MAX_PENDING && self.requests.take(&REQUESTS, now) {
            return Decision::Accept(PendingRequest(self.pending.clone()));
        }
        if self.last_warning.is_none_or(|at| now - at >= WARN_INTERVAL) {
            self.last_warning = Some(now);
            warn!(
                thing = name,
                "too many requests for the shadows of this thing: some are rejected with 429"
            );
        }
        self.decline(now)
    }

    fn decline(&mut self, now: Instant) -> Decision {
        match self.rejections.take(&REJECTIONS, now) {
            true => Decision::Reject,
            false => Decision::Ignore,
        }
    }

    /// Whether a new entry would make the same decisions.
    fn is_idle(&self, now: Instant) -> bool {
        let warned_recently = self.last_warning.is_some_and(|at| now - at < WARN_INTERVAL);
        Arc::strong_count(&self.pending) == 1
            && self.requests.0 <= now
            && self.rejections.0 <= now
            && !warned_recently
    }
}

/// One event every `interval`, and after an idle time as many at once as fit into `burst`.
struct Rate {
    interval: Duration,
    burst: Duration,
}

/// A token bucket (generic cell rate algorithm): the time at which all counted events would have happened at the steady rate.
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

    /// Sends `count` requests, each of which is done at once. Returns how many are accepted, rejected and ignored.
    fn send(limiter: &mut RequestLimiter, thing: &str, count: usize) -> [usize; 3] {
        let mut counts = [0; 3];
        for _ in 0..count {
            match limiter.decide(thing) {
                Decision::Accept(_) => counts[0] += 1,
                Decision::Reject => counts[1] += 1,
                Decision::Ignore => counts[2] += 1,
            }
        }
        counts
    }

    #[tokio::test(start_paused = true)]
    async fn limits_a_thing_that_sends_too_much_and_no_other() {
        let mut limiter = RequestLimiter::new();
        assert_eq!(send(&mut limiter, "loud", 10_000), [250, 5, 9745]);
        assert_eq!(send(&mut limiter, "quiet", 1), [1, 0, 0]);
        tokio::time::advance(Duration::from_secs(1)).await;
        assert_eq!(send(&mut limiter, "loud", 10_000), [50, 5, 9945]);
        tokio::time::advance(Duration::from_secs(60)).await;
        assert_eq!(send(&mut limiter, "loud", 250), [250, 0, 0]);
    }

    #[tokio::test(start_paused = true)]
    async fn limits_pending_requests() {
        let mut limiter = RequestLimiter::new();
        let mut pending = Vec::new();
        while let Decision::Accept(request) = limiter.decide("slow") {
            pending.push(request);
        }
        assert_eq!(pending.len(), 100);
        drop(pending);
        assert_eq!(send(&mut limiter, "slow", 1), [1, 0, 0]);
    }

    #[tokio::test(start_paused = true)]
    async fn removes_idle_things() {
        let mut limiter = RequestLimiter::new();
        let busy = limiter.decide("busy");
        for n in 0..100_000 {
            send(&mut limiter, &format!("door-{n}"), 1);
            tokio::time::advance(Duration::from_millis(1)).await;
        }
        assert!(limiter.things.len() <= 2 * MIN_TRACKED);
        assert!(
            limiter.things.contains_key("busy"),
            "it has a pending request"
        );
        drop(busy);
    }
}
