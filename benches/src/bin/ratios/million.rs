//! A million locks with ten million events on SQLite: beside a thousand locks with as many events each, and from the start
//! of a server to its first 200.

use std::fs::File;
use std::io::{BufWriter, Write as _};
use std::path::Path;
use std::time::Duration;

use keywright_loadtest::load_writes;
use keywright_loadtest::population::{FIRST_LOCK, Keywright};
use keywright_loadtest::server::Server;
use serde_json::json;
use tempfile::TempDir;

use crate::many::{RUNS, now};
use crate::memory::authorization;
use crate::whole::{Figures, SERVER_CORE, measure, token};
use crate::{Programs, Row, Target, median};

const FEW: u64 = 1_000;
const MANY: u64 = 1_000_000;
const EVENTS: u64 = 10;

/// So many locks of the sandbox's user, each with ten events and four keys.
fn write_locks(path: &Path, locks: u64) -> std::io::Result<()> {
    let mut file = BufWriter::new(File::create(path)?);
    for lock in FIRST_LOCK..FIRST_LOCK + locks {
        let uuid = format!("bench-{lock}");
        let mut event = |name: &str, member: &str, value: &str| {
            let mut data =
                json!({ "lockId": lock, "uuid": uuid, "timestamp": "2026-01-01T00:00:00.000Z" });
            data[member] = value.into();
            if name == "LockCreated" {
                data["thingName"] = format!("demo-lock-{lock}").into();
            }
            writeln!(file, "{}", json!({ "type": name, "data": data }))
        };
        event("LockCreated", "ownerId", "demo-user")?;
        event("OrganizationSet", "orgId", "bench")?;
        for key in 0..6 {
            event(
                "KeyAdded",
                "keyUuid",
                &format!("9b2e8f4a-1c3d-4e5f-8a9b-0c1d2e3f4a5{key}"),
            )?;
        }
        for key in 0..2 {
            event(
                "KeyRemoved",
                "keyUuid",
                &format!("9b2e8f4a-1c3d-4e5f-8a9b-0c1d2e3f4a5{key}"),
            )?;
        }
    }
    file.flush()
}

/// A folder with so many locks on SQLite.
fn folder_of(programs: &Programs, locks: u64) -> TempDir {
    let data = TempDir::new().expect("a folder");
    let path = data.path().join("locks.ndjson");
    write_locks(&path, locks).expect("there is room");
    let keywright = Keywright {
        binary: &programs.keywright(),
        data: data.path(),
        store: None,
    };
    keywright.import(&path).expect("imported");
    std::fs::remove_file(&path).expect("removed");
    data
}

fn start(programs: &Programs, data: &Path) -> Server {
    let arguments = ["--virtual-locks", "off", "--shadow", "volatile"];
    Server::start(&programs.keywright(), data, SERVER_CORE, &arguments).expect("it starts")
}

/// Waits until it has read its file, which it does once at its start.
fn wait_until_idle(server: &Server) {
    let used = || server.cpu_seconds().expect("it runs");
    let mut before = used();
    loop {
        std::thread::sleep(Duration::from_millis(500));
        let now = used();
        if now - before < 0.05 {
            return;
        }
        before = now;
    }
}

async fn pressed(programs: &Programs, data: &Path, locks: u64) -> Figures {
    let server = start(programs, data);
    wait_until_idle(&server);
    measure(&server, &load_writes::writes(&token(data), locks)).await
}

/// Milliseconds from the start of a server to its first 200.
fn first_answer(programs: &Programs, data: &Path) -> f64 {
    let begun = now();
    let server = start(programs, data);
    let ready = server.wait_for("/locks/123/details", &authorization(data), &[200]);
    ready.expect("it answers");
    begun.elapsed().as_secs_f64() * 1000.0
}

pub(crate) async fn rows(programs: &Programs) -> Vec<Row> {
    let (few, many) = (folder_of(programs, FEW), folder_of(programs, MANY));
    // Once, so that the sandbox's own files are there.
    drop(start(programs, many.path()));
    let first = (0..RUNS).map(|_| first_answer(programs, many.path()));
    let first = median(first.collect());
    let (mut of_few, mut of_many) = (vec![], vec![]);
    for _ in 0..RUNS {
        of_few.push(pressed(programs, few.path(), FEW).await);
        of_many.push(pressed(programs, many.path(), MANY).await);
    }
    let rate = |all: &[Figures]| Figures::median(all, |f| f.a_second);
    let p99 = |all: &[Figures]| Figures::median(all, |f| f.p99);
    let (fast, slow) = (rate(&of_few), rate(&of_many));
    let (short, long) = (p99(&of_few), p99(&of_many));
    let (few, many) = (
        format!("{FEW} locks"),
        format!("{MANY} locks, {} events", MANY * EVENTS),
    );
    vec![
        Row {
            what: "WriteKey over HTTP on SQLite: a thousand locks beside a million with ten million events".into(),
            measured: format!("{few}: {fast:.0} a second"),
            beside: format!("{many}: {slow:.0}"),
            figure: fast / slow,
            target: Target::AtMost(1.2),
        },
        Row {
            what: "the same: p99 at 64 connections".into(),
            measured: format!("{many}: {long:.0} µs"),
            beside: format!("{few}: {short:.0} µs"),
            figure: long / short,
            target: Target::AtMost(1.2),
        },
        Row {
            what: "from start to the first 200, a million locks with ten million events".into(),
            measured: format!("{first:.0} ms"),
            beside: String::new(),
            figure: first,
            target: Target::AtMost(150.0),
        },
    ]
}
