//! One client's sessions with a broker, connection after connection.

use std::error::Error;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use rumqttc::{
    AsyncClient, ConnectionError, Event, EventLoop, MqttOptions, NetworkOptions, Outgoing, Packet,
    Publish, QoS, SubscribeFilter, SubscribeReasonCode, TlsConfiguration, Transport,
};
use tokio::sync::watch;
use tokio::task::AbortHandle;
use tokio::time::Instant;
use tracing::{debug, info, warn};

use crate::LARGEST_PAYLOAD;
use crate::broker::Broker;

const KEEP_ALIVE: Duration = Duration::from_secs(30);

/// A broker answers at least each ping: one that says nothing for so long is gone.
const SILENCE: Duration = Duration::from_secs(45);

/// Until the connection is there, until all subscriptions are granted, and until a packet is written.
const PATIENCE_SECS: u64 = 5;

/// An event loop that has something to publish and publishes nothing for so long is wedged.
const WEDGED: Duration = Duration::from_secs(5);

/// How often both are looked at.
const WATCH: Duration = Duration::from_secs(1);

/// What may wait to be written.
const QUEUE: usize = 256;

/// Publishes of QoS 1 without their acknowledgement; AWS IoT allows 100.
const IN_FLIGHT: u16 = 100;

/// Filters in one SUBSCRIBE; AWS IoT allows 8.
const FILTERS_AT_ONCE: usize = 8;

/// The pause before the next connection is random, up to a bound that doubles: full jitter.
const FIRST_PAUSE: Duration = Duration::from_secs(1);
const LONGEST_PAUSE: Duration = Duration::from_secs(8);

/// A connection that lived so long was a good one: the next failure starts with short pauses again.
const GOOD_LIFE: Duration = Duration::from_secs(10);

/// What a broker may send: as much as MQTT allows. A session that a broker keeps gives a message again until it is
/// acknowledged, so that one which is refused for its size would end every connection there is. Brokers bound
/// what they take in (`message_size_limit` of mosquitto).
const LARGEST_INCOMING: usize = 256 * 1024 * 1024;

/// The longest topic, and the head of a packet.
const HEAD: usize = 1024;

/// Connections that end so soon, one after the other, are probably ended by another client of the same id.
const SHORT_LIFE: Duration = Duration::from_secs(5);

/// Who this client is to the broker, and what it wants to hear.
#[derive(Clone, Debug)]
pub struct SessionOptions {
    /// Unique on the broker: a second connection of the same id ends the first.
    pub client_id: String,
    /// What is subscribed to, at QoS 1.
    pub filters: Vec<String>,
    /// Whether the broker keeps subscriptions, and messages of QoS 1, for a client that is away.
    pub persistent: bool,
    /// Whether the handler acknowledges messages; otherwise they are as they arrive.
    pub manual_acks: bool,
}

/// A message that arrived.
pub struct Message {
    publish: Publish,
    client: AsyncClient,
}

impl Message {
    /// Where it was published.
    pub fn topic(&self) -> &str {
        &self.publish.topic
    }

    /// What was published.
    pub fn payload(&self) -> &[u8] {
        &self.publish.payload
    }

    /// Whether it comes from the broker's memory and not from somebody who published it now.
    pub const fn retained(&self) -> bool {
        self.publish.retain
    }

    /// Whether the broker gives it again until it is acknowledged.
    pub fn at_least_once(&self) -> bool {
        self.publish.qos == QoS::AtLeastOnce
    }

    /// Tells the broker that it may forget the message. One from a lost connection stays: it comes again.
    pub async fn acknowledge(&self) {
        // A connection that is gone takes no acknowledgement, and must get none of another's.
        let _ = self.client.ack(&self.publish).await;
    }

    /// As [`Message::acknowledge`], without waiting; where the queue is full the message comes again.
    pub fn try_acknowledge(&self) {
        let _ = self.client.try_ack(&self.publish);
    }
}

