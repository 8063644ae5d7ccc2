//! What must be true when all is over: each 200 has its event, and each key that was confirmed is in its lock.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;

use serde_json::Value;

use crate::own_client::OwnClient;
use crate::population::{HeldKeys, Population, thing_of};
use crate::recorder::{Accepted, Endpoint, Record};
use crate::session::{Ask, Caller, Credential};

/// How many faults are shown.
const MAX_SHOWN: usize = 20;

/// How often a page is asked for before the check is given up.
const TRIES: u32 = 50;

/// What was found.
#[derive(Clone, Debug, Default)]
pub struct Checked {
    /// Writes that were answered 200 and looked for.
    pub writes: usize,
    /// Those that were confirmed.
    pub confirmed: usize,
    /// Slots of locks that were looked at; `None`: the locks are not ours.
    pub slots: Option<usize>,
    /// What is missing, in words: twenty at most.
    pub missing: Vec<String>,
    /// How much is missing.
    pub missing_count: u64,
    /// Why not all could be looked at; `None`: all was.
    pub given_up: Option<String>,
}

/// What the events of a lock say. A key is written once.
#[derive(Debug, Default)]
pub struct Stream {
    /// The versions of `KeyWriteRequested`, by their keys.
    requested: BTreeMap<String, u64>,
    /// The keys of `KeyWriteConfirmed`, and the slots that the lock put them in.
    confirmed: BTreeSet<(String, u64)>,
}

impl Checked {
    /// Reads the events of each lock that was written to, and looks for what was answered. The events by lock, for what
    /// else is to be looked for. It is given up when the service does not answer any more.
    pub async fn streams(
        &mut self,
        server: SocketAddr,
        population: &Population,
        record: &Record,
    ) -> BTreeMap<u64, Stream> {
        let by_lock = |writes: &[Accepted]| {
            let mut locks: BTreeMap<u64, Vec<Accepted>> = BTreeMap::new();
            for write in writes {
                locks.entry(write.place).or_default().push(write.clone());
            }
            locks
        };
        let mut confirmed = by_lock(&record.succeeded);
        let mut client = OwnClient::new(server);
        let mut streams = BTreeMap::new();
        for (place, accepted) in by_lock(&record.accepted) {
            let stream = match events(&mut client, population, place).await {
                Ok(stream) => stream,
                Err(why) => {
                    self.given_up = Some(why);
                    break;
                }
            };
            let lock = population.first_lock + place;
            for write in accepted {
                self.writes += 1;
                // Its 200 has recorded it, now or under the same Idempotency-Key before.
                let has_event = match write.version {
                    Some(version) => stream.version(&write.key) == Some(version),
                    None => false,
                };
                if !has_event {
                    self.miss(format!(
                        "lock {lock}: {} was answered 200 and has no event",
                        write.key
                    ));
                }
            }
            for write in confirmed.remove(&place).unwrap_or_default() {
                self.confirmed += 1;
                if !stream.confirmed.iter().any(|(key, _)| *key == write.key) {
                    self.miss(format!(
                        "lock {lock}: {} is confirmed and has no event of it",
                        write.key
                    ));
                }
            }
            streams.insert(lock, stream);
        }
        streams
    }

    /// Looks for each confirmed key in its lock. The memories were read after the events. `undecided` are keys of which
    /// nobody knows whether they were written.
    pub fn held(
        &mut self,
        streams: &BTreeMap<u64, Stream>,
        held: &HeldKeys,
        undecided: &BTreeSet<String>,
    ) {
        let (nothing, mut slots) = (BTreeMap::new(), 0);
        for (lock, stream) in streams {
            let memory = held.get(&thing_of(*lock)).unwrap_or(&nothing);
            for (slot, (version, key)) in stream.last_confirmed() {
                slots += 1;
                let found = memory.get(&slot);
                // A lock may hold a later key that it could not report.
                let may_be = |found: &String| match stream.version(found) {
                    Some(requested) => requested >= version,
                    None => undecided.contains(found),
                };
                if !found.is_some_and(may_be) {
                    self.miss(format!(
                        "lock {lock}: {key} is confirmed, and its slot {slot} holds {}",
                        found.map_or("nothing", |key| key)
                    ));
                }
            }
        }
        self.slots = Some(slots);
    }

    fn miss(&mut self, what: String) {
        self.missing_count += 1;
        if self.missing.len() < MAX_SHOWN {
            self.missing.push(what);
        }
    }
}

impl Stream {
    /// For each slot, the confirmed key that was requested last, and when: a lock does its writes in that order.
    fn last_confirmed(&self) -> BTreeMap<u64, (u64, &str)> {
        let mut last = BTreeMap::new();
        for (key, slot) in &self.confirmed {
            let version = self.version(key).unwrap_or_default();
            let known = last.entry(*slot).or_insert((version, &**key));
            if version > known.0 {
                *known = (version, key);
            }
        }
        last
    }

    fn version(&self, key: &str) -> Option<u64> {
        self.requested.get(key).copied()
    }
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
                    stream.requested.insert(key, version);
                }
                (Some("KeyWriteConfirmed"), _) => {
                    let slot = item["event"]["data"]["keyIndexNumber"].as_u64();
                    stream.confirmed.extend(slot.map(|slot| (key, slot)));
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
        endpoint: Endpoint {
            method: "GET",
            route: "/locks/{id}/events",
        },
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

#[cfg(test)]
mod tests {
    use super::*;

    /// What is missed of a lock with these events, whose slot 0 holds a key.
    fn missing(requested: &[(u64, &str)], confirmed: &[&str], held: Option<&str>) -> u64 {
        let stream = Stream {
            requested: requested
                .iter()
                .map(|(version, key)| ((*key).to_owned(), *version))
                .collect(),
            confirmed: confirmed.iter().map(|key| ((*key).to_owned(), 0)).collect(),
        };
        let slots = held.map(|key| (0, key.to_owned())).into_iter().collect();
        let mut checked = Checked::default();
        let held = [(thing_of(7), slots)].into();
        let undecided = ["of a write that is not decided".to_owned()].into();
        checked.held(&[(7, stream)].into(), &held, &undecided);
        checked.missing_count
    }

    #[test]
    fn a_confirmed_key_is_in_its_lock_unless_a_later_one_took_its_slot() {
        let requested = [(3, "first"), (4, "second"), (7, "third")];
        for (confirmed, held, expected) in [
            (&["first"][..], Some("first"), 0),
            (&["first"], Some("second"), 0),
            (&["second", "first"], Some("second"), 0),
            (&["second", "first"], Some("first"), 1),
            (&["second"], Some("first"), 1),
            (&["second"], None, 1),
            (&["second"], Some("of a write that is not decided"), 0),
            (&["second"], Some("nobody's"), 1),
            (&[], None, 0),
        ] {
            let found = missing(&requested, confirmed, held);
            assert_eq!(found, expected, "{confirmed:?} {held:?}");
        }
    }
}
