//! Checks after the load: each 200 has its event, and each confirmed key is in the memory of its lock.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;

use serde_json::Value;

use crate::error::Error;
use crate::hyper_caller::HyperCaller;
use crate::persona_session::{ApiRequest, Caller, Credential};
use crate::population::{HeldKeys, Population, thing_of};
use crate::recorder::{Accepted, Endpoint, Record};

/// The number of missing items that are listed.
const MAX_LISTED: usize = 20;

/// The number of attempts to read a page before the check ends.
const MAX_ATTEMPTS: u32 = 50;

/// The outcome of the checks.
#[derive(Clone, Debug, Default)]
pub struct CheckResult {
    /// Writes with a 200 that were checked.
    pub writes: usize,
    /// Confirmed writes that were checked.
    pub confirmed: usize,
    /// Slots of locks that were checked; `None` if the locks do not belong to the load test.
    pub slots: Option<usize>,
    /// Descriptions of missing items, at most twenty.
    pub missing: Vec<String>,
    /// The number of missing items.
    pub missing_count: u64,
    /// Why the check ended early, if it did.
    pub aborted: Option<String>,
}

/// The writes in the events of a lock. Each key is written once.
#[derive(Debug, Default)]
pub struct LockEvents {
    /// The versions of `KeyWriteRequested`, by their keys.
    requested: BTreeMap<String, u64>,
    /// The keys of `KeyWriteConfirmed`, with their slots.
    confirmed: BTreeSet<(String, u64)>,
}

impl CheckResult {
    /// Reads the events of each lock with accepted writes, and looks for these writes. Returns the events by lock. The check ends
    /// early when the service does not answer.
    pub async fn check_events(
        &mut self,
        server: SocketAddr,
        population: &Population,
        record: &Record,
    ) -> BTreeMap<u64, LockEvents> {
        let by_lock = |writes: &[Accepted]| {
            let mut locks: BTreeMap<u64, Vec<Accepted>> = BTreeMap::new();
            for write in writes {
                locks.entry(write.offset).or_default().push(write.clone());
            }
            locks
        };
        let mut confirmed = by_lock(&record.succeeded);
        let mut client = HyperCaller::new(server);
        let mut all_events = BTreeMap::new();
        for (offset, accepted) in by_lock(&record.accepted) {
            let events = match read_events(&mut client, population, offset).await {
                Ok(events) => events,
                Err(why) => {
                    self.aborted = Some(why.to_string());
                    break;
                }
            };
            let lock = population.first_lock + offset;
            for write in accepted {
                self.writes += 1;
                // The event was recorded by this request, or by an earlier one with the same Idempotency-Key.
                let has_event = match write.version {
                    Some(version) => events.version(&write.key) == Some(version),
                    None => false,
                };
                if !has_event {
                    self.add_missing(format!(
                        "lock {lock}: {} was answered 200 and has no event",
                        write.key
                    ));
                }
            }
            for write in confirmed.remove(&offset).unwrap_or_default() {
                self.confirmed += 1;
                if !events.confirmed.iter().any(|(key, _)| *key == write.key) {
                    self.add_missing(format!(
                        "lock {lock}: {} is confirmed and has no event of it",
                        write.key
                    ));
                }
            }
            all_events.insert(lock, events);
        }
        all_events
    }

    /// Looks for each confirmed key in the memory of its lock, which was read after the events. `undecided` are the keys of writes
    /// with an unknown outcome.
    pub fn check_held_keys(
        &mut self,
        all_events: &BTreeMap<u64, LockEvents>,
        held: &HeldKeys,
        undecided: &BTreeSet<String>,
    ) {
        let (empty, mut slots) = (BTreeMap::new(), 0);
        for (lock, events) in all_events {
            let memory = held.get(&thing_of(*lock)).unwrap_or(&empty);
            for (slot, (version, key)) in events.last_confirmed() {
                slots += 1;
                let found = memory.get(&slot);
                // A lock may have a later key whose result it could not report.
                let is_possible = |found: &String| match events.version(found) {
                    Some(requested) => requested >= version,
                    None => undecided.contains(found),
                };
                if !found.is_some_and(is_possible) {
                    self.add_missing(format!(
                        "lock {lock}: {key} is confirmed, and its slot {slot} holds {}",
                        found.map_or("nothing", |key| key)
                    ));
                }
            }
        }
        self.slots = Some(slots);
    }

