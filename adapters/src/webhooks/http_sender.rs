//! Sends deliveries over HTTP/1.1.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, UNIX_EPOCH};

use async_trait::async_trait;
use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::header::{CONTENT_TYPE, HOST, HeaderMap, RETRY_AFTER, USER_AGENT};
use hyper::{Request, Response};
use keywright_domain::model::{
    EndpointAnswer, NoAnswer, Timestamp, Webhook, WebhookId, WebhookMessage, WebhookUrl,
};
use keywright_domain::policy::{AddressRules, UnusableUrl};
use keywright_domain::ports::WebhookSender;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;

use super::connection::{ConnectError, Connections, Sender};
use super::envelope::EnvelopeSettings;
use super::resolver::Resolver;
use super::signature::{ID_HEADER, SIGNATURE_HEADER, TIMESTAMP_HEADER, sign};
use crate::error_text::text_with_sources;
use crate::tls::{self, InvalidCaFile};

const USER_AGENT_VALUE: &str = concat!("keywright-webhooks/", env!("CARGO_PKG_VERSION"));

/// How many bytes of an answer's body are read. A connection with a longer answer is closed.
const MAX_READ: usize = 16 * 1024;

/// How long the body of an answer may take. What the endpoint decided is known from the status.
const BODY_TIMEOUT: Duration = Duration::from_secs(2);

/// How long a connection may take to become ready for the next request.
const READY_TIMEOUT: Duration = Duration::from_millis(100);

/// How long the resolution of a name may take at the registration of a webhook.
const CHECK_TIMEOUT: Duration = Duration::from_secs(4);

/// Sends deliveries over HTTP/1.1, with TLS for `https`.
pub struct HttpWebhookSender {
    connections: Connections,
    envelope: EnvelopeSettings,
}

impl HttpWebhookSender {
    /// `ca`: a PEM file of authorities to trust instead of the system's.
    ///
    /// # Errors
    /// The file cannot be used.
    pub fn new(
        rules: AddressRules,
        envelope: EnvelopeSettings,
        resolver: Arc<dyn Resolver>,
        ca: Option<&Path>,
    ) -> Result<Self, InvalidCaFile> {
        let tls = TlsConnector::from(Arc::new(tls::client_config(ca)?));
        Ok(Self {
            connections: Connections::new(rules, resolver, tls),
            envelope,
        })
    }

    async fn exchange(
        &self,
        id: WebhookId,
        url: &WebhookUrl,
        request: Request<Full<Bytes>>,
        now: Timestamp,
    ) -> Result<EndpointAnswer, NoAnswer> {
        let mut on_idle = None;
        if let Some(mut sender) = self.connections.take_idle(id, url) {
            // The server may have closed the connection meanwhile. Then the request is sent again at once, on a new one.
            let sent = sender.send_request(request.clone()).await;
            on_idle = sent.ok().map(|response| (sender, response));
        }
        let (mut sender, response) = match on_idle {
            Some(answered) => answered,
            None => {
                let mut sender = self.connections.open(url).await?;
                let sent = sender.send_request(request).await;
                let failed = |e: hyper::Error| NoAnswer::Connection(text_with_sources(&e));
                (sender, sent.map_err(failed)?)
            }
        };
        let (answer, is_whole) = read(response, now).await;
        if is_whole && is_open(&mut sender).await {
            self.connections.keep(id, url, sender);
        }
        Ok(answer)
    }
}

/// Whether the connection can serve another request. The answer has been read to its end, so this is known at once.
async fn is_open(sender: &mut Sender) -> bool {
    let ready = timeout(READY_TIMEOUT, sender.ready()).await;
    matches!(ready, Ok(Ok(())))
}

/// The answer, and whether its body was read to its end.
async fn read(response: Response<Incoming>, now: Timestamp) -> (EndpointAnswer, bool) {
    let (head, mut body) = response.into_parts();
    let mut read = Vec::new();
    let reading = async {
        while let Some(frame) = body.frame().await {
            let Ok(frame) = frame else { return false };
            if let Some(data) = frame.data_ref() {
                let room = MAX_READ.saturating_sub(read.len());
                if data.len() > room {
                    read.extend_from_slice(&data[..room]);
                    return false;
                }
                read.extend_from_slice(data);
            }
        }
        true
    };
    let is_whole = timeout(BODY_TIMEOUT, reading).await.unwrap_or(false);
    let answer = EndpointAnswer {
        status: head.status.as_u16(),
        retry_after: retry_after(&head.headers, now),
        body: beginning(&read),
    };
    (answer, is_whole)
}

/// The first characters, at most [`EndpointAnswer::MAX_BODY`] bytes of them.
fn beginning(body: &[u8]) -> String {
    let mut text = String::from_utf8_lossy(body).into_owned();
    let mut end = EndpointAnswer::MAX_BODY.min(text.len());
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    text.truncate(end);
    text
}

/// The value of `Retry-After`: a number of seconds, or a time (RFC 9110, section 10.2.3).
fn retry_after(headers: &HeaderMap, now: Timestamp) -> Option<Duration> {
    let value = headers.get(RETRY_AFTER)?.to_str().ok()?.trim();
    if value.bytes().all(|byte| byte.is_ascii_digit()) && !value.is_empty() {
        // Only a number that is too large cannot be read.
        return Some(Duration::from_secs(value.parse().unwrap_or(u64::MAX)));
    }
    let at = httpdate::parse_http_date(value).ok()?;
    let at = at.duration_since(UNIX_EPOCH).ok()?;
    Some(at.saturating_sub(Duration::from_millis(now.as_millis())))
}

#[async_trait]
impl WebhookSender for HttpWebhookSender {
    async fn check(&self, url: &WebhookUrl) -> Result<(), UnusableUrl> {
        self.connections.rules().check_url(url)?;
        let resolved = timeout(CHECK_TIMEOUT, self.connections.addresses(url.host())).await;
        let resolved =
            resolved.unwrap_or_else(|_| Err(ConnectError::Unresolved("no answer in time".into())));
        resolved.map(drop).map_err(|error| match error {
            ConnectError::Forbidden(why) => UnusableUrl::Forbidden(why),
            ConnectError::Unresolved(why) | ConnectError::Failed(why) => {
                UnusableUrl::Unresolved(why)
            }
        })
    }

    async fn send(
        &self,
        webhook: &Webhook,
        message: &WebhookMessage,
        now: Timestamp,
        time: Duration,
    ) -> Result<EndpointAnswer, NoAnswer> {
        let body = self.envelope.body(message);
        let (id, timestamp) = (message.id(), now.as_secs());
        let signature = sign(webhook.secrets.valid_at(now), &id, timestamp, &body);
        let request = Request::post(webhook.url.target())
            .header(HOST, webhook.url.authority())
            .header(USER_AGENT, USER_AGENT_VALUE)
            .header(CONTENT_TYPE, "application/json")
            .header(ID_HEADER, id)
            .header(TIMESTAMP_HEADER, timestamp)
            .header(SIGNATURE_HEADER, signature)
            .body(Full::new(Bytes::from(body)))
            .map_err(|e| NoAnswer::Connection(text_with_sources(&e)))?;
        let exchange = self.exchange(webhook.id, &webhook.url, request, now);
        let answer = timeout(time, exchange).await;
        answer.unwrap_or(Err(NoAnswer::Timeout))
    }
}
