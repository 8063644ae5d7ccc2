//! The stream of an in-process shadow service and a stream over a channel fulfil the contract of `DeviceReports`, and for each case a
//! broken stream fails this case and no other.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use async_trait::async_trait;
use keywright_adapters::shadow::document_json;
use keywright_domain::model::{DeviceReport, ThingName};
use keywright_domain::ports::{DeviceReports, ReportStreamItem, ReportsClosed};
use keywright_testkit::device_reports::{ReportSource, ReportsFixture};
use keywright_testkit::device_reports_cases;
use serde_json::{Value, json};
use tokio::sync::{Mutex, mpsc};

/// Sends reports over a channel, and learns that they are settled.
struct Sender {
    tx: mpsc::UnboundedSender<Option<DeviceReport>>,
    is_settled: Arc<AtomicBool>,
}

#[async_trait]
impl ReportSource for Sender {
    async fn report(&self, thing: &ThingName, results: &Value) {
        self.is_settled.store(false, Ordering::SeqCst);
        let body = json!({ "state": { "reported": { "writeKeyResult": results } } });
        let report = DeviceReport {
            thing: thing.clone(),
            shadow_version: None,
            results: document_json::results(&body),
            entries: Vec::new(),
        };
        self.tx.send(Some(report)).expect("the stream lives");
    }

    async fn interrupt(&self) {
        self.tx.send(None).expect("the stream lives");
    }

    async fn is_settled(&self) -> bool {
        self.is_settled.load(Ordering::SeqCst)
    }
}

/// A stream that violates the contract only in what the named case checks.
struct Stream {
    broken: &'static str,
    /// `None`: reports were missed.
    rx: Mutex<mpsc::UnboundedReceiver<Option<DeviceReport>>>,
    is_settled: Arc<AtomicBool>,
    /// How many calls have not returned.
    unfinished_calls: AtomicUsize,
}

#[async_trait]
impl DeviceReports for Stream {
    async fn next(&self) -> Result<ReportStreamItem, ReportsClosed> {
        let dropped_calls = self.unfinished_calls.fetch_add(1, Ordering::SeqCst);
        let mut rx = self.rx.lock().await;
        if self.broken == "dropped_wait_loses_no_item" && dropped_calls > 0 {
            rx.recv().await;
        }
        loop {
            let item = rx.recv().await.ok_or(ReportsClosed)?;
            self.unfinished_calls.store(0, Ordering::SeqCst);
            let Some(mut report) = item else {
                if self.broken == "interruption_is_followed_by_resumed" {
                    continue;
                }
                return Ok(ReportStreamItem::Resumed);
            };
            if self.broken == "report_is_delivered_with_its_results" {
                report.results.truncate(1);
            }
            let is_settled = self.is_settled.clone();
            if self.broken == "report_is_settled_only_by_its_acknowledgement" {
                is_settled.store(true, Ordering::SeqCst);
            }
            let acknowledge = Box::new(move || is_settled.store(true, Ordering::SeqCst));
            return Ok(ReportStreamItem::Report(report, acknowledge));
        }
    }
}

fn stream(broken: &'static str) -> (Arc<Stream>, Arc<Sender>) {
    let (tx, rx) = mpsc::unbounded_channel();
    let is_settled = Arc::new(AtomicBool::new(false));
    let stream = Stream {
        broken,
        rx: Mutex::new(rx),
        is_settled: is_settled.clone(),
        unfinished_calls: AtomicUsize::new(0),
    };
    (Arc::new(stream), Arc::new(Sender { tx, is_settled }))
}

async fn fixture() -> (Arc<Stream>, Arc<Sender>) {
    stream("nothing")
}

device_reports_cases!(fixture);

#[tokio::test(start_paused = true)]
async fn each_broken_stream_fails_its_own_case_and_no_other() {
    for broken in DEVICE_REPORTS_CASES {
        for case in DEVICE_REPORTS_CASES {
            let (reports, source) = stream(broken);
            let outcome = tokio::spawn(async move {
                let stream = ReportsFixture {
                    reports: &*reports,
                    source: &*source,
                };
                run_device_reports_case(case, &stream).await;
            });
            assert_eq!(
                outcome.await.is_err(),
                broken == case,
                "stream broken for {broken}, case {case}"
            );
        }
    }
}

mod in_process {
    use keywright_adapters::reports::InMemoryReports;
    use keywright_shadow::{Limits, ServiceConfig, ShadowName, ShadowService};

    use super::*;

    struct Service(ShadowService);

    #[async_trait]
    impl ReportSource for Service {
        async fn report(&self, thing: &ThingName, results: &Value) {
            let body = json!({ "state": { "reported": { "writeKeyResult": results } } });
            let name = ShadowName::Named("keys".into());
            let body = body.to_string();
            let accepted = self.0.update(thing.as_str(), &name, body.as_bytes()).await;
            accepted.expect("a report");
        }

        /// Makes so many changes that the stream cannot keep all of them.
        async fn interrupt(&self) {
            let thing = ThingName::new("busy").expect("a name");
            for n in 0..10_000 {
                self.report(&thing, &json!({ "n": n })).await;
            }
        }

        async fn is_settled(&self) -> bool {
            unreachable!("the service does not learn that a report is settled")
        }
    }

    async fn fixture() -> (Arc<InMemoryReports>, Arc<Service>) {
        let service = ShadowService::in_memory(ServiceConfig {
            clock: Arc::new(|| 1_780_000_000),
            limits: Limits::default(),
        });
        let name = ShadowName::Named("keys".into());
        let reports = InMemoryReports::new(&service, name);
        (Arc::new(reports), Arc::new(Service(service)))
    }

    device_reports_cases! { fixture:
        report_is_delivered_with_its_results,
        interruption_is_followed_by_resumed,
        dropped_wait_loses_no_item
    }
}
