//! Limits on requests. A request first needs one of the permits for all requests in progress, before its credentials are checked
//! and the store is read; then a permit from the quota of its organization and its user. Failed credentials of an address and
//! waits of half-closed clients are limited, too. Health checks and metrics are not limited.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use keywright_domain::model::{Identity, Principal};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tokio::time::Instant;

use crate::mutex::lock_mutex;
use crate::settings::HttpLimits;

/// This many requests may wait for a permit even if none has become free recently.
const MIN_WAITING_LIMIT: usize = 16;

/// The number of seconds in which a full count of failures decays to zero.
const FAILURE_WINDOW: f64 = 5.0;

/// Maximum number of client addresses with a count of failures. When it is reached, addresses whose count has decayed to zero are
/// removed; if none has, further addresses get no count, and their failures are answered 429.
const MAX_SOURCES: usize = 4096;

/// Maximum number of half-closed clients that wait for their lock's result (`Prefer: wait`).
const MAX_HALF_CLOSED_WAITS: u64 = 64;

/// The limits of this module and what counts for them now.
pub(crate) struct RequestAdmission {
    permits: Arc<Semaphore>,
    max_in_flight: usize,
    waiting: AtomicUsize,
    freed_permits: Arc<Mutex<FreedPermitCounter>>,
    permit_timeout: Duration,
    requests: Quota,
    stream_permits: Arc<Semaphore>,
    streams: Quota,
    max_failures: f64,
    failures: Mutex<HashMap<IpAddr, Failures>>,
    /// The number of waits of half-closed clients that have begun.
    half_closed_waits: watch::Sender<u64>,
}

/// How many of something each organization and user may have at once.
struct Quota {
    max_each: usize,
    taken: TakenByIdentity,
}

type TakenByIdentity = Arc<Mutex<HashMap<String, usize>>>;

/// A permit for a stream of events, released on drop.
pub(crate) struct StreamPermit {
    _permit: OwnedSemaphorePermit,
    _quota: QuotaPermit,
}

/// A leaky bucket: each failure adds one, and time lowers it.
struct Failures {
    level: f64,
    at: Instant,
}

/// One of the permits for all requests in progress, released on drop.
pub(crate) struct Permit {
    _permit: OwnedSemaphorePermit,
    freed_permits: Arc<Mutex<FreedPermitCounter>>,
}

/// Counts the permits that become free within the time that a request may wait for one. That many requests may wait.
struct FreedPermitCounter {
    span: Duration,
    since: Instant,
    /// Permits that have become free in the current span.
    freed: usize,
    /// Permits that became free in the span before. `None`: nothing was measured in it.
    freed_before: Option<usize>,
}

/// A permit in the quota of each identity of a principal, released on drop.
pub(crate) struct QuotaPermit {
    identities: Vec<String>,
    taken: TakenByIdentity,
}

impl RequestAdmission {
    pub(crate) fn new(http_limits: &HttpLimits) -> Self {
        Self {
            permits: Arc::new(Semaphore::new(http_limits.max_in_flight)),
            max_in_flight: http_limits.max_in_flight,
            waiting: AtomicUsize::new(0),
            freed_permits: Arc::new(Mutex::new(FreedPermitCounter::new(
                http_limits.permit_timeout,
            ))),
            permit_timeout: http_limits.permit_timeout,
            requests: Quota::new(http_limits.max_in_flight_each),
            stream_permits: Arc::new(Semaphore::new(http_limits.max_streams)),
            streams: Quota::new(http_limits.max_streams_each),
            max_failures: f64::from(http_limits.max_failures),
            failures: Mutex::default(),
            half_closed_waits: watch::Sender::default(),
        }
    }

    /// Waits for a permit. `None`: none becomes free within [`HttpLimits::permit_timeout`], or more requests already wait than can
    /// start in that time.
    pub(crate) async fn permit(&self) -> Option<Permit> {
        let permit = match self.permits.clone().try_acquire_owned() {
            Ok(permit) => permit,
            Err(_) => self.wait().await?,
        };
        Some(Permit {
            _permit: permit,
            freed_permits: self.freed_permits.clone(),
        })
    }

    /// Whether a request that arrives now would be refused at once.
    pub(crate) fn is_overloaded(&self) -> bool {
        self.permits.available_permits() == 0
            && self.waiting.load(Ordering::Relaxed) >= self.max_waiting()
    }

    fn max_waiting(&self) -> usize {
        lock_mutex(&self.freed_permits).max_waiting(self.max_in_flight)
    }

    async fn wait(&self) -> Option<OwnedSemaphorePermit> {
        let _waiting = WaitingGuard::new(&self.waiting, self.max_waiting())?;
        let permit = self.permits.clone().acquire_owned();
        let waited = tokio::time::timeout(self.permit_timeout, permit).await;
        waited.ok()?.ok()
    }

    /// Takes a permit from the quota of each identity of `principal`. `None`: one of them already has as many requests in
    /// progress as its quota allows.
    pub(crate) fn quota_permit(&self, principal: &Principal) -> Option<QuotaPermit> {
        self.requests.permit(principal)
    }

