//! Each way on which reports come, and that none of them forgets one which was not settled.

use std::sync::Arc;
use std::time::Duration;

use keywright_adapters::reports::{HttpReports, MqttReports, PollingReports, Undelivered};
use keywright_domain::ports::*;
use keywright_domain::values::*;
use keywright_mqtt::mosquitto::Mosquitto;
use keywright_mqtt::{Broker, Files};
use keywright_shadow::mqtt::{Attached, Options};
use keywright_shadow::{ShadowName, ShadowService};
use serde_json::json;

use crate::{NAME, service};

fn broker_at(broker: &Mosquitto) -> Broker {
    Broker::new(broker.url(), &Files::default()).expect("a broker")
}

fn start(broker: &Mosquitto) -> MqttReports {
    MqttReports::start(&broker_at(broker), "backend-reports", &[NAME.to_owned()])
}

async fn attach(service: &ShadowService, broker: &Mosquitto) -> Attached {
    let mut attached = Attached::start(service.clone(), broker_at(broker), Options::default());
    attached.wait_until_up().await.expect("attached");
    attached
}

async fn update(service: &ShadowService, thing: &str, body: serde_json::Value) {
    let name = ShadowName::Named(NAME.into());
    service
        .update(thing, &name, body.to_string().as_bytes())
        .await
        .expect("accepted");
}

async fn report(service: &ShadowService, thing: &str, write: WriteId) {
    let result = json!({ write.to_string(): { "status": "SUCCEEDED", "keyIndexNumber": 1 } });
    update(
        service,
        thing,
        json!({ "state": { "reported": { "writeKeyResult": result } } }),
    )
    .await;
}

async fn next(reports: &dyn DeviceReports) -> ReportStreamItem {
    let next = tokio::time::timeout(Duration::from_secs(20), reports.next());
    next.await
        .expect("something comes")
        .expect("the stream goes on")
}

async fn next_report(reports: &dyn DeviceReports) -> (DeviceReport, Acknowledge) {
    loop {
        if let ReportStreamItem::Report(report, acknowledge) = next(reports).await {
            return (report, acknowledge);
        }
    }
}

async fn resumed(reports: &dyn DeviceReports) {
    assert!(matches!(next(reports).await, ReportStreamItem::Resumed));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_report_over_mqtt_comes_again_until_it_is_acknowledged() {
    let (broker, service) = (Mosquitto::start(), service());
    let _attached = attach(&service, &broker).await;
    let (first, second) = (WriteId::from_u128(1), WriteId::from_u128(2));
    let reports = start(&broker);
    resumed(&reports).await;
    // What we write ourselves is accepted on the same topic, and is no report.
    update(
        &service,
        "door",
        json!({ "state": { "reported": { "writeKey": {} } } }),
    )
    .await;
    report(&service, "door", first).await;
    let (found, unacknowledged) = next_report(&reports).await;
    assert_eq!(
        (found.thing.as_str(), found.results[0].write),
        ("door", first)
    );
    assert_eq!(found.shadow_version, Some(ShadowVersion(2)));
    drop((unacknowledged, reports));

    let reports = start(&broker);
    let (again, acknowledge) = next_report(&reports).await;
    assert_eq!(again, found, "it was not settled");
    acknowledge();
    report(&service, "door", second).await;
    let (found, acknowledge) = next_report(&reports).await;
    assert_eq!(found.results[0].write, second);
    acknowledge();
    // The acknowledgements are on their way before the connection ends.
    tokio::time::sleep(Duration::from_millis(300)).await;
    drop(reports);

    // A backend that is away misses nothing that is reported meanwhile.
    report(&service, "door", first).await;
    let reports = start(&broker);
    let (found, _) = next_report(&reports).await;
    assert_eq!(
        (found.results[0].write, found.shadow_version),
        (first, Some(ShadowVersion(4)))
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn each_new_connection_says_that_reports_may_have_been_missed() {
    let mut broker = Mosquitto::start();
    let reports = start(&broker);
    resumed(&reports).await;
    broker.restart();
    resumed(&reports).await;
}

#[tokio::test]
async fn what_is_posted_is_answered_when_it_is_settled() {
    let (old, new) = (WriteId::from_u128(1), WriteId::from_u128(2));
    let state = |ids: &[WriteId], version: u64| {
        let result = json!({ "status": "SUCCEEDED" });
        let results = ids.iter().map(|id| (id.to_string(), result.clone()));
        let results: serde_json::Map<_, _> = results.collect();
        json!({ "state": { "reported": { "writeKeyResult": results } }, "version": version })
    };
    let documents = json!({
        "thing": "door", "previous": state(&[old], 6), "current": state(&[old, new], 7), "timestamp": 1,
    });
    let reports = Arc::new(HttpReports::new());
    let (deliverer, body) = (reports.clone(), documents.to_string());
    let delivery = tokio::spawn(async move { deliverer.deliver(body.as_bytes()).await });
    let (report, acknowledge) = next_report(&*reports).await;
    assert_eq!(report.shadow_version, Some(ShadowVersion(7)));
    assert_eq!(
        report.results.iter().map(|r| r.write).collect::<Vec<_>>(),
        [new],
        "only what is new"
    );
    assert!(!delivery.is_finished(), "it is not settled yet");
    acknowledge();
    assert_eq!(delivery.await.expect("no panic"), Ok(()));

    // A report that nobody settles is to be brought again.
    let (deliverer, body) = (reports.clone(), documents.to_string());
    let delivery = tokio::spawn(async move { deliverer.deliver(body.as_bytes()).await });
    drop(next_report(&*reports).await);
    assert_eq!(
        delivery.await.expect("no panic"),
        Err(Undelivered::NotSettled)
    );

    // The first of all has no document before it; what is no report is done with at once.
    let first = json!({ "thing": "door", "previous": null, "current": state(&[], 1) });
    assert_eq!(reports.deliver(first.to_string().as_bytes()).await, Ok(()));
    for none in [
        "",
        "[]",
        "{}",
        r#"{"thing":"door"}"#,
        r#"{"thing":"a b","previous":null,"current":{}}"#,
    ] {
        let refused = reports.deliver(none.as_bytes()).await;
        assert!(
            matches!(refused, Err(Undelivered::Malformed(_))),
            "{none}: {refused:?}"
        );
    }
}

#[tokio::test(start_paused = true)]
async fn looking_is_asked_for_again_and_again() {
    let reports = PollingReports::new(Duration::from_secs(30));
    let start = tokio::time::Instant::now();
    for n in 1..4 {
        assert!(matches!(
            reports.next().await,
            Ok(ReportStreamItem::Resumed)
        ));
        assert_eq!(start.elapsed(), Duration::from_secs(30 * n));
    }
}
