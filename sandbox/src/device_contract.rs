//! The JSON of the device contract: the entries on a shadow, and the reports of a lock.

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

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
pub(crate) mod tests {
    use super::*;

    pub(crate) fn entry(id: &str, key: &str, index: Option<u64>, seq: u64) -> Entry {
        Entry {
            id: id.into(),
            key: key.into(),
            index,
            seq,
            expires_at: 1000,
        }
    }

    pub(crate) fn succeeded(slot: u64) -> Outcome {
        Outcome::Succeeded {
            key_index_number: slot,
        }
    }

    pub(crate) fn failed(reason: &str) -> Outcome {
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
}
