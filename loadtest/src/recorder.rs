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

/// What happened in one second.
#[derive(Clone, Debug, Default)]
pub struct Second {
    /// Answers to all requests, by status; 0: the connection broke.
    pub statuses: BTreeMap<u16, u64>,
    /// Those of them that refuse a request that is wrong on purpose.
    pub intended_refusals: u64,
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
    /// A request was answered, or its connection broke. `expected`: the statuses that it may get, beside those that
    /// turn it away (429, 503) or leave it open (502, 504).
    pub fn answered(&self, what: &str, status: Option<u16>, expected: &[u16]) {
        let mut record = self.record();
        let second = self.second(&mut record);
        *second.statuses.entry(status.unwrap_or(0)).or_default() += 1;
        if status.is_some_and(|status| status != 200 && expected.contains(&status)) {
            second.intended_refusals += 1;
        }
        drop(record);
        let turned_away_or_open = |status: u16| matches!(status, 429 | 502 | 503 | 504);
        if let Some(status) = status
            && !expected.contains(&status)
            && !turned_away_or_open(status)
        {
            self.unexpected(format!("{what}: {status} instead of {expected:?}"));
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
