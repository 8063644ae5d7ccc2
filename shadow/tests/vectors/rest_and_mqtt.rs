//! One service behind both fronts, seen from a client of each.

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
use keywright_shadow::mqtt::{MqttFrontend, Options, Topic};
use keywright_shadow::{Limits, ServiceConfig, ShadowName, ShadowService, rest};
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use serde_json::{Value, json};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};

use crate::cases;
use crate::cases::{Answer, Channel, Outcome};

/// A service with REST and MQTT in front of it, and a client of each.
struct Fronts {
    service: ShadowService,
    now: Arc<AtomicU64>,
    http: SendRequest<Full<Bytes>>,
    mqtt: Session,
    heard: UnboundedReceiver<(String, Value)>,
    frontend: MqttFrontend,
    broker: Mosquitto,
}

struct Listener(UnboundedSender<(String, Value)>);

impl Handler for Listener {
    fn up(&mut self, _: u64) {}

    fn down(&mut self, _: u64, why: &str) {
        panic!("the connection is lost: {why}");
    }

    fn message(&mut self, message: Message) {
        // Requests are ordinary messages, and the sentinels' answers are no part of a case.
        let topic = Topic::parse(message.topic()).expect("a shadow's topic");
        // The service asks itself whether it is heard.
        if topic.outcome.is_some() && topic.thing != "keywright-probe" {
            let body = serde_json::from_slice(message.payload()).expect("JSON");
            let _ = self.0.send((message.topic().to_owned(), body));
        }
    }
}

