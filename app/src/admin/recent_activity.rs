//! What this process has done in the last quarter of an hour, for the charts of the overview.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use hdrhistogram::Histogram;
use keywright_adapters::decorator::Observer;
use keywright_domain::model::{LockEvent, Save, Write};
use keywright_domain::ports::Timer;

use crate::mutex::lock_mutex;

/// The time of a point of the charts, and their number.
pub(crate) const POINT: Duration = Duration::from_secs(10);
pub(crate) const POINTS: usize = 90;

/// The significant digits of times.
const DIGITS: u8 = 2;

/// Counts and times of the last [`POINTS`] points.
pub(crate) struct RecentActivity {
    timer: Arc<dyn Timer>,
    /// In the order of their numbers. Points without any activity may be missing.
    points: Mutex<VecDeque<Point>>,
}

struct Point {
    /// Counted from the start of the process.
    number: u64,
    activity: Activity,
}

/// Counts and times of a span.
#[derive(Clone, Default)]
pub(crate) struct Activity {
    /// Writes that the shadow has accepted.
    pub(crate) accepted: u64,
    /// Writes that locks have confirmed.
    pub(crate) confirmed: u64,
    /// Writes that locks have refused or failed to execute, and that the shadow did not accept, by their reasons.
    pub(crate) failures: BTreeMap<&'static str, u64>,
    /// The times from the request to its acceptance by the shadow, in milliseconds.
    pub(crate) accept_times: Times,
    /// The times from the acceptance to the confirmation, in milliseconds.
    pub(crate) confirm_times: Times,
}

/// A distribution of times.
#[derive(Clone, Default)]
pub(crate) struct Times(Option<Histogram<u32>>);

impl Times {
    fn record(&mut self, time: Duration) {
        let histogram = match &mut self.0 {
            Some(histogram) => histogram,
            // Without values, a point takes no memory for them.
            none => match Histogram::new(DIGITS) {
                Ok(empty) => none.insert(empty),
                Err(_) => return,
            },
        };
        let millis = u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
        histogram.saturating_record(millis);
    }

    fn add(&mut self, other: &Self) {
        match (&mut self.0, &other.0) {
            (_, None) => {}
            (none @ None, some) => none.clone_from(some),
            // Both grow as they need to.
            (Some(sum), Some(other)) => drop(sum.add(other)),
        }
    }

    /// In milliseconds. `None`: there are no times.
    pub(crate) fn quantile(&self, quantile: f64) -> Option<u64> {
        let histogram = self.0.as_ref()?;
        Some(histogram.value_at_quantile(quantile))
    }
}

impl Activity {
    fn add(&mut self, other: &Self) {
        self.accepted += other.accepted;
        self.confirmed += other.confirmed;
        for (reason, count) in &other.failures {
            *self.failures.entry(reason).or_default() += count;
        }
        self.accept_times.add(&other.accept_times);
        self.confirm_times.add(&other.confirm_times);
    }

    fn event(&mut self, event: &LockEvent, write: &Write) {
        match event {
            LockEvent::KeyWriteRequested(_) => {
                self.accepted += 1;
                if let Some(requested) = write.requested {
                    self.accept_times
                        .record(requested.time.since(write.prepared_at));
                }
            }
            LockEvent::KeyWriteConfirmed { .. } => {
                self.confirmed += 1;
                if let (Some(requested), Some(ended)) = (write.requested, write.ended_at()) {
                    self.confirm_times.record(ended.since(requested.time));
                }
            }
            _ => {}
        }
    }
}

impl RecentActivity {
    pub(crate) fn new(timer: Arc<dyn Timer>) -> Self {
        Self {
            timer,
            points: Mutex::default(),
        }
    }

    /// All points, the oldest first; the last one is not complete yet.
    pub(crate) fn points(&self) -> Vec<Activity> {
        let last = self.now();
        let mut all = vec![Activity::default(); POINTS];
        for point in lock_mutex(&self.points).iter() {
            let age = usize::try_from(last.saturating_sub(point.number)).unwrap_or(POINTS);
            if age < POINTS {
                all[POINTS - 1 - age] = point.activity.clone();
            }
        }
        all
    }

    /// The sum of these points.
    pub(crate) fn sum(points: &[Activity]) -> Activity {
        let mut sum = Activity::default();
        points.iter().for_each(|point| sum.add(point));
        sum
    }

    fn now(&self) -> u64 {
        self.timer.tick().0.as_secs() / POINT.as_secs()
    }
}

impl Observer for RecentActivity {
    fn saved(&self, save: &Save) {
        let failed = { save.writes.iter() }.filter(|write| write.reason().is_some());
        let mut failed = failed.peekable();
        if save.events.is_empty() && failed.peek().is_none() {
            return;
        }
        let number = self.now();
        let mut points = lock_mutex(&self.points);
        if points.back().is_none_or(|last| last.number < number) {
            points.push_back(Point {
                number,
                activity: Activity::default(),
            });
            if points.len() > POINTS {
                points.pop_front();
            }
        }
        let Some(Point { activity, .. }) = points.back_mut() else {
            return;
        };
        for recorded in &save.events {
            let write = save.writes.iter().find(|w| Some(w.id) == recorded.write);
            if let Some(write) = write {
                activity.event(&recorded.event, write);
                if let (LockEvent::KeyWriteFailed { .. }, Some(reason)) =
                    (&recorded.event, write.reason())
                {
                    *activity.failures.entry(reason.name()).or_default() += 1;
                }
            }
        }
        // A write that was aborted has no event.
        for write in failed.filter(|write| write.requested.is_none()) {
            if let Some(reason) = write.reason() {
                *activity.failures.entry(reason.name()).or_default() += 1;
            }
        }
    }
}
