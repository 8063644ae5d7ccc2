//! Connections to endpoints: only to addresses that the rules allow, which are checked after each resolution of the name. So a name that
//! changes its address between the registration and a delivery leads nowhere else.

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use http_body_util::Full;
use hyper::client::conn::http1::{Builder, SendRequest};
use hyper_util::rt::TokioIo;
use keywright_domain::model::{NoAnswer, WebhookHost, WebhookId, WebhookUrl};
use keywright_domain::policy::{AddressRules, ForbiddenAddress, UnusableUrl};
use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout};
use tokio_rustls::TlsConnector;

use super::resolver::Resolver;
use crate::error_text::text_with_sources;

/// How long an idle connection is kept. Many servers close theirs after five seconds, and a request that meets the close is lost.
const MAX_IDLE: Duration = Duration::from_secs(3);

/// How many idle connections are kept for one webhook.
const MAX_IDLE_CONNECTIONS: usize = 8;

/// How long one address of several may take to accept a connection.
const ADDRESS_TIMEOUT: Duration = Duration::from_secs(5);

/// How many addresses of a name are tried.
const MAX_ADDRESSES: usize = 4;

/// The size of the buffer of an answer's head, in bytes.
const MAX_HEAD: usize = 32 * 1024;

pub(super) type Sender = SendRequest<Full<Bytes>>;

/// Opens connections, and keeps idle ones for a moment.
pub(super) struct Connections {
    rules: AddressRules,
    resolver: Arc<dyn Resolver>,
    tls: TlsConnector,
    idle: Mutex<HashMap<WebhookId, Vec<IdleConnection>>>,
}

struct IdleConnection {
    /// The URL to which the connection leads. A change of the URL needs another connection.
    url: WebhookUrl,
    sender: Sender,
    since: Instant,
}

/// Why an address or a connection cannot be used.
pub(super) enum ConnectError {
    Forbidden(ForbiddenAddress),
    Unresolved(String),
    Failed(String),
}

impl From<ConnectError> for NoAnswer {
    fn from(error: ConnectError) -> Self {
        match error {
            ConnectError::Forbidden(why) => Self::ForbiddenAddress(why.to_string()),
            ConnectError::Unresolved(why) => Self::Unresolved(why),
            ConnectError::Failed(why) => Self::Connection(why),
        }
    }
}

impl Connections {
    pub(super) fn new(rules: AddressRules, resolver: Arc<dyn Resolver>, tls: TlsConnector) -> Self {
        Self {
            rules,
            resolver,
            tls,
            idle: Mutex::default(),
        }
    }

    pub(super) const fn rules(&self) -> &AddressRules {
        &self.rules
    }

    /// The addresses of a host, all of which are allowed.
    pub(super) async fn addresses(&self, host: &WebhookHost) -> Result<Vec<IpAddr>, ConnectError> {
        let addresses = match host {
            WebhookHost::Address(address) => vec![*address],
            WebhookHost::Name(name) => {
                let resolved = self.resolver.resolve(name).await;
                resolved.map_err(|e| ConnectError::Unresolved(e.to_string()))?
            }
        };
        if addresses.is_empty() {
            return Err(ConnectError::Unresolved("it has no address".into()));
        }
        for address in &addresses {
            self.rules
                .check(*address)
                .map_err(ConnectError::Forbidden)?;
        }
        Ok(addresses)
    }

    /// Opens a connection.
    pub(super) async fn open(&self, url: &WebhookUrl) -> Result<Sender, ConnectError> {
        let rules = self.rules.check_url(url);
        rules.map_err(|error| match error {
            UnusableUrl::Forbidden(why) => ConnectError::Forbidden(why),
            error => ConnectError::Failed(error.to_string()),
        })?;
        let addresses = self.addresses(url.host()).await?;
        let mut last = ConnectError::Unresolved("it has no address".into());
        for address in addresses.into_iter().take(MAX_ADDRESSES) {
            let address = SocketAddr::new(address, url.port());
            match timeout(ADDRESS_TIMEOUT, self.open_at(address, url)).await {
                Ok(Ok(sender)) => return Ok(sender),
                Ok(Err(error)) => last = error,
                Err(_) => last = ConnectError::Failed(format!("{address} does not answer")),
            }
        }
        Err(last)
    }

    async fn open_at(&self, address: SocketAddr, url: &WebhookUrl) -> Result<Sender, ConnectError> {
        let failed = |error: &dyn std::error::Error| ConnectError::Failed(text_with_sources(error));
        let stream = TcpStream::connect(address).await.map_err(|e| failed(&e))?;
        stream.set_nodelay(true).map_err(|e| failed(&e))?;
        if !url.is_https() {
            return handshake(stream).await;
        }
        let name = match url.host() {
            WebhookHost::Address(address) => ServerName::from(*address),
            WebhookHost::Name(name) => {
                let name = name.trim_end_matches('.').to_owned();
                ServerName::try_from(name).map_err(|e| failed(&e))?
            }
        };
        let stream = self.tls.connect(name, stream).await;
        handshake(stream.map_err(|e| failed(&e))?).await
    }

    fn idle(&self) -> MutexGuard<'_, HashMap<WebhookId, Vec<IdleConnection>>> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes an idle connection to the URL.
    pub(super) fn take_idle(&self, id: WebhookId, url: &WebhookUrl) -> Option<Sender> {
        let mut idle = self.idle();
        let connections = idle.get_mut(&id)?;
        while let Some(connection) = connections.pop() {
            let is_usable = connection.url == *url
                && connection.since.elapsed() < MAX_IDLE
                && connection.sender.is_ready();
            if is_usable {
                return Some(connection.sender);
            }
        }
        None
    }

    /// Keeps a connection for the next delivery.
    pub(super) fn keep(&self, id: WebhookId, url: &WebhookUrl, sender: Sender) {
        let mut idle = self.idle();
        let is_fresh = |connection: &IdleConnection| connection.since.elapsed() < MAX_IDLE;
        idle.retain(|_, connections| {
            connections.retain(is_fresh);
            !connections.is_empty()
        });
        let connections = idle.entry(id).or_default();
        if connections.len() < MAX_IDLE_CONNECTIONS {
            connections.push(IdleConnection {
                url: url.clone(),
                sender,
                since: Instant::now(),
            });
        }
    }
}

async fn handshake<S>(stream: S) -> Result<Sender, ConnectError>
where
    S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    let handshake = Builder::new()
        .max_buf_size(MAX_HEAD)
        .handshake(TokioIo::new(stream))
        .await;
    let (sender, connection) =
        handshake.map_err(|error| ConnectError::Failed(text_with_sources(&error)))?;
    // It ends with the sender. Its errors are also those of the request.
    tokio::spawn(async { drop(connection.await) });
    Ok(sender)
}