/// Whether the connection is still wanted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Flow {
    /// It goes on.
    Continue,
    /// It is given up for a new one, so that the broker gives again what was not acknowledged.
    Renew,
}

/// What is done with what happens. It is called from the connection's own task and must not wait.
pub trait Handler: Send + 'static {
    /// All subscriptions are granted, on the connection of this number.
    fn up(&mut self, connection: u64);
    /// That connection, or the try to make it, is over, and whatever it had in its queues.
    fn down(&mut self, connection: u64, why: &str);
    /// A message; it may come before `up`.
    fn message(&mut self, message: Message) -> Flow;
}

/// It certainly never left.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not sent: {0}")]
pub struct NotSent(pub String);

/// One connection that is up. It outlives its use: what it is given after its end is not sent.
#[derive(Clone)]
pub struct Connection {
    number: u64,
    client: AsyncClient,
    handed: Arc<AtomicU64>,
}

impl Connection {
    /// Which one it is, counted from 1.
    pub const fn number(&self) -> u64 {
        self.number
    }

    /// Publishes without waiting for room.
    ///
    /// # Errors
    /// The payload is larger than [`LARGEST_PAYLOAD`], the connection is over, or its queue is full. Without an error
    /// the message may have been sent.
    pub fn try_publish(&self, topic: &str, qos: QoS, payload: Vec<u8>) -> Result<(), NotSent> {
        fits(topic, payload.len())?;
        self.handed.fetch_add(1, Ordering::Relaxed);
        self.client
            .try_publish(topic, qos, false, payload)
            .map_err(|_| {
                self.handed.fetch_sub(1, Ordering::Relaxed);
                NotSent("the connection to the broker is busy or over".into())
            })
    }

    /// Publishes as soon as there is room.
    ///
    /// # Errors
    /// The payload is larger than [`LARGEST_PAYLOAD`], or the connection is over.
    pub async fn publish(&self, topic: &str, qos: QoS, payload: Bytes) -> Result<(), NotSent> {
        fits(topic, payload.len())?;
        self.handed.fetch_add(1, Ordering::Relaxed);
        let sent = self.client.publish_bytes(topic, qos, false, payload).await;
        sent.map_err(|_| NotSent("the connection to the broker is over".into()))
    }
}

/// A packet that is too large would end the connection.
fn fits(topic: &str, payload: usize) -> Result<(), NotSent> {
    if payload <= LARGEST_PAYLOAD && topic.len() < HEAD / 2 {
        return Ok(());
    }
    Err(NotSent(format!(
        "a message of {payload} bytes is too large for MQTT"
    )))
}

#[derive(Clone)]
enum Link {
    Up(Connection),
    Down(Arc<str>),
}

/// A client that is connected again whenever its connection is lost, until the last clone is dropped.
#[derive(Clone)]
pub struct Session {
    link: watch::Receiver<Link>,
    _task: Arc<Task>,
}

struct Task(AbortHandle);

impl Drop for Task {
    fn drop(&mut self) {
        self.0.abort();
    }
}

impl Session {
    /// Starts to connect.
    pub fn start(broker: Broker, options: SessionOptions, handler: impl Handler) -> Self {
        let down = Link::Down("not connected yet".into());
        let (tell, link) = watch::channel(down);
        let runner = Runner {
            broker,
            options,
            tell,
            handler,
        };
        let task = tokio::spawn(runner.run());
        Self {
            link,
            _task: Arc::new(Task(task.abort_handle())),
        }
    }

    /// The connection, if there is one with all its subscriptions.
    ///
    /// # Errors
    /// There is none; the text says why.
    pub fn connection(&self) -> Result<Connection, NotSent> {
        match &*self.link.borrow() {
            Link::Up(connection) => Ok(connection.clone()),
            Link::Down(why) => Err(NotSent(why.to_string())),
        }
    }

