//! Who is let in when more is asked than can be done: first by what is in progress altogether, before anybody looks at
//! credentials or the store, then by whom it is for. Health checks and metrics are always answered.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use keywright_domain::model::{Identity, Principal};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tokio::time::Instant;

use crate::settings::Bounds;

/// So many may wait for a place also where none has become free lately.
const MIN_WAITING: usize = 16;

/// In how many seconds a source is forgiven all that it may fail at once.
const FAILURE_WINDOW: f64 = 5.0;

/// How many sources are remembered; beyond that, those whose failures are forgiven are forgotten.
const MAX_SOURCES: usize = 4096;

/// How many requests whose clients have ended what they send may wait for their locks at once.
const MAX_HALF_CLOSED_WAITS: u64 = 64;

pub(crate) struct Admission {
    places: Arc<Semaphore>,
    waiting: AtomicUsize,
    pace: Arc<Mutex<DrainEstimator>>,
    start_time: Duration,
    in_flight: usize,
    share: usize,
    most_failures: f64,
    shares: Shares,
    failures: Mutex<HashMap<IpAddr, Failures>>,
    /// How many waits of half-closed clients have begun.
    half_closed_waits: watch::Sender<u64>,
}

/// How many requests of whom are in progress.
type Shares = Arc<Mutex<HashMap<String, usize>>>;

/// A bucket that failures fill and time empties.
struct Failures {
    level: f64,
    at: Instant,
}

/// A place among all that is in progress, until it is dropped.
pub(crate) struct Permit {
    _permit: OwnedSemaphorePermit,
    pace: Arc<Mutex<DrainEstimator>>,
}

/// How many places become free in the time that somebody waits for one: so many may wait.
struct DrainEstimator {
    span: Duration,
    since: Instant,
    freed: usize,
    /// In the span before; `None`: too little went on for it to say anything.
    before: Option<usize>,
}

/// A place among what is in progress for each of somebody's identities, until it is dropped.
pub(crate) struct QuotaPermit {
    names: Vec<String>,
    shares: Shares,
}

impl Admission {
    pub(crate) fn new(bounds: &Bounds) -> Self {
        Self {
            places: Arc::new(Semaphore::new(bounds.in_flight)),
            waiting: AtomicUsize::new(0),
            pace: Arc::new(Mutex::new(DrainEstimator::new(bounds.start_time))),
            in_flight: bounds.in_flight,
            start_time: bounds.start_time,
            share: bounds.share,
            most_failures: f64::from(bounds.failures),
            shares: Shares::default(),
            failures: Mutex::default(),
            half_closed_waits: watch::Sender::default(),
        }
    }

    /// A place, as soon as one is free. `None`: none is within the time in which something is to start, or more wait
    /// already than start in that time.
    pub(crate) async fn permit(&self) -> Option<Permit> {
        let permit = match self.places.clone().try_acquire_owned() {
            Ok(permit) => permit,
            Err(_) => self.wait().await?,
        };
        Some(Permit {
            _permit: permit,
            pace: self.pace.clone(),
        })
    }

    /// Whether a request that comes now gets no place, nor waits for one.
    pub(crate) fn is_overloaded(&self) -> bool {
        self.places.available_permits() == 0 && {
            let waiting = self.waiting.load(Ordering::Relaxed);
            waiting >= lock(&self.pace).most_waiting(self.in_flight)
        }
    }

    async fn wait(&self) -> Option<OwnedSemaphorePermit> {
        let most = lock(&self.pace).most_waiting(self.in_flight);
        let _waiting = Waiting::among(&self.waiting, most)?;
        let free = self.places.clone().acquire_owned();
        tokio::time::timeout(self.start_time, free).await.ok()?.ok()
    }

    /// A share of the places. `None`: an organization or user of these credentials has all that it may have.
    pub(crate) fn share(&self, principal: &Principal) -> Option<QuotaPermit> {
        let mut names: Vec<String> = principal.identities().map(Identity::to_string).collect();
        // A token and an API key of one organization are one share.
        names.dedup();
        let mut shares = lock(&self.shares);
        let taken = |name: &String| shares.get(name).is_some_and(|n| *n >= self.share);
        if names.iter().any(taken) {
            return None;
        }
        for name in &names {
            *shares.entry(name.clone()).or_default() += 1;
        }
        Some(QuotaPermit {
            names,
            shares: self.shares.clone(),
        })
    }

