//! What happens during a load test, second by second.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

use crate::figures::Times;

/// A write that was answered 200.
#[derive(Clone, Debug)]
pub struct Accepted {
    /// The lock's place in the population.
    pub place: u64,
    /// The key.
    pub key: String,
    /// The version of its event; `None`: nothing new was recorded.
    pub version: Option<u64>,
    /// When it was sent, or in an open loop was meant to be sent.
    pub meant: Instant,
    /// When its 200 was there.
    pub answered: Instant,
}

/// A method and a route: one row of the report's table.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Endpoint {
    /// Such as `POST`.
    pub method: &'static str,
    /// Such as `/locks/{id}/WriteKey`.
    pub route: &'static str,
}

/// How requests to one endpoint were answered.
#[derive(Clone, Debug, Default)]
pub struct EndpointRecord {
    /// From sending a request to its complete answer, whatever its status.
    pub times: Times,
    /// Requests whose connection broke before the answer was complete.
    pub broken: u64,
    /// Answers with a status that the request should not get. Broken connections are not among them.
    pub failures: u64,
    /// Answers other than 200 with a status that the client expects.
    pub intended_refusals: u64,
}

/// What happened in one second.
#[derive(Clone, Debug, Default)]
pub struct Second {
    /// Answers to all requests, by status; 0: the connection broke.
    pub statuses: BTreeMap<u16, u64>,
    /// Those of them that refuse a request that is wrong on purpose.
    pub intended_refusals: u64,
    /// Requests to each endpoint that were answered, or whose connection broke.
    pub endpoints: BTreeMap<Endpoint, u64>,
    /// Until writes were answered 200.
    pub accept: Times,
    /// Until locks had confirmed writes, by the second in which that was seen.
    pub confirm: Times,
}

/// All of it.
#[derive(Clone, Debug, Default)]
pub struct Record {
    /// From the start on.
    pub seconds: Vec<Second>,
    /// Answers by endpoint, in all.
    pub endpoints: BTreeMap<Endpoint, EndpointRecord>,
    /// Until writes were answered 200, in all.
    pub accept: Times,
    /// Until locks had settled writes, by the service's word, in all.
    pub confirm: Times,
    /// Until a client that looks again and again saw that, counted from when its write was meant to be sent.
    pub seen: Times,
    /// Writes that were followed and not settled in time.
    pub unconfirmed: u64,
    /// Writes that a lock reported on when they had ended otherwise.
    pub late: u64,
    /// Writes that were settled as FAILED, which a fleet with faults is expected to do.
    pub failed: u64,
    /// Answers that the request must not get, with what was sent: twenty at most.
    pub unexpected: Vec<String>,
    /// How many of those there were.
    pub unexpected_count: u64,
    /// Writes that were answered 200.
    pub accepted: Vec<Accepted>,
    /// Keys of which their locks' writes say SUCCEEDED.
    pub succeeded: Vec<Accepted>,
    /// Keys of which nobody knows whether they were written: the connection broke, or the answer was a 504.
    pub undecided: BTreeSet<String>,
    /// Repeats under one Idempotency-Key that were not answered as the first was.
    pub differing_repeats: u64,
}

/// How many there were, and the time within which 99 of 100 were.
#[derive(Clone, Copy, Debug)]
pub struct Progress {
    /// Writes that were answered 200.
    pub accepted: (u64, Duration),
    /// Writes that their locks have settled.
    pub settled: (u64, Duration),
}

/// How many unexpected answers are shown.
pub const MAX_SHOWN: usize = 20;

/// A request that was answered, or whose connection broke.
#[derive(Clone, Copy, Debug)]
pub struct Answered {
    /// Name of the request in figures.
    pub name: &'static str,
    /// Method and route.
    pub endpoint: Endpoint,
    /// `None`: the connection broke before the answer was complete.
    pub status: Option<u16>,
    /// The statuses that the request may get, beside those that turn it away (429, 503) or leave its outcome open (502, 504).
    pub expected: &'static [u16],
    /// From sending it to its complete answer.
    pub took: Duration,
}

/// Takes it in.
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
    /// When recording began: seconds count from here.
    pub const fn start(&self) -> Instant {
        self.start
    }

    /// A request was answered, or its connection broke.
    pub fn answered(&self, answered: Answered) {
        let Answered {
            name,
            endpoint,
            status,
            expected,
            took,
        } = answered;
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

    /// A write was answered 200.
    pub fn accepted(&self, accepted: Accepted) {
        let took = accepted.answered - accepted.meant;
        let mut record = self.record();
        self.second(&mut record).accept.add(took);
        record.accept.add(took);
        record.accepted.push(accepted);
    }

    /// Nobody knows what became of the write of this key.
    pub fn undecided(&self, key: &str) {
        self.record().undecided.insert(key.to_owned());
    }

    /// A write has come to its end, so long after it was requested.
    pub fn settled(&self, write: Accepted, succeeded: bool, took: Duration) {
        let seen = write.meant.elapsed();
        let mut record = self.record();
        self.second(&mut record).confirm.add(took);
        record.confirm.add(took);
        record.seen.add(seen);
        match succeeded {
            true => record.succeeded.push(write),
            false => record.failed += 1,
        }
    }

    /// A lock reported on a write that had ended otherwise.
    pub fn late(&self) {
        self.record().late += 1;
    }

    /// So many writes were followed in vain, or ended by themselves.
    pub fn unconfirmed(&self, count: u64) {
        self.record().unconfirmed += count;
    }

    /// Something was answered that must not be.
    pub fn unexpected(&self, what: String) {
        let mut record = self.record();
        record.unexpected_count += 1;
        if record.unexpected.len() < MAX_SHOWN {
            record.unexpected.push(what);
        }
    }

    /// A repeat was answered otherwise than the request that it repeats.
    pub fn differing_repeat(&self) {
        self.record().differing_repeats += 1;
    }

    /// How far it is. Whoever is measured waits for this, so it is little.
    pub fn progress(&self) -> Progress {
        let record = self.record();
        let of = |times: &Times| (times.count(), times.at(0.99));
        Progress {
            accepted: of(&record.accept),
            settled: of(&record.confirm),
        }
    }

    /// All of it, up to now; what comes later is noted in vain.
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
    /// Answers by status, in all.
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
    fn each_endpoint_tells_failures_from_intended_refusals() {
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
            recorder.answered(Answered {
                name: "a request",
                endpoint,
                status,
                expected,
                took: Duration::from_millis(millis),
            });
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
            "a broken connection has no time"
        );
        assert!(row.times.at(1.0) < Duration::from_secs(1));
        assert_eq!(record.endpoints[&read].times.count(), 1);
        let counted: u64 = record
            .seconds
            .iter()
            .map(|second| second.endpoints[&write])
            .sum();
        assert_eq!(counted, 5);
    }
}
