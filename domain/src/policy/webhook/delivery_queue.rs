//! The deliveries of one webhook: which of them start, what a result changes, and how far the cursor moves.
//!
//! Events of a lock are delivered in the order of their versions, one at a time. Locks do not wait for each other. When a delivery fails,
//! its lock waits for another attempt, and the cursor passes the lock's events: a [`WaitingLock`] remembers them by their versions. So the
//! cursor moves on, and what is stored for a webhook grows with the number of locks whose deliveries fail, not with the number of events.
//!
//! While all deliveries fail, one at a time is tried. Once a few locks wait, each second one is of another lock.

use std::collections::{BTreeMap, HashMap, HashSet, VecDeque};
use std::time::Duration;

use super::retries::{FAILING_AFTER, Verdict, WebhookLimits, at_least};
use crate::model::{
    DeliveryOutcome, DisabledReason, FailureStreak, LockId, LockVersion, Position, ReplaySince,
    Timestamp, WaitingLock, WebhookEvent, WebhookProgress,
};

/// A delivery that starts now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NextDelivery {
    /// The lock.
    pub lock: LockId,
    /// The version of the event.
    pub version: LockVersion,
    /// The event. `None`: the lock waited, and its next event is read from the store, from this version on and up to `through`. The event
    /// that is found is reported by [`DeliveryQueue::found`].
    pub event: Option<Box<WebhookEvent>>,
    /// The last version that may be read.
    pub through: LockVersion,
}

/// What came of an attempt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FinishedAttempt {
    /// The outcome.
    pub outcome: DeliveryOutcome,
    /// When it is tried again. `None`: it is not.
    pub next_attempt: Option<Timestamp>,
    /// The webhook is to be disabled.
    pub disable: Option<DisabledReason>,
}

/// The changes since the last save.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct QueueChanges {
    /// The new progress.
    pub progress: WebhookProgress,
    /// Waiting locks that are new or have changed.
    pub put: Vec<WaitingLock>,
    /// Locks that no longer wait.
    pub remove: Vec<LockId>,
}

/// The deliveries of one webhook. It performs no I/O: the caller reads events, sends deliveries, and saves the changes.
#[derive(Debug)]
pub struct DeliveryQueue {
    limits: WebhookLimits,
    /// What was read behind the cursor, in the order of positions: `true` if the cursor may pass it.
    read: BTreeMap<Position, bool>,
    read_to: Position,
    cursor: Position,
    replay: Option<ReplaySince>,
    failures: Option<FailureStreak>,
    lanes: HashMap<LockId, Lane>,
    /// Locks with events that no delivery is in progress for, in the order in which they became ready.
    ready: VecDeque<LockId>,
    in_progress: usize,
    waiting: usize,
    /// Whether the next delivery is of a waiting lock, if one is due. Otherwise it is of a ready one, if there is one.
    is_turn_of_waiting: bool,
    /// Waiting locks that have changed, or no longer wait, since the last save.
    changed: HashSet<LockId>,
    saved: WebhookProgress,
}

/// The events of one lock.
#[derive(Debug)]
enum Lane {
    /// They are delivered as they are read.
    Ready {
        events: VecDeque<(Position, Box<WebhookEvent>)>,
        in_progress: bool,
    },
    /// Another attempt is due at some time.
    Waiting {
        waiting: WaitingLock,
        in_progress: bool,
    },
}

impl DeliveryQueue {
    /// The queue of a webhook with this progress and these waiting locks. `now` bounds how far in the future an attempt is due, in case the
    /// wall clock was set back.
    pub fn new(
        limits: WebhookLimits,
        progress: WebhookProgress,
        waiting: Vec<WaitingLock>,
        now: Timestamp,
    ) -> Self {
        let longest = limits.retries.iter().max().copied().unwrap_or_default();
        let latest = now.after(at_least(longest + longest / 10, None));
        let lanes: HashMap<LockId, Lane> = waiting
            .into_iter()
            .map(|waiting| {
                let due = waiting.due.min(latest);
                let lane = Lane::Waiting {
                    waiting: WaitingLock { due, ..waiting },
                    in_progress: false,
                };
                (waiting.lock, lane)
            })
            .collect();
        Self {
            limits,
            read: BTreeMap::new(),
            read_to: progress.cursor,
            cursor: progress.cursor,
            replay: progress.replay,
            failures: progress.failures,
            waiting: lanes.len(),
            lanes,
            ready: VecDeque::new(),
            in_progress: 0,
            is_turn_of_waiting: true,
            changed: HashSet::new(),
            saved: progress,
        }
    }

