//! The overhead of the shadow adapters with our shadow service: MQTT compared with a message and its echo through the same broker,
//! the AWS SDK compared with a bare hyper client and server. The broker runs on core 0, everything else on core 1.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use aws_config::{BehaviorVersion, Region, SdkConfig};
use aws_credential_types::Credentials;
use aws_credential_types::provider::SharedCredentialsProvider;
use http_body_util::Full;
use hyper::Request;
use keywright_adapters::shadow::document_json::update_body;
use keywright_adapters::shadow::{AwsSettings, AwsShadow, DEFAULT_NAME, MqttShadow};
use keywright_benches::bare_hyper;
use keywright_client::Client;
use keywright_domain::model::{ClientToken, Epoch, Sequence, ShadowChange, ShadowEntry, WriteId};
use keywright_domain::ports::ShadowPort;
use keywright_mqtt::mosquitto::Mosquitto;
use keywright_mqtt::{Broker, TlsFiles};
use keywright_shadow::mqtt::{ClientLimits, MqttFrontend, Options};
use keywright_shadow::{ServiceConfig, ShadowService, rest};
use keywright_testkit::samples::{NOW, lock_id, slot, thing};
use rumqttc::{AsyncClient, Event, EventLoop, MqttOptions, NetworkOptions, Packet, QoS};
use tokio::net::TcpListener;
use tokio::sync::Mutex;
use tokio::task::JoinSet;

use crate::concurrent::{CONCURRENT, medians, now, per_second, rate};
use crate::programs::move_to_server_core;
use crate::table::{Row, Target};

const UPDATES: u64 = 10_000;
const THINGS: u64 = 2_000;
const TIMEOUT: Duration = Duration::from_secs(5);

/// Adds the entry of a write and removes the previous entry of the same thing.
fn change(number: u64) -> ShadowChange {
    let write = |number: u64| WriteId::from_u128(u128::from(number) + 1);
    let slot = slot("9b2e8f4a-1c3d-4e5f-8a9b-0c1d2e3f4a5b", Some(0));
    ShadowChange {
        put: Some(ShadowEntry {
            id: write(number),
            key: slot.key,
            index: slot.index,
            seq: Sequence(number + 1),
            expires_at: NOW,
        }),
        remove: number.checked_sub(THINGS).map(write).into_iter().collect(),
        clear_results: Vec::new(),
        expected: None,
        token: ClientToken::new(write(number), Epoch(1), 0),
    }
}

fn service() -> ShadowService {
    ShadowService::in_memory(ServiceConfig {
        clock: Arc::new(|| NOW.as_secs()),
        limits: keywright_shadow::Limits::default(),
    })
}

/// The number of accepted updates for each second.
async fn updates_per_second(port: Arc<dyn ShadowPort>) -> f64 {
    per_second(UPDATES, move |number| {
        let port = port.clone();
        async move {
            let thing = thing(lock_id(number % THINGS + 1));
            port.update(&thing, change(number)).await.expect("accepted");
        }
    })
    .await
}

async fn over_mqtt(mosquitto: &Mosquitto) -> f64 {
    let broker = Broker::new(mosquitto.url(), &TlsFiles::default()).expect("a broker");
    let mut attached = MqttFrontend::start(service(), broker.clone(), Options::default());
    attached.wait_until_up().await.expect("attached");
    let name = [DEFAULT_NAME.to_owned()];
    let port = MqttShadow::start(&broker, "bench", &name, ClientLimits::SELF_HOSTED, TIMEOUT);
    for mut up in port.up() {
        up.wait_for(|up| *up).await.expect("it connects");
    }
    updates_per_second(Arc::new(port)).await
}

fn raw_client(mosquitto: &Mosquitto, id: &str) -> (AsyncClient, EventLoop) {
    let mut options = MqttOptions::new(id, "127.0.0.1", mosquitto.port());
    options.set_inflight(100);
    let (client, mut events) = AsyncClient::new(options, 256);
    let mut network = NetworkOptions::new();
    network.set_tcp_nodelay(true);
    events.set_network_options(network);
    (client, events)
}

/// Waits for the next message.
async fn next_message(events: &mut EventLoop) -> rumqttc::Publish {
    loop {
        if let Event::Incoming(Packet::Publish(message)) = events.poll().await.expect("connected") {
            return message;
        }
    }
}