    /// Notes that a client whose request waits for a lock has ended what it sends. Completes when the wait is to end because
    /// too many others like it have begun since: such a client may be gone, and holds no share.
    pub(crate) async fn end_of_half_closed_wait(&self) {
        let mut begun = self.half_closed_waits.subscribe();
        let mut own = 0;
        self.half_closed_waits.send_modify(|begun| {
            *begun += 1;
            own = *begun;
        });
        let last = own.saturating_add(MAX_HALF_CLOSED_WAITS);
        // The sender lives as long as this borrow of it.
        let _ = begun.wait_for(|begun| *begun >= last).await;
    }

    /// Notes that credentials from this source were refused. Whether there were too many of them lately: then it is told
    /// to come later. Good credentials are let in all the same.
    pub(crate) fn failed(&self, source: IpAddr) -> bool {
        let (mut sources, now) = (lock(&self.failures), Instant::now());
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
        if failures.level >= self.most_failures {
            return true;
        }
        failures.level += 1.0;
        false
    }

    fn level(&self, failures: &Failures, now: Instant) -> f64 {
        let forgiven = (now - failures.at).as_secs_f64() * self.most_failures / FAILURE_WINDOW;
        (failures.level - forgiven).max(0.0)
    }
}

impl Drop for QuotaPermit {
    fn drop(&mut self) {
        let mut shares = lock(&self.shares);
        for name in &self.names {
            if let Some(n) = shares.get_mut(name) {
                *n -= 1;
                if *n == 0 {
                    shares.remove(name);
                }
            }
        }
    }
}

/// One of those who wait, until it is dropped.
struct Waiting<'a>(&'a AtomicUsize);