    /// Waits for a connection, at most so long.
    ///
    /// # Errors
    /// There is none; the text says why.
    pub async fn connection_within(&self, patience: Duration) -> Result<Connection, NotSent> {
        let mut link = self.link.clone();
        let waiting = link.wait_for(|link| matches!(link, Link::Up(_)));
        let _ = tokio::time::timeout(patience, waiting).await;
        self.connection()
    }
}

struct Runner<H> {
    broker: Broker,
    options: SessionOptions,
    tell: watch::Sender<Link>,
    handler: H,
}

impl<H: Handler> Runner<H> {
    async fn run(mut self) {
        let (broker, id) = (self.broker.url.to_string(), self.options.client_id.clone());
        let (mut bound, mut said, mut short_lives) = (FIRST_PAUSE, String::new(), 0);
        for number in 1_u64.. {
            let (mut why, life) = self.connect(number).await;
            short_lives = match life {
                Duration::ZERO => 0,
                life if life < SHORT_LIFE => short_lives + 1,
                _ => 0,
            };
            if short_lives > 1 {
                why = format!("{why}; perhaps another client calls itself {id}, too");
            }
            // What goes on for long is said once.
            if why == said {
                debug!(broker, client = id, "MQTT: {why}");
            } else {
                warn!(broker, client = id, "MQTT: {why}");
                said.clone_from(&why);
            }
            self.tell.send_replace(Link::Down(why.as_str().into()));
            self.handler.down(number, &why);
            if life > GOOD_LIFE {
                (bound, said) = (FIRST_PAUSE, String::new());
            }
            tokio::time::sleep(bound.mul_f64(fastrand::f64())).await;
            bound = (bound * 2).min(LONGEST_PAUSE);
        }
    }

    /// One connection from its beginning to its end: why it has ended, and how long it was up.
    async fn connect(&mut self, number: u64) -> (String, Duration) {
        let (client, mut events) = AsyncClient::new(self.mqtt_options(), QUEUE);
        let mut network = NetworkOptions::new();
        network.set_tcp_nodelay(true);
        network.set_connection_timeout(PATIENCE_SECS);
        events.set_network_options(network);
        let connection = Connection {
            number,
            client,
            handed: Arc::default(),
        };
        let begun = self.subscribe(&connection, &mut events);
        let patience = Duration::from_secs(2 * PATIENCE_SECS);
        match tokio::time::timeout(patience, begun).await {
            Ok(Ok(())) => {}
            Ok(Err(why)) => return (why, Duration::ZERO),
            Err(_) => return ("the broker does not answer".into(), Duration::ZERO),
        }
        let broker = self.broker.url.to_string();
        info!(broker, client = self.options.client_id, "MQTT: connected");
        self.tell.send_replace(Link::Up(connection.clone()));
        self.handler.up(number);
        let up = Instant::now();
        (self.serve(&connection, &mut events).await, up.elapsed())
    }

    fn mqtt_options(&self) -> MqttOptions {
        let url = &self.broker.url;
        let (host, port) = url.parts();
        let mut mqtt = MqttOptions::new(&self.options.client_id, host, port);
        mqtt.set_keep_alive(KEEP_ALIVE)
            .set_clean_session(!self.options.persistent)
            .set_manual_acks(self.options.manual_acks)
            .set_max_packet_size(LARGEST_INCOMING, LARGEST_PAYLOAD + HEAD)
            .set_inflight(IN_FLIGHT);
        if let Some(tls) = &self.broker.tls {
            mqtt.set_transport(Transport::Tls(TlsConfiguration::Rustls(tls.clone())));
        }
        if let Some((user, password)) = &self.broker.login {
            mqtt.set_credentials(user, password);
        }
        mqtt
    }

