//! Runs the cases through REST and MQTT, and tests what only these frontends do.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use http_body_util::{BodyExt, Full};
use hyper::body::Bytes;
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper_util::rt::TokioIo;
use keywright_mqtt::mosquitto::Mosquitto;
use keywright_mqtt::{Broker, Handler, Message, QoS, Session, SessionOptions, TlsFiles};
use keywright_shadow::mqtt::{FrontendError, MqttFrontend, Options, Topic};
use keywright_shadow::{Limits, ServiceConfig, ShadowName, ShadowService, rest};
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use serde_json::{Value, json};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};

use crate::vectors::{self, Answer, Channel, Outcome};

/// A service with both frontends, and a client of each.
struct Frontends {
    service: ShadowService,
    now: Arc<AtomicU64>,
    http: SendRequest<Full<Bytes>>,
    mqtt: Session,
    received: UnboundedReceiver<(String, Value)>,
    frontend: MqttFrontend,
    broker: Mosquitto,
}

struct Listener(UnboundedSender<(String, Value)>);

impl Handler for Listener {
    fn connected(&mut self, _: u64) {}

    fn disconnected(&mut self, _: u64, reason: &str) {
        panic!("the connection is lost: {reason}");
    }

    fn message_received(&mut self, message: Message) {
        // This client also receives its own requests, because it subscribes to all topics.
        let topic = Topic::parse(message.topic()).expect("a shadow's topic");
        // Ignores the service's readiness probe.
        if topic.outcome.is_some() && topic.thing != "keywright-probe" {
            let body = serde_json::from_slice(message.payload()).expect("JSON");
            let _ = self.0.send((message.topic().to_owned(), body));
        }
    }
}

impl Frontends {
    async fn start(limits: Limits) -> Self {
        let now = Arc::new(AtomicU64::new(0));
        let clock = now.clone();
        let config = ServiceConfig {
            clock: Arc::new(move || clock.load(Ordering::SeqCst)),
            limits,
        };
        let service = ShadowService::in_memory(config);
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("an address");
        tokio::spawn(rest::serve(
            listener,
            service.clone(),
            std::future::pending(),
        ));
        let stream = TcpStream::connect(address).await.expect("a connection");
        stream.set_nodelay(true).expect("set");
        let (http, connection) = handshake(TokioIo::new(stream)).await.expect("HTTP");
        tokio::spawn(connection);

        let broker = Mosquitto::start();
        let broker_config = Broker::new(broker.url(), &TlsFiles::default()).expect("a broker");
        let mut frontend =
            MqttFrontend::start(service.clone(), broker_config.clone(), Options::default());
        frontend.wait_until_up().await.expect("attached");
        let (tx, received) = unbounded_channel();
        let options = SessionOptions {
            client_id: "test".into(),
            filters: vec!["$aws/things/#".into()],
            persistent_session: false,
            manual_acks: false,
        };
        let mqtt = Session::start(broker_config, options, Listener(tx));
        mqtt.connection_within(Duration::from_secs(10))
            .await
            .expect("connected");
        Self {
            service,
            now,
            http,
            mqtt,
            received,
            frontend,
            broker,
        }
    }

    async fn run(&mut self, vector: &Value, channel: Channel) {
        self.now.store(vectors::now(vector), Ordering::SeqCst);
        let (thing, shadow) = (vectors::thing(vector), vectors::shadow_name(vector));
        if let Some(record) = vectors::initial_record(vector) {
            self.service
                .put_record(thing, &shadow, record)
                .await
                .expect("stored");
        }
        let before = self.service.document(thing, &shadow);
        let rest = match channel {
            Channel::Rest => Some(self.over_rest(vector).await),
            _ => {
                let operation = vector["op"].as_str().expect("an operation");
                self.publish(
                    &Topic::text(thing, &shadow, operation),
                    vectors::body(vector),
                )
                .await;
                None
            }
        };
        let published = self.receive_until_sentinel(thing, &shadow).await;
        let answer = rest.unwrap_or_else(|| over_mqtt(vector, &published));
        let after = self.service.document(thing, &shadow);
        vectors::check(
            vector,
            &Outcome {
                answer,
                published,
                before,
                after,
            },
            channel,
        );
    }

    async fn publish(&self, topic: &str, body: String) {
        let connection = self.mqtt.connection().expect("connected");
        connection
            .publish(topic, QoS::AtLeastOnce, body.into())
            .await
            .expect("sent");
    }

