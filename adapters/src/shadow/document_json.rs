//! The JSON of shadow documents. `desired.writeKey.<write id>` is an entry, `reported.writeKeyResult.<write id>` its result.

use keywright_domain::model::{
    DeviceOutcome, DeviceResult, FailureReason, KeyIndex, ReportedSlot, ShadowChange, ShadowEntry,
    ShadowSnapshot, ShadowVersion, WriteId,
};
use serde_json::{Map, Value, json};

const ENTRIES: &str = "writeKey";
const RESULTS: &str = "writeKeyResult";

/// The body of an update request, as a JSON value: the members of `state` that the change sets or removes (`null`), `clientToken`, and with
/// an expected version also `version`. An update that only raises the version has an empty `state`.
pub fn update_body(change: &ShadowChange) -> Value {
    update_object(change).into()
}

/// The body of an update request, as a JSON object.
pub(crate) fn update_object(change: &ShadowChange) -> Map<String, Value> {
    let null = |id: &WriteId| (id.to_string(), Value::Null);
    let mut entries: Map<String, Value> = change.remove.iter().map(null).collect();
    if let Some(entry) = &change.put {
        entries.insert(entry.id.to_string(), entry_body(entry));
    }
    let results: Map<String, Value> = change.clear_results.iter().map(null).collect();

    let mut reported = Map::new();
    if !results.is_empty() {
        reported.insert(RESULTS.into(), results.into());
    }
    let mut body = Map::new();
    body.insert("clientToken".into(), change.token.as_str().into());
    match change.expected {
        Some(version) => drop(body.insert("version".into(), version.0.into())),
        // An unconditional update may create the shadow. When all entries are removed, an empty map stays in `desired`; the same
        // map in `reported` avoids a delta.
        None => {
            reported.insert(ENTRIES.into(), json!({}));
        }
    }
    let mut state = Map::new();
    if !entries.is_empty() {
        state.insert("desired".into(), json!({ ENTRIES: entries }));
    }
    if !reported.is_empty() || state.is_empty() {
        state.insert("reported".into(), reported.into());
    }
    body.insert("state".into(), state.into());
    body
}

fn entry_body(entry: &ShadowEntry) -> Value {
    let mut body = json!({
        "keyUuid": entry.key.as_str(),
        "seq": entry.seq.0,
        "expiresAt": entry.expires_at.as_secs(),
    });
    if let Some(index) = entry.index {
        body["keyIndexNumber"] = json!(index.get());
    }
    body
}

/// The version of an answer.
pub fn version(body: &Value) -> Option<ShadowVersion> {
    body.get("version")?.as_u64().map(ShadowVersion)
}

/// The content of a get answer; `None`: it has no version. Entries and results whose names are not write ids are left out.
pub fn snapshot(body: &Value) -> Option<ShadowSnapshot> {
    Some(ShadowSnapshot {
        version: version(body)?,
        entries: entries(body),
        results: results(body),
    })
}

/// The entries in a document, or in the request part of an accepted update.
pub fn entries(body: &Value) -> Vec<WriteId> {
    let entries = body.pointer("/state/desired/writeKey");
    let entries = entries.and_then(Value::as_object).into_iter().flatten();
    let present = entries.filter(|(_, entry)| !entry.is_null());
    present.filter_map(|(id, _)| id.parse().ok()).collect()
}

/// The current snapshot of an `update/documents` message with only those results that the previous document does not have.
/// `None`: it is not such a message.
pub fn with_new_results(body: &Value) -> Option<ShadowSnapshot> {
    let (previous, current) = (body.get("previous")?, body.get("current")?);
    let known = results(previous);
    let mut current = snapshot(current)?;
    current.results.retain(|result| !known.contains(result));
    Some(current)
}

/// The results in a get answer, or in the request part of an accepted update. Removed results are left out.
pub fn results(body: &Value) -> Vec<DeviceResult> {
    let results = body
        .pointer("/state/reported/writeKeyResult")
        .and_then(Value::as_object);
    results
        .into_iter()
        .flatten()
        .filter_map(|(id, result)| device_result(id, result))
        .collect()
}

fn device_result(id: &str, result: &Value) -> Option<DeviceResult> {
    let write: WriteId = id.parse().ok()?;
    if result.is_null() {
        return None;
    }
    let text = |member: &str| result.get(member).and_then(Value::as_str);
    let outcome = match text("status") {
        Some("IN_PROGRESS") => DeviceOutcome::InProgress,
        Some("SUCCEEDED") => DeviceOutcome::Succeeded {
            slot: reported_slot(result.get("keyIndexNumber")),
        },
        Some("FAILED") => {
            let reason = text("reason").unwrap_or("unspecified");
            DeviceOutcome::Failed(FailureReason::from_device(reason, text("code")))
        }
        _ => DeviceOutcome::Unreadable,
    };
    Some(DeviceResult { write, outcome })
}

fn reported_slot(value: Option<&Value>) -> ReportedSlot {
    let Some(value) = value.filter(|value| !value.is_null()) else {
        return ReportedSlot::Missing;
    };
    let index = whole_number(value).and_then(|index| KeyIndex::new(index).ok());
    index.map_or(ReportedSlot::Unreadable, ReportedSlot::Index)
}

/// A number without a fraction, in any notation: 3, 3.0 and 3e0 are the same number in JSON, and the JSON libraries of some
/// devices write all numbers in the second form.
fn whole_number(value: &Value) -> Option<u64> {
    /// A larger floating-point number may represent several integers.
    const MAX_EXACT: f64 = 9_007_199_254_740_991.0;
    let exact = |number: &f64| number.fract() == 0.0 && (0.0..=MAX_EXACT).contains(number);
    // The cast is exact within those bounds.
    let from_float = || value.as_f64().filter(exact).map(|number| number as u64);
    value.as_u64().or_else(from_float)
}

