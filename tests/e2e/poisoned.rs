//! One lock that answers each delta with another change, and all others beside it.

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

use crate::harness::{BINARY, BRISK, LOCK, eventually};

/// The thing of the lock that goes wrong, lock 1001 of the demo.
const POISONED: &str = "demo-lock-1001";
const POISONED_LOCK: u64 = 1001;

/// The client id of the shadow service.
const SERVICE: &str = "keywright-shadow";

/// The entries that it answers: each answer makes a delta of all of them, so that its messages become more and more.
const ENTRIES: usize = 4;

fn topic(suffix: &str) -> String {
    format!("$aws/things/{POISONED}/shadow/name/keys/{suffix}")
}

/// The answer of a lock whose JSON library writes `{}` where `null` belongs: the entry stays.
fn answer(entry: &str) -> Vec<u8> {
    let body = json!({ "state": {
        "desired": { "writeKey": { entry: {} } },
        "reported": { "writeKeyResult": { entry: { "status": "SUCCEEDED", "keyIndexNumber": 0 } } },
    } });
    body.to_string().into_bytes()
}

struct Poisoned {
    connection: Arc<OnceLock<Connection>>,
    deltas: Arc<AtomicU64>,
}

impl Handler for Poisoned {
    fn up(&mut self, _: u64) {}

    fn down(&mut self, _: u64, _: &str) {}

    fn message(&mut self, message: Message) {
        let body: Value = serde_json::from_slice(message.payload()).expect("JSON");
        let entries = body.pointer("/state/writeKey").and_then(Value::as_object);
        if let (Some(connection), Some(entries)) = (self.connection.get(), entries) {
            self.deltas.fetch_add(1, Ordering::Relaxed);
            for entry in entries.keys() {
                // Like a device, it sends no more than its queue takes.
                let _ = connection.try_publish(&topic("update"), QoS::AtLeastOnce, answer(entry));
            }
        }
    }
}

