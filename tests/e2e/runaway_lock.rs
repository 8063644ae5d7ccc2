//! A faulty lock that answers each delta with another change, and the other locks beside it.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use keywright_adapters::time::SystemClock;
use keywright_domain::ports::Clock;
use keywright_mqtt::mosquitto::Mosquitto;
use keywright_mqtt::{
    Broker, Connection, Handler, Message, QoS, Session, SessionOptions, TlsFiles,
};
use keywright_sandbox::{Behaviour, Shadows as LockShadows, VirtualLocks};
use keywright_shadow::ShadowName;
use keywright_tests::{Program, Shadows};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};

use crate::harness::{BINARY, LOCK, SHORT_TIMEOUTS, eventually};

/// The thing of the faulty lock, demo lock 1001.
const FAULTY_THING: &str = "demo-lock-1001";
const FAULTY_LOCK: u64 = 1001;

/// The client id of the shadow service.
const SERVICE: &str = "keywright-shadow";

/// The number of entries that it answers. Each answer causes a delta with all of them, so that its messages multiply.
const ENTRIES: usize = 4;

fn topic(suffix: &str) -> String {
    format!("$aws/things/{FAULTY_THING}/shadow/name/keys/{suffix}")
}

/// The answer of a lock whose JSON library writes `{}` instead of `null`, so that the entry stays.
fn answer(entry: &str) -> Vec<u8> {
    let body = json!({ "state": {
        "desired": { "writeKey": { entry: {} } },
        "reported": { "writeKeyResult": { entry: { "status": "SUCCEEDED", "keyIndexNumber": 0 } } },
    } });
    body.to_string().into_bytes()
}

struct FaultyLock {
    connection: Arc<OnceLock<Connection>>,
    deltas: Arc<AtomicU64>,
}

impl Handler for FaultyLock {
    fn connected(&mut self, _: u64) {}

    fn disconnected(&mut self, _: u64, _: &str) {}

    fn message_received(&mut self, message: Message) {
        let body: Value = serde_json::from_slice(message.payload()).expect("JSON");
        let entries = body.pointer("/state/writeKey").and_then(Value::as_object);
        if let (Some(connection), Some(entries)) = (self.connection.get(), entries) {
            self.deltas.fetch_add(1, Ordering::Relaxed);
            for entry in entries.keys() {
                // Like a device, it drops messages when its queue is full.
                let _ = connection.try_publish(&topic("update"), QoS::AtLeastOnce, answer(entry));
            }
        }
    }
}

/// Starts the faulty lock. The counter is the number of deltas that it has answered.
async fn start_faulty_lock(broker: &Broker) -> (Session, Arc<AtomicU64>) {
    let (shared, deltas) = (Arc::new(OnceLock::new()), Arc::default());
    let handler = FaultyLock {
        connection: Arc::clone(&shared),
        deltas: Arc::clone(&deltas),
    };
    let options = SessionOptions {
        client_id: FAULTY_THING.into(),
        filters: vec![topic("update/delta")],
        persistent_session: false,
        manual_acks: false,
    };
    let session = Session::start(broker.clone(), options, handler);
    let connected = session.connection_within(Duration::from_secs(30)).await;
    let connection = connected.expect("connected");
    let connection = shared.get_or_init(|| connection);
    let entries = (0..ENTRIES).map(|n| (format!("entry-{n}"), json!({ "seq": n })));
    let entries: serde_json::Map<_, _> = entries.collect();
    let body = json!({ "state": { "desired": { "writeKey": entries } } }).to_string();
    let update = topic("update");
    let sent = connection.publish(&update, QoS::AtLeastOnce, body.into());
    sent.await.expect("sent");
    (session, deltas)
}

