//! A `ShadowPort` of one's own: device shadows as JSON files in a folder, one file per thing.
//!
//! The file format, the merge and the version check are here; the decisions of the write protocol are in the domain. The cases of
//! the testkit at the end check the contract of the port. `cargo run --package keywright-examples --example custom_shadow_port`
//! writes an entry and prints the file.

use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::{fs, io};

use async_trait::async_trait;
use keywright_adapters::shadow::document_json;
use keywright_domain::model::{
    ClientToken, Epoch, FailureReason, KeyUuid, Sequence, ShadowChange, ShadowEntry,
    ShadowSnapshot, ShadowVersion, ThingName, Timestamp, WriteId,
};
use keywright_domain::ports::{ShadowError, ShadowPort};
use serde_json::{Map, Value, json};

/// The largest document that AWS IoT accepts, in bytes.
const MAX_DOCUMENT_BYTES: usize = 8 * 1024;

/// Shadows in a folder.
struct FileShadows {
    folder: PathBuf,
    /// Held during an update, so that comparing the version and writing the file are one step.
    writing: Mutex<()>,
}

impl FileShadows {
    fn new(folder: &Path) -> Self {
        Self {
            folder: folder.to_owned(),
            writing: Mutex::new(()),
        }
    }

    fn path(&self, thing: &ThingName) -> PathBuf {
        self.folder.join(format!("{thing}.json"))
    }

    /// The stored document, `{"version": …, "state": {"desired": …, "reported": …}}`; `None`: there is no shadow.
    fn load(&self, thing: &ThingName) -> io::Result<Option<Value>> {
        match fs::read(self.path(thing)) {
            Ok(bytes) => Ok(Some(serde_json::from_slice(&bytes)?)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Applies `state` to the shadow if it has the `expected` version, and returns the new version.
    fn apply(
        &self,
        thing: &ThingName,
        state: &Value,
        expected: Option<ShadowVersion>,
    ) -> Result<ShadowVersion, ShadowError> {
        let _writing = self.writing.lock().unwrap_or_else(PoisonError::into_inner);
        // The file of the shadow has not been replaced yet, so the update certainly has no effect.
        let not_applied = |error: io::Error| ShadowError::NotApplied {
            reason: FailureReason::Unavailable,
            detail: error.to_string(),
        };
        let stored = self.load(thing).map_err(not_applied)?;
        let version = stored.as_ref().and_then(document_json::version);
        if expected.is_some() && expected != version {
            return Err(ShadowError::Conflict);
        }
        let mut current = stored.unwrap_or_else(|| json!({ "state": {} }));
        merge(&mut current["state"], state);
        if current["state"].to_string().len() > MAX_DOCUMENT_BYTES {
            return Err(ShadowError::Refused {
                reason: FailureReason::ShadowTooLarge,
                detail: format!("the document would exceed {MAX_DOCUMENT_BYTES} bytes"),
            });
        }
        let next = version.map_or(ShadowVersion(1), |version| version.next());
        current["version"] = json!(next.0);
        // Renaming replaces the file as a whole: a reader sees the document before the update or after it.
        let (path, new) = (self.path(thing), self.path(thing).with_extension("new"));
        fs::write(&new, current.to_string()).map_err(not_applied)?;
        // From here on the update may have been applied even if an error is returned.
        fs::rename(&new, &path).map_err(|error| ShadowError::Unknown(error.to_string()))?;
        Ok(next)
    }
}

/// Merges `change` into `target` as device shadows do: objects member by member, `null` removes, everything else replaces.
fn merge(target: &mut Value, change: &Value) {
    let Value::Object(change) = change else {
        *target = change.clone();
        return;
    };
    if !target.is_object() {
        *target = Map::new().into();
    }
    for (name, value) in change {
        match value {
            Value::Null => drop(target.as_object_mut().and_then(|t| t.remove(name))),
            value => merge(&mut target[name.as_str()], value),
        }
    }
}

#[async_trait]
impl ShadowPort for FileShadows {
    async fn update(
        &self,
        thing: &ThingName,
        change: ShadowChange,
    ) -> Result<ShadowVersion, ShadowError> {
        let body = document_json::update_body(&change);
        self.apply(thing, &body["state"], change.expected)
    }

    async fn read(
        &self,
        thing: &ThingName,
        _: ClientToken,
    ) -> Result<Option<ShadowSnapshot>, ShadowError> {
        let stored = self.load(thing);
        let stored = stored.map_err(|error| ShadowError::Unknown(error.to_string()))?;
        Ok(stored.as_ref().and_then(document_json::snapshot))
    }
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let folder = tempfile::tempdir()?;
    let (shadows, thing) = (
        FileShadows::new(folder.path()),
        ThingName::new("front-door")?,
    );
    let id = WriteId::from_u128(1);
    let entry = ShadowEntry {
        id,
        key: KeyUuid::new("9b2e8f4a")?,
        index: None,
        seq: Sequence(1),
        expires_at: Timestamp::from_millis(1_800_000_000_000),
    };
    let change = ShadowChange {
        put: Some(entry),
        ..ShadowChange::create(ClientToken::new(id, Epoch(1), 0))
    };
    let version = shadows.update(&thing, change).await?;
    let file = fs::read_to_string(shadows.path(&thing))?;
    println!("version {version}: {file}");
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use keywright_testkit::shadow_port::Device;
    use keywright_testkit::shadow_port_cases;

    use super::*;

    /// The lock's side of the same files.
    struct Locks(Arc<FileShadows>);

    #[async_trait]
    impl Device for Locks {
        async fn report(&self, thing: &ThingName, document: &str) {
            let body: Value = serde_json::from_str(document).expect("JSON");
            let accepted = self.0.apply(thing, &body["state"], None);
            accepted.expect("a report is accepted");
        }

        async fn state(&self, thing: &ThingName) -> Value {
            let stored = self.0.load(thing).expect("the file is read");
            stored.expect("the shadow exists")["state"].clone()
        }
    }

    async fn fixture() -> (Arc<FileShadows>, Box<Locks>) {
        let folder = tempfile::tempdir().expect("a folder");
        let shadows = Arc::new(FileShadows::new(&folder.keep()));
        (shadows.clone(), Box::new(Locks(shadows)))
    }

    shadow_port_cases!(fixture);

    #[test]
    fn the_example_runs() {
        main().expect("the example runs");
    }
}
