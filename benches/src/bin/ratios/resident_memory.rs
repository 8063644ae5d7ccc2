//! Resident memory of a server: idle, for each connection, and for each lock.

use std::path::Path;
use std::time::Duration;

use keywright_loadtest::population::sandbox_variable;
use keywright_loadtest::server::Server;
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::programs::Programs;
use crate::table::{Row, Target};

const CONNECTIONS: usize = 1000;
const LOCKS: u64 = 200_000;

/// Resident memory in KiB.
fn resident(server: &Server) -> f64 {
    let bytes = server.usage().expect("it is running").resident_bytes;
    #[expect(clippy::cast_precision_loss, reason = "far below 2^52")]
    let kib = bytes as f64 / 1024.0;
    kib
}

fn in_memory(programs: &Programs, locks: u64) -> f64 {
    let (data, locks) = (TempDir::new().expect("a folder"), locks.to_string());
    let arguments = [
        "--store",
        "memory",
        "--shadow",
        "volatile",
        "--virtual-locks",
        "off",
    ];
    let all = [&arguments[..], &["--locks", &locks]].concat();
    let server = programs.start(data.path(), &all);
    std::thread::sleep(Duration::from_secs(1));
    resident(&server)
}

/// The `Authorization` header with the sandbox's token.
pub(crate) fn authorization(data: &Path) -> String {
    let token = sandbox_variable(data, "KEYWRIGHT_TOKEN").expect("the sandbox's");
    format!("Authorization: Bearer {token}")
}

/// The resident memory of an idle server in MiB, and of an idle connection after one answer in KiB.
async fn connection(programs: &Programs) -> (f64, f64) {
    let data = TempDir::new().expect("a folder");
    let server = programs.start(data.path(), &["--virtual-locks", "off"]);
    std::thread::sleep(Duration::from_secs(1));
    let idle = resident(&server);
    let request = format!(
        "GET /locks/123/details HTTP/1.1\r\nHost: keywright\r\n{}\r\n\r\n",
        authorization(data.path())
    );
    let mut open = Vec::new();
    for _ in 0..CONNECTIONS {
        let mut stream = TcpStream::connect(server.address).await.expect("connected");
        stream.write_all(request.as_bytes()).await.expect("sent");
        let mut answer = [0; 2048];
        let read = stream.read(&mut answer).await.expect("answered");
        assert!(
            answer[..read].starts_with(b"HTTP/1.1 200 "),
            "the token is valid"
        );
        open.push(stream);
    }
    #[expect(clippy::cast_precision_loss, reason = "a thousand")]
    let per_connection = (resident(&server) - idle) / CONNECTIONS as f64;
    (idle / 1024.0, per_connection)
}

pub(crate) async fn rows(programs: &Programs) -> Vec<Row> {
    let (idle, connection) = connection(programs).await;
    let (none, many) = (in_memory(programs, 0), in_memory(programs, LOCKS));
    #[expect(clippy::cast_precision_loss, reason = "far below 2^52")]
    let lock = (many - none) * 1024.0 / LOCKS as f64;
    vec![
        Row {
            what: "resident memory, idle".into(),
            measured: format!("{idle:.1} MiB"),
            reference: "a server on one core".into(),
            figure: idle,
            target: Target::AtMost(20.0),
        },
        Row {
            what: "resident memory of a lock in the memory store".into(),
            measured: format!("{lock:.0} B"),
            reference: format!("{LOCKS} locks"),
            figure: lock,
            target: Target::AtMost(400.0),
        },
        Row {
            what: "resident memory of an idle connection".into(),
            measured: format!("{connection:.1} KiB"),
            reference: format!("{CONNECTIONS} connections"),
            figure: connection,
            target: Target::AtMost(16.0),
        },
    ]
}