async fn write_and_wait(program: &Program, lock: u64, key: &str) {
    let body = json!({ "keyUuid": key, "keyIndexNumber": 1 });
    let answer = program
        .write_key(lock, &body)
        .header("Prefer", "wait=20")
        .send()
        .await;
    assert_eq!(answer.status, 200, "{key}: {answer:?}");
    assert_eq!(answer.body["write"]["state"], "SUCCEEDED", "{answer:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lock_that_answers_each_delta_with_a_change_does_not_disturb_others() {
    let broker = Mosquitto::start_with_defaults();
    let broker_address = Broker::new(broker.url(), &TlsFiles::default()).expect("a broker");
    let url = broker.url().to_string();
    let [shadow_folder, folder, lock_folder] = [(); 3].map(|()| TempDir::new().expect("a folder"));
    let start_shadows =
        || Shadows::start(BINARY, "shadow", shadow_folder.path(), &["--broker", &url]);
    let shadows = start_shadows();
    let mut arguments = vec!["--shadow", "mqtt", "--mqtt-broker", &url];
    arguments.extend(SHORT_TIMEOUTS);
    arguments.extend(["--locks", "1"]);
    let program = Program::start(BINARY, folder.path(), &arguments);
    let is_ready = || async {
        let answer = program.request("GET", "/readyz").send().await;
        (answer.status == 200).then_some(())
    };
    eventually("it is ready", is_ready).await;
    let clock = Arc::new(|| SystemClock.now().as_secs());
    let keys = ShadowName::Named("keys".into());
    let mut locks = VirtualLocks::open(
        &lock_folder.path().join("locks.sqlite"),
        LockShadows::Broker(broker_address.clone(), keys),
        clock,
        None,
    )
    .expect("the locks' memory");
    locks.add(&format!("demo-lock-{LOCK}"), Behaviour::default());

    let (faulty_lock, deltas) = start_faulty_lock(&broker_address).await;
    let mut accepted = 0;
    for n in 0..20 {
        write_and_wait(&program, LOCK, &format!("beside-{n}")).await;
        // The server also writes to the faulty lock.
        let body = json!({ "keyUuid": format!("faulty-{n}"), "keyIndexNumber": 2 });
        let answer = program.write_key(FAULTY_LOCK, &body).send().await;
        assert!([200, 502, 503, 504].contains(&answer.status), "{answer:?}");
        accepted += u32::from(answer.status == 200);
        let ready = program.request("GET", "/readyz").send().await;
        assert_eq!(ready.status, 200, "{ready:?}");
    }
    if accepted == 0 {
        // On a busy machine the faulty lock's own requests may have used up its limit each time.
        let is_accepted = || async {
            let body = json!({ "keyUuid": "faulty-once-more", "keyIndexNumber": 3 });
            let answer = program.write_key(FAULTY_LOCK, &body).send().await;
            (answer.status == 200).then_some(())
        };
        eventually("the server writes to the faulty lock's shadow", is_accepted).await;
    }
    eventually("the faulty lock has answered many deltas", || async {
        (deltas.load(Ordering::Relaxed) > 300).then_some(())
    })
    .await;
    write_and_wait(&program, LOCK, "after-the-flood").await;
    let ready = program.request("GET", "/readyz").send().await;
    assert_eq!(ready.status, 200, "{ready:?}");
    drop(faulty_lock);
    let log = shadows.log();
    let too_many = "too many requests for the shadows of this thing";
    let named = |line: &str| line.contains(too_many) && line.contains(FAULTY_THING);
    assert!(log.lines().any(named), "{log}");
    let connected = |line: &&str| line.contains("MQTT: connected") && line.contains(SERVICE);
    assert_eq!(log.lines().filter(connected).count(), 1, "{log}");

    // A backlog that such a lock leaves for a stopped service is delivered once, and not redelivered.
    shadows.kill();
    let other = "$aws/things/another-thing/shadow/name/keys/update";
    let (publisher, mut answers) =
        client(&broker_address, "another", &[&format!("{other}/accepted")]).await;
    let publisher = publisher.connection().expect("connected");
    let update = topic("update");
    for _ in 0..800 {
        let sent = publisher.publish(&update, QoS::AtLeastOnce, answer("entry-0").into());
        sent.await.expect("sent");
    }
    let shadows = start_shadows();
    eventually("it is ready again", is_ready).await;
    write_and_wait(&program, LOCK, "after-the-backlog").await;
    // The broker delivers these after the backlog, with at most 20 unacknowledged messages. The service processes the
    // requests of one thing in order, so that the backlog is done after some of these.
    for n in 0..40 {
        let body = json!({ "state": { "reported": { "n": n } } }).to_string();
        let sent = publisher.publish(other, QoS::AtLeastOnce, body.into());
        sent.await.expect("sent");
        let answer = tokio::time::timeout(Duration::from_secs(60), answers.recv()).await;
        assert!(answer.expect("it is answered").is_some());
    }
    shadows.kill();
    let (service, mut received) = client(&broker_address, SERVICE, &["sentinel"]).await;
    let service = service.connection().expect("connected");
    let sent = service.publish("sentinel", QoS::AtLeastOnce, "x".into());
    sent.await.expect("sent");
    // The last messages of the other thing may come again: their acknowledgements may not have left the killed service.
    loop {
        let received = tokio::time::timeout(Duration::from_secs(20), received.recv()).await;
        let topic = received.expect("it arrives").expect("connected");
        if topic == "sentinel" {
            break;
        }
        assert_eq!(topic, other, "a message of the backlog is redelivered");
    }
}

/// Forwards the topics of QoS 1 messages.
struct TopicForwarder(UnboundedSender<String>);

impl Handler for TopicForwarder {
    fn connected(&mut self, _: u64) {}

    fn disconnected(&mut self, _: u64, _: &str) {}

    fn message_received(&mut self, message: Message) {
        if message.at_least_once() {
            let _ = self.0.send(message.topic().to_owned());
        }
    }
}

/// Connects a client with this id and a persistent session. Returns it with the topics that it receives.
async fn client(
    broker: &Broker,
    id: &str,
    filters: &[&str],
) -> (Session, UnboundedReceiver<String>) {
    let (tx, rx) = unbounded_channel();
    let options = SessionOptions {
        client_id: id.into(),
        filters: filters.iter().map(|filter| (*filter).to_owned()).collect(),
        persistent_session: true,
        manual_acks: false,
    };
    let session = Session::start(broker.clone(), options, TopicForwarder(tx));
    let connected = session.connection_within(Duration::from_secs(30)).await;
    connected.expect("connected");
    (session, rx)
}
