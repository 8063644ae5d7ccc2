//! Records the answers during a load test, by second and by endpoint.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

use crate::statistics::Latencies;

/// A write that was answered with 200.
#[derive(Clone, Debug)]
pub struct Accepted {
    /// The lock, as an offset to the first one of the population.
    pub offset: u64,
    /// The key.
    pub key: String,
    /// The version of its event; `None` if no event was recorded.
    pub version: Option<u64>,
    /// When it was sent; in an open loop, when it should have been sent.
    pub intended_at: Instant,
    /// When the 200 arrived.
    pub answered_at: Instant,
}

/// A method and a route: one row of the report's table.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Endpoint {
    /// For instance `POST`.
    pub method: &'static str,
    /// For instance `/locks/{id}/WriteKey`.
    pub route: &'static str,
}

/// The answers of one endpoint.
#[derive(Clone, Debug, Default)]
pub struct EndpointRecord {
    /// From sending a request to its complete answer, for every status.
    pub times: Latencies,
    /// Requests whose connection broke before the answer was complete.
    pub broken: u64,
    /// Answers with a status that the request should not get. Broken connections are not among them.
    pub failures: u64,
    /// Answers other than 200 with a status that the client expects.
    pub intended_refusals: u64,
}

/// The answers in one second.
#[derive(Clone, Debug, Default)]
pub struct Second {
    /// Answers by status; 0 is a broken connection.
    pub statuses: BTreeMap<u16, u64>,
    /// Expected refusals of intentionally invalid requests.
    pub intended_refusals: u64,
    /// Answers and broken connections by endpoint.
    pub endpoints: BTreeMap<Endpoint, u64>,
    /// Latencies of the 200s of writes.
    pub accept: Latencies,
    /// Times until locks settled writes, in the second in which a client saw it.
    pub confirm: Latencies,
}

/// All records of a run.
#[derive(Clone, Debug, Default)]
pub struct Record {
    /// By second, from the start.
    pub seconds: Vec<Second>,
    /// Answers by endpoint.
    pub endpoints: BTreeMap<Endpoint, EndpointRecord>,
    /// Latencies of the 200s of writes.
    pub accept: Latencies,
    /// Times until locks settled writes, by the clock of the service.
    pub confirm: Latencies,
    /// Times until a polling client saw that a write was settled, from the intended time of the write.
    pub seen: Latencies,
    /// Writes that were polled and not settled in time.
    pub unconfirmed: u64,
    /// Writes with a late result, after they had ended otherwise.
    pub late: u64,
    /// Writes that were settled as FAILED, which locks with faults do.
    pub failed: u64,
    /// Descriptions of unexpected answers, at most twenty.
    pub unexpected: Vec<String>,
    /// The number of unexpected answers.
    pub unexpected_count: u64,
    /// Writes that were answered with 200.
    pub accepted: Vec<Accepted>,
    /// Writes whose status is SUCCEEDED.
    pub succeeded: Vec<Accepted>,
    /// Keys of writes with an unknown outcome: a broken connection or a 504.
    pub undecided: BTreeSet<String>,
    /// Repeats with the same Idempotency-Key that got another answer.
    pub differing_repeats: u64,
}

/// Counts so far, each with the 99th percentile of the latency.
#[derive(Clone, Copy, Debug)]
pub struct Progress {
    /// Writes that were answered with 200.
    pub accepted: (u64, Duration),
    /// Writes that locks have settled.
    pub settled: (u64, Duration),
}

/// The number of unexpected answers that are listed.
pub const MAX_LISTED: usize = 20;

/// Collects the records of a run.
pub struct Recorder {
    start: Instant,
    record: Mutex<Record>,
}

impl Default for Recorder {
    fn default() -> Self {
        Self {
            start: Instant::now(),
            record: Mutex::default(),
        }
    }
}

impl Recorder {
    /// The start of the recording, from which seconds count.
    pub const fn start(&self) -> Instant {
        self.start
    }

    /// Records the answer to a request, named as in reports, or a broken connection: the status is `None` if the connection broke
    /// before the answer was complete. `expected` are the allowed statuses, in addition to 429, 502, 503 and 504; `took` is the time
    /// from sending the request to its complete answer.
    pub fn answered(
        &self,
        name: &'static str,
        endpoint: Endpoint,
        expected: &'static [u16],
        status: Option<u16>,
        took: Duration,
    ) {
        let is_expected = status.is_some_and(|status| expected.contains(&status));
        let is_intended_refusal = is_expected && status != Some(200);
        let mut record = self.record();
        let second = self.second(&mut record);
        *second.statuses.entry(status.unwrap_or(0)).or_default() += 1;
        *second.endpoints.entry(endpoint).or_default() += 1;
        second.intended_refusals += u64::from(is_intended_refusal);
        let row = record.endpoints.entry(endpoint).or_default();
        row.intended_refusals += u64::from(is_intended_refusal);
        match status {
            None => row.broken += 1,
            Some(_) => {
                row.times.add(took);
                row.failures += u64::from(!is_expected);
            }
        }
        drop(record);
        let turned_away_or_open = |status: u16| matches!(status, 429 | 502 | 503 | 504);
        if let Some(status) = status
            && !expected.contains(&status)
            && !turned_away_or_open(status)
        {
            self.unexpected(format!("{name}: {status} instead of {expected:?}"));
        }
    }

