use std::fmt;
use std::io;

use rumqttc::mqttbytes;
use rumqttc::{ConnectReturnCode, StateError};

/// Why a connection has ended or could not be made. The texts are logged, and passed to [`Handler::down`](crate::Handler::down).
#[derive(Debug, thiserror::Error)]
pub(crate) enum ConnectionError {
    #[error("{}", IoReason(.0))]
    Io(#[from] io::Error),
    #[error("the broker cannot be reached in time")]
    ConnectTimeout,
    #[error("the broker closed the connection")]
    Closed,
    #[error("the broker refuses the connection: {0:?}")]
    Refused(ConnectReturnCode),
    #[error("the broker answers CONNECT with another packet than CONNACK")]
    NoConnAck,
    #[error("the broker does not answer")]
    SubscribeTimeout,
    #[error("the broker refuses a subscription of {0}")]
    SubscriptionRefused(String),
    #[error("the broker sends nothing any more")]
    Silent,
    #[error("queued messages cannot be sent: the connection does not accept them")]
    Stalled,
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

/// For a TLS error, the text says which side rejects the other's certificate.
struct IoReason<'a>(&'a io::Error);

impl fmt::Display for IoReason<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let tls = self.0.get_ref().and_then(|error| error.downcast_ref());
        match tls {
            Some(rustls::Error::InvalidCertificate(reason)) => {
                write!(f, "the broker's certificate is not accepted here: {reason}")
            }
            Some(rustls::Error::AlertReceived(alert)) => write!(
                f,
                "the broker does not accept our certificate or handshake: {alert:?}"
            ),
            _ => self.0.fmt(f),
        }
    }
}
