//! A TCP proxy with faults that a test controls.
#![expect(
    clippy::missing_panics_doc,
    reason = "a test without a free port fails"
)]

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Mutex, watch};
use tokio::task::JoinSet;

/// What the proxy does with the bytes of one read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Forwarding {
    /// Forward them.
    Pass,
    /// Forward them after this time. Later bytes in the same direction wait for them.
    Delay(Duration),
    /// Drop them silently.
    Drop,
    /// Drop them, and forward nothing more in this direction. The connection stays open.
    Stall,
    /// Close the connection.
    Disconnect,
    /// Forward the first half of them, and close the connection.
    Tear,
    /// Drop them, and send this text to the client.
    Answer(&'static str),
}

/// The direction of bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    /// From the client to the server.
    ToServer,
    /// From the server to the client.
    ToClient,
}

/// A running proxy on loopback. Dropping it closes its connections and stops it.
pub struct TcpProxy {
    /// The address on which it listens.
    pub address: SocketAddr,
    refusal: Refusal,
    _tasks: JoinSet<()>,
}

type Rule = Arc<dyn Fn(Direction, &[u8]) -> Forwarding + Send + Sync>;

impl TcpProxy {
    /// Starts a proxy to `server`. `rule` is called for the bytes of each read, at most 64 KiB, and decides about them.
    pub async fn start(
        server: SocketAddr,
        rule: impl Fn(Direction, &[u8]) -> Forwarding + Send + Sync + 'static,
    ) -> Self {
        Self::start_to(move || server, rule).await
    }

    /// Starts a proxy as [`start`](Self::start) does, to the server that `choose` returns for each new connection.
    pub async fn start_to(
        choose: impl Fn() -> SocketAddr + Send + Sync + 'static,
        rule: impl Fn(Direction, &[u8]) -> Forwarding + Send + Sync + 'static,
    ) -> Self {
        let mut listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("an address");
        let (mut tasks, rule) = (JoinSet::new(), Arc::new(rule) as Rule);
        let (wanted, mut refused) = watch::channel(false);
        let (reached, state) = watch::channel(false);
        tasks.spawn(async move {
            loop {
                let mut connections = JoinSet::new();
                let accepting = async {
                    while let Ok((client, _)) = listener.accept().await {
                        connections.spawn(forward_connection(client, choose(), rule.clone()));
                        while connections.try_join_next().is_some() {}
                    }
                };
                tokio::select! {
                    () = accepting => return,
                    _ = refused.wait_for(|refused| *refused) => {}
                }
                drop(listener);
                connections.shutdown().await;
                reached.send_replace(true);
                if refused.wait_for(|refused| !*refused).await.is_err() {
                    return;
                }
                listener = TcpListener::bind(address).await.expect("the same port");
                reached.send_replace(false);
            }
        });
        Self {
            address,
            refusal: Refusal { wanted, state },
            _tasks: tasks,
        }
    }

    /// A handle that makes the proxy refuse connections.
    pub fn refusal(&self) -> Refusal {
        self.refusal.clone()
    }
}

/// Makes a [`TcpProxy`] refuse connections, or accept them again.
#[derive(Clone)]
pub struct Refusal {
    /// Whether connections are to be refused.
    wanted: watch::Sender<bool>,
    /// Whether they are refused.
    state: watch::Receiver<bool>,
}

impl Refusal {
    /// Returns when connections are refused and all open ones are closed (`true`), or when they are accepted (`false`).
    pub async fn set(&self, refused: bool) {
        self.wanted.send_replace(refused);
        let mut state = self.state.clone();
        let reached = state.wait_for(|state| *state == refused).await;
        reached.expect("the proxy is running");
    }
}

async fn forward_connection(client: TcpStream, server: SocketAddr, rule: Rule) {
    // If the server does not listen, the client's connection is closed.
    let Ok(server) = TcpStream::connect(server).await else {
        return;
    };
    for side in [&client, &server] {
        side.set_nodelay(true)
            .expect("the socket has the option TCP_NODELAY");
    }
    let (from_client, to_client) = client.into_split();
    let (from_server, to_server) = server.into_split();
    let (to_client, to_server) = (Mutex::new(to_client), Mutex::new(to_server));
    tokio::select! {
        () = forward(Direction::ToServer, from_client, &to_server, &to_client, &rule) => {}
        () = forward(Direction::ToClient, from_server, &to_client, &to_client, &rule) => {}
    }
}

/// Forwards bytes in one direction until one side closes the connection, or the rule does.
async fn forward(
    direction: Direction,
    mut from: OwnedReadHalf,
    to: &Mutex<OwnedWriteHalf>,
    to_client: &Mutex<OwnedWriteHalf>,
    rule: &Rule,
) {
    let mut buffer = vec![0; 64 * 1024];
    while let Ok(count @ 1..) = from.read(&mut buffer).await {
        let bytes = &buffer[..count];
        match rule(direction, bytes) {
            Forwarding::Pass => {}
            Forwarding::Delay(span) => tokio::time::sleep(span).await,
            Forwarding::Drop => continue,
            Forwarding::Stall => std::future::pending().await,
            Forwarding::Disconnect => return,
            Forwarding::Tear => {
                let _ = to.lock().await.write_all(&bytes[..count / 2]).await;
                return;
            }
            Forwarding::Answer(text) => {
                if to_client
                    .lock()
                    .await
                    .write_all(text.as_bytes())
                    .await
                    .is_err()
                {
                    return;
                }
                continue;
            }
        }
        if to.lock().await.write_all(bytes).await.is_err() {
            return;
        }
    }
}
