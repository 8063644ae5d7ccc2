//! The sandbox: demo locks, demo credentials, virtual locks and fault injection. Only this part of the program knows them, and a
//! build without the feature `sandbox` leaves it out.

pub(super) mod banner;
pub(crate) mod credentials;

use std::path::Path;
use std::sync::Arc;

use keywright_adapters::decorator::{FaultInjector, FaultPlan, FaultyLockRepo, FaultyShadow};
use keywright_adapters::json;
use keywright_domain::model::{LockId, LockVersion};
use keywright_domain::ports::{Clock, LockRepo, ShadowPort};
use keywright_sandbox::{Demo, Shadows, VirtualLocks};

use super::clock::epoch_seconds;
use super::lock_store::LockStore;
use crate::settings::{Behaviours, SandboxSettings};

/// The file with the memories of virtual locks, in the data folder.
pub(crate) const VIRTUAL_LOCKS: &str = "virtual-locks.sqlite";

/// Adds the demo locks that are not in the store yet.
///
/// # Errors
/// The store cannot be used.
pub(super) async fn import_locks(
    store: &LockStore,
    sandbox: &SandboxSettings,
    clock: &dyn Clock,
) -> anyhow::Result<()> {
    let (repo, now) = (store.repo(), clock.now().to_string());
    let mut events = Vec::new();
    for lock in sandbox.demo.locks() {
        if repo.load(LockId::new(lock.id)?).await?.is_some() {
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

/// Wraps both ports in decorators that inject the faults of the settings.
pub(super) fn with_faults(
    sandbox: &SandboxSettings,
    locks: Arc<dyn LockRepo>,
    shadow: Arc<dyn ShadowPort>,
) -> (Arc<dyn LockRepo>, Arc<dyn ShadowPort>) {
    if sandbox.faults == FaultPlan::default() {
        return (locks, shadow);
    }
    let faults = FaultInjector::new(sandbox.faults.clone());
    (
        Arc::new(FaultyLockRepo::new(locks, faults.clone())),
        Arc::new(FaultyShadow::with(shadow, faults)),
    )
}

/// Starts a virtual lock for each demo lock, on these shadows. Their memories are in `data`.
///
/// # Errors
/// The file of their memories cannot be used.
pub(crate) fn start_virtual_locks(
    data: &Path,
    shadows: Shadows,
    demo: Demo,
    behaviours: &Behaviours,
) -> anyhow::Result<VirtualLocks> {
    let others = Some(behaviours.of(None).clone());
    let file = data.join(VIRTUAL_LOCKS);
    let mut locks = VirtualLocks::open(&file, shadows, epoch_seconds(), others)?;
    for lock in demo.locks() {
        locks.add(&lock.thing, behaviours.of(Some(lock.id)).clone());
    }
    Ok(locks)
}
