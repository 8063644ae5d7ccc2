//! One MQTT connection as a stream of packets. The protocol state and the codec are rumqttc's ([`MqttState`]); reading and
//! writing the bytes is done here.
//!
//! rumqttc's event loop is not used: it reconnects by itself and then sends messages that were queued for the lost connection,
//! and its TLS needs a version of rustls-webpki with known vulnerabilities.

use std::io;
use std::time::Duration;

use bytes::BytesMut;
use rumqttc::mqttbytes;
use rumqttc::{Connect, ConnectReturnCode, Event, Login, MqttState, Packet, PingReq, Request};
use tokio::io::{AsyncReadExt, AsyncWriteExt, ReadHalf, WriteHalf};

use crate::broker::Broker;
use crate::connection_error::ConnectionError;
use crate::session_options::SessionOptions;
use crate::transport::{self, ByteStream};
use crate::{MAX_PACKET_OVERHEAD, MAX_PAYLOAD_BYTES};

/// The keep-alive interval that is announced to the broker. It closes a connection on which it receives nothing for one and a
/// half times as long.
pub(crate) const KEEP_ALIVE: Duration = Duration::from_secs(30);

/// Unacknowledged publishes at QoS 1; AWS IoT allows 100.
const MAX_IN_FLIGHT: u16 = 100;

/// The size limit of received packets: the largest size that MQTT allows. A persistent session receives an
/// unacknowledged message again after each connect, so a rejected one would end every further connection. Brokers limit what they accept
/// (`message_size_limit` of mosquitto).
const MAX_INCOMING_BYTES: usize = 256 * 1024 * 1024;

/// From this many bytes in the output buffer on, no further request is accepted.
const MAX_OUTPUT_BYTES: usize = 64 * 1024;

/// Free space in the input buffer before each read, in bytes. Larger packets take several reads.
const READ_SIZE: usize = 16 * 1024;

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
    /// Whether the TLS layer may still buffer bytes that were written.
    unflushed: bool,
}

impl PacketStream {
    /// Connects, sends CONNECT and waits for CONNACK, without a time limit of its own.
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
        // 30 fits into 16 bits.
        connect.keep_alive = KEEP_ALIVE.as_secs() as u16;
        connect.clean_session = !options.persistent_session;
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

    /// Whether [`PacketStream::send`] may be called: the output buffer and the number of unacknowledged publishes are within their limits.
    pub(crate) fn has_room(&self) -> bool {
        self.output.len() < MAX_OUTPUT_BYTES
            && self.state.inflight() < MAX_IN_FLIGHT
            && self.state.collision.is_none()
    }

    /// Whether bytes wait to be written.
    pub(crate) fn has_output(&self) -> bool {
        !self.output.is_empty() || self.unflushed
    }

    /// Appends a request to the output buffer, which [`PacketStream::transfer`] writes.
    ///
    /// # Errors
    /// The protocol does not allow it now, or the packet is too large.
    pub(crate) fn send(&mut self, request: Request) -> Result<(), ConnectionError> {
        match self.state.handle_outgoing_packet(request)? {
            Some(packet) => self.encode(&packet),
            // Its packet id is still in use: the state sends the request when that id is acknowledged.
            None => Ok(()),
        }
    }

    /// Appends a PINGREQ.
    ///
    /// # Errors
    /// The previous ping was not answered.
    pub(crate) fn ping(&mut self) -> Result<(), ConnectionError> {
        self.send(Request::PingReq(PingReq))
    }

    /// Receives or sends some bytes. Cancel-safe: no bytes are lost when the future is dropped.
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

    /// Decodes the next received packet, and appends the response that the protocol requires. `None`: no packet is complete yet.
    ///
    /// # Errors
    /// The broker violates the protocol.
    pub(crate) fn next_packet(&mut self) -> Result<Option<Packet>, ConnectionError> {
        loop {
            // The events also include sent packets, which are not needed here.
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
        match Packet::read(&mut self.input, MAX_INCOMING_BYTES) {
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

/// Writes some of the output, or flushes written bytes. Each call awaits only one of the two, which makes it cancel-safe.
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
