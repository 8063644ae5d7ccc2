//! An HTTP/1.1 client of small answers, for `keywright write`, load tests, benches and end-to-end tests: [`Connection`] is one
//! connection, and [`Client`] opens another one when the server has closed it. Both need the runtime of tokio.
//!
//! ```no_run
//! # async fn example() -> Result<(), Box<dyn std::error::Error>> {
//! let mut connection = keywright_client::Connection::open("127.0.0.1:8787").await?;
//! let request = hyper::Request::get("/healthz").header("Host", "127.0.0.1:8787");
//! let answer = connection.send(request.body(Default::default())?).await?;
//! assert_eq!(answer.status(), 200);
//! # Ok(())
//! # }
//! ```
#![warn(missing_docs)]

mod event_stream;

use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use thiserror::Error;
use tokio::net::{TcpStream, ToSocketAddrs};

pub use event_stream::{EventStream, ServerSentEvent, StreamAnswer};

/// The longest time that a client waits for an answer.
const TIMEOUT: Duration = Duration::from_secs(60);

/// An answer with its whole body.
pub type Answer = Response<Bytes>;

/// Why there is no answer.
#[derive(Debug, Error)]
pub enum ClientError {
    /// No connection could be opened; the request was not sent.
    #[error("cannot connect to {address}: {source}")]
    Connect {
        /// The address of the server, as it was given.
        address: String,
        /// The error of the operating system.
        source: std::io::Error,
    },
    /// The connection broke before the answer was complete; the server may have executed the request.
    #[error(transparent)]
    Http(#[from] hyper::Error),
    /// There was no answer in time; the server may have executed the request.
    #[error("no answer within {TIMEOUT:?}")]
    Timeout,
    /// The server has sent nothing on a stream of events, not even a comment.
    #[error("the stream of events is silent")]
    Silent,
    /// An event of a stream is too large.
    #[error("an event of the stream is too large")]
    TooLarge,
}

/// A connection to a server. It does not reconnect.
pub struct Connection(SendRequest<Full<Bytes>>);

impl Connection {
    /// Opens a connection to an address, or to a host and port such as `localhost:8787`.
    ///
    /// # Errors
    /// The host is unknown, or the server does not accept the connection.
    pub async fn open(address: impl ToSocketAddrs + ToString) -> Result<Self, ClientError> {
        let name = address.to_string();
        let connect = |source| ClientError::Connect {
            address: name.clone(),
            source,
        };
        let stream = TcpStream::connect(address).await.map_err(connect)?;
        stream.set_nodelay(true).map_err(connect)?;
        let (sender, connection) = handshake(TokioIo::new(stream)).await?;
        tokio::spawn(connection);
        Ok(Self(sender))
    }

    /// Sends a request and reads the whole answer.
    ///
    /// # Errors
    /// The connection broke, or there was no answer within a minute.
    pub async fn send(&mut self, request: Request<Full<Bytes>>) -> Result<Answer, ClientError> {
        let exchange = async {
            self.0.ready().await?;
            let (head, body) = self.0.send_request(request).await?.into_parts();
            let body = body.collect().await?.to_bytes();
            Ok(Response::from_parts(head, body))
        };
        let answer = tokio::time::timeout(TIMEOUT, exchange).await;
        answer.unwrap_or(Err(ClientError::Timeout))
    }

    async fn is_open(&mut self) -> bool {
        self.0.ready().await.is_ok()
    }
}

/// A client of one server. It keeps its connection, and opens another one when the server has closed it.
pub struct Client {
    address: SocketAddr,
    connection: Option<Connection>,
}

impl Client {
    /// A client that is not connected yet.
    pub const fn new(address: SocketAddr) -> Self {
        Self {
            address,
            connection: None,
        }
    }

    /// Connects before the first request.
    ///
    /// # Errors
    /// The server does not accept the connection.
    pub async fn connect(&mut self) -> Result<(), ClientError> {
        self.connection().await.map(drop)
    }

    /// Sends a request and reads the whole answer.
    ///
    /// # Errors
    /// There is no connection, it broke, or there was no answer within a minute.
    pub async fn send(&mut self, request: Request<Full<Bytes>>) -> Result<Answer, ClientError> {
        let answer = self.connection().await?.send(request).await;
        if answer.is_err() {
            self.connection = None;
        }
        answer
    }

    async fn connection(&mut self) -> Result<&mut Connection, ClientError> {
        let open = match self.connection.take() {
            Some(mut connection) => connection.is_open().await.then_some(connection),
            None => None,
        };
        let open = match open {
            Some(connection) => connection,
            None => Connection::open(self.address).await?,
        };
        Ok(self.connection.insert(open))
    }
}
