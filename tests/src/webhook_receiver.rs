//! A receiver of webhooks for tests, which answers as a test says.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

/// How a receiver answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reaction {
    /// With this status.
    Status(u16),
    /// With this status and `Retry-After`.
    RetryAfter(u16, u64),
    /// Not at all: it keeps the connection open.
    Hang,
    /// It closes the connection without an answer.
    Reset,
}

/// A delivery as it was received.
#[derive(Clone, Debug)]
pub struct Delivery {
    /// The headers, by lower-case names.
    pub headers: Vec<(String, String)>,
    /// The body, byte for byte.
    pub body: Vec<u8>,
    /// The body as JSON.
    pub envelope: Value,
    /// How it was answered.
    pub reaction: Reaction,
}

impl Delivery {
    /// The value of a header; empty if it is missing.
    pub fn header(&self, name: &str) -> &str {
        let found = self.headers.iter().find(|(header, _)| header == name);
        found.map_or("", |(_, value)| value)
    }

    /// The id of what was delivered.
    pub fn id(&self) -> &str {
        self.header("webhook-id")
    }

    /// Whether it was answered with 2xx.
    pub fn is_accepted(&self) -> bool {
        matches!(self.reaction, Reaction::Status(200..=299))
    }
}

type React = Box<dyn Fn(&Delivery) -> Reaction + Send + Sync>;

struct State {
    received: Vec<Delivery>,
    react: Arc<React>,
}

/// A receiver on a free port. It ends with the test.
#[derive(Clone)]
pub struct WebhookReceiver {
    /// Where it listens.
    pub address: SocketAddr,
    state: Arc<Mutex<State>>,
}

impl WebhookReceiver {
    /// Starts a receiver that accepts everything.
    ///
    /// # Panics
    /// There is no free port.
    pub async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let react: React = Box::new(|_| Reaction::Status(200));
        let receiver = Self {
            address: listener.local_addr().expect("its address"),
            state: Arc::new(Mutex::new(State {
                received: Vec::new(),
                react: Arc::new(react),
            })),
        };
        let serving = receiver.clone();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let receiver = serving.clone();
                tokio::spawn(async move { receiver.serve(stream).await });
            }
        });
        receiver
    }

    /// Its URL.
    pub fn url(&self) -> String {
        format!("http://{}/hook", self.address)
    }

    /// Answers further deliveries as `react` says.
    pub fn react(&self, react: impl Fn(&Delivery) -> Reaction + Send + Sync + 'static) {
        self.state().react = Arc::new(Box::new(react));
    }

    /// What was received so far.
    pub fn received(&self) -> Vec<Delivery> {
        self.state().received.clone()
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn serve(&self, mut stream: TcpStream) {
        while let Some((headers, body)) = read_request(&mut stream).await {
            let mut delivery = Delivery {
                headers,
                envelope: serde_json::from_slice(&body).unwrap_or_default(),
                body,
                reaction: Reaction::Status(200),
            };
            let react = self.state().react.clone();
            delivery.reaction = react(&delivery);
            let reaction = delivery.reaction;
            self.state().received.push(delivery);
            let answer = match reaction {
                Reaction::Status(status) => {
                    format!("HTTP/1.1 {status} x\r\nContent-Length: 4\r\n\r\ndone")
                }
                Reaction::RetryAfter(status, seconds) => {
                    format!(
                        "HTTP/1.1 {status} x\r\nRetry-After: {seconds}\r\nContent-Length: 0\r\n\r\n"
                    )
                }
                Reaction::Hang => {
                    // Until the client gives up.
                    let _ = tokio::time::timeout(Duration::from_secs(60), stream.read_u8()).await;
                    return;
                }
                Reaction::Reset => return,
            };
            if stream.write_all(answer.as_bytes()).await.is_err() {
                return;
            }
        }
    }
}

/// The headers and the body of the next request.
async fn read_request(stream: &mut TcpStream) -> Option<(Vec<(String, String)>, Vec<u8>)> {
    let (mut read, mut buffer) = (Vec::new(), vec![0; 16 * 1024]);
    let end = loop {
        if let Some(end) = read.windows(4).position(|four| four == b"\r\n\r\n") {
            break end + 4;
        }
        match stream.read(&mut buffer).await.ok()? {
            0 => return None,
            count => read.extend_from_slice(&buffer[..count]),
        }
    };
    let head = String::from_utf8(read[..end].to_vec()).ok()?;
    let headers: Vec<(String, String)> = head
        .lines()
        .skip(1)
        .filter_map(|line| line.split_once(": "))
        .map(|(name, value)| (name.to_ascii_lowercase(), value.to_owned()))
        .collect();
    let length = headers.iter().find(|(name, _)| name == "content-length");
    let length: usize = length.map_or(Some(0), |(_, value)| value.parse().ok())?;
    while read.len() < end + length {
        match stream.read(&mut buffer).await.ok()? {
            0 => return None,
            count => read.extend_from_slice(&buffer[..count]),
        }
    }
    Some((headers, read.split_off(end)))
}