    async fn subscribe(
        &mut self,
        connection: &Connection,
        events: &mut EventLoop,
    ) -> Result<(), String> {
        let (mut waiting, mut greeted) = (0, false);
        loop {
            let event = events.poll().await.map_err(|e| match greeted {
                true => explain(&e),
                false => self.explain_refusal(&e),
            })?;
            match event {
                Event::Incoming(Packet::ConnAck(_)) => {
                    greeted = true;
                    for some in self.options.filters.chunks(FILTERS_AT_ONCE) {
                        let filters = some
                            .iter()
                            .map(|f| SubscribeFilter::new(f.clone(), QoS::AtLeastOnce));
                        let asked = connection.client.try_subscribe_many(filters);
                        asked.map_err(|e| e.to_string())?;
                        waiting += 1;
                    }
                }
                Event::Incoming(Packet::SubAck(granted)) => {
                    if granted.return_codes.contains(&SubscribeReasonCode::Failure) {
                        let filters = self.options.filters.join(" ");
                        return Err(format!("the broker refuses a subscription of {filters}"));
                    }
                    waiting -= 1;
                }
                Event::Incoming(Packet::Publish(publish)) => {
                    self.message(connection, publish)?;
                    continue;
                }
                _ => continue,
            }
            if waiting == 0 {
                return Ok(());
            }
        }
    }

    /// Why there is no connection at all, and what to look at.
    fn explain_refusal(&self, error: &ConnectionError) -> String {
        let why = explain(error);
        let hung_up = why.contains("Connection reset") || why.contains("closed by peer");
        match self.broker.tls {
            None if hung_up => format!("{why}; does the broker speak TLS there (mqtts://)?"),
            Some(_) if hung_up => {
                format!("{why}; does the broker speak TLS there, and want a certificate of ours?")
            }
            _ => why,
        }
    }

    fn message(&mut self, connection: &Connection, publish: Publish) -> Result<(), String> {
        let client = connection.client.clone();
        match self.handler.message(Message { publish, client }) {
            Flow::Continue => Ok(()),
            Flow::Renew => Err("given up for a new connection".into()),
        }
    }

    async fn serve(&mut self, connection: &Connection, events: &mut EventLoop) -> String {
        let mut taken = 0;
        let (mut heard, mut moved) = (Instant::now(), Instant::now());
        let mut watch = tokio::time::interval(WATCH);
        loop {
            // A poll that is given up halfway may leave a packet unwritten, so it never is.
            let polling = events.poll();
            tokio::pin!(polling);
            let event = loop {
                tokio::select! {
                    event = &mut polling => break event,
                    _ = watch.tick() => {
                        if heard.elapsed() > SILENCE {
                            return "the broker has fallen silent".into();
                        }
                        if connection.handed.load(Ordering::Relaxed) == taken {
                            moved = Instant::now();
                        } else if moved.elapsed() > WEDGED {
                            return "what is to be sent does not leave".into();
                        }
                    }
                }
            };
            match event {
                Ok(Event::Incoming(packet)) => {
                    heard = Instant::now();
                    match packet {
                        Packet::Publish(publish) => {
                            if let Err(why) = self.message(connection, publish) {
                                return why;
                            }
                        }
                        Packet::Disconnect => return "the broker has hung up".into(),
                        _ => {}
                    }
                }
                Ok(Event::Outgoing(Outgoing::Publish(_))) => {
                    taken += 1;
                    moved = Instant::now();
                }
                Ok(Event::Outgoing(_)) => {}
                Err(error) => return explain(&error),
            }
        }
    }
}

/// What is at the bottom of an error: the layers above it only say that it went through them.
fn explain(error: &ConnectionError) -> String {
    if let ConnectionError::NetworkTimeout = error {
        return "the broker cannot be reached in time".into();
    }
    let mut bottom: &dyn Error = error;
    while let Some(cause) = bottom.source() {
        bottom = cause;
    }
    let text = bottom.to_string();
    // Which side does not trust which is the first thing to know.
    if let Some(why) = text.strip_prefix("invalid peer certificate: ") {
        return format!("the broker's certificate is not accepted here: {why}");
    }
    if let Some(why) = text.strip_prefix("received fatal alert: ") {
        return format!("the broker does not accept our certificate or handshake: {why}");
    }
    text
}
