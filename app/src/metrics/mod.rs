//! Metrics for Prometheus.

mod text_format;

use std::collections::BTreeMap;
use std::sync::Mutex;
use std::sync::atomic::AtomicU64;
use std::time::Duration;

use keywright_adapters::decorator::{CallOutcome, Observer, PortCall};
use keywright_domain::model::{Anomaly, Backlog, DeliveryOutcome, LockEvent, Save};
use keywright_domain::policy::Finding;
use keywright_domain::{AuditReport, Settlement};
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::{Metric, Registry, Unit};
use tokio::time::Instant;

use self::text_format::to_text_format;
use crate::log_output;
use crate::mutex::lock_mutex;

type Label = (&'static str, &'static str);

type Counters<const LABELS: usize> = Family<[Label; LABELS], Counter>;

/// The labels of an answered request.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Answered {
    route: &'static str,
    status: u16,
}

/// The organization of a webhook, or `*` for those of the operator.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Owner {
    organization: String,
}

/// How far the webhooks of an organization are behind the feed.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct WebhookLag {
    pub(crate) events: u64,
    pub(crate) age: Duration,
}

/// Buckets in seconds, from a millisecond to the timeout of a request.
const SHORT: [f64; 13] = [
    0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0,
];

/// Buckets in seconds, from a tenth of a second to the time to live of a write.
const LONG: [f64; 12] = [
    0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 15.0, 60.0, 600.0, 3600.0, 21600.0, 172_800.0,
];

fn counted<M: Metric + Clone + Default>(registry: &mut Registry, name: &str, help: &str) -> M {
    let metric = M::default();
    registry.register(name, help, metric.clone());
    metric
}

fn seconds<M: Metric + Clone>(registry: &mut Registry, name: &str, help: &str, metric: M) -> M {
    registry.register_with_unit(name, help, Unit::Seconds, metric.clone());
    metric
}

/// Defines [`Metrics`] by one line for each metric: its field, its type, and the call that registers it.
macro_rules! metrics {
    ($($field:ident: $type:ty = $register:ident($($argument:expr),*);)*) => {
        /// All metrics. docs/operating.md describes each of them.
        pub(crate) struct Metrics {
            registry: Registry,
            /// The age of the oldest intent when the backlog was last counted.
            oldest: Mutex<Option<OldestIntent>>,
            $($field: $type,)*
        }

        impl Metrics {
            fn register() -> Self {
                let mut registry = Registry::with_prefix("keywright");
                Self {
                    $($field: $register(&mut registry, $($argument),*),)*
                    oldest: Mutex::default(),
                    registry,
                }
            }
        }
    };
}

metrics! {
    accepted: Histogram = seconds("accept", "Time from a write request to its 200", Histogram::new(SHORT));
    confirmed: Histogram = seconds(
        "confirm", "Time from the 200 to the lock's result, success or failure", Histogram::new(LONG)
    );
    call_seconds: Family<[Label; 2], Histogram, fn() -> Histogram> = seconds(
        "port_call", "Duration of calls to shadows and to the store of locks",
        Family::new_with_constructor(|| Histogram::new(SHORT))
    );
    oldest_intent: Gauge<f64, AtomicU64> = seconds(
        "oldest_intent_age", "Age of the oldest open intent, since this server first saw it", Gauge::default()
    );
    requests: Family<Answered, Counter> = counted("http_requests", "Answered requests");
    events: Counters<1> = counted("events", "Recorded events");
    late: Counter = counted("late_reports", "Results for writes that had ended in another way");
    reports: Counters<1> = counted("reports", "Results that locks reported, by outcome");
    calls: Counters<3> = counted("port_calls", "Calls to shadows and to the store of locks");
    findings: Counters<1> = counted("audit_findings", "Differences between shadows and writes");
    anomalies: Counters<1> = counted(
        "report_anomalies", "Answers of locks that break the device contract, each kind once for each write"
    );
    open_intents: Gauge = counted("open_intents", "Writes whose outcome is unknown, in the whole store");
    contradictions: Counter = counted(
        "contradictions",
        "Results of locks for writes that were not sent to them, or that contradict their first answer"
    );
    open_writes: Gauge = counted("open_writes", "Writes that locks have not settled, in the whole store");
    unconfirmed: Gauge = counted(
        "unconfirmed_writes", "Open writes that were sent longer than --confirm-within ago, in the whole store"
    );
    event_streams: Gauge = counted("event_streams", "Open streams of events");
    shed: Counters<1> = counted("shed_requests", "Requests that were rejected by a limit");
    unanswered: Counter = counted(
        "unanswered_requests", "Requests whose connection ended before their answer"
    );
    connections: Counter = counted("connections", "Connections of clients that were accepted");
    dropped_log_lines: Counter = counted(
        "dropped_log_lines", "Log lines that were dropped because their reader was slow"
    );
    deliveries: Counters<1> = counted("webhook_deliveries", "Attempts to deliver an event to a webhook, by outcome");
    delivery_seconds: Histogram = seconds(
        "webhook_delivery", "Duration of attempts to deliver an event to a webhook", Histogram::new(SHORT)
    );
    webhook_lag: Family<Owner, Gauge> = counted(
        "webhook_lag_events", "Positions of the feed that the slowest webhook of an organization is behind"
    );
    webhook_age: Family<Owner, Gauge<f64, AtomicU64>> = seconds(
        "webhook_lag", "Age of the first event that a webhook of an organization has not passed", Family::default()
    );
    failing_webhooks: Gauge = counted("failing_webhooks", "Webhooks whose last deliveries have all failed, in the whole store");
    disabled_webhooks: Gauge = counted("disabled_webhooks", "Webhooks that are disabled, in the whole store");
    omitted_reports: Counter = counted(
        "omitted_reports", "Reports over MQTT that were omitted because too many waited to be settled"
    );
}

