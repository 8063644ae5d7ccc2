//! Sessions with a real broker.

use std::path::PathBuf;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::Duration;

use keywright_mqtt::mosquitto::{Certificates, Mosquitto};
use keywright_mqtt::{Broker, BrokerUrl, Handler, Message, QoS, Session, SessionOptions, TlsFiles};
use tokio::net::{TcpListener, TcpStream};

#[derive(Debug, PartialEq)]
enum Seen {
    Up(u64),
    Down(String),
    Message(String, Vec<u8>),
}

struct Log(Sender<Seen>);

impl Handler for Log {
    fn up(&mut self, connection: u64) {
        let _ = self.0.send(Seen::Up(connection));
    }

    fn down(&mut self, _: u64, why: &str) {
        let _ = self.0.send(Seen::Down(why.to_owned()));
    }

    fn message(&mut self, message: Message) {
        let seen = Seen::Message(message.topic().to_owned(), message.payload().to_vec());
        let _ = self.0.send(seen);
    }
}

fn start(
    broker: Broker,
    filters: &[&str],
    change: impl FnOnce(&mut SessionOptions),
) -> (Session, Receiver<Seen>) {
    let (seen, log) = channel();
    let mut options = SessionOptions {
        client_id: "test".into(),
        filters: filters.iter().map(|f| (*f).to_owned()).collect(),
        persistent: false,
        manual_acks: false,
    };
    change(&mut options);
    (Session::start(broker, options, Log(seen)), log)
}

fn plain(broker: &Mosquitto) -> Broker {
    Broker::new(broker.url(), &TlsFiles::default()).expect("a broker")
}

/// Waits for something, and forgets what comes before it.
fn until(log: &Receiver<Seen>, wanted: impl Fn(&Seen) -> bool) -> Seen {
    loop {
        let seen = log.recv_timeout(Duration::from_secs(30)).expect("it comes");
        if wanted(&seen) {
            return seen;
        }
    }
}

