//! A limit on the requests per second for one thing, as AWS IoT has. Off unless `--requests-a-second` is set.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

/// Counts requests by thing within the current second.
#[derive(Default)]
pub(crate) struct RequestsPerSecond(Mutex<Counts>);

#[derive(Default)]
struct Counts {
    max_per_second: Option<u32>,
    /// The current second since the epoch, to which the counts belong.
    second: u64,
    by_thing: HashMap<String, u32>,
}

impl RequestsPerSecond {
    /// Sets the limit of requests per second and thing. `None`: no limit.
    pub(crate) fn set(&self, max_per_second: Option<u32>) {
        let mut counts = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        *counts = Counts {
            max_per_second,
            ..Counts::default()
        };
    }

    /// Counts a request of the thing and returns whether it is within the limit. `now` is not called if no limit is set.
    pub(crate) fn admits(&self, thing: &str, now: impl Fn() -> u64) -> bool {
        let mut counts = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(max) = counts.max_per_second else {
            return true;
        };
        let now = now();
        if counts.second != now {
            counts.second = now;
            counts.by_thing.clear();
        }
        let count = counts.by_thing.entry(thing.to_owned()).or_default();
        *count = count.saturating_add(1);
        *count <= max
    }
}
