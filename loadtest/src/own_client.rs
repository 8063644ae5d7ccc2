//! Our own client, for the open loop.

use std::net::SocketAddr;
use std::time::Duration;

use async_trait::async_trait;
use http_body_util::Full;
use hyper::Request;
use hyper::header::LOCATION;

use crate::http::Client;
use crate::session::{Answer, Ask, Caller, Credential};

/// One connection at a time, which is kept.
pub struct OwnClient {
    address: SocketAddr,
    client: Client,
}

impl OwnClient {
    /// A client of this server.
    pub const fn new(address: SocketAddr) -> Self {
        Self {
            address,
            client: Client::new(address),
        }
    }

    fn request(&self, ask: &Ask) -> Request<Full<bytes::Bytes>> {
        let mut request = Request::builder()
            .method(ask.method)
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

#[async_trait]
impl Caller for OwnClient {
    async fn call(&mut self, ask: &Ask) -> Option<Answer> {
        let answer = self.client.send(self.request(ask)).await.ok()?;
        let location = answer.headers().get(LOCATION);
        Some(Answer {
            status: answer.status().as_u16(),
            location: location.and_then(|l| l.to_str().ok()).map(str::to_owned),
            body: answer.into_body(),
        })
    }

    async fn call_and_hang_up(&mut self, ask: &Ask, after: Duration) {
        let mut client = Client::new(self.address);
        let sending = client.send(self.request(ask));
        let _ = tokio::time::timeout(after, sending).await;
    }
}