    /// Takes a permit for a stream of events. `None`: too many streams are open, of all or of one identity of `principal`.
    pub(crate) fn stream_permit(&self, principal: &Principal) -> Option<StreamPermit> {
        let permit = self.stream_permits.clone().try_acquire_owned();
        Some(StreamPermit {
            _permit: permit.ok()?,
            _quota: self.streams.permit(principal)?,
        })
    }

    /// Registers a half-closed client that waits for its lock's result. Completes when [`MAX_HALF_CLOSED_WAITS`] more have
    /// registered; the caller then ends the wait. The number is limited because such a client may be gone and no longer counts
    /// for a quota.
    pub(crate) async fn end_of_half_closed_wait(&self) {
        let mut begun = self.half_closed_waits.subscribe();
        let mut own = 0;
        self.half_closed_waits.send_modify(|begun| {
            *begun += 1;
            own = *begun;
        });
        let last = own.saturating_add(MAX_HALF_CLOSED_WAITS);
        // Cannot fail: `self` owns the sender.
        let _ = begun.wait_for(|begun| *begun >= last).await;
    }

    /// Counts a request with credentials that are not valid. Returns whether the response is 429 instead of 401:
    /// this address has sent too many recently, or is new while [`MAX_SOURCES`] others have a count. Valid credentials from the
    /// address are still accepted.
    pub(crate) fn record_failed_credentials(&self, source: IpAddr) -> bool {
        let (mut sources, now) = (lock_mutex(&self.failures), Instant::now());
        if sources.len() >= MAX_SOURCES {
            sources.retain(|_, failures| self.level(failures, now) > 0.0);
        }
        if sources.len() >= MAX_SOURCES && !sources.contains_key(&source) {
            return true;
        }
        let failures = sources.entry(source).or_insert(Failures {
            level: 0.0,
            at: now,
        });
        failures.level = self.level(failures, now);
        failures.at = now;
        if failures.level >= self.max_failures {
            return true;
        }
        failures.level += 1.0;
        false
    }

    fn level(&self, failures: &Failures, now: Instant) -> f64 {
        let decayed = (now - failures.at).as_secs_f64() * self.max_failures / FAILURE_WINDOW;
        (failures.level - decayed).max(0.0)
    }
}

impl Quota {
    fn new(max_each: usize) -> Self {
        Self {
            max_each,
            taken: TakenByIdentity::default(),
        }
    }

    fn permit(&self, principal: &Principal) -> Option<QuotaPermit> {
        let mut identities: Vec<String> = principal.identities().map(Identity::to_string).collect();
        // A token and an API key of the same organization count once.
        identities.dedup();
        let mut taken = lock_mutex(&self.taken);
        let is_exhausted = |name: &String| taken.get(name).is_some_and(|n| *n >= self.max_each);
        if identities.iter().any(is_exhausted) {
            return None;
        }
        for name in &identities {
            *taken.entry(name.clone()).or_default() += 1;
        }
        Some(QuotaPermit {
            identities,
            taken: self.taken.clone(),
        })
    }
}

impl Drop for QuotaPermit {
    fn drop(&mut self) {
        let mut taken = lock_mutex(&self.taken);
        for name in &self.identities {
            if let Some(n) = taken.get_mut(name) {
                *n -= 1;
                if *n == 0 {
                    taken.remove(name);
                }
            }
        }
    }
}

/// Counts a request that waits for a permit, until it is dropped.
struct WaitingGuard<'a>(&'a AtomicUsize);

impl<'a> WaitingGuard<'a> {
    /// `None`: `max` requests already wait.
    fn new(waiting: &'a AtomicUsize, max: usize) -> Option<Self> {
        let increment = |n| (n < max).then_some(n + 1);
        let counted = waiting.fetch_update(Ordering::Relaxed, Ordering::Relaxed, increment);
        counted.is_ok().then(|| Self(waiting))
    }
}

impl Drop for WaitingGuard<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

impl FreedPermitCounter {
    fn new(span: Duration) -> Self {
        Self {
            span,
            since: Instant::now(),
            freed: 0,
            freed_before: None,
        }
    }

    /// Begins a new span if the current one is over.
    fn roll(&mut self) {
        let elapsed = self.since.elapsed();
        if elapsed >= self.span {
            let is_recent = elapsed < 2 * self.span;
            self.freed_before = is_recent.then_some(self.freed);
            (self.freed, self.since) = (0, Instant::now());
        }
    }

    fn record_freed(&mut self) {
        self.roll();
        self.freed += 1;
    }

    /// How many requests may wait. `default` replaces the count of the span before if there is none.
    fn max_waiting(&mut self, default: usize) -> usize {
        self.roll();
        let before = self.freed_before.unwrap_or(default);
        before.max(self.freed).max(MIN_WAITING_LIMIT)
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        lock_mutex(&self.freed_permits).record_freed();
    }
}

#[cfg(test)]
mod tests {
    use std::task::{Context, Waker};

    use keywright_domain::model::{OrganizationId, UserId};

    use super::*;

