//! Who uses the service, each in a file of their own.

mod careless_client;
mod property_manager;
mod resident;
mod retrying_integration;

use std::sync::atomic::{AtomicU64, Ordering};

use crate::session::Session;

/// How many slots a virtual lock has.
const SLOTS: u64 = 100;

/// Somebody who does something and is done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Persona {
    /// Moves a building in: writes to ten locks at once.
    PropertyManager,
    /// Writes one key, and looks until it is there.
    Resident,
    /// Loses connections, and repeats under the same Idempotency-Key.
    RetryingIntegration,
    /// Sends what is wrong.
    CarelessClient,
}

impl Persona {
    /// All, with how often each comes, in a hundred.
    pub const ALL: [(Self, u16); 4] = [
        (Self::PropertyManager, 10),
        (Self::Resident, 60),
        (Self::RetryingIntegration, 20),
        (Self::CarelessClient, 10),
    ];

    /// What it is called.
    pub const fn name(self) -> &'static str {
        match self {
            Self::PropertyManager => "property manager",
            Self::Resident => "resident",
            Self::RetryingIntegration => "retrying integration",
            Self::CarelessClient => "careless client",
        }
    }

    /// One of them, as often as each comes.
    pub fn any() -> Self {
        let mut drawn = fastrand::u16(0..100);
        for (persona, share) in Self::ALL {
            if drawn < share {
                return persona;
            }
            drawn -= share;
        }
        Self::Resident
    }

    /// What it does, once.
    pub async fn live(self, session: &mut Session<'_>) {
        match self {
            Self::PropertyManager => property_manager::live(session).await,
            Self::Resident => resident::live(session).await,
            Self::RetryingIntegration => retrying_integration::live(session).await,
            Self::CarelessClient => careless_client::live(session).await,
        }
    }
}

/// A key that nobody has had.
fn new_key() -> String {
    static KEYS: AtomicU64 = AtomicU64::new(0);
    let n = KEYS.fetch_add(1, Ordering::Relaxed);
    format!("load-{:08x}-{n}", fastrand::u32(..))
}

/// A slot of a lock: there are enough for few writes to meet in one.
fn any_slot() -> u64 {
    fastrand::u64(0..SLOTS)
}
