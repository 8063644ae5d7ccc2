//! What each answer, and each way to have none, is sorted as.

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
use keywright_shadow::mqtt::{Limits, MqttFrontend, Options};
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
enum Does {
    Answer(&'static str),
    /// It hangs up without a word.
    HangUp,
    /// It says nothing.
    Nothing,
}

/// A server that does this, and counts its requests.
async fn server(does: Does) -> (SocketAddr, Arc<AtomicUsize>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("an address");
    let requests = Arc::new(AtomicUsize::new(0));
    let counted = requests.clone();
    tokio::spawn(async move {
        loop {
            let (stream, _) = listener.accept().await.expect("a connection");
            tokio::spawn(serve(stream, does, counted.clone()));
        }
    });
    (address, requests)
}

async fn serve(mut stream: TcpStream, does: Does, counted: Arc<AtomicUsize>) {
    let mut buffer = vec![0; 16 * 1024];
    // A request of these tests arrives as a whole.
    while let Ok(count) = stream.read(&mut buffer).await
        && count > 0
    {
        counted.fetch_add(1, Ordering::Relaxed);
        match does {
            Does::Answer(answer) => {
                stream.write_all(answer.as_bytes()).await.expect("written");
            }
            Does::HangUp => return,
            Does::Nothing => {}
        }
    }
}

#[derive(Debug, PartialEq)]
enum Sorted {
    Refused(FailureReason),
    Conflict,
    Unknown,
    NotApplied,
}

fn sorted(answer: Result<ShadowVersion, ShadowError>) -> Sorted {
    match answer.expect_err("it is no success") {
        ShadowError::Refused { reason, .. } => Sorted::Refused(reason),
        ShadowError::Conflict => Sorted::Conflict,
        ShadowError::Unknown(_) => Sorted::Unknown,
        ShadowError::NotApplied { .. } => Sorted::NotApplied,
    }
}

macro_rules! answer {
    ($status:literal, $kind:literal, $body:literal) => {
        Does::Answer(concat!(
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
async fn each_answer_of_aws_is_sorted_by_its_status_and_asked_for_once() {
    use FailureReason::{NotAuthorized, ShadowTooLarge, Throttled, Unavailable};
    let cases = [
        (
            answer!("400 Bad", "InvalidRequestException", "{}"),
            Sorted::Refused(Unavailable),
        ),
        (
            answer!("401 Who", "UnauthorizedException", "{}"),
            Sorted::Refused(NotAuthorized),
        ),
        (
            answer!("403 No", "ForbiddenException:", "{}"),
            Sorted::Refused(NotAuthorized),
        ),
        (
            answer!("404 None", "ResourceNotFoundException", "{}"),
            Sorted::Refused(Unavailable),
        ),
        (
            answer!("405 No", "MethodNotAllowedException", "{}"),
            Sorted::Refused(Unavailable),
        ),
        (
            answer!("409 No", "ConflictException:http://x", "{}"),
            Sorted::Conflict,
        ),
        (answer!("409 No", "", "{}"), Sorted::Conflict),
        (
            answer!("413 Big", "RequestEntityTooLargeException", "{}"),
            Sorted::Refused(ShadowTooLarge),
        ),
        (
            answer!("415 No", "UnsupportedDocumentEncodingException", "{}"),
            Sorted::Refused(Unavailable),
        ),
        (answer!("429 Slow", "", "{}"), Sorted::Refused(Throttled)),
        (
            answer!("400 Slow", "ThrottlingException", "{}"),
            Sorted::Refused(Throttled),
        ),
        (
            answer!("500 Oh", "InternalFailureException", "{}"),
            Sorted::Unknown,
        ),
        (
            answer!("503 Oh", "ServiceUnavailableException", "{}"),
            Sorted::Unknown,
        ),
        (answer!("504 Oh", "", "no"), Sorted::Unknown),
        (answer!("200 OK", "", "{}"), Sorted::Unknown),
        (answer!("200 OK", "", "no"), Sorted::Unknown),
        (Does::HangUp, Sorted::Unknown),
        (Does::Nothing, Sorted::Unknown),
    ];
    for (n, (does, expected)) in cases.into_iter().enumerate() {
        let (address, requests) = server(does).await;
        let shadow = at(format!("http://{address}"), ANSWER_TIMEOUT);
        assert_eq!(
            sorted(shadow.update(&thing(), fence(1)).await),
            expected,
            "case {n}"
        );
        assert_eq!(
            requests.load(Ordering::Relaxed),
            1,
            "case {n}: it is asked for once"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_connected_to_was_not_applied() {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let nobody = listener.local_addr().expect("an address");
    drop(listener);
    for endpoint in [format!("http://{nobody}"), "http://nowhere.invalid".into()] {
        let shadow = at(endpoint.clone(), ANSWER_TIMEOUT);
        let answer = shadow.update(&thing(), fence(1)).await;
        assert_eq!(sorted(answer), Sorted::NotApplied, "{endpoint}");
    }
    // Somebody is there who does not speak TLS.
    let (address, _) = server(answer!("400 Bad", "", "{}")).await;
    let shadow = at(format!("https://{address}"), ANSWER_TIMEOUT);
    assert_eq!(
        sorted(shadow.update(&thing(), fence(1)).await),
        Sorted::NotApplied
    );
}

/// A connection that was used before may have carried the request when it breaks.
#[tokio::test(flavor = "multi_thread")]
async fn a_pooled_connection_that_breaks_leaves_the_outcome_unknown() {
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
        sorted(shadow.update(&thing(), fence(2)).await),
        Sorted::Unknown
    );
    let (first, second) = once.await.expect("no panic");
    assert!(first > 0 && second > 0, "both on the one connection");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_pace_that_aws_asks_for_is_kept() {
    let slow = "HTTP/1.1 429 Slow\r\nretry-after: 1\r\ncontent-length: 2\r\n\r\n{}";
    let (address, requests) = server(Does::Answer(slow)).await;
    let shadow = at(format!("http://{address}"), ANSWER_TIMEOUT);
    let throttled = Sorted::Refused(FailureReason::Throttled);
    assert_eq!(sorted(shadow.update(&thing(), fence(1)).await), throttled);
    // The next one would have to wait for longer than a call may take: it is not even sent.
    assert_eq!(
        sorted(shadow.update(&thing(), fence(2)).await),
        Sorted::NotApplied
    );
    assert_eq!(requests.load(Ordering::Relaxed), 1);
    tokio::time::sleep(Duration::from_millis(1100)).await;
    assert_eq!(sorted(shadow.update(&thing(), fence(3)).await), throttled);
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
async fn without_a_broker_nothing_is_applied_and_nothing_is_sent_later() {
    let (mut broker, service) = (Mosquitto::start(), service());
    broker.kill();
    let at = broker_at(broker.port());
    let shadow = MqttShadow::start(
        &at,
        "backend",
        &names(NAME),
        Limits::OWN_BROKER,
        ANSWER_TIMEOUT,
    );
    for n in 0..5 {
        let answer = shadow
            .update(&thing(), ShadowChange::create(token(n)))
            .await;
        assert_eq!(sorted(answer), Sorted::NotApplied);
    }
    broker.restart();
    let mut attached = MqttFrontend::start(service.clone(), at, Options::default());
    attached.wait_until_up().await.expect("attached");
    for mut up in shadow.up() {
        up.wait_for(|up| *up).await.expect("it connects");
    }
    let made = shadow
        .update(&thing(), ShadowChange::create(token(9)))
        .await;
    assert_eq!(
        made,
        Ok(ShadowVersion(1)),
        "the first request that the service has seen"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_broker_that_dies_ends_the_wait_of_who_is_in_flight() {
    let mut broker = Mosquitto::start();
    let timeout = Duration::from_secs(20);
    let at = broker_at(broker.port());
    // Nobody answers on this broker.
    let shadow = MqttShadow::start(&at, "backend", &names(NAME), Limits::OWN_BROKER, timeout);
    let shadow = Arc::new(shadow);
    for mut up in shadow.up() {
        up.wait_for(|up| *up).await.expect("it connects");
    }
    let asked = shadow.clone();
    let start = Instant::now();
    let waiting = tokio::spawn(async move { asked.update(&thing(), fence(1)).await });
    tokio::time::sleep(Duration::from_millis(200)).await;
    broker.kill();
    assert_eq!(sorted(waiting.await.expect("no panic")), Sorted::Unknown);
    assert!(start.elapsed() < timeout / 2, "it hears of it at once");
}

#[tokio::test(flavor = "multi_thread")]
async fn requests_beyond_the_limits_wait_their_turn_and_are_dropped_when_it_is_too_late() {
    let broker = Mosquitto::start();
    let at = broker_at(broker.port());
    let limits = Limits {
        in_flight: 2,
        a_second: None,
    };
    // Nobody answers: two are in flight for all their time, and the others never leave.
    let timeout = Duration::from_secs(4);
    let shadow = MqttShadow::start(&at, "backend", &names(NAME), limits, timeout);
    let shadow = Arc::new(shadow);
    for mut up in shadow.up() {
        up.wait_for(|up| *up).await.expect("it connects");
    }
    let all = (0..6).map(|n| {
        let shadow = shadow.clone();
        tokio::spawn(async move { sorted(shadow.update(&thing(), fence(n)).await) })
    });
    let mut outcomes = Vec::new();
    for one in all.collect::<Vec<_>>() {
        outcomes.push(one.await.expect("no panic"));
    }
    let count = |wanted: Sorted| outcomes.iter().filter(|found| **found == wanted).count();
    assert_eq!((count(Sorted::Unknown), count(Sorted::NotApplied)), (2, 4));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_pace_of_a_shard_is_kept() {
    let (broker, service) = (Mosquitto::start(), service());
    let at = broker_at(broker.port());
    let mut attached = MqttFrontend::start(service, at.clone(), Options::default());
    attached.wait_until_up().await.expect("attached");
    let shards = shard_names(NAME, 3);
    let timeout = Duration::from_secs(10);
    let shadow = MqttShadow::start(&at, "backend", &shards, Limits::AWS, timeout);
    let shadow = Arc::new(shadow);
    for mut up in shadow.up() {
        up.wait_for(|up| *up).await.expect("it connects");
    }
    let start = Instant::now();
    let all = (0..30).map(|n| {
        let shadow = shadow.clone();
        // All of one shard: the same thing.
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
async fn each_thing_has_its_shadow_on_its_shard() {
    let (broker, service) = (Mosquitto::start(), service());
    let at = broker_at(broker.port());
    let mut attached = MqttFrontend::start(service.clone(), at.clone(), Options::default());
    attached.wait_until_up().await.expect("attached");
    let shards = shard_names(NAME, 4);
    let timeout = Duration::from_secs(10);
    let shadow = MqttShadow::start(&at, "backend", &shards, Limits::OWN_BROKER, timeout);
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
    assert_eq!(used.count(), 4, "they are shared out");
}
