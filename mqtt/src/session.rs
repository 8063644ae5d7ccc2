//! One client's sessions with a broker, connection after connection.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use rumqttc::{Packet, Publish, QoS, Request, Subscribe, SubscribeFilter, SubscribeReasonCode};
use tokio::sync::watch;
use tokio::task::AbortHandle;
use tokio::time::{Instant, MissedTickBehavior};
use tracing::{debug, info, warn};

use crate::broker::Broker;
use crate::outbound::{NotQueued, Outbound, OutboundQueue, outbound};
use crate::packets::{ConnectionError, KEEP_ALIVE, PacketStream, Transfer};
use crate::{MAX_PACKET_OVERHEAD, MAX_PAYLOAD_BYTES};

/// A broker answers at least each ping: one that says nothing for so long is gone.
const SILENCE: Duration = Duration::from_secs(45);

/// How long it may take until the broker accepts the connection, and then until it grants all subscriptions.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
const SUBSCRIBE_TIMEOUT: Duration = Duration::from_secs(10);

/// A connection that has something to send and sends nothing for so long is given up.
const STALLED: Duration = Duration::from_secs(5);

/// How often all of these are checked.
const WATCH: Duration = Duration::from_secs(1);

/// Filters in one SUBSCRIBE; AWS IoT allows 8.
const FILTERS_AT_ONCE: usize = 8;

/// The pause before the next connection is random, up to a bound that doubles: full jitter.
const FIRST_PAUSE: Duration = Duration::from_secs(1);
const LONGEST_PAUSE: Duration = Duration::from_secs(8);

/// A connection that lived so long was a good one: the next failure starts with short pauses again.
const GOOD_LIFE: Duration = Duration::from_secs(10);

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
    outbound: OutboundQueue,
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

    /// Tells the broker that it may forget the message, after everything that was published before on the same
    /// connection. For a connection that is over this does nothing: a session that the broker keeps gives the
    /// message again.
    pub fn acknowledge(self) {
        if self.at_least_once() {
            self.outbound.acknowledge(self.publish.pkid);
        }
    }
}

/// What is done with what happens. It is called from the connection's own task and must not wait.
pub trait Handler: Send + 'static {
    /// All subscriptions are granted, on the connection of this number.
    fn up(&mut self, connection: u64);
    /// That connection, or the try to make it, is over, and whatever it had in its queues.
    fn down(&mut self, connection: u64, why: &str);
    /// A message; it may come before `up`.
    fn message(&mut self, message: Message);
}

/// It certainly never left.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not sent: {0}")]
pub struct NotSent(pub String);

/// One connection that is up. It outlives its use: what it is given after its end is not sent.
#[derive(Clone)]
pub struct Connection {
    number: u64,
    outbound: OutboundQueue,
}

impl Connection {
    /// Which one it is, counted from 1.
    pub const fn number(&self) -> u64 {
        self.number
    }

    /// Publishes without waiting for room.
    ///
    /// # Errors
    /// The payload is larger than [`MAX_PAYLOAD_BYTES`], the connection is over, or its queue is full. Without an error
    /// the message may have been sent.
    pub fn try_publish(&self, topic: &str, qos: QoS, payload: Vec<u8>) -> Result<(), NotSent> {
        fits(topic, payload.len())?;
        let queued = self.outbound.try_publish(Publish::new(topic, qos, payload));
        queued.map_err(NotSent::from)
    }

    /// Publishes as soon as there is room.
    ///
    /// # Errors
    /// The payload is larger than [`MAX_PAYLOAD_BYTES`], or the connection is over.
    pub async fn publish(&self, topic: &str, qos: QoS, payload: Bytes) -> Result<(), NotSent> {
        fits(topic, payload.len())?;
        let mut publish = Publish::new(topic, qos, Vec::new());
        publish.payload = payload;
        Ok(self.outbound.publish(publish).await?)
    }
}

impl From<NotQueued> for NotSent {
    fn from(why: NotQueued) -> Self {
        Self(match why {
            NotQueued::Full => "too much waits to be sent to the broker".into(),
            NotQueued::ConnectionOver => "the connection to the broker is over".into(),
        })
    }
}

