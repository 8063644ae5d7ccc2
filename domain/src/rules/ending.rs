//! The end of an open write that the lock has not settled.

use super::decide::Limits;
use super::draft::Draft;
use crate::event::LockEvent;
use crate::lock::LockSnapshot;
use crate::ports::Save;
use crate::values::{ShadowVersion, Timestamp};
use crate::write::{Write, WriteState};

/// Why a write is taken off the shadow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ending {
    /// Its time to live is over.
    Expired,
    /// Someone took it back.
    Withdrawn,
}

/// Ends an open write, once an update of the shadow at the version that was read has taken its entry
/// off; `accepted` is the version after that update. The snapshot is older than that update, so that
/// nobody who put the entry back in between goes unnoticed.
pub fn end(
    snapshot: &LockSnapshot,
    open: &Write,
    ending: Ending,
    accepted: ShadowVersion,
    limits: &Limits,
    now: Timestamp,
) -> (Write, Save) {
    let (state, event) = match ending {
        Ending::Expired => (
            WriteState::Expired { at: now },
            LockEvent::KeyWriteExpired(open.slot.clone()),
        ),
        Ending::Withdrawn => (
            WriteState::Withdrawn { at: now },
            LockEvent::KeyWriteWithdrawn(open.slot.clone()),
        ),
    };
    let mut draft = Draft::new(snapshot, now);
    draft.append(open.id, event);
    let ended = Write {
        state,
        attention: Some(last_look(limits, now)),
        ..open.clone()
    };
    draft.put(ended.clone());
    (ended, draft.save(Some(accepted)))
}

/// The lock may have been at a write that ended without its word: its shadow is read once more, for a
/// report that got lost and for a result that says no more than that.
pub(super) fn last_look(limits: &Limits, ended: Timestamp) -> Timestamp {
    ended.after(limits.confirm_within)
}
