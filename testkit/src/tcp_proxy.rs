//! A way over TCP that can be disturbed.
#![expect(
    clippy::missing_panics_doc,
    reason = "a test that has no free port fails"
)]

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;

/// What happens to bytes that come along.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Passage {
    /// They pass.
    Clear,
    /// They pass so much later, and what is behind them waits.
    Late(Duration),
    /// They are lost, and nobody is told.
    Lost,
    /// They are lost, and all that comes behind them waits for ever.
    Stuck,
    /// The connection breaks.
    Cut,
}

/// Which way bytes go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Heading {
    /// From the client to the server.
    ToServer,
    /// From the server to the client.
    ToClient,
}

/// Passes connections on to a server, as long as it is not dropped.
pub struct TcpProxy {
    /// Where it listens, on loopback.
    pub address: SocketAddr,
    _tasks: JoinSet<()>,
}

type Rule = Arc<dyn Fn(Heading, &[u8]) -> Passage + Send + Sync>;

impl TcpProxy {
    /// `rule` says of each piece that comes along what happens to it.
    pub async fn start(
        server: SocketAddr,
        rule: impl Fn(Heading, &[u8]) -> Passage + Send + Sync + 'static,
    ) -> Self {
        Self::start_to(move || server, rule).await
    }

    /// As [`start`](Self::start), to the server that `choose` names for each new connection.
    pub async fn start_to(
        choose: impl Fn() -> SocketAddr + Send + Sync + 'static,
        rule: impl Fn(Heading, &[u8]) -> Passage + Send + Sync + 'static,
    ) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("an address");
        let (mut tasks, rule) = (JoinSet::new(), Arc::new(rule) as Rule);
        tasks.spawn(async move {
            let mut connections = JoinSet::new();
            while let Ok((client, _)) = listener.accept().await {
                connections.spawn(pass_both_ways(client, choose(), rule.clone()));
                while connections.try_join_next().is_some() {}
            }
        });
        Self {
            address,
            _tasks: tasks,
        }
    }
}

async fn pass_both_ways(client: TcpStream, server: SocketAddr, rule: Rule) {
    // Nobody may be there.
    let Ok(server) = TcpStream::connect(server).await else {
        return;
    };
    for side in [&client, &server] {
        side.set_nodelay(true).expect("a socket takes it");
    }
    let (from_client, to_client) = client.into_split();
    let (from_server, to_server) = server.into_split();
    tokio::select! {
        () = pass(Heading::ToServer, from_client, to_server, &rule) => {}
        () = pass(Heading::ToClient, from_server, to_client, &rule) => {}
    }
}

/// Until one side ends, or is cut off.
async fn pass(
    heading: Heading,
    mut from: impl AsyncReadExt + Unpin,
    mut to: impl AsyncWriteExt + Unpin,
    rule: &Rule,
) {
    let mut buffer = vec![0; 64 * 1024];
    while let Ok(count @ 1..) = from.read(&mut buffer).await {
        let bytes = &buffer[..count];
        match rule(heading, bytes) {
            Passage::Clear => {}
            Passage::Late(span) => tokio::time::sleep(span).await,
            Passage::Lost => continue,
            Passage::Stuck => std::future::pending().await,
            Passage::Cut => return,
        }
        if to.write_all(bytes).await.is_err() {
            return;
        }
    }
}
