//! What is counted and measured, for Prometheus.

use std::sync::atomic::AtomicU64;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use keywright_domain::model::{Anomaly, Backlog, LockEvent};
use keywright_domain::policy::{Finding, IgnoreReason};
use keywright_domain::{AuditReport, Settlement};
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::{Metric, Registry, Unit};
use tokio::time::Instant;

use crate::bootstrap::{AppliedSave, CallOutcome, Observer, PortCall};
use crate::logging;

type Label = (&'static str, &'static str);

/// A request that was answered.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Answered {
    route: &'static str,
    status: u16,
}

/// From a millisecond to the time of a whole request.
const SHORT: [f64; 13] = [
    0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0,
];

/// From a tenth of a second to the time that a lock may be offline.
const LONG: [f64; 12] = [
    0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 15.0, 60.0, 600.0, 3600.0, 21600.0, 172_800.0,
];

fn short() -> Histogram {
    Histogram::new(SHORT)
}

/// A new one, in its place among all.
fn counted<M: Metric + Clone + Default>(registry: &mut Registry, name: &str, help: &str) -> M {
    let metric = M::default();
    registry.register(name, help, metric.clone());
    metric
}

/// All of them. The names and what each means stand in docs/operating.md, too.
pub(crate) struct Metrics {
    registry: Registry,
    requests: Family<Answered, Counter>,
    accepted: Histogram,
    confirmed: Histogram,
    events: Family<[Label; 1], Counter>,
    late: Counter,
    reports: Family<[Label; 1], Counter>,
    calls: Family<[Label; 3], Counter>,
    call_seconds: Family<[Label; 2], Histogram, fn() -> Histogram>,
    findings: Family<[Label; 1], Counter>,
    anomalies: Family<[Label; 1], Counter>,
    open_intents: Gauge,
    oldest_intent: Gauge<f64, AtomicU64>,
    /// How old the oldest intent was at a moment; its age is counted on from there, by the monotonic clock.
    oldest_at: Mutex<Option<(Duration, Instant)>>,
    contradictions: Counter,
    open_writes: Gauge,
    unconfirmed: Gauge,
    shed: Family<[Label; 1], Counter>,
    unanswered: Counter,
    connections: Counter,
    dropped_log_lines: Counter,
    omitted_reports: Counter,
}

/// How metrics are written down.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum MetricsFormat {
    /// OpenMetrics 1.0.
    OpenMetrics,
    /// Prometheus' text format 0.0.4.
    Text,
}

/// Statuses that each route may answer, besides those of [`KNOWN_ANSWERS`]: for heads that are wrong, whatever they ask for.
const WRONG_HEADS: [u16; 2] = [400, 501];

/// Statuses of a request about a lock.
const LOCK_READ: &[u16] = &[200, 401, 403, 404, 429, 500, 503];

/// Routes and the statuses that each is known to answer.
const KNOWN_ANSWERS: &[(&str, &[u16])] = &[
    (
        "/locks/{id}/WriteKey",
        &[
            200, 401, 403, 404, 408, 409, 413, 415, 422, 429, 500, 502, 503, 504,
        ],
    ),
    ("/locks/{id}/writes/{writeId}", LOCK_READ),
    (
        "DELETE /locks/{id}/writes/{writeId}",
        &[200, 401, 403, 404, 409, 429, 500, 502, 503, 504],
    ),
    ("/locks/{id}/writes", LOCK_READ),
    ("/locks/{id}/details", LOCK_READ),
    ("/locks/{id}/events", LOCK_READ),
    ("/device-reports", &[200, 401, 404, 408, 413, 415, 429, 503]),
    ("/healthz", &[200]),
    ("/readyz", &[200, 503]),
    ("/metrics", &[200]),
    ("/openapi.json", &[200]),
    ("/docs", &[200]),
    ("/docs/scalar.js", &[200, 500]),
    ("OPTIONS", &[204]),
    ("other", &[404, 405, 431]),
];

const REPORT_OUTCOMES: [&str; 6] = [
    "recorded",
    "repeated",
    "contradiction",
    "wrong_thing",
    "early",
    "unreadable",
];

/// The same metrics in the text format: there a counter is described by the name of its samples, and units and the end have
/// no lines.
fn to_text_format(open_metrics: &str) -> String {
    let is_counter = |name: &str| {
        let line = format!("# TYPE {name} counter");
        open_metrics.lines().any(|known| known == line)
    };
    let mut text = String::with_capacity(open_metrics.len());
    for line in open_metrics.lines() {
        let mut words = line.splitn(4, ' ');
        match [(); 4].map(|()| words.next()) {
            [Some("#"), Some("UNIT" | "EOF"), ..] => continue,
            [
                Some("#"),
                Some(kind @ ("HELP" | "TYPE")),
                Some(name),
                Some(rest),
            ] if is_counter(name) => {
                text.push_str(&format!("# {kind} {name}_total {rest}"));
            }
            _ => text.push_str(line),
        }
        text.push('\n');
    }
    text
}

