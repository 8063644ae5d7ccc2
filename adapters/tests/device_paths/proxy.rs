//! A way over TCP that can be disturbed.

use std::net::SocketAddr;

use keywright_testkit::shadow_trouble::Trouble;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;

use crate::Shared;

/// Passes connections on to `server`; what comes back meets the trouble of the moment. Over MQTT, where answers
/// are disturbed one by one elsewhere, only connections are cut, by an answer that comes.
pub(crate) async fn start(
    server: SocketAddr,
    trouble: Shared,
    answers: Answers,
) -> (SocketAddr, JoinSet<()>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("an address");
    let mut tasks = JoinSet::new();
    tasks.spawn(async move {
        let mut connections = JoinSet::new();
        loop {
            let (client, _) = listener.accept().await.expect("a connection");
            connections.spawn(pass(client, server, trouble.clone(), answers));
        }
    });
    (address, tasks)
}

/// What an answer is on this way.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Answers {
    /// Whatever the server sends.
    Http,
    /// What names a topic of answers.
    Mqtt,
}

async fn pass(client: TcpStream, server: SocketAddr, trouble: Shared, answers: Answers) {
    // Nobody may be there.
    let Ok(server) = TcpStream::connect(server).await else {
        return;
    };
    for side in [&client, &server] {
        side.set_nodelay(true).expect("set");
    }
    let (mut from_client, mut to_client) = client.into_split();
    let (mut from_server, mut to_server) = server.into_split();
    let requests = tokio::io::copy(&mut from_client, &mut to_server);
    let backwards = async {
        let mut buffer = vec![0; 64 * 1024];
        loop {
            let count = match from_server.read(&mut buffer).await {
                Ok(count) if count > 0 => count,
                _ => return,
            };
            let bytes = &buffer[..count];
            let now = *trouble.lock().expect("no panic");
            let is_answer = answers == Answers::Http || bytes.windows(9).any(|w| w == b"/accepted");
            match now {
                Trouble::Cut if is_answer => return,
                Trouble::AnswersLost if answers == Answers::Http => continue,
                Trouble::AnswersLate(span) if answers == Answers::Http => {
                    tokio::time::sleep(span).await;
                }
                _ => {}
            }
            if to_client.write_all(bytes).await.is_err() {
                return;
            }
        }
    };
    tokio::select! {
        _ = requests => {}
        () = backwards => {}
    }
}