    /// Behind which position the next events are to be read. `None`: there is no room for more.
    pub fn read_after(&self) -> Option<Position> {
        let waiting = self.read.values().filter(|is_done| !**is_done).count();
        // A stopped webhook reads on until there is an event of a lock that does not wait.
        let is_full = waiting >= self.limits.max_read_ahead
            || self.waiting >= self.limits.max_waiting
            || self.is_stopped() && waiting > 0;
        (!is_full).then_some(self.read_to)
    }

    /// Adds an event that was read and is to be delivered. Events are added in the order of their positions.
    pub fn add(&mut self, position: Position, event: WebhookEvent) {
        if self.is_before_replay(position, event.recorded.time) {
            self.pass(position);
            return;
        }
        let (lock, version) = (event.recorded.lock, event.recorded.version);
        self.read_to = position;
        let lane = self.lanes.entry(lock).or_insert(Lane::Ready {
            events: VecDeque::new(),
            in_progress: false,
        });
        match lane {
            Lane::Ready {
                events,
                in_progress,
            } => {
                if events.is_empty() && !*in_progress {
                    self.ready.push_back(lock);
                }
                events.push_back((position, Box::new(event)));
                self.read.insert(position, false);
            }
            Lane::Waiting { waiting, .. } => {
                // After a replay the cursor can be behind what the lock waits for.
                waiting.next = waiting.next.min(version);
                waiting.through = waiting.through.max(version);
                self.changed.insert(lock);
                self.read.insert(position, true);
                self.move_cursor();
            }
        }
    }

    /// Notes that everything up to this position was read, and that events which were not added are not to be delivered.
    pub fn pass(&mut self, position: Position) {
        if position > self.read_to {
            // Only the last of several such positions is kept.
            if self.read.get(&self.read_to) == Some(&true) {
                self.read.remove(&self.read_to);
            }
            self.read_to = position;
            self.read.insert(position, true);
            self.move_cursor();
        }
    }

    /// The next delivery that starts now. The caller reports its end by [`DeliveryQueue::finish`].
    pub fn start(&mut self, now: Timestamp) -> Option<NextDelivery> {
        let parallel = match self.is_failing() {
            true => 1,
            false => self.limits.parallel,
        };
        if self.in_progress >= parallel {
            return None;
        }
        // While all deliveries fail and enough locks wait, a delivery of another lock starts only in place of one that is due.
        if self.is_stopped() && self.next_due().is_none_or(|due| due > now) {
            return None;
        }
        // In turns: locks whose deliveries always fail must not keep the others from being tried.
        let next = match self.is_turn_of_waiting {
            true => self.start_due(now).or_else(|| self.start_ready()),
            false => self.start_ready().or_else(|| self.start_due(now)),
        }?;
        self.is_turn_of_waiting = !self.is_turn_of_waiting;
        self.in_progress += 1;
        Some(next)
    }

    fn start_due(&mut self, now: Timestamp) -> Option<NextDelivery> {
        if self.waiting == 0 {
            return None;
        }
        let due = self.lanes.values_mut().filter_map(|lane| match lane {
            Lane::Waiting {
                waiting,
                in_progress,
            } if !*in_progress && waiting.due <= now => Some((waiting, in_progress)),
            _ => None,
        });
        let (waiting, in_progress) = due.min_by_key(|(waiting, _)| (waiting.due, waiting.lock))?;
        *in_progress = true;
        Some(NextDelivery {
            lock: waiting.lock,
            version: waiting.next,
            event: None,
            through: waiting.through,
        })
    }

    fn start_ready(&mut self) -> Option<NextDelivery> {
        while let Some(lock) = self.ready.pop_front() {
            if let Some(Lane::Ready {
                events,
                in_progress,
            }) = self.lanes.get_mut(&lock)
                && let Some((_, event)) = events.front()
            {
                *in_progress = true;
                let version = event.recorded.version;
                return Some(NextDelivery {
                    lock,
                    version,
                    event: Some(event.clone()),
                    through: version,
                });
            }
        }
        None
    }

    /// Notes which event of a waiting lock is delivered: the first one that the webhook wants, among those that `started` allows. `None`:
    /// it wants none of them, so that the delivery has ended.
    pub fn found(&mut self, started: &NextDelivery, found: Option<LockVersion>) {
        let lock = started.lock;
        let Some(Lane::Waiting {
            waiting,
            in_progress,
        }) = self.lanes.get_mut(&lock)
        else {
            return;
        };
        self.changed.insert(lock);
        // A replay may have gone back behind these events meanwhile.
        if waiting.next == started.version {
            waiting.next = found.unwrap_or(started.through.next());
        }
        if found.is_some() {
            return;
        }
        *in_progress = false;
        self.in_progress -= 1;
        // Further events may have been read meanwhile.
        if waiting.next > waiting.through {
            self.waiting -= 1;
            self.lanes.remove(&lock);
        }
    }