impl<'a> Waiting<'a> {
    /// `None`: so many wait already.
    fn among(all: &'a AtomicUsize, most: usize) -> Option<Self> {
        let one_more = |n| (n < most).then_some(n + 1);
        let counted = all.fetch_update(Ordering::Relaxed, Ordering::Relaxed, one_more);
        counted.is_ok().then(|| Self(all))
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

impl DrainEstimator {
    fn new(span: Duration) -> Self {
        Self {
            span,
            since: Instant::now(),
            freed: 0,
            before: None,
        }
    }

    fn roll(&mut self) {
        let elapsed = self.since.elapsed();
        if elapsed >= self.span {
            let recent = elapsed < 2 * self.span;
            self.before = recent.then_some(self.freed);
            (self.freed, self.since) = (0, Instant::now());
        }
    }

    fn free(&mut self) {
        self.roll();
        self.freed += 1;
    }

    /// How many may wait; `places` where nobody knows better.
    fn most_waiting(&mut self, places: usize) -> usize {
        self.roll();
        let before = self.before.unwrap_or(places);
        before.max(self.freed).max(MIN_WAITING)
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        lock(&self.pace).free();
    }
}

fn lock<T>(shared: &Mutex<T>) -> MutexGuard<'_, T> {
    shared.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use std::task::{Context, Waker};

    use keywright_domain::model::{OrganizationId, UserId};

    use super::*;

    fn admission() -> Admission {
        Admission::new(&Bounds {
            in_flight: 3,
            share: 2,
            failures: 50,
            ..Bounds::default()
        })
    }

    fn user(name: &str) -> Identity {
        Identity::User(UserId::new(name).expect("a user"))
    }

    #[tokio::test(start_paused = true)]
    async fn who_finds_no_place_in_time_is_turned_away() {
        let admission = admission();
        let mut places = Vec::new();
        for _ in 0..3 {
            places.push(admission.permit().await.expect("a place"));
        }
        let start = Instant::now();
        assert!(admission.permit().await.is_none());
        assert_eq!(start.elapsed(), Bounds::default().start_time);
        places.pop();
        assert!(admission.permit().await.is_some());
    }

    #[tokio::test(start_paused = true)]
    async fn no_more_wait_than_can_start_in_time() {
        let admission = Arc::new(admission());
        let mut places = Vec::new();
        for _ in 0..3 {
            places.push(admission.permit().await.expect("a place"));
        }
        assert!(!admission.is_overloaded(), "one more may wait");
        let start = Instant::now();
        let mut asking = tokio::task::JoinSet::new();
        for _ in 0..MIN_WAITING + 5 {
            let admission = admission.clone();
            asking.spawn(async move { (admission.permit().await.is_some(), start.elapsed()) });
        }
        tokio::task::yield_now().await;
        assert!(admission.is_overloaded());
        let asked = asking.join_all().await;
        assert!(asked.iter().all(|(admitted, _)| !admitted));
        let at_once = asked.iter().filter(|(_, after)| after.is_zero());
        assert_eq!(at_once.count(), 5);
        assert!(!admission.is_overloaded(), "nobody waits any more");
    }

    #[test]
    fn nobody_has_more_than_a_share_by_any_of_their_credentials() {
        let admission = admission();
        let acme = Identity::Organization(OrganizationId::new("acme").expect("an id"));
        let alice = Principal::of(user("alice"));
        let both = Principal::of_both(user("bob"), acme.clone());
        let held = [admission.share(&alice), admission.share(&alice)];
        assert!(held.iter().all(Option::is_some));
        assert!(admission.share(&alice).is_none());
        let of_acme = [
            admission.share(&both),
            admission.share(&Principal::of(acme.clone())),
        ];
        assert!(of_acme.iter().all(Option::is_some));
        assert!(admission.share(&both).is_none(), "acme has its share");
        let bob = admission.share(&Principal::of(user("bob")));
        assert!(bob.is_some(), "bob himself has one left");
        drop(of_acme);
        let twice = Principal::of_both(acme.clone(), acme);
        let of_acme = [admission.share(&twice), admission.share(&twice)];
        assert!(of_acme.iter().all(Option::is_some), "one share each");
        drop((held, of_acme, bob));
        assert!(lock(&admission.shares).is_empty());
    }

    #[tokio::test]
    async fn the_oldest_wait_of_a_half_closed_client_ends_when_there_are_too_many() {
        let admission = admission();
        let mut waits: Vec<_> = (0..=MAX_HALF_CLOSED_WAITS)
            .map(|_| Box::pin(admission.end_of_half_closed_wait()))
            .collect();
        let last = waits.len() - 1;
        let mut is_over = |n: usize| {
            let mut task = Context::from_waker(Waker::noop());
            waits[n].as_mut().poll(&mut task).is_ready()
        };
        for n in 0..last {
            assert!(!is_over(n), "{n}");
        }
        assert!(!is_over(last), "the newest goes on");
        assert!(is_over(0), "the oldest ends");
        assert!(!is_over(1));
    }

    #[tokio::test(start_paused = true)]
    async fn failures_of_a_source_are_forgiven_with_time() {
        let admission = admission();
        let [source, other] = [[10, 0, 0, 1], [10, 0, 0, 2]].map(IpAddr::from);
        for _ in 0..50 {
            assert!(!admission.failed(source));
        }
        assert!(admission.failed(source));
        assert!(
            !admission.failed(other),
            "others have nothing to do with it"
        );
        tokio::time::sleep(Duration::from_secs(1)).await;
        for _ in 0..10 {
            assert!(!admission.failed(source));
        }
        assert!(admission.failed(source));
    }

    #[tokio::test(start_paused = true)]
    async fn sources_are_forgotten_when_there_are_too_many() {
        let admission = admission();
        for n in 0..10_000_u32 {
            admission.failed(IpAddr::from(n.to_be_bytes()));
        }
        assert!(lock(&admission.failures).len() <= MAX_SOURCES);
        tokio::time::sleep(Duration::from_secs(1)).await;
        assert!(!admission.failed(IpAddr::from([1, 2, 3, 4])));
    }
}
