//! HTTP requests with JSON bodies for tests.

use std::net::SocketAddr;

use bytes::Bytes;
use http_body_util::Full;
pub use keywright_client::ClientError;
use keywright_client::{EventStream, StreamAnswer};
use serde_json::Value;

/// An answer to a request.
#[derive(Clone, Debug)]
pub struct Answer {
    /// The status.
    pub status: u16,
    /// The headers, by lower-case names.
    pub headers: Vec<(String, String)>,
    /// The body; null if it is not JSON.
    pub body: Value,
    /// The body as text; empty if it is not UTF-8.
    pub text: String,
}

impl Answer {
    /// The value of a header.
    pub fn header(&self, name: &str) -> Option<&str> {
        let found = self.headers.iter().find(|(header, _)| header == name);
        found.map(|(_, value)| value.as_str())
    }

    /// The write id in `Location`.
    ///
    /// # Panics
    /// There is no `Location`.
    pub fn write_id(&self) -> String {
        let location = self.header("location");
        let location = location.unwrap_or_else(|| panic!("no Location: {self:?}"));
        location.rsplit('/').next().unwrap_or_default().to_owned()
    }
}

impl From<keywright_client::Answer> for Answer {
    fn from(answer: keywright_client::Answer) -> Self {
        let (head, body) = answer.into_parts();
        let headers = head.headers.iter().map(|(name, value)| {
            let value = value.to_str().unwrap_or_default();
            (name.to_string(), value.to_owned())
        });
        Self {
            status: head.status.as_u16(),
            headers: headers.collect(),
            body: serde_json::from_slice(&body).unwrap_or_default(),
            text: String::from_utf8(body.to_vec()).unwrap_or_default(),
        }
    }
}

/// A request under construction.
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

    /// Adds a header.
    #[must_use]
    pub fn header(mut self, name: &str, value: &str) -> Self {
        self.headers.push((name.to_owned(), value.to_owned()));
        self
    }

    /// Removes all headers of this name.
    #[must_use]
    pub fn without(mut self, name: &str) -> Self {
        self.headers.retain(|(header, _)| header != name);
        self
    }

    /// Adds a bearer token.
    #[must_use]
    pub fn bearer(self, token: &str) -> Self {
        self.header("Authorization", &format!("Bearer {token}"))
    }

    /// Sets a JSON body with its `Content-Type`.
    #[must_use]
    pub fn json(self, body: &Value) -> Self {
        self.header("Content-Type", "application/json")
            .body(&body.to_string())
    }

    /// Sets the body.
    #[must_use]
    pub fn body(mut self, body: &str) -> Self {
        body.clone_into(&mut self.body);
        self
    }

    /// Sends the request on a new connection.
    ///
    /// # Panics
    /// There is no answer.
    pub async fn send(self) -> Answer {
        let mut connection = Connection::open(self.address).await.expect("a connection");
        connection.send(self).await.expect("an answer")
    }

    /// Opens a stream of events on a new connection.
    ///
    /// # Panics
    /// The answer is no stream.
    pub async fn stream(self) -> EventStream {
        match self.open_stream().await.expect("an answer") {
            StreamAnswer::Stream(stream) => stream,
            StreamAnswer::Other(answer) => panic!("no stream: {answer:?}"),
        }
    }

    /// Opens a stream of events on a new connection, unless the answer is another one.
    ///
    /// # Errors
    /// The server cannot be reached.
    pub async fn open_stream(self) -> Result<StreamAnswer, ClientError> {
        let connection = keywright_client::Connection::open(self.address).await?;
        connection.stream(self.build()).await
    }

    fn build(self) -> hyper::Request<Full<Bytes>> {
        let mut builder = hyper::Request::builder()
            .method(self.method.as_str())
            .uri(&self.path)
            .header("Host", self.address.to_string());
        for (name, value) in &self.headers {
            builder = builder.header(name, value);
        }
        let request = builder.body(Full::new(Bytes::from(self.body)));
        request.expect("a valid request")
    }
}

/// A connection for several requests.
pub struct Connection(keywright_client::Connection);

impl Connection {
    /// Opens a connection.
    ///
    /// # Errors
    /// The server does not accept it.
    pub async fn open(address: SocketAddr) -> Result<Self, ClientError> {
        keywright_client::Connection::open(address).await.map(Self)
    }

    /// Sends a request and reads the answer.
    ///
    /// # Errors
    /// The connection broke before the answer was complete.
    ///
    /// # Panics
    /// The request is invalid, or there is no answer within a minute.
    pub async fn send(&mut self, request: Request) -> Result<Answer, ClientError> {
        match self.0.send(request.build()).await {
            Err(timeout @ ClientError::Timeout) => panic!("{timeout}"),
            answer => answer.map(Answer::from),
        }
    }
}
