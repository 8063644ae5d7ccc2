//! WriteKey on the durable default, compared with naive services for the same requests: Fastify on better-sqlite3, and axum on rusqlite.

use std::fs::File;
use std::io::{BufWriter, Write as _};
use std::path::Path;

use jsonwebtoken::{EncodingKey, Header, encode};
use keywright_loadtest::population::{FIRST_LOCK, Keywright};
use keywright_loadtest::server::Server;
use keywright_loadtest::uniform_load;
use serde_json::json;
use tempfile::TempDir;

use crate::concurrent::RUNS;
use crate::programs::{Programs, SERVER_CORE};
use crate::table::{Row, Target};
use crate::whole_server::{Figures, measure_at};

const LOCKS: u64 = 20_000;
const SECRET: &str = "the shared secret of the bench and its servers";

/// The issuer and the audience of the token.
const ISSUER: &str = "bench";

/// A service under measurement.
#[derive(Clone, Copy)]
enum Service {
    Keywright,
    Fastify,
    Axum,
}

const FASTIFY: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/peers/fastify/server.mjs");

impl Service {
    fn start(self, programs: &Programs, folder: &Path) -> Server {
        let secret = folder.join("secret");
        std::fs::write(&secret, SECRET).expect("written");
        let secret = secret.to_str().expect("a path");
        let (database, locks) = (folder.join("peer.sqlite"), LOCKS.to_string());
        let peer = [database.to_str().expect("a path"), secret, &locks];
        let started = match self {
            Self::Keywright => return start_keywright(programs, folder, secret),
            Self::Fastify => {
                let [database, secret, locks] = peer;
                let arguments = [FASTIFY, database, secret, locks];
                Server::start_program(Path::new("node"), SERVER_CORE, &arguments)
            }
            Self::Axum => Server::start_program(&programs.axum_peer(), SERVER_CORE, &peer),
        };
        started.expect("it starts")
    }
}

/// A server without the sandbox, because the sandbox accepts only its own tokens.
fn start_keywright(programs: &Programs, folder: &Path, secret: &str) -> Server {
    let path = folder.join("locks.ndjson");
    write_locks(&path).expect("there is disk space");
    let keywright = Keywright {
        binary: &programs.keywright(),
        data: folder,
        store: None,
    };
    keywright.import(&path).expect("imported");
    let mut arguments = vec![
        "--sandbox",
        "off",
        "--store",
        "sqlite",
        "--shadow",
        "volatile",
    ];
    arguments.extend(["--token-key", secret, "--token-algorithm", "HS256"]);
    arguments.extend(["--token-issuer", ISSUER, "--token-audience", ISSUER]);
    programs.start(folder, &arguments)
}

/// Writes a file with locks of the demo user, as the peers have them.
fn write_locks(path: &Path) -> std::io::Result<()> {
    let mut file = BufWriter::new(File::create(path)?);
    for lock in FIRST_LOCK..FIRST_LOCK + LOCKS {
        for (name, member, value) in [
            ("LockCreated", "ownerId", "demo-user"),
            ("OrganizationSet", "orgId", "demo-org"),
        ] {
            let mut data = json!({
                "lockId": lock, "uuid": format!("6f0c2a9e-0d5e-4e0b-9a55-{lock:012}"),
                "timestamp": "2026-01-01T00:00:00.000Z",
            });
            data[member] = value.into();
            if name == "LockCreated" {
                data["thingName"] = format!("lock-{lock}").into();
                data["keyCapacity"] = 100.into();
            }
            writeln!(file, "{}", json!({ "type": name, "data": data }))?;
        }
    }
    file.flush()
}

fn token() -> String {
    let claims =
        json!({ "iss": ISSUER, "aud": ISSUER, "sub": "demo-user", "exp": 4_000_000_000_u64 });
    let key = EncodingKey::from_secret(SECRET.as_bytes());
    encode(&Header::default(), &claims, &key).expect("a token")
}

/// One period of load with many connections, and one with few, on a new server.
async fn measure(programs: &Programs, service: Service) -> [Figures; 2] {
    let folder = TempDir::new().expect("a folder");
    let server = service.start(programs, folder.path());
    let factory = uniform_load::writes(&token(), LOCKS);
    [
        measure_at(&server, &factory, CONNECTIONS[0]).await,
        measure_at(&server, &factory, CONNECTIONS[1]).await,
    ]
}

const CONNECTIONS: [usize; 2] = [64, 8];

pub(crate) async fn rows(programs: &Programs) -> Vec<Row> {
    let (mut keywright, mut fastify, mut axum) = (vec![], vec![], vec![]);
    for _ in 0..RUNS {
        keywright.push(measure(programs, Service::Keywright).await);
        fastify.push(measure(programs, Service::Fastify).await);
        axum.push(measure(programs, Service::Axum).await);
    }
    let peers = [
        (
            "Fastify",
            &fastify,
            [Target::AtLeast(8.0), Target::AtLeast(4.0)],
        ),
        ("axum", &axum, [Target::AtLeast(3.0), Target::None]),
    ];
    let mut rows = Vec::new();
    for (name, peer, targets) in peers {
        for (n, target) in targets.into_iter().enumerate() {
            let of = |all: &[[Figures; 2]]| all.iter().map(|run| run[n]).collect::<Vec<_>>();
            let (ours, theirs) = (of(&keywright), of(peer));
            rows.push(Row {
                what: format!(
                    "WriteKey on SQLite, durable, {} connections",
                    CONNECTIONS[n]
                ),
                measured: text(&ours),
                reference: format!("naive {name} {}", text(&theirs)),
                figure: rate(&ours) / rate(&theirs),
                target,
            });
        }
    }
    rows
}

fn rate(all: &[Figures]) -> f64 {
    Figures::median(all, |figures| figures.per_second)
}

fn text(all: &[Figures]) -> String {
    let millis = |part: fn(&Figures) -> f64| Figures::median(all, part) / 1e3;
    let (p50, p99) = (millis(|f| f.p50), millis(|f| f.p99));
    format!("{:.0}/s, p50 {p50:.1} ms, p99 {p99:.1} ms", rate(all))
}