/// An open stream of events.
pub(crate) struct OpenStream(Gauge);

impl Drop for OpenStream {
    fn drop(&mut self) {
        self.0.dec();
    }
}

/// An age at a point of the monotonic clock.
#[derive(Clone, Copy)]
struct OldestIntent {
    age: Duration,
    counted_at: Instant,
}

/// The formats in which metrics are served.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum MetricsFormat {
    /// OpenMetrics 1.0.
    OpenMetrics,
    /// Prometheus' text format 0.0.4.
    Text,
}

/// Statuses of malformed heads, which every route may answer besides those of [`KNOWN_ANSWERS`].
const WRONG_HEADS: [u16; 2] = [400, 501];

/// Statuses of a request about a lock.
const LOCK_READ: &[u16] = &[200, 401, 403, 404, 429, 500, 503];

/// Statuses of a request with a body about a webhook.
const WEBHOOK_CHANGE: &[u16] = &[200, 401, 403, 404, 408, 413, 415, 429, 500, 503];

/// Routes, each with the statuses that it answers.
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
    ("/events", LOCK_READ),
    ("/locks", LOCK_READ),
    ("/writes", LOCK_READ),
    ("/webhooks", LOCK_READ),
    (
        "POST /webhooks",
        &[201, 401, 403, 404, 408, 409, 413, 415, 429, 500, 503],
    ),
    ("/webhooks/{id}", LOCK_READ),
    ("PATCH /webhooks/{id}", WEBHOOK_CHANGE),
    ("DELETE /webhooks/{id}", LOCK_READ),
    (
        "/webhooks/{id}/rotate-secret",
        &[200, 401, 403, 404, 409, 429, 500, 503],
    ),
    (
        "/admin",
        &[
            200, 303, 401, 403, 404, 405, 409, 413, 429, 500, 502, 503, 504,
        ],
    ),
    ("/webhooks/{id}/test", LOCK_READ),
    ("/webhooks/{id}/deliveries", LOCK_READ),
    ("/webhooks/{id}/replay", WEBHOOK_CHANGE),
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

impl Metrics {
    pub(crate) fn new() -> Self {
        let metrics = Self::register();
        metrics.create_known_series();
        metrics
    }

