//! A service that embeds the domain: access rules and a message bus of its own, background tasks, and an orderly shutdown.
//!
//! `cargo run --package keywright-examples --example embed -- FOLDER BUS` reads lines such as `alice 123 key-1 2` (who, lock, key, slot). It
//! publishes all events to the TCP address BUS, which sends each line back to acknowledge it, as `ncat -lk 7000 -e /bin/cat` does.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use async_trait::async_trait;
use keywright_adapters::decorator::{Observed, Observer};
use keywright_adapters::json::{EventData, read_event};
use keywright_adapters::lock_repo::SqliteLockRepo;
use keywright_adapters::shadow::InMemoryShadow;
use keywright_adapters::time::{SystemClock, SystemIds, TokioTimer};
use keywright_domain::model::*;
use keywright_domain::policy::WriteKey;
use keywright_domain::ports::{LockHistory, LockRepo};
use keywright_domain::{KeyWrites, Ports, RequestOptions, Settings};
use keywright_runner::{EventHint, EventPublisher, PublishError as Error, Runner};
use serde_json::json;
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};

#[tokio::main]
async fn main() -> Result<(), Error> {
    let [_, folder, bus] = &std::env::args().collect::<Vec<_>>()[..] else {
        return Err("usage: embed FOLDER BUS".into());
    };
    serve(Path::new(folder), bus.clone()).await
}

/// Serves the commands on standard input until it ends, or until Ctrl-C. Locks are kept in the folder, which must exist.
pub(crate) async fn serve(folder: &Path, bus: String) -> Result<(), Error> {
    let (timer, hint) = (Arc::new(TokioTimer::default()), EventHint::default());
    let store = SqliteLockRepo::open(&folder.join("locks.sqlite"), timer.clone())?;
    let store = Arc::new(store);
    let shadow = Arc::new(InMemoryShadow::of_this_process());
    let saves = hint.clone();
    let hinting: Arc<dyn Observer> = Arc::new(move |_: &Save| saves.notify());
    let locks = Observed::<dyn LockRepo>::new(store.clone(), [hinting].into());
    let ports = Ports {
        locks: Arc::new(locks),
        history: store.clone(),
        shadow: shadow.clone(),
        clock: Arc::new(SystemClock),
        timer,
        ids: Arc::new(SystemIds),
    };
    if store.locks(None, 1).await?.is_empty() {
        let door = json!({ "lockId": 123, "uuid": "6f0c2a9e-0d5e-4e0b-9a55-0f6f3c0c7a11",
            "timestamp": "2026-05-29T12:00:00Z", "thingName": "front-door" });
        let created = read_event("LockCreated", LockVersion(1), None, &door)?;
        store.import(vec![created]).await?;
    }
    // Only the staff may write keys, to all locks. The domain asks this function for every use case.
    let access = |caller: &Principal, _: &Lock| {
        let is_staff =
            |who: &Identity| matches!(who, Identity::Subject(s) if s.as_str() == "alice");
        caller.identities().any(is_staff)
    };
    let writes = KeyWrites::with_access(ports, Settings::default(), Arc::new(access));
    let (writes, published) = (Arc::new(writes?), folder.join("published"));
    let tasks = Runner::new(writes.clone(), |task| drop(tokio::spawn(task)))
        .observer(|event| eprintln!("{event}"))
        .publish_events(Bus { bus, published }, hint)
        .start(vec![Arc::new(shadow.reports())]);
    let (commands, mut received) = tokio::sync::mpsc::channel(8);
    std::thread::spawn(move || {
        let mut lines = std::io::stdin().lines().map_while(Result::ok);
        lines.try_for_each(|line| commands.blocking_send(line))
    });
    let mut requests = tokio::task::JoinSet::new();
    loop {
        tokio::select! {
            command = received.recv() => match command {
                Some(command) => drop(requests.spawn(write_key(writes.clone(), command))),
                None => break,
            },
            Some(_) = requests.join_next() => {}
            _ = tokio::signal::ctrl_c() => break,
            task = tasks.failure() => return Err(format!("{task} has ended").into()),
        }
    }
    while requests.join_next().await.is_some() {}
    tasks.stop().await;
    Ok(())
}

/// A real service would authenticate its caller first.
async fn write_key(writes: Arc<KeyWrites>, command: String) {
    let written = async {
        let words: Vec<&str> = command.split(' ').collect();
        let [caller, lock, key, index] = words[..] else {
            return Err("expected: CALLER LOCK KEY SLOT".into());
        };
        let (key, index) = (KeyUuid::new(key)?, Some(KeyIndex::new(index.parse()?)?));
        let (lock, slot) = (LockId::new(lock.parse()?)?, KeySlot { key, index });
        let caller = Principal::of(Identity::Subject(SubjectId::new(caller)?));
        let (write, options) = (WriteKey { lock, slot }, RequestOptions::default());
        Ok::<_, Error>(writes.write_key(&write, &caller, options).await?.write)
    };
    match written.await {
        Ok(write) => println!("{command}: sent as {write}"),
        Err(error) => println!("{command}: {error}"),
    }
}

/// Publishes events as lines of JSON, and keeps the position of the last one in a file.
struct Bus {
    bus: String,
    published: PathBuf,
}

#[async_trait]
impl EventPublisher for Bus {
    async fn position(&self) -> Result<Position, Error> {
        if !self.published.exists() {
            return Ok(Position::START);
        }
        Ok(Position(std::fs::read_to_string(&self.published)?.parse()?))
    }

    async fn publish(&self, events: &[LoggedEvent]) -> Result<(), Error> {
        let mut bus = BufReader::new(tokio::net::TcpStream::connect(&self.bus).await?);
        for LoggedEvent { event, .. } in events {
            let (version, name, data) = (event.version.0, event.event.name(), EventData(event));
            let line = json!({ "version": version, "type": name, "data": data }).to_string() + "\n";
            bus.write_all(line.as_bytes()).await?;
            let mut acknowledgement = String::new();
            bus.read_line(&mut acknowledgement).await?;
            if acknowledgement != line {
                return Err("the bus has not acknowledged an event".into());
            }
        }
        let position = events.last().map_or(Position::START, |last| last.position);
        // A rename is atomic, so a crash leaves the old position or the new one.
        let new = self.published.with_extension("new");
        let mut file = std::fs::File::create(&new)?;
        write!(file, "{}", position.0)?;
        file.sync_all()?;
        std::fs::rename(&new, &self.published)?;
        Ok(())
    }
}
