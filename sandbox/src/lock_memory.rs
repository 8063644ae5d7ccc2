//! The memory of a lock, and how a lock executes writes; without I/O.

use std::collections::{BTreeMap, VecDeque};

use serde::{Deserialize, Serialize};

use crate::behaviour::{Behaviour, Card};
use crate::device_contract::{Entry, Outcome};

/// How many settled writes a lock remembers, to report them again instead of executing them twice.
const MAX_SETTLED: usize = 32;

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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::device_contract::tests::{entry, failed, succeeded};

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
