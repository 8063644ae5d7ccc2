//! One MQTT connection as a stream of packets: the bytes are ours, the protocol is that of rumqttc's [`MqttState`].
//!
//! rumqttc's own event loop is not used. It reconnects by itself and then sends what was queued for the connection
//! that was lost, and its TLS needs a version of rustls-webpki with known vulnerabilities.

use std::io;
use std::time::Duration;

use bytes::BytesMut;
use rumqttc::mqttbytes;
use rumqttc::{
    Connect, ConnectReturnCode, Event, Login, MqttState, Packet, PingReq, Request, StateError,
};
use tokio::io::{AsyncReadExt, AsyncWriteExt, ReadHalf, WriteHalf};

use crate::broker::Broker;
use crate::session::SessionOptions;
use crate::transport::{self, ByteStream};
use crate::{MAX_PACKET_OVERHEAD, MAX_PAYLOAD_BYTES};

/// The time without a packet from us after which a broker takes us for dead, less the half that MQTT adds to it.
pub(crate) const KEEP_ALIVE: Duration = Duration::from_secs(30);

/// Publishes of QoS 1 without their acknowledgement; AWS IoT allows 100.
const MAX_IN_FLIGHT: u16 = 100;

/// What a broker may send: as much as MQTT allows. A session that a broker keeps gives a message again until it is
/// acknowledged, so that one which is refused for its size would end every connection there is. Brokers bound
/// what they take in (`message_size_limit` of mosquitto).
const MAX_INCOMING: usize = 256 * 1024 * 1024;

/// Bytes to be written above which no further request is accepted.
const FULL_OUTPUT: usize = 64 * 1024;

/// Free space before each read. A packet that is larger than this is read in several steps.
const READ_SIZE: usize = 16 * 1024;

