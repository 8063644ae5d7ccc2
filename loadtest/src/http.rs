//! One client over HTTP, which keeps its connection as long as the server does.

use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;

/// How long an answer may take.
const PATIENCE: Duration = Duration::from_secs(60);

/// An answer with its whole body.
pub type Answer = Response<Bytes>;

/// A client of one server.
pub struct Client {
    address: SocketAddr,
    connection: Option<SendRequest<Full<Bytes>>>,
}

impl Client {
    pub const fn new(address: SocketAddr) -> Self {
        Self {
            address,
            connection: None,
        }
    }

    /// Connects now, so that the first request need not.
    ///
    /// # Errors
    /// The server is not reached.
    pub async fn connect(&mut self) -> Result<(), String> {
        self.connection().await.map(drop)
    }

    /// # Errors
    /// The server was not reached, or the connection broke before the answer was there: what became of the request is
    /// not known.
    pub async fn send(&mut self, request: Request<Full<Bytes>>) -> Result<Answer, String> {
        let sending = async {
            let connection = self.connection().await?;
            let answer = connection.send_request(request).await;
            let (head, body) = answer.map_err(|e| e.to_string())?.into_parts();
            let body = body.collect().await.map_err(|e| e.to_string())?;
            Ok(Response::from_parts(head, body.to_bytes()))
        };
        let late = |_| Err(format!("no answer within {PATIENCE:?}"));
        let answer = tokio::time::timeout(PATIENCE, sending).await;
        let answer = answer.unwrap_or_else(late);
        if answer.is_err() {
            self.connection = None;
        }
        answer
    }

    async fn connection(&mut self) -> Result<&mut SendRequest<Full<Bytes>>, String> {
        let usable = match &mut self.connection {
            Some(connection) => connection.ready().await.is_ok(),
            None => false,
        };
        if !usable {
            self.connection = Some(self.open().await?);
        }
        self.connection
            .as_mut()
            .ok_or_else(|| "no connection".into())
    }

    async fn open(&self) -> Result<SendRequest<Full<Bytes>>, String> {
        let stream = TcpStream::connect(self.address).await;
        let stream = stream.map_err(|e| format!("{} is not reached: {e}", self.address))?;
        stream.set_nodelay(true).map_err(|e| e.to_string())?;
        let (sender, connection) = handshake(TokioIo::new(stream))
            .await
            .map_err(|e| e.to_string())?;
        tokio::spawn(connection);
        Ok(sender)
    }
}
