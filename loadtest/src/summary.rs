//! What a run comes to, as it stands in the report and as programs read it.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::check::Checked;
use crate::figures::Times;
use crate::limits::Finding;
use crate::recorder::{Endpoint, EndpointRecord, Record, Second};

/// How a run was made.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Setting {
    /// `closed loop, 8 users` or `open loop, 50 arrivals a second`.
    pub load: String,
    /// Where it was made, and when.
    pub place: String,
    /// What was loaded.
    pub service: String,
    /// The script of faults of its locks.
    pub fleet: String,
    /// The same by time.
    #[serde(default)]
    pub faults: Vec<Fault>,
}

/// One thing that was done to the locks, in seconds from the first write on.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Fault {
    /// As it stands in the script.
    pub what: String,
    /// When it began.
    pub from: f64,
    /// When it was over; `None`: with the load.
    pub until: Option<f64>,
}

/// Milliseconds within which so many of a hundred were done.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Percentiles {
    /// How many there were.
    pub count: u64,
    /// The median.
    pub p50: f64,
    /// Of ten, nine.
    pub p90: f64,
    /// Of a hundred, 99.
    pub p99: f64,
    /// Of a thousand, 999.
    pub p999: f64,
    /// All.
    pub max: f64,
}

impl Percentiles {
    fn of(times: &Times) -> Self {
        let at = |share| millis(times.at(share));
        Self {
            count: times.count(),
            p50: at(0.5),
            p90: at(0.9),
            p99: at(0.99),
            p999: at(0.999),
            max: at(1.0),
        }
    }
}

fn millis(time: Duration) -> f64 {
    time.as_secs_f64() * 1000.0
}

/// One second.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Moment {
    /// Writes that were accepted.
    pub writes: u64,
    /// Answers by status; 0 are connections that broke. Wrong requests of careless clients are among them.
    pub statuses: BTreeMap<u16, u64>,
    /// Answers that refuse a request that is wrong on purpose, as expected.
    #[serde(default)]
    pub intended_refusals: u64,
    /// Until writes were accepted.
    pub accept: Percentiles,
    /// Until they were confirmed.
    pub confirm: Percentiles,
}

impl Moment {
    fn of(second: &Second) -> Self {
        Self {
            writes: second.accept.count(),
            statuses: second.statuses.clone(),
            intended_refusals: second.intended_refusals,
            accept: Percentiles::of(&second.accept),
            confirm: Percentiles::of(&second.confirm),
        }
    }

    /// Answers that were no success and not intended, and broken connections.
    pub fn others(&self) -> u64 {
        let others = self.statuses.iter().filter(|(status, _)| **status != 200);
        let others: u64 = others.map(|(_, n)| n).sum();
        others.saturating_sub(self.intended_refusals)
    }
}

/// Requests to one endpoint. Times are in milliseconds, from sending a request to its complete answer, refusals included.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct EndpointFigures {
    /// Such as `POST`.
    pub method: String,
    /// Such as `/locks/{id}/WriteKey`.
    pub route: String,
    /// Requests that were answered, or whose connection broke.
    pub count: u64,
    /// Those of them in a second, while load was made.
    pub per_second: f64,
    /// The median.
    pub p50: f64,
    /// Of 100 answers, 95 took no longer.
    pub p95: f64,
    /// Of 100 answers, 99 took no longer.
    pub p99: f64,
    /// The longest time.
    pub max: f64,
    /// Broken connections, and answers with a status that the request should not get.
    pub failures: u64,
    /// Answers other than 200 with a status that the client expects, because its request is wrong on purpose.
    pub intended_refusals: u64,
}

impl EndpointFigures {
    fn of(endpoint: Endpoint, record: &EndpointRecord, per_second: f64) -> Self {
        let at = |share| millis(record.times.at(share));
        Self {
            method: endpoint.method.to_owned(),
            route: endpoint.route.to_owned(),
            count: record.times.count() + record.broken,
            per_second,
            p50: at(0.5),
            p95: at(0.95),
            p99: at(0.99),
            max: at(1.0),
            failures: record.failures + record.broken,
            intended_refusals: record.intended_refusals,
        }
    }
}

/// CPU and memory of the server's process while load was made.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ServerUsage {
    /// The process's id.
    pub pid: u32,
    /// CPU time that it used.
    pub cpu_seconds: f64,
    /// The most memory that it had in RAM at any sample.
    pub max_resident_bytes: u64,
    /// One for each second.
    pub samples: Vec<UsageSample>,
}

/// CPU and memory of the server in one second.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct UsageSample {
    /// Which one, from 0: its place among the moments.
    pub second: u64,
    /// Cores that were busy on average since the sample before: 1 is one core.
    pub cpu_cores: f64,
    /// Memory in RAM at the end of the second.
    pub resident_bytes: u64,
}

/// How many took how long: up to so many milliseconds, beyond the bucket before.
pub type Buckets = Vec<(f64, u64)>;

