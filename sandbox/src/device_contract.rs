//! The device contract without I/O: the entries on a shadow, their execution, and the memory of a lock.

use std::collections::{BTreeMap, VecDeque};

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::behaviour::{Behaviour, Card};

/// How many settled writes a lock remembers, to report them again instead of executing them twice.
const MAX_SETTLED: usize = 32;

/// An entry of `desired.writeKey`: a write that the lock should execute.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// The id of the write.
    pub id: String,
    /// The id of the key.
    pub key: String,
    /// The key slot. `None`: the lock chooses one.
    pub index: Option<u64>,
    /// The order in which writes are executed.
    pub seq: u64,
    /// In epoch seconds. From then on the entry is skipped.
    pub expires_at: u64,
}

/// Parses the entries in `desired` of a shadow, in the order of execution. Malformed entries are left out.
pub fn parse_entries(desired: &serde_json::Map<String, Value>) -> Vec<Entry> {
    let found = desired.get("writeKey").and_then(Value::as_object);
    let mut entries: Vec<Entry> = found
        .into_iter()
        .flatten()
        .filter_map(|(id, body)| {
            Some(Entry {
                id: id.clone(),
                key: body.get("keyUuid")?.as_str()?.to_owned(),
                index: body.get("keyIndexNumber").and_then(Value::as_u64),
                seq: body.get("seq")?.as_u64()?,
                expires_at: body.get("expiresAt")?.as_u64()?,
            })
        })
        .collect();
    entries.sort_by_key(|entry| entry.seq);
    entries
}

/// The result of a write. Its JSON is what the lock reports.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "status", rename_all_fields = "camelCase")]
pub enum Outcome {
    /// The lock has the key in its memory.
    #[serde(rename = "SUCCEEDED")]
    Succeeded {
        /// The key slot.
        key_index_number: u64,
    },
    /// The lock did not write the key.
    #[serde(rename = "FAILED")]
    Failed {
        /// The reason, a code of the device contract or one of the lock's own.
        reason: String,
    },
}

/// The memory of a lock: its keys, and the results of its last writes.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct LockMemory {
    /// The keys, by slot.
    pub keys: BTreeMap<u64, String>,
    /// The ids and results of the last settled writes, oldest first.
    settled: VecDeque<(String, Outcome)>,
}

/// The next task of a lock.
#[derive(Clone, Debug, PartialEq)]
pub enum Task {
    /// Report the result of a write that was settled before.
    ReportAgain(String, Outcome),
    /// Execute this write.
    Execute(Entry),
}

impl LockMemory {
    /// The task for the first entry that is not expired at `now` (epoch seconds) and whose id is not in `skipped`.
    pub fn next(&self, entries: &[Entry], skipped: &[String], now: u64) -> Option<Task> {
        let entry = entries
            .iter()
            .find(|entry| now < entry.expires_at && !skipped.contains(&entry.id))?;
        let settled = self.settled.iter().find(|(id, _)| *id == entry.id);
        Some(match settled {
            Some((id, outcome)) => Task::ReportAgain(id.clone(), outcome.clone()),
            None => Task::Execute(entry.clone()),
        })
    }

    /// Executes a write according to the behaviour, and remembers its result.
    pub fn settle(&mut self, entry: &Entry, behaviour: &Behaviour) -> Outcome {
        let written = match (&behaviour.fail, behaviour.card) {
            (Some(reason), _) => Err(reason.as_str()),
            (None, Card::Never) => Err("NoCardPresent"),
            (None, _) => self.write_key(entry, behaviour.capacity),
        };
        let outcome = match written {
            Ok(slot) => Outcome::Succeeded {
                key_index_number: slot,
            },
            Err(reason) => Outcome::Failed {
                reason: reason.to_owned(),
            },
        };
        // The capacity is reserved once, as in the fixed ring buffer of a real lock.
        self.settled
            .reserve_exact(MAX_SETTLED.saturating_sub(self.settled.len()));
        if self.settled.len() >= MAX_SETTLED {
            self.settled.pop_front();
        }
        self.settled.push_back((entry.id.clone(), outcome.clone()));
        outcome
    }

    fn write_key(&mut self, entry: &Entry, capacity: u64) -> Result<u64, &'static str> {
        let slot = match entry.index {
            Some(index) if index < capacity => index,
            Some(_) => return Err("IndexOutOfRange"),
            None => {
                let held = self.keys.iter().find(|(_, key)| **key == entry.key);
                let free = || (0..capacity).find(|slot| !self.keys.contains_key(slot));
                held.map(|(slot, _)| *slot).or_else(free).ok_or("NoSpace")?
            }
        };
        self.keys.insert(slot, entry.key.clone());
        Ok(slot)
    }
}

