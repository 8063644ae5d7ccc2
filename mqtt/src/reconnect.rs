//! The task of a session, which makes one connection after the other.

use std::time::Duration;

use rumqttc::{Packet, Publish, QoS, Request, Subscribe, SubscribeFilter, SubscribeReasonCode};
use tokio::sync::watch;
use tokio::time::{Instant, MissedTickBehavior};
use tracing::{debug, info, warn};

use crate::broker::Broker;
use crate::connection::{Connection, ConnectionState};
use crate::connection_error::ConnectionError;
use crate::message::{Handler, Message};
use crate::outbound::OutboundReceiver;
use crate::packets::{KEEP_ALIVE, PacketStream, Transfer};
use crate::session_options::SessionOptions;

/// The broker answers every ping, so a connection on which nothing arrives for this long is lost.
const MAX_SILENCE: Duration = Duration::from_secs(45);

/// How long the broker may take to accept the connection, and then to grant all subscriptions.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
const SUBSCRIBE_TIMEOUT: Duration = Duration::from_secs(10);

/// A connection that has bytes to send and sends none for this long is given up.
const MAX_STALL: Duration = Duration::from_secs(5);

/// How often silence and stalls are checked.
const CHECK_INTERVAL: Duration = Duration::from_secs(1);

/// Filters in one SUBSCRIBE; AWS IoT allows 8.
const MAX_FILTERS_PER_SUBSCRIBE: usize = 8;

/// The pause before the next connection is random, up to a bound that doubles with each attempt (full jitter).
const MIN_PAUSE_BOUND: Duration = Duration::from_secs(1);
const MAX_PAUSE_BOUND: Duration = Duration::from_secs(8);

/// After a connection that lasted longer, the pauses start from the smallest bound again.
const STABLE_LIFETIME: Duration = Duration::from_secs(10);

/// Two successive connections that were up and lasted less were probably ended by another client with the same id.
const SHORT_LIFETIME: Duration = Duration::from_secs(5);

pub(crate) struct Runner<H> {
    pub(crate) broker: Broker,
    pub(crate) options: SessionOptions,
    pub(crate) handler: H,
    pub(crate) state: watch::Sender<ConnectionState>,
}

/// How a connection ended.
struct Ended {
    reason: String,
    /// How long all its subscriptions were granted; `None`: they never were.
    lifetime: Option<Duration>,
}

impl From<ConnectionError> for Ended {
    fn from(error: ConnectionError) -> Self {
        Self {
            reason: error.to_string(),
            lifetime: None,
        }
    }
}

impl<H: Handler> Runner<H> {
    pub(crate) async fn run(mut self) {
        let (broker, id) = (self.broker.url.to_string(), self.options.client_id.clone());
        let (mut pause_bound, mut last_logged) = (MIN_PAUSE_BOUND, String::new());
        let mut short_lifetimes = 0;
        for number in 1_u64.. {
            let Ended {
                mut reason,
                lifetime,
            } = self.connect(number).await;
            short_lifetimes = match lifetime {
                Some(lifetime) if lifetime < SHORT_LIFETIME => short_lifetimes + 1,
                _ => 0,
            };
            if short_lifetimes > 1 {
                reason = format!("{reason}; perhaps another client has the client id {id}, too");
            }
            // A reason that repeats is a warning only once.
            if reason == last_logged {
                debug!(broker, client = id, "MQTT: {reason}");
            } else {
                warn!(broker, client = id, "MQTT: {reason}");
                last_logged.clone_from(&reason);
            }
            self.state
                .send_replace(ConnectionState::Down(reason.as_str().into()));
            self.handler.disconnected(number, &reason);
            if lifetime.is_some_and(|lifetime| lifetime > STABLE_LIFETIME) {
                (pause_bound, last_logged) = (MIN_PAUSE_BOUND, String::new());
            }
            tokio::time::sleep(pause_bound.mul_f64(fastrand::f64())).await;
            pause_bound = (pause_bound * 2).min(MAX_PAUSE_BOUND);
        }
    }

