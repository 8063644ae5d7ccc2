use keywright_domain::model::{Write, WriteId};

const BYTES: usize = 16;

/// The ids of a lock's live writes, as they stand in its row: 16 bytes each, one after the other.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct LiveIds(Vec<u8>);

impl LiveIds {
    /// `None`: it is no list of ids.
    pub(super) fn new(bytes: Vec<u8>) -> Option<Self> {
        bytes.len().is_multiple_of(BYTES).then_some(Self(bytes))
    }

    pub(super) fn bytes(&self) -> &[u8] {
        &self.0
    }

    pub(super) fn ids(&self) -> impl Iterator<Item = WriteId> {
        let (ids, _) = self.0.as_chunks::<BYTES>();
        ids.iter()
            .map(|id| WriteId::from_u128(u128::from_be_bytes(*id)))
    }

    /// Takes in a write as it is from now on. Whether that has changed anything.
    pub(super) fn put(&mut self, write: &Write) -> bool {
        let place = self.ids().position(|id| id == write.id);
        match (place, write.is_live()) {
            (None, true) => self.0.extend(write.id.as_u128().to_be_bytes()),
            (Some(place), false) => drop(self.0.drain(place * BYTES..(place + 1) * BYTES)),
            _ => return false,
        }
        true
    }
}