/// Starts the lock that goes wrong; the number says how many deltas it has answered.
async fn start_poisoned(broker: &Broker) -> (Session, Arc<AtomicU64>) {
    let (used, deltas) = (Arc::new(OnceLock::new()), Arc::default());
    let handler = Poisoned {
        connection: Arc::clone(&used),
        deltas: Arc::clone(&deltas),
    };
    let options = SessionOptions {
        client_id: POISONED.into(),
        filters: vec![topic("update/delta")],
        persistent: false,
        manual_acks: false,
    };
    let started = Session::start(broker.clone(), options, handler);
    let connected = started.connection_within(Duration::from_secs(30)).await;
    let connection = connected.expect("connected");
    let connection = used.get_or_init(|| connection);
    let entries = (0..ENTRIES).map(|n| (format!("entry-{n}"), json!({ "seq": n })));
    let entries: serde_json::Map<_, _> = entries.collect();
    let body = json!({ "state": { "desired": { "writeKey": entries } } }).to_string();
    let update = topic("update");
    let sent = connection.publish(&update, QoS::AtLeastOnce, body.into());
    sent.await.expect("sent");
    (started, deltas)
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
async fn a_lock_that_answers_each_delta_with_another_change_stops_no_other() {
    let broker = Mosquitto::start_with_defaults();
    let at = Broker::new(broker.url(), &TlsFiles::default()).expect("a broker");
    let url = broker.url().to_string();
    let [shadow_folder, folder, lock_folder] = [(); 3].map(|()| TempDir::new().expect("a folder"));
    let start_shadows =
        || Shadows::start(BINARY, "shadow", shadow_folder.path(), &["--broker", &url]);
    let shadows = start_shadows();
    let mut arguments = vec!["--shadow", "mqtt", "--mqtt-broker", &url];
    arguments.extend(BRISK);
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
        LockShadows::Broker(at.clone(), keys),
        clock,
        None,
    )
    .expect("the locks' memory");
    locks.add(&format!("demo-lock-{LOCK}"), Behaviour::default());

    let (poisoned, deltas) = start_poisoned(&at).await;
    let mut accepted = 0;
    for n in 0..20 {
        write_and_wait(&program, LOCK, &format!("beside-{n}")).await;
        // The server writes to the lock that goes wrong, too.
        let body = json!({ "keyUuid": format!("poisoned-{n}"), "keyIndexNumber": 2 });
        let answer = program.write_key(POISONED_LOCK, &body).send().await;
        assert!([200, 502, 503, 504].contains(&answer.status), "{answer:?}");
        accepted += u32::from(answer.status == 200);
        let ready = program.request("GET", "/readyz").send().await;
        assert_eq!(ready.status, 200, "{ready:?}");
    }
    assert!(
        accepted > 0,
        "the server reaches the shadow beside that lock"
    );
    eventually("it has gone wrong for long", || async {
        (deltas.load(Ordering::Relaxed) > 300).then_some(())
    })
    .await;
    write_and_wait(&program, LOCK, "after-all").await;
    let ready = program.request("GET", "/readyz").send().await;
    assert_eq!(ready.status, 200, "{ready:?}");
    drop(poisoned);
    let log = shadows.log();
    let too_many = "too many requests for the shadows of this thing";
    let named = |line: &str| line.contains(too_many) && line.contains(POISONED);
    assert!(log.lines().any(named), "{log}");
    let connected = |line: &&str| line.contains("MQTT: connected") && line.contains(SERVICE);
    assert_eq!(log.lines().filter(connected).count(), 1, "{log}");

    // What such a lock leaves for a service that is away is taken off the broker once, and is not given again.
    shadows.kill();
    let other = "$aws/things/another-thing/shadow/name/keys/update";
    let (left, mut answers) = client(&at, "another", &[&format!("{other}/accepted")]).await;
    let left = left.connection().expect("connected");
    let update = topic("update");
    for _ in 0..800 {
        let sent = left.publish(&update, QoS::AtLeastOnce, answer("entry-0").into());
        sent.await.expect("sent");
    }
    let shadows = start_shadows();
    eventually("it is ready again", is_ready).await;
    write_and_wait(&program, LOCK, "after-the-backlog").await;
    // The broker delivers these after the backlog, and leaves at most 20 unacknowledged before each. The requests of one
    // thing are done one after the other, so that after some of these nothing of the backlog is left.
    for n in 0..40 {
        let body = json!({ "state": { "reported": { "n": n } } }).to_string();
        let sent = left.publish(other, QoS::AtLeastOnce, body.into());
        sent.await.expect("sent");
        let answer = tokio::time::timeout(Duration::from_secs(60), answers.recv()).await;
        assert!(answer.expect("it is answered").is_some());
    }
    shadows.kill();
    let (service, mut heard) = client(&at, SERVICE, &["sentinel"]).await;
    let service = service.connection().expect("connected");
    let sent = service.publish("sentinel", QoS::AtLeastOnce, "x".into());
    sent.await.expect("sent");
    let first = tokio::time::timeout(Duration::from_secs(20), heard.recv()).await;
    assert_eq!(first.expect("it arrives").as_deref(), Some("sentinel"));
}

/// Hands on the topics of what the broker keeps until it is delivered.
struct Kept(UnboundedSender<String>);

impl Handler for Kept {
    fn up(&mut self, _: u64) {}

    fn down(&mut self, _: u64, _: &str) {}

    fn message(&mut self, message: Message) {
        if message.at_least_once() {
            let _ = self.0.send(message.topic().to_owned());
        }
    }
}

/// A client of this id that is connected, with what the broker keeps for it.
async fn client(at: &Broker, id: &str, filters: &[&str]) -> (Session, UnboundedReceiver<String>) {
    let (tell, heard) = unbounded_channel();
    let options = SessionOptions {
        client_id: id.into(),
        filters: filters.iter().map(|filter| (*filter).to_owned()).collect(),
        persistent: true,
        manual_acks: false,
    };
    let session = Session::start(at.clone(), options, Kept(tell));
    let connected = session.connection_within(Duration::from_secs(30)).await;
    connected.expect("connected");
    (session, heard)
}