#[cfg(test)]
mod tests {
    use keywright_domain::model::{Anomalies, KeySlot, Write, WriteState, *};

    use super::*;

    fn token() -> ClientToken {
        ClientToken::new(WriteId::from_u128(1), Epoch(1), 0)
    }

    #[test]
    fn a_fence_has_the_expected_version_and_no_content() {
        let fence = ShadowChange::fence(ShadowVersion(7), token());
        let body = update_body(&fence);
        assert_eq!(body["state"], json!({ "reported": {} }));
        assert_eq!(body["version"], json!(7));
    }

    #[test]
    fn creation_writes_the_empty_map_that_avoids_a_delta() {
        let body = update_body(&ShadowChange::create(token()));
        assert_eq!(body["state"], json!({ "reported": { "writeKey": {} } }));
        assert!(body.get("version").is_none());
    }

    #[test]
    fn an_entry_has_the_length_that_the_domain_computes() {
        let (key, seq) = (KeyUuid::new("a\"b\\c·").expect("a key"), Sequence(1234));
        let expires_at = Timestamp::from_millis(1_790_000_000_000);
        for index in [None, KeyIndex::new(17).ok()] {
            let id = WriteId::from_u128(99);
            let entry = ShadowEntry {
                id,
                key: key.clone(),
                index,
                seq,
                expires_at,
            };
            let map = json!({ id.to_string(): entry_body(&entry) }).to_string();
            // The map has two braces instead of the comma that separates entries.
            let counted = map.len() - 2 + 1;
            let slot = KeySlot {
                key: key.clone(),
                index,
            };
            let write = Write {
                slot,
                ..sample_write(id, seq, expires_at)
            };
            assert_eq!(write.entry_bytes(), counted);
        }
    }

    fn sample_write(id: WriteId, seq: Sequence, expires_at: Timestamp) -> Write {
        Write {
            id,
            lock: LockId::new(1).expect("a lock id"),
            uuid: LockUuid::new("u").expect("a lock uuid"),
            thing: ThingName::new("t").expect("a thing name"),
            slot: KeySlot {
                key: KeyUuid::new("k").expect("a key"),
                index: None,
            },
            seq,
            cause: Cause {
                requested_by: "user:u".into(),
                request: None,
            },
            prepared_at: Timestamp::from_millis(0),
            expires_at,
            requested: None,
            state: WriteState::Sent,
            anomalies: Anomalies::new(),
            reported_index: None,
            next_check_at: None,
        }
    }

    #[test]
    fn reads_a_key_index_in_floating_point_notation() {
        let id = WriteId::from_u128(5).to_string();
        let index = |number: &str| {
            let body = format!(
                r#"{{"state":{{"reported":{{"writeKeyResult":{{"{id}":
                    {{"status":"SUCCEEDED","keyIndexNumber":{number}}}}}}}}}}}"#
            );
            let body: Value = serde_json::from_str(&body).expect("JSON");
            match results(&body).as_slice() {
                [
                    DeviceResult {
                        outcome: DeviceOutcome::Succeeded { slot },
                        ..
                    },
                ] => match slot {
                    ReportedSlot::Index(index) => Ok(index.get()),
                    other => Err(*other),
                },
                other => panic!("{other:?}"),
            }
        };
        for three in ["3", "3.0", "3e0", "0.3e1", "3.000", "30E-1"] {
            assert_eq!(index(three), Ok(3), "{three}");
        }
        for zero in ["0", "0.0", "-0.0", "0e5"] {
            assert_eq!(index(zero), Ok(0), "{zero}");
        }
        for none in [
            "3.5",
            "-1",
            "-1.0",
            "1e300",
            "9007199254740993.0",
            "\"3\"",
            "[4]",
        ] {
            assert_eq!(index(none), Err(ReportedSlot::Unreadable), "{none}");
        }
        assert_eq!(index("null"), Err(ReportedSlot::Missing));
    }

    #[test]
    fn ignores_results_whose_names_are_not_write_ids() {
        let id = WriteId::from_u128(5).to_string();
        let body = json!({ "version": 3, "state": { "reported": { "writeKeyResult": {
            "battery": { "status": "SUCCEEDED" }, (id): { "status": "FAILED", "reason": "E42" } } } } });
        let found = snapshot(&body).expect("a version");
        let reason = FailureReason::from_device("E42", None);
        assert_eq!(found.results.len(), 1);
        assert_eq!(found.results[0].outcome, DeviceOutcome::Failed(reason));
    }

    fn outcome(result: &Value) -> Option<DeviceOutcome> {
        let id = WriteId::from_u128(5).to_string();
        let body = json!({ "state": { "reported": { "writeKeyResult": { (id): result } } } });
        results(&body).pop().map(|result| result.outcome)
    }

    #[test]
    fn invalid_results_are_unreadable_and_removed_ones_are_left_out() {
        for result in [
            json!({ "status": "succeeded" }),
            json!({ "status": 1 }),
            json!({}),
            json!("SUCCESS"),
            json!(7),
            json!(true),
            json!(["SUCCEEDED"]),
        ] {
            assert_eq!(
                outcome(&result),
                Some(DeviceOutcome::Unreadable),
                "{result}"
            );
        }
        assert_eq!(outcome(&Value::Null), None);
    }
}
