//! Writes and idempotency records, for stores that keep them as documents. Times are in milliseconds since the epoch.

use std::str::FromStr;
use std::time::Duration;

use keywright_domain::model::{
    Anomalies, Anomaly, Cause, DeviceCode, Epoch, IdempotencyKey, IdempotencyRecord,
    IdempotencyScope, Intent, KeyIndex, LockId, LockVersion, RequestId, Requested, Sequence,
    Settled, Timestamp, WorkerId, Write, WriteId, WriteState,
};
use serde::{Serialize, Serializer};
use serde_json::Value;

use super::members::{
    AsText, InvalidJson, Object, ObjectWriter, optional, optional_u64, put_slot, read_index,
    read_late, read_object, read_reason, read_slot, required_number, required_text,
};

/// The format that is written. A later version of this crate that writes another one still reads this one.
const FORMAT: u64 = 1;

/// Serializes a write with all its members.
#[derive(Clone, Copy, Debug)]
pub struct WriteData<'a>(pub &'a Write);

impl Serialize for WriteData<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let write = self.0;
        let mut data = ObjectWriter::start(serializer)?;
        data.put("format", FORMAT)?;
        data.put("id", AsText(write.id))?;
        data.put("lockId", write.lock.get())?;
        data.put("uuid", write.uuid.as_str())?;
        data.put("thingName", write.thing.as_str())?;
        put_slot(&mut data, &write.slot.key, write.slot.index)?;
        data.put("seq", write.seq.0)?;
        data.put("requestedBy", &write.cause.requested_by)?;
        data.put_some(
            "requestId",
            write.cause.request.as_ref().map(RequestId::as_str),
        )?;
        data.put("preparedAt", write.prepared_at.as_millis())?;
        data.put("expiresAt", write.expires_at.as_millis())?;
        data.put_some("requestedVersion", write.requested.map(|r| r.version.0))?;
        data.put_some("requestedAt", write.requested.map(|r| r.time.as_millis()))?;
        data.put("state", write.state.name())?;
        if let Some(intent) = write.intent() {
            data.put("worker", AsText(format_args!("{:032x}", intent.worker.0)))?;
            data.put("epoch", intent.epoch.0)?;
            data.put(
                "leaseMillis",
                u64::try_from(intent.lease.as_millis()).unwrap_or(u64::MAX),
            )?;
        }
        data.put_some("endedAt", write.ended_at().map(Timestamp::as_millis))?;
        if write.is_late() {
            data.put("late", true)?;
        }
        if let WriteState::Failed(reason, _) | WriteState::Aborted { reason, .. } = &write.state {
            data.put("reason", reason.name())?;
            data.put_some("code", reason.device_code().map(DeviceCode::as_str))?;
        }
        let anomalies: Vec<&str> = write.anomalies.iter().copied().map(Anomaly::name).collect();
        data.put_some("anomalies", (!anomalies.is_empty()).then_some(anomalies))?;
        data.put_some(
            "reportedKeyIndexNumber",
            write.reported_index.map(KeyIndex::get),
        )?;
        data.put_some("nextCheckAt", write.next_check_at.map(Timestamp::as_millis))?;
        data.end()
    }
}

/// Reads the JSON of [`WriteData`].
///
/// # Errors
/// See [`InvalidJson`].
pub fn read_write(data: &Value) -> Result<Write, InvalidJson> {
    let data = read_format(data)?;
    let requested = match optional_u64(data, "requestedVersion")? {
        Some(version) => Some(Requested {
            version: LockVersion(version),
            time: read_time(data, "requestedAt")?,
        }),
        None => None,
    };
    Ok(Write {
        id: required_text(data, "id")?.parse()?,
        lock: LockId::new(required_number(data, "lockId")?)?,
        uuid: required_text(data, "uuid")?.parse()?,
        thing: required_text(data, "thingName")?.parse()?,
        slot: read_slot(data)?,
        seq: Sequence(required_number(data, "seq")?),
        cause: Cause {
            requested_by: required_text(data, "requestedBy")?.to_owned(),
            request: optional(data, "requestId")?,
        },
        prepared_at: read_time(data, "preparedAt")?,
        expires_at: read_time(data, "expiresAt")?,
        requested,
        state: read_state(data)?,
        anomalies: read_anomalies(data)?,
        reported_index: read_index(data, "reportedKeyIndexNumber")?,
        next_check_at: optional_u64(data, "nextCheckAt")?.map(Timestamp::from_millis),
    })
}