/// The update that reports a write as IN_PROGRESS. The entry stays.
pub(crate) fn in_progress_report(id: &str) -> Value {
    json!({ "state": { "reported": { "writeKeyResult": { id: { "status": "IN_PROGRESS" } } } } })
}

/// The update that reports a result and removes the entry.
pub(crate) fn result_report(id: &str, outcome: &Outcome) -> Value {
    json!({ "state": {
        "desired": { "writeKey": { id: null } },
        "reported": { "writeKeyResult": { id: outcome } }
    } })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(id: &str, key: &str, index: Option<u64>, seq: u64) -> Entry {
        Entry {
            id: id.into(),
            key: key.into(),
            index,
            seq,
            expires_at: 1000,
        }
    }

    fn succeeded(slot: u64) -> Outcome {
        Outcome::Succeeded {
            key_index_number: slot,
        }
    }

    fn failed(reason: &str) -> Outcome {
        Outcome::Failed {
            reason: reason.into(),
        }
    }

    #[test]
    fn reports_have_the_form_of_the_device_contract() {
        let reported = result_report("w", &succeeded(2));
        let result = json!({ "status": "SUCCEEDED", "keyIndexNumber": 2 });
        assert_eq!(reported["state"]["reported"]["writeKeyResult"]["w"], result);
        assert_eq!(reported["state"]["desired"]["writeKey"]["w"], Value::Null);
        let rejected = json!({ "status": "FAILED", "reason": "NoSpace" });
        assert_eq!(
            serde_json::to_value(failed("NoSpace")).expect("JSON"),
            rejected
        );
    }

    #[test]
    fn entries_are_sorted_by_seq_without_malformed_ones() {
        let desired = json!({ "writeKey": {
            "b": { "keyUuid": "k2", "seq": 1, "expiresAt": 1000 },
            "a": { "keyUuid": "k1", "keyIndexNumber": 3, "seq": 2, "expiresAt": 1000 },
            "c": { "keyUuid": "k3" }, "d": 7
        }, "other": {} });
        let desired = desired.as_object().expect("an object");
        assert_eq!(
            parse_entries(desired),
            [entry("b", "k2", None, 1), entry("a", "k1", Some(3), 2)]
        );
    }

    #[test]
    fn skips_expired_and_skipped_entries() {
        let memory = LockMemory::default();
        let all = [entry("a", "k", None, 1), entry("b", "k", None, 2)];
        assert_eq!(
            memory.next(&all, &[], 999),
            Some(Task::Execute(all[0].clone()))
        );
        assert_eq!(
            memory.next(&all, &["a".into()], 999),
            Some(Task::Execute(all[1].clone()))
        );
        assert_eq!(memory.next(&all, &[], 1000), None);
    }

    #[test]
    fn a_settled_write_is_reported_again_and_not_executed_again() {
        let (mut memory, behaviour) = (LockMemory::default(), Behaviour::default());
        let first = entry("a", "k", Some(2), 1);
        let result = memory.settle(&first, &behaviour);
        assert_eq!(
            memory.next(&[first], &[], 0),
            Some(Task::ReportAgain("a".into(), result))
        );
        for n in 0..MAX_SETTLED {
            memory.settle(&entry(&n.to_string(), "k", Some(2), 1), &behaviour);
        }
        assert_eq!(memory.settled.len(), MAX_SETTLED);
        let again = entry("a", "k", Some(2), 1);
        assert_eq!(
            memory.next(std::slice::from_ref(&again), &[], 0),
            Some(Task::Execute(again))
        );
    }

    #[test]
    fn chooses_slots() {
        let (mut memory, behaviour) = (
            LockMemory::default(),
            Behaviour {
                capacity: 2,
                ..Behaviour::default()
            },
        );
        let mut settle = |key: &str, index| memory.settle(&entry("x", key, index, 1), &behaviour);
        assert_eq!(settle("k1", Some(1)), succeeded(1));
        assert_eq!(settle("k2", Some(2)), failed("IndexOutOfRange"));
        assert_eq!(settle("k2", None), succeeded(0));
        assert_eq!(
            settle("k1", None),
            succeeded(1),
            "the slot that has the key already"
        );
        assert_eq!(settle("k3", None), failed("NoSpace"));
        assert_eq!(
            settle("k3", Some(0)),
            succeeded(0),
            "a named slot is overwritten"
        );
    }

    #[test]
    fn a_failing_lock_holds_no_key() {
        let mut memory = LockMemory::default();
        let behaviour = |text: &str| text.parse::<Behaviour>().expect("a behaviour");
        let entry = entry("a", "k", None, 1);
        assert_eq!(memory.settle(&entry, &behaviour("fail=E42")), failed("E42"));
        assert_eq!(
            memory.settle(&entry, &behaviour("card=never")),
            failed("NoCardPresent")
        );
        assert!(memory.keys.is_empty());
    }
}