impl Metrics {
    pub(crate) fn new() -> Self {
        let mut registry = Registry::with_prefix("keywright");
        let mut seconds = |name: &str, help: &str, histogram: Histogram| {
            registry.register_with_unit(name, help, Unit::Seconds, histogram.clone());
            histogram
        };
        let accepted = seconds(
            "accept",
            "From a request to write a key to its 200: the shadow has it, and it is durable",
            short(),
        );
        let confirmed = seconds(
            "confirm",
            "From the 200 to the lock's result, done or failed",
            Histogram::new(LONG),
        );
        let call_seconds = Family::new_with_constructor(short as fn() -> Histogram);
        registry.register_with_unit(
            "port_call",
            "Duration of calls of the shadows and of the store of locks",
            Unit::Seconds,
            call_seconds.clone(),
        );
        let oldest_intent = Gauge::<f64, AtomicU64>::default();
        registry.register_with_unit(
            "oldest_intent_age",
            "How long the oldest of them has been open, as far as this server has seen",
            Unit::Seconds,
            oldest_intent.clone(),
        );
        let metrics = Self {
            requests: counted(
                &mut registry,
                "http_requests",
                "Requests that were answered",
            ),
            accepted,
            confirmed,
            events: counted(&mut registry, "events", "Events that were recorded"),
            late: counted(
                &mut registry,
                "late_reports",
                "Reports of locks on writes that had ended otherwise",
            ),
            reports: counted(
                &mut registry,
                "reports",
                "Results that locks reported, by outcome",
            ),
            calls: counted(
                &mut registry,
                "port_calls",
                "Calls of the shadows and of the store of locks",
            ),
            call_seconds,
            findings: counted(
                &mut registry,
                "audit_findings",
                "What differed between shadows and writes",
            ),
            anomalies: counted(
                &mut registry,
                "report_anomalies",
                "Answers of locks that break the device contract, each kind once for each write",
            ),
            open_intents: counted(
                &mut registry,
                "open_intents",
                "Writes whose outcome is not known yet, in the whole store",
            ),
            oldest_intent,
            oldest_at: Mutex::default(),
            contradictions: counted(
                &mut registry,
                "contradictions",
                "Results of locks that name no write which was sent to them, or contradict their first answer",
            ),
            open_writes: counted(
                &mut registry,
                "open_writes",
                "Writes that locks have not settled yet, in the whole store",
            ),
            unconfirmed: counted(
                &mut registry,
                "unconfirmed_writes",
                "Open writes that were sent longer than --confirm-within ago",
            ),
            shed: counted(
                &mut registry,
                "shed_requests",
                "Requests that were turned away because too much was in progress",
            ),
            unanswered: counted(
                &mut registry,
                "unanswered_requests",
                "Requests whose connection ended before their answer",
            ),
            connections: counted(
                &mut registry,
                "connections",
                "Connections of clients that were accepted",
            ),
            dropped_log_lines: counted(
                &mut registry,
                "dropped_log_lines",
                "Log lines that were dropped because their reader stalled",
            ),
            omitted_reports: counted(
                &mut registry,
                "omitted_reports",
                "Reports over MQTT that were omitted because too many waited to be settled",
            ),
            registry,
        };
        metrics.begin_known_series();
        metrics
    }

    /// Makes the series whose labels are known. One that is there from the start shows its first increase.
    fn begin_known_series(&self) {
        for (route, statuses) in KNOWN_ANSWERS {
            for status in statuses.iter().copied().chain(WRONG_HEADS) {
                drop(self.requests.get_or_create(&Answered { route, status }));
            }
        }
        for event in LockEvent::names_of_writes() {
            drop(self.events.get_or_create(&[("event", event)]));
        }
        for outcome in REPORT_OUTCOMES {
            drop(self.reports.get_or_create(&[("outcome", outcome)]));
        }
        for name in Finding::NAMES {
            drop(self.findings.get_or_create(&[("finding", name)]));
        }
        for anomaly in Anomaly::ALL {
            let label = ("anomaly", anomaly.name());
            drop(self.anomalies.get_or_create(&[label]));
        }
        for why in ["in_flight", "in_flight_each", "failed_credentials"] {
            drop(self.shed.get_or_create(&[("why", why)]));
        }
        for known in PortCall::KNOWN {
            for call in known.calls {
                let (port, call) = (("port", known.port), ("call", *call));
                drop(self.call_seconds.get_or_create(&[port, call]));
                for outcome in known.outcomes {
                    let outcome = ("outcome", *outcome);
                    drop(self.calls.get_or_create(&[port, call, outcome]));
                }
            }
        }
    }

