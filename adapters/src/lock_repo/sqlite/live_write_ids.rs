//! The column `live` of `locks`: the ids of the lock's live writes.

use keywright_domain::model::{LockSnapshot, WriteId};

const ID_BYTES: usize = 16;

/// A list of ids, 16 bytes each.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct LiveIds(Vec<u8>);

impl LiveIds {
    /// `None`: the bytes are not a list of ids.
    pub(super) fn new(bytes: Vec<u8>) -> Option<Self> {
        bytes.len().is_multiple_of(ID_BYTES).then_some(Self(bytes))
    }

    pub(super) fn bytes(&self) -> &[u8] {
        &self.0
    }

    pub(super) fn ids(&self) -> impl Iterator<Item = WriteId> {
        let (ids, _) = self.0.as_chunks::<ID_BYTES>();
        ids.iter()
            .map(|id| WriteId::from_u128(u128::from_be_bytes(*id)))
    }

    pub(super) fn of(snapshot: &LockSnapshot) -> Self {
        let live = snapshot.unfinished.iter().chain(&snapshot.uncleared);
        Self(
            live.flat_map(|write| write.id.as_u128().to_be_bytes())
                .collect(),
        )
    }
}
