//! Sends requests of personas over hyper, for the open loop and the checks.

use std::net::SocketAddr;
use std::time::Duration;

use async_trait::async_trait;
use http_body_util::Full;
use hyper::Request;
use hyper::header::LOCATION;
use tokio::time::Instant;

use crate::persona_session::{Answer, ApiRequest, Caller};
use keywright_client::Client;

/// A client with one connection, and more connections for concurrent requests.
pub struct HyperCaller {
    address: SocketAddr,
    client: Client,
    others: Vec<Client>,
}

impl HyperCaller {
    /// A caller for this server.
    pub const fn new(address: SocketAddr) -> Self {
        Self {
            address,
            client: Client::new(address),
            others: Vec::new(),
        }
    }

    fn build(&self, request: &ApiRequest) -> Request<Full<bytes::Bytes>> {
        let mut builder = Request::builder()
            .method(request.endpoint.method)
            .uri(&request.path)
            .header("Host", self.address.to_string());
        for (name, value) in request.headers() {
            builder = builder.header(name, value);
        }
        let body = request.body.clone().unwrap_or_default();
        builder.body(Full::from(body)).expect("a valid request")
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
impl Caller for HyperCaller {
    async fn call(&mut self, request: &ApiRequest) -> Option<Answer> {
        let request = self.build(request);
        send(&mut self.client, request).await
    }

    async fn call_all(&mut self, requests: &[ApiRequest]) -> Vec<(Option<Answer>, Instant)> {
        let mut tasks = Vec::new();
        for request in requests {
            let (idle, request) = (self.others.pop(), self.build(request));
            let mut client = idle.unwrap_or_else(|| Client::new(self.address));
            tasks.push(tokio::spawn(async move {
                let answer = send(&mut client, request).await;
                (answer, Instant::now(), client)
            }));
        }
        let mut answers = Vec::new();
        for task in tasks {
            let (answer, at, client) = task.await.expect("no panic");
            answers.push((answer, at));
            self.others.push(client);
        }
        answers
    }

    async fn call_and_disconnect(&mut self, request: &ApiRequest, after: Duration) {
        let mut client = Client::new(self.address);
        let sending = client.send(self.build(request));
        let _ = tokio::time::timeout(after, sending).await;
    }
}
