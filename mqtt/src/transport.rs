//! The byte stream to a broker: TCP, or TLS over TCP.

use std::io;

use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use crate::broker::Broker;

/// A connection that packets are read from and written to.
pub(crate) trait ByteStream: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> ByteStream for T {}

/// Connects to the broker, with a TLS handshake if its address says `mqtts`.
///
/// # Errors
/// The host is unknown or does not answer, or one side rejects the other's certificate.
pub(crate) async fn open(broker: &Broker) -> io::Result<Box<dyn ByteStream>> {
    let (host, port) = broker.url.parts();
    let tcp = TcpStream::connect((host, port)).await?;
    // Otherwise a small packet waits up to 40 ms for the TCP acknowledgement of the previous one.
    tcp.set_nodelay(true)?;
    let Some(config) = &broker.tls else {
        return Ok(Box::new(tcp));
    };
    let name = ServerName::try_from(host.to_owned())
        .map_err(|e| io::Error::new(io::ErrorKind::InvalidInput, e))?;
    let connector = TlsConnector::from(config.clone());
    Ok(Box::new(connector.connect(name, tcp).await?))
}