/// All of it.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Summary {
    /// Whether it kept to its limits.
    pub passed: bool,
    /// What was held against them.
    pub verdict: Vec<Finding>,
    /// How the run was made.
    pub setting: Setting,
    /// Seconds for which load was made.
    pub seconds: f64,
    /// Writes accepted in a second.
    pub writes_per_second: f64,
    /// Requests answered in a second.
    pub requests_per_second: f64,
    /// From a request to write a key, or from when it was meant to be sent, to its 200.
    pub accept: Percentiles,
    /// From when the service took the write up to the lock's own word, SUCCEEDED or FAILED, by the service's clock.
    pub confirm: Percentiles,
    /// From when a write was meant to be sent until its client saw that it was settled, which looks every 200 ms.
    pub seen: Percentiles,
    /// Answers by status; 0 are connections that broke.
    pub statuses: BTreeMap<u16, u64>,
    /// Answers by method and route.
    pub endpoints: Vec<EndpointFigures>,
    /// CPU and memory of the server; `None`: not sampled.
    pub server_usage: Option<ServerUsage>,
    /// Of the writes that were followed, those that were not settled within 30 s.
    pub unconfirmed_share: f64,
    /// Of the writes that were settled, those that the lock reported on when they had ended otherwise.
    pub late_share: f64,
    /// Of the writes that were settled, those that the lock refused.
    pub refused_by_locks_share: f64,
    /// Of all answers, 429 and 503.
    pub turned_away_share: f64,
    /// Of all answers, other 5xx and broken connections.
    pub error_share: f64,
    /// Answers that no such request may get.
    pub unexpected: u64,
    /// What they were.
    pub unexpected_shown: Vec<String>,
    /// Repeats under one Idempotency-Key that were answered otherwise.
    pub differing_repeats: u64,
    /// Why not all could be looked at in the end; `None`: all was.
    pub given_up: Option<String>,
    /// Writes that were looked for in the end.
    pub writes_checked: usize,
    /// Those of them that were confirmed.
    pub confirmed_checked: usize,
    /// Slots that were looked at in the locks' own memories; `None`: the locks are not ours.
    pub slots_checked: Option<usize>,
    /// 200s without an event, and confirmed keys that are not in their lock.
    pub missing: u64,
    /// What they were.
    pub missing_shown: Vec<String>,
    /// Arrivals for which the load test itself had no place.
    pub no_permit: u64,
    /// Second by second.
    pub moments: Vec<Moment>,
    /// How long acceptance took.
    pub accept_buckets: Buckets,
    /// How long confirmation took.
    pub confirm_buckets: Buckets,
}

impl Summary {
    /// Of what was recorded and checked, `span` being how long load was made.
    pub fn of(setting: Setting, record: &Record, checked: &Checked, span: Duration) -> Self {
        let Record {
            accept, confirm, ..
        } = record;
        let statuses = record.statuses();
        let count = |wanted: &dyn Fn(u16) -> bool| -> u64 {
            let found = statuses.iter().filter(|(status, _)| wanted(**status));
            found.map(|(_, n)| n).sum()
        };
        let all = count(&|_| true);
        let turned_away = count(&|status| matches!(status, 429 | 503));
        let errors = count(&|status| status == 0 || (status >= 500 && status != 503));
        let settled = confirm.count();
        // Those that are there at the end are waited for; what is answered then says nothing of the load.
        let seconds = span.as_secs().max(1);
        let under_load = || {
            let whole = usize::try_from(seconds).unwrap_or(usize::MAX);
            record.seconds.iter().take(whole)
        };
        let accepted = under_load().map(|second| second.accept.count()).sum();
        let answered = under_load()
            .flat_map(|second| second.statuses.values())
            .sum();
        let by_endpoint = |(endpoint, figures): (&Endpoint, &EndpointRecord)| {
            let counts = under_load().filter_map(|second| second.endpoints.get(endpoint));
            let per_second = ratio(counts.sum(), seconds);
            EndpointFigures::of(*endpoint, figures, per_second)
        };
        Self {
            passed: false,
            verdict: Vec::new(),
            setting,
            seconds: span.as_secs_f64(),
            writes_per_second: ratio(accepted, seconds),
            requests_per_second: ratio(answered, seconds),
            accept: Percentiles::of(accept),
            confirm: Percentiles::of(confirm),
            seen: Percentiles::of(&record.seen),
            endpoints: record.endpoints.iter().map(by_endpoint).collect(),
            server_usage: None,
            unconfirmed_share: ratio(record.unconfirmed, settled + record.unconfirmed),
            late_share: ratio(record.late, settled),
            refused_by_locks_share: ratio(record.failed, settled),
            turned_away_share: ratio(turned_away, all),
            error_share: ratio(errors, all),
            unexpected: record.unexpected_count,
            unexpected_shown: record.unexpected.clone(),
            differing_repeats: record.differing_repeats,
            given_up: checked.given_up.clone(),
            writes_checked: checked.writes,
            confirmed_checked: checked.confirmed,
            slots_checked: checked.slots,
            missing: checked.missing_count,
            missing_shown: checked.missing.clone(),
            no_permit: 0,
            moments: record.seconds.iter().map(Moment::of).collect(),
            accept_buckets: accept.buckets(),
            confirm_buckets: confirm.buckets(),
            statuses,
        }
    }
}

#[expect(clippy::cast_precision_loss, reason = "counts far below 2^52")]
fn ratio(part: u64, whole: u64) -> f64 {
    match whole {
        0 => 0.0,
        whole => part as f64 / whole as f64,
    }
}
