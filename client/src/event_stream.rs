//! Server-sent events (HTML standard, "Server-sent events").

use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::client::conn::http1::SendRequest;
use hyper::header::CONTENT_TYPE;
use hyper::{Request, Response};

use crate::{Answer, ClientError, Connection, TIMEOUT};

/// The longest pause of a stream. The server sends a comment every 15 s.
const SILENCE: Duration = Duration::from_secs(45);

/// The maximum size of an event, in bytes.
const MAX_EVENT: usize = 1024 * 1024;

/// An event of a stream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServerSentEvent {
    /// What to send as `Last-Event-ID` to continue after this event.
    pub id: String,
    /// The content.
    pub data: String,
}

/// A response that is a stream of events.
pub struct EventStream {
    body: Incoming,
    received: Vec<u8>,
    last_id: Option<String>,
    /// Keeps the connection open.
    _connection: SendRequest<Full<Bytes>>,
}

/// The answer to a request for a stream.
pub enum StreamAnswer {
    /// The stream.
    Stream(EventStream),
    /// Another answer, for instance an error.
    Other(Answer),
}

impl Connection {
    /// Sends a request that is answered with a stream of events.
    ///
    /// # Errors
    /// The connection broke, or there was no answer within a minute.
    pub async fn stream(
        mut self,
        request: Request<Full<Bytes>>,
    ) -> Result<StreamAnswer, ClientError> {
        let exchange = async {
            self.0.ready().await?;
            let (head, body) = self.0.send_request(request).await?.into_parts();
            let content_type = head.headers.get(CONTENT_TYPE);
            if content_type.is_some_and(|media_type| media_type == "text/event-stream") {
                return Ok(StreamAnswer::Stream(EventStream {
                    body,
                    received: Vec::new(),
                    last_id: None,
                    _connection: self.0,
                }));
            }
            let body = body.collect().await?.to_bytes();
            Ok(StreamAnswer::Other(Response::from_parts(head, body)))
        };
        let answer = tokio::time::timeout(TIMEOUT, exchange).await;
        answer.unwrap_or(Err(ClientError::Timeout))
    }
}

impl EventStream {
    /// What to send as `Last-Event-ID` to continue this stream. `None`: the server has sent no id yet.
    pub fn last_id(&self) -> Option<&str> {
        self.last_id.as_deref()
    }

    /// Waits for the next event. `None`: the server has ended the stream.
    ///
    /// # Errors
    /// The connection broke, the server was silent for 45 s, or an event has more than 1 MiB.
    pub async fn next(&mut self) -> Result<Option<ServerSentEvent>, ClientError> {
        loop {
            while let Some(end) = self.received.windows(2).position(|two| two == b"\n\n") {
                let block: Vec<u8> = self.received.drain(..end + 2).collect();
                let (id, data) = parse(&String::from_utf8_lossy(&block));
                self.last_id = id.or(self.last_id.take());
                if let Some(data) = data {
                    let id = self.last_id.clone().unwrap_or_default();
                    return Ok(Some(ServerSentEvent { id, data }));
                }
            }
            if self.received.len() > MAX_EVENT {
                return Err(ClientError::TooLarge);
            }
            let frame = tokio::time::timeout(SILENCE, self.body.frame()).await;
            let Some(frame) = frame.map_err(|_| ClientError::Silent)? else {
                return Ok(None);
            };
            if let Ok(bytes) = frame?.into_data() {
                self.received.extend_from_slice(&bytes);
            }
        }
    }
}

/// The id of a block and its data. A block without data is no event, but its id counts.
fn parse(block: &str) -> (Option<String>, Option<String>) {
    let (mut id, mut data) = (None, Vec::new());
    for line in block.lines() {
        let (field, value) = line.split_once(':').unwrap_or((line, ""));
        let value = value.strip_prefix(' ').unwrap_or(value);
        match field {
            "id" => id = Some(value.to_owned()),
            "data" => data.push(value),
            _ => {}
        }
    }
    let data = (!data.is_empty()).then(|| data.join("\n"));
    (id, data)
}