/// Why a connection is over, or was never made.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ConnectionError {
    #[error(transparent)]
    Io(#[from] io::Error),
    #[error("the broker closed the connection")]
    Closed,
    #[error("the broker refuses the connection: {0:?}")]
    Refused(ConnectReturnCode),
    #[error("the broker answers CONNECT with another packet than CONNACK")]
    NoConnAck,
    #[error("MQTT protocol error: {0}")]
    Protocol(#[from] StateError),
    #[error("invalid MQTT packet: {0}")]
    Packet(#[from] mqttbytes::Error),
}

impl ConnectionError {
    /// Whether the other side ended the connection without giving a reason.
    pub(crate) fn is_hang_up(&self) -> bool {
        use io::ErrorKind::{BrokenPipe, ConnectionAborted, ConnectionReset, UnexpectedEof};
        match self {
            Self::Closed => true,
            Self::Io(e) => matches!(
                e.kind(),
                BrokenPipe | ConnectionAborted | ConnectionReset | UnexpectedEof
            ),
            _ => false,
        }
    }
}

/// What [`PacketStream::transfer`] did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Transfer {
    /// Bytes were received.
    Received,
    /// Bytes were sent.
    Sent,
}

/// A connection that the broker has accepted.
pub(crate) struct PacketStream {
    reader: ReadHalf<Box<dyn ByteStream>>,
    writer: WriteHalf<Box<dyn ByteStream>>,
    state: MqttState,
    input: BytesMut,
    output: BytesMut,
    /// Whether bytes may be left in the buffers of TLS.
    unflushed: bool,
}

impl PacketStream {
    /// Connects, sends CONNECT and waits for CONNACK, for as long as that takes.
    ///
    /// # Errors
    /// The broker cannot be reached, or refuses the connection.
    pub(crate) async fn open(
        broker: &Broker,
        options: &SessionOptions,
    ) -> Result<Self, ConnectionError> {
        let (reader, writer) = tokio::io::split(transport::open(broker).await?);
        let mut stream = Self {
            reader,
            writer,
            state: MqttState::new(MAX_IN_FLIGHT, options.manual_acks),
            input: BytesMut::new(),
            output: BytesMut::new(),
            unflushed: false,
        };
        let mut connect = Connect::new(&options.client_id);
        // It is 30.
        connect.keep_alive = KEEP_ALIVE.as_secs() as u16;
        connect.clean_session = !options.persistent;
        connect.login = broker.login.as_ref().map(|(user, password)| Login {
            username: user.clone(),
            password: password.clone(),
        });
        stream.encode(&Packet::Connect(connect))?;
        loop {
            stream.transfer().await?;
            match stream.decode()? {
                None => {}
                Some(Packet::ConnAck(answer)) if answer.code == ConnectReturnCode::Success => {
                    return Ok(stream);
                }
                Some(Packet::ConnAck(answer)) => return Err(ConnectionError::Refused(answer.code)),
                Some(_) => return Err(ConnectionError::NoConnAck),
            }
        }
    }

    /// Whether [`PacketStream::send`] may be called: not too much is waiting to be written or acknowledged.
    pub(crate) fn has_room(&self) -> bool {
        self.output.len() < FULL_OUTPUT
            && self.state.inflight() < MAX_IN_FLIGHT
            && self.state.collision.is_none()
    }

    /// Whether bytes are waiting to be written.
    pub(crate) fn has_output(&self) -> bool {
        !self.output.is_empty() || self.unflushed
    }

    /// Appends a request to what [`PacketStream::transfer`] writes.
    ///
    /// # Errors
    /// The protocol does not allow it now, or the packet is too large.
    pub(crate) fn send(&mut self, request: Request) -> Result<(), ConnectionError> {
        match self.state.handle_outgoing_packet(request)? {
            Some(packet) => self.encode(&packet),
            // Its packet id is still in use: it is sent when that is acknowledged.
            None => Ok(()),
        }
    }

    /// Appends a PINGREQ.
    ///
    /// # Errors
    /// The one before was not answered.
    pub(crate) fn ping(&mut self) -> Result<(), ConnectionError> {
        self.send(Request::PingReq(PingReq))
    }

    /// Receives or sends some bytes. Nothing is lost when the returned future is dropped.
    ///
    /// # Errors
    /// The connection is lost.
    pub(crate) async fn transfer(&mut self) -> Result<Transfer, ConnectionError> {
        self.input.reserve(READ_SIZE);
        let has_output = self.has_output();
        tokio::select! {
            read = self.reader.read_buf(&mut self.input) => match read? {
                0 => Err(ConnectionError::Closed),
                _ => Ok(Transfer::Received),
            },
            written = write(&mut self.writer, &mut self.output, &mut self.unflushed), if has_output => {
                written?;
                Ok(Transfer::Sent)
            }
        }
    }

    /// The next packet among the bytes that were received, answered as the protocol demands; `None`: it is not
    /// complete yet.
    ///
    /// # Errors
    /// The broker does not keep to the protocol.
    pub(crate) fn next_packet(&mut self) -> Result<Option<Packet>, ConnectionError> {
        loop {
            // The state also notes what was sent, which nobody needs here.
            while let Some(event) = self.state.events.pop_front() {
                if let Event::Incoming(packet) = event {
                    return Ok(Some(packet));
                }
            }
            let Some(packet) = self.decode()? else {
                return Ok(None);
            };
            if let Some(answer) = self.state.handle_incoming_packet(packet)? {
                self.encode(&answer)?;
            }
        }
    }

    fn decode(&mut self) -> Result<Option<Packet>, ConnectionError> {
        match Packet::read(&mut self.input, MAX_INCOMING) {
            Ok(packet) => Ok(Some(packet)),
            Err(mqttbytes::Error::InsufficientBytes(_)) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    fn encode(&mut self, packet: &Packet) -> Result<(), ConnectionError> {
        packet.write(&mut self.output, MAX_PAYLOAD_BYTES + MAX_PACKET_OVERHEAD)?;
        Ok(())
    }
}

/// Writes some of the output, or flushes what was written. Each call waits for one of them only, so that nothing is
/// lost when the returned future is dropped.
async fn write(
    writer: &mut WriteHalf<Box<dyn ByteStream>>,
    output: &mut BytesMut,
    unflushed: &mut bool,
) -> io::Result<()> {
    if output.is_empty() {
        writer.flush().await?;
        *unflushed = false;
        return Ok(());
    }
    let written = writer.write_buf(output).await?;
    *unflushed = true;
    match written {
        0 => Err(io::ErrorKind::WriteZero.into()),
        _ => Ok(()),
    }
}
