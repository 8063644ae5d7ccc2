//! The classification of answers and of failures to get one.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use keywright_adapters::shadow::{MqttShadow, shard_names};
use keywright_domain::model::{FailureReason, *};
use keywright_domain::ports::*;
use keywright_mqtt::mosquitto::Mosquitto;
use keywright_mqtt::{Broker, TlsFiles};
use keywright_shadow::ShadowName;
use keywright_shadow::mqtt::{ClientLimits, MqttFrontend, Options};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::Instant;

use crate::aws_sdk::at;
use crate::{NAME, service};

const ANSWER_TIMEOUT: Duration = Duration::from_secs(2);

fn thing() -> ThingName {
    ThingName::new("door:1").expect("a name")
}

fn token(n: u32) -> ClientToken {
    ClientToken::new(WriteId::from_u128(7), Epoch(1), n)
}

fn fence(n: u32) -> ShadowChange {
    ShadowChange::fence(ShadowVersion(3), token(n))
}

/// What a server does with each request.
#[derive(Clone, Copy)]
enum Behaviour {
    Answer(&'static str),
    CloseConnection,
    NoAnswer,
}

/// Starts a server that counts its requests.
async fn server(behaviour: Behaviour) -> (SocketAddr, Arc<AtomicUsize>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("an address");
    let requests = Arc::new(AtomicUsize::new(0));
    let counted = requests.clone();
    tokio::spawn(async move {
        loop {
            let (stream, _) = listener.accept().await.expect("a connection");
            tokio::spawn(serve(stream, behaviour, counted.clone()));
        }
    });
    (address, requests)
}

async fn serve(mut stream: TcpStream, behaviour: Behaviour, counted: Arc<AtomicUsize>) {
    let mut buffer = vec![0; 16 * 1024];
    // Each request of these tests arrives in one read.
    while let Ok(count) = stream.read(&mut buffer).await
        && count > 0
    {
        counted.fetch_add(1, Ordering::Relaxed);
        match behaviour {
            Behaviour::Answer(answer) => {
                stream.write_all(answer.as_bytes()).await.expect("written");
            }
            Behaviour::CloseConnection => return,
            Behaviour::NoAnswer => {}
        }
    }
}

#[derive(Debug, PartialEq)]
enum Class {
    Refused(FailureReason),
    Conflict,
    Unknown,
    NotApplied,
}

fn class(answer: Result<ShadowVersion, ShadowError>) -> Class {
    match answer.expect_err("a failure") {
        ShadowError::Refused { reason, .. } => Class::Refused(reason),
        ShadowError::Conflict => Class::Conflict,
        ShadowError::Unknown(_) => Class::Unknown,
        ShadowError::NotApplied { .. } => Class::NotApplied,
    }
}

macro_rules! answer {
    ($status:literal, $kind:literal, $body:literal) => {
        Behaviour::Answer(concat!(
            "HTTP/1.1 ",
            $status,
            "\r\nx-amzn-errortype: ",
            $kind,
            "\r\ncontent-length: 2\r\n\r\n",
            $body
        ))
    };
}

#[tokio::test(flavor = "multi_thread")]
async fn classifies_answers_of_aws_by_status_and_does_not_retry() {
    use FailureReason::{NotAuthorized, ShadowTooLarge, Throttled, Unavailable};
    let cases = [
        (
            answer!("400 Bad", "InvalidRequestException", "{}"),
            Class::Refused(Unavailable),
        ),
        (
            answer!("401 Who", "UnauthorizedException", "{}"),
            Class::Refused(NotAuthorized),
        ),
        (
            answer!("403 No", "ForbiddenException:", "{}"),
            Class::Refused(NotAuthorized),
        ),
        (
            answer!("404 None", "ResourceNotFoundException", "{}"),
            Class::Refused(Unavailable),
        ),
        (
            answer!("405 No", "MethodNotAllowedException", "{}"),
            Class::Refused(Unavailable),
        ),
        (
            answer!("409 No", "ConflictException:http://x", "{}"),
            Class::Conflict,
        ),
        (answer!("409 No", "", "{}"), Class::Conflict),
        (
            answer!("413 Big", "RequestEntityTooLargeException", "{}"),
            Class::Refused(ShadowTooLarge),
        ),
        (
            answer!("415 No", "UnsupportedDocumentEncodingException", "{}"),
            Class::Refused(Unavailable),
        ),
        (answer!("429 Slow", "", "{}"), Class::Refused(Throttled)),
        (
            answer!("400 Slow", "ThrottlingException", "{}"),
            Class::Refused(Throttled),
        ),
        (
            answer!("500 Oh", "InternalFailureException", "{}"),
            Class::Unknown,
        ),
        (
            answer!("503 Oh", "ServiceUnavailableException", "{}"),
            Class::Unknown,
        ),
        (answer!("504 Oh", "", "no"), Class::Unknown),
        (answer!("200 OK", "", "{}"), Class::Unknown),
        (answer!("200 OK", "", "no"), Class::Unknown),
        (Behaviour::CloseConnection, Class::Unknown),
        (Behaviour::NoAnswer, Class::Unknown),
    ];
    for (n, (behaviour, expected)) in cases.into_iter().enumerate() {
        let (address, requests) = server(behaviour).await;
        let shadow = at(format!("http://{address}"), ANSWER_TIMEOUT);
        assert_eq!(
            class(shadow.update(&thing(), fence(1)).await),
            expected,
            "case {n}"
        );
        assert_eq!(requests.load(Ordering::Relaxed), 1, "case {n}: one request");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_update_without_a_connection_is_not_applied() {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let closed = listener.local_addr().expect("an address");
    drop(listener);
    for endpoint in [format!("http://{closed}"), "http://nowhere.invalid".into()] {
        let shadow = at(endpoint.clone(), ANSWER_TIMEOUT);
        let answer = shadow.update(&thing(), fence(1)).await;
        assert_eq!(class(answer), Class::NotApplied, "{endpoint}");
    }
    // A server without TLS.
    let (address, _) = server(answer!("400 Bad", "", "{}")).await;
    let shadow = at(format!("https://{address}"), ANSWER_TIMEOUT);
    assert_eq!(
        class(shadow.update(&thing(), fence(1)).await),
        Class::NotApplied
    );
}

/// A connection that breaks may have transmitted the request.
#[tokio::test(flavor = "multi_thread")]
async fn an_update_on_a_broken_pooled_connection_is_unknown() {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("an address");
    let once = tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.expect("a connection");
        let mut buffer = vec![0; 16 * 1024];
        let first = stream.read(&mut buffer).await;
        let answer = b"HTTP/1.1 200 OK\r\ncontent-length: 13\r\n\r\n{\"version\":4}";
        stream.write_all(answer).await.expect("written");
        let second = stream.read(&mut buffer).await;
        (first.expect("a request"), second.expect("another one"))
    });
    let shadow = at(format!("http://{address}"), ANSWER_TIMEOUT);
    assert_eq!(
        shadow.update(&thing(), fence(1)).await,
        Ok(ShadowVersion(4))
    );
    assert_eq!(
        class(shadow.update(&thing(), fence(2)).await),
        Class::Unknown
    );
    let (first, second) = once.await.expect("no panic");
    assert!(first > 0 && second > 0, "both use one connection");
}

#[tokio::test(flavor = "multi_thread")]
async fn keeps_the_pause_that_aws_requests() {
    let slow = "HTTP/1.1 429 Slow\r\nretry-after: 1\r\ncontent-length: 2\r\n\r\n{}";
    let (address, requests) = server(Behaviour::Answer(slow)).await;
    let shadow = at(format!("http://{address}"), ANSWER_TIMEOUT);
    let throttled = Class::Refused(FailureReason::Throttled);
    assert_eq!(class(shadow.update(&thing(), fence(1)).await), throttled);
    // The next call would have to wait longer than its timeout, so it is not sent.
    assert_eq!(
        class(shadow.update(&thing(), fence(2)).await),
        Class::NotApplied
    );
    assert_eq!(requests.load(Ordering::Relaxed), 1);
    tokio::time::sleep(Duration::from_millis(1100)).await;
    assert_eq!(class(shadow.update(&thing(), fence(3)).await), throttled);
    assert_eq!(requests.load(Ordering::Relaxed), 2);
}

fn broker_at(port: u16) -> Broker {
    let url = format!("mqtt://127.0.0.1:{port}")
        .parse()
        .expect("an address");
    Broker::new(url, &TlsFiles::default()).expect("a broker")
}

fn names(name: &str) -> Vec<String> {
    shard_names(name, 1)
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_broker_updates_are_not_applied_and_not_sent_later() {
    let (mut broker, service) = (Mosquitto::start(), service());
    broker.kill();
    let at = broker_at(broker.port());
    let shadow = MqttShadow::start(
        &at,
        "backend",
        &names(NAME),
        ClientLimits::SELF_HOSTED,
        ANSWER_TIMEOUT,
    );
    for n in 0..5 {
        let answer = shadow
            .update(&thing(), ShadowChange::create(token(n)))
            .await;
        assert_eq!(class(answer), Class::NotApplied);
    }
    broker.restart();
    let mut frontend = MqttFrontend::start(service.clone(), at, Options::default());
    frontend.wait_until_up().await.expect("attached");
    for mut up in shadow.up() {
        up.wait_for(|up| *up).await.expect("it connects");
    }
    let made = shadow
        .update(&thing(), ShadowChange::create(token(9)))
        .await;
    assert_eq!(
        made,
        Ok(ShadowVersion(1)),
        "it is the first request to the service"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn requests_in_flight_end_when_the_broker_dies() {
    let mut broker = Mosquitto::start();
    let timeout = Duration::from_secs(20);
    let at = broker_at(broker.port());
    // No shadow service answers on this broker.
    let shadow = MqttShadow::start(
        &at,
        "backend",
        &names(NAME),
        ClientLimits::SELF_HOSTED,
        timeout,
    );
    let shadow = Arc::new(shadow);
    for mut up in shadow.up() {
        up.wait_for(|up| *up).await.expect("it connects");
    }
    let client = shadow.clone();
    let start = Instant::now();
    let waiting = tokio::spawn(async move { client.update(&thing(), fence(1)).await });
    tokio::time::sleep(Duration::from_millis(200)).await;
    broker.kill();
    assert_eq!(class(waiting.await.expect("no panic")), Class::Unknown);
    assert!(
        start.elapsed() < timeout / 2,
        "the lost connection ends the call"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn requests_above_the_limit_wait_and_are_dropped_at_their_timeout() {
    let broker = Mosquitto::start();
    let at = broker_at(broker.port());
    let limits = ClientLimits {
        max_in_flight: 2,
        max_per_second: None,
    };
    // Without answers, two requests stay in flight until their timeout, and the others are not sent.
    let timeout = Duration::from_secs(4);
    let shadow = MqttShadow::start(&at, "backend", &names(NAME), limits, timeout);
    let shadow = Arc::new(shadow);
    for mut up in shadow.up() {
        up.wait_for(|up| *up).await.expect("it connects");
    }
    let all = (0..6).map(|n| {
        let shadow = shadow.clone();
        tokio::spawn(async move { class(shadow.update(&thing(), fence(n)).await) })
    });
    let mut outcomes = Vec::new();
    for one in all.collect::<Vec<_>>() {
        outcomes.push(one.await.expect("no panic"));
    }
    let count = |wanted: Class| outcomes.iter().filter(|found| **found == wanted).count();
    assert_eq!((count(Class::Unknown), count(Class::NotApplied)), (2, 4));
}

#[tokio::test(flavor = "multi_thread")]
async fn keeps_the_rate_limit_of_a_shard() {
    let (broker, service) = (Mosquitto::start(), service());
    let at = broker_at(broker.port());
    let mut frontend = MqttFrontend::start(service, at.clone(), Options::default());
    frontend.wait_until_up().await.expect("attached");
    let shards = shard_names(NAME, 3);
    let timeout = Duration::from_secs(10);
    let shadow = MqttShadow::start(&at, "backend", &shards, ClientLimits::AWS, timeout);
    let shadow = Arc::new(shadow);
    for mut up in shadow.up() {
        up.wait_for(|up| *up).await.expect("it connects");
    }
    let start = Instant::now();
    let all = (0..30).map(|n| {
        let shadow = shadow.clone();
        // The same thing is always on the same shard.
        tokio::spawn(async move {
            shadow
                .update(&thing(), ShadowChange::create(token(n)))
                .await
        })
    });
    for one in all.collect::<Vec<_>>() {
        one.await.expect("no panic").expect("accepted");
    }
    assert!(
        start.elapsed() >= Duration::from_millis(29 * 1000 / 30),
        "30 in a second at most"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn assigns_things_to_shards() {
    let (broker, service) = (Mosquitto::start(), service());
    let at = broker_at(broker.port());
    let mut frontend = MqttFrontend::start(service.clone(), at.clone(), Options::default());
    frontend.wait_until_up().await.expect("attached");
    let shards = shard_names(NAME, 4);
    let timeout = Duration::from_secs(10);
    let shadow = MqttShadow::start(&at, "backend", &shards, ClientLimits::SELF_HOSTED, timeout);
    for n in 0..20 {
        let thing = ThingName::new(&format!("door-{n}")).expect("a name");
        let made = shadow.update(&thing, ShadowChange::create(token(n))).await;
        assert_eq!(made, Ok(ShadowVersion(1)));
        assert_eq!(
            shadow
                .read(&thing, token(100 + n))
                .await
                .expect("read")
                .expect("there")
                .version
                .0,
            1
        );
    }
    let used = shards.iter().filter(|name| {
        let shadow = ShadowName::Named((*name).clone());
        (0..20).any(|n| service.document(&format!("door-{n}"), &shadow).is_some())
    });
    assert_eq!(used.count(), 4, "all shards are used");
}