fn why_down(log: &Receiver<Seen>) -> String {
    match until(log, |seen| matches!(seen, Seen::Down(_))) {
        Seen::Down(why) => why,
        other => panic!("{other:?}"),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn more_filters_than_one_packet_takes_are_all_subscribed_to_before_it_is_up() {
    let broker = Mosquitto::start();
    let filters: Vec<String> = (0..20).map(|n| format!("$aws/{n}/+")).collect();
    let filters: Vec<&str> = filters.iter().map(String::as_str).collect();
    let (session, log) = start(plain(&broker), &filters, |_| {});
    assert_eq!(log.recv().expect("it is up"), Seen::Up(1));
    let connection = session.connection().expect("it is up");
    connection
        .try_publish("$aws/19/a", QoS::AtMostOnce, b"x".to_vec())
        .expect("sent");
    assert_eq!(
        log.recv().expect("a message"),
        Seen::Message("$aws/19/a".into(), b"x".to_vec())
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lost_connection_sends_nothing_late_and_subscriptions_come_back() {
    let mut broker = Mosquitto::start();
    let (session, log) = start(plain(&broker), &["a/#"], |_| {});
    until(&log, |seen| *seen == Seen::Up(1));
    let old = session.connection().expect("it is up");
    broker.kill();
    why_down(&log);
    for _ in 0..5 {
        let late = old.try_publish("a/late", QoS::AtLeastOnce, b"late".to_vec());
        assert!(
            late.is_err(),
            "what is given to an old connection is never sent"
        );
    }
    let nobody = session.connection().err().expect("nobody is there");
    assert!(!nobody.0.is_empty());
    broker.restart();
    let Seen::Up(number) = until(&log, |seen| matches!(seen, Seen::Up(_))) else {
        unreachable!()
    };
    let new = session.connection().expect("it is up again");
    assert_eq!(new.number(), number);
    assert!(number > 1);
    new.publish("a/new", QoS::AtLeastOnce, "new".into())
        .await
        .expect("sent");
    let first = log
        .recv_timeout(Duration::from_secs(10))
        .expect("a message");
    assert_eq!(first, Seen::Message("a/new".into(), b"new".to_vec()));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_not_acknowledged_comes_again_on_the_next_connection() {
    let broker = Mosquitto::start();
    let manual = |options: &mut SessionOptions| {
        options.persistent = true;
        options.manual_acks = true;
    };
    let (session, log) = start(plain(&broker), &["a/#"], manual);
    until(&log, |seen| *seen == Seen::Up(1));
    let connection = session.connection().expect("it is up");
    connection
        .try_publish("a/b", QoS::AtLeastOnce, b"x".to_vec())
        .expect("sent");
    let message = Seen::Message("a/b".into(), b"x".to_vec());
    assert_eq!(log.recv().expect("a message"), message);
    drop(session);
    let (_session, log) = start(plain(&broker), &["a/#"], manual);
    assert_eq!(
        until(&log, |seen| matches!(seen, Seen::Message(..))),
        message
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_client_of_the_same_id_ends_the_first_connection() {
    let broker = Mosquitto::start();
    let (_first, log) = start(plain(&broker), &["a/#"], |_| {});
    until(&log, |seen| *seen == Seen::Up(1));
    let (second, _) = start(plain(&broker), &["a/#"], |_| {});
    second
        .connection_within(Duration::from_secs(10))
        .await
        .expect("it is up");
    why_down(&log);
}

#[tokio::test(flavor = "multi_thread")]
async fn mutual_tls_works_and_what_does_not_says_why() {
    let certificates = Certificates::new();
    let broker = Mosquitto::start_tls(&certificates);
    let connect = |url: BrokerUrl, files: &TlsFiles| {
        let made = Broker::new(url, files).expect("the files can be used");
        start(made, &["a/#"], |_| {})
    };
    let (_session, log) = connect(broker.url(), &certificates.files("client"));
    until(&log, |seen| *seen == Seen::Up(1));

    let good = certificates.files("client");
    let wrong_authority = TlsFiles {
        ca: Some(certificates.path("other-ca.pem")),
        ..good.clone()
    };
    let nobody = TlsFiles {
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
        (broker.url(), nobody, "does not accept our certificate"),
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
        let (session, log) = connect(url, &files);
        // A refusal may be cut off by the end of the connection; the next try says it.
        until(
            &log,
            |seen| matches!(seen, Seen::Down(why) if why.contains(expected)),
        );
        assert!(session.connection().is_err(), "{files:?}");
    }
}

#[test]
fn each_file_that_cannot_be_used_is_named_with_the_reason() {
    let certificates = Certificates::new();
    let good = certificates.files("client");
    let path = |name: &str| Some(certificates.path(name));
    let refused = |files: &TlsFiles| {
        let url = "mqtts://localhost:1".parse().expect("an address");
        Broker::new(url, files)
            .expect_err("it is refused")
            .to_string()
    };
    let with = |change: &dyn Fn(&mut TlsFiles)| {
        let mut files = good.clone();
        change(&mut files);
        refused(&files)
    };
    let login = |file: Option<PathBuf>| file.map(|file| ("user".to_owned(), file));

    // A directory stands for whatever cannot be read: what the system says is shown.
    std::fs::create_dir(certificates.path("folder")).expect("made");
    for (file, why) in [
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
            assert!(text.contains(file) && text.contains(why), "{text}");
        }
    }
    // A file with something else in it.
    let text = with(&|files| files.ca = path("client.key"));
    assert!(text.contains("client.key") && text.contains("certificates in PEM"));
    let text = with(&|files| files.certificate = path("client.key"));
    assert!(text.contains("client.key") && text.contains("certificates in PEM"));
    let text = with(&|files| files.key = path("client.pem"));
    assert!(text.contains("client.pem") && text.contains("private key in PEM"));
    // Each half is good, and they are not of one pair.
    let text = with(&|files| files.key = path("expired.key"));
    assert!(
        text.contains("expired.key") && text.contains("not the key of"),
        "{text}"
    );
    assert!(text.contains("client.pem"), "{text}");
}

/// Passes connections to a free port of IPv6 loopback on to a broker; returns the port.
async fn over_ipv6(broker: &Mosquitto) -> u16 {
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
async fn an_ipv6_address_works_over_tls_and_without_it() {
    let certificates = Certificates::new();
    let (plain, tls) = (Mosquitto::start(), Mosquitto::start_tls(&certificates));
    for (broker, scheme, files) in [
        (&plain, "mqtt", TlsFiles::default()),
        (&tls, "mqtts", certificates.files("client")),
    ] {
        let url = format!("{scheme}://[::1]:{}", over_ipv6(broker).await);
        let made = Broker::new(url.parse().expect("an address"), &files);
        let (_session, log) = start(made.expect("the files can be used"), &["a/#"], |_| {});
        until(&log, |seen| *seen == Seen::Up(1));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_broker_that_accepts_and_says_nothing_is_given_up() {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let url = format!("mqtt://{}", listener.local_addr().expect("an address"));
    let broker = Broker::new(url.parse().expect("an address"), &TlsFiles::default());
    let (_session, log) = start(broker.expect("a broker"), &["a/#"], |_| {});
    let _silent = listener.accept().await.expect("a connection");
    let why = why_down(&log);
    assert!(why.contains("in time"), "{why}");
}

/// A broker that answers CONNECT, SUBSCRIBE with this code, and nothing else; if `chatty` it publishes all the time.
async fn half_a_broker(subscriptions: u8, chatty: bool) -> Broker {
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
                let answer = [0x90, 3, packet[2], packet[3], subscriptions];
                stream.write_all(&answer).await.expect("SUBACK");
                let (mut requests, mut messages) = stream.into_split();
                let chat = async {
                    while chatty
                        && messages
                            .write_all(&[0x30, 5, 0, 3, b'a', b'/', b'b'])
                            .await
                            .is_ok()
                    {
                        tokio::time::sleep(Duration::from_millis(50)).await;
                    }
                    std::future::pending::<()>().await;
                };
                let listen =
                    async { while requests.read(&mut packet).await.is_ok_and(|n| n > 0) {} };
                tokio::select! {
                    () = chat => {}
                    () = listen => {}
                }
            });
        }
    });
    Broker::new(url.parse().expect("an address"), &TlsFiles::default()).expect("a broker")
}

/// Where nothing is acknowledged, what is to be sent does not leave any more once 100 publishes are in flight.
#[tokio::test(flavor = "multi_thread")]
async fn a_connection_on_which_nothing_moves_is_replaced() {
    replaced(false).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn it_is_replaced_also_while_messages_arrive() {
    replaced(true).await;
}

async fn replaced(chatty: bool) {
    let (session, log) = start(half_a_broker(1, chatty).await, &["a/#"], |_| {});
    until(&log, |seen| *seen == Seen::Up(1));
    let connection = session.connection().expect("it is up");
    for n in 0..150 {
        let sent = connection
            .publish("a/b", QoS::AtLeastOnce, format!("{n}").into())
            .await;
        sent.expect("there is room");
    }
    let why = why_down(&log);
    assert!(why.contains("does not leave"), "{why}");
    until(&log, |seen| *seen == Seen::Up(2));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_subscription_that_is_refused_keeps_the_connection_from_being_up() {
    let (session, log) = start(half_a_broker(0x80, false).await, &["a/#"], |_| {});
    let why = why_down(&log);
    assert!(why.contains("refuses a subscription of a/#"), "{why}");
    assert!(session.connection().is_err());
}

#[tokio::test(flavor = "multi_thread")]
async fn payloads_may_be_as_large_as_aws_iot_allows_and_larger_ones_end_no_connection() {
    let broker = Mosquitto::start();
    let (session, log) = start(plain(&broker), &["a/#"], |_| {});
    until(&log, |seen| *seen == Seen::Up(1));
    let large = vec![b'x'; 128 * 1024];
    let connection = session.connection().expect("it is up");
    connection
        .try_publish("a/b", QoS::AtMostOnce, large.clone())
        .expect("sent");
    assert_eq!(
        log.recv().expect("a message"),
        Seen::Message("a/b".into(), large)
    );
}