    /// Records a write that was answered with 200.
    pub fn accepted(&self, accepted: Accepted) {
        let took = accepted.answered_at - accepted.intended_at;
        let mut record = self.record();
        self.second(&mut record).accept.add(took);
        record.accept.add(took);
        record.accepted.push(accepted);
    }

    /// Records that the outcome of the write of this key is unknown.
    pub fn undecided(&self, key: &str) {
        self.record().undecided.insert(key.to_owned());
    }

    /// Records that a lock has settled a write, and the time since its request.
    pub fn settled(&self, write: Accepted, succeeded: bool, took: Duration) {
        let seen = write.intended_at.elapsed();
        let mut record = self.record();
        self.second(&mut record).confirm.add(took);
        record.confirm.add(took);
        record.seen.add(seen);
        match succeeded {
            true => record.succeeded.push(write),
            false => record.failed += 1,
        }
    }

    /// Records a late result.
    pub fn late(&self) {
        self.record().late += 1;
    }

    /// Records writes that were not settled in time, or that ended without a result.
    pub fn unconfirmed(&self, count: u64) {
        self.record().unconfirmed += count;
    }

    /// Records an unexpected answer.
    pub fn unexpected(&self, what: String) {
        let mut record = self.record();
        record.unexpected_count += 1;
        if record.unexpected.len() < MAX_LISTED {
            record.unexpected.push(what);
        }
    }

    /// Records a repeat with another answer.
    pub fn differing_repeat(&self) {
        self.record().differing_repeats += 1;
    }

    /// The progress so far. The lock is held only briefly, because the measured clients wait for it.
    pub fn progress(&self) -> Progress {
        let record = self.record();
        let progress = |times: &Latencies| (times.count(), times.quantile(0.99));
        Progress {
            accepted: progress(&record.accept),
            settled: progress(&record.confirm),
        }
    }

    /// Takes all records so far. Later ones are lost.
    pub fn take(&self) -> Record {
        std::mem::take(&mut self.record())
    }

    fn second<'a>(&self, record: &'a mut Record) -> &'a mut Second {
        let now = usize::try_from(self.start.elapsed().as_secs()).unwrap_or(usize::MAX);
        if record.seconds.len() <= now {
            record.seconds.resize_with(now + 1, Second::default);
        }
        &mut record.seconds[now]
    }

    fn record(&self) -> MutexGuard<'_, Record> {
        self.record.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Record {
    /// Answers by status.
    pub fn statuses(&self) -> BTreeMap<u16, u64> {
        let mut all = BTreeMap::new();
        for (status, n) in self.seconds.iter().flat_map(|second| &second.statuses) {
            *all.entry(*status).or_default() += n;
        }
        all
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn failures_and_intended_refusals_are_counted_by_endpoint() {
        let recorder = Recorder::default();
        let write = Endpoint {
            method: "POST",
            route: "/locks/{id}/WriteKey",
        };
        let read = Endpoint {
            method: "GET",
            route: "/locks/{id}/writes/{writeId}",
        };
        let answered = |endpoint, status, expected, millis| {
            let took = Duration::from_millis(millis);
            recorder.answered("a request", endpoint, expected, status, took);
        };
        answered(write, Some(200), &[200], 10);
        answered(write, Some(404), &[404], 20);
        answered(write, Some(503), &[200], 30);
        answered(write, Some(200), &[401], 40);
        answered(write, None, &[200], 60_000);
        answered(read, Some(200), &[200], 5);
        let record = recorder.take();
        let row = &record.endpoints[&write];
        assert_eq!(
            (
                row.times.count(),
                row.broken,
                row.failures,
                row.intended_refusals
            ),
            (4, 1, 2, 1),
            "a broken connection has no latency"
        );
        assert!(row.times.quantile(1.0) < Duration::from_secs(1));
        assert_eq!(record.endpoints[&read].times.count(), 1);
        let counted: u64 = record
            .seconds
            .iter()
            .map(|second| second.endpoints[&write])
            .sum();
        assert_eq!(counted, 5);
    }
}