    /// Collects the messages of the shadow until the service answers another request for the same thing, because the service handles the
    /// requests of a thing in order. If the thing's name is invalid in a topic, that request is for the thing `sentinel`.
    async fn receive_until_sentinel(
        &mut self,
        thing: &str,
        shadow: &ShadowName,
    ) -> Vec<(String, Value)> {
        let thing = if thing.contains('/') || thing.len() > 128 {
            "sentinel"
        } else {
            thing
        };
        let sentinel = ShadowName::Named("sentinel".into());
        self.publish(&Topic::text(thing, &sentinel, "get"), String::new())
            .await;
        let end = Topic::text(thing, &sentinel, "get/rejected");
        let mut messages = Vec::new();
        loop {
            let message = tokio::time::timeout(Duration::from_secs(20), self.received.recv()).await;
            let (topic, body) = message.expect("the service answers").expect("connected");
            if topic == end {
                return messages;
            }
            let parsed = Topic::parse(&topic).expect("a shadow's topic");
            assert_eq!(parsed.shadow, *shadow, "messages of this shadow only");
            let suffix = format!(
                "{}/{}",
                parsed.operation.name(),
                parsed.outcome.expect("an outcome")
            );
            messages.push((suffix, body));
        }
    }

    async fn over_rest(&mut self, vector: &Value) -> Answer {
        let thing = utf8_percent_encode(vectors::thing(vector), NON_ALPHANUMERIC);
        let mut path = format!("/things/{thing}/shadow");
        if let ShadowName::Named(name) = vectors::shadow_name(vector) {
            path.push_str(&format!(
                "?name={}",
                utf8_percent_encode(&name, NON_ALPHANUMERIC)
            ));
        }
        let method = match vector["op"].as_str().expect("an operation") {
            "update" => "POST",
            "get" => "GET",
            "delete" => "DELETE",
            "list" => {
                path = format!("/api/things/shadow/ListNamedShadowsForThing/{thing}");
                "GET"
            }
            other => panic!("unknown operation {other}"),
        };
        let request = hyper::Request::builder()
            .method(method)
            .uri(path)
            .header("Host", "localhost");
        let request = request
            .body(Full::from(vectors::body(vector)))
            .expect("a request");
        self.http.ready().await.expect("connected");
        let response = self.http.send_request(request).await.expect("an answer");
        let (head, body) = response.into_parts();
        let body = body.collect().await.expect("a body").to_bytes();
        let body: Value = serde_json::from_slice(&body).expect("JSON");
        assert!(head.headers.contains_key("x-amzn-requestid"));
        match head.headers.get("x-amzn-errortype") {
            None => {
                assert_eq!(head.status, 200);
                Answer::Accepted(body)
            }
            Some(kind) => {
                assert!(body["traceId"].is_string());
                let found = json!({ "code": head.status.as_u16(), "message": body["message"] });
                Answer::Rejected(found, Some(kind.to_str().expect("text").to_owned()))
            }
        }
    }
}

fn over_mqtt(vector: &Value, published: &[(String, Value)]) -> Answer {
    let operation = vector["op"].as_str().expect("an operation");
    let answer_on = |outcome: &str| {
        let suffix = format!("{operation}/{outcome}");
        published
            .iter()
            .find(|(s, _)| *s == suffix)
            .map(|(_, body)| body.clone())
    };
    match (answer_on("accepted"), answer_on("rejected")) {
        (Some(body), None) => Answer::Accepted(body),
        (None, Some(body)) => Answer::Rejected(body, None),
        answers => panic!("{}: expected one answer, found {answers:?}", vector["id"]),
    }
}

/// The numbers of vectors in `aws-iot-vectors.jsonl` that can be run over each channel.
const AWS_VECTORS_OVER_REST: usize = 59;
const AWS_VECTORS_OVER_MQTT: usize = 56;

/// The number of vectors in `keywright-vectors.jsonl`. All of them can be run over both channels.
const KEYWRIGHT_VECTORS: usize = 3;

