//! An issuer of tokens that publishes its keys over HTTP or HTTPS, with faults that a test controls.
#![expect(
    clippy::missing_panics_doc,
    reason = "a test without a free port or without randomness fails"
)]

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::{Algorithm, EncodingKey, Header, encode};
use serde_json::{Value, json};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio::task::JoinSet;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::ServerConfig;

/// How the issuer answers requests for its keys.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum IssuerResponse {
    /// With the published keys.
    Keys,
    /// With this status, headers and body. The first text is the rest of the status line, such as `500 Broken`, followed by
    /// headers; each line ends with `\r\n`.
    Custom(&'static str, String),
    /// With the published keys, after this time.
    Delayed(Duration),
    /// Not at all: the connection stays open.
    Silent,
    /// Not at all: the connection is closed.
    Disconnect,
}

struct Shared {
    pairs: Mutex<BTreeMap<String, EcdsaKeyPair>>,
    published: Mutex<Value>,
    response: Mutex<IssuerResponse>,
    request_count: AtomicUsize,
    /// The request line and the headers of the last request.
    last_request: Mutex<String>,
}

/// A running issuer. Dropping it stops it.
pub struct Issuer {
    address: SocketAddr,
    scheme: &'static str,
    shared: Arc<Shared>,
    _tasks: JoinSet<()>,
}

impl Issuer {
    /// Starts an issuer without keys on a free port of loopback, over HTTPS if `tls` is given.
    pub async fn start(tls: Option<ServerConfig>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("an address");
        let shared = Arc::new(Shared {
            pairs: Mutex::default(),
            published: Mutex::new(json!({ "keys": [] })),
            response: Mutex::new(IssuerResponse::Keys),
            request_count: AtomicUsize::new(0),
            last_request: Mutex::default(),
        });
        let scheme = if tls.is_some() { "https" } else { "http" };
        let acceptor = tls.map(|config| TlsAcceptor::from(Arc::new(config)));
        let (serving, mut tasks) = (shared.clone(), JoinSet::new());
        tasks.spawn(async move {
            let mut connections = JoinSet::new();
            while let Ok((stream, _)) = listener.accept().await {
                let (serving, acceptor) = (serving.clone(), acceptor.clone());
                connections.spawn(async move {
                    match acceptor {
                        None => serve(stream, &serving).await,
                        // A client that does not trust the certificate closes the connection.
                        Some(acceptor) => match acceptor.accept(stream).await {
                            Ok(stream) => serve(stream, &serving).await,
                            Err(_) => Ok(()),
                        },
                    }
                });
            }
        });
        Self {
            address,
            scheme,
            shared,
            _tasks: tasks,
        }
    }

    /// The URL of the keys, with this host name.
    pub fn url_at(&self, host: &str) -> String {
        format!("{}://{host}:{}/jwks.json", self.scheme, self.address.port())
    }

    /// The URL of the keys, with the address of loopback.
    pub fn url(&self) -> String {
        self.url_at("127.0.0.1")
    }

    /// Publishes the ES256 keys with these ids from now on, and no others. A key that does not exist yet is generated.
    pub fn publish(&self, names: &[&str]) {
        let keys: Vec<Value> = names.iter().map(|name| self.key(name)).collect();
        self.publish_set(json!({ "keys": keys }));
    }

    /// Publishes this JSON value instead of a set of keys from now on.
    pub fn publish_set(&self, set: Value) {
        *lock(&self.shared.published) = set;
    }

    /// Answers requests in this way from now on.
    pub fn respond_with(&self, response: IssuerResponse) {
        *lock(&self.shared.response) = response;
    }

    /// The number of requests so far.
    pub fn request_count(&self) -> usize {
        self.shared.request_count.load(Ordering::SeqCst)
    }

    /// The request line and the headers of the last request. Empty: there was none.
    pub fn last_request(&self) -> String {
        lock(&self.shared.last_request).clone()
    }

    /// The public key with this id as a JWK. A key that does not exist yet is generated.
    pub fn key(&self, name: &str) -> Value {
        let mut pairs = lock(&self.shared.pairs);
        let pair = pairs.entry(name.to_owned()).or_insert_with(new_pair);
        let point = pair.public_key().as_ref();
        json!({
            "kid": name, "kty": "EC", "crv": "P-256", "use": "sig",
            "x": URL_SAFE_NO_PAD.encode(&point[1..33]), "y": URL_SAFE_NO_PAD.encode(&point[33..]),
        })
    }

    /// A token with these claims, signed (ES256) with the key with this id. A key that does not exist yet is generated.
    pub fn token(&self, name: &str, claims: &Value) -> String {
        let mut pairs = lock(&self.shared.pairs);
        let pair = pairs.entry(name.to_owned()).or_insert_with(new_pair);
        let key = pair.to_pkcs8v1().expect("a key");
        let header = Header {
            kid: Some(name.to_owned()),
            ..Header::new(Algorithm::ES256)
        };
        encode(&header, claims, &EncodingKey::from_ec_der(key.as_ref())).expect("a token")
    }
}

fn new_pair() -> EcdsaKeyPair {
    EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING).expect("a key pair")
}

fn lock<T>(shared: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    shared.lock().unwrap_or_else(PoisonError::into_inner)
}

async fn serve(
    mut stream: impl AsyncRead + AsyncWrite + Unpin,
    shared: &Shared,
) -> std::io::Result<()> {
    let mut request = Vec::new();
    while !request.ends_with(b"\r\n\r\n") {
        if stream.read_buf(&mut request).await? == 0 {
            return Ok(());
        }
    }
    *lock(&shared.last_request) = String::from_utf8_lossy(&request).into_owned();
    shared.request_count.fetch_add(1, Ordering::SeqCst);
    let response = lock(&shared.response).clone();
    let (status, body) = match response {
        IssuerResponse::Disconnect => return Ok(()),
        IssuerResponse::Silent => std::future::pending().await,
        IssuerResponse::Keys => ("200 OK\r\n", lock(&shared.published).to_string()),
        IssuerResponse::Delayed(time) => {
            tokio::time::sleep(time).await;
            ("200 OK\r\n", lock(&shared.published).to_string())
        }
        IssuerResponse::Custom(status, body) => (status, body),
    };
    let length = body.len();
    let head = format!("HTTP/1.1 {status}Content-Length: {length}\r\nConnection: close\r\n\r\n");
    stream.write_all(head.as_bytes()).await?;
    stream.write_all(body.as_bytes()).await?;
    stream.shutdown().await
}
