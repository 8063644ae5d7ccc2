//! The sandbox: the demo world, its credentials, virtual locks and faults. The only part of the program that knows them; it is
//! left out of a build without the feature `sandbox`.

mod credentials;

use std::sync::Arc;

use keywright_adapters::decorator::{FaultPlan, Faults, FaultyLockRepo, FaultyShadow};
use keywright_adapters::json;
use keywright_domain::model::{LockId, LockVersion};
use keywright_domain::ports::{Clock, LockRepo, ShadowPort};
use keywright_sandbox::{Demo, Shadows, VirtualLocks};
use keywright_shadow::{OpenError, ShadowName, ShadowService};

use super::shadow_access::seconds;
use super::{Error, Store};
use crate::settings::{SandboxSettings, Settings, ShadowChoice};
pub(crate) use credentials::{Bearer, DemoCredentials, TOKEN_KEY, TokenKey, open_credentials};

/// The file of what virtual locks hold, in the folder of data.
pub(crate) const VIRTUAL_LOCKS: &str = "virtual-locks.sqlite";

/// Adds those locks of the demo world that the store does not know yet.
///
/// # Errors
/// The store cannot be used.
pub(super) async fn import(
    store: &Store,
    sandbox: &SandboxSettings,
    clock: &dyn Clock,
) -> Result<(), Error> {
    let now = clock.now().to_string();
    let mut events = Vec::new();
    for lock in sandbox.demo().locks() {
        if store.load(LockId::new(lock.id)?).await?.is_some() {
            continue;
        }
        for ((name, data), version) in lock.events(&now).iter().zip(1..) {
            events.push(json::read_event(name, LockVersion(version), None, data)?);
        }
    }
    if !events.is_empty() {
        store.history().import(events).await?;
    }
    Ok(())
}

/// Puts the faults of the settings around the two ports.
pub(super) fn around(
    sandbox: &SandboxSettings,
    locks: Arc<dyn LockRepo>,
    shadow: Arc<dyn ShadowPort>,
) -> (Arc<dyn LockRepo>, Arc<dyn ShadowPort>) {
    if sandbox.faults == FaultPlan::default() {
        return (locks, shadow);
    }
    let faults = Faults::new(sandbox.faults.clone());
    (
        Arc::new(FaultyLockRepo::new(locks, faults.clone())),
        Arc::new(FaultyShadow::with(shadow, faults)),
    )
}

/// The virtual locks of the demo world, where the settings want them, on shadows of this process.
///
/// # Errors
/// The file of their memories cannot be used.
pub(super) fn start_virtual_locks(
    settings: &Settings,
    sandbox: &SandboxSettings,
    service: &ShadowService,
) -> Result<Option<VirtualLocks>, OpenError> {
    if !sandbox.virtual_locks {
        return Ok(None);
    }
    let name = ShadowName::Named(settings.shadow_name.clone());
    let others = Some(sandbox.behaviours.of_others().clone());
    let file = settings.data.join(VIRTUAL_LOCKS);
    let shadows = Shadows::InProcess(service.clone(), name);
    let mut locks = VirtualLocks::open(&file, shadows, seconds(), others)?;
    for lock in sandbox.demo().locks() {
        locks.add(&lock.thing, sandbox.behaviours.of(lock.id).clone());
    }
    Ok(Some(locks))
}

/// What was started, with a request that works as it stands.
pub(super) fn banner(
    settings: &Settings,
    sandbox: &SandboxSettings,
    url: &str,
    credentials: &DemoCredentials,
    place: &str,
) -> String {
    let (data, lock, foreign) = (settings.data.display(), Demo::LOCK, Demo::FOREIGN_LOCK);
    let (shadows, reports) = (&settings.shadow, &settings.reports);
    let DemoCredentials { token, api_key } = credentials;
    let here = matches!(shadows, ShadowChoice::InProcess { .. });
    let locks = match sandbox.more_locks {
        _ if here && !sandbox.virtual_locks => {
            "virtual locks are off: a write stays SENT".to_owned()
        }
        0 => format!("lock {lock} is yours, lock {foreign} is not"),
        more => {
            let (first, last) = (Demo::FIRST_MORE, Demo::FIRST_MORE + more - 1);
            format!("locks {lock} and {first} to {last} are yours, lock {foreign} is not")
        }
    };
    format!(
        "Keywright's sandbox is at {url}
  data         {place}
  shadows      {shadows}; reports come {reports}
  locks        {locks}
  credentials  {data}/sandbox.env

Write a key:

curl -sS {url}/locks/{lock}/WriteKey -H 'Content-Type: application/json' \
-H 'Authorization: Bearer {token}' -H 'X-API-Key: {api_key}' \
-d '{{\"keyUuid\":\"9b2e8f4a-1c3d-4e5f-8a9b-0c1d2e3f4a5b\",\"keyIndexNumber\":2}}'

"
    )
}
