//! The summary of a run: the content of the report and of its JSON file.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::lost_writes::CheckResult;
use crate::recorder::{Endpoint, EndpointRecord, Record, Second};
use crate::statistics::Latencies;

/// A value that was compared with its limit.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Finding {
    /// The name of the value.
    pub what: String,
    /// The value.
    pub measured: String,
    /// The limit.
    pub limit: String,
    /// Whether the value is within the limit.
    pub holds: bool,
}

/// The settings of a run.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Setting {
    /// `closed loop, 8 users` or `open loop, 50 arrivals a second`.
    pub load: String,
    /// The time of the run and the machine.
    pub place: String,
    /// The service under load.
    pub service: String,
    /// The faults of the locks, as in --fleet.
    pub fleet: String,
    /// The faults with their times.
    #[serde(default)]
    pub faults: Vec<Fault>,
}

/// A fault of the locks, with times in seconds from the first write.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Fault {
    /// The text in --fleet.
    pub what: String,
    /// The start.
    pub from: f64,
    /// The end; `None` if it lasts as long as the load.
    pub until: Option<f64>,
}

/// Percentiles of latencies, in milliseconds.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Percentiles {
    /// The number of latencies.
    pub count: u64,
    /// The median.
    pub p50: f64,
    /// The 90th percentile.
    pub p90: f64,
    /// The 99th percentile.
    pub p99: f64,
    /// The 99.9th percentile.
    pub p999: f64,
    /// The longest latency.
    pub max: f64,
}

impl Percentiles {
    fn of(times: &Latencies) -> Self {
        let at = |share| millis(times.quantile(share));
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

/// One second of a run.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Moment {
    /// Accepted writes.
    pub writes: u64,
    /// Answers by status, including intended refusals; 0 is a broken connection.
    pub statuses: BTreeMap<u16, u64>,
    /// Expected refusals of intentionally invalid requests.
    #[serde(default)]
    pub intended_refusals: u64,
    /// Times to accept.
    pub accept: Percentiles,
    /// Times to confirm.
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

    /// Unintended refusals and broken connections.
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
    /// Their rate for each second of the load.
    pub per_second: f64,
    /// The median.
    pub p50: f64,
    /// The 95th percentile.
    pub p95: f64,
    /// The 99th percentile.
    pub p99: f64,
    /// The longest time.
    pub max: f64,
    /// Broken connections, and answers with a status that the request should not get.
    pub failures: u64,
    /// Expected refusals of intentionally invalid requests.
    pub intended_refusals: u64,
}

impl EndpointFigures {
    fn of(endpoint: Endpoint, record: &EndpointRecord, per_second: f64) -> Self {
        let at = |share| millis(record.times.quantile(share));
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

/// CPU time and memory of the server's process during the load.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ServerUsage {
    /// The process id.
    pub pid: u32,
    /// The CPU time used.
    pub cpu_seconds: f64,
    /// The highest resident memory of all samples.
    pub max_resident_bytes: u64,
    /// One for each second.
    pub samples: Vec<UsageSample>,
}

/// CPU and memory of the server in one second.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct UsageSample {
    /// The index of the second, from 0.
    pub second: u64,
    /// The average number of busy cores since the previous sample.
    pub cpu_cores: f64,
    /// Resident memory at the end of the second.
    pub resident_bytes: u64,
}

/// Buckets of a histogram: the upper bound in milliseconds and the count.
pub type Buckets = Vec<(f64, u64)>;

/// The summary of a run.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Summary {
    /// Whether all limits hold.
    pub passed: bool,
    /// The comparison of the values with their limits.
    pub verdict: Vec<Finding>,
    /// The settings of the run.
    pub setting: Setting,
    /// The duration of the load in seconds.
    pub seconds: f64,
    /// Accepted writes for each second.
    pub writes_per_second: f64,
    /// Answered requests for each second.
    pub requests_per_second: f64,
    /// From sending a write, or from its intended time in an open loop, to its 200.
    pub accept: Percentiles,
    /// From the request of a write to the lock's result, by the clock of the service.
    pub confirm: Percentiles,
    /// From the intended time of a write until its client, which polls every 200 ms, saw that it was settled.
    pub seen: Percentiles,
    /// Answers by status; 0 is a broken connection.
    pub statuses: BTreeMap<u16, u64>,
    /// Answers by method and route.
    pub endpoints: Vec<EndpointFigures>,
    /// CPU and memory of the server; `None` if they were not sampled.
    pub server_usage: Option<ServerUsage>,
    /// The share of polled writes that were not settled within 30 s.
    pub unconfirmed_share: f64,
    /// The share of settled writes with a late result.
    pub late_share: f64,
    /// The share of settled writes that the lock refused.
    pub refused_by_locks_share: f64,
    /// The share of answers with 429 or 503.
    pub turned_away_share: f64,
    /// The share of other 5xx and broken connections.
    pub error_share: f64,
    /// The number of unexpected answers.
    pub unexpected: u64,
    /// Descriptions of some of them.
    pub unexpected_shown: Vec<String>,
    /// Repeats with the same Idempotency-Key and another answer.
    pub differing_repeats: u64,
    /// Why the checks after the load ended early, if they did.
    pub given_up: Option<String>,
    /// Accepted writes that were checked after the load.
    pub writes_checked: usize,
    /// Confirmed writes that were checked.
    pub confirmed_checked: usize,
    /// Slots that were checked in the memories of the locks; `None` if the load test did not start the locks.
    pub slots_checked: Option<usize>,
    /// 200s without an event, and confirmed keys that are not in their lock.
    pub missing: u64,
    /// Descriptions of some of them.
    pub missing_shown: Vec<String>,
    /// Arrivals that were skipped because too many personas were active.
    pub no_permit: u64,
    /// By second.
    pub moments: Vec<Moment>,
    /// The histogram of the times to accept.
    pub accept_buckets: Buckets,
    /// The histogram of the times to confirm.
    pub confirm_buckets: Buckets,
}

impl Summary {
    /// Summarizes the records and the checks of a run; `span` is the duration of the load.
    pub fn of(setting: Setting, record: &Record, checked: &CheckResult, span: Duration) -> Self {
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
        // Answers after the end of the load do not count for the rates.
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
            setting,
            seconds: span.as_secs_f64(),
            writes_per_second: ratio(accepted, seconds),
            requests_per_second: ratio(answered, seconds),
            accept: Percentiles::of(accept),
            confirm: Percentiles::of(confirm),
            seen: Percentiles::of(&record.seen),
            endpoints: record.endpoints.iter().map(by_endpoint).collect(),
            unconfirmed_share: ratio(record.unconfirmed, settled + record.unconfirmed),
            late_share: ratio(record.late, settled),
            refused_by_locks_share: ratio(record.failed, settled),
            turned_away_share: ratio(turned_away, all),
            error_share: ratio(errors, all),
            unexpected: record.unexpected_count,
            unexpected_shown: record.unexpected.clone(),
            differing_repeats: record.differing_repeats,
            given_up: checked.aborted.clone(),
            writes_checked: checked.writes,
            confirmed_checked: checked.confirmed,
            slots_checked: checked.slots,
            missing: checked.missing_count,
            missing_shown: checked.missing.clone(),
            moments: record.seconds.iter().map(Moment::of).collect(),
            accept_buckets: accept.buckets(),
            confirm_buckets: confirm.buckets(),
            statuses,
            ..Self::default()
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