async fn run_all(channel: Channel, expected: usize) {
    let all = ["high", "medium", "low"]
        .map(|confidence| vectors::vectors(confidence, channel))
        .concat();
    assert_eq!(all.len(), expected, "the number of vectors");
    let mut by_limits: BTreeMap<usize, Vec<Value>> = BTreeMap::new();
    for (n, vector) in all.iter().enumerate() {
        let vector = vectors::on_thing(vector, n);
        by_limits
            .entry(vectors::limits(&vector).max_levels)
            .or_default()
            .push(vector);
    }
    for vectors in by_limits.values() {
        let mut frontends = Frontends::start(vectors::limits(&vectors[0])).await;
        for vector in vectors {
            frontends.run(vector, channel).await;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn all_vectors_pass_over_rest_with_their_messages_on_mqtt() {
    run_all(Channel::Rest, AWS_VECTORS_OVER_REST + KEYWRIGHT_VECTORS).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn all_vectors_pass_over_mqtt() {
    run_all(Channel::Mqtt, AWS_VECTORS_OVER_MQTT + KEYWRIGHT_VECTORS).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn refuses_to_start_beside_another_service_on_the_broker() {
    let frontends = Frontends::start(Limits::default()).await;
    let config = ServiceConfig {
        clock: Arc::new(|| 1),
        limits: Limits::default(),
    };
    let broker = Broker::new(frontends.broker.url(), &TlsFiles::default()).expect("a broker");
    let mut second =
        MqttFrontend::start(ShadowService::in_memory(config), broker, Options::default());
    let error = second.wait_until_up().await.expect_err("refused");
    assert_eq!(error, FrontendError::AnotherService);
    assert!(frontends.mqtt.connection().is_ok());
}

/// Sends a request over HTTP. Returns the status and the error type of the answer.
async fn send_http(
    frontends: &mut Frontends,
    method: &str,
    path: &str,
    body: &str,
) -> (u16, String) {
    let request = hyper::Request::builder()
        .method(method)
        .uri(path)
        .header("Host", "localhost");
    let request = request
        .body(Full::from(body.to_owned()))
        .expect("a request");
    frontends.http.ready().await.expect("connected");
    let response = frontends
        .http
        .send_request(request)
        .await
        .expect("an answer");
    let kind = response.headers().get("x-amzn-errortype");
    let kind = kind
        .map_or("", |kind| kind.to_str().expect("text"))
        .to_owned();
    let status = response.status().as_u16();
    response.into_body().collect().await.expect("a body");
    (status, kind)
}

#[tokio::test(flavor = "multi_thread")]
async fn rejects_invalid_http_requests_like_aws_iot() {
    let mut frontends = Frontends::start(Limits::default()).await;
    let large = format!("{{\"state\":{{}},\"x\":\"{}\"}}", "y".repeat(128 * 1024));
    let list = "/api/things/shadow/ListNamedShadowsForThing/door";
    for (method, path, body, status, kind) in [
        (
            "PUT",
            "/things/door/shadow",
            "{}",
            405,
            "MethodNotAllowedException",
        ),
        ("POST", list, "{}", 405, "MethodNotAllowedException"),
        ("GET", "/things/door", "", 404, "ResourceNotFoundException"),
        ("GET", "/", "", 404, "ResourceNotFoundException"),
        (
            "GET",
            "/things/a%20b/shadow",
            "",
            400,
            "InvalidRequestException",
        ),
        (
            "GET",
            "/things/%ff/shadow",
            "",
            400,
            "InvalidRequestException",
        ),
        (
            "GET",
            "/things/door/shadow?name=a%2Fb",
            "",
            400,
            "InvalidRequestException",
        ),
        (
            "GET",
            &format!("{list}?pageSize=0"),
            "",
            400,
            "InvalidRequestException",
        ),
        (
            "GET",
            &format!("{list}?pageSize=101"),
            "",
            400,
            "InvalidRequestException",
        ),
        ("GET", &format!("{list}?pageSize=100"), "", 200, ""),
        (
            "POST",
            "/things/door/shadow",
            "",
            400,
            "InvalidRequestException",
        ),
        (
            "POST",
            "/things/door/shadow",
            &large,
            413,
            "RequestEntityTooLargeException",
        ),
        (
            "GET",
            "/things/door/shadow",
            "",
            404,
            "ResourceNotFoundException",
        ),
    ] {
        let found = send_http(&mut frontends, method, path, body).await;
        assert_eq!(found, (status, kind.to_owned()), "{method} {path}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn ignores_retained_requests() {
    let broker = Mosquitto::start();
    let update = r#"{"state":{"desired":{"a":1}}}"#;
    broker.publish("$aws/things/door/shadow/update", update, true);
    let config = ServiceConfig {
        clock: Arc::new(|| 1),
        limits: Limits::default(),
    };
    let (service, at) = (
        ShadowService::in_memory(config),
        Broker::new(broker.url(), &TlsFiles::default()),
    );
    let mut frontend =
        MqttFrontend::start(service.clone(), at.expect("a broker"), Options::default());
    frontend.wait_until_up().await.expect("attached");
    // The retained request arrived with the subscription, before this one.
    broker.publish(
        "$aws/things/door/shadow/name/n/update",
        r#"{"state":{}}"#,
        false,
    );
    for _ in 0..500 {
        if service
            .document("door", &ShadowName::Named("n".into()))
            .is_some()
        {
            assert_eq!(service.document("door", &ShadowName::Classic), None);
            return;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("the second request was not done");
}

/// Connects with the client id of the service, which ends the service's connection and keeps it disconnected until the session is
/// dropped.
async fn evict(broker: &Mosquitto) -> Session {
    struct IgnoreAll;
    impl Handler for IgnoreAll {
        fn connected(&mut self, _: u64) {}
        fn disconnected(&mut self, _: u64, _: &str) {}
        fn message_received(&mut self, _: Message) {}
    }
    let options = SessionOptions {
        client_id: "keywright-shadow".into(),
        filters: Vec::new(),
        persistent_session: true,
        manual_acks: true,
    };
    let at = Broker::new(broker.url(), &TlsFiles::default()).expect("a broker");
    let session = Session::start(at, options, IgnoreAll);
    session
        .connection_within(Duration::from_secs(10))
        .await
        .expect("connected");
    session
}

#[tokio::test(flavor = "multi_thread")]
async fn publishes_changes_and_deltas_again_after_a_lost_connection() {
    let mut frontends = Frontends::start(Limits::default()).await;
    let keys = ShadowName::Named("keys".into());
    let write =
        |id: &str| format!(r#"{{"state":{{"desired":{{"writeKey":{{"{id}":{{"seq":1}}}}}}}}}}"#);
    // An old delta: its message may have been lost with the connection.
    frontends
        .service
        .update("old", &keys, write("w1").as_bytes())
        .await
        .expect("accepted");
    while frontends.received.recv().await.expect("a message").0
        != Topic::text("old", &keys, "update/documents")
    {}
    let evicting = evict(&frontends.broker).await;
    // Messages that are published before the service notices the loss are lost.
    let mut up = frontends.frontend.up();
    let down = tokio::time::timeout(Duration::from_secs(10), up.wait_for(|up| !up));
    drop(down.await.expect("in time").expect("it runs"));
    frontends
        .service
        .update("new", &keys, write("w2").as_bytes())
        .await
        .expect("accepted");
    drop(evicting);
    let mut wanted = vec![
        Topic::text("new", &keys, "update/accepted"),
        Topic::text("new", &keys, "update/delta"),
        Topic::text("old", &keys, "update/delta"),
    ];
    while !wanted.is_empty() {
        let message =
            tokio::time::timeout(Duration::from_secs(30), frontends.received.recv()).await;
        let (topic, _) = message
            .unwrap_or_else(|_| panic!("not received: {wanted:?}"))
            .expect("connected");
        wanted.retain(|wanted| *wanted != topic);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn keeps_the_connection_when_a_message_is_too_large_for_mqtt() {
    let mut frontends = Frontends::start(Limits::default()).await;
    let shadow = ShadowName::Named("numbers".into());
    let numbers = vec!["0"; 4000].join(",");
    let body = format!(r#"{{"state":{{"reported":{{"a":[{numbers}]}}}}}}"#);
    for _ in 0..2 {
        frontends
            .publish(&Topic::text("door", &shadow, "update"), body.clone())
            .await;
    }
    let messages = frontends.receive_until_sentinel("door", &shadow).await;
    let count = |suffix: &str| messages.iter().filter(|(s, _)| s == suffix).count();
    // The second documents message has 4,000 timestamps in `previous` and in `current`.
    assert_eq!(
        (count("update/accepted"), count("update/documents")),
        (2, 1)
    );
    let document = frontends
        .service
        .document("door", &shadow)
        .expect("a shadow");
    assert_eq!(document.version, 2, "each update is applied once");
}

#[tokio::test(flavor = "multi_thread")]
async fn does_not_publish_an_entry_that_was_removed_while_disconnected() {
    let mut frontends = Frontends::start(Limits::default()).await;
    let keys = ShadowName::Named("keys".into());
    let evicting = evict(&frontends.broker).await;
    let write = r#"{"state":{"reported":{"writeKey":{}},"desired":{"writeKey":{"w1":{"seq":1}}}}}"#;
    frontends
        .service
        .update("door", &keys, write.as_bytes())
        .await
        .expect("accepted");
    let withdraw = r#"{"state":{"desired":{"writeKey":{"w1":null}}}}"#;
    frontends
        .service
        .update("door", &keys, withdraw.as_bytes())
        .await
        .expect("accepted");
    drop(evicting);
    let end = Topic::text("door", &keys, "update/documents");
    let mut documents = 0;
    while documents < 2 {
        // Messages may get lost if the connection is lost again.
        let message = tokio::time::timeout(Duration::from_secs(10), frontends.received.recv());
        let Ok(message) = message.await else { break };
        let (topic, body) = message.expect("connected");
        assert!(
            !topic.ends_with("/delta"),
            "the removed entry was published: {body}"
        );
        documents += usize::from(topic == end);
    }
    let rest = frontends.receive_until_sentinel("door", &keys).await;
    assert!(
        rest.iter().all(|(suffix, _)| suffix != "update/delta"),
        "{rest:?}"
    );
}
