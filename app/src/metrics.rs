//! What is counted and measured, for Prometheus.

use std::sync::atomic::AtomicU64;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use keywright_domain::ports::Standing;
use keywright_domain::rules::{Finding, Ignored};
use keywright_domain::values::Timestamp;
use keywright_domain::{Audited, Settlement};
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::{Metric, Registry, Unit};

use crate::bootstrap::{Call, Observer, Recorded};

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
    open_intents: Gauge,
    oldest_intent: Gauge<f64, AtomicU64>,
    /// When the oldest intent was prepared; its age is counted when it is read.
    oldest_since: Mutex<Option<Timestamp>>,
    contradictions: Counter,
    open_writes: Gauge,
    unconfirmed: Gauge,
    shed: Family<[Label; 1], Counter>,
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
            "From that 200 to the lock's own word that it is done or failed",
            Histogram::new(LONG),
        );
        let call_seconds = Family::new_with_constructor(short as fn() -> Histogram);
        registry.register_with_unit(
            "port_call",
            "How long they took",
            Unit::Seconds,
            call_seconds.clone(),
        );
        let oldest_intent = Gauge::<f64, AtomicU64>::default();
        registry.register_with_unit(
            "oldest_intent_age",
            "How long the oldest of them has been open",
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
                "What came of results that locks reported",
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
            open_intents: counted(
                &mut registry,
                "open_intents",
                "Writes whose outcome is not known yet, in the whole store",
            ),
            oldest_intent,
            oldest_since: Mutex::default(),
            contradictions: counted(
                &mut registry,
                "contradictions",
                "Results of locks that name no write which was sent to them, however they were found",
            ),
            open_writes: counted(
                &mut registry,
                "open_writes",
                "Writes that locks have not settled yet, in the whole store",
            ),
            unconfirmed: counted(
                &mut registry,
                "unconfirmed_writes",
                "Those of them that were sent longer than --confirm-within ago",
            ),
            shed: counted(
                &mut registry,
                "shed_requests",
                "Requests that were turned away because too much was in progress",
            ),
            registry,
        };
        for name in Finding::NAMES {
            // A series that is there from the start shows its first increase.
            drop(metrics.findings.get_or_create(&[("finding", name)]));
        }
        metrics
    }

    /// As Prometheus reads it (OpenMetrics 1.0).
    pub(crate) fn text(&self, now: Timestamp) -> String {
        let since = *lock(&self.oldest_since);
        let age = since.map(|at| now.since(at)).unwrap_or_default();
        self.oldest_intent.set(age.as_secs_f64());
        let mut text = String::new();
        // A text takes whatever is written to it.
        let _ = encode(&mut text, &self.registry);
        text
    }

    pub(crate) fn answered(&self, route: &'static str, status: u16) {
        self.requests
            .get_or_create(&Answered { route, status })
            .inc();
    }

    pub(crate) fn accepted(&self, took: Duration) {
        self.accepted.observe(took.as_secs_f64());
    }

    pub(crate) fn reported(&self, settlement: &Settlement) {
        let outcome = match settlement {
            Settlement::Recorded(_) => "recorded",
            Settlement::Ignored(Ignored::Repeated) => "repeated",
            Settlement::Ignored(Ignored::Contradiction) => "contradiction",
            Settlement::Ignored(Ignored::WrongThing) => "wrong_thing",
            Settlement::Ignored(Ignored::Early) => "early",
            Settlement::Unreadable(_) => "unreadable",
        };
        self.reports.get_or_create(&[("outcome", outcome)]).inc();
    }

    pub(crate) fn audited(&self, audited: &Audited) {
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

    pub(crate) fn standing(&self, standing: &Standing) {
        let count = |n: u64| i64::try_from(n).unwrap_or(i64::MAX);
        self.open_intents.set(count(standing.intents));
        *lock(&self.oldest_since) = standing.oldest_intent;
        self.open_writes.set(count(standing.open));
        self.unconfirmed.set(count(standing.unconfirmed));
    }

    pub(crate) fn shed(&self, why: &'static str) {
        self.shed.get_or_create(&[("why", why)]).inc();
    }
}

fn lock<T>(shared: &Mutex<T>) -> MutexGuard<'_, T> {
    shared.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Observer for Metrics {
    fn called(&self, call: Call) {
        let (port, name) = (("port", call.port), ("call", call.call));
        let outcome = ("outcome", call.outcome);
        self.calls.get_or_create(&[port, name, outcome]).inc();
        let seconds = call.took.as_secs_f64();
        self.call_seconds
            .get_or_create(&[port, name])
            .observe(seconds);
    }

    fn recorded(&self, recorded: Recorded) {
        let label = ("event", recorded.event);
        self.events.get_or_create(&[label]).inc();
        if let Some(settled) = recorded.settled {
            self.late.inc_by(u64::from(settled.late));
            if let Some(took) = settled.took {
                self.confirmed.observe(took.as_secs_f64());
            }
        }
    }
}