/// Subscribes, and waits for the acknowledgement.
async fn subscribe(client: &AsyncClient, events: &mut EventLoop, topic: &str) {
    let requested = client.try_subscribe(topic, QoS::AtLeastOnce);
    requested.expect("the queue has room");
    while !matches!(
        events.poll().await.expect("connected"),
        Event::Incoming(Packet::SubAck(_))
    ) {}
}

/// The number of echoed messages for each second, of the size of an update, 64 at a time.
async fn echoes(mosquitto: &Mosquitto) -> f64 {
    let (echo, mut echo_events) = raw_client(mosquitto, "echo");
    let (client, mut events) = raw_client(mosquitto, "raw");
    subscribe(&echo, &mut echo_events, "there").await;
    subscribe(&client, &mut events, "back").await;
    let mut tasks = JoinSet::new();
    tasks.spawn(async move {
        loop {
            let payload = next_message(&mut echo_events).await.payload;
            let sent = echo.try_publish("back", QoS::AtLeastOnce, false, payload);
            sent.expect("the queue has room");
        }
    });
    let send = |number| {
        let body = update_body(&change(number)).to_string();
        let sent = client.try_publish("there", QoS::AtLeastOnce, false, body);
        sent.expect("the queue has room");
    };
    let start = now();
    (0..CONCURRENT).for_each(send);
    for number in CONCURRENT..UPDATES + CONCURRENT {
        next_message(&mut events).await;
        if number < UPDATES {
            send(number);
        }
    }
    rate(UPDATES, start)
}

pub(crate) async fn mqtt() -> Row {
    let mosquitto = Mosquitto::start();
    move_to_server_core(mosquitto.id());
    let pair = async || (over_mqtt(&mosquitto).await, echoes(&mosquitto).await);
    let (own, alone) = medians(pair).await;
    Row {
        what: "shadow updates over MQTT, 64 in flight".into(),
        measured: format!("{own:.0} accepted a second"),
        reference: format!("a message and its echo: {alone:.0}"),
        figure: own / alone,
        target: Target::AtLeast(0.50),
    }
}

async fn over_rest() -> f64 {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("an address");
    let mut tasks = JoinSet::new();
    tasks.spawn(rest::serve(listener, service(), std::future::pending()));
    let credentials = Credentials::new("AKIDEXAMPLE", "secret", None, None, "bench");
    let config = SdkConfig::builder()
        .behavior_version(BehaviorVersion::latest())
        .region(Region::new("eu-west-1"))
        .credentials_provider(SharedCredentialsProvider::new(credentials))
        .build();
    let settings = AwsSettings {
        endpoint: Some(format!("http://{address}")),
        region: None,
        shadow: DEFAULT_NAME.into(),
        timeout: TIMEOUT,
    };
    updates_per_second(Arc::new(AwsShadow::new(&config, settings))).await
}

/// The number of requests for each second with the same bodies, between 64 bare hyper clients and a bare hyper server.
async fn over_bare_hyper() -> f64 {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address: SocketAddr = listener.local_addr().expect("an address");
    let mut tasks = JoinSet::new();
    tasks.spawn(bare_hyper::serve(listener));
    let clients: Arc<[_]> = (0..CONCURRENT)
        .map(|_| Mutex::new(Client::new(address)))
        .collect();
    per_second(UPDATES, move |number| {
        let clients = clients.clone();
        async move {
            let thing = thing(lock_id(number % THINGS + 1));
            let body = update_body(&change(number)).to_string();
            let request = Request::post(format!("/things/{thing}/shadow?name={DEFAULT_NAME}"))
                .header("Host", "shadows")
                .header("Content-Type", "application/octet-stream")
                .body(Full::from(body))
                .expect("a valid request");
            let free = clients.iter().find_map(|client| client.try_lock().ok());
            let answer = free
                .expect("there are as many clients as operations")
                .send(request)
                .await;
            assert_eq!(answer.expect("answered").status(), 200);
        }
    })
    .await
}

pub(crate) async fn aws_sdk() -> Row {
    let (own, alone) = medians(async || (over_rest().await, over_bare_hyper().await)).await;
    Row {
        what: "shadow updates by the AWS SDK over our REST service, 64 in flight".into(),
        measured: format!("{own:.0} accepted a second"),
        reference: format!("bare hyper, both ends: {alone:.0}"),
        figure: own / alone,
        target: Target::None,
    }
}