    fn admission() -> RequestAdmission {
        RequestAdmission::new(&HttpLimits {
            max_in_flight: 3,
            max_in_flight_each: 2,
            max_failures: 50,
            ..HttpLimits::default()
        })
    }

    fn user(name: &str) -> Identity {
        Identity::User(UserId::new(name).expect("a user"))
    }

    #[tokio::test(start_paused = true)]
    async fn a_request_without_a_permit_in_time_is_refused() {
        let admission = admission();
        let mut permits = Vec::new();
        for _ in 0..3 {
            permits.push(admission.permit().await.expect("a permit"));
        }
        let start = Instant::now();
        assert!(admission.permit().await.is_none());
        assert_eq!(start.elapsed(), HttpLimits::default().permit_timeout);
        permits.pop();
        assert!(admission.permit().await.is_some());
    }

    #[tokio::test(start_paused = true)]
    async fn at_most_as_many_wait_as_can_start_in_time() {
        let admission = Arc::new(admission());
        let mut permits = Vec::new();
        for _ in 0..3 {
            permits.push(admission.permit().await.expect("a permit"));
        }
        assert!(!admission.is_overloaded(), "one more may wait");
        let start = Instant::now();
        let mut requests = tokio::task::JoinSet::new();
        for _ in 0..MIN_WAITING_LIMIT + 5 {
            let admission = admission.clone();
            requests.spawn(async move { (admission.permit().await.is_some(), start.elapsed()) });
        }
        tokio::task::yield_now().await;
        assert!(admission.is_overloaded());
        let outcomes = requests.join_all().await;
        assert!(outcomes.iter().all(|(admitted, _)| !admitted));
        let at_once = outcomes.iter().filter(|(_, after)| after.is_zero());
        assert_eq!(at_once.count(), 5);
        assert!(!admission.is_overloaded(), "none waits any more");
    }

    #[test]
    fn the_quota_counts_all_credentials_of_an_identity() {
        let admission = admission();
        let acme = Identity::Organization(OrganizationId::new("acme").expect("an id"));
        let alice = Principal::of(user("alice"));
        let both = Principal::of_both(user("bob"), acme.clone());
        let held = [
            admission.quota_permit(&alice),
            admission.quota_permit(&alice),
        ];
        assert!(held.iter().all(Option::is_some));
        assert!(admission.quota_permit(&alice).is_none());
        let of_acme = [
            admission.quota_permit(&both),
            admission.quota_permit(&Principal::of(acme.clone())),
        ];
        assert!(of_acme.iter().all(Option::is_some));
        assert!(
            admission.quota_permit(&both).is_none(),
            "acme has its quota"
        );
        let bob = admission.quota_permit(&Principal::of(user("bob")));
        assert!(bob.is_some(), "bob has some left");
        drop(of_acme);
        let twice = Principal::of_both(acme.clone(), acme);
        let of_acme = [
            admission.quota_permit(&twice),
            admission.quota_permit(&twice),
        ];
        assert!(of_acme.iter().all(Option::is_some), "each counts once");
        drop((held, of_acme, bob));
        assert!(lock_mutex(&admission.requests.taken).is_empty());
    }

    #[tokio::test]
    async fn too_many_half_closed_waits_end_the_oldest() {
        let admission = admission();
        let mut waits: Vec<_> = (0..=MAX_HALF_CLOSED_WAITS)
            .map(|_| Box::pin(admission.end_of_half_closed_wait()))
            .collect();
        let last = waits.len() - 1;
        let mut has_ended = |n: usize| {
            let mut task = Context::from_waker(Waker::noop());
            waits[n].as_mut().poll(&mut task).is_ready()
        };
        for n in 0..last {
            assert!(!has_ended(n), "{n}");
        }
        assert!(!has_ended(last), "the newest continues");
        assert!(has_ended(0), "the oldest ends");
        assert!(!has_ended(1));
    }

    #[tokio::test(start_paused = true)]
    async fn failures_of_an_address_decay() {
        let admission = admission();
        let [source, other] = [[10, 0, 0, 1], [10, 0, 0, 2]].map(IpAddr::from);
        for _ in 0..50 {
            assert!(!admission.record_failed_credentials(source));
        }
        assert!(admission.record_failed_credentials(source));
        assert!(
            !admission.record_failed_credentials(other),
            "other addresses are not affected"
        );
        tokio::time::sleep(Duration::from_secs(1)).await;
        for _ in 0..10 {
            assert!(!admission.record_failed_credentials(source));
        }
        assert!(admission.record_failed_credentials(source));
    }

    #[tokio::test(start_paused = true)]
    async fn the_number_of_addresses_is_bounded() {
        let admission = admission();
        for n in 0..10_000_u32 {
            admission.record_failed_credentials(IpAddr::from(n.to_be_bytes()));
        }
        assert!(lock_mutex(&admission.failures).len() <= MAX_SOURCES);
        tokio::time::sleep(Duration::from_secs(1)).await;
        assert!(!admission.record_failed_credentials(IpAddr::from([1, 2, 3, 4])));
    }
}
