//! Logs the steps of writes and the failures of calls, without keys and credentials.

use std::collections::HashSet;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use keywright_domain::model::{
    KeyIndex, LockEvent, RecordedEvent, Save, Settled, Write, WriteId, WriteState,
};
use keywright_domain::ports::{RepoError, ShadowError};
use tracing::{Level, debug, enabled, info, warn};

use super::observer::{CallOutcome, Observer, PortCall};

/// How many writes in progress are remembered. Above it, a step may be logged twice.
const MAX_IN_PROGRESS: usize = 64 * 1024;

/// Logs each step in the life of a write at level `info`, failures as warnings, and other calls of shadows at level `debug`.
#[derive(Default)]
pub struct WriteLog {
    /// Writes whose step `IN_PROGRESS` has been logged.
    in_progress: Mutex<HashSet<WriteId>>,
}

impl Observer for WriteLog {
    fn call_ended(&self, call: &PortCall<'_>, outcome: &CallOutcome<'_>, took: Duration) {
        let micros = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
        match (*call, *outcome) {
            (PortCall::ShadowUpdate { thing, .. }, CallOutcome::GivenUp) => {
                let call = "update";
                warn!(%thing, call, "the shadow did not answer in time; the call was given up");
            }
            (PortCall::ShadowRead { thing }, CallOutcome::GivenUp) => {
                let call = "reading";
                warn!(%thing, call, "the shadow did not answer in time; the call was given up");
            }
            (
                PortCall::ShadowUpdate {
                    thing,
                    token,
                    expected,
                    ..
                },
                outcome,
            ) => {
                let (token, expected) = (token.as_str(), expected.map(|v| v.0));
                match outcome {
                    CallOutcome::ShadowVersion(Some(version)) => {
                        debug!(%thing, token, expected, %version, micros, "shadow updated");
                    }
                    CallOutcome::ShadowFailed(ShadowError::Conflict) => {
                        debug!(%thing, token, expected, micros, "shadow has another version");
                    }
                    CallOutcome::ShadowFailed(error) => {
                        warn!(%thing, token, expected, %error, micros, "shadow not updated");
                    }
                    _ => {}
                }
            }
            (PortCall::ShadowRead { thing }, CallOutcome::ShadowVersion(version)) => {
                let version = version.map(|v| v.0);
                debug!(%thing, version, micros, "shadow read");
            }
            (PortCall::ShadowRead { thing }, CallOutcome::ShadowFailed(error)) => {
                warn!(%thing, %error, micros, "shadow not read");
            }
            (PortCall::Load { lock }, CallOutcome::StoreFailed(error)) => {
                warn!(%lock, %error, "lock not loaded");
            }
            (PortCall::Save { lock }, CallOutcome::StoreFailed(RepoError::Stale)) => {
                debug!(%lock, micros, "lock has changed, deciding again");
            }
            (PortCall::Save { lock }, CallOutcome::StoreFailed(error)) => {
                warn!(%lock, %error, micros, "lock not saved");
            }
            (PortCall::Claim, CallOutcome::Claimed(write)) => {
                let (lock, write) = (write.lock, write.id);
                info!(%lock, %write, "taken over, its outcome is not known");
            }
            (PortCall::Claim, CallOutcome::StoreFailed(error)) => {
                warn!(%error, "unfinished writes could not be claimed");
            }
            _ => {}
        }
    }

    fn saved(&self, save: &Save) {
        // Without this level, no step is logged.
        if enabled!(Level::INFO) {
            for write in &save.writes {
                self.log_step(write, &save.events);
            }
        }
        let lock = save.lock;
        for (write, anomaly) in &save.new_anomalies {
            let anomaly = anomaly.name();
            warn!(%lock, %write, anomaly, "the lock's answer breaks the device contract");
        }
    }
}

impl WriteLog {
    /// Logs one line for each event of the write, or one for a step without an event. Other saves of a write (its result was
    /// cleared, its shadow was checked) are no steps.
    fn log_step(&self, write: &Write, events: &[RecordedEvent]) {
        let (lock, id, step) = (write.lock, write.id, write.state.name());
        let index = write.slot.index.map(KeyIndex::get);
        let mut own = events.iter().filter(|e| e.write == Some(id)).peekable();
        let has_event = own.peek().is_some();
        for recorded in own {
            let (event, version) = (recorded.event.name(), recorded.version.0);
            match &write.state {
                // A report that arrived early settles the write in the save that records its request.
                _ if matches!(recorded.event, LockEvent::KeyWriteRequested(_)) => {
                    info!(%lock, write = %id, version, event, "SENT");
                }
                WriteState::Failed(reason, Settled { late, .. }) => {
                    info!(%lock, write = %id, version, event, %reason, late, "{step}");
                }
                WriteState::Succeeded(Settled { late, .. }) => {
                    info!(%lock, write = %id, version, event, late, "{step}");
                }
                _ => info!(%lock, write = %id, version, event, "{step}"),
            }
        }
        match &write.state {
            WriteState::Prepared(_) => {
                info!(%lock, write = %id, index, by = write.cause.requested_by, "{step}");
            }
            WriteState::Aborted { reason, .. } => info!(%lock, write = %id, %reason, "{step}"),
            WriteState::InProgress if self.starts(id) => info!(%lock, write = %id, "{step}"),
            _ if has_event => {
                self.in_progress().remove(&id);
            }
            _ => debug!(%lock, write = %id, step, "write checked"),
        }
    }

    /// Whether the write was not in progress before.
    fn starts(&self, id: WriteId) -> bool {
        let mut in_progress = self.in_progress();
        if in_progress.len() >= MAX_IN_PROGRESS {
            in_progress.clear();
        }
        in_progress.insert(id)
    }

    fn in_progress(&self) -> MutexGuard<'_, HashSet<WriteId>> {
        self.in_progress
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}
