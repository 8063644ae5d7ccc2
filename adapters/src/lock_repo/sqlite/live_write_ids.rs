//! The column `live` of `locks`: the ids of the lock's live writes.

use keywright_domain::model::{Write, WriteId};

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

    /// Adds a write that has become live, or removes one that no longer is. Returns whether the list has changed.
    pub(super) fn update(&mut self, write: &Write) -> bool {
        let position = self.ids().position(|id| id == write.id);
        match (position, write.is_live()) {
            (None, true) => self.0.extend(write.id.as_u128().to_be_bytes()),
            (Some(n), false) => drop(self.0.drain(n * ID_BYTES..(n + 1) * ID_BYTES)),
            _ => return false,
        }
        true
    }
}