impl Fronts {
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
        let at = Broker::new(broker.url(), &TlsFiles::default()).expect("a broker");
        let mut frontend = MqttFrontend::start(service.clone(), at.clone(), Options::default());
        frontend.wait_until_up().await.expect("attached");
        let (tell, heard) = unbounded_channel();
        let options = SessionOptions {
            client_id: "test".into(),
            filters: vec!["$aws/things/#".into()],
            persistent: false,
            manual_acks: false,
        };
        let mqtt = Session::start(at, options, Listener(tell));
        mqtt.connection_within(Duration::from_secs(10))
            .await
            .expect("connected");
        Self {
            service,
            now,
            http,
            mqtt,
            heard,
            frontend,
            broker,
        }
    }

    async fn run(&mut self, vector: &Value, channel: Channel) {
        self.now.store(cases::now(vector), Ordering::SeqCst);
        let (thing, shadow) = (cases::thing(vector), cases::shadow_name(vector));
        if let Some(record) = cases::initial_record(vector) {
            self.service
                .put(thing, &shadow, record)
                .await
                .expect("stored");
        }
        let before = self.service.document(thing, &shadow);
        let rest = match channel {
            Channel::Rest => Some(self.over_rest(vector).await),
            _ => {
                let operation = vector["op"].as_str().expect("an operation");
                self.publish(&Topic::text(thing, &shadow, operation), cases::body(vector))
                    .await;
                None
            }
        };
        let published = self.until_sentinel(thing, &shadow).await;
        let answer = rest.unwrap_or_else(|| over_mqtt(vector, &published));
        let after = self.service.document(thing, &shadow);
        cases::check(
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

    /// Everything that is heard of the shadow until the service answers a later request of its thing, whose requests
    /// it does in their order.
    async fn until_sentinel(&mut self, thing: &str, shadow: &ShadowName) -> Vec<(String, Value)> {
        let thing = if thing.contains('/') || thing.len() > 128 {
            "sentinel"
        } else {
            thing
        };
        let sentinel = ShadowName::Named("sentinel".into());
        self.publish(&Topic::text(thing, &sentinel, "get"), String::new())
            .await;
        let end = Topic::text(thing, &sentinel, "get/rejected");
        let mut heard = Vec::new();
        loop {
            let message = tokio::time::timeout(Duration::from_secs(20), self.heard.recv()).await;
            let (topic, body) = message.expect("the service answers").expect("connected");
            if topic == end {
                return heard;
            }
            let parsed = Topic::parse(&topic).expect("a shadow's topic");
            assert_eq!(parsed.shadow, *shadow, "nothing of another shadow");
            let suffix = format!(
                "{}/{}",
                parsed.operation.name(),
                parsed.outcome.expect("an outcome")
            );
            heard.push((suffix, body));
        }
    }

    async fn over_rest(&mut self, vector: &Value) -> Answer {
        let thing = utf8_percent_encode(cases::thing(vector), NON_ALPHANUMERIC);
        let mut path = format!("/things/{thing}/shadow");
        if let ShadowName::Named(name) = cases::shadow_name(vector) {
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
            other => panic!("an operation that is not known: {other}"),
        };
        let request = hyper::Request::builder()
            .method(method)
            .uri(path)
            .header("Host", "localhost");
        let request = request
            .body(Full::from(cases::body(vector)))
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
    let of = |outcome: &str| {
        let suffix = format!("{operation}/{outcome}");
        published
            .iter()
            .find(|(s, _)| *s == suffix)
            .map(|(_, body)| body.clone())
    };
    match (of("accepted"), of("rejected")) {
        (Some(body), None) => Answer::Accepted(body),
        (None, Some(body)) => Answer::Rejected(body, None),
        answers => panic!("{}: there must be one answer: {answers:?}", vector["id"]),
    }
}

async fn run_all(channel: Channel, expected: usize) {
    let all = ["high", "medium", "low"]
        .map(|confidence| cases::vectors(confidence, channel))
        .concat();
    assert_eq!(all.len(), expected, "every vector that fits is run");
    let mut by_limits: BTreeMap<usize, Vec<Value>> = BTreeMap::new();
    for (n, vector) in all.iter().enumerate() {
        let vector = cases::on_thing(vector, n);
        by_limits
            .entry(cases::limits(&vector).max_levels)
            .or_default()
            .push(vector);
    }
    for vectors in by_limits.values() {
        let mut fronts = Fronts::start(cases::limits(&vectors[0])).await;
        for vector in vectors {
            fronts.run(vector, channel).await;
        }
    }
    println!("{expected} vectors");
}

#[tokio::test(flavor = "multi_thread")]
async fn all_that_fit_pass_through_rest_and_are_heard_of_over_mqtt() {
    run_all(Channel::Rest, 59 + 3).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn all_that_fit_pass_through_mqtt() {
    run_all(Channel::Mqtt, 56 + 3).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_service_on_a_broker_refuses_to_start() {
    let fronts = Fronts::start(Limits::default()).await;
    let config = ServiceConfig {
        clock: Arc::new(|| 1),
        limits: Limits::default(),
    };
    let broker = Broker::new(fronts.broker.url(), &TlsFiles::default()).expect("a broker");
    let mut second =
        MqttFrontend::start(ShadowService::in_memory(config), broker, Options::default());
    let refused = second
        .wait_until_up()
        .await
        .expect_err("there is one already")
        .to_string();
    assert!(refused.contains("another shadow service"), "{refused}");
    assert!(fronts.mqtt.connection().is_ok());
}

/// One request over HTTP as it is written, and the status and the type of error that it gets.
async fn raw(fronts: &mut Fronts, method: &str, path: &str, body: &str) -> (u16, String) {
    let request = hyper::Request::builder()
        .method(method)
        .uri(path)
        .header("Host", "localhost");
    let request = request
        .body(Full::from(body.to_owned()))
        .expect("a request");
    fronts.http.ready().await.expect("connected");
    let response = fronts.http.send_request(request).await.expect("an answer");
    let kind = response.headers().get("x-amzn-errortype");
    let kind = kind
        .map_or("", |kind| kind.to_str().expect("text"))
        .to_owned();
    let status = response.status().as_u16();
    response.into_body().collect().await.expect("a body");
    (status, kind)
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_no_request_of_the_data_plane_is_refused_as_aws_does() {
    let mut fronts = Fronts::start(Limits::default()).await;
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
        let found = raw(&mut fronts, method, path, body).await;
        assert_eq!(found, (status, kind.to_owned()), "{method} {path}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_that_the_broker_remembered_is_not_done() {
    let broker = Mosquitto::start();
    let wish = r#"{"state":{"desired":{"a":1}}}"#;
    broker.publish("$aws/things/door/shadow/update", wish, true);
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
    // It came with the subscription, before this one.
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
    panic!("the second request is not done either");
}

/// A client of the service's own id, which ends the service's connection and keeps it off while it is there.
async fn evict(broker: &Mosquitto) -> Session {
    struct Deaf;
    impl Handler for Deaf {
        fn up(&mut self, _: u64) {}
        fn down(&mut self, _: u64, _: &str) {}
        fn message(&mut self, _: Message) {}
    }
    let options = SessionOptions {
        client_id: "keywright-shadow".into(),
        filters: Vec::new(),
        persistent: true,
        manual_acks: true,
    };
    let at = Broker::new(broker.url(), &TlsFiles::default()).expect("a broker");
    let session = Session::start(at, options, Deaf);
    session
        .connection_within(Duration::from_secs(10))
        .await
        .expect("connected");
    session
}

#[tokio::test(flavor = "multi_thread")]
async fn what_changes_while_the_services_connection_is_cut_is_heard_of_afterwards() {
    let mut fronts = Fronts::start(Limits::default()).await;
    let keys = ShadowName::Named("keys".into());
    let write =
        |id: &str| format!(r#"{{"state":{{"desired":{{"writeKey":{{"{id}":{{"seq":1}}}}}}}}}}"#);
    // A difference that was told of long ago: that message may have been on the connection that is cut.
    fronts
        .service
        .update("old", &keys, write("w1").as_bytes())
        .await
        .expect("accepted");
    while fronts.heard.recv().await.expect("a message").0
        != Topic::text("old", &keys, "update/documents")
    {}
    let evicting = evict(&fronts.broker).await;
    // What is said before the service knows of the cut is on the connection that is lost.
    let mut up = fronts.frontend.up();
    let cut = tokio::time::timeout(Duration::from_secs(10), up.wait_for(|up| !up));
    drop(cut.await.expect("in time").expect("it runs"));
    fronts
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
        let message = tokio::time::timeout(Duration::from_secs(30), fronts.heard.recv()).await;
        let (topic, _) = message
            .unwrap_or_else(|_| panic!("never heard of: {wanted:?}"))
            .expect("connected");
        wanted.retain(|wanted| *wanted != topic);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_document_whose_message_is_too_large_for_mqtt_ends_no_connection() {
    let mut fronts = Fronts::start(Limits::default()).await;
    let shadow = ShadowName::Named("numbers".into());
    let numbers = vec!["0"; 4000].join(",");
    let body = format!(r#"{{"state":{{"reported":{{"a":[{numbers}]}}}}}}"#);
    for _ in 0..2 {
        fronts
            .publish(&Topic::text("door", &shadow, "update"), body.clone())
            .await;
    }
    let heard = fronts.until_sentinel("door", &shadow).await;
    let count = |suffix: &str| heard.iter().filter(|(s, _)| s == suffix).count();
    // The second one has 4,000 times of before and of after.
    assert_eq!(
        (count("update/accepted"), count("update/documents")),
        (2, 1)
    );
    let document = fronts.service.document("door", &shadow).expect("a shadow");
    assert_eq!(document.version, 2, "each is done once");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_entry_that_was_taken_off_while_the_connection_was_cut_does_not_come_back() {
    let mut fronts = Fronts::start(Limits::default()).await;
    let keys = ShadowName::Named("keys".into());
    let evicting = evict(&fronts.broker).await;
    let write = r#"{"state":{"reported":{"writeKey":{}},"desired":{"writeKey":{"w1":{"seq":1}}}}}"#;
    fronts
        .service
        .update("door", &keys, write.as_bytes())
        .await
        .expect("accepted");
    let withdraw = r#"{"state":{"desired":{"writeKey":{"w1":null}}}}"#;
    fronts
        .service
        .update("door", &keys, withdraw.as_bytes())
        .await
        .expect("accepted");
    drop(evicting);
    let end = Topic::text("door", &keys, "update/documents");
    let mut documents = 0;
    while documents < 2 {
        // What is published at the moment of the next cut may get lost with its connection.
        let heard = tokio::time::timeout(Duration::from_secs(10), fronts.heard.recv());
        let Ok(message) = heard.await else { break };
        let (topic, body) = message.expect("connected");
        assert!(!topic.ends_with("/delta"), "the entry came back: {body}");
        documents += usize::from(topic == end);
    }
    let rest = fronts.until_sentinel("door", &keys).await;
    assert!(
        rest.iter().all(|(suffix, _)| suffix != "update/delta"),
        "{rest:?}"
    );
}