    /// Ends a delivery of an event that the webhook does not want any more, because its owner has lost the lock.
    pub fn skip(&mut self, started: &NextDelivery, now: Timestamp) {
        self.in_progress -= 1;
        self.end_event(started.lock, started.version, now);
    }

    /// Ends a delivery that was started and could not be tried, because the store failed. It starts again at `due`.
    pub fn postpone(&mut self, started: &NextDelivery, due: Timestamp) {
        self.in_progress -= 1;
        self.wait(started.lock, started.version, due, false);
    }

    /// Notes what came of a delivery. `random` spreads the attempts of many webhooks.
    pub fn finish(
        &mut self,
        lock: LockId,
        version: LockVersion,
        verdict: Verdict,
        now: Timestamp,
        random: u32,
    ) -> FinishedAttempt {
        self.in_progress -= 1;
        if verdict == Verdict::Delivered {
            self.note_success(now);
        } else {
            self.note_failure(now);
        }
        let (outcome, pause, disable) = match verdict {
            Verdict::Delivered => (DeliveryOutcome::Delivered, None, None),
            Verdict::Rejected => (DeliveryOutcome::Rejected, None, None),
            // It is delivered when the webhook is enabled again.
            Verdict::Gone => (
                DeliveryOutcome::Failed,
                Some(Duration::ZERO),
                Some(DisabledReason::Gone),
            ),
            Verdict::Failed { retry_after } => {
                let pause = self.pause_of(lock, random);
                match pause {
                    Some(pause) => {
                        let pause = at_least(pause, retry_after);
                        (DeliveryOutcome::Failed, Some(pause), None)
                    }
                    None => (DeliveryOutcome::GivenUp, None, None),
                }
            }
        };
        match pause {
            None => self.end_event(lock, version, now),
            Some(pause) => self.wait(lock, version, now.after(pause), !self.is_failing()),
        }
        let failing_since = self.failures.map(|failures| failures.since);
        let is_over = failing_since.is_some_and(|at| now.since(at) >= self.limits.disable_after);
        // A quiet webhook may have its second failure days after the first one.
        let is_over = is_over && self.is_failing();
        let is_failure = verdict != Verdict::Delivered;
        FinishedAttempt {
            outcome,
            next_attempt: pause.map(|pause| now.after(pause)),
            disable: disable.or((is_over && is_failure).then_some(DisabledReason::Failing)),
        }
    }

    fn note_success(&mut self, now: Timestamp) {
        let was_failing = self.is_failing();
        self.failures = None;
        if !was_failing {
            return;
        }
        // The endpoint is back: what waits is tried at once.
        for lane in self.lanes.values_mut() {
            if let Lane::Waiting { waiting, .. } = lane
                && waiting.due > now
            {
                waiting.due = now;
                self.changed.insert(waiting.lock);
            }
        }
    }

    fn note_failure(&mut self, now: Timestamp) {
        let failures = self.failures.get_or_insert(FailureStreak {
            since: now,
            count: 0,
        });
        failures.count = failures.count.saturating_add(1);
        // The wall clock was set back.
        failures.since = failures.since.min(now);
    }

    /// The pause before the next attempt of the lock. Attempts while all deliveries fail do not count, so that nothing is given up because
    /// the endpoint is down.
    fn pause_of(&self, lock: LockId, random: u32) -> Option<Duration> {
        let attempts = match self.lanes.get(&lock) {
            Some(Lane::Waiting { waiting, .. }) => waiting.attempts,
            _ => 0,
        };
        match self.failures.filter(|_| self.is_failing()) {
            Some(failures) => Some(self.limits.probe_pause(failures.count, random)),
            None => self.limits.pause(attempts + 1, random),
        }
    }

