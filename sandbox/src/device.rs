//! The device contract without I/O: what a lock finds on its shadow, what it does, what it remembers.

use std::collections::{BTreeMap, VecDeque};

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::behaviour::{Behaviour, Card};

/// How many settled writes a lock remembers, to answer them again instead of doing them twice.
const REMEMBERED: usize = 32;

/// One write as it stands on the shadow.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Its id.
    pub id: String,
    /// The key.
    pub key: String,
    /// The slot, where the choice is not the lock's.
    pub index: Option<u64>,
    /// Orders the writes.
    pub seq: u64,
    /// In epoch seconds; from then on it is skipped.
    pub expires_at: u64,
}

/// The writes that a shadow asks for, in the order in which they are to be done. What is none of them is
/// left out.
pub fn entries(desired: &serde_json::Map<String, Value>) -> Vec<Entry> {
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

/// How a lock settled a write; as JSON, what it reports.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "status", rename_all_fields = "camelCase")]
pub enum Outcome {
    /// The key is in its memory.
    #[serde(rename = "SUCCEEDED")]
    Succeeded {
        /// The slot.
        key_index_number: u64,
    },
    /// It refused.
    #[serde(rename = "FAILED")]
    Failed {
        /// Why.
        reason: String,
    },
}

/// What a lock holds, and how it settled its last writes.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct LockMemory {
    /// The keys by their slots.
    pub keys: BTreeMap<u64, String>,
    /// The last settled writes with their results, oldest first.
    settled: VecDeque<(String, Outcome)>,
}

/// What a lock does next.
#[derive(Clone, Debug, PartialEq)]
pub enum Task {
    /// It has settled this write before, and says so again.
    AnswerAgain(String, Outcome),
    /// It is to do this one.
    Do(Entry),
}

impl LockMemory {
    /// The first of the entries that is neither expired nor, in this session, `done`.
    pub fn next(&self, entries: &[Entry], done: &[String], now: u64) -> Option<Task> {
        let entry = entries
            .iter()
            .find(|entry| now < entry.expires_at && !done.contains(&entry.id))?;
        let settled = self.settled.iter().find(|(id, _)| *id == entry.id);
        Some(match settled {
            Some((id, result)) => Task::AnswerAgain(id.clone(), result.clone()),
            None => Task::Do(entry.clone()),
        })
    }

    /// Writes the key, or refuses to, and remembers the result, which is what the lock reports.
    pub fn settle(&mut self, entry: &Entry, behaviour: &Behaviour) -> Outcome {
        let written = match (&behaviour.fail, behaviour.card) {
            (Some(reason), _) => Err(reason.as_str()),
            (None, Card::Never) => Err("NoCardPresent"),
            (None, _) => self.put(entry, behaviour.capacity),
        };
        let result = match written {
            Ok(slot) => Outcome::Succeeded {
                key_index_number: slot,
            },
            Err(reason) => Outcome::Failed {
                reason: reason.to_owned(),
            },
        };
        // A ring that is as large from the first write on, as a lock's would be.
        self.settled
            .reserve_exact(REMEMBERED.saturating_sub(self.settled.len()));
        if self.settled.len() >= REMEMBERED {
            self.settled.pop_front();
        }
        self.settled.push_back((entry.id.clone(), result.clone()));
        result
    }

    fn put(&mut self, entry: &Entry, capacity: u64) -> Result<u64, &'static str> {
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

/// The update in which a lock says that it is at a write; the entry stays.
pub(crate) fn in_progress(id: &str) -> Value {
    json!({ "state": { "reported": { "writeKeyResult": { id: { "status": "IN_PROGRESS" } } } } })
}

/// The one update that reports the result and takes the entry away.
pub(crate) fn answer(id: &str, result: &Outcome) -> Value {
    json!({ "state": {
        "desired": { "writeKey": { id: null } },
        "reported": { "writeKeyResult": { id: result } }
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
    fn what_is_reported_is_as_the_device_contract_says() {
        let reported = answer("w", &succeeded(2));
        let result = json!({ "status": "SUCCEEDED", "keyIndexNumber": 2 });
        assert_eq!(reported["state"]["reported"]["writeKeyResult"]["w"], result);
        assert_eq!(reported["state"]["desired"]["writeKey"]["w"], Value::Null);
        let refused = json!({ "status": "FAILED", "reason": "NoSpace" });
        assert_eq!(
            serde_json::to_value(failed("NoSpace")).expect("JSON"),
            refused
        );
    }

    #[test]
    fn entries_come_by_seq_and_what_is_none_is_left_out() {
        let desired = json!({ "writeKey": {
            "b": { "keyUuid": "k2", "seq": 1, "expiresAt": 1000 },
            "a": { "keyUuid": "k1", "keyIndexNumber": 3, "seq": 2, "expiresAt": 1000 },
            "c": { "keyUuid": "k3" }, "d": 7
        }, "other": {} });
        let desired = desired.as_object().expect("an object");
        assert_eq!(
            entries(desired),
            [entry("b", "k2", None, 1), entry("a", "k1", Some(3), 2)]
        );
    }

    #[test]
    fn expired_and_done_entries_are_skipped() {
        let memory = LockMemory::default();
        let all = [entry("a", "k", None, 1), entry("b", "k", None, 2)];
        assert_eq!(memory.next(&all, &[], 999), Some(Task::Do(all[0].clone())));
        assert_eq!(
            memory.next(&all, &["a".into()], 999),
            Some(Task::Do(all[1].clone()))
        );
        assert_eq!(memory.next(&all, &[], 1000), None);
    }

    #[test]
    fn a_settled_write_is_answered_again_and_not_done_again() {
        let (mut memory, behaviour) = (LockMemory::default(), Behaviour::default());
        let first = entry("a", "k", Some(2), 1);
        let result = memory.settle(&first, &behaviour);
        assert_eq!(
            memory.next(&[first], &[], 0),
            Some(Task::AnswerAgain("a".into(), result))
        );
        for n in 0..REMEMBERED {
            memory.settle(&entry(&n.to_string(), "k", Some(2), 1), &behaviour);
        }
        assert_eq!(memory.settled.len(), REMEMBERED);
        let again = entry("a", "k", Some(2), 1);
        assert_eq!(
            memory.next(std::slice::from_ref(&again), &[], 0),
            Some(Task::Do(again))
        );
    }

    #[test]
    fn keys_go_where_they_fit() {
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
            "it holds that key already"
        );
        assert_eq!(settle("k3", None), failed("NoSpace"));
        assert_eq!(
            settle("k3", Some(0)),
            succeeded(0),
            "a slot that is named is overwritten"
        );
    }

    #[test]
    fn a_lock_that_refuses_holds_nothing() {
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
