//! Sessions with a mosquitto, and with brokers that misbehave.

use std::path::PathBuf;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::Duration;

use keywright_mqtt::mosquitto::{Certificates, Mosquitto};
use keywright_mqtt::{Broker, BrokerUrl, Handler, Message, QoS, Session, SessionOptions, TlsFiles};
use tokio::net::{TcpListener, TcpStream};

#[derive(Debug, PartialEq)]
enum SessionEvent {
    Up(u64),
    Down(String),
    Message(String, Vec<u8>),
}

struct EventLog(Sender<SessionEvent>);

impl Handler for EventLog {
    fn connected(&mut self, connection: u64) {
        let _ = self.0.send(SessionEvent::Up(connection));
    }

    fn disconnected(&mut self, _: u64, reason: &str) {
        let _ = self.0.send(SessionEvent::Down(reason.to_owned()));
    }

    fn message_received(&mut self, message: Message) {
        let event = SessionEvent::Message(message.topic().to_owned(), message.payload().to_vec());
        let _ = self.0.send(event);
    }
}

fn start(
    broker: Broker,
    filters: &[&str],
    configure: impl FnOnce(&mut SessionOptions),
) -> (Session, Receiver<SessionEvent>) {
    let (tx, events) = channel();
    let mut options = SessionOptions {
        client_id: "test".into(),
        filters: filters.iter().map(|f| (*f).to_owned()).collect(),
        persistent_session: false,
        manual_acks: false,
    };
    configure(&mut options);
    (Session::start(broker, options, EventLog(tx)), events)
}

fn plain(broker: &Mosquitto) -> Broker {
    Broker::new(broker.url(), &TlsFiles::default()).expect("a broker")
}

/// Waits for an event, and drops those before it.
fn wait_for(
    events: &Receiver<SessionEvent>,
    wanted: impl Fn(&SessionEvent) -> bool,
) -> SessionEvent {
    loop {
        let event = events.recv_timeout(Duration::from_secs(30));
        let event = event.expect("an event in time");
        if wanted(&event) {
            return event;
        }
    }
}

