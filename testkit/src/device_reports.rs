//! Contract test cases for [`DeviceReports`].

use std::time::Duration;

use async_trait::async_trait;
use keywright_domain::model::{
    DeviceOutcome, DeviceReport, DeviceResult, FailureReason, KeyIndex, ReportedSlot, ThingName,
    WriteId,
};
use keywright_domain::ports::{Acknowledge, DeviceReports, ReportStreamItem};
use serde_json::{Value, json};

use crate::samples::{lock_id, thing};

/// How long a case waits for an item.
const ITEM_TIMEOUT: Duration = Duration::from_secs(20);

/// Where the reports of a stream come from.
#[async_trait]
pub trait ReportSource: Send + Sync {
    /// A lock reports: the thing's shadow gets these results (`reported.writeKeyResult`), and the stream is told of it.
    async fn report(&self, thing: &ThingName, results: &Value);

    /// Lets the stream miss reports, for instance by breaking its connection. If it never misses one, the test does not generate the
    /// case of interruptions.
    async fn interrupt(&self);

    /// Whether the transport knows that the last report is settled. If it never learns that, the test does not generate the case of
    /// acknowledgements.
    async fn is_settled(&self) -> bool;
}

/// A stream under test that has just been started.
pub struct ReportsFixture<'a> {
    /// The stream under test.
    pub reports: &'a dyn DeviceReports,
    /// Its source.
    pub source: &'a dyn ReportSource,
}

impl ReportsFixture<'_> {
    async fn next(&self) -> ReportStreamItem {
        let next = tokio::time::timeout(ITEM_TIMEOUT, self.reports.next()).await;
        next.expect("an item comes").expect("the stream goes on")
    }

    /// The next report. It may be preceded by requests to reconcile.
    async fn next_report(&self) -> (DeviceReport, Acknowledge) {
        loop {
            if let ReportStreamItem::Report(report, acknowledge) = self.next().await {
                return (report, acknowledge);
            }
        }
    }
}

fn door() -> ThingName {
    thing(lock_id(1))
}

fn succeeded(write: WriteId) -> Value {
    json!({ write.to_string(): { "status": "SUCCEEDED", "keyIndexNumber": 4 } })
}

/// A report is delivered with its thing and all its results.
pub async fn report_is_delivered_with_its_results(stream: &ReportsFixture<'_>) {
    let [one, two] = [1, 2].map(WriteId::from_u128);
    let mut results = succeeded(one);
    results[two.to_string()] = json!({ "status": "FAILED", "reason": "NoSpace" });
    stream.source.report(&door(), &results).await;
    let (report, acknowledge) = stream.next_report().await;
    acknowledge();
    assert_eq!(report.thing, door());
    let mut found = report.results;
    found.sort_by_key(|result| result.write.as_u128());
    let slot = ReportedSlot::Index(KeyIndex::new(4).expect("a key index"));
    let expected = [
        (one, DeviceOutcome::Succeeded { slot }),
        (two, DeviceOutcome::Failed(FailureReason::NoSpace)),
    ];
    let expected = expected.map(|(write, outcome)| DeviceResult { write, outcome });
    assert_eq!(found, expected);
}

/// The transport learns that a report is settled when it is acknowledged, and not before.
pub async fn report_is_settled_only_by_its_acknowledgement(stream: &ReportsFixture<'_>) {
    let results = succeeded(WriteId::from_u128(1));
    stream.source.report(&door(), &results).await;
    let (_, acknowledge) = stream.next_report().await;
    let is_settled = stream.source.is_settled().await;
    assert!(!is_settled, "nothing is acknowledged yet");
    acknowledge();
    for _ in 0..200 {
        if stream.source.is_settled().await {
            return;
        }
        tokio::time::sleep(ITEM_TIMEOUT / 200).await;
    }
    panic!("the transport does not learn of the acknowledgement");
}

/// After reports may have been missed, the stream asks to reconcile.
pub async fn interruption_is_followed_by_resumed(stream: &ReportsFixture<'_>) {
    // A stream may begin with a request to reconcile, which comes before this report.
    let results = succeeded(WriteId::from_u128(1));
    stream.source.report(&door(), &results).await;
    stream.next_report().await.1();
    stream.source.interrupt().await;
    while !matches!(stream.next().await, ReportStreamItem::Resumed) {}
}

/// A caller may stop waiting for an item. The next call returns the next item.
pub async fn dropped_wait_loses_no_item(stream: &ReportsFixture<'_>) {
    for write in [1, 2, 3].map(WriteId::from_u128) {
        let waiting = async {
            // A stream may begin with requests to reconcile.
            while let Ok(ReportStreamItem::Resumed) = stream.reports.next().await {}
        };
        let waited = tokio::time::timeout(Duration::from_millis(50), waiting).await;
        assert!(waited.is_err(), "there is no report yet");
        stream.source.report(&door(), &succeeded(write)).await;
        let (report, acknowledge) = stream.next_report().await;
        acknowledge();
        assert_eq!(report.results[0].write, write);
    }
}

/// Generates a test for each case of the contract of `DeviceReports`, on tokio's multi-threaded runtime.
///
/// In `device_reports_cases!(fixture)`, `fixture().await` returns a pair of smart pointers to a `DeviceReports` and a
/// [`ReportSource`](crate::device_reports::ReportSource). `device_reports_cases! { fixture: case, case }` generates only the named
/// cases.
#[macro_export]
macro_rules! device_reports_cases {
    ($fixture:path) => {
        $crate::device_reports_cases! { $fixture:
            report_is_delivered_with_its_results,
            report_is_settled_only_by_its_acknowledgement,
            interruption_is_followed_by_resumed,
            dropped_wait_loses_no_item
        }
    };
    ($fixture:path: $($case:ident),+) => {
        /// The names of the cases.
        pub const DEVICE_REPORTS_CASES: &[&str] = &[$(stringify!($case)),+];

        /// Runs one case by its name; the testkit's own tests run every case against broken adapters.
        pub async fn run_device_reports_case(case: &str, stream: &$crate::device_reports::ReportsFixture<'_>) {
            match case {
                $(stringify!($case) => $crate::device_reports::$case(stream).await,)+
                other => panic!("no such case: {other}"),
            }
        }

        $(#[tokio::test(flavor = "multi_thread")]
        async fn $case() {
            let (reports, source) = $fixture().await;
            let stream = $crate::device_reports::ReportsFixture { reports: &*reports, source: &*source };
            $crate::device_reports::$case(&stream).await;
        })+
    };
}