    /// Ends the delivery of an event for ever, and goes on with the next one of its lock.
    fn end_event(&mut self, lock: LockId, version: LockVersion, now: Timestamp) {
        let is_empty = match self.lanes.get_mut(&lock) {
            None => return,
            Some(Lane::Ready {
                events,
                in_progress,
            }) => {
                *in_progress = false;
                if let Some((position, _)) = events.pop_front() {
                    self.read.insert(position, true);
                }
                if !events.is_empty() {
                    self.ready.push_back(lock);
                }
                events.is_empty()
            }
            Some(Lane::Waiting {
                waiting,
                in_progress,
            }) => {
                *in_progress = false;
                self.changed.insert(lock);
                // A replay may have gone back behind this event meanwhile.
                if waiting.next == version {
                    (waiting.next, waiting.attempts) = (version.next(), 0);
                }
                waiting.due = now;
                let is_empty = waiting.next > waiting.through;
                self.waiting -= usize::from(is_empty);
                is_empty
            }
        };
        if is_empty {
            self.lanes.remove(&lock);
        }
        self.move_cursor();
    }

    /// `counts`: the attempt counts against the schedule.
    fn wait(&mut self, lock: LockId, version: LockVersion, due: Timestamp, counts: bool) {
        self.changed.insert(lock);
        match self.lanes.get_mut(&lock) {
            None => {}
            Some(Lane::Waiting {
                waiting,
                in_progress,
            }) => {
                *in_progress = false;
                waiting.due = due;
                waiting.attempts += u32::from(counts);
            }
            Some(lane @ Lane::Ready { .. }) => {
                let mut through = version;
                if let Lane::Ready { events, .. } = &*lane {
                    for (position, event) in events {
                        self.read.insert(*position, true);
                        through = through.max(event.recorded.version);
                    }
                }
                *lane = Lane::Waiting {
                    waiting: WaitingLock {
                        lock,
                        next: version,
                        through,
                        attempts: u32::from(counts),
                        due,
                    },
                    in_progress: false,
                };
                self.waiting += 1;
                self.move_cursor();
            }
        }
    }

    /// When the next waiting lock is due. `None`: no lock waits, or each is being tried.
    pub fn next_due(&self) -> Option<Timestamp> {
        let due = self.lanes.values().filter_map(|lane| match lane {
            Lane::Waiting {
                waiting,
                in_progress: false,
            } => Some(waiting.due),
            _ => None,
        });
        due.min()
    }

    /// The changes since the last call. `None`: there are none. A caller that cannot save them drops the queue, and makes another one of
    /// what is stored.
    pub fn changes(&mut self) -> Option<QueueChanges> {
        let progress = self.progress();
        if progress == self.saved && self.changed.is_empty() {
            return None;
        }
        let (mut put, mut remove) = (Vec::new(), Vec::new());
        for lock in self.changed.drain() {
            match self.lanes.get(&lock) {
                Some(Lane::Waiting { waiting, .. }) => put.push(*waiting),
                _ => remove.push(lock),
            }
        }
        self.saved = progress;
        Some(QueueChanges {
            progress,
            put,
            remove,
        })
    }

    /// Whether deliveries have ended, waiting locks have changed, or failures were counted since the last save. A cursor that has only
    /// passed events which are not delivered can be saved later.
    pub fn has_urgent_changes(&self) -> bool {
        !self.changed.is_empty() || self.failures != self.saved.failures
    }

    /// Whether the owner of the webhook has not set the progress since, which would be this one now.
    pub const fn continues(&self, progress: &WebhookProgress) -> bool {
        self.saved.restarts == progress.restarts
    }

    /// How far the deliveries are.
    pub fn progress(&self) -> WebhookProgress {
        WebhookProgress {
            cursor: self.cursor,
            replay: self.replay.filter(|replay| self.cursor < replay.until),
            failures: self.failures,
            restarts: self.saved.restarts,
        }
    }

    /// How many deliveries are in progress.
    pub const fn in_progress(&self) -> usize {
        self.in_progress
    }

    /// Whether the last deliveries have all failed.
    pub fn is_failing(&self) -> bool {
        self.failures.is_some_and(|failures| failures.is_failing())
    }

    /// Whether all deliveries fail, and so many locks wait that no further ones are tried.
    fn is_stopped(&self) -> bool {
        self.is_failing() && self.waiting >= self.limits.parallel
    }

    fn is_before_replay(&self, position: Position, time: Timestamp) -> bool {
        self.replay
            .is_some_and(|replay| position <= replay.until && time < replay.since)
    }

    fn move_cursor(&mut self) {
        while let Some(first) = self.read.first_entry()
            && *first.get()
        {
            self.cursor = first.remove_entry().0;
        }
    }
}

impl FailureStreak {
    /// Whether there are so many failures in a row that the webhook is shown as failing.
    pub const fn is_failing(&self) -> bool {
        self.count >= FAILING_AFTER
    }
}