    fn add_missing(&mut self, what: String) {
        self.missing_count += 1;
        if self.missing.len() < MAX_LISTED {
            self.missing.push(what);
        }
    }
}

impl LockEvents {
    /// For each slot, the confirmed key that was requested last, and the version of its request.
    fn last_confirmed(&self) -> BTreeMap<u64, (u64, &str)> {
        let mut last = BTreeMap::new();
        for (key, slot) in &self.confirmed {
            let version = self.version(key).unwrap_or_default();
            let latest = last.entry(*slot).or_insert((version, &**key));
            if version > latest.0 {
                *latest = (version, key);
            }
        }
        last
    }

    fn version(&self, key: &str) -> Option<u64> {
        self.requested.get(key).copied()
    }
}

async fn read_events(
    client: &mut HyperCaller,
    population: &Population,
    offset: u64,
) -> Result<LockEvents, Error> {
    let (mut events, mut page, mut last) = (LockEvents::default(), 1, 1);
    while page <= last {
        let answer = read_page(client, population, offset, page).await?;
        last = answer["totalPages"].as_u64().unwrap_or(page);
        for item in answer["events"].as_array().into_iter().flatten() {
            let key = item["event"]["data"]["keyUuid"].as_str();
            let key = key.unwrap_or_default().to_owned();
            match (item["type"].as_str(), item["version"].as_u64()) {
                (Some("KeyWriteRequested"), Some(version)) => {
                    events.requested.insert(key, version);
                }
                (Some("KeyWriteConfirmed"), _) => {
                    let slot = item["event"]["data"]["keyIndexNumber"].as_u64();
                    events.confirmed.extend(slot.map(|slot| (key, slot)));
                }
                _ => {}
            }
        }
        page += 1;
    }
    Ok(events)
}

async fn read_page(
    client: &mut HyperCaller,
    population: &Population,
    offset: u64,
    page: u64,
) -> Result<Value, Error> {
    let lock = population.first_lock + offset;
    let request = ApiRequest {
        name: "read events",
        endpoint: Endpoint {
            method: "GET",
            route: "/locks/{id}/events",
        },
        path: format!("/locks/{lock}/events?page={page}"),
        credential: Credential::api_key(population.api_key_of(offset)),
        idempotency_key: None,
        body: None,
        expected: &[200],
    };
    for _ in 0..MAX_ATTEMPTS {
        if let Some(answer) = client.call(&request).await
            && answer.status == 200
        {
            return Ok(serde_json::from_slice(&answer.body)?);
        }
        tokio::time::sleep(std::time::Duration::from_millis(100)).await;
    }
    Err(Error::Service(format!(
        "the events of lock {lock} cannot be read"
    )))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The number of missing items of a lock with these events and this key in slot 0.
    fn missing(requested: &[(u64, &str)], confirmed: &[&str], held: Option<&str>) -> u64 {
        let events = LockEvents {
            requested: requested
                .iter()
                .map(|(version, key)| ((*key).to_owned(), *version))
                .collect(),
            confirmed: confirmed.iter().map(|key| ((*key).to_owned(), 0)).collect(),
        };
        let slots = held.map(|key| (0, key.to_owned())).into_iter().collect();
        let mut checked = CheckResult::default();
        let held = [(thing_of(7), slots)].into();
        let undecided = ["undecided".to_owned()].into();
        checked.check_held_keys(&[(7, events)].into(), &held, &undecided);
        checked.missing_count
    }

    #[test]
    fn a_confirmed_key_is_in_its_lock_unless_a_later_key_replaced_it() {
        let requested = [(3, "first"), (4, "second"), (7, "third")];
        for (confirmed, held, expected) in [
            (&["first"][..], Some("first"), 0),
            (&["first"], Some("second"), 0),
            (&["second", "first"], Some("second"), 0),
            (&["second", "first"], Some("first"), 1),
            (&["second"], Some("first"), 1),
            (&["second"], None, 1),
            (&["second"], Some("undecided"), 0),
            (&["second"], Some("unknown"), 1),
            (&[], None, 0),
        ] {
            let found = missing(&requested, confirmed, held);
            assert_eq!(found, expected, "{confirmed:?} {held:?}");
        }
    }
}
