//! What the lock does, expiry, and the audit.

use keywright_domain::model::Write;
use keywright_domain::model::WriteId;
use keywright_domain::policy::{self, Finding, Termination};

use crate::state::{Auditing, Expiring, Message, State, Waiter};
use crate::store::limits;
use crate::variant::Variant;
use crate::world::World;

impl World {
    /// The lock does what it finds, by `seq`, and says so in the same update that takes the entry off.
    pub(crate) fn lock_does(state: &mut State, id: WriteId) -> Option<()> {
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
        state.done.insert(id);
        Some(())
    }

    pub(crate) fn load_for_expiry(state: &State, id: WriteId) -> Expiring {
        match state.store.writes[&id].is_open() {
            true => Expiring::Loaded(id, state.store.revision),
            false => Expiring::Not,
        }
    }

    /// Reads first; removes conditionally on what was read; and only an accepted removal is recorded.
    pub(crate) fn go_on_expiring(&self, state: &mut State) -> Option<()> {
        let removal = |id, expected| Message {
            put: None,
            remove: vec![id],
            clear: Vec::new(),
            expected,
            to: Some(Waiter::Expiry),
            of: None,
        };
        match state.expiring.clone() {
            Expiring::Loaded(id, seen) if self.is(Variant::ExpireWithoutReading) => {
                state.send(removal(id, None));
                state.expiring = Expiring::Waits(id, seen);
            }
            Expiring::Loaded(id, seen) => {
                let now = state.now();
                if state.shadow.results.contains(&id) {
                    state.store.settle(id, now);
                    state.expiring = Self::load_for_expiry(state, id);
                } else {
                    state.expiring = Expiring::Read(id, seen, state.shadow.version);
                }
            }
            Expiring::Read(id, seen, version) => {
                if state.messages.len() >= self.bounds.messages {
                    return None;
                }
                state.send(removal(id, Some(version)));
                state.expiring = Expiring::Waits(id, seen);
            }
            Expiring::Removed(id, seen, version) => {
                let open = state.store.writes[&id].clone();
                if seen == state.store.revision && open.is_open() {
                    let (snapshot, now) = (state.store.snapshot(), state.now());
                    let (limits, ending) = (limits(), Termination::Expired);
                    let (_, save) =
                        policy::terminate(&snapshot, &open, ending, version, &limits, now);
                    state.store.save(save);
                }
                state.expiring = Self::load_for_expiry(state, id);
            }
            Expiring::Not | Expiring::Waits(..) => return None,
        }
        Some(())
    }

    /// The shadow first, the store second; unknown entries are taken off on the version that was read.
    pub(crate) fn go_on_auditing(&self, state: &mut State) -> Option<()> {
        let (shadow, store) = match state.auditing.clone() {
            Auditing::ShadowRead(shadow) => (*shadow, state.store.clone()),
            Auditing::StoreRead(store) => (state.shadow.clone(), *store),
            Auditing::Not | Auditing::Done => return None,
        };
        state.auditing = Auditing::Done;
        let others: Vec<Write> = store.writes.values().cloned().collect();
        let findings = policy::audit(Some(&shadow.snapshot()), &store.snapshot(), &others);
        let unknown = findings.iter().filter_map(|finding| match finding {
            Finding::UnknownEntry(id) => Some(*id),
            _ => None,
        });
        let remove: Vec<WriteId> = unknown.collect();
        if !remove.is_empty() {
            state.shadow.take(&Message {
                put: None,
                remove,
                clear: Vec::new(),
                expected: Some(shadow.version),
                to: None,
                of: None,
            });
        }
        Some(())
    }
}
