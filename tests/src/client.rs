//! A client that knows nothing but HTTP.

use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper_util::rt::TokioIo;
use serde_json::Value;
use tokio::net::TcpStream;

/// How long an answer may take.
const PATIENCE: Duration = Duration::from_secs(60);

/// What was answered.
#[derive(Clone, Debug)]
pub struct Answer {
    /// The status.
    pub status: u16,
    /// The headers, by their lower-case names.
    pub headers: Vec<(String, String)>,
    /// The body; null where it is no JSON.
    pub body: Value,
    /// The body as text, where it is some.
    pub text: String,
}

impl Answer {
    /// The value of a header.
    pub fn header(&self, name: &str) -> Option<&str> {
        let found = self.headers.iter().find(|(known, _)| known == name);
        found.map(|(_, value)| value.as_str())
    }

    /// The id in `Location`.
    ///
    /// # Panics
    /// There is none.
    pub fn write_id(&self) -> String {
        let location = self.header("location");
        let location = location.unwrap_or_else(|| panic!("no Location: {self:?}"));
        location.rsplit('/').next().unwrap_or_default().to_owned()
    }
}

/// A request that is being put together.
#[derive(Clone)]
pub struct Request {
    address: SocketAddr,
    method: String,
    path: String,
    headers: Vec<(String, String)>,
    body: String,
}

impl Request {
    /// A request without credentials and body.
    pub fn new(address: SocketAddr, method: &str, path: &str) -> Self {
        Self {
            address,
            method: method.to_owned(),
            path: path.to_owned(),
            headers: Vec::new(),
            body: String::new(),
        }
    }

    /// With one more header.
    #[must_use]
    pub fn header(mut self, name: &str, value: &str) -> Self {
        self.headers.push((name.to_owned(), value.to_owned()));
        self
    }

    /// Without the headers of that name.
    #[must_use]
    pub fn without(mut self, name: &str) -> Self {
        self.headers.retain(|(known, _)| known != name);
        self
    }

    /// With a token.
    #[must_use]
    pub fn bearer(self, token: &str) -> Self {
        self.header("Authorization", &format!("Bearer {token}"))
    }

    /// With a JSON body.
    #[must_use]
    pub fn json(self, body: &Value) -> Self {
        self.header("Content-Type", "application/json")
            .body(&body.to_string())
    }

    /// With any body.
    #[must_use]
    pub fn body(mut self, body: &str) -> Self {
        body.clone_into(&mut self.body);
        self
    }

    /// Sends it on a connection of its own.
    ///
    /// # Panics
    /// There is no answer.
    pub async fn send(self) -> Answer {
        let mut connection = Connection::open(self.address).await.expect("a connection");
        connection.send(self).await.expect("an answer")
    }
}

/// A connection that is kept.
pub struct Connection(SendRequest<Full<Bytes>>);

impl Connection {
    /// # Errors
    /// Nobody listens, or not any more.
    pub async fn open(address: SocketAddr) -> Result<Self, String> {
        let stream = TcpStream::connect(address)
            .await
            .map_err(|e| e.to_string())?;
        stream.set_nodelay(true).map_err(|e| e.to_string())?;
        let (sender, connection) = handshake(TokioIo::new(stream))
            .await
            .map_err(|e| e.to_string())?;
        tokio::spawn(connection);
        Ok(Self(sender))
    }

    /// # Errors
    /// The connection broke before the answer was there.
    ///
    /// # Panics
    /// The request cannot be written, or nothing is answered for a minute.
    pub async fn send(&mut self, request: Request) -> Result<Answer, String> {
        self.0.ready().await.map_err(|e| e.to_string())?;
        let mut builder = hyper::Request::builder()
            .method(request.method.as_str())
            .uri(&request.path)
            .header("Host", request.address.to_string());
        for (name, value) in &request.headers {
            builder = builder.header(name, value);
        }
        let sent = builder
            .body(Full::new(Bytes::from(request.body)))
            .expect("a request");
        let answering = async {
            let response = self.0.send_request(sent).await?;
            let (head, body) = response.into_parts();
            Ok((head, body.collect().await?.to_bytes()))
        };
        let answered = tokio::time::timeout(PATIENCE, answering).await;
        let answered: Result<_, hyper::Error> = answered.expect("an answer within a minute");
        let (head, body) = answered.map_err(|e| e.to_string())?;
        let headers = head.headers.iter().map(|(name, value)| {
            let value = value.to_str().unwrap_or_default();
            (name.to_string(), value.to_owned())
        });
        Ok(Answer {
            status: head.status.as_u16(),
            headers: headers.collect(),
            body: serde_json::from_slice(&body).unwrap_or_default(),
            text: String::from_utf8(body.to_vec()).unwrap_or_default(),
        })
    }
}
