//! Our own client, for the open loop.

use std::net::SocketAddr;
use std::time::Duration;

use async_trait::async_trait;
use http_body_util::Full;
use hyper::Request;
use hyper::header::LOCATION;
use tokio::time::Instant;

use crate::http::Client;
use crate::session::{Answer, Ask, Caller, Credential};

/// Connections that are kept: one, and others for what is asked at once.
pub struct OwnClient {
    address: SocketAddr,
    client: Client,
    others: Vec<Client>,
}

impl OwnClient {
    /// A client of this server.
    pub const fn new(address: SocketAddr) -> Self {
        Self {
            address,
            client: Client::new(address),
            others: Vec::new(),
        }
    }

    fn request(&self, ask: &Ask) -> Request<Full<bytes::Bytes>> {
        let mut request = Request::builder()
            .method(ask.endpoint.method)
            .uri(&ask.path)
            .header("Host", self.address.to_string());
        request = match &ask.credential {
            Credential::Token(token) => request.header("Authorization", format!("Bearer {token}")),
            Credential::ApiKey(key) => request.header("X-API-Key", key),
        };
        if let Some(key) = &ask.idempotency_key {
            request = request.header("Idempotency-Key", key);
        }
        if ask.body.is_some() {
            request = request.header("Content-Type", "application/json");
        }
        let body = ask.body.clone().unwrap_or_default();
        request.body(Full::from(body)).expect("all of it is text")
    }
}

async fn send(client: &mut Client, request: Request<Full<bytes::Bytes>>) -> Option<Answer> {
    let answer = client.send(request).await.ok()?;
    let location = answer.headers().get(LOCATION);
    Some(Answer {
        status: answer.status().as_u16(),
        location: location.and_then(|l| l.to_str().ok()).map(str::to_owned),
        body: answer.into_body(),
    })
}

#[async_trait]
impl Caller for OwnClient {
    async fn call(&mut self, ask: &Ask) -> Option<Answer> {
        let request = self.request(ask);
        send(&mut self.client, request).await
    }

    async fn call_all(&mut self, asks: &[Ask]) -> Vec<(Option<Answer>, Instant)> {
        let mut tasks = Vec::new();
        for ask in asks {
            let (known, request) = (self.others.pop(), self.request(ask));
            let mut client = known.unwrap_or_else(|| Client::new(self.address));
            tasks.push(tokio::spawn(async move {
                let answer = send(&mut client, request).await;
                (answer, Instant::now(), client)
            }));
        }
        let mut answers = Vec::new();
        for task in tasks {
            let (answer, at, client) = task.await.expect("it does not panic");
            answers.push((answer, at));
            self.others.push(client);
        }
        answers
    }

    async fn call_and_hang_up(&mut self, ask: &Ask, after: Duration) {
        let mut client = Client::new(self.address);
        let sending = client.send(self.request(ask));
        let _ = tokio::time::timeout(after, sending).await;
    }
}
