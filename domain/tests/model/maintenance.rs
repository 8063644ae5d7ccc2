//! The lock, expiry and the audit.

use keywright_domain::model::Write;
use keywright_domain::model::WriteId;
use keywright_domain::policy::{self, Finding, Termination};

use crate::protocol_model::ProtocolModel;
use crate::state::{AuditState, ExpiryState, Message, State, Waiter};
use crate::store::limits;
use crate::variant::Variant;

impl ProtocolModel {
    /// The lock executes the entry with the lowest `seq`. One update reports the result and removes the entry.
    pub(crate) fn lock_executes(state: &mut State, id: WriteId) -> Option<()> {
        let seq = |id: &WriteId| state.store.writes[id].seq;
        let first = state
            .shadow
            .entries
            .iter()
            .min_by_key(|id| seq(id))
            .copied();
        if first != Some(id) || state.expired {
            return None;
        }
        state.shadow.entries.remove(&id);
        state.shadow.results.insert(id);
        state.shadow.version = state.shadow.version.next();
        state.executed.insert(id);
        Some(())
    }

    pub(crate) fn load_for_expiry(state: &State, id: WriteId) -> ExpiryState {
        match state.store.writes[&id].is_open() {
            true => ExpiryState::Loaded(id, state.store.revision),
            false => ExpiryState::Not,
        }
    }

    /// Expiry reads the shadow, removes the entry conditionally on the version that it read, and records the end only after the
    /// removal is accepted.
    pub(crate) fn continue_expiry(&self, state: &mut State) -> Option<()> {
        let removal = |id, expected| Message {
            put: None,
            remove: vec![id],
            clear: Vec::new(),
            expected,
            waiter: Some(Waiter::Expiry),
            write: None,
        };
        match state.expiry.clone() {
            ExpiryState::Loaded(id, loaded) if self.is(Variant::ExpireWithoutReading) => {
                state.send(removal(id, None));
                state.expiry = ExpiryState::Waits(id, loaded);
            }
            ExpiryState::Loaded(id, loaded) => {
                let now = state.now();
                if state.shadow.results.contains(&id) {
                    state.store.settle(id, now);
                    state.expiry = Self::load_for_expiry(state, id);
                } else {
                    state.expiry = ExpiryState::Read(id, loaded, state.shadow.version);
                }
            }
            ExpiryState::Read(id, loaded, version) => {
                if state.messages.len() >= self.bounds.messages {
                    return None;
                }
                state.send(removal(id, Some(version)));
                state.expiry = ExpiryState::Waits(id, loaded);
            }
            ExpiryState::Removed(id, loaded, version) => {
                let open = state.store.writes[&id].clone();
                if loaded == state.store.revision && open.is_open() {
                    let (snapshot, now) = (state.store.snapshot(), state.now());
                    let (limits, termination) = (limits(), &Termination::Expired);
                    let (_, save) =
                        policy::terminate(&snapshot, &open, termination, version, &limits, now);
                    state.store.save(save);
                }
                state.expiry = Self::load_for_expiry(state, id);
            }
            ExpiryState::Not | ExpiryState::Waits(..) => return None,
        }
        Some(())
    }

    /// The audit reads the shadow, then the store, and removes unknown entries on the version that it read.
    pub(crate) fn continue_audit(&self, state: &mut State) -> Option<()> {
        let (shadow, store) = match state.audit.clone() {
            AuditState::ShadowRead(shadow) => (*shadow, state.store.clone()),
            AuditState::StoreRead(store) => (state.shadow.clone(), *store),
            AuditState::Not | AuditState::Done => return None,
        };
        state.audit = AuditState::Done;
        let others: Vec<Write> = store.writes.values().cloned().collect();
        let findings = policy::audit(Some(&shadow.snapshot()), &store.snapshot(), &others);
        let unknown = findings.iter().filter_map(|finding| match finding {
            Finding::UnknownEntry(id) => Some(*id),
            _ => None,
        });
        let remove: Vec<WriteId> = unknown.collect();
        if !remove.is_empty() {
            state.shadow.update(&Message {
                put: None,
                remove,
                clear: Vec::new(),
                expected: Some(shadow.version),
                waiter: None,
                write: None,
            });
        }
        Some(())
    }
}