    /// All metrics in one of the formats that Prometheus reads.
    pub(crate) fn text(&self, format: MetricsFormat) -> String {
        let dropped = logging::dropped_lines();
        let counted = self.dropped_log_lines.get();
        self.dropped_log_lines
            .inc_by(dropped.saturating_sub(counted));
        let counted = *lock(&self.oldest_at);
        let age = counted.map(|(age, at)| age + at.elapsed());
        let age = age.unwrap_or_default();
        self.oldest_intent.set(age.as_secs_f64());
        let mut text = String::new();
        // A text takes whatever is written to it.
        let _ = encode(&mut text, &self.registry);
        match format {
            MetricsFormat::OpenMetrics => text,
            MetricsFormat::Text => to_text_format(&text),
        }
    }

    pub(crate) fn answered(&self, route: &'static str, status: u16) {
        self.requests
            .get_or_create(&Answered { route, status })
            .inc();
    }

    /// A request's connection has ended before its answer.
    pub(crate) fn unanswered(&self) {
        self.unanswered.inc();
    }

    /// A client's connection was accepted.
    pub(crate) fn connected(&self) {
        self.connections.inc();
    }

    pub(crate) fn accepted(&self, took: Duration) {
        self.accepted.observe(took.as_secs_f64());
    }

    pub(crate) fn reported(&self, settlement: &Settlement) {
        let outcome = match settlement {
            Settlement::Recorded(_) => "recorded",
            Settlement::Ignored(IgnoreReason::Repeated) => "repeated",
            Settlement::Ignored(IgnoreReason::Contradiction) => "contradiction",
            Settlement::Ignored(IgnoreReason::WrongThing) => "wrong_thing",
            Settlement::Ignored(IgnoreReason::Early) => "early",
            Settlement::Corrupt(_) => "unreadable",
        };
        self.reports.get_or_create(&[("outcome", outcome)]).inc();
    }

    pub(crate) fn audited(&self, audited: &AuditReport) {
        for finding in &audited.findings {
            let name = Finding::name(finding);
            self.findings.get_or_create(&[("finding", name)]).inc();
        }
    }

    /// How many there have been in all.
    pub(crate) fn contradictions(&self, all: u64) {
        let counted = self.contradictions.get();
        self.contradictions.inc_by(all.saturating_sub(counted));
    }

    /// The number of omitted reports so far.
    pub(crate) fn omitted_reports(&self, all: u64) {
        let counted = self.omitted_reports.get();
        self.omitted_reports.inc_by(all.saturating_sub(counted));
    }

    pub(crate) fn backlog(&self, backlog: &Backlog) {
        let count = |n: u64| i64::try_from(n).unwrap_or(i64::MAX);
        self.open_intents.set(count(backlog.intents));
        let now = Instant::now();
        *lock(&self.oldest_at) = backlog.oldest_intent.map(|age| (age, now));
        self.open_writes.set(count(backlog.open));
        self.unconfirmed.set(count(backlog.unconfirmed));
    }

    pub(crate) fn shed(&self, why: &'static str) {
        self.shed.get_or_create(&[("why", why)]).inc();
    }
}

fn lock<T>(shared: &Mutex<T>) -> MutexGuard<'_, T> {
    shared.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Observer for Metrics {
    fn call_ended(&self, call: &PortCall<'_>, outcome: &CallOutcome<'_>, took: Duration) {
        let (port, name) = (("port", call.port()), ("call", call.name()));
        let outcome = ("outcome", outcome.name());
        self.calls.get_or_create(&[port, name, outcome]).inc();
        self.call_seconds
            .get_or_create(&[port, name])
            .observe(took.as_secs_f64());
    }

    fn needs_writes(&self) -> bool {
        false
    }

    fn saved(&self, save: &AppliedSave) {
        for event in &save.events {
            self.events.get_or_create(&[("event", event.name)]).inc();
            if let Some(result) = event.result {
                self.late.inc_by(u64::from(result.late));
                if let Some(took) = result.took {
                    self.confirmed.observe(took.as_secs_f64());
                }
            }
        }
        for (_, anomaly) in &save.new_anomalies {
            let label = ("anomaly", anomaly.name());
            self.anomalies.get_or_create(&[label]).inc();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counters_are_described_by_the_names_of_their_samples_in_the_text_format() {
        let text = to_text_format(
            "# HELP a_b Counts a b.\n# TYPE a_b counter\na_b_total{x=\"y z\"} 1\n\
             # HELP c_seconds Took.\n# TYPE c_seconds histogram\n# UNIT c_seconds seconds\nc_seconds_count 0\n# EOF\n",
        );
        assert_eq!(
            text,
            "# HELP a_b_total Counts a b.\n# TYPE a_b_total counter\na_b_total{x=\"y z\"} 1\n\
             # HELP c_seconds Took.\n# TYPE c_seconds histogram\nc_seconds_count 0\n"
        );
    }
}
