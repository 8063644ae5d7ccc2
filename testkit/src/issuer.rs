//! An issuer of tokens that publishes its keys over HTTP, and can be down.
#![expect(
    clippy::missing_panics_doc,
    reason = "a test that has no free port or no randomness fails"
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

/// What it does when it is asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answering {
    /// It answers with the keys that are published.
    Keys,
    /// With a status line's rest, such as `500 Broken`, further headers each with its line end, and a body.
    Other(&'static str, String),
    /// With the keys, so much later.
    Slow(Duration),
    /// It never answers.
    Silent,
    /// It closes the connection.
    Down,
}

struct Shared {
    pairs: Mutex<BTreeMap<String, EcdsaKeyPair>>,
    published: Mutex<Value>,
    answering: Mutex<Answering>,
    asked: AtomicUsize,
    /// The head of the last request.
    head: Mutex<String>,
}

/// The issuer, as long as it is not dropped.
pub struct Issuer {
    address: SocketAddr,
    scheme: &'static str,
    shared: Arc<Shared>,
    _tasks: JoinSet<()>,
}

impl Issuer {
    /// On loopback, over TLS where it has a certificate.
    pub async fn start(tls: Option<ServerConfig>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("an address");
        let shared = Arc::new(Shared {
            pairs: Mutex::default(),
            published: Mutex::new(json!({ "keys": [] })),
            answering: Mutex::new(Answering::Keys),
            asked: AtomicUsize::new(0),
            head: Mutex::default(),
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
                        // A client that does not trust the certificate hangs up.
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

    /// Where the keys are, with this host in it.
    pub fn url_at(&self, host: &str) -> String {
        format!("{}://{host}:{}/jwks.json", self.scheme, self.address.port())
    }

    /// Where the keys are.
    pub fn url(&self) -> String {
        self.url_at("127.0.0.1")
    }

    /// From now on it publishes keys of these names and no others.
    pub fn publish(&self, names: &[&str]) {
        let keys: Vec<Value> = names.iter().map(|name| self.key(name)).collect();
        self.publish_set(json!({ "keys": keys }));
    }

    /// From now on it publishes this.
    pub fn publish_set(&self, set: Value) {
        *lock(&self.shared.published) = set;
    }

    /// From now on it does this.
    pub fn answer(&self, answering: Answering) {
        *lock(&self.shared.answering) = answering;
    }

    /// How often it was asked.
    pub fn asked(&self) -> usize {
        self.shared.asked.load(Ordering::SeqCst)
    }

    /// The request line and the headers of the last request.
    pub fn last_request(&self) -> String {
        lock(&self.shared.head).clone()
    }

    /// The key of that name as it is published.
    pub fn key(&self, name: &str) -> Value {
        let mut pairs = lock(&self.shared.pairs);
        let pair = pairs.entry(name.to_owned()).or_insert_with(new_pair);
        let point = pair.public_key().as_ref();
        json!({
            "kid": name, "kty": "EC", "crv": "P-256", "use": "sig",
            "x": URL_SAFE_NO_PAD.encode(&point[1..33]), "y": URL_SAFE_NO_PAD.encode(&point[33..]),
        })
    }

    /// A token with these claims, signed with the key of that name.
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
    *lock(&shared.head) = String::from_utf8_lossy(&request).into_owned();
    shared.asked.fetch_add(1, Ordering::SeqCst);
    let answering = lock(&shared.answering).clone();
    let (status, body) = match answering {
        Answering::Down => return Ok(()),
        Answering::Silent => std::future::pending().await,
        Answering::Keys => ("200 OK\r\n", lock(&shared.published).to_string()),
        Answering::Slow(time) => {
            tokio::time::sleep(time).await;
            ("200 OK\r\n", lock(&shared.published).to_string())
        }
        Answering::Other(status, body) => (status, body),
    };
    let length = body.len();
    let head = format!("HTTP/1.1 {status}Content-Length: {length}\r\nConnection: close\r\n\r\n");
    stream.write_all(head.as_bytes()).await?;
    stream.write_all(body.as_bytes()).await?;
    stream.shutdown().await
}
