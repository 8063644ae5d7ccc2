//! What must be true when all is over: each 200 has its event, and each key that was confirmed is in its lock.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;

use serde_json::Value;

use crate::own_client::OwnClient;
use crate::population::Population;
use crate::recorder::{Accepted, Record};
use crate::session::{Ask, Caller, Credential};

/// How many faults are shown.
const MOST_SHOWN: usize = 20;

/// How often a page is asked for before the check is given up.
const TRIES: u32 = 50;

/// What was found.
#[derive(Clone, Debug, Default)]
pub struct Checked {
    /// Writes that were answered 200 and looked for.
    pub writes: usize,
    /// Those that were confirmed.
    pub confirmed: usize,
    /// What is missing, in words: twenty at most.
    pub missing: Vec<String>,
    /// How much is missing.
    pub missing_count: u64,
}

/// Reads the events of each lock that was written to.
///
/// # Errors
/// The service does not answer any more.
pub async fn check(
    server: SocketAddr,
    population: &Population,
    record: &Record,
) -> Result<Checked, String> {
    let mut checked = Checked::default();
    let by_lock = |writes: &[Accepted]| {
        let mut locks: BTreeMap<u64, Vec<Accepted>> = BTreeMap::new();
        for write in writes {
            locks.entry(write.place).or_default().push(write.clone());
        }
        locks
    };
    let mut confirmed = by_lock(&record.succeeded);
    let mut client = OwnClient::new(server);
    for (place, accepted) in by_lock(&record.accepted) {
        let stream = events(&mut client, population, place).await?;
        let lock = population.first_lock + place;
        for write in accepted {
            checked.writes += 1;
            // A key is written once, so that its 200 has recorded it, now or under the same Idempotency-Key before.
            let has_event = match write.version {
                Some(version) => stream.requested.get(&version) == Some(&write.key),
                None => false,
            };
            if !has_event {
                checked.miss(format!(
                    "lock {lock}: {} was answered 200 and has no event",
                    write.key
                ));
            }
        }
        for write in confirmed.remove(&place).unwrap_or_default() {
            checked.confirmed += 1;
            if !stream.confirmed.contains(&write.key) {
                checked.miss(format!(
                    "lock {lock}: {} is confirmed and not in the lock",
                    write.key
                ));
            }
        }
    }
    Ok(checked)
}

impl Checked {
    fn miss(&mut self, what: String) {
        self.missing_count += 1;
        if self.missing.len() < MOST_SHOWN {
            self.missing.push(what);
        }
    }
}

#[derive(Default)]
struct Stream {
    /// The keys of `KeyWriteRequested`, by their versions.
    requested: BTreeMap<u64, String>,
    confirmed: BTreeSet<String>,
}

async fn events(
    client: &mut OwnClient,
    population: &Population,
    place: u64,
) -> Result<Stream, String> {
    let (mut stream, mut page, mut last) = (Stream::default(), 1, 1);
    while page <= last {
        let answer = read(client, population, place, page).await?;
        last = answer["totalPages"].as_u64().unwrap_or(page);
        for item in answer["events"].as_array().into_iter().flatten() {
            let key = item["event"]["data"]["keyUuid"].as_str();
            let key = key.unwrap_or_default().to_owned();
            match (item["type"].as_str(), item["version"].as_u64()) {
                (Some("KeyWriteRequested"), Some(version)) => {
                    stream.requested.insert(version, key);
                }
                (Some("KeyWriteConfirmed"), _) => {
                    stream.confirmed.insert(key);
                }
                _ => {}
            }
        }
        page += 1;
    }
    Ok(stream)
}

async fn read(
    client: &mut OwnClient,
    population: &Population,
    place: u64,
    page: u64,
) -> Result<Value, String> {
    let lock = population.first_lock + place;
    let ask = Ask {
        name: "read events",
        method: "GET",
        path: format!("/locks/{lock}/events?page={page}"),
        credential: Credential::ApiKey(population.api_key_of(place).to_owned()),
        idempotency_key: None,
        body: None,
        expected: &[200],
    };
    for _ in 0..TRIES {
        if let Some(answer) = client.call(&ask).await
            && answer.status == 200
        {
            return serde_json::from_slice(&answer.body).map_err(|e| e.to_string());
        }
        tokio::time::sleep(std::time::Duration::from_millis(100)).await;
    }
    Err(format!("the events of lock {lock} cannot be read"))
}