fn read_state(data: &Object) -> Result<WriteState, InvalidJson> {
    let at = || read_time(data, "endedAt");
    let settled = || {
        let late = read_late(data);
        Ok::<_, InvalidJson>(Settled { at: at()?, late })
    };
    Ok(match required_text(data, "state")? {
        "PREPARED" => WriteState::Prepared(read_intent(data)?),
        "SENT" => WriteState::Sent,
        "IN_PROGRESS" => WriteState::InProgress,
        "SUCCEEDED" => WriteState::Succeeded(settled()?),
        "FAILED" => WriteState::Failed(read_reason(data)?, settled()?),
        "EXPIRED" => WriteState::Expired { at: at()? },
        "SUPERSEDED" => WriteState::Superseded { at: at()? },
        "WITHDRAWN" => WriteState::Withdrawn { at: at()? },
        "ABORTED" => WriteState::Aborted {
            at: at()?,
            reason: read_reason(data)?,
        },
        _ => {
            return Err(InvalidJson::Member {
                member: "state",
                expected: "the name of a state",
            });
        }
    })
}

fn read_intent(data: &Object) -> Result<Intent, InvalidJson> {
    let worker = u128::from_str_radix(required_text(data, "worker")?, 16);
    let invalid = InvalidJson::Member {
        member: "worker",
        expected: "a hexadecimal number",
    };
    Ok(Intent {
        worker: WorkerId(worker.map_err(|_| invalid)?),
        epoch: Epoch(required_number(data, "epoch")?),
        lease: Duration::from_millis(required_number(data, "leaseMillis")?),
    })
}

fn read_anomalies(data: &Object) -> Result<Anomalies, InvalidJson> {
    let invalid = || InvalidJson::Member {
        member: "anomalies",
        expected: "an array of names of anomalies",
    };
    match data.get("anomalies") {
        None => Ok(Anomalies::new()),
        Some(Value::Array(names)) => {
            let anomaly =
                |name: &Value| name.as_str().and_then(|name| Anomaly::from_str(name).ok());
            names
                .iter()
                .map(|name| anomaly(name).ok_or_else(invalid))
                .collect()
        }
        Some(_) => Err(invalid()),
    }
}

/// Serializes an idempotency record with all its members.
#[derive(Clone, Copy, Debug)]
pub struct IdempotencyData<'a>(pub &'a IdempotencyRecord);

impl Serialize for IdempotencyData<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let record = self.0;
        let mut data = ObjectWriter::start(serializer)?;
        data.put("format", FORMAT)?;
        data.put("lockId", record.scope.lock.get())?;
        data.put("principal", &record.scope.principal)?;
        data.put("idempotencyKey", record.scope.key.as_str())?;
        put_slot(&mut data, &record.slot.key, record.slot.index)?;
        data.put("writeId", AsText(record.write))?;
        data.put_some(
            "versionWithoutEvent",
            record.version_without_event.map(|v| v.0),
        )?;
        data.put("answerDeadline", record.answer_deadline.as_millis())?;
        data.put("expiresAt", record.expires_at.as_millis())?;
        data.end()
    }
}

/// Reads the JSON of [`IdempotencyData`].
///
/// # Errors
/// See [`InvalidJson`].
pub fn read_idempotency_record(data: &Value) -> Result<IdempotencyRecord, InvalidJson> {
    let data = read_format(data)?;
    let write: WriteId = required_text(data, "writeId")?.parse()?;
    Ok(IdempotencyRecord {
        scope: IdempotencyScope {
            lock: LockId::new(required_number(data, "lockId")?)?,
            principal: required_text(data, "principal")?.to_owned(),
            key: IdempotencyKey::new(required_text(data, "idempotencyKey")?)?,
        },
        slot: read_slot(data)?,
        write,
        version_without_event: optional_u64(data, "versionWithoutEvent")?.map(LockVersion),
        answer_deadline: read_time(data, "answerDeadline")?,
        expires_at: read_time(data, "expiresAt")?,
    })
}

/// The members of a document in a known format.
fn read_format(data: &Value) -> Result<&Object, InvalidJson> {
    let data = read_object(data, "data")?;
    match optional_u64(data, "format")? {
        Some(FORMAT) => Ok(data),
        _ => Err(InvalidJson::Member {
            member: "format",
            expected: "1; a later version of the program writes other formats",
        }),
    }
}

fn read_time(data: &Object, member: &'static str) -> Result<Timestamp, InvalidJson> {
    required_number(data, member).map(Timestamp::from_millis)
}
