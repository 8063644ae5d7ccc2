//! Streams of reports, and that unsettled reports are not lost.

use std::sync::Arc;
use std::time::Duration;

use keywright_adapters::reports::{DeliveryError, HttpReports, MqttReports, PollingReports};
use keywright_domain::model::*;
use keywright_domain::ports::*;
use keywright_mqtt::mosquitto::Mosquitto;
use keywright_mqtt::{Broker, Handler, Message, QoS, Session, SessionOptions, TlsFiles};
use keywright_shadow::mqtt::{MqttFrontend, Options};
use keywright_shadow::{ShadowName, ShadowService};
use serde_json::json;
use tokio::sync::mpsc::{UnboundedSender, unbounded_channel};

use crate::{NAME, service};

fn broker_at(broker: &Mosquitto) -> Broker {
    Broker::new(broker.url(), &TlsFiles::default()).expect("a broker")
}

fn start(broker: &Mosquitto) -> MqttReports {
    MqttReports::start(&broker_at(broker), "backend-reports", &[NAME.to_owned()])
}

async fn start_frontend(service: &ShadowService, broker: &Mosquitto) -> MqttFrontend {
    let mut frontend = MqttFrontend::start(service.clone(), broker_at(broker), Options::default());
    frontend.wait_until_up().await.expect("attached");
    frontend
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
async fn mqtt_delivers_reports_and_not_our_own_updates() {
    let (broker, service) = (Mosquitto::start(), service());
    let _frontend = start_frontend(&service, &broker).await;
    let write = WriteId::from_u128(1);
    let reports = start(&broker);
    resumed(&reports).await;
    // Our own updates are accepted on the same topic and are not reports.
    let created = json!({ "state": { "reported": { "writeKey": {} } } });
    update(&service, "door", created).await;
    report(&service, "door", write).await;
    let (found, acknowledge) = next_report(&reports).await;
    assert_eq!(
        (found.thing.as_str(), found.results[0].write),
        ("door", write)
    );
    assert_eq!(found.shadow_version, Some(ShadowVersion(2)));
    acknowledge();
}

/// Forwards the topics of received messages.
struct Topics(UnboundedSender<String>);

impl Handler for Topics {
    fn connected(&mut self, _: u64) {}

    fn disconnected(&mut self, _: u64, _: &str) {}

    fn message_received(&mut self, message: Message) {
        let _ = self.0.send(message.topic().to_owned());
    }
}

/// The topics of the messages that the broker has queued for this client id, before a sentinel that is published now.
async fn queued_for(broker: &Mosquitto, client_id: &str) -> Vec<String> {
    let (tx, mut topics) = unbounded_channel();
    let options = SessionOptions {
        client_id: client_id.to_owned(),
        filters: vec!["sentinel".into()],
        persistent_session: true,
        manual_acks: false,
    };
    let session = Session::start(broker_at(broker), options, Topics(tx));
    let connected = session.connection_within(Duration::from_secs(20)).await;
    let sentinel = connected.expect("connected");
    let sent = sentinel.publish("sentinel", QoS::AtLeastOnce, "x".into());
    sent.await.expect("sent");
    let mut queued = Vec::new();
    loop {
        let topic = tokio::time::timeout(Duration::from_secs(20), topics.recv());
        match topic.await.expect("it arrives").expect("the session lives") {
            sentinel if sentinel == "sentinel" => return queued,
            topic => queued.push(topic),
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_broker_queues_no_reports_for_a_server_that_never_returns() {
    let (broker, service) = (Mosquitto::start(), service());
    let _frontend = start_frontend(&service, &broker).await;
    // A persistent session of an earlier version with the same client id.
    let topic = format!("$aws/things/+/shadow/name/{NAME}/update/accepted");
    let (tx, _) = unbounded_channel();
    let options = SessionOptions {
        client_id: "backend-reports".into(),
        filters: vec![topic],
        persistent_session: true,
        manual_acks: true,
    };
    let earlier = Session::start(broker_at(&broker), options, Topics(tx));
    let connected = earlier.connection_within(Duration::from_secs(20)).await;
    connected.expect("connected");
    drop(earlier);

    let reports = start(&broker);
    resumed(&reports).await;
    drop(reports);
    for n in 1..=100 {
        report(&service, "door", WriteId::from_u128(n)).await;
    }
    assert_eq!(
        queued_for(&broker, "backend-reports").await,
        Vec::<String>::new()
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn an_overflow_of_reports_causes_a_read_of_the_shadows() {
    let broker = Mosquitto::start();
    let reports = start(&broker);
    resumed(&reports).await;
    let (tx, _) = unbounded_channel();
    let options = SessionOptions {
        client_id: "locks".into(),
        filters: Vec::new(),
        persistent_session: false,
        manual_acks: false,
    };
    let locks = Session::start(broker_at(&broker), options, Topics(tx));
    let connected = locks.connection_within(Duration::from_secs(20)).await;
    let locks = connected.expect("connected");
    let topic = format!("$aws/things/door/shadow/name/{NAME}/update/accepted");
    let id = WriteId::from_u128(1).to_string();
    let body =
        json!({ "state": { "reported": { "writeKeyResult": { id: { "status": "SUCCEEDED" } } } } });
    // One report is taken for each thousand that arrive, so the stream overflows after a few rounds.
    for _ in 0..30 {
        for _ in 0..1000 {
            let sent = locks.publish(&topic, QoS::AtLeastOnce, body.to_string().into());
            sent.await.expect("sent");
        }
        if let ReportStreamItem::Resumed = next(&reports).await {
            drop(next_report(&reports).await);
            return;
        }
    }
    panic!("the stream did not report the overflow");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_new_connection_reports_that_messages_may_be_lost() {
    let mut broker = Mosquitto::start();
    let reports = start(&broker);
    resumed(&reports).await;
    broker.restart();
    resumed(&reports).await;
}

#[tokio::test]
async fn a_posted_report_is_answered_when_it_is_settled() {
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
        "only new results"
    );
    assert!(!delivery.is_finished(), "it is not settled yet");
    acknowledge();
    assert_eq!(delivery.await.expect("no panic"), Ok(()));

    // A report that is dropped without being settled has to be posted again.
    let (deliverer, body) = (reports.clone(), documents.to_string());
    let delivery = tokio::spawn(async move { deliverer.deliver(body.as_bytes()).await });
    drop(next_report(&*reports).await);
    assert_eq!(
        delivery.await.expect("no panic"),
        Err(DeliveryError::NotSettled)
    );

    // The first update has no previous document. A message without new results is answered immediately.
    let first = json!({ "thing": "door", "previous": null, "current": state(&[], 1) });
    assert_eq!(reports.deliver(first.to_string().as_bytes()).await, Ok(()));
    for invalid in [
        "",
        "[]",
        "{}",
        r#"{"thing":"door"}"#,
        r#"{"thing":"a b","previous":null,"current":{}}"#,
    ] {
        let refused = reports.deliver(invalid.as_bytes()).await;
        assert!(
            matches!(refused, Err(DeliveryError::Malformed(_))),
            "{invalid}: {refused:?}"
        );
    }
}

#[tokio::test(start_paused = true)]
async fn polling_resumes_at_each_interval() {
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
