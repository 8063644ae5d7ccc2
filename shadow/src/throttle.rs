//! How many requests a thing's shadows take in a second: AWS IoT's bound, off unless it is asked for.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

/// Counts requests by thing, second by second.
#[derive(Default)]
pub(crate) struct Throttle(Mutex<Counts>);

#[derive(Default)]
struct Counts {
    most: Option<u32>,
    second: u64,
    by_thing: HashMap<String, u32>,
}

impl Throttle {
    /// From now on at most so many requests a second and thing; `None`: any number.
    pub(crate) fn set(&self, most: Option<u32>) {
        let mut counts = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        *counts = Counts {
            most,
            ..Counts::default()
        };
    }

    /// Whether the thing may have one more request in the second `now`.
    pub(crate) fn admits(&self, thing: &str, now: impl Fn() -> u64) -> bool {
        let mut counts = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(most) = counts.most else {
            return true;
        };
        let now = now();
        if counts.second != now {
            counts.second = now;
            counts.by_thing.clear();
        }
        let count = counts.by_thing.entry(thing.to_owned()).or_default();
        *count = count.saturating_add(1);
        *count <= most
    }
}