/// A packet that is too large would end the connection.
fn fits(topic: &str, payload: usize) -> Result<(), NotSent> {
    if payload <= MAX_PAYLOAD_BYTES && topic.len() < MAX_PACKET_OVERHEAD / 2 {
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
        let opened = PacketStream::open(&self.broker, &self.options);
        let mut stream = match tokio::time::timeout(CONNECT_TIMEOUT, opened).await {
            Ok(Ok(stream)) => stream,
            Ok(Err(error)) => return (self.explain_refusal(&error), Duration::ZERO),
            Err(_) => {
                let why = "the broker cannot be reached in time".into();
                return (why, Duration::ZERO);
            }
        };
        let (queue, requests) = outbound();
        let connection = Connection {
            number,
            outbound: queue,
        };
        let subscribed = self.subscribe(&connection, &mut stream);
        match tokio::time::timeout(SUBSCRIBE_TIMEOUT, subscribed).await {
            Ok(Ok(())) => {}
            Ok(Err(why)) => return (why, Duration::ZERO),
            Err(_) => return ("the broker does not answer".into(), Duration::ZERO),
        }
        let broker = self.broker.url.to_string();
        info!(broker, client = self.options.client_id, "MQTT: connected");
        self.tell.send_replace(Link::Up(connection.clone()));
        self.handler.up(number);
        let up = Instant::now();
        let why = self.serve(&connection, stream, requests).await;
        (why, up.elapsed())
    }

    /// Subscribes to everything, and waits until all of it is granted.
    async fn subscribe(
        &mut self,
        connection: &Connection,
        stream: &mut PacketStream,
    ) -> Result<(), String> {
        let mut waiting = 0;
        for some in self.options.filters.chunks(FILTERS_AT_ONCE) {
            let filters = some
                .iter()
                .map(|filter| SubscribeFilter::new(filter.clone(), QoS::AtLeastOnce));
            let subscribe = Request::Subscribe(Subscribe::new_many(filters));
            stream.send(subscribe).map_err(|e| explain(&e))?;
            waiting += 1;
        }
        while waiting > 0 {
            stream.transfer().await.map_err(|e| explain(&e))?;
            while let Some(packet) = stream.next_packet().map_err(|e| explain(&e))? {
                match packet {
                    Packet::SubAck(granted)
                        if granted.return_codes.contains(&SubscribeReasonCode::Failure) =>
                    {
                        let filters = self.options.filters.join(" ");
                        return Err(format!("the broker refuses a subscription of {filters}"));
                    }
                    Packet::SubAck(_) => waiting -= 1,
                    Packet::Publish(publish) => self.message(connection, publish),
                    _ => {}
                }
            }
        }
        Ok(())
    }

    /// Why there is no connection at all, and what to look at.
    fn explain_refusal(&self, error: &ConnectionError) -> String {
        let why = explain(error);
        match self.broker.tls {
            None if error.is_hang_up() => {
                format!("{why}; does the broker speak TLS there (mqtts://)?")
            }
            Some(_) if error.is_hang_up() => {
                format!("{why}; does the broker speak TLS there, and want a certificate of ours?")
            }
            _ => why,
        }
    }

    fn message(&mut self, connection: &Connection, publish: Publish) {
        let outbound = connection.outbound.clone();
        self.handler.message(Message { publish, outbound });
    }

    /// Sends and receives until the connection is over; returns why it is.
    async fn serve(
        &mut self,
        connection: &Connection,
        mut stream: PacketStream,
        mut requests: Outbound,
    ) -> String {
        let now = Instant::now();
        let (mut heard, mut sent, mut pinged) = (now, now, now);
        let mut watch = tokio::time::interval(WATCH);
        watch.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            loop {
                match stream.next_packet() {
                    Ok(Some(Packet::Publish(publish))) => self.message(connection, publish),
                    Ok(Some(_)) => {}
                    Ok(None) => break,
                    Err(error) => return explain(&error),
                }
            }
            let done = tokio::select! {
                transferred = stream.transfer() => transferred.map(|transfer| match transfer {
                    Transfer::Received => heard = Instant::now(),
                    Transfer::Sent => sent = Instant::now(),
                }),
                Some(request) = requests.next(), if stream.has_room() => {
                    sent = Instant::now();
                    send_all(&mut stream, request, &mut requests)
                }
                _ = watch.tick() => {
                    let waiting = stream.has_output() || !requests.is_empty();
                    if heard.elapsed() > SILENCE {
                        return "the broker has fallen silent".into();
                    }
                    if !waiting {
                        sent = Instant::now();
                    } else if sent.elapsed() > STALLED {
                        return "what is to be sent does not leave".into();
                    }
                    if pinged.elapsed() >= KEEP_ALIVE {
                        pinged = Instant::now();
                        stream.ping()
                    } else {
                        Ok(())
                    }
                }
            };
            if let Err(error) = done {
                return explain(&error);
            }
        }
    }
}

/// Sends what waits, so that one write to the network takes many packets.
fn send_all(
    stream: &mut PacketStream,
    first: Request,
    requests: &mut Outbound,
) -> Result<(), ConnectionError> {
    stream.send(first)?;
    while stream.has_room()
        && let Some(request) = requests.try_next()
    {
        stream.send(request)?;
    }
    Ok(())
}

/// The error as it is logged. Which side does not trust which is the first thing to know.
fn explain(error: &ConnectionError) -> String {
    match error {
        ConnectionError::Io(error) => match tls_error(error) {
            Some(rustls::Error::InvalidCertificate(why)) => {
                format!("the broker's certificate is not accepted here: {why}")
            }
            Some(rustls::Error::AlertReceived(alert)) => {
                format!("the broker does not accept our certificate or handshake: {alert:?}")
            }
            _ => error.to_string(),
        },
        error => error.to_string(),
    }
}

fn tls_error(error: &io::Error) -> Option<&rustls::Error> {
    error.get_ref()?.downcast_ref()
}
