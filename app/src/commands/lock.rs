//! `keywright lock`.

use std::path::PathBuf;

use anyhow::{Context, ensure};
use clap::{Args, Subcommand};
use keywright_adapters::time::SystemClock;
use keywright_domain::model::{
    LockEvent, LockId, LockUuid, LockVersion, NewLock, OrganizationId, RecordedEvent, SerialNumber,
    ThingName, UserId,
};
use keywright_domain::ports::Clock;
use serde_json::json;

use super::import::import;
use super::lock_list::{self, LockList, summary};
use super::output::print_result;
use super::runtime::block_on;
use crate::bootstrap::open_stores::{Stores, open_existing};
use crate::settings::store_location::StoreLocation;

#[derive(Args)]
pub(crate) struct LockCommand {
    #[command(subcommand)]
    task: LockTask,
}

#[derive(Subcommand)]
enum LockTask {
    /// Add a lock.
    Add(Add),
    /// List locks, ordered by their ids.
    List(LockList),
    /// Show a lock with its open writes.
    Show {
        /// The id of the lock.
        id: LockId,
        #[command(flatten)]
        location: StoreLocation,
    },
    /// Import events of locks, one JSON object a line, as docs/deploying.md shows them or as `GET /locks/{id}/events` returns
    /// them. If a line is invalid, nothing is imported.
    Import {
        /// The file; - is standard input.
        file: PathBuf,
        #[command(flatten)]
        location: StoreLocation,
    },
}

#[derive(Args)]
struct Add {
    /// The id of the lock.
    id: LockId,
    /// The AWS IoT thing of the lock. Without one, no keys can be written to the lock.
    #[arg(long, value_name = "NAME")]
    thing: Option<ThingName>,
    /// The user who owns the lock.
    #[arg(long, value_name = "USER")]
    owner: Option<UserId>,
    /// The organization that the lock belongs to.
    #[arg(long, value_name = "ORG")]
    organization: Option<OrganizationId>,
    /// How many key slots the lock has.
    #[arg(long, value_name = "N")]
    capacity: Option<u64>,
    /// The serial number that is printed on the lock.
    #[arg(long, value_name = "TEXT")]
    serial: Option<SerialNumber>,
    /// The UUID of the lock.
    #[arg(long, value_name = "UUID")]
    uuid: LockUuid,
    #[command(flatten)]
    location: StoreLocation,
}

/// # Errors
/// The store or the server (`list`) cannot be used, a lock exists already (`add`) or does not exist (`show`), or a line is invalid
/// (`import`).
pub(crate) fn run(command: LockCommand) -> anyhow::Result<()> {
    match command.task {
        LockTask::Add(lock) => block_on(add(lock)),
        LockTask::List(list) => block_on(lock_list::run(list)),
        LockTask::Show { id, location } => block_on(show(location, id)),
        LockTask::Import { file, location } => block_on(import(location, file)),
    }
}

async fn add(add: Add) -> anyhow::Result<()> {
    let location = &add.location;
    let stores = Stores::open_now(&location.store()?, &location.data()?).await?;
    let store = stores.locks;
    let (lock, uuid, time) = (add.id, add.uuid, SystemClock.now());
    let recorded = |version, event| RecordedEvent {
        lock,
        uuid: uuid.clone(),
        version: LockVersion(version),
        time,
        write: None,
        cause: None,
        event,
    };
    let new = NewLock {
        serial_number: add.serial,
        owner: add.owner,
        thing: add.thing,
        key_capacity: add.capacity,
        ..NewLock::default()
    };
    let mut events = vec![recorded(1, LockEvent::LockCreated(Box::new(new)))];
    if let Some(organization) = add.organization {
        events.push(recorded(2, LockEvent::OrganizationSet { organization }));
    }
    ensure!(
        store.repo().load(lock).await?.is_none(),
        "lock {lock} exists already; `keywright lock show {lock}` shows it"
    );
    store.history().import(events).await?;
    print_result(location.json, &json!({ "added": lock.get() }), || {
        format!("lock {lock} is added")
    });
    Ok(())
}

async fn show(location: StoreLocation, id: LockId) -> anyhow::Result<()> {
    let store = open_existing(&location.store()?, &location.data()?).await?;
    let snapshot = store.repo().load(id).await?;
    let snapshot = snapshot.with_context(|| format!("there is no lock {id} in this store"))?;
    let writes = snapshot.unfinished.iter().map(|write| {
        json!({
            "id": write.id.to_string(), "state": write.state.name(),
            "requestedAt": write.prepared_at.to_string(), "expiresAt": write.expires_at.to_string(),
        })
    });
    let mut value = summary(&snapshot.lock);
    value["openWrites"] = writes.collect();
    print_result(location.json, &value, || {
        serde_json::to_string_pretty(&value).unwrap_or_default()
    });
    Ok(())
}
