//! The cause of an event, which is kept beside its data: the vendor's schemas have no such members.

use keywright_domain::model::{Cause, RequestId};
use serde::{Serialize, Serializer};
use serde_json::Value;

use super::members::{InvalidJson, ObjectWriter, optional, read_object, required_text};

/// Serializes a cause: `requestedBy`, and `requestId` if there is one.
#[derive(Clone, Copy, Debug)]
pub struct CauseData<'a>(pub &'a Cause);

impl Serialize for CauseData<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut data = ObjectWriter::start(serializer)?;
        data.put("requestedBy", &self.0.requested_by)?;
        let request = self.0.request.as_ref().map(RequestId::as_str);
        data.put_some("requestId", request)?;
        data.end()
    }
}

/// Reads the JSON of [`CauseData`].
///
/// # Errors
/// See [`InvalidJson`].
pub fn read_cause(data: &Value) -> Result<Cause, InvalidJson> {
    let data = read_object(data, "cause")?;
    Ok(Cause {
        requested_by: required_text(data, "requestedBy")?.to_owned(),
        request: optional(data, "requestId")?,
    })
}
