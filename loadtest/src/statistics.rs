//! Latencies and counts of answers.

use std::collections::BTreeMap;
use std::time::Duration;

use hdrhistogram::Histogram;

/// Significant digits of a recorded latency.
const DIGITS: u8 = 3;

/// A histogram of latencies, in microseconds.
#[derive(Clone, Debug)]
pub struct Latencies(Histogram<u64>);

impl Default for Latencies {
    fn default() -> Self {
        Self(Histogram::new(DIGITS).expect("three digits are valid"))
    }
}

impl Latencies {
    pub fn add(&mut self, time: Duration) {
        let micros = u64::try_from(time.as_micros()).unwrap_or(u64::MAX);
        // The histogram resizes itself, so that recording does not fail.
        let _ = self.0.record(micros.max(1));
    }

    pub fn merge(&mut self, other: &Self) {
        self.0 += &other.0;
    }

    pub fn count(&self) -> u64 {
        self.0.len()
    }

    /// Buckets with an upper bound in milliseconds and a count; three buckets for each doubling.
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

    /// A quantile: 0.5 is the median.
    pub fn quantile(&self, share: f64) -> Duration {
        Duration::from_micros(self.0.value_at_quantile(share))
    }
}

/// Answers to requests.
#[derive(Clone, Debug, Default)]
pub struct AnswerCounts {
    /// The number of answers by status.
    pub statuses: BTreeMap<u16, u64>,
    /// Connections that broke before the answer was complete.
    pub broken: u64,
    /// The latencies of the 200s.
    pub accepted: Latencies,
}

impl AnswerCounts {
    pub fn add(&mut self, status: Option<u16>, took: Duration) {
        match status {
            None => self.broken += 1,
            Some(status) => *self.statuses.entry(status).or_default() += 1,
        }
        if status == Some(200) {
            self.accepted.add(took);
        }
    }

    pub fn merge(&mut self, other: &Self) {
        for (status, n) in &other.statuses {
            *self.statuses.entry(*status).or_default() += n;
        }
        self.broken += other.broken;
        self.accepted.merge(&other.accepted);
    }

    pub fn count(&self, status: u16) -> u64 {
        self.statuses.get(&status).copied().unwrap_or_default()
    }
}
