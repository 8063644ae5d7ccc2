//! A million locks with ten million events on SQLite, compared with a thousand locks, and the time from start to the first 200.

use std::fs::File;
use std::io::{BufWriter, Write as _};
use std::path::Path;
use std::time::Duration;

use keywright_loadtest::population::{FIRST_LOCK, Keywright};
use keywright_loadtest::server::Server;
use keywright_loadtest::uniform_load;
use serde_json::json;
use tempfile::TempDir;

use crate::concurrent::{RUNS, now};
use crate::programs::Programs;
use crate::resident_memory::authorization;
use crate::table::{Row, Target, median};
use crate::whole_server::{Figures, measure, token};

const FEW: u64 = 1_000;
const MANY: u64 = 1_000_000;
const EVENTS: u64 = 10;

/// Writes a file with locks of the demo user, each with ten events and four keys.
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

/// A data folder with these locks in SQLite.
fn folder_with_locks(programs: &Programs, locks: u64) -> TempDir {
    let data = TempDir::new().expect("a folder");
    let path = data.path().join("locks.ndjson");
    write_locks(&path, locks).expect("there is disk space");
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
    programs.start(data, &["--virtual-locks", "off", "--shadow", "volatile"])
}

/// Waits until the server has finished its work at start-up.
fn wait_until_idle(server: &Server) {
    let used = || server.usage().expect("it is running").cpu_seconds;
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

async fn under_load(programs: &Programs, data: &Path, locks: u64) -> Figures {
    let server = start(programs, data);
    wait_until_idle(&server);
    measure(&server, &uniform_load::writes(&token(data), locks)).await
}

/// The time from the start of a server to its first 200, in milliseconds.
fn first_answer(programs: &Programs, data: &Path) -> f64 {
    let begin = now();
    let server = start(programs, data);
    let ready = server.wait_for("/locks/123/details", &authorization(data), &[200]);
    ready.expect("it answers");
    begin.elapsed().as_secs_f64() * 1000.0
}

pub(crate) async fn rows(programs: &Programs) -> Vec<Row> {
    let (few, many) = (
        folder_with_locks(programs, FEW),
        folder_with_locks(programs, MANY),
    );
    // The first start creates the sandbox's files.
    drop(start(programs, many.path()));
    let first = (0..RUNS).map(|_| first_answer(programs, many.path()));
    let first = median(first.collect());
    let (mut with_few, mut with_many) = (vec![], vec![]);
    for _ in 0..RUNS {
        with_few.push(under_load(programs, few.path(), FEW).await);
        with_many.push(under_load(programs, many.path(), MANY).await);
    }
    let rate = |all: &[Figures]| Figures::median(all, |f| f.per_second);
    let p99 = |all: &[Figures]| Figures::median(all, |f| f.p99);
    let (fast, slow) = (rate(&with_few), rate(&with_many));
    let (short, long) = (p99(&with_few), p99(&with_many));
    let (few, many) = (
        format!("{FEW} locks"),
        format!("{MANY} locks, {} events", MANY * EVENTS),
    );
    vec![
        Row {
            what: "WriteKey over HTTP on SQLite: a thousand locks beside a million with ten million events".into(),
            measured: format!("{few}: {fast:.0} a second"),
            reference: format!("{many}: {slow:.0}"),
            figure: fast / slow,
            target: Target::AtMost(1.2),
        },
        Row {
            what: "the same: p99 at 64 connections".into(),
            measured: format!("{many}: {long:.0} µs"),
            reference: format!("{few}: {short:.0} µs"),
            figure: long / short,
            target: Target::AtMost(1.2),
        },
        Row {
            what: "from start to the first 200, a million locks with ten million events".into(),
            measured: format!("{first:.0} ms"),
            reference: String::new(),
            figure: first,
            target: Target::AtMost(150.0),
        },
    ]
}
