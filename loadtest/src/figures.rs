//! What was measured.

use std::collections::BTreeMap;
use std::time::Duration;

use hdrhistogram::Histogram;

/// How many significant digits of a time are kept.
const DIGITS: u8 = 3;

/// Times, in microseconds.
#[derive(Clone, Debug)]
pub struct Times(Histogram<u64>);

impl Default for Times {
    fn default() -> Self {
        Self(Histogram::new(DIGITS).expect("three digits are possible"))
    }
}

impl Times {
    pub fn add(&mut self, time: Duration) {
        let micros = u64::try_from(time.as_micros()).unwrap_or(u64::MAX);
        // It grows with what it is given.
        let _ = self.0.record(micros.max(1));
    }

    pub fn merge(&mut self, other: &Self) {
        self.0 += &other.0;
    }

    pub fn count(&self) -> u64 {
        self.0.len()
    }

    /// How many took up to so many milliseconds: three buckets for each doubling, from the shortest to the longest.
    pub fn buckets(&self) -> Vec<(f64, u64)> {
        if self.0.is_empty() {
            return Vec::new();
        }
        let steps = self.0.iter_log(self.0.min().max(1), 2_f64.cbrt());
        #[expect(clippy::cast_precision_loss, reason = "microseconds far below 2^52")]
        let bucket = |value: u64, count| (value as f64 / 1000.0, count);
        steps
            .map(|step| bucket(step.value_iterated_to(), step.count_since_last_iteration()))
            .collect()
    }

    /// The time within which this share of all is: 0.5 for the median.
    pub fn at(&self, share: f64) -> Duration {
        Duration::from_micros(self.0.value_at_quantile(share))
    }
}

/// How requests were answered.
#[derive(Clone, Debug, Default)]
pub struct Answers {
    /// How many of each status.
    pub statuses: BTreeMap<u16, u64>,
    /// Connections that broke before the answer was there.
    pub broken: u64,
    /// Until each 200.
    pub good: Times,
}

impl Answers {
    pub fn add(&mut self, status: Option<u16>, took: Duration) {
        match status {
            None => self.broken += 1,
            Some(status) => *self.statuses.entry(status).or_default() += 1,
        }
        if status == Some(200) {
            self.good.add(took);
        }
    }

    pub fn merge(&mut self, other: &Self) {
        for (status, n) in &other.statuses {
            *self.statuses.entry(*status).or_default() += n;
        }
        self.broken += other.broken;
        self.good.merge(&other.good);
    }

    pub fn of(&self, status: u16) -> u64 {
        self.statuses.get(&status).copied().unwrap_or_default()
    }
}