    /// One connection from its beginning to its end.
    async fn connect(&mut self, number: u64) -> Ended {
        let opened = PacketStream::open(&self.broker, &self.options);
        let mut stream = match tokio::time::timeout(CONNECT_TIMEOUT, opened).await {
            Ok(Ok(stream)) => stream,
            Ok(Err(error)) => return self.with_advice(&error),
            Err(_) => return ConnectionError::ConnectTimeout.into(),
        };
        let (connection, requests) = Connection::new(number);
        let subscribed = self.subscribe(&connection, &mut stream);
        match tokio::time::timeout(SUBSCRIBE_TIMEOUT, subscribed).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => return error.into(),
            Err(_) => return ConnectionError::SubscribeTimeout.into(),
        }
        let broker = self.broker.url.to_string();
        info!(broker, client = self.options.client_id, "MQTT: connected");
        self.state
            .send_replace(ConnectionState::Up(connection.clone()));
        self.handler.connected(number);
        let start = Instant::now();
        let error = self.serve(&connection, stream, requests).await;
        Ended {
            reason: error.to_string(),
            lifetime: Some(start.elapsed()),
        }
    }

    /// Subscribes to all filters and waits until all of them are granted.
    async fn subscribe(
        &mut self,
        connection: &Connection,
        stream: &mut PacketStream,
    ) -> Result<(), ConnectionError> {
        let mut unanswered = 0;
        for filters in self.options.filters.chunks(MAX_FILTERS_PER_SUBSCRIBE) {
            let filters = filters
                .iter()
                .map(|filter| SubscribeFilter::new(filter.clone(), QoS::AtLeastOnce));
            stream.send(Request::Subscribe(Subscribe::new_many(filters)))?;
            unanswered += 1;
        }
        while unanswered > 0 {
            stream.transfer().await?;
            while let Some(packet) = stream.next_packet()? {
                match packet {
                    Packet::SubAck(granted)
                        if granted.return_codes.contains(&SubscribeReasonCode::Failure) =>
                    {
                        let filters = self.options.filters.join(" ");
                        return Err(ConnectionError::SubscriptionRefused(filters));
                    }
                    Packet::SubAck(_) => unanswered -= 1,
                    Packet::Publish(publish) => self.deliver(connection, publish),
                    _ => {}
                }
            }
        }
        Ok(())
    }

    /// Adds what an operator should check when the broker hangs up during the handshake.
    fn with_advice(&self, error: &ConnectionError) -> Ended {
        let advice = match self.broker.tls {
            _ if !error.is_hang_up() => "",
            None => "; does the broker speak TLS there (mqtts://)?",
            Some(_) => "; does the broker speak TLS there, and require a client certificate?",
        };
        Ended {
            reason: format!("{error}{advice}"),
            lifetime: None,
        }
    }

    fn deliver(&mut self, connection: &Connection, publish: Publish) {
        let message = Message::new(publish, connection.clone());
        self.handler.message_received(message);
    }

    /// Sends and receives until the connection ends; returns why.
    async fn serve(
        &mut self,
        connection: &Connection,
        mut stream: PacketStream,
        mut requests: OutboundReceiver,
    ) -> ConnectionError {
        let now = Instant::now();
        let (mut last_received, mut last_sent, mut last_ping) = (now, now, now);
        let mut check = tokio::time::interval(CHECK_INTERVAL);
        check.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            loop {
                match stream.next_packet() {
                    Ok(Some(Packet::Publish(publish))) => self.deliver(connection, publish),
                    Ok(Some(_)) => {}
                    Ok(None) => break,
                    Err(error) => return error,
                }
            }
            let done = tokio::select! {
                transferred = stream.transfer() => transferred.map(|transfer| match transfer {
                    Transfer::Received => last_received = Instant::now(),
                    Transfer::Sent => last_sent = Instant::now(),
                }),
                Some(request) = requests.next(), if stream.has_room() => {
                    last_sent = Instant::now();
                    send_all(&mut stream, request, &mut requests)
                }
                _ = check.tick() => {
                    let idle = !stream.has_output() && requests.is_empty();
                    if last_received.elapsed() > MAX_SILENCE {
                        return ConnectionError::Silent;
                    }
                    if idle {
                        last_sent = Instant::now();
                    } else if last_sent.elapsed() > MAX_STALL {
                        return ConnectionError::Stalled;
                    }
                    if last_ping.elapsed() >= KEEP_ALIVE {
                        last_ping = Instant::now();
                        stream.ping()
                    } else {
                        Ok(())
                    }
                }
            };
            if let Err(error) = done {
                return error;
            }
        }
    }
}

/// Moves all queued requests to the stream, so that one write to the network carries many packets.
fn send_all(
    stream: &mut PacketStream,
    first: Request,
    requests: &mut OutboundReceiver,
) -> Result<(), ConnectionError> {
    stream.send(first)?;
    while stream.has_room()
        && let Some(request) = requests.try_next()
    {
        stream.send(request)?;
    }
    Ok(())
}