fn wait_for_down(events: &Receiver<SessionEvent>) -> String {
    match wait_for(events, |event| matches!(event, SessionEvent::Down(_))) {
        SessionEvent::Down(reason) => reason,
        other => panic!("{other:?}"),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn all_filters_are_subscribed_before_the_session_is_up() {
    let broker = Mosquitto::start();
    let filters: Vec<String> = (0..20).map(|n| format!("$aws/{n}/+")).collect();
    let filters: Vec<&str> = filters.iter().map(String::as_str).collect();
    let (session, events) = start(plain(&broker), &filters, |_| {});
    assert_eq!(events.recv().expect("it is up"), SessionEvent::Up(1));
    let connection = session.connection().expect("it is up");
    connection
        .try_publish("$aws/19/a", QoS::AtMostOnce, b"x".to_vec())
        .expect("sent");
    assert_eq!(
        events.recv().expect("a message"),
        SessionEvent::Message("$aws/19/a".into(), b"x".to_vec())
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lost_connection_sends_nothing_late_and_the_next_one_subscribes_again() {
    let mut broker = Mosquitto::start();
    let (session, events) = start(plain(&broker), &["a/#"], |_| {});
    wait_for(&events, |event| *event == SessionEvent::Up(1));
    let old = session.connection().expect("it is up");
    broker.kill();
    wait_for_down(&events);
    for _ in 0..5 {
        let late = old.try_publish("a/late", QoS::AtLeastOnce, b"late".to_vec());
        assert!(late.is_err(), "a lost connection accepts nothing");
    }
    let error = session.connection().err().expect("not connected");
    assert!(!error.0.is_empty());
    broker.restart();
    let SessionEvent::Up(number) = wait_for(&events, |event| matches!(event, SessionEvent::Up(_)))
    else {
        unreachable!()
    };
    let new = session.connection().expect("it is up again");
    assert_eq!(new.number(), number);
    assert!(number > 1);
    new.publish("a/new", QoS::AtLeastOnce, "new".into())
        .await
        .expect("sent");
    let first = events
        .recv_timeout(Duration::from_secs(10))
        .expect("a message");
    assert_eq!(
        first,
        SessionEvent::Message("a/new".into(), b"new".to_vec())
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn an_unacknowledged_message_is_delivered_again_on_the_next_connection() {
    let broker = Mosquitto::start();
    let manual = |options: &mut SessionOptions| {
        options.persistent_session = true;
        options.manual_acks = true;
    };
    let (session, events) = start(plain(&broker), &["a/#"], manual);
    wait_for(&events, |event| *event == SessionEvent::Up(1));
    let connection = session.connection().expect("it is up");
    connection
        .try_publish("a/b", QoS::AtLeastOnce, b"x".to_vec())
        .expect("sent");
    let message = SessionEvent::Message("a/b".into(), b"x".to_vec());
    assert_eq!(events.recv().expect("a message"), message);
    drop(session);
    let (_session, events) = start(plain(&broker), &["a/#"], manual);
    assert_eq!(
        wait_for(&events, |event| matches!(event, SessionEvent::Message(..))),
        message
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_client_with_the_same_id_ends_the_first_connection() {
    let broker = Mosquitto::start();
    let (_first, events) = start(plain(&broker), &["a/#"], |_| {});
    wait_for(&events, |event| *event == SessionEvent::Up(1));
    let (second, _) = start(plain(&broker), &["a/#"], |_| {});
    second
        .connection_within(Duration::from_secs(10))
        .await
        .expect("it is up");
    wait_for_down(&events);
}

#[tokio::test(flavor = "multi_thread")]
async fn mutual_tls_connects_and_failures_name_their_reason() {
    let certificates = Certificates::new();
    let broker = Mosquitto::start_tls(&certificates);
    let connect = |url: BrokerUrl, files: &TlsFiles| {
        let broker = Broker::new(url, files).expect("usable files");
        start(broker, &["a/#"], |_| {})
    };
    let (_session, events) = connect(broker.url(), &certificates.files("client"));
    wait_for(&events, |event| *event == SessionEvent::Up(1));

    let good = certificates.files("client");
    let wrong_authority = TlsFiles {
        ca: Some(certificates.path("other-ca.pem")),
        ..good.clone()
    };
    let no_certificate = TlsFiles {
        certificate: None,
        key: None,
        ..good.clone()
    };
    let another_name = format!("mqtts://127.0.0.1:{}", broker.port()).parse();
    let plain_text = format!("mqtt://127.0.0.1:{}", broker.port()).parse();
    let cases = [
        (
            broker.url(),
            wrong_authority,
            "not accepted here: UnknownIssuer",
        ),
        (
            broker.url(),
            no_certificate,
            "does not accept our certificate",
        ),
        (
            broker.url(),
            certificates.files("expired"),
            "does not accept our certificate",
        ),
        (
            another_name.expect("an address"),
            good,
            "not valid for name",
        ),
        (
            plain_text.expect("an address"),
            TlsFiles::default(),
            "onnection",
        ),
    ];
    for (url, files, expected) in cases {
        let (session, events) = connect(url, &files);
        // The end of the connection may overtake the reason; then a later attempt has it.
        wait_for(
            &events,
            |event| matches!(event, SessionEvent::Down(reason) if reason.contains(expected)),
        );
        assert!(session.connection().is_err(), "{files:?}");
    }
}

#[test]
fn an_unusable_file_is_named_with_the_reason() {
    let certificates = Certificates::new();
    let good = certificates.files("client");
    let path = |name: &str| Some(certificates.path(name));
    let rejection = |files: &TlsFiles| {
        let url = "mqtts://localhost:1".parse().expect("an address");
        Broker::new(url, files).expect_err("rejected").to_string()
    };
    let with = |change: &dyn Fn(&mut TlsFiles)| {
        let mut files = good.clone();
        change(&mut files);
        rejection(&files)
    };
    let login = |file: Option<PathBuf>| file.map(|file| ("user".to_owned(), file));

    // A directory stands for any unreadable file: the error contains the system's reason.
    std::fs::create_dir(certificates.path("folder")).expect("made");
    for (file, reason) in [
        ("missing.pem", "No such file"),
        ("folder", "Is a directory"),
    ] {
        let cases = [
            with(&|files| files.ca = path(file)),
            with(&|files| files.certificate = path(file)),
            with(&|files| files.key = path(file)),
            with(&|files| files.login = login(path(file))),
        ];
        for text in cases {
            assert!(text.contains(file) && text.contains(reason), "{text}");
        }
    }
    // Files with the wrong content.
    let text = with(&|files| files.ca = path("client.key"));
    assert!(text.contains("client.key") && text.contains("certificates in PEM"));
    let text = with(&|files| files.certificate = path("client.key"));
    assert!(text.contains("client.key") && text.contains("certificates in PEM"));
    let text = with(&|files| files.key = path("client.pem"));
    assert!(text.contains("client.pem") && text.contains("private key in PEM"));
    // A certificate and a key that are valid and do not belong together.
    let text = with(&|files| files.key = path("expired.key"));
    assert!(
        text.contains("expired.key") && text.contains("not the key of"),
        "{text}"
    );
    assert!(text.contains("client.pem"), "{text}");
}

/// Forwards a free port of the IPv6 loopback interface to a broker; returns the port.
async fn ipv6_port(broker: &Mosquitto) -> u16 {
    let listener = TcpListener::bind("[::1]:0").await.expect("a port");
    let (port, to) = (
        listener.local_addr().expect("an address").port(),
        broker.port(),
    );
    tokio::spawn(async move {
        while let Ok((mut client, _)) = listener.accept().await {
            tokio::spawn(async move {
                let mut broker = TcpStream::connect(("127.0.0.1", to)).await?;
                tokio::io::copy_bidirectional(&mut client, &mut broker).await
            });
        }
    });
    port
}

#[tokio::test(flavor = "multi_thread")]
async fn connects_to_ipv6_addresses_with_and_without_tls() {
    let certificates = Certificates::new();
    let (plain, tls) = (Mosquitto::start(), Mosquitto::start_tls(&certificates));
    for (broker, scheme, files) in [
        (&plain, "mqtt", TlsFiles::default()),
        (&tls, "mqtts", certificates.files("client")),
    ] {
        let url = format!("{scheme}://[::1]:{}", ipv6_port(broker).await);
        let broker = Broker::new(url.parse().expect("an address"), &files);
        let (_session, events) = start(broker.expect("usable files"), &["a/#"], |_| {});
        wait_for(&events, |event| *event == SessionEvent::Up(1));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_broker_that_accepts_and_does_not_answer_is_given_up() {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let url = format!("mqtt://{}", listener.local_addr().expect("an address"));
    let broker = Broker::new(url.parse().expect("an address"), &TlsFiles::default());
    let (_session, events) = start(broker.expect("a broker"), &["a/#"], |_| {});
    let _silent = listener.accept().await.expect("a connection");
    let reason = wait_for_down(&events);
    assert!(reason.contains("in time"), "{reason}");
}

/// A broker that answers CONNECT, answers SUBSCRIBE with this return code, and nothing else. With `publishing` it also publishes
/// messages all the time.
async fn partial_broker(subscribe_code: u8, publishing: bool) -> Broker {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let url = format!("mqtt://{}", listener.local_addr().expect("an address"));
    tokio::spawn(async move {
        loop {
            let (mut stream, _) = listener.accept().await.expect("a connection");
            tokio::spawn(async move {
                let mut packet = [0; 4096];
                let _connect = stream.read(&mut packet).await;
                stream.write_all(&[0x20, 2, 0, 0]).await.expect("CONNACK");
                let _subscribe = stream.read(&mut packet).await;
                let answer = [0x90, 3, packet[2], packet[3], subscribe_code];
                stream.write_all(&answer).await.expect("SUBACK");
                let (mut requests, mut messages) = stream.into_split();
                let publish = async {
                    while publishing
                        && messages
                            .write_all(&[0x30, 5, 0, 3, b'a', b'/', b'b'])
                            .await
                            .is_ok()
                    {
                        tokio::time::sleep(Duration::from_millis(50)).await;
                    }
                    std::future::pending::<()>().await;
                };
                let receive =
                    async { while requests.read(&mut packet).await.is_ok_and(|n| n > 0) {} };
                tokio::select! {
                    () = publish => {}
                    () = receive => {}
                }
            });
        }
    });
    Broker::new(url.parse().expect("an address"), &TlsFiles::default()).expect("a broker")
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stalled_connection_is_replaced() {
    replaces_a_stalled_connection(false).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stalled_connection_is_replaced_while_messages_arrive() {
    replaces_a_stalled_connection(true).await;
}

/// If nothing is acknowledged, nothing more can be sent once 100 publishes are in flight.
async fn replaces_a_stalled_connection(publishing: bool) {
    let (session, events) = start(partial_broker(1, publishing).await, &["a/#"], |_| {});
    wait_for(&events, |event| *event == SessionEvent::Up(1));
    let connection = session.connection().expect("it is up");
    for n in 0..150 {
        let sent = connection
            .publish("a/b", QoS::AtLeastOnce, format!("{n}").into())
            .await;
        sent.expect("there is room");
    }
    let reason = wait_for_down(&events);
    assert!(reason.contains("cannot be sent"), "{reason}");
    wait_for(&events, |event| *event == SessionEvent::Up(2));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refused_subscription_keeps_the_session_down() {
    let (session, events) = start(partial_broker(0x80, false).await, &["a/#"], |_| {});
    let reason = wait_for_down(&events);
    assert!(reason.contains("refuses a subscription of a/#"), "{reason}");
    assert!(session.connection().is_err());
}

#[tokio::test(flavor = "multi_thread")]
async fn publishes_payloads_up_to_the_size_limit_of_aws_iot() {
    let broker = Mosquitto::start();
    let (session, events) = start(plain(&broker), &["a/#"], |_| {});
    wait_for(&events, |event| *event == SessionEvent::Up(1));
    let large = vec![b'x'; 128 * 1024];
    let connection = session.connection().expect("it is up");
    connection
        .try_publish("a/b", QoS::AtMostOnce, large.clone())
        .expect("sent");
    assert_eq!(
        events.recv().expect("a message"),
        SessionEvent::Message("a/b".into(), large)
    );
}