    /// Creates the series whose labels are known in advance. Prometheus sees the first increase only of a series that starts at 0.
    fn create_known_series(&self) {
        for (route, statuses) in KNOWN_ANSWERS {
            for status in statuses.iter().copied().chain(WRONG_HEADS) {
                drop(self.requests.get_or_create(&Answered { route, status }));
            }
        }
        create(&self.events, "event", LockEvent::names_of_writes());
        create(&self.reports, "outcome", Settlement::NAMES);
        create(&self.findings, "finding", Finding::NAMES);
        create(&self.anomalies, "anomaly", Anomaly::ALL.map(Anomaly::name));
        create(&self.deliveries, "outcome", DeliveryOutcome::NAMES);
        let limits = [
            "in_flight",
            "in_flight_each",
            "streams",
            "failed_credentials",
        ];
        create(&self.shed, "why", limits);
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
        raise(&self.dropped_log_lines, log_output::dropped_lines());
        let oldest = *lock_mutex(&self.oldest);
        let age = oldest.map(|oldest| oldest.age + oldest.counted_at.elapsed());
        self.oldest_intent
            .set(age.unwrap_or_default().as_secs_f64());
        let mut text = String::new();
        // Writing to a string cannot fail.
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

    /// A stream of events was opened. It counts as open until the returned value is dropped.
    pub(crate) fn open_stream(&self) -> OpenStream {
        self.event_streams.inc();
        OpenStream(self.event_streams.clone())
    }

    pub(crate) fn accepted(&self, took: Duration) {
        self.accepted.observe(took.as_secs_f64());
    }

    pub(crate) fn reported(&self, settlement: &Settlement) {
        let outcome = settlement.name();
        self.reports.get_or_create(&[("outcome", outcome)]).inc();
    }

    pub(crate) fn audited(&self, report: &AuditReport) {
        for finding in &report.findings {
            let name = Finding::name(finding);
            self.findings.get_or_create(&[("finding", name)]).inc();
        }
    }

    /// `total`: the contradictions since the start.
    pub(crate) fn contradictions(&self, total: u64) {
        raise(&self.contradictions, total);
    }

    /// `total`: the omitted reports since the start.
    pub(crate) fn omitted_reports(&self, total: u64) {
        raise(&self.omitted_reports, total);
    }

    pub(crate) fn backlog(&self, backlog: &Backlog) {
        let count = |n: u64| i64::try_from(n).unwrap_or(i64::MAX);
        self.open_intents.set(count(backlog.intents));
        let counted_at = Instant::now();
        *lock_mutex(&self.oldest) = backlog
            .oldest_intent
            .map(|age| OldestIntent { age, counted_at });
        self.open_writes.set(count(backlog.open));
        self.unconfirmed.set(count(backlog.unconfirmed));
    }

    /// An attempt to deliver an event to a webhook has ended.
    pub(crate) fn delivered(&self, outcome: DeliveryOutcome, took: Duration) {
        let outcome = ("outcome", outcome.name());
        self.deliveries.get_or_create(&[outcome]).inc();
        self.delivery_seconds.observe(took.as_secs_f64());
    }

    /// `worst`: the lag of the enabled webhooks of each organization. Organizations without webhooks have no series.
    pub(crate) fn webhooks(
        &self,
        worst: &BTreeMap<String, WebhookLag>,
        failing: i64,
        disabled: i64,
    ) {
        self.webhook_lag.clear();
        self.webhook_age.clear();
        for (organization, lag) in worst {
            let owner = Owner {
                organization: organization.clone(),
            };
            let events = i64::try_from(lag.events).unwrap_or(i64::MAX);
            self.webhook_lag.get_or_create(&owner).set(events);
            let age = lag.age.as_secs_f64();
            self.webhook_age.get_or_create(&owner).set(age);
        }
        self.failing_webhooks.set(failing);
        self.disabled_webhooks.set(disabled);
    }

    pub(crate) fn shed(&self, why: &'static str) {
        self.shed.get_or_create(&[("why", why)]).inc();
    }
}

/// Creates the series of these values of a label.
fn create(
    counters: &Counters<1>,
    label: &'static str,
    values: impl IntoIterator<Item = &'static str>,
) {
    for value in values {
        drop(counters.get_or_create(&[(label, value)]));
    }
}

/// Raises a counter to a total that is counted elsewhere.
fn raise(counter: &Counter, total: u64) {
    counter.inc_by(total.saturating_sub(counter.get()));
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

    fn saved(&self, save: &Save) {
        for recorded in &save.events {
            let label = ("event", recorded.event.name());
            self.events.get_or_create(&[label]).inc();
            if let LockEvent::KeyWriteConfirmed { late, .. }
            | LockEvent::KeyWriteFailed { late, .. } = recorded.event
            {
                self.late.inc_by(u64::from(late));
                let settled = save.writes.iter().find(|w| Some(w.id) == recorded.write);
                if let Some(requested) = settled.and_then(|w| w.requested) {
                    let took = recorded.time.since(requested.time);
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
